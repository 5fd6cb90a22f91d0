//! Until when a certificate is valid: the one field that is needed here and that rustls does not
//! tell. Pure.

use time::{Date, Month, Time};

use crate::session::Timestamp;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_VERSION: u8 = 0xa0;

/// `notAfter` of a certificate in DER (RFC 5280 §4.1); `None` if it cannot be read.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let mut fields = within(within(certificate)?.0)?;
    // Version (which may be left out), serial number, signature, issuer.
    if fields.0.first() == Some(&EXPLICIT_VERSION) {
        fields.next()?;
    }
    for _ in 0..3 {
        fields.next()?;
    }
    let mut validity = within(fields.0)?;
    validity.next()?;
    let (kind, text) = validity.next()?;
    read_time(kind, std::str::from_utf8(text).ok()?)
}

/// A row of DER values.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    /// The next one's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// What the sequence at the start of `der` holds.
fn within(der: &[u8]) -> Option<Values<'_>> {
    let (tag, content) = Values(der).next()?;
    (tag == SEQUENCE).then_some(Values(content))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn read_time(kind: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z').filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
    let time = Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    let seconds = date.with_time(time).assume_utc().unix_timestamp();
    Some(Timestamp(seconds * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        let ms = |kind, text| read_time(kind, text).map(|time| time.0);
        assert_eq!(ms(UTC_TIME, "700101000001Z"), Some(1_000));
        assert_eq!(ms(UTC_TIME, "491231235959Z"), Some(2_524_607_999_000));
        assert_eq!(ms(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000_000));
        for bad in ["", "Z", "7001010000Z", "700101000001", "701301000001Z", "+00101000001Z"] {
            assert_eq!(ms(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let bad: [&[u8]; 6] = [
            b"",
            b"\x30",
            b"\x30\x05\x30\x03\x02\x01\x01",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x89\x01\x01\x01\x01\x01\x01\x01\x01\x01",
            b"\x02\x01\x00",
        ];
        for der in bad {
            assert_eq!(not_after(der), None, "{der:?}");
        }
    }
}
