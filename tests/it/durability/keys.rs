//! One MAC key follows another: nobody who comes by in the meantime is signed out, nobody who was signed
//! out comes back, on one proxy and on several.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::Stop;
use super::core::COOKIE;
use super::site::{self, Site, login_as, served_as};
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;

fn key(proxy: &Proxy, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headcount"))
        .arg("key")
        .args(arguments)
        .args(["-c", "headcount.toml", "--token-file", "tests.token"])
        .current_dir(proxy.folder())
        .output()
        .unwrap()
}

#[track_caller]
fn changed(proxy: &Proxy, arguments: &[&str]) -> String {
    let output = key(proxy, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[track_caller]
fn refused(proxy: &Proxy, arguments: &[&str], why: &str) {
    let output = key(proxy, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(why), "{arguments:?}: {said}");
}

/// By SIGHUP; returns when it is in force.
#[track_caller]
fn reload(proxy: &Proxy) {
    let done = || {
        let page = proxy.metrics();
        let line = page.lines().find(|line| line.contains("reloads_total{outcome=\"done\"}"));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    let before: u64 = done();
    proxy.signal("HUP");
    eventually("the reload is done", || (done() > before).then_some(()));
}

fn lines(proxy: &Proxy) -> Vec<String> {
    let text = std::fs::read_to_string(proxy.folder().join("headcount.key")).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn signed_in(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    assert_eq!(login_as(&mut browser, user).status, 302);
    browser
}

/// Everybody is served as who they are.
#[track_caller]
fn all_served(browsers: &mut [(String, Browser)]) {
    for (user, browser) in browsers {
        assert_eq!(served_as(browser).as_ref(), Some(&*user));
    }
}

fn people(proxy: &Proxy, count: usize) -> Vec<(String, Browser)> {
    let user = |number| format!("user-{number}");
    (0..count).map(|number| (user(number), signed_in(proxy, &user(number)))).collect()
}

/// A browser with the same cookie.
fn copy_of(browser: &Browser, proxy: &Proxy) -> Browser {
    let mut copy = proxy.browser();
    copy.set_cookie(COOKIE, &browser.cookie(COOKIE).unwrap());
    copy
}

fn keys_follow_each_other(binding: &str) {
    let site = Site::start();
    let toml = format!(
        "limit.max_sessions = 1\nsession.binding = \"{binding}\"\nsession.flush_interval = \"1s\""
    );
    let mut proxy = Proxy::start(site.address(), None, &site::rules(&toml));
    let mut seen = people(&proxy, 3);
    let mut unseen = signed_in(&proxy, "unseen");
    // It never asks, and so keeps its cookie.
    let loser = signed_in(&proxy, "twice");
    let mut winner = signed_in(&proxy, "twice");
    assert_eq!(copy_of(&loser, &proxy).fetch_json("/me").status, 401);
    let mut forgotten = signed_in(&proxy, "twice-more");
    let _forgotten_winner = signed_in(&proxy, "twice-more");
    let first = lines(&proxy);

    rotate_under_load(&proxy, &mut seen);
    assert_eq!(lines(&proxy)[1], first[0]);
    assert_eq!(served_as(&mut winner).as_deref(), Some("twice"));
    assert_eq!(copy_of(&loser, &proxy).fetch_json("/me").status, 401, "the dead come back");
    // Whoever signs in now has the new key; logging out works with the old one.
    let mut fresh = signed_in(&proxy, "fresh");
    let mut leaving = seen.pop().unwrap().1;
    let left = copy_of(&leaving, &proxy);
    assert_eq!(leaving.send(&Request::form("/logout", &[])).status, 302);
    assert_ne!(copy_of(&left, &proxy).fetch_json("/me").header("x-user"), Some("user-2"));
    // What was rekeyed outlives the process, and the flush is not waited for.
    proxy.restart();
    all_served(&mut seen);

    refused(&proxy, &["rotate"], "2 live sessions that nobody used since");
    assert_eq!(lines(&proxy)[1], first[0], "nothing has changed");
    changed(&proxy, &["rotate", "--drop-earlier"]);
    assert!(!lines(&proxy).contains(&first[0]));
    reload(&proxy);
    all_served(&mut seen);
    assert_eq!(served_as(&mut winner).as_deref(), Some("twice"));
    assert_eq!(served_as(&mut fresh).as_deref(), Some("fresh"));
    proxy.restart();
    all_served(&mut seen);
    assert_eq!(served_as(&mut fresh).as_deref(), Some("fresh"));
    // What nobody used while its key was there is known no longer.
    if binding == "signed" {
        assert_eq!(served_as(&mut unseen), None);
        assert_eq!(served_as(&mut forgotten), None);
    } else {
        // It is a value that nobody knows, as of a session from before there was a Headcount.
        assert_eq!(proxy.live("unseen"), 1);
        let untracked = proxy.admin("GET", "/api/v1/sessions?state=untracked").json();
        let before = untracked["sessions"].as_array().unwrap().len();
        served_as(&mut unseen);
        let untracked = proxy.admin("GET", "/api/v1/sessions?state=untracked").json();
        assert_eq!(untracked["sessions"].as_array().unwrap().len(), before + 1);
    }
    // The dead that were seen stay dead, whatever their binding.
    assert_ne!(copy_of(&loser, &proxy).fetch_json("/me").header("x-user"), Some("twice"));
    if binding == "value" {
        assert_eq!(copy_of(&loser, &proxy).fetch_json("/me").status, 401);
    }
}

/// Everybody goes on all the time; nobody may notice.
fn rotate_under_load(proxy: &Proxy, browsers: &mut [(String, Browser)]) {
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for (user, browser) in browsers.iter_mut() {
            let (over, served) = (&over, &served);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(served_as(browser).as_ref(), Some(&*user), "signed out");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = Stop(&over);
        let so_far = |more: usize| {
            let until = served.load(Ordering::Relaxed) + more;
            eventually("requests", || (served.load(Ordering::Relaxed) >= until).then_some(()));
        };
        so_far(30);
        let said = changed(proxy, &["rotate"]);
        assert!(said.contains("Reload Headcount"), "{said}");
        so_far(30);
        reload(proxy);
        so_far(30);
    });
}

#[test]
fn a_new_key_signs_nobody_out_who_has_a_stamp() {
    keys_follow_each_other("signed");
}

#[test]
fn a_new_key_signs_nobody_out_who_is_known_by_value() {
    keys_follow_each_other("value");
}

#[test]
fn a_key_file_that_would_lose_every_session_is_not_taken() {
    let site = Site::start();
    let mut proxy = Proxy::start(site.address(), None, &site::rules("limit.max_sessions = 1"));
    let mut browser = signed_in(&proxy, "ann");
    let path = proxy.folder().join("headcount.key");
    let good = std::fs::read(&path).unwrap();
    for text in [format!("{}\n", "ab".repeat(32)), "nonsense".to_owned()] {
        std::fs::write(&path, text).unwrap();
        let answer = proxy.admin("POST", "/api/v1/reload");
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.text().contains("key file"), "{}", answer.text());
        assert_eq!(served_as(&mut browser).as_deref(), Some("ann"));
    }
    std::fs::write(&path, good).unwrap();
    refused(&proxy, &["promote"], "no key is staged");
    refused(&proxy, &["retire"], "there is no earlier key");
    let shown = String::from_utf8(key(&proxy, &["show"]).stdout).unwrap();
    let told = proxy.admin("GET", "/api/v1/keys").json();
    assert_eq!(shown.trim(), format!("{}  used", told["used"].as_str().unwrap()));
    proxy.restart();
    assert_eq!(served_as(&mut browser).as_deref(), Some("ann"));
}

/// Both replicas serve the browser as `user`, as soon as both know of the login.
#[track_caller]
fn agree(mut browser: Browser, user: &str, replicas: &[&Proxy]) {
    for proxy in replicas {
        browser = browser.moved_to(proxy.address);
        eventually("it is served here too", || {
            served_as(&mut browser).filter(|served| served == user)
        });
    }
}

/// As docs/operations.md says: known everywhere first, used then.
#[test]
fn replicas_change_keys_one_after_the_other() {
    let (site, database) = (Site::start(), Database::create());
    let toml = site::rules("server.workers = 1\nlimit.max_sessions = 1");
    let one = Proxy::start_replica(site.address(), &toml, &database.url(), None);
    let mut other = Proxy::start_replica(site.address(), &toml, &database.url(), Some(&one));
    let place = other.folder().join("headcount.key");
    let source = one.folder().join("headcount.key");
    let copy = || assert!(std::fs::copy(&source, &place).is_ok());
    refused(&one, &["rotate"], "key stage, then key promote");
    let mut early = signed_in(&other, "early").moved_to(one.address);
    let old = std::fs::read(&place).unwrap();
    changed(&one, &["stage"]);
    reload(&one);
    agree(signed_in(&one, "a"), "a", &[&one, &other]);
    agree(signed_in(&other, "b"), "b", &[&one, &other]);
    copy();
    reload(&other);
    changed(&one, &["promote"]);
    reload(&one);
    // One uses the new key, the other the old one.
    agree(signed_in(&one, "c"), "c", &[&one, &other]);
    agree(signed_in(&other, "d"), "d", &[&one, &other]);
    other.restart();
    agree(signed_in(&one, "e"), "e", &[&one, &other]);
    copy();
    reload(&other);
    agree(signed_in(&other, "f"), "f", &[&one, &other]);
    assert_eq!(served_as(&mut early).as_deref(), Some("early"));
    // With the old key alone nobody may join.
    assert!(other.terminate().success());
    std::fs::write(&place, old).unwrap();
    let started = Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(["serve", "-c", "headcount.toml"])
        .current_dir(other.folder())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(!started.status.success() && said.contains("another key"), "{said}");
    copy();
    other.start_again();
    agree(signed_in(&other, "g"), "g", &[&one, &other]);
    // Every key that was seen goes on after the old one has gone.
    changed(&one, &["retire", "--drop-earlier"]);
    reload(&one);
    copy();
    reload(&other);
    agree(early, "early", &[&one, &other]);
    agree(signed_in(&one, "h"), "h", &[&one, &other]);
}
