//! `on_limit = "deny"`: who is in stays in, and who comes is told.

use super::{
    Case, assert_page, assert_problem, assert_serves, on_every_engine, sign_in, signed_in,
};
use crate::support::browser::password_of;
use crate::support::eventually;
use crate::support::http::Request;

const DENY: &str = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"";

on_every_engine! {
    a_login_over_the_limit_is_refused_and_leaves_nothing_behind
}

fn a_login_over_the_limit_is_refused_and_leaves_nothing_behind(case: Case) {
    let (proxy, site) = (case.proxy(DENY), case.site());
    let user = site.user();
    let mut holder = signed_in(&proxy, &user);
    let mut newcomer = proxy.browser();
    let refused = newcomer.login(&user);
    assert_page(&refused, 403, "limit");
    assert_eq!(newcomer.cookie("sessionid"), None, "the app's session cookie is held back");
    assert_eq!(newcomer.whoami(), None);
    assert_serves(&mut holder, &user);
    assert_eq!(proxy.live(&user), 1);
    proxy.wait_for_event("session_denied", &user);
    assert!(proxy.events("login_failed", &user).is_empty(), "the password was right");
    assert!(proxy.events("session_ended", &user).is_empty());
    if site.live_sessions(&user).is_some() {
        eventually("the refused session is dead at the app", || {
            (site.live_sessions(&user) == Some(1)).then_some(())
        });
    }

    sign_in(&mut holder, &user);
    assert_eq!(proxy.live(&user), 1, "the holder may sign in again");
    assert_eq!(holder.logout().status, 302);
    sign_in(&mut newcomer, &user);
}

#[test]
fn a_script_that_signs_in_over_the_limit_gets_json() {
    let (proxy, user) = (Case::PLAIN.proxy(DENY), Case::PLAIN.site().user());
    let mut holder = signed_in(&proxy, &user);
    let mut script = proxy.browser();
    script.get("/accounts/login/");
    let token = script.cookie("csrftoken").unwrap();
    let password = password_of(&user);
    let form = Request::form("/accounts/login/", &[("username", &user), ("password", &password)])
        .header("X-CSRFToken", &token)
        .xhr();
    assert_problem(&script.send(&form), 403, "limit");
    assert_eq!(script.cookie("sessionid"), None);
    assert_serves(&mut holder, &user);
}

#[test]
fn a_refused_login_over_another_users_session_signs_nobody_in() {
    let (proxy, site) = (Case::PLAIN.proxy(DENY), Case::PLAIN.site());
    let (full, other) = (site.user(), site.user());
    let mut holder = signed_in(&proxy, &full);
    let mut browser = signed_in(&proxy, &other);
    let refused = browser.login(&full);
    assert_page(&refused, 403, "limit");
    assert_ne!(browser.whoami(), Some(full.clone()));
    assert_serves(&mut holder, &full);
    assert_eq!(proxy.live(&full), 1);
}

#[test]
fn only_idle_sessions_are_evicted_when_asked_so() {
    let toml =
        "limit.max_sessions = 1\nlimit.evict_if_idle_for = \"1s\"\nlimit.otherwise = \"deny\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = proxy.browser();
    assert_page(&second.login(&user), 403, "limit");
    eventually("the first has been idle for long enough", || {
        (second.login(&user).status == 302).then_some(())
    });
    assert_serves(&mut second, &user);
    assert_eq!(first.fetch_json("/whoami").json()["reason"], "limit");
}
