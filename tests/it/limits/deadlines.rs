//! Every deadline, missed once: who waits is told, or closed, in time; what was held on both sides is
//! free again. Those before HTTP (TLS, the PROXY header) and of HTTP/2 are tested in `edge`.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::*;
use crate::support::legacy::{LegacyApp, Reply};

/// The deadline under test, short; the others stay at 10 s and more.
const SHORT: Duration = Duration::from_millis(400);
/// A machine with other work to do may be so late.
const LATE: Duration = Duration::from_secs(4);

/// An app that knows how many connections are open to it.
struct App {
    app: LegacyApp,
    open: Arc<AtomicUsize>,
}

impl App {
    fn start() -> Self {
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        let app = LegacyApp::start(move |request| {
            let count = Arc::clone(&count);
            let target = request.target().to_owned();
            if target == "/" {
                return Reply::page("200 OK", &[], "hello");
            }
            Reply::Stream(Box::new(move |stream| {
                count.fetch_add(1, Ordering::SeqCst);
                match &*target {
                    "/silent" => {}
                    "/half" => {
                        let _ =
                            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                    }
                    "/trickle" => trickle(stream),
                    "/pour" => pour(stream),
                    other => panic!("{other}"),
                }
                // Until the proxy lets go.
                while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
                count.fetch_sub(1, Ordering::SeqCst);
            }))
        });
        Self { app, open }
    }

    #[track_caller]
    fn released(&self, proxy: &Proxy) {
        eventually("the app is let go", || (self.open.load(Ordering::SeqCst) == 0).then_some(()));
        all_released(proxy);
    }
}

/// More than all buffers hold.
fn pour(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
    while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
}

/// A byte now and then, without end.
fn trickle(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
    while stream.write_all(b"x").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

/// The app and a proxy with this deadline short.
#[track_caller]
fn start(key: &str) -> (App, Proxy) {
    let app = App::start();
    let keys = format!("{key} = \"{}ms\"\n", SHORT.as_millis());
    let proxy = Proxy::start(app.app.address, None, &configured(&keys));
    (app, proxy)
}

/// What is answered to these bytes until the connection ends, which is in time.
#[track_caller]
fn told(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut stream = raw::connect(proxy.address);
    let start = Instant::now();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut answer);
    in_time(start);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The deadline has passed, and not for long.
#[track_caller]
fn in_time(start: Instant) {
    let took = start.elapsed();
    assert!(took >= SHORT - Duration::from_millis(50) && took < SHORT + LATE, "{took:?}");
}

#[test]
fn a_connection_must_say_something() {
    let (app, proxy) = start("server.limits.first_byte_timeout");
    assert_eq!(told(&proxy, b""), "", "nobody waits for a page");
    app.released(&proxy);
}

#[test]
fn a_head_must_come_to_its_end() {
    let (app, proxy) = start("server.limits.head_timeout");
    let mut stream = raw::connect(proxy.address);
    let begun = Instant::now();
    let mut writer = stream.try_clone().unwrap();
    // A byte in time each time is not enough.
    let writing = thread::spawn(move || {
        while writer.write_all(b"x").is_ok() && begun.elapsed() < LATE {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    in_time(begun);
    assert_eq!(&status, b"HTTP/1.1 408");
    assert_eq!(refused(&proxy, "head_timeout"), 1);
    drop(stream);
    writing.join().unwrap();
    app.released(&proxy);
}

#[test]
fn a_body_must_make_progress() {
    let (app, proxy) = start("server.limits.body_idle_timeout");
    for target in ["/login", "/silent"] {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 99\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\nuser=al"
        );
        let answer = told(&proxy, head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 408 "), "{target}: {answer}");
    }
    assert_eq!(refused(&proxy, "body_timeout"), 2);
    app.released(&proxy);
}

#[test]
fn a_connection_without_a_request_is_not_kept() {
    let (app, proxy) = start("server.limits.keep_alive_timeout");
    let answer = told(&proxy, GET);
    assert!(answer.ends_with("hello"), "nothing follows the answer: {answer}");
    app.released(&proxy);
}

#[test]
fn a_client_must_take_its_answer() {
    let (app, proxy) = start("server.limits.write_stall_timeout");
    let mut stuck = raw::connect(proxy.address);
    stuck.write_all(b"GET /pour HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    eventually("the app pours", || (app.open.load(Ordering::SeqCst) == 1).then_some(()));
    // It reads nothing: the proxy lets go of both sides by itself.
    app.released(&proxy);
    assert_closed(&mut stuck, LATE);
}

#[test]
fn the_app_must_be_reached_in_time() {
    // A listener whose queue is full lets nobody in and says nothing.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _queue: Vec<_> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let keys = format!("upstream.timeouts.connect = \"{}ms\"\n", SHORT.as_millis());
    let proxy = Proxy::start(address, None, &configured(&keys));
    let begun = Instant::now();
    let answer = ask(&mut raw::connect(proxy.address), GET);
    in_time(begun);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(refused(&proxy, "upstream_timeout"), 1);
    all_released(&proxy);
}

#[test]
fn the_app_must_begin_its_answer_in_time() {
    let (app, proxy) = start("upstream.timeouts.first_byte");
    let begun = Instant::now();
    let mut stream = raw::connect(proxy.address);
    let answer = ask(&mut stream, b"GET /silent HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    in_time(begun);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(refused(&proxy, "upstream_timeout"), 1);
    // The client did nothing wrong: its connection goes on.
    assert!(ask(&mut stream, GET).contains("200 OK"));
    drop(stream);
    app.released(&proxy);
}

#[test]
fn the_app_must_go_on_with_its_answer() {
    let (app, proxy) = start("upstream.timeouts.body_idle");
    let answer = told(&proxy, b"GET /half HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    // Never a clean end.
    assert!(answer.contains("content-length: 9") && answer.ends_with("\r\n\r\nhalf"), "{answer}");
    app.released(&proxy);
}

#[test]
fn a_request_as_a_whole_may_have_a_deadline() {
    let (app, proxy) = start("server.limits.request_timeout");
    let begun = Instant::now();
    let answer =
        ask(&mut raw::connect(proxy.address), b"GET /silent HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    in_time(begun);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(refused(&proxy, "request_timeout"), 1);
    // Progress does not help.
    let answer = told(&proxy, b"GET /trickle HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("xx"), "{answer}");
    let slow = "POST /silent HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9999\r\n\r\n";
    let mut uploading = raw::connect(proxy.address);
    let begun = Instant::now();
    uploading.write_all(slow.as_bytes()).unwrap();
    let mut writer = uploading.try_clone().unwrap();
    let writing = thread::spawn(move || {
        while writer.write_all(b"x").is_ok() && begun.elapsed() < LATE {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut status = [0; 12];
    uploading.read_exact(&mut status).unwrap();
    in_time(begun);
    assert_eq!(&status, b"HTTP/1.1 504");
    drop(uploading);
    writing.join().unwrap();
    // A connection may stay longer than its requests.
    let mut kept = raw::connect(proxy.address);
    for _ in 0..2 {
        assert!(ask(&mut kept, GET).contains("200 OK"));
        thread::sleep(SHORT + SHORT / 2);
    }
    drop(kept);
    app.released(&proxy);
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let app = App::start();
    let proxy = Proxy::start(app.app.address, None, &configured(""));
    let mut streams: Vec<_> = ["/silent", "/half", "/trickle", "/pour"]
        .map(|target| {
            let mut stream = raw::connect(proxy.address);
            let get = format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
            stream.write_all(get.as_bytes()).unwrap();
            stream
        })
        .into();
    eventually("all are at the app", || (app.open.load(Ordering::SeqCst) == 4).then_some(()));
    for stream in streams.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
    app.released(&proxy);
}
