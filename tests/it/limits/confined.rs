//! All that clients can make the proxy hold, at the same time, where the system gives it no more than
//! 128 MiB: a control group kills it when it needs more. The keys are those that `docs/operations.md`
//! advises for so little. Who may not make control groups measures the most it ever held instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use super::memory::{Does, MIB, Plain, random};
use super::*;
use crate::support::proxy::Kind;

const ALLOWED: u64 = 128 * MIB;
const KEYS: &str = "server.limits.connections = 250\nserver.limits.connections_per_address = 250\n\
                    upstream.requests = 150\nserver.limits.write_stall_timeout = \"5m\"\n\
                    server.limits.head_timeout = \"5m\"\nupstream.timeouts.first_byte = \"5m\"\n\
                    server.limits.body_idle_timeout = \"5m\"\n";

/// A group of its own, with that much memory.
struct Group {
    folder: PathBuf,
    /// What it had at most.
    peak: &'static str,
}

impl Group {
    /// The older kind of groups where they are, else the newer; says why if there is neither.
    fn create() -> Option<Self> {
        let name = format!("headcount-test-{}", std::process::id());
        let kinds = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            ("/sys/fs/cgroup", "memory.max", "memory.peak"),
        ];
        for (top, limit, peak) in kinds {
            let folder = Path::new(top).join(&name);
            let made = fs::create_dir(&folder)
                .and_then(|()| fs::write(folder.join(limit), ALLOWED.to_string()));
            match made {
                Ok(()) => return Some(Self { folder, peak }),
                Err(error) => println!("no control group {}: {error}", folder.display()),
            }
            let _ = fs::remove_dir(&folder);
        }
        None
    }

    fn peak(&self) -> u64 {
        fs::read_to_string(self.folder.join(self.peak)).unwrap().trim().parse().unwrap()
    }
}

/// The most memory that the process has had.
fn most(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

impl Drop for Group {
    fn drop(&mut self) {
        // When nobody is in it any more.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Connections that have said this, and do not read.
fn many(proxy: &Proxy, count: usize, said: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = raw::connect(proxy.address);
        stream.write_all(said).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn everything_at_once_fits_into_128_mib() {
    let _alone = alone();
    let group = Group::create();
    let app = Plain::start(Does::Asked);
    let kind = Kind { group: group.as_ref().map(|group| group.folder.clone()), ..Kind::default() };
    let mut proxy = Proxy::start_as(app.address, None, &configured(KEYS), kind);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(60 * 1024));
    let heads = many(&proxy, 90, head.as_bytes());
    let downloads = many(&proxy, 75, b"GET /pour HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut uploads =
        many(&proxy, 70, b"POST /stop HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
    let piece = vec![b'x'; 256 * 1024];
    for stream in &mut uploads {
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        while stream.write(&piece).is_ok() {}
    }
    // Meanwhile: cookies that nobody issued, and heads over their limits.
    let cookies = (0..10_000).map(|number| format!("c{number}=1")).collect::<Vec<_>>().join("; ");
    let lines = "X: y\r\n".repeat(10_000);
    let bombs = [
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1024 * 1024)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n"),
    ];
    thread::scope(|scope| {
        for thread in 0..4 {
            let (proxy, bombs) = (&proxy, &bombs);
            scope.spawn(move || {
                let mut stream = raw::connect(proxy.address);
                for number in 0..5_000 {
                    let id = random(thread, number);
                    let request = format!(
                        "GET /p{id:x} HTTP/1.1\r\nHost: a\r\nUser-Agent: {id:x}\r\n\
                         Cookie: sid={id:016x}\r\n\r\n"
                    );
                    assert!(ask(&mut stream, request.as_bytes()).contains("200 OK"));
                    if number % 250 == 0 {
                        let bomb = &bombs[number as usize / 250 % bombs.len()];
                        assert_eq!(raw::status(&raw::raw(proxy.address, bomb.as_bytes())), 431);
                    }
                }
            });
        }
    });
    let (open, held) = (heads.len() + downloads.len() + uploads.len(), proxy.memory());
    assert!(count(&proxy, "headcount_connections") as usize >= open);
    assert_eq!(count(&proxy, "headcount_upstream_requests"), 145);
    // One connection too many is told so.
    let more = many(&proxy, 250 - open, b"GET / HTTP/1.1\r\n");
    eventually("it is full", || {
        (refused(&proxy, "overloaded") > 0 || !serves(&proxy)).then_some(())
    });
    assert!(refused(&proxy, "overloaded") > 0);
    let (held, most) = (held / MIB, most(&proxy) / MIB);
    let peak = group.as_ref().map(|group| group.peak() / MIB);
    println!("{held} MiB held, {most} MiB at most, {peak:?} MiB in the control group");
    assert!(held >= 16 && most <= 128, "{held} MiB held, {most} MiB at most");
    drop((heads, downloads, uploads, more, app));
    eventually("it serves, or at least lives", || {
        (count(&proxy, "headcount_connections") == 0).then_some(())
    });
    assert!(proxy.terminate().success());
    drop(proxy);
}
