//! Floods of logins: with the password, without it, and of many users.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::browser::Browser;
use crate::support::legacy::{LegacyApp, Reply};

/// An app that signs in whoever does not say "wrong".
fn app() -> LegacyApp {
    let issued = AtomicUsize::new(0);
    LegacyApp::start(move |request| {
        match (request.target(), request.field("password").as_deref()) {
            ("/login", Some("wrong")) => Reply::page("200 OK", &[], "try again"),
            ("/login", _) => {
                let number = issued.fetch_add(1, Ordering::SeqCst);
                let cookie = format!("Set-Cookie: sid=S{number}; Path=/");
                Reply::page("302 Found", &["Location: /", &cookie], "")
            }
            _ => Reply::page("200 OK", &[], "hello"),
        }
    })
}

fn sign_in(proxy: &Proxy, user: &str) -> (Browser, u16) {
    let mut browser = proxy.browser();
    let status = browser.post("/login", &[("user", user), ("password", "right")]).status;
    (browser, status)
}

#[test]
fn a_war_of_logins_ends_and_hurts_nobody_else() {
    let app = app();
    let keys = "limit.max_evictions = 3\nlimit.evictions_window = \"8s\"\n";
    let proxy = Proxy::start(app.address, None, &configured(keys));
    // The first login evicts nobody, the next three do.
    for _ in 0..4 {
        assert_eq!(sign_in(&proxy, "alice").1, 302);
    }
    let stays = proxy.sessions("alice", "live")[0]["id"].clone();
    for _ in 0..3 {
        assert_eq!(sign_in(&proxy, "alice").1, 403);
    }
    assert_eq!(proxy.sessions("alice", "live")[0]["id"], stays, "whoever is in stays in");
    proxy.has_events("session_denied", "alice", 3);
    assert_eq!(count(&proxy, "headcount_evictions_refused_total"), 3);
    for _ in 0..2 {
        assert_eq!(sign_in(&proxy, "bob").1, 302);
    }
    // In the browser that has the session, its user may sign in again.
    eventually("the window is over", || {
        std::thread::sleep(Duration::from_millis(200));
        (sign_in(&proxy, "alice").1 == 302).then_some(())
    });
    assert_eq!(proxy.live("alice"), 1);
}

#[test]
fn by_default_an_honest_user_may_sign_in_as_often_as_it_takes() {
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured(""));
    for _ in 0..100 {
        assert_eq!(sign_in(&proxy, "alice").1, 302);
    }
    assert_eq!(proxy.live("alice"), 1);
}

#[test]
fn wrong_passwords_end_nothing_and_lock_nobody_out() {
    let app = app();
    let keys = "limit.max_evictions = 1\n";
    let proxy = Proxy::start(app.address, None, &configured(keys));
    let (mut alice, _) = sign_in(&proxy, "alice");
    for _ in 0..300 {
        let mut attacker = proxy.browser();
        let status = attacker.post("/login", &[("user", "alice"), ("password", "wrong")]).status;
        assert_eq!(status, 200, "the app says so");
    }
    assert_eq!(alice.get("/").status, 200);
    assert_eq!(proxy.live("alice"), 1);
    assert_eq!(sign_in(&proxy, "alice").1, 302, "and her next login is let in");
}

#[test]
fn soak_many_users_take_little_room_each() {
    let users: u64 = if soak() { 100_000 } else { 2_000 };
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured(""));
    std::thread::scope(|scope| {
        for part in 0..4 {
            let proxy = &proxy;
            scope.spawn(move || {
                for number in (part..users).step_by(4) {
                    assert_eq!(sign_in(proxy, &format!("user-{number}")).1, 302);
                }
            });
        }
    });
    assert_eq!(count(&proxy, "headcount_sessions_live"), users);
    let store: u64 = ["headcount.db", "headcount.db-wal"]
        .iter()
        .filter_map(|file| std::fs::metadata(proxy.folder().join(file)).ok())
        .map(|file| file.len())
        .sum();
    println!("{users} users: {store} bytes, {} KiB of memory", proxy.memory() / 1024);
    // The write-ahead log has a few megabytes at any time.
    assert!(store < users * 1024 + 6 * 1024 * 1024, "{store} bytes for {users} users");
}
