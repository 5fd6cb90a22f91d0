//! Durations and sizes as they are written. No keys, no problems here.

use super::tree::{Node, Value};

const SECOND: u64 = 1_000;
/// Units of time in milliseconds.
pub(super) const TIMES: &[(&str, u64)] =
    &[("ms", 1), ("s", SECOND), ("m", 60 * SECOND), ("h", 3_600 * SECOND), ("d", 86_400 * SECOND)];
/// Units of size in bytes.
pub(super) const SIZES: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// `"1h30m"` in the smallest unit; every number needs a unit.
pub(super) fn measured(node: &Node, units: &[(&str, u64)]) -> Option<u64> {
    let Value::Text(text) = &node.value else { return None };
    let mut rest = text.trim();
    let mut total = 0_u64;
    loop {
        let digits = rest.find(|character: char| !character.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let end = tail.find(|character: char| character.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_end())?;
        total = number.parse::<u64>().ok()?.checked_mul(*scale)?.checked_add(total)?;
        if next.is_empty() {
            return Some(total);
        }
        rest = next;
    }
}

/// The value in the largest unit that is exact.
pub(super) fn with_unit(value: u64, units: &[(&str, u64)]) -> String {
    let (name, scale) = units
        .iter()
        .rev()
        .find(|(_, scale)| value > 0 && value.is_multiple_of(*scale))
        .unwrap_or(&units[0]);
    format!("{}{name}", value / scale)
}

/// A duration as one would write it: `"90s"`.
pub(super) fn duration_text(value_ms: u64) -> String {
    with_unit(value_ms, TIMES)
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::Place;
    use super::*;

    fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
        measured(&Node { value: Value::Text(text.to_owned()), at: Place::FILE }, units)
    }

    #[test]
    fn durations_and_sizes_need_their_unit() {
        let times =
            [("90s", 90_000), ("1h30m", 5_400_000), ("250ms", 250), ("30 m", 1_800_000), ("0s", 0)];
        for (text, expected) in times {
            assert_eq!(measure(text, TIMES), Some(expected), "{text}");
        }
        assert_eq!(measure("64KiB", SIZES), Some(65_536));
        for wrong in ["", "90", "s", "-1s", "1.5h", "1 week", "1hs", "99999999999999999999d"] {
            assert_eq!(measure(wrong, TIMES), None, "{wrong}");
        }
        for wrong in ["64KB", "64k", "64kib"] {
            assert_eq!(measure(wrong, SIZES), None, "{wrong}");
        }
        assert_eq!((duration_text(5_400_000), duration_text(0)), ("90m".into(), "0ms".into()));
    }
}
