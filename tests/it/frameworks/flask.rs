//! Flask-Login: remember-me, and sessions that are sent again with every answer.

use super::{FLASK, FLASK_PERMANENT, app_value};
use crate::support::browser::{Browser, password_of};
use crate::support::proxy::Proxy;

#[track_caller]
fn remembered(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    let form = [("username", user), ("password", &password_of(user)), ("remember", "1")];
    assert_eq!(browser.post("/login", &form).status, 302);
    FLASK.assert_serves(&mut browser, user);
    browser
}

/// As when the browser was closed and opened again.
fn close(browser: &mut Browser) {
    browser.jar.retain(|cookie| cookie.name != "session");
}

#[test]
fn an_ended_session_is_not_resurrected_by_remember_me() {
    let (proxy, user) = (FLASK.proxy("limit.max_sessions = 1"), FLASK.site().user());
    let mut first = remembered(&proxy, &user);
    let kept = first.jar.clone();
    let mut second = remembered(&proxy, &user);
    let token = |browser: &Browser| browser.cookie("remember_token").unwrap();
    assert_eq!(app_value(&token(&first)), app_value(&token(&second)), "one value for all devices");

    FLASK.assert_told(&mut first);
    assert_eq!(first.cookie("remember_token"), None, "the page takes it back");
    for stamped in [true, false] {
        let mut thief = proxy.browser();
        thief.jar.clone_from(&kept);
        close(&mut thief);
        for cookie in thief.jar.iter_mut().filter(|_| !stamped) {
            cookie.value = app_value(&cookie.value).to_owned();
        }
        assert_eq!(FLASK.whoami(&mut thief), None, "stamped: {stamped}");
    }
    close(&mut second);
    FLASK.assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}

#[test]
fn remember_me_goes_on_with_the_same_session() {
    let (proxy, user) = (FLASK.proxy("limit.max_sessions = 2"), FLASK.site().user());
    let mut other = FLASK.signed_in(&proxy, &user);
    let mut browser = remembered(&proxy, &user);
    let ids = || {
        let sessions = proxy.sessions(&user, "live");
        let mut ids: Vec<_> = sessions.iter().map(|session| session["id"].to_string()).collect();
        ids.sort();
        ids
    };
    let before = ids();
    for _ in 0..3 {
        close(&mut browser);
        FLASK.assert_serves(&mut browser, &user);
        assert!(browser.cookie("session").is_some(), "the app has made a session");
    }
    assert_eq!((before.len(), ids()), (2, before));
    assert!(proxy.events("session_ended", &user).is_empty());
    FLASK.log_out(&mut browser);
    assert_eq!(FLASK.whoami(&mut browser), None);
    assert_eq!(proxy.live(&user), 1);
    FLASK.assert_serves(&mut other, &user);
}

/// The app answers it with the success redirect and a new session cookie, whoever is named.
#[test]
fn a_login_over_a_live_session_that_was_not_checked_ends_nobody() {
    let case = FLASK_PERMANENT;
    let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
    let (victim, attacker) = (site.user(), site.user());
    let mut browser = case.signed_in(&proxy, &victim);
    let mut signed_in = case.signed_in(&proxy, &attacker);
    let answer = case.try_login(&mut signed_in, &victim, "wrong");
    assert_eq!((answer.status, answer.header("location")), (302, Some("/")));
    assert!(answer.header("set-cookie").is_some());
    case.assert_serves(&mut browser, &victim);
    case.assert_serves(&mut signed_in, &attacker);
    assert_eq!((proxy.live(&victim), proxy.live(&attacker)), (1, 1));
}

#[test]
fn the_login_is_counted_wherever_it_leads() {
    let (proxy, user) = (FLASK.proxy("limit.max_sessions = 1"), FLASK.site().user());
    let mut first = FLASK.signed_in(&proxy, &user);
    let mut second = proxy.browser();
    let form = [("username", user.as_str()), ("password", &password_of(&user))];
    let answer = second.post("/login?next=/login", &form);
    assert_eq!((answer.status, answer.header("location")), (302, Some("/login")));
    FLASK.assert_serves(&mut second, &user);
    FLASK.assert_told(&mut first);
}
