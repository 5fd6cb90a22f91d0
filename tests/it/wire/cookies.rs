//! Which cookies reach the app, what a session that is over gets instead, and when it is over.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::{
    HTML, LOGIN, Shop, Site, assert_serves, assert_told, configured, refusals, set, sign_in,
};
use crate::support::browser::Browser;
use crate::support::http::{Request, Response};
use crate::support::legacy::{Arrived, Reply};
use crate::support::proxy::ADMIN_SECRET;
use crate::support::{eventually, http};

/// One page load with this Cookie line.
#[track_caller]
fn get_with(site: &Site, target: &str, cookies: &str) -> Response {
    let request = Request::get(target)
        .header("Host", "shop")
        .header("Accept", "text/html")
        .header("Cookie", cookies);
    http::send(site.proxy.address, &request)
}

fn sid(browser: &Browser) -> String {
    format!("sid={}", browser.cookie("sid").unwrap())
}

/// The Cookie lines of the last request the app saw.
fn last_cookies(site: &Site) -> Vec<String> {
    site.app.arrived().last().unwrap().headers("cookie").map(str::to_owned).collect()
}

/// A browser whose session has just been ended by a login elsewhere.
#[track_caller]
fn ended(site: &Site) -> Browser {
    let first = site.signed_in("alice");
    site.signed_in("alice");
    first
}

#[test]
fn credentials_come_first_and_other_cookies_pass_verbatim_and_in_order() {
    let site = Site::start("");
    let alice = sid(&site.signed_in("alice"));
    let line = format!("a=1; {alice};b=\"x, y\" ; c;  d=%41=; a=2");
    assert_eq!(get_with(&site, "/", &line).text(), "alice");
    assert_eq!(last_cookies(&site), ["sid=S1-alice; a=1; b=\"x, y\"; c; d=%41=; a=2"]);
}

// D01
#[test]
fn a_cookie_sent_twice_is_forwarded_once() {
    let site = Site::start("");
    let alice = sid(&site.signed_in("alice"));
    let answer = get_with(&site, "/", &format!("{alice}; a=1; {alice}"));
    assert_eq!((answer.status, answer.text()), (200, "alice".to_owned()));
    assert_eq!(last_cookies(&site), ["sid=S1-alice; a=1"]);
}

// D02, D12
#[test]
fn beside_a_live_session_no_other_cookie_of_its_name_is_forwarded() {
    let site = Site::start("");
    let mut visitor = site.proxy.browser();
    visitor.get("/visit");
    let (visitor, alice) = (sid(&visitor), sid(&site.signed_in("alice")));
    for line in [
        format!("sid=tossed; {alice}"),
        format!("{alice}; sid=tossed"),
        format!("{visitor}; {alice}"),
        format!("SID=S2-alice; {alice}; $sid=x; sid[0]=y"),
    ] {
        assert_eq!(get_with(&site, "/", &line).text(), "alice", "{line}");
        assert_eq!(last_cookies(&site), ["sid=S2-alice"], "{line}");
    }
}

// D03
#[test]
fn two_live_sessions_in_one_request_are_answered_400() {
    let site = Site::start("");
    let (mut alice, mut bob) = (site.signed_in("alice"), site.signed_in("bob"));
    let arrived = site.app.arrived().len();
    let answer = get_with(&site, "/", &format!("{}; {}", sid(&alice), sid(&bob)));
    assert_eq!(answer.status, 400);
    assert!(answer.is("text/html") && !answer.text().contains("credentials_ambiguous"));
    assert_eq!(site.app.arrived().len(), arrived, "the app sees nothing");
    site.wait_for_refusal("credentials_ambiguous");
    assert_serves(&mut alice, "alice");
    assert_serves(&mut bob, "bob");
}

// D03
#[test]
fn a_dead_and_a_live_session_in_one_request_are_answered_400_and_the_cookie_expires() {
    let site = Site::start("");
    let (dead, mut bob) = (ended(&site), site.signed_in("bob"));
    let arrived = site.app.arrived();
    for line in [format!("{}; {}", sid(&dead), sid(&bob)), format!("{}; {}", sid(&bob), sid(&dead))]
    {
        let answer = get_with(&site, "/", &line);
        assert_eq!(answer.status, 400, "{line}");
        let expired = answer.header("set-cookie").unwrap();
        assert!(expired.starts_with("sid=; Path=/") && expired.contains("Max-Age=0"), "{expired}");
    }
    let mut seen = site.app.arrived();
    seen.drain(..arrived.len());
    assert!(seen.iter().all(|request| request.target() == "/logout"), "{seen:?}");
    assert!(seen.iter().all(|request| request.cookie("sid") == Some("S1-alice")), "{seen:?}");
    eventually("both are logged", || {
        (site.refusals() == ["credentials_ambiguous", "credentials_ambiguous"]).then_some(())
    });
    assert_serves(&mut bob, "bob");
}

/// What an ended session gets for a page, a script, a form and the login page.
#[track_caller]
fn answers_to_the_ended(on_ended: &str) -> (Site, [Response; 4]) {
    let keys = format!("enforcement.on_ended = \"{on_ended}\"");
    let site = Site::start(&keys);
    let mut browser = ended(&site);
    let jar = browser.jar.clone();
    let mut ask = |request: &Request| {
        browser.jar.clone_from(&jar);
        browser.send(request)
    };
    let answers = [
        ask(&Request::get("/page")),
        ask(&Request::get("/script").xhr()),
        ask(&Request::form("/form", &[("a", "b")])),
        ask(&Request::get("/login")),
    ];
    let [page, script, form, login] = &answers;
    for answer in [page, script, form, login] {
        let expired = answer.header("set-cookie").unwrap();
        assert!(expired.starts_with("sid=; Path=/; HttpOnly; Expires="), "{expired}");
        assert!(expired.ends_with("; Max-Age=0"), "{expired}");
    }
    assert_eq!((login.status, login.text()), (200, "the form".to_owned()));
    assert_eq!(site.seen("/login").pop().unwrap().header("cookie"), None);
    assert_eq!((script.status, script.json()["reason"].as_str()), (401, Some("limit")));
    assert!(script.is("application/problem+json"));
    assert_eq!(script.header("cache-control"), Some("no-store"));
    assert!(site.seen("/form").is_empty(), "an unsafe request is not forwarded");
    assert!(site.seen("/script").is_empty());
    (site, answers)
}

#[test]
fn an_ended_session_gets_a_page_that_says_why() {
    let (site, [page, _, form, _]) = answers_to_the_ended("page");
    for answer in [page, form] {
        assert_eq!(answer.status, 401);
        assert!(answer.is("text/html"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let text = answer.text();
        for part in ["another browser or device", "limit", "href=\"/login\"", "not you", "<time"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert!(site.seen("/page").is_empty());
}

#[test]
fn an_ended_session_is_sent_to_the_login_page_where_that_is_wanted() {
    let (site, [page, _, form, _]) = answers_to_the_ended("redirect");
    for answer in [page, form] {
        assert_eq!((answer.status, answer.header("location")), (303, Some("/login")));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert!(site.seen("/page").is_empty());
}

#[test]
fn an_ended_session_is_a_stranger_to_the_app_where_that_is_wanted() {
    let (site, [page, _, form, _]) = answers_to_the_ended("anonymous");
    assert_eq!((page.status, page.text()), (200, "nobody".to_owned()));
    assert_eq!(site.seen("/page")[0].header("cookie"), None);
    assert_eq!(form.status, 401);
}

#[test]
fn exempt_paths_are_served_to_the_ended_without_their_cookie() {
    let site = Site::start("enforcement.exempt_paths = [\"/static/**\"]");
    let mut browser = ended(&site);
    let mut other = browser.moved_to(site.proxy.address);
    assert_eq!(browser.get("/static/logo.png").status, 200);
    assert_eq!(site.seen("/static/logo.png")[0].header("cookie"), None);
    assert_told(&mut other, "limit");
}

#[test]
fn a_dead_cookie_is_reported_once_and_logged_out_at_the_app_once() {
    let site = Site::start("");
    let browser = ended(&site);
    for _ in 0..3 {
        assert_eq!(get_with(&site, "/", &sid(&browser)).status, 401);
    }
    site.wait_for_logout_of("S1-alice");
    let event = site.proxy.wait_for_event("session_use_after_end", "alice");
    assert_eq!(event["reason"], "limit");
    site.proxy.has_events("session_use_after_end", "alice", 1);
    assert_eq!(site.seen("/logout").len(), 1);
}

/// Gives its session a scope of its own.
fn scoped(request: &Arrived, shop: &Shop) -> Option<Reply> {
    let value = (request.target() == "/login").then(|| shop.issue("alice"))?;
    let scope = "Path=/app; Domain=.Shop.example; Secure; HttpOnly; SameSite=Lax; Max-Age=3600";
    let line = format!("Set-Cookie: sid={value}; {scope}");
    Some(Reply::page("302 Found", &["Location: /app", &line], ""))
}

#[test]
fn a_dead_cookie_expires_with_the_name_the_path_and_the_domain_it_had() {
    let mut site = Site::scripted(&configured("", LOGIN), scoped);
    let mut browsers = [site.proxy.browser(), site.proxy.browser()];
    for browser in &mut browsers {
        let answer = browser.post("/login", &[("user", "alice")]);
        let line = answer.header("set-cookie").unwrap();
        let scope =
            "; Path=/app; Domain=.Shop.example; Secure; HttpOnly; SameSite=Lax; Max-Age=3600";
        assert!(line.ends_with(scope), "as the app wrote it: {line}");
    }
    for _ in 0..2 {
        let answer = get_with(&site, "/app/x", &sid(&browsers[0]));
        assert_eq!(answer.status, 401);
        let lines: Vec<&str> = answer.all("set-cookie").collect();
        let expected = "sid=; Domain=shop.example; Path=/app; Secure; HttpOnly; SameSite=Lax; \
            Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0";
        assert_eq!(lines, [expected]);
        site.proxy.restart();
    }
}

#[test]
fn a_session_without_requests_times_out() {
    let keys = "session.idle_timeout = \"1s\"\nsession.sweep_interval = \"100ms\"";
    let site = Site::start(keys);
    let mut browser = site.signed_in("alice");
    let event = site.proxy.wait_for_event("session_ended", "alice");
    assert_eq!((&event["reason"], &event["initiator"]), (&"idle_timeout".into(), &"policy".into()));
    assert_told(&mut browser, "idle_timeout");
    assert_eq!(site.proxy.live("alice"), 0);
}

#[test]
fn a_session_that_has_timed_out_is_over_before_anybody_looked_for_it() {
    let keys = "session.idle_timeout = \"1s\"\nsession.sweep_interval = \"5m\"";
    let site = Site::start(keys);
    let mut browser = site.signed_in("alice");
    let start = Instant::now();
    eventually("a second passes", || (start.elapsed() > Duration::from_millis(1050)).then_some(()));
    assert!(site.proxy.events("session_ended", "alice").is_empty());
    assert_told(&mut browser, "idle_timeout");
    assert_eq!(site.proxy.wait_for_event("session_ended", "alice")["reason"], "idle_timeout");
}

#[test]
fn a_session_times_out_in_the_end_however_busy_it_is() {
    let site = Site::start("session.absolute_timeout = \"1s\"\nsession.idle_timeout = \"1h\"");
    let mut browser = site.signed_in("alice");
    let answer = eventually("it is over", || {
        let answer = browser.fetch_json("/");
        (answer.status != 200).then_some(answer)
    });
    let reason = answer.json()["reason"].as_str().map(str::to_owned);
    assert_eq!((answer.status, reason.as_deref()), (401, Some("absolute_timeout")));
}

#[test]
fn requests_of_pages_that_poll_are_no_activity() {
    let keys = "session.idle_timeout = \"2s\"\nsession.sweep_interval = \"100ms\"\n\
        session.idle_ignore_paths = [\"/poll/**\"]";
    let site = Site::start(keys);
    let (mut alice, mut bob) = (site.signed_in("alice"), site.signed_in("bob"));
    let answer = eventually("the one that only polls is over", || {
        assert_serves(&mut bob, "bob");
        let answer = alice.fetch_json("/poll/news");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(answer.json()["reason"], "idle_timeout");
    assert_serves(&mut bob, "bob");
}

#[test]
fn a_cookie_from_before_the_proxy_passes_and_is_listed() {
    let site = Site::start("");
    let answer = get_with(&site, "/", "sid=before");
    assert_eq!((answer.status, last_cookies(&site)), (200, vec!["sid=before".to_owned()]));
    let listed = site.proxy.admin("GET", "/api/v1/sessions?state=untracked").json();
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn a_cookie_from_before_the_proxy_is_taken_away_where_that_is_wanted() {
    let site = Site::start("session.untracked = \"refuse\"");
    let answer = get_with(&site, "/", "a=1; sid=before; b=2");
    assert_eq!((answer.status, answer.text()), (200, "nobody".to_owned()));
    assert_eq!(last_cookies(&site), ["a=1; b=2"]);
    let mut browser = site.proxy.browser();
    browser.set_cookie("sid", "before");
    sign_in(&mut browser, "alice");
    assert_serves(&mut browser, "alice");
}

/// Runs `headcount sessions …`.
fn sessions(site: &Site, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headcount"))
        .arg("sessions")
        .args(arguments)
        .args(["--admin", &format!("http://{}", site.proxy.admin_address)])
        .env("HEADCOUNT_TOKEN", ADMIN_SECRET)
        .output()
        .unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_administrator_lists_shows_and_ends_sessions_on_the_command_line() {
    let site = Site::start("");
    let (mut alice, mut bob) = (site.signed_in("alice"), site.signed_in("bob"));
    let listed = said(&sessions(&site, &["list", "--user", "alice", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let id = listed["sessions"][0]["id"].as_str().unwrap();
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1));

    let table = said(&sessions(&site, &["list"]));
    assert!(table.contains(id) && table.contains("alice") && table.contains("bob"), "{table}");
    let shown = said(&sessions(&site, &["show", id]));
    assert!(shown.contains("alice") && shown.contains("live"), "{shown}");
    assert!(!shown.contains("S1-alice"), "no token is ever shown: {shown}");

    said(&sessions(&site, &["end", id]));
    assert_told(&mut alice, "admin");
    assert_serves(&mut bob, "bob");
    let shown = said(&sessions(&site, &["show", id]));
    assert!(shown.contains("ended") && shown.contains("admin"), "{shown}");
    let event = site.proxy.wait_for_event("session_ended", "alice");
    assert_eq!((&event["reason"], &event["initiator"]), (&"admin".into(), &"admin".into()));

    said(&sessions(&site, &["end", "--user", "bob"]));
    assert_told(&mut bob, "admin");
    let unknown = sessions(&site, &["show", "00000000000000000000000000000000"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[test]
fn observing_enforces_nothing_and_says_what_it_would_have_done() {
    let site = Site::start("enforcement.mode = \"observe\"");
    let (mut first, mut second) = (site.signed_in("alice"), site.signed_in("alice"));
    assert_serves(&mut first, "alice");
    assert_serves(&mut second, "alice");
    let event = site.proxy.wait_for_event("session_ended", "alice");
    assert_eq!((&event["mode"], &event["reason"]), (&"would_have".into(), &"limit".into()));
    assert_eq!(first.get("/").header("set-cookie"), None);
    let both = format!("{}; {}", sid(&first), sid(&second));
    assert_eq!(get_with(&site, "/", &both).text(), "alice", "nor is anything refused");
    assert!(refusals(&site.proxy).is_empty());
    assert!(site.seen("/logout").is_empty());
    let logout = first.post("/logout", &[]);
    assert_eq!(logout.status, 302);
    assert_serves(&mut second, "alice");
}

#[test]
fn what_was_observed_counts_when_enforcing_begins() {
    let mut site = Site::start("enforcement.mode = \"observe\"");
    let (mut first, mut second) = (site.signed_in("alice"), site.signed_in("alice"));
    site.proxy.reconfigure("\"observe\"", "\"enforce\"");
    assert_serves(&mut first, "alice");
    assert_serves(&mut second, "alice");
    let mut third = site.signed_in("alice");
    assert_eq!(site.proxy.live("alice"), 1);
    assert_serves(&mut third, "alice");
    for over in [&mut first, &mut second] {
        assert_eq!(over.get("/").status, 401);
    }
}

#[test]
fn a_cookie_too_large_for_a_stamp_is_still_counted() {
    let large = "x".repeat(4030);
    let site = Site::scripted(&configured("", LOGIN), move |request, shop| {
        let login = request.target() == "/login";
        let value = login.then(|| format!("{}{large}", shop.issue("alice")))?;
        shop.users.lock().insert(value.clone(), "alice".into());
        Some(Reply::page("302 Found", &["Location: /", &set(&value), HTML], ""))
    });
    let mut browsers = [site.proxy.browser(), site.proxy.browser()];
    for browser in &mut browsers {
        assert_eq!(browser.post("/login", &[("user", "alice")]).status, 302);
        assert!(!browser.cookie("sid").unwrap().contains(".hc1."));
        assert_serves(browser, "alice");
    }
    assert_told(&mut browsers[0], "limit");
    assert_serves(&mut browsers[1], "alice");
}
