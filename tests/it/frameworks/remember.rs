//! Remember-me: cookies that sign in by themselves. Those of Rails and Laravel differ on each device,
//! those of Flask-Login don't.

use super::{Case, FLASK, RAILS, app_value, on_site};
use crate::support::browser::{Browser, Cookie, password_of};
use crate::support::proxy::Proxy;

on_site! {
    on_flask FLASK:
    remember_me_goes_on_with_the_same_session
    an_ended_session_is_not_resurrected_by_remember_me
}

on_site! {
    on_rails RAILS:
    remember_me_goes_on_with_the_same_session
    an_ended_session_is_not_resurrected_by_remember_me
    a_logout_at_the_app_forgets_the_other_devices_too
}

on_site! {
    on_laravel LARAVEL:
    remember_me_goes_on_with_the_same_session
    an_ended_session_is_not_resurrected_by_remember_me
    a_logout_at_the_app_forgets_the_other_devices_too
}

#[track_caller]
fn remembered(case: Case, proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    let password = password_of(user);
    let mut form = case.login_form(user, &password);
    form.push((if case.app == RAILS.app { "user[remember_me]" } else { "remember" }, "1"));
    let answer = case.post(&mut browser, case.login, &form);
    assert_eq!(answer.status, 302, "{}", answer.text());
    case.assert_serves(&mut browser, user);
    assert_eq!(browser.jar.iter().filter(|cookie| remembers(cookie)).count(), 1);
    browser
}

fn remembers(cookie: &Cookie) -> bool {
    cookie.name.starts_with("remember_")
}

/// As when the browser was closed and opened again.
fn close(browser: &mut Browser) {
    browser.jar.retain(remembers);
}

fn remember_me_goes_on_with_the_same_session(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut other = case.signed_in(&proxy, &user);
    let mut browser = remembered(case, &proxy, &user);
    let ids = || {
        let sessions = proxy.sessions(&user, "live");
        let mut ids: Vec<_> = sessions.iter().map(|session| session["id"].to_string()).collect();
        ids.sort();
        ids
    };
    let before = ids();
    for _ in 0..3 {
        close(&mut browser);
        case.assert_serves(&mut browser, &user);
        assert!(browser.cookie(case.cookies[0]).is_some(), "the app has made a session");
        // Which is this session's by itself, too.
        let mut alone = browser.moved_to(proxy.address);
        alone.jar.retain(|cookie| !remembers(cookie));
        case.assert_serves(&mut alone, &user);
    }
    assert_eq!((before.len(), ids()), (2, before));
    assert!(proxy.events("session_ended", &user).is_empty());
    case.log_out(&mut browser);
    assert_eq!(case.whoami(&mut browser), None);
    assert_eq!(proxy.live(&user), 1);
    case.assert_serves(&mut other, &user);
}

fn an_ended_session_is_not_resurrected_by_remember_me(case: Case) {
    let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
    let user = site.user();
    let mut first = remembered(case, &proxy, &user);
    let kept = first.jar.clone();
    let mut second = remembered(case, &proxy, &user);
    let token = |browser: &Browser| {
        let cookie = browser.jar.iter().find(|cookie| remembers(cookie)).unwrap();
        app_value(&cookie.value).to_owned()
    };
    let one_for_all = case.app == FLASK.app;
    assert_eq!(token(&first) == token(&second), one_for_all, "the value on two devices");
    case.assert_told(&mut first);
    assert!(!first.jar.iter().any(remembers), "the page takes it back");
    for stamped in [true, false] {
        let mut thief = proxy.browser();
        thief.jar.clone_from(&kept);
        close(&mut thief);
        for cookie in thief.jar.iter_mut().filter(|_| !stamped) {
            cookie.value = app_value(&cookie.value).to_owned();
        }
        assert_eq!(case.whoami(&mut thief), None, "stamped: {stamped}");
        if !stamped {
            // The app itself would take it.
            case.assert_serves(&mut thief.moved_to(site.address), &user);
        }
    }
    close(&mut second);
    case.assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}

/// Not of our making, and told in the documentation: nobody else may be surprised by it.
fn a_logout_at_the_app_forgets_the_other_devices_too(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut first = remembered(case, &proxy, &user);
    let mut second = remembered(case, &proxy, &user);
    case.log_out(&mut first);
    case.assert_serves(&mut second, &user);
    close(&mut second);
    assert_eq!(case.whoami(&mut second), None);
    // It takes no other slot than it had.
    case.sign_in(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}
