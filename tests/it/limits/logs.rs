//! The log under attack: a flood of refusals becomes no flood of lines, and a log that nobody reads,
//! or a full disk under it, holds up no request.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::support::http::{self, Request};
use crate::support::legacy::{LegacyApp, Reply};

fn app() -> LegacyApp {
    LegacyApp::start(|_| Reply::page("200 OK", &[], "$"))
}

/// The program with a standard error of its own, which cannot tell where it listens.
struct Mute {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    _dir: TempDir,
}

impl Mute {
    #[track_caller]
    fn start(app: &LegacyApp, stderr: Stdio) -> Self {
        // Taken and let go: nobody else gets them so soon.
        let [address, admin] =
            [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let dir = TempDir::new().unwrap();
        let toml = format!(
            "server.listen = \"{address}\"\nadmin.listen = \"{admin}\"\n\
             upstream.url = \"http://{}\"\n{}",
            app.address,
            configured("")
        );
        std::fs::write(dir.path().join("headcount.toml"), toml).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .args(["serve", "-c", "headcount.toml"])
            .current_dir(dir.path())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mute = Self { child, address, admin, _dir: dir };
        eventually("it is ready", || TcpStream::connect(admin).ok());
        eventually("it is ready", || (mute.status("/readyz") == 200).then_some(()));
        mute
    }

    fn ask_admin(&self, path: &str) -> http::Response {
        http::send(self.admin, &Request::get(path).header("Host", &self.admin.to_string()))
    }

    fn status(&self, path: &str) -> u16 {
        self.ask_admin(path).status
    }

    /// So many lines: a login that failed is one.
    #[track_caller]
    fn make_it_say(&self, lines: usize) {
        const BATCH: usize = 100;
        let login = "POST /login HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\
            Content-Type: application/x-www-form-urlencoded\r\n\r\nuser=alice";
        let batch = login.repeat(BATCH);
        let mut stream = raw::connect(self.address);
        let mut piece = [0; 64 * 1024];
        for _ in 0..lines / BATCH {
            stream.write_all(batch.as_bytes()).unwrap();
            let mut answered = 0;
            while answered < BATCH {
                let length = stream.read(&mut piece).unwrap();
                assert_ne!(length, 0, "closed");
                // Each answer has one.
                answered += piece[..length].iter().filter(|byte| **byte == b'$').count();
            }
        }
    }

    fn dropped(&self) -> u64 {
        let metrics = self.ask_admin("/metrics").text();
        let name = "headcount_log_lines_dropped_total ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let app = app();
    let mut mute = Mute::start(&app, Stdio::piped());
    // More than the pipe and the queue hold.
    mute.make_it_say(6_000);
    assert!(mute.dropped() > 0);
    // Read again, it tells how much is missing.
    let reader = mute.child.stderr.take().unwrap();
    let text = std::thread::spawn(move || std::io::read_to_string(reader).unwrap_or_default());
    eventually("lines get through again", || {
        let before = mute.dropped();
        mute.make_it_say(100);
        (mute.dropped() == before).then_some(())
    });
    drop(mute);
    assert!(text.join().unwrap().contains("dropped"));
}

#[test]
fn a_full_disk_under_the_log_holds_up_nothing() {
    let app = app();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mute = Mute::start(&app, full.into());
    mute.make_it_say(1_000);
    eventually("what is lost is counted", || (mute.dropped() >= 1_000).then_some(()));
}

#[test]
fn a_flood_of_refusals_is_counted_and_not_told_one_by_one() {
    const FLOOD: u64 = 2_000;
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured(""));
    let start = Instant::now();
    for _ in 0..FLOOD {
        let answer = raw::raw(proxy.address, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert_eq!(raw::status(&answer), 400);
    }
    let seconds = start.elapsed().as_secs() + 2;
    assert_eq!(refused(&proxy, "host_duplicate"), FLOOD);
    std::thread::sleep(Duration::from_secs(1));
    raw::raw(proxy.address, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let lines = eventually("the last is told", || {
        let log = proxy.log();
        let lines: Vec<serde_json::Value> = log
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &serde_json::Value| line["reason"] == "host_duplicate")
            .collect();
        let told = lines.len() as u64;
        let untold: u64 = lines.iter().filter_map(|line| line["untold"].as_u64()).sum();
        (told + untold == FLOOD + 1).then_some(told)
    });
    println!("{lines} lines in {seconds} s");
    assert!(lines <= 200 * seconds, "{lines} lines in {seconds} s");
}
