//! How apps read a Cookie line: models of the parsers of Python, Django, Werkzeug, Node.js, PHP and
//! Rack, small enough to run on every input. A test holds each of them against the real parser.

use std::sync::LazyLock;

use regex::Regex;

/// A name and its value, as the app's language has them; text as UTF-8.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A cookie parser.
pub struct Parser {
    pub name: &'static str,
    /// Of several cookies of one name the last counts, else the first.
    pub last: bool,
    /// Every cookie, in order.
    pub pairs: fn(&[u8]) -> Vec<Pair>,
}

pub const PARSERS: &[Parser] = &[
    Parser { name: "python", last: true, pairs: python },
    Parser { name: "django", last: true, pairs: django },
    Parser { name: "werkzeug", last: false, pairs: werkzeug },
    Parser { name: "node", last: false, pairs: node },
    Parser { name: "php", last: false, pairs: php },
    Parser { name: "rack", last: false, pairs: rack },
];

impl Parser {
    /// Each name once, sorted, with the value that counts.
    pub fn read(&self, line: &[u8]) -> Vec<Pair> {
        let mut pairs = (self.pairs)(line);
        if self.last {
            pairs.reverse();
        }
        let mut read: Vec<Pair> = Vec::new();
        for pair in pairs {
            if !read.iter().any(|known| known.0 == pair.0) {
                read.push(pair);
            }
        }
        read.sort();
        read
    }
}

fn latin(line: &[u8]) -> String {
    line.iter().map(|byte| char::from(*byte)).collect()
}

/// Python's white space: Rust's, and four controls.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// `http.cookies.SimpleCookie` on a line read as Latin-1, as WSGI servers hand it over (CherryPy,
/// Bottle).
fn python(line: &[u8]) -> Vec<Pair> {
    static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
        let word = r"0-9A-Za-z_!#%&'~`><@,:/\$\*\+\-\.\^\|\)\(\?\}\{\=";
        let blank = r"[ \t\n\r\x0b\x0c]";
        let date = format!(
            "[0-9A-Za-z_]{{3}},{blank}(?:[0-9A-Za-z_-]|{blank}){{9,11}}{blank}[0-9:]{{8}}{blank}GMT"
        );
        Regex::new(&format!(
            r#"\A{blank}*([{word}]+?)({blank}*={blank}*("(?:[^\\"]|\\.)*"|{date}|[{word}\[\]]*))?{blank}*(?:{blank}+|;|$)"#
        ))
        .expect("a pattern")
    });
    const ATTRIBUTES: &[&str] = &[
        "expires", "path", "comment", "domain", "max-age", "secure", "httponly", "version",
        "samesite",
    ];
    let line = latin(line);
    let (mut rest, mut pairs) = (&*line, Vec::new());
    while let Some(found) = PATTERN.captures(rest).filter(|_| !rest.is_empty()) {
        rest = &rest[found[0].len()..];
        let (key, value) = (found[1].to_owned(), found.get(3).map(|value| value.as_str()));
        let lower = key.to_lowercase();
        if key.starts_with('$') {
            // Once a cookie was seen it has to be an attribute that is known.
            if !pairs.is_empty() && !ATTRIBUTES.contains(&&lower[1..]) {
                return Vec::new();
            }
        } else if ATTRIBUTES.contains(&&*lower) {
            let flag = matches!(&*lower, "secure" | "httponly");
            if pairs.is_empty() || (value.is_none() && !flag) {
                return Vec::new();
            }
        } else if let Some(value) = value {
            pairs.push((key.into_bytes(), unquote(value).into_bytes()));
        } else {
            return Vec::new();
        }
    }
    let legal = |name: &Vec<u8>| {
        name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(byte))
    };
    // An illegal name is an exception: the app answers with an error.
    if pairs.iter().all(|(name, _)| legal(name)) { pairs } else { Vec::new() }
}

/// Python's `_unquote`.
fn unquote(value: &str) -> String {
    if value.chars().count() < 2 || !value.starts_with('"') || !value.ends_with('"') {
        return value.to_owned();
    }
    let inner: Vec<char> = value[1..value.len() - 1].chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < inner.len() {
        let digit = |offset: usize, max: char| {
            inner.get(at + offset).filter(|c| ('0'..=max).contains(*c)).map(|c| *c as u32 - 48)
        };
        match (inner[at], digit(1, '3'), digit(2, '7'), digit(3, '7')) {
            ('\\', Some(a), Some(b), Some(c)) => {
                out.extend(char::from_u32(a * 64 + b * 8 + c));
                at += 4;
            }
            ('\\', ..) if at + 1 < inner.len() => {
                out.push(inner[at + 1]);
                at += 2;
            }
            (other, ..) => {
                out.push(other);
                at += 1;
            }
        }
    }
    out
}

/// `django.http.cookie.parse_cookie`; Starlette's is the same.
fn django(line: &[u8]) -> Vec<Pair> {
    let line = String::from_utf8_lossy(line);
    let mut pairs = Vec::new();
    for chunk in line.split(';') {
        let (key, value) = chunk.split_once('=').unwrap_or(("", chunk));
        let (key, value) = (strip(key), strip(value));
        if !key.is_empty() || !value.is_empty() {
            pairs.push((key.as_bytes().to_vec(), unquote(value).into_bytes()));
        }
    }
    pairs
}

/// `werkzeug.http.parse_cookie`; a line that is not UTF-8 is an error there.
fn werkzeug(line: &[u8]) -> Vec<Pair> {
    static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
        let pattern =
            r#"\A[ \t]*([^ \t=";]+)(?:[ \t]*=[ \t]*("(?:[^\\"]|\\.)*"|[^ \t";]*))?[ \t]*(?:;|\z)"#;
        Regex::new(pattern).expect("a pattern")
    });
    static ESCAPE: LazyLock<regex::bytes::Regex> = LazyLock::new(|| {
        let builder =
            regex::bytes::RegexBuilder::new(r"\\([0-3][0-7]{2}|.)").unicode(false).build();
        builder.expect("a pattern")
    });
    let Ok(mut rest) = std::str::from_utf8(line) else { return Vec::new() };
    let mut pairs = Vec::new();
    loop {
        let Some(found) = PATTERN.captures(rest) else {
            let Some(at) = rest.find(';') else { return pairs };
            rest = &rest[at + 1..];
            continue;
        };
        let mut value = found.get(2).map_or("", |value| value.as_str()).as_bytes().to_vec();
        if value.starts_with(b"\"") && value.ends_with(b"\"") {
            let inner = value.get(1..value.len() - 1).unwrap_or_default();
            let bytes =
                ESCAPE.replace_all(inner, |escape: &regex::bytes::Captures<'_>| match &escape[1] {
                    [one] => vec![*one],
                    digits => vec![digits.iter().fold(0, |sum, digit| sum * 8 + (digit - b'0'))],
                });
            value = String::from_utf8_lossy(&bytes).into_owned().into_bytes();
        }
        pairs.push((found[1].as_bytes().to_vec(), value));
        rest = &rest[found[0].len()..];
    }
}

/// npm `cookie` 0.7, as Express's session uses it.
fn node(line: &[u8]) -> Vec<Pair> {
    let blank = |c: char| c == ' ' || c == '\t';
    let line = latin(line);
    let mut pairs = Vec::new();
    if line.chars().count() < 2 {
        return pairs;
    }
    for chunk in line.split(';') {
        let Some((key, value)) = chunk.split_once('=') else { continue };
        let (key, value) = (key.trim_matches(blank), value.trim_matches(blank));
        let value = if value == "\"" {
            ""
        } else {
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
        };
        pairs.push((key.as_bytes().to_vec(), decode_uri_component(value).into_bytes()));
    }
    pairs
}

/// JavaScript's: when any escape is wrong, the text stays as it is.
fn decode_uri_component(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut escaped = Vec::new();
    let mut rest = text;
    loop {
        if let Some(tail) = rest.strip_prefix('%') {
            let code = tail.get(..2).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
            let Some(Ok(byte)) = code.map(|code| u8::from_str_radix(code, 16)) else {
                return text.to_owned();
            };
            escaped.push(byte);
            rest = &tail[2..];
            continue;
        }
        match std::str::from_utf8(&escaped) {
            Ok(decoded) => bytes.extend_from_slice(decoded.as_bytes()),
            Err(_) => return text.to_owned(),
        }
        escaped.clear();
        let Some(next) = rest.chars().next() else { break };
        bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[next.len_utf8()..];
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// PHP's `$_COOKIE`. A cookie `name[x]` is given under `name`: it makes an array of it.
fn php(line: &[u8]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for chunk in line.split(|byte| *byte == b';') {
        let start = chunk.iter().position(|byte| !matches!(byte, b' ' | 9..=13));
        let Some(chunk) = start.map(|start| &chunk[start..]) else { continue };
        let at = chunk.iter().position(|byte| *byte == b'=');
        let (written, value) = match at {
            Some(at) => (&chunk[..at], decode(&chunk[at + 1..], false)),
            None => (chunk, Vec::new()),
        };
        let mut name = Vec::new();
        for (at, byte) in written.iter().enumerate() {
            match byte {
                b'[' if at > 0 && written[at..].contains(&b']') => break,
                b'[' if at == 0 => break,
                b' ' | b'.' | b'[' => name.push(b'_'),
                byte => name.push(*byte),
            }
        }
        // A prefix that only the change above has made is not believed.
        let forged = [&b"__Host-"[..], b"__Secure-"]
            .iter()
            .any(|prefix| name.starts_with(prefix) && !written.starts_with(prefix));
        if !name.is_empty() && !forged {
            pairs.push((name, value));
        }
    }
    pairs
}

/// Percent escapes; what is none stays.
pub fn decode(text: &[u8], plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let hex = |offset: usize| char::from(*text.get(at + offset)?).to_digit(16);
        match (text[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) if plus => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// `Rack::Utils.parse_cookies_header` of Rack 2.2: only the value is decoded.
fn rack(line: &[u8]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut chunks = line.split(|byte| *byte == b';');
    let first = chunks.next().map(|first| first.to_vec());
    let others = chunks.map(|chunk| {
        let start = chunk.iter().position(|byte| *byte != b' ').unwrap_or(chunk.len());
        chunk[start..].to_vec()
    });
    for chunk in first.into_iter().chain(others).filter(|chunk| !chunk.is_empty()) {
        let at = chunk.iter().position(|byte| *byte == b'=').unwrap_or(chunk.len());
        let value = chunk.get(at + 1..).unwrap_or_default();
        let wrong = value.iter().enumerate().any(|(at, byte)| {
            let code = value.get(at + 1..at + 3);
            *byte == b'%' && !code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
        });
        let value = if wrong { value.to_vec() } else { decode(value, true) };
        pairs.push((chunk[..at].to_vec(), value));
    }
    pairs
}
