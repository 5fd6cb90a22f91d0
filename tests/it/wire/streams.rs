//! What is open when its session ends is cut within a second; what belongs to anybody else goes on.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{Gate, LOGIN, Site, assert_serves, assert_told, configured};
use crate::support::browser::Browser;
use crate::support::legacy::{Arrived, Reply};
use crate::support::{eventually, raw};

/// How soon a stream ends after its session.
const SOON: Duration = Duration::from_secs(1);

/// A site with a socket that echoes, events of which the second waits at the gate, and a download
/// without end.
#[track_caller]
fn site(keys: &str) -> (Site, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::scripted(&configured(keys, LOGIN), move |request, _| {
        let held = held.clone();
        match request.target() {
            "/ws" => Some(Reply::Stream(Box::new(echo))),
            "/events" => Some(Reply::Stream(Box::new(move |stream| events(stream, &held)))),
            "/download" => Some(Reply::Stream(Box::new(pour))),
            _ => None,
        }
    });
    (site, gate)
}

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Says what it hears, and bye at the end.
fn echo(stream: &mut TcpStream) {
    let mut piece = [0; 4096];
    let _ = stream.write_all(SWITCH);
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        if stream.write_all(&piece[..length]).is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"bye");
}

fn events(stream: &mut TcpStream, gate: &Gate) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    let _ = stream.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes());
    gate.wait();
    let _ = stream.write_all(b"9\r\ndata: 2\n\n\r\n");
    // Until the other side has enough.
    let _ = stream.read(&mut [0; 1]);
}

fn pour(stream: &mut TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let mut written = stream.write_all(head);
    while written.is_ok() {
        written = stream.write_all(&[b'x'; 16 * 1024]);
    }
}

/// An answer that is read piece by piece.
struct Stream {
    socket: BufReader<TcpStream>,
    head: String,
}

impl Stream {
    /// Asks for `target` as the browser would, and reads the head of the answer.
    #[track_caller]
    fn open(address: SocketAddr, browser: &Browser, target: &str) -> Self {
        let cookies = browser.cookie_line(target);
        let cookie =
            if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
        let upgrade = if target == "/ws" {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        } else {
            ""
        };
        let mut socket = BufReader::new(raw::connect(address));
        let request = format!("GET {target} HTTP/1.1\r\nHost: shop\r\n{cookie}{upgrade}\r\n");
        socket.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(socket.read_line(&mut head).unwrap(), 0, "{target}: {head}");
        }
        Self { socket, head }
    }

    fn status(&self) -> u16 {
        raw::status(self.head.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).unwrap();
    }

    #[track_caller]
    fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        self.socket.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
    }

    /// It ends, by an end or a reset, before a second has passed since `start`.
    #[track_caller]
    fn assert_cut(&mut self, what: &str, start: Instant) {
        let mut piece = [0; 64 * 1024];
        loop {
            assert!(start.elapsed() < SOON, "{what} goes on after {SOON:?}");
            self.socket.get_ref().set_read_timeout(Some(SOON)).unwrap();
            match self.socket.read(&mut piece) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let waited =
                        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    assert!(!waited, "{what} is open, and silent, after {SOON:?}");
                    return;
                }
            }
        }
    }
}

/// One of each kind, all at work.
struct Streams {
    socket: Stream,
    events: Stream,
    download: Stream,
    /// A download that its client does not read.
    stuck: Stream,
}

impl Streams {
    #[track_caller]
    fn open(site: &Site, browser: &Browser) -> Self {
        let open = |target| Stream::open(site.proxy.address, browser, target);
        let mut streams = Self {
            socket: open("/ws"),
            events: open("/events"),
            download: open("/download"),
            stuck: open("/download"),
        };
        assert_eq!(streams.socket.status(), 101, "{}", streams.socket.head);
        streams.socket.write(b"hello");
        streams.socket.expect(b"hello");
        streams.events.expect(b"9\r\ndata: 1\n\n\r\n");
        streams.download.expect(&[b'x'; 1024]);
        streams
    }

    #[track_caller]
    fn assert_cut(mut self, start: Instant) {
        self.socket.assert_cut("the socket", start);
        self.events.assert_cut("the event stream", start);
        self.download.assert_cut("the download", start);
        self.stuck.assert_cut("the stuck download", start);
    }

    /// They go on; the gate is open.
    #[track_caller]
    fn assert_open(&mut self) {
        self.socket.write(b"still here");
        self.socket.expect(b"still here");
        self.events.expect(b"9\r\ndata: 2\n\n\r\n");
        self.download.expect(&[b'x'; 1024 * 1024]);
        self.stuck.expect(&[b'x'; 1024 * 1024]);
    }
}

/// Ends alice's session, and only her streams end with it.
#[track_caller]
fn assert_ends_streams(end: impl FnOnce(&Site, &Browser)) {
    let (site, gate) = site("");
    let (alice, bob) = (site.signed_in("alice"), site.signed_in("bob"));
    let hers = Streams::open(&site, &alice);
    let mut others = [Streams::open(&site, &bob), Streams::open(&site, &site.proxy.browser())];
    end(&site, &alice);
    hers.assert_cut(Instant::now());
    gate.open();
    others.iter_mut().for_each(Streams::assert_open);
}

#[test]
fn a_second_login_cuts_the_streams_of_the_session_it_ends() {
    assert_ends_streams(|site, _| drop(site.signed_in("alice")));
}

#[test]
fn an_administrator_cuts_the_streams_of_the_session_that_is_ended() {
    assert_ends_streams(|site, _| {
        let id = site.proxy.sessions("alice", "live")[0]["id"].as_str().unwrap().to_owned();
        let answer = site.proxy.admin("DELETE", &format!("/api/v1/sessions/{id}"));
        assert!((200..300).contains(&answer.status), "{}", answer.text());
    });
}

#[test]
fn a_logout_in_another_tab_cuts_the_streams_of_its_session() {
    assert_ends_streams(|site, alice| {
        let answer = alice.moved_to(site.proxy.address).post("/logout", &[]);
        assert_eq!(answer.status, 302, "{}", answer.text());
    });
}

#[test]
fn a_login_as_another_user_in_the_same_browser_cuts_the_streams_of_the_first() {
    assert_ends_streams(|site, alice| {
        let answer = alice.moved_to(site.proxy.address).post("/login", &[("user", "carol")]);
        assert_eq!(answer.status, 302, "{}", answer.text());
    });
}

#[test]
fn a_login_again_in_the_same_browser_cuts_nothing() {
    let (site, gate) = site("");
    let mut alice = site.signed_in("alice");
    let mut streams = Streams::open(&site, &alice);
    super::sign_in(&mut alice, "alice");
    gate.open();
    streams.assert_open();
    assert_serves(&mut alice, "alice");
}

#[test]
fn an_ended_session_opens_no_stream() {
    let (site, _gate) = site("");
    let mut first = site.signed_in("alice");
    let _second = site.signed_in("alice");
    for target in ["/ws", "/events", "/download"] {
        let refused = Stream::open(site.proxy.address, &first, target);
        assert_eq!(refused.status(), 401, "{target}: {}", refused.head);
        assert!(refused.head.to_ascii_lowercase().contains("application/problem+json"));
        assert!(site.seen(target).is_empty(), "the app sees no {target}");
    }
    assert_told(&mut first, "limit");
}

#[test]
fn a_tunnel_passes_every_byte_both_ways_and_a_half_close() {
    let (site, _gate) = site("");
    let alice = site.signed_in("alice");
    let mut tunnel = Stream::open(site.proxy.address, &alice, "/ws");
    assert_eq!(tunnel.status(), 101);
    assert!(tunnel.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{}", tunnel.head);
    let data: Vec<u8> = (0..1_u32 << 20).map(|at| (at ^ (at >> 8) ^ (at >> 15)) as u8).collect();
    let (mut writer, sent) = (tunnel.socket.get_ref().try_clone().unwrap(), data.clone());
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    tunnel.socket.read_to_end(&mut heard).unwrap();
    writing.join().unwrap();
    assert_eq!(heard.len(), data.len() + 3);
    assert!(heard.starts_with(&data), "the bytes differ");
    assert!(heard.ends_with(b"bye"), "the app answers after the client's end");
}

#[test]
fn the_app_sees_the_upgrade_as_the_client_asked_for_it() {
    let (site, _gate) = site("");
    let alice = site.signed_in("alice");
    drop(Stream::open(site.proxy.address, &alice, "/ws"));
    let seen = site.wait_for("/ws");
    assert_eq!(seen.cookie("sid"), Some("S1-alice"));
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert!(seen.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(seen.header("sec-websocket-version"), Some("13"));
}

#[test]
fn an_upgrade_the_app_declines_is_an_ordinary_answer_and_one_nobody_asked_for_is_502() {
    let site =
        Site::scripted(&configured("", LOGIN), |request: &Arrived, _| match request.target() {
            "/ws" => Some(Reply::page("403 Forbidden", &[], "no sockets")),
            "/switch" => Some(Reply::Bytes(SWITCH.to_vec())),
            _ => None,
        });
    let mut declined = Stream::open(site.proxy.address, &site.proxy.browser(), "/ws");
    assert_eq!(declined.status(), 403);
    declined.expect(b"no sockets");
    assert_eq!(site.proxy.browser().get("/switch").status, 502);
    site.wait_for_refusal("upstream_invalid");
}

#[test]
fn only_a_whole_handshake_opens_a_tunnel() {
    let answer = |accept: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    };
    let site = Site::scripted(&configured("", LOGIN), move |request, _| match request.target() {
        "/other-key" => Some(Reply::Bytes(answer("AAAAAMBiTxaQ9kYGzzhZRbK+xOo=").into_bytes())),
        "/no-key" => Some(Reply::Bytes(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n".to_vec())),
        "/other" => Some(Reply::Bytes(
            answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").replace("websocket", "h2c").into_bytes(),
        )),
        _ => None,
    });
    let whole = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let ask = |target: &str, lines: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: shop\r\n{lines}\r\n");
        // Whatever it takes for frames.
        let hidden = "GET /hidden HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
        let answer = raw::raw(site.proxy.address, format!("{request}{hidden}").as_bytes());
        String::from_utf8(answer).unwrap()
    };
    for target in ["/other-key", "/no-key", "/other"] {
        let answers = ask(target, whole);
        assert!(answers.starts_with("HTTP/1.1 502"), "{target}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{target}: {answers}");
    }
    assert!(site.seen("/hidden").is_empty(), "what follows a failed switch is no request");
    // What is no handshake is an ordinary request, and so is the next.
    for (number, (from, to)) in [
        ("Version: 13", "Version: 8"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
        ("Connection: Upgrade\r\n", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let answers = ask("/plain", &whole.replacen(from, to, 1));
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{to}: {answers}");
        assert_eq!(site.seen("/hidden").len(), number + 1, "{to}");
    }
    assert!(site.seen("/plain").iter().all(|request| request.header("upgrade").is_none()));
}

#[test]
fn what_the_app_sends_keeps_no_session_alive_and_what_the_client_sends_does() {
    let keys = "session.idle_timeout = \"2s\"\nsession.sweep_interval = \"100ms\"";
    let (site, _gate) = site(keys);
    let (alice, bob) = (site.signed_in("alice"), site.signed_in("bob"));
    let mut hers = Stream::open(site.proxy.address, &alice, "/download");
    let mut his = Stream::open(site.proxy.address, &bob, "/ws");
    let mut piece = [0; 64 * 1024];
    eventually("the download ends although it never paused", || {
        his.write(b"x");
        his.expect(b"x");
        (0..64).any(|_| !matches!(hers.socket.read(&mut piece), Ok(1..))).then_some(())
    });
    assert_eq!(site.proxy.wait_for_event("session_ended", "alice")["reason"], "idle_timeout");
    assert_eq!(site.proxy.live("bob"), 1);
}

#[test]
fn open_connections_are_counted() {
    let site = Site::start("");
    let open = |count: u32| {
        let line = format!("headcount_connections {count}\n");
        eventually(&line, || site.proxy.metrics().contains(&line).then_some(()));
    };
    open(0);
    let first = TcpStream::connect(site.proxy.address).unwrap();
    let second = TcpStream::connect(site.proxy.address).unwrap();
    open(2);
    drop(first);
    open(1);
    drop(second);
    open(0);
}
