//! Cookie lines: whatever comes in, what goes up holds at most one tracked cookie, ours, in the eyes
//! of every parser.

use headcount::cookies as subject;
use headcount::rules::matcher::Glob;
use headcount::rules::{Credential, Role, RuleSet};

use super::header_bytes;
use super::parsers::PARSERS;

const NAMES: &[&str] = &["sid", "my_sess", "connect.sid"];
const OURS: &[u8] = b"s:0urs.AbC-dEf";

fn rule_set() -> RuleSet {
    let cookies = NAMES.iter().map(|name| Glob::name(name)).collect();
    let credential =
        Credential { cookies, tokens: Vec::new(), role: Role::Session, key: Vec::new() };
    let credentials = vec![credential];
    RuleSet { credentials, ..RuleSet::default() }
}

/// The names under which an app of any kind would look for a tracked cookie.
fn is_tracked(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    // PHP has no dots in names.
    NAMES.iter().any(|known| name == known.as_bytes() || name == known.replace('.', "_").as_bytes())
}

/// Cookie lines, one on each line, around the session's own cookie or without it.
pub fn cookies(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let lines: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(header_bytes).collect();
    let rules = rule_set();
    let scan = subject::scan(lines.iter().map(|line| &**line), &rules);
    let ours: &[(&str, &[u8])] = if choice & 1 == 1 { &[("sid", OURS)] } else { &[] };
    let Some(line) = subject::join(ours.iter().copied(), &scan.others) else {
        assert!(ours.is_empty());
        return;
    };
    for parser in PARSERS {
        let pairs = (parser.pairs)(&line);
        let tracked = pairs.iter().filter(|(name, _)| is_tracked(name));
        let foreign =
            tracked.filter(|(name, value)| ours.is_empty() || name != b"sid" || value != OURS);
        let shown = || line.escape_ascii().to_string();
        assert_eq!(
            foreign.collect::<Vec<_>>(),
            Vec::<&(Vec<u8>, Vec<u8>)>::new(),
            "{}: {}",
            parser.name,
            shown()
        );
        // Python gives up a whole line that it finds wrong, and Werkzeug one that is not UTF-8.
        if !ours.is_empty() && !matches!(parser.name, "python" | "werkzeug") {
            assert!(pairs.iter().any(|(_, value)| value == OURS), "{}: {}", parser.name, shown());
        }
    }
}

/// A cookie that nobody issued through the proxy, as it would pass beside others: every parser has
/// to see a value that an ended session's would be found by.
pub fn values(data: &[u8]) {
    let line = header_bytes(data);
    let rules = rule_set();
    let scan = subject::scan(std::iter::once(&*line), &rules);
    for candidate in scan.candidates {
        if !subject::reads_alike(candidate.value) {
            continue;
        }
        let known = subject::canonical_value(candidate.value);
        let credential = [(candidate.name, candidate.value)];
        let Some(line) = subject::join(credential.into_iter(), &scan.others) else { return };
        for parser in PARSERS {
            for (_, value) in (parser.pairs)(&line).iter().filter(|(name, _)| is_tracked(name)) {
                // The session's file is found by what stands before a NUL.
                let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
                let (shown, found) = (line.escape_ascii(), value.escape_ascii());
                assert_eq!(
                    subject::canonical_value(value),
                    known,
                    "{}: {shown} → {found}",
                    parser.name
                );
            }
        }
    }
}
