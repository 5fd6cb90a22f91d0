//! HTTP/1.1 as far as tests need it: a request that is written as told, and an answer that is read
//! whole. Independent of the code under test.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// A request; headers are written in the order given, nothing is added but Content-Length.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: None }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A form POST, as a page sends it.
    pub(crate) fn form(target: &str, fields: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Self::new("POST", target)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body.into_bytes())
    }

    /// Sets a header in place of any of that name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
        self
    }

    /// As a script in the page asks (`fetch` or XMLHttpRequest).
    pub(crate) fn xhr(self) -> Self {
        self.header("Accept", "application/json")
            .header("X-Requested-With", "XMLHttpRequest")
            .header("Sec-Fetch-Mode", "cors")
            .header("Sec-Fetch-Dest", "empty")
    }

    pub(crate) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// In the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub(crate) fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Every header of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the answer has this media type.
    pub(crate) fn is(&self, media_type: &str) -> bool {
        self.header("content-type").is_some_and(|value| value.starts_with(media_type))
    }
}

/// A client connection that can be used again.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Writes as it is; reading is separate.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Waits for an answer to begin; false if the connection ends before it does.
    pub(crate) fn answers(&mut self) -> io::Result<bool> {
        self.stream.fill_buf().map(|bytes| !bytes.is_empty())
    }

    /// One request, one answer. Whether the connection can be used again comes with it.
    pub(crate) fn exchange(&mut self, request: &Request) -> io::Result<(Response, bool)> {
        self.write(&request.bytes())?;
        self.read_response(&request.method)
    }

    /// Reads an answer; 1xx answers are passed over, except 101.
    pub(crate) fn read_response(&mut self, method: &str) -> io::Result<(Response, bool)> {
        loop {
            let (status, headers) = self.read_head()?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let mut response = Response { status, headers, body: Vec::new() };
            let bodyless = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let mut reusable = !response
                .header("connection")
                .is_some_and(|value| value.to_ascii_lowercase().contains("close"));
            if bodyless {
                return Ok((response, reusable));
            }
            let length = response.header("content-length").map(|value| value.parse::<usize>());
            if response.header("transfer-encoding").is_some() {
                self.read_chunks(&mut response.body)?;
            } else if let Some(length) = length {
                let length = length.map_err(|error| bad(&error.to_string()))?;
                response.body.resize(length, 0);
                self.stream.read_exact(&mut response.body)?;
            } else {
                reusable = false;
                self.stream.read_to_end(&mut response.body)?;
            }
            return Ok((response, reusable));
        }
    }

    /// The head alone; the body can be read piece by piece with [`Self::read_line`].
    pub(crate) fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.read_line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| bad(&format!("status line {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// One line without its end; the end of the stream is an error.
    pub(crate) fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        while matches!(line.last(), Some(b'\r' | b'\n')) {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.read_line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
                .map_err(|_| bad(&format!("chunk size {line:?}")))?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.read_line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn send(address: SocketAddr, request: &Request) -> Response {
    let mut connection = Connection::open(address).unwrap();
    let request = request.clone().header("Connection", "close");
    match connection.exchange(&request) {
        Ok((response, _)) => response,
        Err(error) => panic!("{} {}: {error}", request.method, request.target),
    }
}
