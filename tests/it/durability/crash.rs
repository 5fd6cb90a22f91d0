//! kill -9 while people log in, log out and are ended by an admin: what was acknowledged holds after
//! the restart. What was asked but never answered may be either way, and is not looked at.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use headcount::clock::SystemClock;
use headcount::policy::{Limits, OnLimit};
use parking_lot::Mutex;

use super::core::{COOKIE, Core, limit};
use super::revocation::fill;
use super::site::{self, Site};
use crate::support::browser::Browser;
use crate::support::http::{Connection, Request, Response};
use crate::support::proxy::{ADMIN_SECRET, Proxy};
use crate::support::{eventually, soak, top};

const CLIENTS: usize = 4;

fn cycles() -> usize {
    if soak() { 1000 } else { 50 }
}

/// A session as its owner knows it from the answers that came.
struct Known {
    user: String,
    cookie: String,
    live: bool,
}

#[test]
fn nothing_acknowledged_is_lost_when_killed_soak() {
    let site = Site::start();
    let toml = site::rules("limit.max_sessions = \"unlimited\"\nsession.sweep_interval = \"1s\"");
    let mut proxy = Proxy::start(site.address(), None, &toml);
    let mut ledger: Vec<Known> = Vec::new();
    let mut slowest = Duration::ZERO;
    for cycle in 0..cycles() {
        let fresh = run_until_killed(&mut proxy, cycle);
        if cycle % 10 == 0 {
            check_integrity(&proxy);
        }
        let started = Instant::now();
        proxy.start_again();
        slowest = slowest.max(started.elapsed());
        verify(&proxy, &fresh, cycle);
        ledger.extend(fresh);
    }
    verify(&proxy, &ledger, cycles());
    let live = ledger.iter().filter(|known| known.live).count();
    assert!(live > cycles() && ledger.len() - live > cycles(), "both kinds were tried");
    println!("{} acknowledged, {live} live; slowest start {slowest:?}", ledger.len());
}

/// Clients at work until the proxy dies under them; what they know then.
fn run_until_killed(proxy: &mut Proxy, cycle: usize) -> Vec<Known> {
    let (known, dead) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let acknowledged = AtomicUsize::new(0);
    let (address, admin) = (proxy.address, proxy.admin_address);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (known, dead, acknowledged) = (&known, &dead, &acknowledged);
            scope.spawn(move || {
                let mut turn = 0;
                while !dead.load(Ordering::Relaxed) {
                    let user = format!("user-{cycle}-{client}-{turn}");
                    let mut browser = Browser::new(address);
                    let live = live_through(&mut browser, admin, &user, turn, acknowledged);
                    if let (Some(live), Some(cookie)) = live {
                        known.lock().push(Known { user, cookie, live });
                    }
                    turn += 1;
                }
            });
        }
        // Each time at another point of the work; not after a time, but after so many answers.
        let until = 10 + cycle * 7 % 40;
        eventually("the clients get on", || {
            (acknowledged.load(Ordering::Relaxed) >= until).then_some(())
        });
        proxy.kill9();
        dead.store(true, Ordering::Relaxed);
    });
    known.into_inner()
}

/// One user's login, and then perhaps a logout or an end by the admin. Whether the session is live,
/// as far as answers came, with its cookie; nothing if that is in doubt.
fn live_through(
    browser: &mut Browser,
    admin: std::net::SocketAddr,
    user: &str,
    turn: usize,
    acknowledged: &AtomicUsize,
) -> (Option<bool>, Option<String>) {
    let done = |answer: std::io::Result<Response>, status: u16| {
        let answer = answer.ok()?;
        assert_eq!(answer.status, status, "{user}: {}", answer.text());
        acknowledged.fetch_add(1, Ordering::Relaxed);
        Some(answer)
    };
    if done(browser.try_send(&site::login_request(user)), 302).is_none() {
        return (None, None);
    }
    let cookie = browser.cookie(COOKIE);
    let live = match turn % 3 {
        0 => Some(true),
        1 => done(browser.try_send(&Request::form("/logout", &[])), 302).map(|_| false),
        _ => done(admin_end(admin, user), 200).map(|answer| {
            assert_eq!(answer.json()["ended"], 1);
            false
        }),
    };
    (live, cookie)
}

fn admin_end(admin: std::net::SocketAddr, user: &str) -> std::io::Result<Response> {
    let request = Request::new("DELETE", &format!("/api/v1/users/{user}/sessions"))
        .header("Host", &admin.to_string())
        .header("Authorization", &format!("Bearer {ADMIN_SECRET}"))
        .header("Connection", "close");
    Connection::open(admin)?.exchange(&request).map(|(answer, _)| answer)
}

fn verify(proxy: &Proxy, ledger: &[Known], cycle: usize) {
    let mut browser = proxy.browser();
    for known in ledger {
        browser.jar.clear();
        browser.set_cookie(COOKIE, &known.cookie);
        let served = site::served_as(&mut browser);
        let expected = known.live.then_some(known.user.as_str());
        assert_eq!(served.as_deref(), expected, "{}, after kill {cycle}", known.user);
    }
}

/// SQLite itself finds the files in order; looked at as the kill left them, on a copy.
fn check_integrity(proxy: &Proxy) {
    let copy = super::folder();
    for name in ["headcount.db", "headcount.db-wal"] {
        // No WAL: it was merged at the last commit.
        let _ = std::fs::copy(proxy.folder().join(name), copy.path().join(name));
    }
    let script = "import sqlite3, sys\n\
                  print(sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchall())";
    let output = Command::new(top().join(".venv/bin/python"))
        .args(["-c", script])
        .arg(copy.path().join("headcount.db"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), "[('ok',)]", "{}", String::from_utf8_lossy(&output.stderr));
}

/// Sessions in the store when it starts.
const STORED: usize = 100_000;
/// Tests run without optimisation, on cores that others use: that takes up to three times as long.
const READY_WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 6 } else { 2 });

#[test]
fn with_a_hundred_thousand_sessions_it_is_ready_in_two_seconds() {
    let site = Site::start();
    let toml = site::rules("limit.max_sessions = 10");
    let mut proxy = Proxy::start(site.address(), None, &toml);
    assert!(proxy.terminate().success());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tickets = runtime.block_on(async {
        let limits = Limits::only(Arc::new(limit(Some(10), OnLimit::Evict)));
        let core = Core::open(&proxy.folder(), limits, Arc::new(SystemClock::new())).await;
        let tickets = fill(&core, STORED, 10).await;
        core.recorder.store.close().await;
        tickets
    });
    let mut starts = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        proxy.start_again();
        starts.push(started.elapsed().min(proxy.cpu_time()));
        let page = proxy.metrics();
        assert!(page.contains(&format!("headcount_sessions_live {STORED}\n")), "{page}");
        // The next start finds a log of writes that was not merged.
        assert_eq!(site::login_as(&mut proxy.browser(), "late").status, 302);
        let ticket = &tickets[starts.len()];
        let id = ticket.id;
        assert_eq!(proxy.admin("GET", &format!("/api/v1/sessions/{id}")).json()["state"], "live");
        assert_eq!(proxy.admin("DELETE", "/api/v1/users/late/sessions").status, 200);
        proxy.kill9();
    }
    println!("ready after {starts:?}");
    // Other tests use the same cores: its own time on them tells what the start itself takes.
    assert!(starts.iter().any(|took| *took < READY_WITHIN), "{starts:?}");
}
