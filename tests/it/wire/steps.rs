//! Logins in two steps: a password, then a code that names nobody. Only the last step is a login.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::{HTML, Shop, Site, assert_serves, assert_told, configured, set, signed_in_with};
use crate::support::browser::Browser;
use crate::support::legacy::{Arrived, Reply};

const PASSWORD_THEN_CODE: &str = r#"
[[step]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302], location = "/code" }
user = ["form:user"]
[[login]]
request = { methods = ["POST"], path = "/code" }
success = { status = [302], location = "/" }
user = ["step:"]
"#;

/// What the app does about the cookie in the first step.
#[derive(Clone, Copy, PartialEq)]
enum Cookie {
    New,
    AsItIs,
}

/// A shop that asks for a password and then for a code.
#[derive(Default)]
struct Doors(Mutex<HashMap<String, String>>);

impl Doors {
    fn answer(&self, request: &Arrived, shop: &Shop, cookie: Cookie) -> Option<Reply> {
        let field = |name| request.field(name).unwrap_or_default();
        match (request.method(), request.target()) {
            ("POST", "/login") if field("password") != "right" => {
                Some(Reply::page("200 OK", &[HTML], "wrong password"))
            }
            ("POST", "/login") => {
                let kept = request.cookie("sid").filter(|_| cookie == Cookie::AsItIs);
                let sid = kept.map_or_else(|| shop.issue("nobody"), str::to_owned);
                self.0.lock().insert(sid.clone(), field("user"));
                let to_code = "Location: /code";
                Some(match kept {
                    Some(_) => Reply::page("302 Found", &[to_code], ""),
                    None => Reply::page("302 Found", &[to_code, &set(&sid)], ""),
                })
            }
            ("POST", "/code") => {
                let user = self.0.lock().get(request.cookie("sid")?).cloned();
                Some(match user {
                    Some(user) if field("code") == "123456" => signed_in_with(&shop.issue(&user)),
                    _ => Reply::page("200 OK", &[HTML], "wrong code"),
                })
            }
            _ => None,
        }
    }
}

#[track_caller]
fn site(keys: &str, cookie: Cookie) -> Site {
    let doors = Doors::default();
    Site::scripted(&configured(keys, PASSWORD_THEN_CODE), move |request, shop| {
        doors.answer(request, shop, cookie)
    })
}

#[track_caller]
fn password(browser: &mut Browser, user: &str) {
    let answer = browser.post("/login", &[("user", user), ("password", "right")]);
    assert_eq!((answer.status, answer.header("location")), (302, Some("/code")));
}

#[track_caller]
fn code(browser: &mut Browser) {
    let answer = browser.post("/code", &[("code", "123456")]);
    assert_eq!((answer.status, answer.text()), (302, String::new()));
}

#[track_caller]
fn signed_in(site: &Site, user: &str) -> Browser {
    let mut browser = site.proxy.browser();
    password(&mut browser, user);
    code(&mut browser);
    browser
}

#[test]
fn a_login_in_two_steps_counts_at_the_last_under_the_name_of_the_first() {
    for binding in ["signed", "value"] {
        for cookie in [Cookie::New, Cookie::AsItIs] {
            let site = site(&format!("session.binding = \"{binding}\""), cookie);
            let mut first = signed_in(&site, "alice");
            assert_serves(&mut first, "alice");
            let mut second = site.proxy.browser();
            second.get("/visit");
            password(&mut second, "Alice");
            assert_serves(&mut first, "alice");
            site.proxy.has_events("session_created", "alice", 1);
            code(&mut second);
            assert_told(&mut first, "limit");
            assert_eq!((site.proxy.live("alice"), site.proxy.live("nobody")), (1, 0), "{binding}");
            // What was remembered is used up.
            let answer = second.post("/code", &[("code", "wrong")]);
            assert_eq!(answer.text(), "wrong code");
            assert_eq!(site.proxy.live("alice"), 1);
        }
    }
}

#[test]
fn a_cookie_from_before_is_followed_from_step_to_step() {
    let site = site("", Cookie::AsItIs);
    signed_in(&site, "teaches the shape of the cookie");
    let mut browser = site.proxy.browser();
    browser.set_cookie("sid", "older-than-we-are");
    password(&mut browser, "alice");
    assert!(browser.cookie("sid").unwrap().starts_with("older-than-we-are.hc1."));
    code(&mut browser);
    assert_serves(&mut browser, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn a_step_with_a_victims_name_evicts_nobody_however_often_the_code_is_guessed() {
    let site = site("", Cookie::New);
    let mut victim = signed_in(&site, "alice");
    let mut guesser = site.proxy.browser();
    guesser.post("/login", &[("user", "alice"), ("password", "guessed")]);
    password(&mut guesser, "alice");
    for guess in 0..1_000 {
        let answer = guesser.post("/code", &[("code", &guess.to_string())]);
        assert_eq!(answer.status, 200);
    }
    assert_serves(&mut victim, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    site.proxy.has_events("session_created", "alice", 1);
    assert!(site.proxy.events("session_ended", "alice").is_empty());
    // The login is still open: guessing changed nothing there either.
    code(&mut guesser);
    assert_told(&mut victim, "limit");
}

#[test]
fn a_step_over_a_live_session_leaves_it_alone() {
    let site = site("", Cookie::AsItIs);
    let mut browser = signed_in(&site, "alice");
    let before = browser.cookie("sid");
    password(&mut browser, "bob");
    assert_eq!(browser.cookie("sid"), before);
    assert_serves(&mut browser, "alice");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("bob")), (1, 0));
    assert!(site.proxy.events("session_ended", "alice").is_empty());
    code(&mut browser);
    assert_serves(&mut browser, "bob");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("bob")), (0, 1));
}

#[test]
fn a_step_given_up_is_forgotten() {
    let site = site("session.step_timeout = \"300ms\"", Cookie::New);
    let mut victim = signed_in(&site, "alice");
    let mut late = site.proxy.browser();
    password(&mut late, "alice");
    thread::sleep(Duration::from_millis(400));
    let answer = late.post("/code", &[("code", "123456")]);
    assert_eq!(answer.status, 403, "nobody is known: {}", answer.text());
    site.wait_for_refusal("login_unattributed");
    assert_serves(&mut victim, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn steps_of_two_browsers_do_not_mix() {
    let site = site("", Cookie::New);
    let (mut alice, mut bob) = (site.proxy.browser(), site.proxy.browser());
    password(&mut alice, "alice");
    password(&mut bob, "bob");
    code(&mut alice);
    code(&mut bob);
    assert_serves(&mut alice, "alice");
    assert_serves(&mut bob, "bob");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("bob")), (1, 1));
}
