//! TOML text → a tree whose every value knows its place, with environment variables filled in; and
//! a file laid over a preset. No key names here, except that what stands under `secret` is one.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Place, Problems};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    /// A float, a date or a number too large: nothing here takes one.
    Other,
    /// A problem with it has been told already.
    Broken,
    List(Vec<Node>),
    Table(Entries),
}

impl Value {
    /// A whole number; also as text, since environment variables are text.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// The entries of a table.
pub(super) type Entries = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where the key stands.
    pub(super) key: Place,
    pub(super) node: Node,
}

/// Takes environment variables by name.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Reads `text`. With syntax errors there is no tree, as what follows from them helps nobody. Also
/// gives the spans that must not be shown.
pub(super) fn parse(
    source: usize,
    text: &str,
    env: Environment<'_>,
    problems: &Problems,
) -> (Option<Entries>, Vec<Range<usize>>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut secrets = written_secrets(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let at = Place::new(source, span.start..span.end.max(span.start + 1));
        problems.missing(&at, format!("not TOML: {}", error.message()), "");
    }
    let mut converter = Converter { source, env, problems, secrets: Vec::new() };
    let entries = errors.is_empty().then(|| converter.table(table.into_inner()));
    secrets.append(&mut converter.secrets);
    (entries, secrets)
}

/// Lays `over` on `under`: tables key by key, everything else as a whole.
pub(super) fn overlay(under: &mut Entries, over: Entries) {
    for (key, mut entry) in over {
        if let Some(below) = under.get_mut(&key)
            && let Value::Table(below) = &mut below.node.value
            && let Value::Table(above) = &mut entry.node.value
        {
            let mut merged = std::mem::take(below);
            overlay(&mut merged, std::mem::take(above));
            entry.node.value = Value::Table(merged);
        }
        under.insert(key, entry);
    }
}

struct Converter<'e> {
    source: usize,
    env: Environment<'e>,
    problems: &'e Problems,
    secrets: Vec<Range<usize>>,
}

impl Converter<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Entries {
        table
            .into_iter()
            .map(|(key, value)| {
                let place = Place::new(self.source, key.span());
                let name = key.into_inner().into_owned();
                if name == "secret"
                    && !value.get_ref().as_str().is_some_and(|text| text.contains("${"))
                {
                    self.secrets.push(value.span());
                }
                (name, Entry { key: place, node: self.node(value) })
            })
            .collect()
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let at = Place::new(self.source, value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => self.fill(&text, &at).map_or(Value::Broken, Value::Text),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other, Value::Integer),
            DeValue::Boolean(flag) => Value::Flag(flag),
            DeValue::Float(_) | DeValue::Datetime(_) => Value::Other,
            DeValue::Array(list) => {
                Value::List(list.into_iter().map(|item| self.node(item)).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { value, at }
    }

    /// Puts environment variables in for `${NAME}`; `$${` stands for `${`.
    fn fill(&self, text: &str, at: &Place) -> Option<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find("${") {
            if let Some(before) = rest[..dollar].strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = &rest[dollar + 2..];
                continue;
            }
            filled.push_str(&rest[..dollar]);
            let name = rest[dollar + 2..].split_once('}').map(|(name, _)| name);
            let Some(name) = name.filter(|name| is_variable_name(name)) else {
                self.problems.wrong(
                    at,
                    "`${` starts the name of an environment variable, but none follows",
                    "`${NAME}`, or `$${` for the characters `${` themselves",
                );
                return None;
            };
            let Some(value) = (self.env)(name) else {
                self.problems.wrong(
                    at,
                    format!("the environment variable {name} is not set"),
                    format!("set {name} for this process, or write the value itself"),
                );
                return None;
            };
            filled.push_str(&value);
            rest = &rest[dollar + name.len() + 3..];
        }
        filled.push_str(rest);
        Some(filled)
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// What looks like the value of a `secret` key, as a file that does not parse has no tree to tell,
/// and like the user and password of a URL.
fn written_secrets(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    for (at, word) in text.match_indices("secret") {
        let rest = &text[at + word.len()..];
        let line = rest.split('\n').next().unwrap_or_default();
        let Some(value) = line.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=') else {
            continue;
        };
        let value = value.trim_start();
        if value.contains("${") {
            continue;
        }
        let start = at + word.len() + (line.len() - value.len());
        let length = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |end| end + 2),
            _ => value.len(),
        };
        secrets.push(start..start + length);
    }
    for (at, colon) in text.match_indices("://") {
        let start = at + colon.len();
        let rest = &text[start..];
        let authority = rest.split(['/', '"', '\'', '\n']).next().unwrap_or_default();
        if let Some(end) = authority.rfind('@') {
            secrets.push(start..start + end);
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Entries, bool) {
        let problems = Problems::default();
        let env = |name: &str| (name == "PORT").then(|| "80".to_owned());
        let (entries, _) = parse(0, text, &env, &problems);
        (entries.unwrap(), problems.is_empty())
    }

    fn text(entries: &Entries, key: &str) -> String {
        match &entries[key].node.value {
            Value::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn variables_are_filled_in_and_can_be_escaped() {
        let (entries, fine) = tree(
            r#"a = "h:${PORT}/${PORT}"
b = "$${PORT} $5 $""#,
        );
        assert!(fine);
        assert_eq!(text(&entries, "a"), "h:80/80");
        assert_eq!(text(&entries, "b"), "${PORT} $5 $");
        for wrong in ["a = \"${NOPE}\"", "a = \"${PORT\"", "a = \"${}\"", "a = \"${1}\""] {
            assert!(!tree(wrong).1, "{wrong}");
        }
    }

    #[test]
    fn a_file_is_laid_over_a_preset_key_by_key() {
        let (mut under, _) = tree("[a]\nx = 'p'\ny = 'p'\n[[l]]\nn = 1\n[[l]]\nn = 2");
        let (over, _) = tree("[a]\ny = 'o'\n[[l]]\nn = 3");
        overlay(&mut under, over);
        let Value::Table(a) = &under["a"].node.value else { panic!() };
        assert_eq!((text(a, "x"), text(a, "y")), ("p".to_owned(), "o".to_owned()));
        let Value::List(list) = &under["l"].node.value else { panic!() };
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn secrets_are_found_in_what_does_not_parse() {
        let broken = "t = [{ name = , \"secret\" = \"hunter2\" }]\nu = 'a://b:c@d/@'\nsecret = 'x";
        let (_, secrets) = parse(0, broken, &|_| None, &Problems::default());
        let hidden: Vec<&str> = secrets.into_iter().map(|span| &broken[span]).collect();
        assert_eq!(hidden, ["\"hunter2\"", "'x", "b:c"]);
    }
}
