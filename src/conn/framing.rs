//! Where requests begin and end in what a client sends, followed byte by byte below hyper. What
//! hyper reads leniently and then hides from everybody above it (a length beside an encoding, bare
//! line feeds, a fragment) is refused here. Nothing is kept but a few bytes; what a request means is
//! the business of others.

use memchr::{memchr, memchr2, memchr3};

use crate::refusal::Refusal;

/// RFC 9112 §2.2 lets a server ignore empty lines before a request.
const EMPTY_LINES_MAX: u8 = 4;
/// `transfer-encoding` is the longest name of interest.
const NAME_MAX: usize = 17;
/// A length has at most 19 digits.
const VALUE_MAX: usize = 24;
const CHUNK_DIGITS_MAX: u8 = 15;
const VERSIONS: [&[u8]; 2] = [b"HTTP/1.1", b"HTTP/1.0"];

/// Follows one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// The version, a name or a value, as far as it came. Longer than the buffer is none of interest.
    text: [u8; VALUE_MAX],
    text_len: usize,
    field: Field,
    length: Option<u64>,
    chunked: bool,
    wrong: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a request, after so many empty lines.
    Between(u8),
    EmptyLineLf(u8),
    Method,
    Target,
    Version,
    /// The line feed of a line is due.
    LineLf,
    LineStart,
    Name,
    Value,
    HeadLf,
    /// So many bytes of the body are to come.
    Body(u64),
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkBlank(u64),
    ChunkExtension(u64),
    ChunkSizeLf(u64),
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

impl Default for State {
    fn default() -> Self {
        Self::Between(0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Other,
    Length,
    Encoding,
}

impl Framing {
    /// Nothing of a request has come since the end of the last one.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Between(_)) && self.wrong.is_none()
    }

    /// Why nothing more can be followed.
    pub(super) fn wrong(&self) -> Option<Refusal> {
        self.wrong
    }

    /// Takes what came and tells how many bytes of it are of the present request: what follows them
    /// is of the next, or wrong.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.wrong.is_none() {
            match self.step(&bytes[at..]) {
                Ok(count) => at += count,
                Err(refusal) => {
                    self.wrong = Some(refusal);
                    break;
                }
            }
            if self.state == State::Between(0) {
                break;
            }
        }
        at
    }

    /// Goes on by one byte or more; `bytes` are not empty.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let skipped = match self.state {
            State::Body(left) => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - count as u64;
                self.state = if left == 0 { State::default() } else { State::Body(left) };
                return Ok(count);
            }
            State::ChunkData(left) => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - count as u64;
                self.state = if left == 0 { State::ChunkDataCr } else { State::ChunkData(left) };
                return Ok(count);
            }
            State::Value if self.field == Field::Other => memchr2(b'\r', b'\n', bytes),
            State::ChunkExtension(_) | State::Trailer => memchr2(b'\r', b'\n', bytes),
            State::Method => memchr2(b' ', b'\n', bytes),
            State::Target => memchr3(b' ', b'#', b'\n', bytes),
            State::LineStart => {
                if let Some(count) = plain_line(bytes) {
                    return Ok(count);
                }
                Some(0)
            }
            State::Name if self.text_len > NAME_MAX => memchr2(b':', b'\n', bytes),
            _ => Some(0),
        };
        let Some(skipped) = skipped else { return Ok(bytes.len()) };
        let byte = bytes[skipped];
        self.state = match self.state {
            State::ChunkSize { .. }
            | State::ChunkBlank(_)
            | State::ChunkExtension(_)
            | State::ChunkSizeLf(_)
            | State::ChunkDataCr
            | State::ChunkDataLf
            | State::TrailerStart
            | State::Trailer
            | State::TrailerLf
            | State::EndLf => chunk_step(self.state, byte).ok_or(Refusal::BodyInvalid)?,
            _ => self.head_step(byte)?,
        };
        Ok(skipped + 1)
    }

    fn head_step(&mut self, byte: u8) -> Result<State, Refusal> {
        const MALFORMED: Refusal = Refusal::MalformedHead;
        Ok(match (self.state, byte) {
            (State::Between(lines), b'\r') if lines < EMPTY_LINES_MAX => State::EmptyLineLf(lines),
            (State::Between(_), b'\r' | b'\n') => return Err(MALFORMED),
            (State::Between(_), _) => {
                (self.length, self.chunked) = (None, false);
                State::Method
            }
            (State::EmptyLineLf(lines), b'\n') => State::Between(lines + 1),
            (State::Method, b' ') => State::Target,
            (State::Target, b'#') => return Err(Refusal::TargetInvalid),
            (State::Target, b' ') => {
                self.text_len = 0;
                State::Version
            }
            (State::Version, b'\r') if VERSIONS.contains(&self.text()) => State::LineLf,
            (State::Version, b'\r') => return Err(MALFORMED),
            (State::Version, byte) if self.is_other_version(byte) => {
                return Err(Refusal::VersionUnsupported);
            }
            (State::LineStart, b'\r') => State::HeadLf,
            (State::LineStart, b' ' | b'\t') => return Err(MALFORMED),
            (State::Name, b':') => {
                self.field = match self.text() {
                    name if name.eq_ignore_ascii_case(b"content-length") => Field::Length,
                    name if name.eq_ignore_ascii_case(b"transfer-encoding") => Field::Encoding,
                    _ => Field::Other,
                };
                self.text_len = 0;
                State::Value
            }
            (State::Name, b'\r') => return Err(MALFORMED),
            (State::Value, b'\r') => {
                self.note_field()?;
                State::LineLf
            }
            (State::LineLf, b'\n') => State::LineStart,
            (State::HeadLf, b'\n') => self.after_head()?,
            // Line ends of one kind only, and no carriage return for itself.
            (State::EmptyLineLf(_) | State::LineLf | State::HeadLf, _) | (_, b'\n') => {
                return Err(MALFORMED);
            }
            (State::LineStart, _) => {
                self.text_len = 0;
                self.push(byte);
                State::Name
            }
            (State::Value, b' ' | b'\t') if self.text_len == 0 => State::Value,
            (State::Version | State::Name | State::Value, _) => {
                self.push(byte);
                self.state
            }
            (state, _) => state,
        })
    }

    /// Whether the next byte makes it a version that nobody here speaks. hyper would say no more
    /// than that the line is malformed, so it does not get to see that byte.
    fn is_other_version(&self, next: u8) -> bool {
        match self.text() {
            b"HTTP/" => next.is_ascii_digit() && next != b'1',
            b"HTTP/1." => next.is_ascii_digit() && !matches!(next, b'0' | b'1'),
            _ => false,
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.text_len) {
            *place = byte;
        }
        // One more than fits is enough to be none of the texts that are known.
        self.text_len = (self.text_len + 1).min(VALUE_MAX + 1);
    }

    fn text(&self) -> &[u8] {
        self.text.get(..self.text_len).unwrap_or_default()
    }

    /// The end of a header line: what it says about the body.
    fn note_field(&mut self) -> Result<(), Refusal> {
        let value = self.text().trim_ascii_end();
        match self.field {
            Field::Other => {}
            Field::Encoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::FramingInvalid);
                }
                self.chunked = true;
            }
            Field::Length => {
                let length = plain_number(value).ok_or(Refusal::FramingInvalid)?;
                if self.length.is_some_and(|known| known != length) {
                    return Err(Refusal::FramingInvalid);
                }
                self.length = Some(length);
            }
        }
        Ok(())
    }

    fn after_head(&self) -> Result<State, Refusal> {
        match (self.length, self.chunked) {
            // RFC 9112 §6.1: it ought to be handled as an error.
            (Some(_), true) => Err(Refusal::FramingInvalid),
            (None, true) => Ok(State::ChunkSize { size: 0, digits: 0 }),
            (Some(1..), false) => Ok(State::Body(self.length.unwrap_or_default())),
            (Some(0) | None, false) => Ok(State::default()),
        }
    }
}

/// The length of the header line that `bytes` begin with, if it is whole, and such that it says nothing
/// about the body: the usual case, seen at once instead of byte by byte.
fn plain_line(bytes: &[u8]) -> Option<usize> {
    let end = memchr2(b'\r', b'\n', bytes)?;
    let name = memchr(b':', &bytes[..end])?;
    let of_interest = name == "content-length".len() || name == "transfer-encoding".len();
    let plain = name > 0 && !of_interest && !matches!(bytes[0], b' ' | b'\t');
    (plain && bytes[end..].starts_with(b"\r\n")).then_some(end + 2)
}

/// One spelling for each number, and none that anybody's integers do not hold.
fn plain_number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit)
        && (digits == b"0" || !digits.starts_with(b"0"))
        && digits.len() < 19;
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// RFC 9112 §7.1, with blanks after a size as hyper takes them; `None` where it is broken.
fn chunk_step(state: State, byte: u8) -> Option<State> {
    Some(match (state, byte) {
        (State::ChunkSize { size, digits }, _) if byte.is_ascii_hexdigit() => {
            let digit = u64::from(char::from(byte).to_digit(16)?);
            let digits = (digits < CHUNK_DIGITS_MAX).then_some(digits + 1)?;
            State::ChunkSize { size: size << 4 | digit, digits }
        }
        (State::ChunkSize { digits: 0, .. }, _) => return None,
        (State::ChunkSize { size, .. } | State::ChunkBlank(size), b' ' | b'\t') => {
            State::ChunkBlank(size)
        }
        (State::ChunkSize { size, .. } | State::ChunkBlank(size), b';') => {
            State::ChunkExtension(size)
        }
        (
            State::ChunkSize { size, .. } | State::ChunkBlank(size) | State::ChunkExtension(size),
            b'\r',
        ) => State::ChunkSizeLf(size),
        (State::ChunkSizeLf(0), b'\n') => State::TrailerStart,
        (State::ChunkSizeLf(size), b'\n') => State::ChunkData(size),
        (State::ChunkDataCr, b'\r') => State::ChunkDataLf,
        (State::ChunkDataLf, b'\n') => State::ChunkSize { size: 0, digits: 0 },
        (State::TrailerStart, b'\r') => State::EndLf,
        (State::Trailer, b'\r') => State::TrailerLf,
        (State::TrailerStart | State::Trailer, b'\n') => return None,
        (State::TrailerStart | State::Trailer, _) => State::Trailer,
        (State::TrailerLf, b'\n') => State::TrailerStart,
        (State::EndLf, b'\n') => State::default(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests in `bytes`, given in pieces that end at `cuts`, and what is wrong with the rest.
    fn split(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Option<Refusal>) {
        let (mut framing, mut requests) = (Framing::default(), vec![Vec::new()]);
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            let mut piece = &bytes[from..to];
            from = to;
            while !piece.is_empty() && framing.wrong().is_none() {
                let count = framing.follow(piece);
                requests.last_mut().unwrap().extend_from_slice(&piece[..count]);
                piece = &piece[count..];
                if framing.state == State::Between(0) && count > 0 {
                    requests.push(Vec::new());
                }
            }
        }
        if framing.wrong().is_some() {
            // How much was followed of what is wrong depends on where it was cut.
            requests.pop();
        }
        (requests, framing.wrong())
    }

    const GET: &str = "GET /a?b HTTP/1.1\r\nHost: x\r\nX-Long-Name-That-Is-No-Framing: 1\r\n\r\n";
    const POST: &str = "POST / HTTP/1.0\r\ncontent-LENGTH:  5 \r\nContent-Length: 5\r\n\r\nGET /";
    const CHUNKS: &str = "PUT / HTTP/1.1\r\nTransfer-Encoding:\tChunked\t\r\n\r\n\
        3\r\nabc\r\n0a \t;ext=\"x\"\r\n0123456789\r\n000\r\nX: y\r\n\r\n";

    fn assert_splits(requests: &[&str], refusal: Option<Refusal>, rest: &str) {
        let whole = [requests.concat().as_bytes(), rest.as_bytes()].concat();
        let (found, wrong) = split(&whole, &[]);
        assert_eq!(wrong, refusal, "{rest:?}");
        let complete: Vec<_> = found[..requests.len()].iter().map(|r| &**r).collect();
        assert_eq!(complete, requests.iter().map(|r| r.as_bytes()).collect::<Vec<_>>());
        let expected = (found, wrong);
        for cut in 1..whole.len() {
            assert_eq!(split(&whole, &[cut]), expected, "{rest:?} cut at {cut}");
        }
        let every: Vec<usize> = (1..whole.len()).collect();
        assert_eq!(split(&whole, &every), expected, "{rest:?} byte by byte");
    }

    #[test]
    fn requests_end_where_they_end_however_they_come() {
        let after = format!("\r\n\r\n{GET}");
        assert_splits(&[GET, POST, CHUNKS, GET, &after, CHUNKS, POST], None, "");
        assert_splits(&[GET], None, "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab");
    }

    #[test]
    fn what_servers_read_differently_is_wrong() {
        use Refusal::{
            BodyInvalid, FramingInvalid, MalformedHead, TargetInvalid, VersionUnsupported,
        };
        let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
        let framing = [
            format!("{length}{chunked}"),
            format!("{chunked}{length}"),
            format!("{chunked}{chunked}"),
            format!("{length}Content-Length: 6\r\n"),
            "Content-Length: 05\r\n".into(),
            "Content-Length: \r\n".into(),
            "Content-Length: 5, 5\r\n".into(),
            "Content-Length: 1234567890123456789\r\n".into(),
            "Content-Length: 5 5\r\n".into(),
            "Content-Length: 5 \x0b\r\n".into(),
            "Transfer-Encoding: chunked, chunked\r\n".into(),
            "Transfer-Encoding: gzip, chunked\r\n".into(),
            "Transfer-Encoding: chunked                         \r\n".into(),
            "Transfer-Encoding:\r\n".into(),
        ];
        for lines in framing {
            assert_splits(&[GET], Some(FramingInvalid), &head(&lines));
        }
        for lines in ["A: b\n", "A: b\rC: d\r\n", "A\r\n", " A: b\r\n", "A: b\r\n\tc\r\n", "\n"] {
            assert_splits(&[GET], Some(MalformedHead), &head(lines));
        }
        for line in
            ["GET /\r\n", "GET / HTTP/1.10\r\n", "GET  / HTTP/1.1\r\n", "GET / HTTP/1.1 \r\n"]
        {
            assert_splits(&[POST], Some(MalformedHead), line);
        }
        for line in ["PRI * HTTP/2.0\r\n", "GET / HTTP/3\r\n", "GET / HTTP/1.2\r\n"] {
            assert_splits(&[POST], Some(VersionUnsupported), line);
        }
        assert_splits(&[], Some(MalformedHead), "\r\n\r\n\r\n\r\n\r\n");
        assert_splits(&[], Some(MalformedHead), "\nGET");
        assert_splits(&[], Some(TargetInvalid), "GET /a#b");
        for body in
            ["x", "\r\n", "3\r\nabcd", "3\nabc", "1\r\na\n", "3;\n", "0\r\nA: b\n", "0\r\n\n"]
        {
            assert_splits(&[GET], Some(BodyInvalid), &format!("{}{body}", head(chunked)));
        }
    }
}
