//! An ended session's cookies, in every spelling that some parser reads as those cookies, while the
//! site itself would still take them.

use super::{COOKIE_SESSION, Case, FLASK, LARAVEL, RAILS, app_value, on_every_site, on_site};
use crate::support::proxy::Proxy;
use crate::support::raw::{self, raw};
use crate::support::spellings::spellings;

on_every_site! {
    an_ended_sessions_cookies_are_anonymous_in_every_spelling
    a_logged_out_sessions_cookies_are_anonymous
}

on_site! {
    on_wordpress WORDPRESS:
    an_ended_sessions_cookies_are_anonymous_in_every_spelling
    a_logged_out_sessions_cookies_are_anonymous
}

on_site! {
    on_tomcat TOMCAT:
    an_ended_sessions_cookies_are_anonymous_in_every_spelling
    a_logged_out_sessions_cookies_are_anonymous
}

/// A logout request that leaves the app's own session alive.
const HARMLESS: &str = r#"enforcement.app_logout = { method = "GET", path = "/whoami" }"#;

fn an_ended_sessions_cookies_are_anonymous_in_every_spelling(case: Case) {
    let (proxy, site) = (case.proxy(&format!("limit.max_sessions = 1\n{HARMLESS}")), case.site());
    let user = site.user();
    let first = case.signed_in(&proxy, &user);
    let mut second = case.signed_in(&proxy, &user);
    let mut direct = site.browser();
    for name in case.cookies {
        direct.set_cookie(name, app_value(&first.cookie(name).unwrap()));
    }
    case.assert_serves(&mut direct, &user);

    let (name, others) = case.cookies.split_first().unwrap();
    let pairs = |bare: bool| -> Vec<String> {
        let value = |name: &str| first.cookie(name).unwrap();
        let shown = |value: &str| if bare { app_value(value).to_owned() } else { value.to_owned() };
        others.iter().map(|name| format!("{name}={}", shown(&value(name)))).collect()
    };
    let dead = case.cookie(&first);
    assert_no_spelling_signs_in(case, &proxy, &user, name, &dead, &pairs(false));
    assert_no_spelling_signs_in(case, &proxy, &user, name, app_value(&dead), &pairs(true));
    case.assert_serves(&mut direct, &user);
    case.assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}

fn a_logged_out_sessions_cookies_are_anonymous(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut browser = case.signed_in(&proxy, &user);
    let kept = browser.jar.clone();
    case.log_out(&mut browser);
    for stamped in [true, false] {
        let mut thief = proxy.browser();
        thief.jar.clone_from(&kept);
        for cookie in thief.jar.iter_mut().filter(|_| !stamped) {
            cookie.value = app_value(&cookie.value).to_owned();
        }
        assert_eq!(case.whoami(&mut thief), None, "stamped: {stamped}");
    }
    assert_eq!(proxy.live(&user), 0);
}

/// Where the cookie is the session, the app takes every value it has ever signed, so that nothing
/// passes that was not issued through the proxy: nobody can tell it from an ended session.
#[test]
fn a_session_made_past_the_proxy_is_a_strangers_where_the_cookie_is_the_session() {
    for case in [FLASK, COOKIE_SESSION, LARAVEL, RAILS] {
        let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
        let user = site.user();
        let mut direct = site.browser();
        case.sign_in(&mut direct, &user);
        let mut stranger = direct.moved_to(proxy.address);
        assert_eq!(case.whoami(&mut stranger), None, "{case:?}");
        assert_eq!(proxy.live(&user), 0);
        case.sign_in(&mut stranger, &user);
        assert_eq!(proxy.live(&user), 1);
    }
}

#[track_caller]
fn assert_no_spelling_signs_in(
    case: Case,
    proxy: &Proxy,
    user: &str,
    name: &str,
    token: &str,
    others: &[String],
) {
    let others = if others.is_empty() {
        String::new()
    } else {
        format!("Cookie: {}\r\n", others.join("; "))
    };
    for line in spellings(name, token) {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n{others}",
            case.path("whoami"),
            proxy.address
        )
        .into_bytes();
        request.extend_from_slice(&line);
        request.extend_from_slice(b"\r\n\r\n");
        let answer = raw(proxy.address, &request);
        let (shown, text) = (line.escape_ascii(), String::from_utf8_lossy(&answer));
        assert!(!text.contains(&format!("\"{user}\"")), "{shown} signs in:\n{text}");
        let status = raw::status(&answer);
        assert!(matches!(status, 200 | 400 | 401), "{shown} is answered {status}:\n{text}");
    }
}
