//! A second reading of HTTP/1.1, strict and small, that shares nothing with the proxy's: of what was
//! sent to it, and of what it sent to the app.

/// A request, as far as it matters whether two readers see the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
    /// The value of `X-Oracle`: which input it belongs to.
    pub input: String,
    /// No request follows it on its connection.
    pub last: bool,
}

impl Seen {
    /// What two readers must agree on, in a line.
    pub fn account(&self) -> String {
        let Self { method, target, body, input, .. } = self;
        format!("{input} {method} {target} {}", body.escape_ascii())
    }

    /// The same in a form that is as easy in other languages.
    pub fn account_in_hex(&self) -> String {
        let Self { method, target, body, input, .. } = self;
        let body: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{input} {method} {target} {body}")
    }
}

/// What the bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A request of so many bytes.
    Request(usize, Seen),
    /// More is needed to tell.
    More,
    /// Nothing that all servers read alike.
    Bad(&'static str),
}

/// The requests at the beginning of `bytes`, up to the first that is not quite one, or not whole.
pub fn requests(mut bytes: &[u8]) -> Vec<Seen> {
    let mut found = Vec::new();
    while let Read::Request(length, seen) = read(bytes) {
        bytes = if seen.last { &[] } else { &bytes[length..] };
        found.push(seen);
    }
    found
}

pub fn read(bytes: &[u8]) -> Read {
    read_or(bytes).unwrap_or_else(|end| end)
}

fn read_or(bytes: &[u8]) -> Result<Read, Read> {
    let mut rest = bytes;
    for _ in 0..4 {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    let first = line(&mut rest)?;
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let &[method, target, version] = &*words else { return Err(Read::Bad("request line")) };
    let plain = |byte: &u8| (0x21..0x7f).contains(byte) && *byte != b'#';
    let old = version == b"HTTP/1.0";
    if method.is_empty() || !method.iter().all(is_token) {
        return Err(Read::Bad("method"));
    }
    if target.is_empty() || !target.iter().all(plain) {
        return Err(Read::Bad("target"));
    }
    if !old && version != b"HTTP/1.1" {
        return Err(Read::Bad("version"));
    }
    let (mut length, mut chunked, mut input) = (None, false, String::new());
    let mut last = old;
    loop {
        let header = line(&mut rest)?;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':');
        let (name, value) = header.split_at(colon.ok_or(Read::Bad("no colon"))?);
        let value = trim(&value[1..]);
        if name.is_empty() || !name.iter().all(is_token) {
            return Err(Read::Bad("name"));
        }
        if value.iter().any(|byte| *byte != b'\t' && (*byte < b' ' || *byte == 0x7f)) {
            return Err(Read::Bad("value"));
        }
        match &*text(name).to_ascii_lowercase() {
            "x-oracle" => {
                let end = value.iter().position(|byte| !byte.is_ascii_alphanumeric());
                input = text(&value[..end.unwrap_or(value.len())]);
            }
            "connection" => last |= text(value).split(',').any(|word| word.trim() == "close"),
            "content-length" => {
                let plain = value.iter().all(u8::is_ascii_digit)
                    && (value == b"0" || !value.starts_with(b"0"));
                let number = text(value).parse::<u64>().ok().filter(|_| plain);
                let number = number.ok_or(Read::Bad("length"))?;
                if length.is_some_and(|known| known != number) {
                    return Err(Read::Bad("two lengths"));
                }
                length = Some(number);
            }
            "transfer-encoding" => {
                if chunked || old || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Read::Bad("encoding"));
                }
                chunked = true;
            }
            "transfer_encoding" | "content_length" => return Err(Read::Bad("underscore")),
            _ => {}
        }
    }
    let body = match (length, chunked) {
        (Some(_), true) => return Err(Read::Bad("length and encoding")),
        (None, true) => chunks(&mut rest)?,
        (length, false) => {
            let length = usize::try_from(length.unwrap_or(0)).map_err(|_| Read::More)?;
            let body = rest.get(..length).ok_or(Read::More)?;
            rest = &rest[length..];
            body.to_vec()
        }
    };
    let (method, target) = (text(method), text(target));
    Ok(Read::Request(bytes.len() - rest.len(), Seen { method, target, body, input, last }))
}

/// The data of a chunked body, and no more of `rest`.
pub fn chunks(rest: &mut &[u8]) -> Result<Vec<u8>, Read> {
    let mut body = Vec::new();
    loop {
        let size = line(rest)?;
        let end = size.iter().position(|byte| *byte == b';').unwrap_or(size.len());
        let digits = trim_end(&size[..end]);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) || digits.len() > 15 {
            return Err(Read::Bad("chunk size"));
        }
        let size = usize::from_str_radix(&text(digits), 16).map_err(|_| Read::Bad("chunk size"))?;
        if size == 0 {
            while !line(rest)?.is_empty() {}
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).ok_or(Read::More)?);
        *rest = &rest[size..];
        match rest {
            [b'\r', b'\n', ..] => *rest = &rest[2..],
            [] | [b'\r'] => return Err(Read::More),
            _ => return Err(Read::Bad("chunk end")),
        }
    }
}

/// The next line without its end, which must be CR LF.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Read> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let end = end.ok_or(Read::More)?;
    match &rest[end..] {
        [b'\r', b'\n', ..] => {
            let line = &rest[..end];
            *rest = &rest[end + 2..];
            Ok(line)
        }
        [b'\r'] => Err(Read::More),
        _ => Err(Read::Bad("line end")),
    }
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    trim_end(bytes)
}

/// Each byte a character: nothing is lost, and nothing read twice looks the same.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
