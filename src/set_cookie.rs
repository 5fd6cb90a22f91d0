//! Set-Cookie lines on the way down: what they set or delete, and the same line with another value.
//! Pure; every byte that is not the value stays as the app wrote it.

use crate::session::Timestamp;
use crate::store::CookieShape;

/// One Set-Cookie line, read as browsers read it (RFC 6265 §5.2).
#[derive(Clone, Debug)]
pub struct SetCookie<'h> {
    pub line: &'h [u8],
    pub name: &'h str,
    pub value: &'h [u8],
    pub shape: CookieShape,
    /// Max-Age ≤ 0 or Expires in the past; never told by the value.
    pub deletes: bool,
}

/// Reads one line; `None` when it has no usable name.
pub fn parse(line: &[u8], now: Timestamp) -> Option<SetCookie<'_>> {
    let mut parts = line.split(|byte| *byte == b';');
    let pair = parts.next()?;
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let name = std::str::from_utf8(&pair[..at]).ok()?.trim_matches([' ', '\t']);
    if name.is_empty() {
        return None;
    }
    let value = pair[at + 1..].trim_ascii();
    let mut shape = CookieShape {
        name: name.to_owned(),
        domain: String::new(),
        path: String::new(),
        attributes: String::new(),
    };
    let (mut max_age, mut expires) = (None, None);
    for attribute in parts {
        let text = String::from_utf8_lossy(attribute);
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        let (key, value) = (key.trim(), value.trim());
        match key.to_ascii_lowercase().as_str() {
            "max-age" => max_age = read_max_age(value).or(max_age),
            "expires" => expires = read_expires(value).or(expires),
            "domain" => {
                let dots = |c: char| c == '.' || c.is_whitespace();
                shape.domain = value.trim_start_matches(dots).to_ascii_lowercase();
            }
            "path" => value.clone_into(&mut shape.path),
            "" => {}
            _ => {
                shape.attributes.push_str("; ");
                shape.attributes.push_str(text.trim());
            }
        }
    }
    let deletes = match (max_age, expires) {
        (Some(seconds), _) => seconds <= 0,
        (None, Some(at)) => at <= now,
        (None, None) => false,
    };
    Some(SetCookie { line, name, value, shape, deletes })
}

/// Seconds, saturating; a text that is no number counts as absent (RFC 6265 §5.2.2).
fn read_max_age(value: &str) -> Option<i64> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(value.parse().unwrap_or(if value.starts_with('-') { i64::MIN } else { i64::MAX }))
}

fn read_expires(value: &str) -> Option<Timestamp> {
    let cookie = cookie::Cookie::parse(format!("x=; Expires={value}")).ok()?;
    let at = cookie.expires_datetime()?;
    Some(Timestamp(at.unix_timestamp().saturating_mul(1000)))
}

impl SetCookie<'_> {
    /// The same line with `value` in place of the app's.
    pub fn with_value(&self, value: &[u8]) -> Vec<u8> {
        let start = self.value.as_ptr().addr() - self.line.as_ptr().addr();
        let mut line = Vec::with_capacity(self.line.len() + value.len());
        line.extend_from_slice(&self.line[..start]);
        line.extend_from_slice(value);
        line.extend_from_slice(&self.line[start + self.value.len()..]);
        line
    }

    /// Whether this line and `other` are about the same cookie of the browser's jar.
    pub fn same_cookie(&self, other: &Self) -> bool {
        let (one, two) = (&self.shape, &other.shape);
        one.name == two.name && one.domain == two.domain && one.path == two.path
    }
}

/// Which lines have an effect: of several about one cookie only the last.
pub fn effective<'a, 'h>(cookies: &'a [SetCookie<'h>]) -> impl Iterator<Item = &'a SetCookie<'h>> {
    cookies.iter().enumerate().filter_map(|(at, cookie)| {
        let later = cookies[at + 1..].iter().any(|other| other.same_cookie(cookie));
        (!later).then_some(cookie)
    })
}

/// A line that sets a cookie of this shape.
pub fn write(shape: &CookieShape, value: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(128);
    line.extend_from_slice(shape.name.as_bytes());
    line.push(b'=');
    line.extend_from_slice(value);
    write_scope(&mut line, shape);
    line.extend_from_slice(shape.attributes.as_bytes());
    line
}

/// A line that deletes a cookie of this shape. Attributes go along: browsers ignore a deletion of a
/// `__Secure-` cookie without Secure.
pub fn expire(shape: &CookieShape) -> Vec<u8> {
    let mut line = write(shape, b"");
    line.extend_from_slice(b"; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0");
    line
}

fn write_scope(line: &mut Vec<u8>, shape: &CookieShape) {
    for (key, value) in [("; Domain=", &shape.domain), ("; Path=", &shape.path)] {
        if !value.is_empty() {
            line.extend_from_slice(key.as_bytes());
            line.extend_from_slice(value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn deletes(line: &str) -> bool {
        parse(line.as_bytes(), NOW).unwrap().deletes
    }

    #[test]
    fn deletion_is_told_by_time_never_by_value() {
        assert!(deletes("s=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/"));
        assert!(deletes("s=abc; Max-Age=-1"));
        assert!(deletes("s=abc; expires=Thu, 01-Jan-1970 00:00:01 GMT"));
        assert!(!deletes("s=deleted"));
        assert!(!deletes("s="));
        assert!(!deletes("s=a; Max-Age=99999999999999999999999"));
        assert!(!deletes("s=a; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60"));
        assert!(!deletes("s=a; Max-Age=soon; Expires=Thu, 01 Jan 2099 00:00:00 GMT"));
    }

    #[test]
    fn only_the_value_changes() {
        let line = b"s = a\xffb ; Path=/x; HttpOnly;  SameSite=Lax";
        let cookie = parse(line, NOW).unwrap();
        assert_eq!((cookie.name, cookie.value), ("s", &b"a\xffb"[..]));
        assert_eq!(cookie.with_value(b"new"), b"s = new ; Path=/x; HttpOnly;  SameSite=Lax");
        assert_eq!(cookie.shape.path, "/x");
        assert_eq!(cookie.shape.attributes, "; HttpOnly; SameSite=Lax");
        let empty = parse(b"s=; Path=/", NOW).unwrap();
        assert_eq!(empty.with_value(b"v"), b"s=v; Path=/");
    }

    #[test]
    fn the_last_line_about_a_cookie_wins() {
        let lines = ["s=1; Path=/", "s=-del-; Path=/; Max-Age=0", "s=2; Path=/", "s=3; Path=/a"];
        let cookies: Vec<_> =
            lines.iter().map(|line| parse(line.as_bytes(), NOW).unwrap()).collect();
        let values: Vec<_> = effective(&cookies).map(|cookie| cookie.value).collect();
        assert_eq!(values, [b"2", b"3"]);
    }

    #[test]
    fn a_cookie_expires_with_the_scope_it_had() {
        let cookie = parse(b"__Secure-s=1; Path=/a; Domain=.Example.com; Secure", NOW).unwrap();
        assert_eq!(
            String::from_utf8(expire(&cookie.shape)).unwrap(),
            "__Secure-s=; Domain=example.com; Path=/a; Secure; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"
        );
    }

    #[test]
    fn an_odd_domain_is_read_back_as_it_was_written() {
        let cookie = parse(b"s=1; Domain=. .Example.com", NOW).unwrap();
        let written = write(&cookie.shape, b"2");
        assert!(parse(&written, NOW).unwrap().same_cookie(&cookie));
    }

    #[test]
    fn odd_lines_do_no_harm() {
        for line in [&b""[..], b"=", b"novalue", b"\xff\xfe=1", b" =x"] {
            assert!(parse(line, NOW).is_none());
        }
        let long = format!("s={}", "x".repeat(16 * 1024));
        assert_eq!(parse(long.as_bytes(), NOW).unwrap().value.len(), 16 * 1024);
    }
}
