//! Express: paths in any letter case, passport's other ways to give a name, rolling sessions.

use super::{PASSPORT, PASSPORT_ROLLING};
use crate::support::browser::password_of;
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::proxy::Proxy;
use crate::support::site::Site;

#[test]
fn a_login_is_counted_in_every_spelling_of_its_path_and_fields() {
    let (proxy, user) = (PASSPORT.proxy("limit.max_sessions = 1"), PASSPORT.site().user());
    let password = password_of(&user);
    let form = [("username", user.as_str()), ("password", &password)];
    let query = format!("?username={user}&password={password}");
    let json = format!(r#"{{"username":"{user}","password":"{password}"}}"#);
    let boundless = Request::new("POST", &format!("/login{query}")).header("Content-Length", "0");
    let requests = [
        Request::form("/LOGIN", &form),
        Request::form("/Login/", &form),
        Request::new("POST", "/login")
            .header("Content-Type", "application/json")
            .body(json.into_bytes()),
        boundless,
    ];
    let mut before = PASSPORT.signed_in(&proxy, &user);
    for request in requests {
        let mut browser = proxy.browser();
        let answer = browser.send(&request);
        assert_eq!(answer.status, 302, "{request:?}: {}", answer.text());
        PASSPORT.assert_serves(&mut browser, &user);
        PASSPORT.assert_told(&mut before);
        assert_eq!(proxy.live(&user), 1);
        before = browser;
    }
}

/// The app answers it with the success redirect and the cookie once more, whoever is named.
#[test]
fn a_login_over_a_live_session_that_was_not_checked_ends_nobody() {
    let case = PASSPORT_ROLLING;
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
fn a_logout_leaves_an_anonymous_session_that_can_sign_in_again() {
    let (proxy, user) = (PASSPORT.proxy("limit.max_sessions = 1"), PASSPORT.site().user());
    let mut browser = PASSPORT.signed_in(&proxy, &user);
    let before = PASSPORT.cookie(&browser);
    PASSPORT.log_out(&mut browser);
    assert_ne!(PASSPORT.cookie(&browser), before, "the app gives a new one");
    assert_eq!(proxy.live(&user), 0);
    PASSPORT.sign_in(&mut browser, &user);
    assert_eq!(proxy.live(&user), 1);
}

/// The app keeps its sessions in memory and loses them when it starts again. The browser signs in once
/// more and has one session; a device that is gone holds its slot until it has been idle long enough.
#[test]
fn an_app_that_starts_again_and_knows_nobody_locks_nobody_out() {
    let site = Site::start_on(PASSPORT.app, 0);
    let address = site.address;
    let toml = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"3s\"";
    let proxy = Proxy::start(address, Some(PASSPORT.preset), toml);
    let (user, gone) = (site.user(), site.user());
    let mut browser = PASSPORT.signed_in(&proxy, &user);
    PASSPORT.signed_in(&proxy, &gone);
    drop(site);
    let _site = Site::start_on(PASSPORT.app, address.port());
    assert_eq!(PASSPORT.whoami(&mut browser), None);
    PASSPORT.sign_in(&mut browser, &user);
    assert_eq!(proxy.live(&user), 1);
    let mut other = proxy.browser();
    let mut try_other =
        |user: &str| PASSPORT.try_login(&mut other, user, &password_of(user)).status;
    assert_eq!((try_other(&user), try_other(&gone)), (403, 403));
    eventually("the one that is gone has made room", || {
        // Kept busy, the other one stays.
        PASSPORT.assert_serves(&mut browser, &user);
        (try_other(&gone) == 302).then_some(())
    });
    assert_eq!(proxy.wait_for_event("session_ended", &gone)["reason"], "idle_timeout");
    PASSPORT.assert_serves(&mut browser, &user);
}
