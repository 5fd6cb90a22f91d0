//! A copy of the store while people sign in: it holds what was acknowledged before, and nobody waits.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use headcount::clock::SystemClock;
use headcount::policy::{Limits, OnLimit};
use headcount::store::sqlite::backup::verify;
use parking_lot::Mutex;

use super::Stop;
use super::core::{COOKIE, Core, limit};
use super::revocation::fill;
use super::site::{self, Site, login_as, served_as};
use crate::support::eventually;
use crate::support::http::Connection;
use crate::support::postgres::Database;
use crate::support::proxy::{ADMIN_SECRET, Proxy};

fn backup(proxy: &Proxy, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(["backup", "copy.db"])
        .args(more)
        .current_dir(proxy.folder())
        .output()
        .unwrap()
}

/// With the addresses it has in its configuration.
fn start(site: &Site, toml: &str) -> Proxy {
    let mut proxy = Proxy::start(site.address(), None, toml);
    proxy.restart();
    proxy
}

fn by_config(proxy: &Proxy) -> Output {
    backup(proxy, &["-c", "headcount.toml", "--token-file", "tests.token"])
}

#[track_caller]
fn fails(output: &Output, because: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(because), "{said}");
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// As docs/operations.md says.
fn restore(proxy: &mut Proxy) {
    assert!(proxy.terminate().success());
    let folder = proxy.folder();
    let _ = std::fs::remove_file(folder.join("headcount.db-wal"));
    std::fs::rename(folder.join("copy.db"), folder.join("headcount.db")).unwrap();
    proxy.start_again();
}

/// Signs people in, one after the other, until told to stop; their cookies, each with when its
/// answer came and how long it took.
fn sign_in(
    proxy: &Proxy,
    client: usize,
    over: &AtomicBool,
) -> Vec<(String, String, Instant, Duration)> {
    let mut known = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let user = format!("user-{client}-{}", known.len());
        let mut browser = proxy.browser();
        let started = Instant::now();
        assert_eq!(login_as(&mut browser, &user).status, 302);
        let took = started.elapsed();
        known.push((user, browser.cookie(COOKIE).unwrap(), Instant::now(), took));
    }
    known
}

#[test]
fn what_was_acknowledged_before_a_backup_is_there_after_its_restore() {
    let site = Site::start();
    let mut proxy = start(&site, &site::rules("limit.max_sessions = 2"));
    let (known, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let begun = thread::scope(|scope| {
        for client in 0..3 {
            let (proxy, known, over) = (&proxy, &known, &over);
            scope.spawn(move || known.lock().extend(sign_in(proxy, client, over)));
        }
        let stop = Stop(&over);
        eventually("people sign in", || proxy.metrics().contains("admitted\"} 4").then_some(()));
        let begun = Instant::now();
        for _ in 0..5 {
            let said = succeeds(&backup(
                &proxy,
                &["-c", "headcount.toml", "--token-file", "tests.token", "--overwrite"],
            ));
            assert!(said.contains(" live sessions, 0 ended"), "{said}");
        }
        drop(stop);
        begun
    });
    let path = proxy.folder().join("copy.db");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fails(&by_config(&proxy), "copy.db is there already");
    proxy.wait_for_admin_event("backup_taken");
    restore(&mut proxy);
    let known = known.into_inner();
    let before: Vec<_> = known.iter().filter(|(_, _, at, _)| *at < begun).collect();
    assert!(before.len() >= 4, "{} before", before.len());
    for (user, cookie, ..) in before {
        let mut browser = proxy.browser();
        browser.set_cookie(COOKIE, cookie);
        assert_eq!(served_as(&mut browser).as_ref(), Some(user));
    }
    // It goes on from there.
    assert_eq!(login_as(&mut proxy.browser(), "late").status, 302);
}

#[test]
fn a_store_that_nobody_uses_is_copied_without_asking() {
    let site = Site::start();
    let mut proxy = start(&site, &site::rules("limit.max_sessions = 1"));
    let mut browsers = [proxy.browser(), proxy.browser()];
    browsers.iter_mut().for_each(|browser| drop(login_as(browser, "ann")));
    // A write-ahead log is left behind.
    proxy.kill9();
    let said = succeeds(&backup(&proxy, &["-c", "headcount.toml"]));
    assert!(said.contains("copy.db: 1 live sessions, 1 ended"), "{said}");
    proxy.start_again();
    assert_eq!(login_as(&mut proxy.browser(), "ann").status, 302);
    restore(&mut proxy);
    let now: Vec<_> = browsers.iter_mut().map(served_as).collect();
    assert_eq!(now, [None, Some("ann".to_owned())]);
}

#[test]
fn what_cannot_be_copied_says_why_and_leaves_nothing() {
    let site = Site::start();
    let viewer = "admin.tokens = [{ name = \"eyes\", role = \"operator\", secret_file = \"tests.token\" }]\n";
    let rules = site::rules(&format!("limit.max_sessions = 1\n{viewer}"));
    let mut proxy = start(&site, &rules);
    fails(&by_config(&proxy), "403 Forbidden The role of this token");
    fails(&backup(&proxy, &["-c", "headcount.toml", "--token-file", "headcount.key"]), "401");
    assert!(proxy.terminate().success());
    let admin = proxy.admin_address.to_string();
    fails(&backup(&proxy, &["--admin", &admin, "--token-file", "tests.token"]), "cannot connect");
    std::fs::write(proxy.folder().join("headcount.db"), vec![b'x'; 8192]).unwrap();
    fails(&by_config(&proxy), "file is not a database");
    std::fs::remove_file(proxy.folder().join("headcount.db")).unwrap();
    fails(&by_config(&proxy), "cannot use the store");
    let database = Database::create();
    proxy.change_store(&database.url());
    fails(&by_config(&proxy), "pg_dump");
    proxy.start_again();
    fails(&backup(&proxy, &["--admin", &admin, "--token-file", "tests.token"]), "403");
    let left: Vec<String> = std::fs::read_dir(proxy.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("copy"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

/// Sessions in the store that is copied.
const STORED: usize = 100_000;

/// Who takes the copy may be slow, or leave: logins wait for neither, and the next one gets it.
#[test]
fn logins_do_not_wait_for_a_backup_soak() {
    let site = Site::start();
    let toml = site::rules("limit.max_sessions = 10");
    let mut proxy = Proxy::start(site.address(), None, &toml);
    assert!(proxy.terminate().success());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limits = Limits::only(Arc::new(limit(Some(10), OnLimit::Evict)));
        let core = Core::open(&proxy.folder(), limits, Arc::new(SystemClock::new())).await;
        fill(&core, STORED, 10).await;
        core.recorder.store.close().await;
    });
    proxy.start_again();
    let worst = |client: usize, seconds: u64| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let logins = scope.spawn(|| sign_in(&proxy, client, &over));
            let stop = Stop(&over);
            let (started, mut copies) = (Instant::now(), 0);
            while started.elapsed() < Duration::from_secs(seconds) && client > 0 {
                succeeds(&backup(
                    &proxy,
                    &["-c", "headcount.toml", "--token-file", "tests.token", "--overwrite"],
                ));
                copies += 1;
            }
            if client == 0 {
                thread::sleep(Duration::from_secs(seconds));
            }
            drop(stop);
            let mut took: Vec<_> =
                logins.join().unwrap().into_iter().map(|(.., took)| took).collect();
            took.sort();
            let at = |percent: usize| took[(took.len() - 1) * percent / 100];
            println!(
                "{copies} copies: {} logins, median {:?}, 99 % {:?}, longest {:?}",
                took.len(),
                at(50),
                at(99),
                at(100)
            );
            took[took.len() - 1]
        })
    };
    worst(0, 3);
    let slowest = worst(1, 6);
    // Each was answered within the store's patience; on a quiet machine within milliseconds.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    give_up_half_way(&proxy);
    let said = succeeds(&by_config_again(&proxy));
    assert!(said.contains(" live sessions"), "{said}");
    let held = runtime.block_on(verify(Path::new(&proxy.folder().join("copy.db")))).unwrap();
    assert!(held.live as usize > STORED, "{held:?}");
}

fn by_config_again(proxy: &Proxy) -> Output {
    eventually("another copy can be had", || {
        let taken =
            backup(proxy, &["-c", "headcount.toml", "--token-file", "tests.token", "--overwrite"]);
        taken.status.success().then_some(taken)
    })
}

/// Reads the head of an answer and leaves; meanwhile nobody else gets a copy.
fn give_up_half_way(proxy: &Proxy) {
    let request = crate::support::http::Request::get("/api/v1/backup")
        .header("Host", &proxy.admin_address.to_string())
        .header("Authorization", &format!("Bearer {ADMIN_SECRET}"));
    let mut reader = Connection::open(proxy.admin_address).unwrap();
    reader.write(&request.bytes()).unwrap();
    assert_eq!(reader.read_head().unwrap().0, 200);
    let second = proxy.admin("GET", "/api/v1/backup");
    assert_eq!((second.status, second.json()["reason"].as_str()), (409, Some("no_backup")));
    for number in 0..200 {
        let user = format!("meanwhile-{number}");
        assert_eq!(login_as(&mut proxy.browser(), &user).status, 302);
    }
}
