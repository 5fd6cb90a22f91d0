//! What clients can make grow or wait, and how far: caps, deadlines, overload, memory. The proxy is
//! the real one before a scripted app; every limit is hit over the wire.

mod addresses;
mod confined;
mod deadlines;
mod files;
mod logins;
mod logs;
mod memory;
mod overload;
mod reasons;
mod slow;
mod worst;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use socket2::{Domain, Socket, Type};

use crate::support::legacy::RULES;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, raw, soak};

/// The whole configuration but for the addresses.
fn configured(keys: &str) -> String {
    format!("limit.max_sessions = 1\n{keys}\n{RULES}")
}

/// For those that measure, or load the machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// The `number`th of many client addresses, all of this machine.
fn client(number: usize) -> Ipv4Addr {
    let [_, b, c, d] = u32::try_from(number + 1).unwrap().to_be_bytes();
    Ipv4Addr::new(127, b + 1, c, d)
}

/// A connection from that address.
#[track_caller]
fn connect_from(address: impl Into<IpAddr>, proxy: SocketAddr) -> TcpStream {
    let address = address.into();
    let socket = Socket::new(Domain::for_address(proxy), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
    socket.connect_timeout(&proxy.into(), PATIENCE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One request, and all that comes back for it but for the end of the connection.
fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    // A connection that is refused may be closed before it is written to.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
        if whole(&answer) {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether an answer with a Content-Length is all there.
fn whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    length.is_some_and(|length| body.len() >= length)
}

/// Whether the proxy serves a fresh client.
fn serves(proxy: &Proxy) -> bool {
    raw::status(ask(&mut raw::connect(proxy.address), GET).as_bytes()) == 200
}

/// The value of a metric.
#[track_caller]
fn count(proxy: &Proxy, metric: &str) -> u64 {
    let metrics = proxy.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{metric} ")));
    line.unwrap_or_else(|| panic!("no {metric} in\n{metrics}")).trim().parse().unwrap()
}

/// How many requests were refused for a reason.
#[track_caller]
fn refused(proxy: &Proxy, reason: &str) -> u64 {
    count(proxy, &format!("headcount_refusals_total{{reason=\"{reason}\"}}"))
}

/// Waits until nobody is connected, and nothing is under way at the app.
#[track_caller]
fn all_released(proxy: &Proxy) {
    for level in
        ["headcount_connections", "headcount_upstream_requests", "headcount_upstream_queue"]
    {
        eventually(&format!("{level} is 0"), || (count(proxy, level) == 0).then_some(()));
    }
}

/// The other side has closed, or reset.
#[track_caller]
fn assert_closed(stream: &mut TcpStream, within: Duration) {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                let open = matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
                assert!(!open, "still open after {within:?}");
                return;
            }
        }
    }
}
