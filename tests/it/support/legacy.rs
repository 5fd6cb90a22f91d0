//! A scripted app: it answers what the test says, byte for byte, or does not answer at all, and
//! remembers every request exactly as it came.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::raw::cookie_value;

/// The rules for an app with a form at `/login`, the cookie `sid` and a logout.
pub(crate) const RULES: &str = r#"
[[credential]]
at = "cookie:sid"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302], sets = "sid" }
user = ["form:user"]
[[logout]]
request = { methods = ["POST"], path = "/logout" }
success = { clears = "sid" }
"#;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// With the empty line at its end.
    pub(crate) head: String,
    /// Raw: chunk sizes included.
    pub(crate) body: Vec<u8>,
}

impl Arrived {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or("")
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or("")
    }

    /// Every header of that name.
    pub(crate) fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub(crate) fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.headers(name).next()
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.headers("cookie").find_map(|line| cookie_value(line, name))
    }

    /// A field of a form body.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(&self.body)
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What the app does about a request.
pub(crate) enum Reply {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, then the end of the connection.
    Last(Vec<u8>),
    /// Nothing, until the app is dropped.
    Hang,
    /// Nothing, and the end of the connection.
    Close,
    /// Whatever this does with the socket; then the end of the connection.
    Stream(Box<dyn FnOnce(&mut TcpStream) + Send>),
}

impl Reply {
    /// A whole answer with a Content-Length. Each header is a line without its end.
    pub(crate) fn page(status: &str, headers: &[&str], body: &str) -> Self {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        Self::Bytes(format!("{head}\r\n{body}").into_bytes())
    }
}

type Handler = dyn Fn(&Arrived) -> Reply + Send + Sync;

/// The app; it stops when dropped.
pub(crate) struct LegacyApp {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    stopped: Arc<AtomicBool>,
}

impl LegacyApp {
    pub(crate) fn start(handler: impl Fn(&Arrived) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), handler)
    }

    /// The same, on an address of the caller's.
    pub(crate) fn on(
        listener: TcpListener,
        handler: impl Fn(&Arrived) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let app = Self {
            address: listener.local_addr().unwrap(),
            arrived: Arc::default(),
            stopped: Arc::default(),
        };
        let handler: Arc<Handler> = Arc::new(handler);
        let (arrived, stopped) = (Arc::clone(&app.arrived), Arc::clone(&app.stopped));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (handler, arrived) = (Arc::clone(&handler), Arc::clone(&arrived));
                let stopped = Arc::clone(&stopped);
                thread::spawn(move || serve(stream, &*handler, &arrived, &stopped));
            }
        });
        app
    }

    /// Every request so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().clone()
    }
}

impl Drop for LegacyApp {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one connection until either side has enough.
fn serve(
    mut stream: TcpStream,
    handler: &Handler,
    arrived: &Mutex<Vec<Arrived>>,
    stopped: &AtomicBool,
) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer) {
        arrived.lock().push(request.clone());
        match handler(&request) {
            Reply::Bytes(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Reply::Last(bytes) => {
                let _ = stream.write_all(&bytes);
                break;
            }
            Reply::Close => break,
            Reply::Stream(write) => {
                write(&mut stream);
                break;
            }
            Reply::Hang => {
                while !stopped.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(20));
                }
                return;
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Reads one request; what came after it stays in the buffer.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Arrived> {
    let end = fill_until(stream, buffer, |bytes| {
        bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
    })?;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut request = Arrived { head, body: Vec::new() };
    let length = request.header("content-length").and_then(|value| value.parse::<usize>().ok());
    let end = if request.header("transfer-encoding").is_some() {
        fill_until(stream, buffer, |bytes| {
            let whole = bytes.starts_with(b"0\r\n\r\n").then_some(5);
            whole.or_else(|| Some(bytes.windows(7).position(|at| at == b"\r\n0\r\n\r\n")? + 7))
        })?
    } else {
        let length = length.unwrap_or(0);
        fill_until(stream, buffer, |bytes| (bytes.len() >= length).then_some(length))?
    };
    request.body = buffer.drain(..end).collect();
    Some(request)
}

/// Reads more until `complete` tells where the wanted part ends.
fn fill_until(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    complete: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(end) = complete(buffer) {
            return Some(end);
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
        }
    }
}
