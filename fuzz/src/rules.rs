//! Configuration: every text is either read or refused with its place, and nothing else happens.

use headcount::rules::expression::Expression;
use headcount::rules::matcher::Glob;

/// The first byte says whether it is an expression, a pattern with a text, or a whole file.
pub fn rules(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match kind % 2 {
        0 => expression(text),
        _ => pattern(text),
    }
}

fn expression(text: &str) {
    // Its own line: what it is applied to.
    let (written, value) = text.split_once('\n').unwrap_or((text, "alice"));
    match Expression::parse(written) {
        Ok(expression) => {
            let start = Some(value.to_owned());
            let read = expression.filters.iter().fold(start, |value, filter| filter.apply(&value?));
            // Nothing grows without bound: an inflated cookie is the largest.
            assert!(read.is_none_or(|read| read.len() <= 64 * 1024 + 8 * value.len()), "{text:?}");
        }
        Err(allowed) => assert!(!allowed.is_empty(), "{text:?}: says what is allowed"),
    }
}

fn pattern(text: &str) {
    let (pattern, value) = text.split_once('\n').unwrap_or((text, text));
    let glob = Glob::name(pattern);
    assert_eq!(glob.to_string(), pattern);
    if let Some(literal) = glob.literal() {
        assert_eq!(glob.matches(value), literal == value, "{text:?}");
    }
    assert_eq!(glob.matches(value), plainly(pattern.as_bytes(), value.as_bytes()), "{text:?}");
    // A path's star stays in its segment, so it fits no more than a name's.
    assert!(!Glob::path(pattern).matches(value) || glob.matches(value), "{text:?}");
}

/// The textbook matcher, on characters' bytes: `*` any run, `?` one character.
fn plainly(pattern: &[u8], text: &[u8]) -> bool {
    let (pattern, text) = (String::from_utf8_lossy(pattern), String::from_utf8_lossy(text));
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for token in pattern {
        let mut next = vec![false; text.len() + 1];
        next[0] = token == '*' && row[0];
        for (at, character) in text.iter().enumerate() {
            next[at + 1] = match token {
                '*' => row[at + 1] || next[at],
                '?' => row[at],
                token => row[at] && token == *character,
            };
        }
        row = next;
    }
    row[text.len()]
}
