//! "It was not me": whoever is shown why a session ended can report it, once, and nobody else can.

use super::{FOLDER, Site, hidden, own_id, press};
use crate::support::browser::Browser;
use crate::support::http::{Request, Response};

const NOT_ME: &str = "/.headcount/not-me";

/// Opens the page of the ended session; what its form carries.
#[track_caller]
fn told(browser: &mut Browser) -> [String; 2] {
    let page = browser.get("/");
    let text = page.text();
    assert_eq!(page.status, 401, "{text}");
    assert!(text.contains("action=\"/.headcount/not-me\""), "{text}");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self'"), "{policy}");
    ["session", "token"].map(|name| hidden(&text, name).remove(0))
}

fn report(browser: &mut Browser, session: &str, token: &str) -> Response {
    browser.post(NOT_ME, &[("session", session), ("token", token)])
}

#[test]
fn an_end_is_reported_once_by_whoever_was_told_of_it() {
    let site = Site::start("limit.max_sessions = 1");
    let mut first = site.sign_in("alice", "Firefox");
    let id = own_id(&mut first);
    let mut second = site.sign_in("alice", "Safari");
    let [session, token] = told(&mut first);
    assert_eq!(session, id);
    assert_eq!(first.cookie("sid"), None, "it takes no session");
    let answer = report(&mut first, &session, &token);
    let page = answer.text();
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    for part in ["this was reported", "change your password", "href=\"/login\""] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    for _ in 0..3 {
        assert_eq!(report(&mut first, &session, &token).status, 200);
    }
    let event = &site.proxy.has_events("session_disowned", "alice", 1)[0];
    let by = own_id(&mut second);
    assert_eq!((&event["session"], &event["by_session"]), (&session.into(), &by.into()));
    assert_eq!((&event["reason"], &event["initiator"]), (&"limit".into(), &"user".into()));
    assert_eq!(event["user_agent"], "Firefox");
    assert_eq!(second.get("/").text(), "hello", "nothing is ended by it");
    assert!(!site.app_saw("headcount"));
}

#[test]
fn nobody_can_report_what_they_were_not_told() {
    let site = Site::start("");
    let mut alice = site.sign_in("alice", "Firefox");
    let mut bob = site.sign_in("bob", "Opera");
    let mut ends = Vec::new();
    for _ in 0..2 {
        let mut lost = site.sign_in("alice", "Safari");
        let id = own_id(&mut lost);
        assert_eq!(press(&mut alice, &id).status, 303);
        ends.push(told(&mut lost));
    }
    let [[one, its], [two, _]] = [&ends[0], &ends[1]];
    let live = own_id(&mut alice);
    let csrf = super::csrf(&mut alice);
    for (session, token) in [
        (two, its),
        (one, &"0".repeat(32)),
        (one, &its.to_uppercase()),
        (one, &String::new()),
        (&live, its),
        (&live, &csrf),
        (&String::new(), its),
    ] {
        assert_eq!(report(&mut bob, session, token).status, 403, "{session} {token}");
    }
    let form = Request::form(NOT_ME, &[("session", one), ("token", its)]);
    for foreign in [
        form.clone().header("Origin", "https://evil.example"),
        form.clone().header("Origin", "null"),
        form.clone().header("Sec-Fetch-Site", "cross-site"),
        Request::get(&format!("{NOT_ME}?session={one}&token={its}")),
    ] {
        assert!(matches!(bob.send(&foreign).status, 403 | 404), "{foreign:?}");
    }
    assert!(site.proxy.events("session_disowned", "alice").is_empty());
    assert_eq!(bob.send(&form).status, 200);
    site.proxy.has_events("session_disowned", "alice", 1);
}

#[test]
fn who_ended_it_there_and_then_is_not_asked() {
    let site = Site::start("");
    let mut alice = site.sign_in("alice", "Firefox");
    let id = own_id(&mut alice);
    assert_eq!(site.proxy.admin("DELETE", &format!("/api/v1/sessions/{id}")).status, 200);
    let page = alice.get("/");
    assert!(page.status == 401 && !page.text().contains("<form"), "{}", page.text());
    assert_eq!(alice.get(FOLDER).status, 303);
}

#[test]
fn a_report_finds_the_end_after_a_restart() {
    let mut site = Site::start("limit.max_sessions = 1");
    let mut first = site.sign_in("alice", "Firefox");
    site.sign_in("alice", "Safari");
    let [session, token] = told(&mut first);
    site.proxy.restart();
    let mut first = first.moved_to(site.proxy.address);
    assert_eq!(report(&mut first, &session, &token).status, 200);
    site.proxy.has_events("session_disowned", "alice", 1);
}
