//! One spelling for one person: how user names are compared. Pure; what may be a name at all is
//! not decided here.

use std::collections::HashMap;

use caseless::Caseless as _;
use unicode_normalization::UnicodeNormalization as _;

use crate::settings::Normalize;

/// The form under which a name is counted. Doing it twice changes nothing.
pub fn normalize(how: &Normalize, name: &str) -> String {
    let mut name = name.to_owned();
    if how.nfkc {
        name = name.nfkc().collect();
    }
    if how.casefold {
        name = fold(how, &name);
    }
    // Last, as NFKC makes spaces of other blanks.
    if how.trim { name.trim().to_owned() } else { name }
}

/// Folding can undo NFKC and NFKC can bring back what folds (`ϔ`, U+0345), so both are repeated
/// until nothing changes; two rounds do for all of Unicode, the third finds that out.
fn fold(how: &Normalize, name: &str) -> String {
    let mut name = name.to_owned();
    for _ in 0..3 {
        let folded = name.chars().default_case_fold();
        let folded: String = if how.nfkc { folded.nfkc().collect() } else { folded.collect() };
        if folded == name {
            break;
        }
        name = folded;
    }
    name
}

/// The canonical user name: normalised, and an alias replaced by whom it stands for. The keys and
/// values of `aliases` are normalised already.
pub fn canonical(how: &Normalize, aliases: &HashMap<String, String>, name: &str) -> String {
    let name = normalize(how, name);
    aliases.get(&name).cloned().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Normalize = Normalize { trim: true, nfkc: true, casefold: true };
    const NONE: Normalize = Normalize { trim: false, nfkc: false, casefold: false };

    #[test]
    fn one_person_has_one_name_however_it_is_typed() {
        let same = [
            ("Alice", "alice"),
            ("alice ", "alice"),
            ("\u{3000}alice\u{a0}\r\n", "alice"),
            ("ALICE", "alice"),
            ("ａｌｉｃｅ", "alice"),
            ("Ame\u{301}lie", "amélie"),
            ("AMÉLIE", "amélie"),
            ("Straße", "strasse"),
            ("STRASSE", "strasse"),
            ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
            ("ﬁona", "fiona"),
            ("Alice@Example.COM", "alice@example.com"),
        ];
        for (written, expected) in same {
            assert_eq!(normalize(&ALL, written), expected, "{written:?}");
        }
    }

    #[test]
    fn different_people_stay_different() {
        // Homoglyphs, zero-width characters and address tags: the app tells them apart, so do we.
        let cyrillic_a = "\u{430}lice";
        for other in [cyrillic_a, "al\u{200b}ice", "alice+x", "alice@example.com", "a lice"] {
            assert_ne!(normalize(&ALL, other), "alice", "{other:?}");
        }
    }

    #[test]
    fn every_step_can_be_switched_off() {
        assert_eq!(normalize(&NONE, " Alice "), " Alice ");
        assert_eq!(normalize(&Normalize { trim: true, ..NONE }, " Alice "), "Alice");
        assert_eq!(normalize(&Normalize { nfkc: true, ..NONE }, "Ａlice"), "Alice");
        assert_eq!(normalize(&Normalize { casefold: true, ..NONE }, "Alice "), "alice ");
    }

    #[test]
    fn an_alias_is_whom_it_stands_for() {
        let aliases = HashMap::from([("a@x.example".to_owned(), "alice".to_owned())]);
        assert_eq!(canonical(&ALL, &aliases, " A@X.example"), "alice");
        assert_eq!(canonical(&ALL, &aliases, "Bob"), "bob");
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        // Nothing behind them changes but the compatibility ideographs.
        let all = ('\0'..='\u{1ffff}').chain('\u{2f800}'..='\u{2fa1f}');
        let all = all.filter(|c| !c.is_control());
        for character in all {
            for name in [format!("{character}"), format!("a{character}\u{345}\u{308}b")] {
                let once = normalize(&ALL, &name);
                assert_eq!(normalize(&ALL, &once), once, "{name:?}");
            }
        }
    }

    #[test]
    fn a_long_name_is_no_trouble() {
        assert_eq!(normalize(&ALL, &"Ä".repeat(4096)).chars().count(), 4096);
    }
}
