//! What clients can make the proxy hold in memory. The limits asserted here stand in
//! `docs/operations.md`.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::*;

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;

/// An app that keeps nothing of what it is asked: it answers each head, and reads or not.
pub(super) struct Plain {
    pub(super) address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

/// What the app does on a connection.
#[derive(Clone, Copy)]
pub(super) enum Does {
    /// Answers each request without a body.
    Answer,
    /// Reads all, and answers at the end of the connection's first request.
    Swallow,
    /// Reads the head and no more.
    Stop,
    /// Answers without end.
    Pour,
    /// Does what the path says: `/stop`, `/pour`, else [`Self::Answer`].
    Asked,
}

impl Plain {
    pub(super) fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self { address: listener.local_addr().unwrap(), stopped: Arc::new(false.into()) };
        let stopped = Arc::clone(&app.stopped);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stopped = Arc::clone(&stopped);
                thread::spawn(move || does.serve(stream, &stopped));
            }
        });
        app
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Does {
    fn serve(self, mut stream: TcpStream, stopped: &AtomicBool) {
        let mut piece = [0; 64 * 1024];
        // The end of a head may come in two pieces.
        let mut tail = Vec::new();
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            tail.extend_from_slice(&piece[..length]);
            let heads = tail.windows(4).filter(|window| *window == b"\r\n\r\n").count();
            let does = match self {
                Self::Asked if tail.starts_with(b"POST /stop") => Self::Stop,
                Self::Asked if tail.starts_with(b"GET /pour") => Self::Pour,
                Self::Asked => Self::Answer,
                does => does,
            };
            tail.drain(..tail.len().saturating_sub(3));
            match does {
                Self::Swallow => {}
                Self::Answer | Self::Asked => {
                    for _ in 0..heads {
                        if stream.write_all(ANSWER).is_err() {
                            return;
                        }
                    }
                }
                Self::Stop => {
                    while !stopped.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_millis(20));
                    }
                    return;
                }
                Self::Pour => {
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n";
                    let mut written = stream.write_all(head);
                    while written.is_ok() {
                        written = stream.write_all(&piece);
                    }
                    return;
                }
            }
        }
    }
}

#[track_caller]
fn start(does: Does, keys: &str) -> (Plain, Proxy) {
    let app = Plain::start(does);
    let proxy = Proxy::start(app.address, None, &configured(keys));
    (app, proxy)
}

/// Memory above `before` is at most `allowed` now.
#[track_caller]
fn assert_grown(what: &str, proxy: &Proxy, before: u64, allowed: u64) {
    let grown = proxy.memory().saturating_sub(before);
    println!("{what}: {} KiB more, {} KiB in all", grown / KIB, proxy.memory() / KIB);
    assert!(grown <= allowed, "{what}: {} KiB more, allowed {}", grown / KIB, allowed / KIB);
}

/// What the allocator keeps of a first use is no growth.
#[track_caller]
fn warmed(proxy: &Proxy) -> u64 {
    let mut stream = raw::connect(proxy.address);
    for _ in 0..100 {
        assert!(ask(&mut stream, GET).contains("200 OK"));
    }
    proxy.memory()
}

#[test]
fn idle_connections_are_small() {
    let _alone = alone();
    const CONNECTIONS: usize = 10_000;
    let keys = "upstream.requests = 1000\nserver.limits.first_byte_timeout = \"10m\"\n\
                server.limits.keep_alive_timeout = \"10m\"\n";
    let (_app, proxy) = start(Does::Answer, keys);
    let log = proxy.log().join("\n");
    assert!(
        !log.contains("limit of open files"),
        "this test needs 12,000 files (ulimit -n): {log}"
    );
    let before = warmed(&proxy);
    // One in ten has been used.
    let open: Vec<_> = (0..CONNECTIONS - 10)
        .map(|number| {
            let mut stream = connect_from(client(number / 200), proxy.address);
            if number % 10 == 0 {
                assert!(ask(&mut stream, GET).contains("200 OK"));
            }
            stream
        })
        .collect();
    eventually("all are there", || {
        (count(&proxy, "headcount_connections") as usize >= open.len()).then_some(())
    });
    let allowed = CONNECTIONS as u64 * 24 * KIB;
    assert_grown("10,000 idle connections", &proxy, before, allowed);
    assert!(serves(&proxy));
    drop(open);
    all_released(&proxy);
}

#[test]
fn soak_cookies_names_and_paths_that_nobody_issued_leave_nothing_behind() {
    let _alone = alone();
    let requests = if soak() { 10_000_000 } else { 100_000 };
    const THREADS: u64 = 4;
    const BATCH: u64 = 50;
    let (_app, proxy) = start(Does::Answer, "");
    let labels = |proxy: &Proxy| proxy.metrics().lines().count();
    let before = warmed(&proxy);
    let lines = labels(&proxy);
    let started = Instant::now();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let address = proxy.address;
            scope.spawn(move || {
                let mut stream = raw::connect(address);
                let mut answers = vec![0; ANSWER.len() * 4 * BATCH as usize];
                for batch in 0..requests / THREADS / BATCH {
                    let mut text = String::new();
                    for number in 0..BATCH {
                        let id = random(thread, batch * BATCH + number);
                        text.push_str(&format!(
                            "GET /p{id:x}?q={id:x} HTTP/1.1\r\nHost: shop.test\r\n\
                             User-Agent: agent-{id:x}\r\n\
                             Cookie: sid={id:016x}; c{id:x}=1\r\n\r\n"
                        ));
                    }
                    stream.write_all(text.as_bytes()).unwrap();
                    let mut ends = 0;
                    while ends < BATCH as usize {
                        let length = stream.read(&mut answers).unwrap();
                        assert_ne!(length, 0, "closed");
                        // Nothing else in an answer has this letter.
                        ends += answers[..length].iter().filter(|byte| **byte == b'k').count();
                    }
                }
            });
        }
    });
    println!("{requests} requests in {:?}", started.elapsed());
    assert_grown("random cookies", &proxy, before, 32 * MIB);
    assert_eq!(labels(&proxy), lines, "metrics do not grow");
    let rows = proxy.admin("GET", "/api/v1/sessions?state=all&limit=10").json();
    assert_eq!(rows["sessions"].as_array().map(Vec::len), Some(0), "{rows}");
}

/// Spread over all values, never the same twice.
pub(super) fn random(thread: u64, number: u64) -> u64 {
    (number << 8 | thread).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

#[test]
fn soak_logins_for_names_that_the_app_refuses_leave_nothing_behind() {
    let _alone = alone();
    let requests = if soak() { 1_000_000 } else { 10_000 };
    let (_app, proxy) = start(Does::Answer, "");
    let before = warmed(&proxy);
    let mut stream = raw::connect(proxy.address);
    for number in 0..requests {
        let body = format!("user=name-{:x}", random(0, number));
        let login = format!(
            "POST /login HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        );
        assert!(ask(&mut stream, login.as_bytes()).contains("200 OK"));
    }
    assert_eq!(count(&proxy, "headcount_logins_total{outcome=\"failed\"}"), requests);
    assert_grown("failed logins", &proxy, before, 32 * MIB);
    let rows = proxy.admin("GET", "/api/v1/sessions?state=all&limit=10").json();
    assert_eq!(rows["sessions"].as_array().map(Vec::len), Some(0), "{rows}");
}

#[test]
fn heads_without_end_are_held_up_to_their_limit() {
    let (_app, proxy) = start(Does::Answer, "server.limits.connections_per_address = 1000\n");
    let before = warmed(&proxy);
    let filling = "x".repeat(60 * 1024);
    let head = format!("GET / HTTP/1.1\r\nHost: shop.test\r\nX: {filling}");
    let open: Vec<_> = (0..500)
        .map(|_| {
            let mut stream = raw::connect(proxy.address);
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    eventually("all are there", || (count(&proxy, "headcount_connections") >= 500).then_some(()));
    thread::sleep(Duration::from_millis(500));
    assert_grown("500 unfinished heads of 60 KiB", &proxy, before, 500 * 160 * KIB);
    drop(open);
    all_released(&proxy);
    // Each far over its limit, one after the other.
    let before = proxy.memory();
    let cookies = (0..10_000).map(|number| format!("c{number}=1")).collect::<Vec<_>>().join("; ");
    let lines = "X: y\r\n".repeat(10_000);
    for _ in 0..50 {
        for bomb in [
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1024 * 1024)),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n"),
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(60 * 1024)),
        ] {
            let status = raw::status(&raw::raw(proxy.address, bomb.as_bytes()));
            assert!(matches!(status, 431 | 414), "{status} for {:.60}", bomb);
        }
    }
    assert_grown("200 heads over their limits", &proxy, before, 8 * MIB);
    assert!(serves(&proxy));
}

#[test]
fn soak_a_body_of_any_size_streams_up() {
    let _alone = alone();
    let (app, proxy) = start(Does::Swallow, "upstream.timeouts.first_byte = \"2s\"\n");
    let before = proxy.memory();
    let size = if soak() { 1024 * MIB } else { 256 * MIB };
    let mut stream = raw::connect(proxy.address);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut most = 0;
    let piece = vec![b'x'; MIB as usize];
    for _ in 0..size / MIB {
        stream.write_all(&piece).unwrap();
        most = most.max(proxy.memory());
    }
    println!("{size} bytes up: {} KiB more at most", most.saturating_sub(before) / KIB);
    assert!(most.saturating_sub(before) <= 4 * MIB, "{most} bytes");
    drop(stream);
    // A login is read whole, so it has a limit; what it says of its size is enough.
    let login = format!(
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\nuser=alice"
    );
    assert_eq!(raw::status(&raw::raw(proxy.address, login.as_bytes())), 413);
    drop(app);
}

#[test]
fn soak_a_body_of_any_size_streams_down() {
    let _alone = alone();
    let (_app, proxy) = start(Does::Pour, "");
    let before = proxy.memory();
    let size = if soak() { 1024 * MIB } else { 256 * MIB };
    let mut stream = raw::connect(proxy.address);
    stream.write_all(GET).unwrap();
    let (mut most, mut piece) = (0, vec![0; MIB as usize]);
    for _ in 0..size / MIB {
        stream.read_exact(&mut piece).unwrap();
        most = most.max(proxy.memory());
    }
    println!("{size} bytes down: {} KiB more at most", most.saturating_sub(before) / KIB);
    assert!(most.saturating_sub(before) <= 4 * MIB, "{most} bytes");
    drop(stream);
    all_released(&proxy);
}

#[test]
fn what_the_other_side_does_not_take_is_not_read() {
    const STREAMS: u64 = 40;
    for (does, request) in [
        (Does::Stop, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"),
        (Does::Pour, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        // Nobody notices that a client is gone whose upload is stuck, until the app's time is over.
        let (_app, proxy) = start(does, "upstream.timeouts.first_byte = \"4s\"\n");
        let before = proxy.memory();
        let mut open: Vec<_> = (0..STREAMS).map(|_| raw::connect(proxy.address)).collect();
        for stream in &mut open {
            stream.write_all(request.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
        }
        // Whoever uploads goes on until nothing more goes.
        let uploads = matches!(does, Does::Stop);
        let piece = vec![b'x'; 256 * 1024];
        let mut stuck = Instant::now();
        while stuck.elapsed() < Duration::from_secs(1) {
            let mut moved = 0;
            for stream in open.iter_mut().filter(|_| uploads) {
                moved += stream.write(&piece).unwrap_or(0);
            }
            if moved > 0 {
                stuck = Instant::now();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let what = if uploads { "uploads to a stopped app" } else { "downloads nobody reads" };
        // What the first requests take is there once.
        assert_grown(what, &proxy, before, STREAMS * 256 * KIB + 4 * MIB);
        drop(open);
        all_released(&proxy);
    }
}
