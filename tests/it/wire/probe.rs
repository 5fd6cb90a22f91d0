//! Asking the app who somebody is: at logins, for cookies older than the proxy, and for sessions
//! that begin where no rule expects it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use super::{HTML, Shop, Site, assert_serves, assert_told, set, sign_in, signed_in_with};
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::legacy::{Arrived, Reply};

const LOGIN: &str = r#"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302] }
user = ["form:user"]
"#;

/// `limit`, and more keys of the probe.
fn configured(keys: &str, probe: &str) -> String {
    format!(
        r#"enforcement.login_url = "/login"
enforcement.app_logout = {{ method = "POST", path = "/logout" }}
{keys}
[identity.probe]
path = "/me?full=1"
user = "rjson:/name"
anonymous = {{ status = 401 }}
headers = {{ "X-Requested-With" = "XMLHttpRequest" }}
cache = "1s"
{probe}
[[credential]]
at = "cookie:sid"
[[credential]]
at = "cookie:remember"
role = "remember"
[[logout]]
request = {{ methods = ["POST"], path = "/logout" }}
success = {{ clears = "sid" }}
{LOGIN}"#
    )
}

const ONE: &str = "limit.max_sessions = 1";

/// Names a person can sign in with, and the one the app has for them.
fn person(typed: &str) -> &str {
    typed.split('@').next().unwrap_or(typed)
}

/// The shop, which says at `/me` who is signed in, takes e-mail addresses for names, redirects after
/// a wrong password as after a right one, and signs people in at other doors too.
fn answer(request: &Arrived, shop: &Shop) -> Option<Reply> {
    let path = request.target().split('?').next().unwrap_or_default();
    Some(match (request.method(), path) {
        ("GET", "/me") => {
            assert_eq!(request.target(), "/me?full=1");
            assert_eq!(request.header("x-requested-with"), Some("XMLHttpRequest"));
            assert!(request.cookie("remember").is_none(), "a probe spends no remember-me cookie");
            let json = "Content-Type: application/json";
            match shop.user(request).as_str() {
                "nobody" => Reply::page("401 Unauthorized", &[json], "{}"),
                user => Reply::page("200 OK", &[json], &format!(r#"{{"name":"{user}"}}"#)),
            }
        }
        ("POST", "/login") if request.field("password").is_some_and(|typed| typed != "right") => {
            Reply::page("302 Found", &["Location: /", &set(&shop.issue("nobody"))], "")
        }
        ("POST", "/login") => {
            let user = request.field("user").unwrap_or_default();
            signed_in_with(&shop.issue(person(&user)))
        }
        // Back from another site, with a code that names nobody.
        ("GET", "/callback") => signed_in_with(&shop.issue("alice")),
        ("GET", "/magic") => Reply::page("200 OK", &[&set(&shop.issue("alice")), HTML], "welcome"),
        ("GET", "/remembered") if request.cookie("remember") == Some("alice") => {
            Reply::page("200 OK", &[&set(&shop.issue("alice")), HTML], "welcome back")
        }
        _ => return None,
    })
}

#[track_caller]
fn site(keys: &str, probe: &str) -> Site {
    Site::scripted(&configured(keys, probe), answer)
}

fn probes(site: &Site) -> usize {
    site.seen("/me?full=1").len()
}

/// A cookie that the app gave out before there was a proxy.
fn older(site: &Site, user: &str) -> Browser {
    let mut direct = Browser::new(site.app.address);
    assert_eq!(direct.post("/login", &[("user", user)]).status, 302);
    direct.moved_to(site.proxy.address)
}

#[test]
fn names_of_one_person_are_one_user() {
    let site = site(ONE, "");
    let mut first = site.signed_in("alice");
    let mut second = site.signed_in("alice@example.com");
    assert_told(&mut first, "limit");
    assert_serves(&mut second, "alice");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("alice@example.com")), (1, 0));
}

/// The rule takes any redirect for a success; the app knows better.
#[test]
fn a_login_that_the_app_does_not_stand_by_is_none() {
    let site = site(ONE, "");
    let mut victim = site.signed_in("alice");
    let mut attacker = site.proxy.browser();
    for _ in 0..5 {
        let form = [("user", "alice"), ("password", "wrong")];
        assert_eq!(attacker.post("/login", &form).status, 302);
    }
    assert_serves(&mut victim, "alice");
    assert_serves(&mut attacker, "nobody");
    // Nor from a session of one's own.
    let mut bob = site.signed_in("bob");
    assert_eq!(bob.post("/login", &[("user", "alice"), ("password", "wrong")]).status, 302);
    assert_serves(&mut victim, "alice");
    site.proxy.has_events("session_created", "alice", 1);
}

#[test]
fn a_session_older_than_the_proxy_is_counted() {
    let site = site(ONE, "");
    let mut old = older(&site, "alice");
    assert_serves(&mut old, "alice");
    assert!(old.cookie("sid").is_some_and(|sid| sid.contains(".hc1.")), "{:?}", old.cookie("sid"));
    assert_serves(&mut old, "alice");
    assert_eq!((probes(&site), site.proxy.live("alice")), (1, 1));
    let mut new = site.signed_in("alice");
    assert_told(&mut old, "limit");
    assert_serves(&mut new, "alice");

    let mut older_still = older(&site, "alice");
    assert_serves(&mut older_still, "alice");
    assert_told(&mut new, "limit");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn many_requests_at_once_ask_once() {
    let site = site(ONE, "");
    let old = older(&site, "alice");
    let sent: Vec<_> = (0..20)
        .map(|_| {
            let mut tab = old.moved_to(site.proxy.address);
            thread::spawn(move || tab.get("/").text())
        })
        .collect();
    for tab in sent {
        assert_eq!(tab.join().unwrap(), "alice");
    }
    assert_eq!(probes(&site), 1);
    site.proxy.has_events("session_created", "alice", 1);
}

#[test]
fn an_older_session_over_the_limit_can_be_denied() {
    let site =
        site(&format!("{ONE}\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"1h\""), "");
    let mut here = site.signed_in("alice");
    let mut old = older(&site, "alice");
    let value = old.cookie("sid").unwrap();
    assert_eq!(old.get("/").status, 403);
    site.wait_for_logout_of(&value);
    assert_serves(&mut here, "alice");
    assert_serves(&mut old, "nobody");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn a_visitor_is_asked_about_once_in_a_while() {
    let site = site(ONE, "");
    let mut visitor = site.proxy.browser();
    visitor.get("/visit");
    for _ in 0..5 {
        assert_serves(&mut visitor, "nobody");
    }
    assert_eq!(probes(&site), 1);
    let mut made_up = site.proxy.browser();
    made_up.set_cookie("sid", "made-up");
    for _ in 0..5 {
        assert_serves(&mut made_up, "nobody");
    }
    assert_eq!(probes(&site), 2);
    // What belonged to nobody signs in like anybody.
    sign_in(&mut made_up, "alice");
    assert_serves(&mut made_up, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn a_login_through_another_door_is_counted_at_once() {
    let site = site(ONE, "");
    let mut first = site.signed_in("alice");
    let mut second = site.proxy.browser();
    assert_eq!(second.get("/callback").status, 302);
    assert_told(&mut first, "limit");
    assert_serves(&mut second, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    // Past a cookie that another visitor may have planted.
    let mut third = site.proxy.browser();
    third.get("/visit");
    let planted = third.cookie("sid").unwrap();
    assert_eq!(third.get("/callback").status, 302);
    assert_told(&mut second, "limit");
    let mut attacker = site.proxy.browser();
    attacker.set_cookie("sid", &planted);
    assert_serves(&mut attacker, "nobody");
}

/// An answer that looks like any page: the session is found when it is used.
#[test]
fn a_login_that_looks_like_a_page_is_counted_when_it_is_used() {
    let site = site(ONE, "");
    let mut first = site.signed_in("alice");
    let mut second = site.proxy.browser();
    second.get("/visit");
    assert_serves(&mut second, "nobody");
    assert_eq!(second.get("/magic").text(), "welcome");
    eventually("the login is found", || {
        second.get("/");
        (first.send(&Request::get("/").xhr()).status == 401).then_some(())
    });
    assert_serves(&mut second, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
}

/// The cookie signs in by itself: what it brings is a session, and it is never shown to the app by us.
#[test]
fn a_remember_me_cookie_older_than_the_proxy_is_counted() {
    let site = site(ONE, "");
    let mut first = site.signed_in("alice");
    let mut second = site.proxy.browser();
    second.set_cookie("remember", "alice");
    assert_eq!(second.get("/remembered").text(), "welcome back");
    assert_told(&mut first, "limit");
    assert_serves(&mut second, "alice");
    assert!(second.cookie("remember").is_some_and(|value| value.contains(".hc1.")));
}

/// An app whose answer to the question renews the cookie, as some do with every answer.
#[test]
fn a_cookie_that_the_question_renews_reaches_the_client() {
    let toml = configured(ONE, "");
    let site = Site::scripted(&toml, |request, shop| match request.target() {
        "/me?full=1" => match shop.user(request).as_str() {
            "nobody" => Some(Reply::page("401 Unauthorized", &[], "")),
            user => {
                let (old, body) = (request.cookie("sid")?, format!(r#"{{"name":"{user}"}}"#));
                let renewed = shop.issue(user);
                shop.users.lock().remove(old);
                Some(Reply::page("200 OK", &[&set(&renewed), "Set-Cookie: seen=1"], &body))
            }
        },
        _ => answer(request, shop),
    });
    let mut first = site.signed_in("alice");
    assert_eq!(first.cookie("seen").as_deref(), Some("1"));
    assert_serves(&mut first, "alice");
    let mut old = older(&site, "alice");
    assert_eq!(old.get("/").status, 200);
    assert_serves(&mut old, "alice");
    assert_told(&mut first, "limit");
}

/// Answers `/me` with this status while it is not 0.
fn failing(keys: &str, probe: &str) -> (Site, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(0));
    let shown = Arc::clone(&status);
    let site = Site::scripted(&configured(keys, probe), move |request, shop| {
        match (request.target(), shown.load(Ordering::SeqCst)) {
            ("/me?full=1", 1) => Some(Reply::Hang),
            ("/me?full=1", status) if status > 1 => {
                Some(Reply::page(&format!("{status} Oops"), &[HTML], "<p>oops"))
            }
            _ => answer(request, shop),
        }
    });
    (site, status)
}

#[test]
fn while_the_app_cannot_be_asked_nobody_new_gets_in() {
    let (site, status) = failing(ONE, "timeout = \"200ms\"");
    let mut here = site.signed_in("alice");
    for code in [500, 200, 302, 1] {
        status.store(code, Ordering::SeqCst);
        let mut browser = site.proxy.browser();
        assert_eq!(browser.post("/login", &[("user", "alice")]).status, 503, "{code}");
        assert_eq!(browser.cookie("sid"), None, "{code}");
        assert_eq!(older(&site, "alice").get("/").status, 503, "{code}");
        assert_serves(&mut here, "alice");
    }
    status.store(0, Ordering::SeqCst);
    let mut second = site.signed_in("alice");
    assert_told(&mut here, "limit");
    assert_serves(&mut second, "alice");
    let metrics = site.proxy.metrics();
    assert!(metrics.contains("headcount_probes_total{outcome=\"failed\"} 8"), "{metrics}");
}

#[test]
fn an_operator_can_go_by_the_request_while_the_app_cannot_be_asked() {
    let (site, status) = failing(ONE, "on_failure = \"pass\"");
    status.store(500, Ordering::SeqCst);
    let mut first = site.signed_in("alice");
    let mut second = site.signed_in("alice");
    assert_told(&mut first, "limit");
    assert_serves(&mut second, "alice");
    assert_serves(&mut older(&site, "alice"), "alice");
}

#[test]
fn a_flood_of_made_up_cookies_is_not_passed_on_as_questions() {
    let site = site(ONE, "rate = 5");
    let mut refused = 0;
    for number in 0..60 {
        let mut browser = site.proxy.browser();
        browser.set_cookie("sid", &format!("made-up-{number}"));
        let status = browser.get("/").status;
        assert!(matches!(status, 200 | 503), "{status}");
        refused += usize::from(status == 503);
    }
    assert!(refused > 20 && probes(&site) < 40, "{refused} refused, {} asked", probes(&site));
    // Others are not kept out by it.
    let mut visitor = site.proxy.browser();
    visitor.get("/visit");
    assert_serves(&mut visitor, "nobody");
    sign_in(&mut visitor, "alice");
    assert_serves(&mut visitor, "alice");
}
