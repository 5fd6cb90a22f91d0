//! Reads typed values out of a table, with units and ranges, and knows which keys were asked for, so
//! that the rest is unknown. A value that does not fit is a problem and yields the default; reading
//! goes on. No key names here.

use std::ops::RangeInclusive;

use super::diagnostic::{Place, Problems};
use super::tree::{Entries, Node, Value};
use super::units::{SIZES, TIMES, duration_text, measured, with_unit};
use super::wording::{alternatives, nearest};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: Place,
}

/// One table, emptied key by key. [`Table::finish`] complains about what is left.
pub(super) struct Table<'p> {
    pub(super) problems: &'p Problems,
    /// Where it begins.
    pub(super) at: Place,
    path: String,
    entries: Entries,
    known: Vec<&'static str>,
}

impl<'p> Table<'p> {
    pub(super) fn root(entries: Entries, problems: &'p Problems) -> Self {
        Self { problems, at: Place::FILE, path: String::new(), entries, known: Vec::new() }
    }

    /// Whether it is the file itself.
    pub(super) fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    /// The name of a key as messages give it.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the key is written and not read yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether more than an empty list is written under the key.
    pub(super) fn has_some(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(
            |entry| !matches!(&entry.node.value, Value::List(items) if items.is_empty()),
        )
    }

    /// Where the texts of a list stand.
    pub(super) fn positions(&self, key: &str) -> Vec<Place> {
        match self.entries.get(key).map(|entry| &entry.node) {
            Some(Node { value: Value::List(items), .. }) => {
                items.iter().map(|item| item.at.clone()).collect()
            }
            Some(node) => vec![node.at.clone()],
            None => Vec::new(),
        }
    }

    /// The value of a key, as it is; nothing where it has been complained about already.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let node = self.entries.remove(key)?.node;
        (!matches!(node.value, Value::Broken)).then_some(node)
    }

    /// The table under a key; an empty one where there is none.
    pub(super) fn table(&mut self, key: &'static str) -> Self {
        let path = self.name(key);
        let at = self.at.clone();
        self.table_if_any(key).unwrap_or(Self {
            problems: self.problems,
            at,
            path,
            entries: Entries::new(),
            known: Vec::new(),
        })
    }

    pub(super) fn table_if_any(&mut self, key: &'static str) -> Option<Self> {
        let node = self.take(key)?;
        self.open(key, node, "a table")
    }

    /// The node as a table.
    pub(super) fn open(&self, key: &str, node: Node, allowed: &str) -> Option<Self> {
        match node.value {
            Value::Table(entries) => Some(Self {
                problems: self.problems,
                at: node.at,
                path: self.name(key),
                entries,
                known: Vec::new(),
            }),
            _ => {
                self.wrong(key, &node.at, "is not a table", allowed);
                None
            }
        }
    }

    /// The tables of a list of tables.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let allowed = format!("`[[{}]]`, once for each", self.name(key));
        match node.value {
            Value::List(items) => {
                items.into_iter().filter_map(|item| self.open(key, item, &allowed)).collect()
            }
            _ => {
                self.wrong(key, &node.at, "is not a list of tables", &allowed);
                Vec::new()
            }
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<At<String>> {
        let node = self.take(key)?;
        self.to_text(key, node)
    }

    pub(super) fn to_text(&self, key: &str, node: Node) -> Option<At<String>> {
        match node.value {
            Value::Text(value) => Some(At { value, at: node.at }),
            Value::Broken => None,
            _ => {
                self.wrong(key, &node.at, "is not text", "text in quotes");
                None
            }
        }
    }

    /// A text or a list of them.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<At<String>> {
        self.take(key).map(|node| self.to_texts(key, node)).unwrap_or_default()
    }

    pub(super) fn to_texts(&self, key: &str, node: Node) -> Vec<At<String>> {
        self.to_nodes(node).into_iter().filter_map(|item| self.to_text(key, item)).collect()
    }

    /// One value or a list of them, as a list.
    pub(super) fn to_nodes(&self, node: Node) -> Vec<Node> {
        match node.value {
            Value::List(items) => items,
            _ => vec![node],
        }
    }

    /// A table with keys of the operator's choice.
    pub(super) fn pairs(&mut self, key: &'static str) -> Vec<(At<String>, Node)> {
        let Some(table) = self.table_if_any(key) else { return Vec::new() };
        table
            .entries
            .into_iter()
            .map(|(name, entry)| (At { value: name, at: entry.key }, entry.node))
            .collect()
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Node { value: Value::Flag(flag), .. }) => flag,
            Some(node) => {
                self.wrong(key, &node.at, "is neither true nor false", "true or false");
                default
            }
        }
    }

    /// One of several words. `later` are words of a version to come.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
        later: &[&str],
    ) -> T {
        self.choice_if_any(key, words, later).map_or(default, |choice| choice.value)
    }

    pub(super) fn choice_if_any<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<At<T>> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(At { value: *value, at: text.at });
        }
        let allowed = alternatives(words.iter().map(|(word, _)| format!("\"{word}\"")));
        let what = if later.contains(&text.value.as_str()) {
            format!("= \"{}\" is not available in this version", text.value)
        } else {
            "has an unknown value".to_owned()
        };
        self.wrong(key, &text.at, &what, &allowed);
        None
    }

    /// A whole number within a range.
    pub(super) fn count(&mut self, key: &'static str, default: u64, range: Range) -> u64 {
        let Some(node) = self.take(key) else { return default };
        let number = node.value.integer().and_then(|number| u64::try_from(number).ok());
        let within = number.filter(|number| range.contains(number));
        within.unwrap_or_else(|| {
            let allowed = format!("a whole number from {} to {}", range.start(), range.end());
            self.wrong(key, &node.at, "is not a number in its range", &allowed);
            default
        })
    }

    /// A duration in milliseconds.
    pub(super) fn duration(&mut self, key: &'static str, default: u64, range: Range) -> u64 {
        self.duration_at(key, range).map_or(default, |duration| duration.value)
    }

    pub(super) fn duration_at(&mut self, key: &'static str, range: Range) -> Option<At<u64>> {
        let node = self.take(key)?;
        self.to_duration(key, node, range, "")
    }

    /// A duration or `"none"`.
    pub(super) fn timeout(&mut self, key: &'static str, range: Range) -> Option<At<Option<u64>>> {
        let node = self.take(key)?;
        if is_none(&node) {
            return Some(At { value: None, at: node.at });
        }
        let duration = self.to_duration(key, node, range, ", or \"none\"")?;
        Some(At { value: Some(duration.value), at: duration.at })
    }

    fn to_duration(&self, key: &str, node: Node, range: Range, or: &str) -> Option<At<u64>> {
        let value = measured(&node, TIMES);
        if let Some(value) = value.filter(|value| range.contains(value)) {
            return Some(At { value, at: node.at });
        }
        let what =
            if value.is_some() { "is out of its range" } else { "is not a duration with its unit" };
        let allowed = format!(
            "a duration from \"{}\" to \"{}\", in ms, s, m, h or d, like \"90s\" or \"1h30m\"{or}",
            duration_text(*range.start()),
            duration_text(*range.end())
        );
        self.wrong(key, &node.at, what, &allowed);
        None
    }

    /// A size in bytes.
    pub(super) fn size(&mut self, key: &'static str, default: u64, range: Range) -> u64 {
        let node = self.take(key);
        node.and_then(|node| self.to_size(key, &node, &range, "")).unwrap_or(default)
    }

    /// A size or `"none"`; none by default.
    pub(super) fn size_or_none(&mut self, key: &'static str, range: &Range) -> Option<u64> {
        let node = self.take(key).filter(|node| !is_none(node))?;
        self.to_size(key, &node, range, ", or \"none\"")
    }

    fn to_size(&self, key: &str, node: &Node, range: &Range, or: &str) -> Option<u64> {
        let value = measured(node, SIZES);
        if value.is_some_and(|value| range.contains(&value)) {
            return value;
        }
        let what =
            if value.is_some() { "is out of its range" } else { "is not a size with its unit" };
        let allowed = format!(
            "a size from \"{}\" to \"{}\", in B, KiB, MiB or GiB{or}",
            with_unit(*range.start(), SIZES),
            with_unit(*range.end(), SIZES)
        );
        self.wrong(key, &node.at, what, &allowed);
        None
    }

    /// Keys that a later version brings: an error that says so.
    pub(super) fn later(&mut self, keys: &[(&'static str, &str)]) {
        for (key, instead) in keys {
            if let Some(entry) = self.entries.remove(*key) {
                self.wrong(key, &entry.key, "is not available in this version", instead);
            }
        }
    }

    /// Keys that belong into another table.
    pub(super) fn elsewhere(&mut self, keys: &[&'static str], table: &str) {
        for key in keys {
            if let Some(entry) = self.entries.remove(*key) {
                let allowed = format!("`{key}` in [{table}]");
                self.wrong(key, &entry.key, "stands in another table", &allowed);
            }
        }
    }

    /// Complains about the value of a key.
    pub(super) fn wrong(&self, key: &str, at: &Place, what: &str, allowed: &str) {
        self.problems.wrong(at, format!("`{}` {what}", self.name(key)), allowed);
    }

    /// Complains that a key is missing.
    pub(super) fn missing(&self, key: &str, what: &str, allowed: &str) {
        self.problems.missing(&self.at, format!("`{}` {what}", self.name(key)), allowed);
    }

    /// Complains about the table as a whole.
    pub(super) fn problem(&self, headline: &str, allowed: &str) {
        self.problems.missing(&self.at, headline.to_owned(), allowed);
    }

    /// What is left was never asked for.
    pub(super) fn finish(mut self) {
        self.known.sort_unstable();
        for (key, entry) in &self.entries {
            let place = if self.path.is_empty() {
                "at the top level".to_owned()
            } else {
                format!("in `{}`", self.path)
            };
            let hint = nearest(key, &self.known)
                .map(|known| format!("; did you mean `{known}`?"))
                .unwrap_or_default();
            let keys = self.known.join(", ");
            let shown: String = key.chars().take(60).flat_map(char::escape_debug).collect();
            let headline = format!("unknown key `{shown}` {place}{hint}");
            self.problems.wrong(&entry.key, headline, keys);
        }
    }
}

/// From, to; both allowed.
pub(super) type Range = RangeInclusive<u64>;

fn is_none(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if text == "none")
}
