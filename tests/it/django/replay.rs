//! An ended session's cookie, in every spelling that some cookie parser reads as that cookie. The
//! app's own session is kept alive on purpose, so that only the proxy stands in the way.

use super::{Case, assert_serves, on_every_engine, signed_in};
use crate::support::proxy::Proxy;
use crate::support::raw::{self, raw};
use crate::support::spellings::spellings;

on_every_engine! {
    an_ended_sessions_cookie_is_anonymous_in_every_spelling
    a_logged_out_sessions_cookie_is_anonymous_in_every_spelling
}

/// A logout request that Django takes for a missing page.
const HARMLESS: &str = r#"enforcement.app_logout = { method = "GET", path = "/no-such-page" }"#;

fn an_ended_sessions_cookie_is_anonymous_in_every_spelling(case: Case) {
    let (proxy, site) = (case.proxy(&format!("limit.max_sessions = 1\n{HARMLESS}")), case.site());
    let user = site.user();
    let first = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    let dead = first.cookie("sessionid").unwrap();
    let live = second.cookie("sessionid").unwrap();
    let bare = app_value(&dead).to_owned();

    let mut direct = site.browser();
    direct.set_cookie("sessionid", &bare);
    assert_serves(&mut direct, &user);
    let mut tokens = vec![dead, bare.clone()];
    // Django gives two sessions of one second the same signed value; then this is the live cookie.
    if app_value(&live) != bare {
        tokens.push(format!("{bare}{}", &live[app_value(&live).len()..]));
    }
    for token in &tokens {
        assert_no_spelling_signs_in(&proxy, &user, token);
    }
    assert_serves(&mut direct, &user);
    assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}

/// Only the `signed_cookies` engine cannot end a session at logout; for the others this holds twice.
fn a_logged_out_sessions_cookie_is_anonymous_in_every_spelling(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut browser = signed_in(&proxy, &user);
    let dead = browser.cookie("sessionid").unwrap();
    assert_eq!(browser.logout().status, 302);
    for token in [dead.as_str(), app_value(&dead)] {
        assert_no_spelling_signs_in(&proxy, &user, token);
    }
    assert_eq!(proxy.live(&user), 0);
}

/// What the app itself has issued: the value without the stamp.
fn app_value(value: &str) -> &str {
    value.split(".hc1.").next().unwrap_or(value)
}

#[track_caller]
fn assert_no_spelling_signs_in(proxy: &Proxy, user: &str, token: &str) {
    let sign = format!("\"user\": \"{user}\"");
    for line in spellings("sessionid", token) {
        let mut request = format!(
            "GET /whoami HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n",
            proxy.address
        )
        .into_bytes();
        request.extend_from_slice(&line);
        request.extend_from_slice(b"\r\n\r\n");
        let answer = raw(proxy.address, &request);
        let (shown, text) = (line.escape_ascii(), String::from_utf8_lossy(&answer));
        assert!(!text.contains(&sign), "{shown} signs in:\n{text}");
        let status = raw::status(&answer);
        assert!(matches!(status, 200 | 400 | 401), "{shown} is answered {status}:\n{text}");
    }
}
