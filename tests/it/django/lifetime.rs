//! Sessions over time: idleness, restarts, and sessions older than the proxy.

use super::{Case, assert_page, assert_serves, assert_told, on_every_engine, sign_in, signed_in};
use crate::support::eventually;

on_every_engine! {
    a_restart_keeps_everything
    sessions_from_before_the_deployment_pass_when_told_so
    sessions_from_before_the_deployment_are_strangers_when_told_so
}

// N9
fn a_restart_keeps_everything(case: Case) {
    let (mut proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut ended = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    let mut third = signed_in(&proxy, &user);
    let before = proxy.sessions(&user, "live");
    proxy.restart();
    let after = proxy.sessions(&user, "live");
    let ids = |sessions: &[serde_json::Value]| {
        let mut ids: Vec<_> = sessions.iter().map(|session| session["id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&before), ids(&after));
    assert_told(&mut ended, "limit");

    proxy.kill9();
    proxy.start_again();
    assert_serves(&mut second, &user);
    assert_serves(&mut third, &user);
    let mut fourth = signed_in(&proxy, &user);
    assert_told(&mut second, "limit");
    assert_serves(&mut fourth, &user);
    assert_serves(&mut third, &user);
}

fn sessions_from_before_the_deployment_pass_when_told_so(case: Case) {
    let user = case.site().user();
    let mut before = case.site().browser();
    assert_eq!(before.login(&user).status, 302);
    // Signed values of one second are equal, and then it is the new session's value.
    let clock = headcount::clock::SystemClock::new();
    let second = || headcount::clock::Clock::now(&clock).0 / 1000;
    let logged_in = second();
    eventually("the next second", || (second() > logged_in).then_some(()));
    let proxy = case.proxy("limit.max_sessions = 1\nsession.untracked = \"pass\"");
    let mut browser = before.moved_to(proxy.address);
    assert_serves(&mut browser, &user);
    let mut tracked = signed_in(&proxy, &user);
    assert_serves(&mut browser, &user);
    assert_serves(&mut tracked, &user);
    assert_eq!(proxy.live(&user), 1, "whose the old session is, nobody has said");
}

fn sessions_from_before_the_deployment_are_strangers_when_told_so(case: Case) {
    let user = case.site().user();
    let mut before = case.site().browser();
    assert_eq!(before.login(&user).status, 302);
    let proxy = case.proxy("limit.max_sessions = 1\nsession.untracked = \"refuse\"");
    let mut browser = before.moved_to(proxy.address);
    let answer = browser.get("/");
    assert_eq!(answer.status, 200, "a stranger is a visitor, not an ended session");
    assert!(answer.text().contains("anonymous"), "{}", answer.text());
    assert_eq!(browser.whoami(), None);
    sign_in(&mut browser, &user);
    assert_eq!(proxy.live(&user), 1);
}

// N4
#[test]
fn an_idle_session_frees_its_slot() {
    let toml = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"1s\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = proxy.browser();
    assert_page(&second.login(&user), 403, "limit");
    eventually("the idle session has made room", || {
        (second.login(&user).status == 302).then_some(())
    });
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "idle_timeout");
    assert_told(&mut first, "idle_timeout");
}

#[test]
fn paths_that_only_poll_do_not_keep_a_session_alive() {
    let toml = r#"limit.max_sessions = 1
        session.idle_timeout = "2s"
        session.idle_ignore_paths = ["/whoami"]"#;
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut browser = proxy.browser();
    assert_eq!(browser.login(&user).status, 302);
    let answer = eventually("polling does not keep the session", || {
        Some(browser.fetch_json("/whoami")).filter(|answer| answer.status == 401)
    });
    assert_eq!(answer.json()["reason"], "idle_timeout");
}

#[test]
fn a_session_ends_after_its_longest_time_however_busy() {
    let toml = "limit.max_sessions = 1\nsession.absolute_timeout = \"2s\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut browser = signed_in(&proxy, &user);
    let answer = eventually("a busy session ends too", || {
        Some(browser.fetch_json("/whoami")).filter(|answer| answer.status == 401)
    });
    assert_eq!(answer.json()["reason"], "absolute_timeout");
}

/// The site forgets a session before its time. Whoever comes back with it is told so by the site, and
/// the slot is free at once; whoever does not come back holds it as long as an idle session.
#[test]
fn a_session_that_the_site_has_forgotten_frees_its_slot() {
    let toml = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"2s\"";
    let (proxy, site) = (Case::PLAIN.proxy(toml), Case::PLAIN.site());
    for comes_back in [true, false] {
        let user = site.user();
        let mut first = signed_in(&proxy, &user);
        assert_eq!(site.browser().get(&format!("/ops/expire?user={user}")).status, 200);
        let mut second = proxy.browser();
        if comes_back {
            let page = first.get("/");
            assert!(page.text().contains("anonymous"), "{}", page.text());
            assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "app");
            assert_eq!(second.login(&user).status, 302);
        } else {
            assert_page(&second.login(&user), 403, "limit");
            eventually("it has made room", || (second.login(&user).status == 302).then_some(()));
            assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "idle_timeout");
        }
        assert_serves(&mut second, &user);
        assert_eq!(proxy.live(&user), 1);
    }
}
