//! Clients that take an answer in the smallest of pieces: they get every byte, those who take nothing are
//! left in time, and what is held for them is bounded. Over HTTP/2 by windows of one byte, over HTTP/1.1
//! by a socket that hardly has a window.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::http2::{Held, case, signed_in};
use super::*;
use crate::support::PATIENCE;

/// What `/events` says, without the chunks.
fn events() -> String {
    (0..300).map(|number| format!("data: {number}\n\n")).collect()
}

#[test]
fn through_windows_of_one_byte_every_byte_passes() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    for (path, whole) in [("/few", numbers(5_000)), ("/events", events())] {
        let seen = case(&proxy, &format!("narrow 1 0 {path}"));
        assert_eq!((&seen["status"], &seen["ended"]), (&200.into(), &true.into()), "{path}");
        assert_eq!(seen["body"], whole, "{path}");
    }
    let seen = case(&proxy, &format!("websocket_narrow {}", signed_in(&proxy, "alice")));
    assert_eq!(seen["body"], format!("{}bye", numbers(3_000)), "{seen}");
    assert_eq!(count(&proxy, "headcount_refusals_total{reason=\"http2_flood\"}"), 0);
}

#[test]
fn who_takes_little_at_a_time_is_not_stalled() {
    let app = app();
    let keys = "server.limits.write_stall_timeout = \"1s\"\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    // Some forty kilobytes a second: each larger piece of the app's takes longer than the deadline.
    let seen = case(&proxy, "narrow 4096 0.1 /many");
    assert_eq!((&seen["ended"], &seen["closed"]), (&true.into(), &false.into()));
    assert_eq!(seen["body"], numbers(250_000));
    assert!(seen["seconds"].as_f64().unwrap() > 4.0, "{}", seen["seconds"]);
}

#[test]
fn an_answer_that_nobody_takes_leaves_the_others_alone_as_long_as_they_move() {
    let app = app();
    let keys = "server.limits.write_stall_timeout = \"1s\"\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    let seen = case(&proxy, "held_beside");
    assert_eq!((&seen["busy"], &seen["closed"]), (&true.into(), &true.into()), "{seen}");
    let quiet = seen["quiet"].as_f64().unwrap();
    assert!(quiet > 0.3 && quiet < 6.0, "{seen}");
}

#[test]
fn answers_that_nobody_takes_cost_a_quarter_of_a_megabyte_each() {
    const STREAMS: u64 = 100;
    let app = app();
    // So long that all are in place before the first is left.
    let keys = "server.limits.write_stall_timeout = \"10s\"\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    assert_eq!(case(&proxy, "plain")["status"], 200);
    let before = proxy.memory();
    let held: Vec<_> = (0..3).map(|_| Held::start(&proxy, &format!("pouring {STREAMS}"))).collect();
    assert_eq!(count(&proxy, "headcount_upstream_requests"), 3 * STREAMS);
    let grown = proxy.memory().saturating_sub(before) >> 10;
    println!("{} answers held: {grown} KiB more", 3 * STREAMS);
    assert!(grown <= 3 * STREAMS * 256 + 4 * 1024, "{grown} KiB");
    eventually("nothing is left of them", || {
        (count(&proxy, "headcount_upstream_requests") == 0).then_some(())
    });
    held.into_iter().for_each(Held::stop);
}

/// A connection that can hardly take anything at once.
#[track_caller]
fn narrow(proxy: &Proxy, request: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The system makes the least of it that it has.
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect_timeout(&proxy.address.into(), PATIENCE).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// All that comes, a few bytes at a time.
#[track_caller]
fn sip(stream: &mut TcpStream) -> String {
    let (mut all, mut few) = (Vec::new(), [0; 3]);
    loop {
        match stream.read(&mut few).unwrap() {
            0 => return String::from_utf8(all).unwrap(),
            count => all.extend_from_slice(&few[..count]),
        }
    }
}

#[test]
fn through_a_narrow_socket_every_byte_passes() {
    let app = app();
    let proxy = proxy(&app, "");
    let whole = sip(&mut narrow(&proxy, &get("/bytes")));
    assert!(whole.ends_with(&format!("\r\n\r\n{}", numbers(100_000))), "{}", whole.len());
    let whole = sip(&mut narrow(&proxy, &get("/events")));
    let (head, chunks) = whole.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("text/event-stream"), "{head}");
    let events: String = chunks.split("\r\n").filter(|line| line.contains("data: ")).collect();
    assert_eq!(events, self::events());
    // What is sent into the tunnel comes back; the app says good-bye to a half that has ended.
    let mut tunnel = narrow(&proxy, UPGRADE);
    let mut writer = tunnel.try_clone().unwrap();
    let writing = thread::spawn(move || {
        writer.write_all(numbers(100_000).as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let whole = sip(&mut tunnel);
    writing.join().unwrap();
    let (head, echo) = whole.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(echo, format!("{}bye", numbers(100_000)));
}

#[test]
fn a_narrow_socket_that_stops_is_left_in_time() {
    let app = app();
    let proxy = proxy(&app, "server.limits.write_stall_timeout = \"1s\"\n");
    let flood = UPGRADE.replace("/ws", "/ws/flood");
    for request in [get("/pour"), flood] {
        let mut stream = narrow(&proxy, &request);
        stream.read_exact(&mut [0; 1_000]).unwrap();
        let stopped = Instant::now();
        assert_eq!(count(&proxy, "headcount_upstream_requests"), 1, "{request}");
        eventually("it is let go", || {
            (count(&proxy, "headcount_upstream_requests") == 0).then_some(())
        });
        // Counted from when no buffer takes more, which four bytes at a time may fill slowly.
        println!("left {:?} after it stopped", stopped.elapsed());
        assert!(stopped.elapsed() > Duration::from_millis(900), "{request}");
    }
}
