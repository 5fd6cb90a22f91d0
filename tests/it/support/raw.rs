//! Bytes on a socket, as they are: for requests that no decent client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// Sends `bytes` and reads until the other side closes: let them ask for that, or be refused. A
/// reset after the answer is no failure.
pub(crate) fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The other side may refuse and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The status of a raw answer; 0 when there was none.
pub(crate) fn status(answer: &[u8]) -> u16 {
    answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// A socket with the usual patience, for writing and reading piece by piece.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The value that a Set-Cookie or Cookie line gives `name`, as it stands there.
pub(crate) fn cookie_value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(';')
        .filter_map(|pair| pair.trim_start().split_once('='))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}
