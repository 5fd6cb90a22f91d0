//! The way out: what is under way is finished, nothing new begins, and nobody holds it up for ever.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::support::{PATIENCE, eventually, raw};

fn ready(proxy: &Proxy) -> (u16, String) {
    let answer = proxy.admin("GET", "/readyz");
    (answer.status, answer.text())
}

/// The rest of what comes; fails if the connection is reset.
#[track_caller]
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[track_caller]
fn ends(proxy: &mut Proxy) -> std::process::ExitStatus {
    eventually("it ends", || proxy.ended())
}

#[test]
fn what_is_under_way_is_finished_and_nothing_begins() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1");
    let address = proxy.address;
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: {address}\r\n{more}\r\n");
    // Idle after a request; in the middle of an upload; waiting for the app; in half of a head.
    let mut idle = Connection::open(address).unwrap();
    ask(&mut idle, address, "/").unwrap();
    let mut upload = raw::connect(address);
    upload.write_all(head("POST /upload", "Content-Length: 10\r\n").as_bytes()).unwrap();
    upload.write_all(b"01234").unwrap();
    let mut busy = raw::connect(address);
    busy.write_all(head("GET /slow", "").as_bytes()).unwrap();
    let mut slow = raw::connect(address);
    slow.write_all(b"GET / HT").unwrap();
    eventually("the slow request arrives", || {
        app.arrived().iter().any(|request| request.target() == "/slow").then_some(())
    });
    proxy.signal("TERM");
    let refused = eventually("no more connections", || TcpStream::connect(address).err());
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(idle.read_line().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    upload.write_all(b"56789").unwrap();
    for (name, stream, body) in [("upload", upload, "app "), ("busy", busy, "slow")] {
        let answer = rest(stream);
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(body),
            "{name}: {answer}"
        );
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{name}: {answer}");
    }
    drop(slow);
    let (started, status) = (Instant::now(), ends(&mut proxy));
    assert!(status.success() && started.elapsed() < Duration::from_secs(10), "{status}");
}

#[test]
fn the_grace_ends_what_would_not_end() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1\nserver.shutdown_grace = \"1s\"");
    let mut stream = raw::connect(proxy.address);
    write!(stream, "GET /stream HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address).unwrap();
    // One who sends a byte of its head now and then.
    let mut slow = raw::connect(proxy.address);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x").unwrap();
    stream.read_exact(&mut [0; 500]).unwrap();
    let started = Instant::now();
    proxy.signal("TERM");
    assert!(ends(&mut proxy).success());
    let took = started.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1\nserver.shutdown_grace = \"5m\"");
    let mut stream = raw::connect(proxy.address);
    write!(stream, "GET /stream HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address).unwrap();
    stream.read_exact(&mut [0; 500]).unwrap();
    proxy.signal("TERM");
    eventually("it drains", || TcpStream::connect(proxy.address).err());
    assert_eq!((ready(&proxy).0, proxy.ended()), (503, None));
    proxy.signal("INT");
    let started = Instant::now();
    assert!(ends(&mut proxy).success());
    assert!(started.elapsed() < Duration::from_secs(8));
    // In order all the same: the store is free and whole.
    proxy.start_again();
    assert_eq!(ready(&proxy).0, 200);
}

#[test]
fn with_a_delay_it_is_not_ready_but_goes_on() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1\nserver.shutdown_delay = \"3s\"");
    assert_eq!(ready(&proxy).0, 200);
    proxy.signal("TERM");
    let started = Instant::now();
    eventually("it is not ready", || (ready(&proxy).0 == 503).then_some(()));
    assert!(ready(&proxy).1.contains("draining"));
    let mut alice = signed_in(&proxy, "alice");
    assert_eq!(alice.get("/").header("connection"), None);
    assert!(started.elapsed() < Duration::from_millis(2_500), "too slow a machine to tell");
    assert!(ends(&mut proxy).success());
    assert!(started.elapsed() > Duration::from_millis(2_900));
    // The second signal does not wait for it.
    proxy.start_again();
    proxy.signal("TERM");
    eventually("it is not ready", || (ready(&proxy).0 == 503).then_some(()));
    let started = Instant::now();
    proxy.signal("TERM");
    assert!(ends(&mut proxy).success());
    assert!(started.elapsed() < Duration::from_millis(2_500));
}

/// Whenever the signal comes, the end is clean and the next start finds a whole store.
#[test]
fn a_signal_during_the_start_ends_it() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1");
    assert!(proxy.terminate().success());
    let text = proxy.configuration();
    for round in 0..12 {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(folder.path().join("headcount.toml"), &text).unwrap();
        std::fs::copy(proxy.folder().join("tests.token"), folder.path().join("tests.token"))
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .args(["serve", "-c", "headcount.toml"])
            .current_dir(folder.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(round * 7));
        // In a hurry some even try before the program has begun.
        let sent = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        let status = crate::support::within(PATIENCE, "it ends", || child.try_wait().unwrap());
        assert!(status.code().is_none_or(|code| code == 0), "{status}");
        let store = folder.path().join("headcount.db");
        if store.exists() {
            let said = Command::new(env!("CARGO_BIN_EXE_headcount"))
                .args(["serve", "-c", "headcount.toml"])
                .current_dir(folder.path())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = said;
            let mut log = std::io::BufReader::new(said.stderr.take().unwrap());
            let mut line = String::new();
            // What it warns of comes before.
            while line.is_empty() || line.contains("\"warn\"") {
                line.clear();
                assert_ne!(std::io::BufRead::read_line(&mut log, &mut line).unwrap(), 0);
            }
            said.kill().unwrap();
            said.wait().unwrap();
            assert!(line.contains("\"ready\""), "round {round}: {line}");
        }
    }
}
