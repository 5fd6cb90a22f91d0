//! Set-Cookie lines: only the value is ever changed, and what is written is read back the same.

use headcount::session::Timestamp;
use headcount::set_cookie::{effective, expire, parse, write};

use super::header_bytes;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Set-Cookie lines, one on each line.
pub fn set_cookie(data: &[u8]) {
    let lines: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(header_bytes).collect();
    let cookies: Vec<_> = lines.iter().filter_map(|line| parse(line, NOW)).collect();
    let counted: Vec<_> = effective(&cookies).collect();
    assert!(counted.len() <= cookies.len() && counted.is_empty() == cookies.is_empty());
    for cookie in &cookies {
        assert_eq!(counted.iter().filter(|other| other.same_cookie(cookie)).count(), 1);
        assert_eq!(cookie.with_value(cookie.value), cookie.line, "the same value changes nothing");
        let line = cookie.with_value(b"value.hc1.stamp");
        let again = parse(&line, NOW).expect("a line with another value is one");
        assert_eq!((again.name, again.value), (cookie.name, &b"value.hc1.stamp"[..]));
        assert_eq!((&again.shape, again.deletes), (&cookie.shape, cookie.deletes));
        assert_eq!(line.len() - again.value.len(), cookie.line.len() - cookie.value.len());

        let written = write(&cookie.shape, b"value");
        let read = parse(&written, NOW).expect("what was written is a line");
        assert_eq!((read.name, read.value), (cookie.name, &b"value"[..]));
        assert!(
            read.same_cookie(cookie),
            "{} → {}",
            cookie.line.escape_ascii(),
            written.escape_ascii()
        );
        let expired = expire(&cookie.shape);
        let gone = parse(&expired, NOW).expect("a deletion is a line");
        assert!(gone.deletes && gone.same_cookie(cookie), "{}", expired.escape_ascii());
    }
}
