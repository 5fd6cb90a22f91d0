//! Problems found in a configuration, and how they are shown: headline, file, line, column, carets.
//! Nothing here knows a key or reads a file.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::ops::Range;

/// Longest piece of the file quoted after `seen`.
const SEEN_CHARS_MAX: usize = 80;

/// Bytes `start..end` of one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) source: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Place {
    /// The file as a whole, for what is missing from it.
    pub(super) const FILE: Self = Self { source: 0, start: 0, end: 0 };

    pub(super) fn new(source: usize, span: Range<usize>) -> Self {
        Self { source, start: span.start, end: span.end }
    }
}

/// A text that was read: the operator's file or a preset.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
    /// What must not be shown.
    pub(super) secrets: Vec<Range<usize>>,
}

impl Source {
    /// The text with a `…` in place of each secret.
    pub(super) fn without_secrets(&self) -> String {
        let mut out = String::with_capacity(self.text.len());
        let mut hidden_to = 0;
        for (at, character) in self.text.char_indices() {
            let Some(secret) = self.secrets.iter().find(|secret| secret.contains(&at)) else {
                out.push(character);
                continue;
            };
            if at >= hidden_to {
                out.push('…');
            }
            hidden_to = hidden_to.max(secret.end);
        }
        out
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    at: Place,
    headline: String,
    /// Whether the text at `at` is what is wrong (else it is where something is missing).
    seen: bool,
    allowed: String,
}

/// Collects while reading; reading goes on after a problem so that all are told at once.
#[derive(Default)]
pub(super) struct Problems {
    list: RefCell<Vec<Problem>>,
}

impl Problems {
    /// The text at `at` is wrong.
    pub(super) fn wrong(
        &self,
        at: &Place,
        headline: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.push(at, headline.into(), allowed.into(), true);
    }

    /// Something is missing at `at`.
    pub(super) fn missing(
        &self,
        at: &Place,
        headline: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.push(at, headline.into(), allowed.into(), false);
    }

    fn push(&self, at: &Place, headline: String, allowed: String, seen: bool) {
        self.list.borrow_mut().push(Problem { at: at.clone(), headline, seen, allowed });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// All problems in the order of their places; one that was met twice is told once.
    pub(super) fn into_report(self, sources: &[Source]) -> Report {
        let mut list = self.list.into_inner();
        list.sort();
        list.dedup();
        Report { problems: list.iter().map(|problem| problem.render(sources)).collect() }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Report {
    problems: Vec<String>,
}

impl Report {
    /// One problem without a place in a file.
    pub(super) fn plain(headline: &str, advice: &str) -> Self {
        Self { problems: vec![format!("error: {headline}\n  = allowed: {advice}\n")] }
    }

    /// How many problems there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a report without a problem is not made")]
    pub fn len(&self) -> usize {
        self.problems.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for Report {}

impl Problem {
    fn render(&self, sources: &[Source]) -> String {
        let mut out = format!("error: {}\n", self.headline);
        let Some(source) = sources.get(self.at.source) else {
            return out;
        };
        if self.at.end == 0 {
            let _ = writeln!(out, "  --> {}", source.name);
        } else {
            self.render_line(source, &mut out);
        }
        if !self.allowed.is_empty() {
            let _ = writeln!(out, "  = allowed: {}", self.allowed);
        }
        out
    }

    fn render_line(&self, source: &Source, out: &mut String) {
        let text = &source.text;
        let start = floor(text, self.at.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line_end = line_start + text[line_start..line_end].trim_end_matches('\r').len();
        let number = text[..start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let end = self.at.end.max(start + 1);
        let (mut line, mut carets) = (String::new(), String::new());
        for (at, character) in source.visible(line_start..line_end) {
            line.push(character);
            carets.push(if (start..end).contains(&at) {
                '^'
            } else if character == '\t' {
                '\t'
            } else {
                ' '
            });
        }
        if start >= line_end {
            carets.push('^');
        }
        let gutter = " ".repeat(number.to_string().len());
        let _ = writeln!(out, "{gutter} --> {}:{number}:{column}", source.name);
        let _ = writeln!(out, "{gutter} |");
        let _ = writeln!(out, "{number} | {}", line.trim_end());
        let _ = writeln!(out, "{gutter} | {}", carets.trim_end());
        let seen: String =
            source.visible(start..floor(text, end)).map(|(_, character)| character).collect();
        if self.seen && !seen.trim().is_empty() && seen.chars().count() <= SEEN_CHARS_MAX {
            let _ = writeln!(out, "  = seen: {}", seen.trim());
        }
    }
}

impl Source {
    /// The characters of a range as they may be shown: secrets as one `…`, control characters as a
    /// replacement, so that a file cannot send commands to the operator's terminal.
    fn visible(&self, range: Range<usize>) -> impl Iterator<Item = (usize, char)> {
        let base = range.start;
        let mut hiding = None;
        self.text[range].char_indices().filter_map(move |(at, character)| {
            let at = base + at;
            let secret = self.secrets.iter().position(|secret| secret.contains(&at));
            let again = secret.is_some() && secret == hiding;
            hiding = secret;
            match character {
                _ if again => None,
                _ if secret.is_some() => Some((at, '…')),
                '\t' => Some((at, '\t')),
                '\n' => Some((at, ' ')),
                character if is_unsafe(character) => Some((at, char::REPLACEMENT_CHARACTER)),
                character => Some((at, character)),
            }
        })
    }
}

fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, span: Range<usize>, secret: Option<Range<usize>>) -> String {
        let problems = Problems::default();
        problems.wrong(&Place::new(0, span), "it is wrong", "something else");
        let source = Source {
            name: "x.toml".to_owned(),
            text: text.to_owned(),
            secrets: secret.into_iter().collect(),
        };
        problems.into_report(&[source]).to_string()
    }

    #[test]
    fn carets_stand_under_the_value() {
        assert_eq!(
            show("a = 1\n\tbé = 22\n", 13..15, None),
            "error: it is wrong\n  --> x.toml:2:7\n  |\n2 | \tbé = 22\n  | \t     ^^\n  \
             = seen: 22\n  = allowed: something else\n"
        );
    }

    #[test]
    fn a_secret_on_the_line_is_not_shown() {
        let shown = show("t = { secret = \"hunter2\", role = 7 }", 33..34, Some(15..24));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("secret = …, role = 7"), "{shown}");
        let shown = show("secret = \"hunter2\"", 9..18, Some(9..18));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn control_characters_and_odd_spans_do_no_harm() {
        assert!(!show("a = \"\u{1b}[2J\u{202e}\"", 4..7, None).contains(['\u{1b}', '\u{202e}']));
        assert!(show("a = 1\r\nb = 2\r\n", 11..12, None).contains("\n2 | b = 2\n"));
        for span in [0..0, 0..1, 3..4, 5..5, 6..90, 90..95] {
            show("é = ü\n", span, None);
        }
    }
}
