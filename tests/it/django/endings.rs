//! What an ended session gets, by page, by stream, and from requests still on their way.

use std::thread;
use std::time::{Duration, Instant};

use super::{
    Case, assert_page, assert_problem, assert_serves, assert_told, on_every_engine, signed_in,
};
use crate::support::eventually;
use crate::support::http::{Connection, Request};

on_every_engine! {
    a_request_on_its_way_cannot_revive_an_ended_session
    a_page_that_writes_never_reaches_the_app_with_an_ended_session
}

// N6
fn a_request_on_its_way_cannot_revive_an_ended_session(case: Case) {
    let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
    let user = site.user();
    let mut first = signed_in(&proxy, &user);
    let mark = format!("slow-{user}-{}", case.binding);
    let mut slow = first.moved_to(proxy.address);
    let request = Request::get(&format!("/slow?ms=2000&mark={mark}"));
    let before = first.cookie("sessionid");
    let waiting = thread::spawn(move || {
        // The answer may come without its cookie, or not at all.
        let _ = slow.try_send(&request);
        slow
    });
    eventually("the slow request is at the app", || site.folder.join(&mark).exists().then_some(()));
    let mut second = signed_in(&proxy, &user);
    let mut slow = waiting.join().unwrap();
    let after = slow.cookie("sessionid");
    assert!(after.is_none() || after == before, "a late answer brings no cookie");
    assert_eq!(slow.whoami(), None);
    assert_told(&mut first, "limit");
    assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}

fn a_page_that_writes_never_reaches_the_app_with_an_ended_session(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut first = signed_in(&proxy, &user);
    assert_eq!(first.get("/write").json()["writes"], 1);
    signed_in(&proxy, &user);
    let dead = first.cookie_line("/");
    let answer = first.get("/write");
    assert_page(&answer, 401, "limit");
    for method in ["POST", "PUT", "DELETE"] {
        let request = Request::new(method, "/upload").header("Cookie", &dead).body(b"x".to_vec());
        assert_eq!(first.send(&request).status, 401, "{method}");
    }
    assert_eq!(proxy.live(&user), 1);
}

#[test]
fn the_login_page_is_always_reachable() {
    let (proxy, user) = (Case::PLAIN.proxy("limit.max_sessions = 1"), Case::PLAIN.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    let page = first.get("/accounts/login/");
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("csrfmiddlewaretoken"), "the app's own page");
    super::sign_in(&mut first, &user);
    assert_told(&mut second, "limit");
}

#[test]
fn a_page_can_be_redirected_to_the_login_page() {
    let toml = "limit.max_sessions = 1\nenforcement.on_ended = \"redirect\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    let dead = first.cookie_line("/");
    let answer = first.get("/");
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert!(answer.header("location").is_some_and(|to| to.starts_with("/accounts/login/")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(first.cookie("sessionid"), None);
    let script = Request::get("/whoami").xhr().header("Cookie", &dead);
    assert_problem(&first.send(&script), 401, "limit");
    assert_serves(&mut second, &user);
}

#[test]
fn an_ended_session_can_go_on_as_an_anonymous_visitor() {
    let toml = "limit.max_sessions = 1\nenforcement.on_ended = \"anonymous\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    let answer = first.get("/");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("anonymous"), "{}", answer.text());
    assert_serves(&mut second, &user);
}

#[test]
fn an_open_stream_of_an_ended_session_is_cut_within_a_second() {
    let (proxy, user) = (Case::PLAIN.proxy("limit.max_sessions = 1"), Case::PLAIN.site().user());
    let first = signed_in(&proxy, &user);
    let request = Request::get("/stream?ticks=300").header("Accept", "text/event-stream");
    let mut connection = Connection::open(proxy.address).unwrap();
    connection.write(&first.dressed(request).bytes()).unwrap();
    assert_eq!(connection.read_head().unwrap().0, 200);
    while !connection.read_line().unwrap().starts_with("data: 1") {}
    signed_in(&proxy, &user);
    let since = Instant::now();
    while connection.read_line().is_ok() {}
    assert!(since.elapsed() < Duration::from_secs(1), "cut after {:?}", since.elapsed());
}

#[test]
fn the_apps_own_session_dies_when_the_dead_cookie_comes_back() {
    let (proxy, site) = (Case::PLAIN.proxy("limit.max_sessions = 1"), Case::PLAIN.site());
    let user = site.user();
    let mut first = signed_in(&proxy, &user);
    signed_in(&proxy, &user);
    assert_eq!(site.live_sessions(&user), Some(2), "raw cookies are not kept for this");
    first.get("/");
    eventually("the app has logged the ended session out", || {
        (site.live_sessions(&user) == Some(1)).then_some(())
    });
}
