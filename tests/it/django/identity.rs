//! One browser, one session: signing in again, as somebody else, or with a new password.

use super::{Case, assert_serves, assert_told, on_every_engine, sign_in, signed_in};
use crate::support::browser::password_of;

on_every_engine! {
    signing_in_again_in_the_same_browser_keeps_exactly_one_session
    another_user_in_the_same_browser_replaces_the_first
    a_password_change_takes_no_slot_escapes_no_limit_and_ends_the_others
    a_visitors_session_becomes_the_users
}

// N2; another limiter answers 500 here and signs the user out.
fn signing_in_again_in_the_same_browser_keeps_exactly_one_session(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut other = signed_in(&proxy, &user);
    let mut browser = signed_in(&proxy, &user);
    for _ in 0..3 {
        sign_in(&mut browser, &user);
        assert_eq!(proxy.live(&user), 2);
    }
    assert_serves(&mut other, &user);
    proxy.has_events("session_created", &user, 2);
    proxy.has_events("session_renewed", &user, 3);
    assert!(proxy.events("session_ended", &user).is_empty());
}

fn another_user_in_the_same_browser_replaces_the_first(case: Case) {
    let proxy = case.proxy("limit.max_sessions = 1");
    let (first, second) = (case.site().user(), case.site().user());
    let mut browser = signed_in(&proxy, &first);
    let mut late = browser.moved_to(proxy.address);
    sign_in(&mut browser, &second);
    assert_eq!((proxy.live(&first), proxy.live(&second)), (0, 1));
    assert_eq!(proxy.wait_for_event("session_ended", &first)["reason"], "replaced");
    assert_ne!(late.whoami(), Some(first), "the replaced session is over");
    assert_serves(&mut browser, &second);
}

// N3; in another limiter a changed password escapes the limit for good.
fn a_password_change_takes_no_slot_escapes_no_limit_and_ends_the_others(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut changing = signed_in(&proxy, &user);
    let mut other = signed_in(&proxy, &user);
    let answer = changing.change_password(&password_of(&user), "a-new-secret");
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert_serves(&mut changing, &user);
    assert_told(&mut other, "password_change");
    assert_eq!(proxy.live(&user), 1);

    let mut newcomers = Vec::new();
    for _ in 0..2 {
        let mut browser = proxy.browser();
        let answer = browser.login_at("/accounts/login/", &user, "a-new-secret");
        assert_eq!(answer.status, 302, "{}", answer.text());
        newcomers.push(browser);
    }
    assert_told(&mut changing, "limit");
    for browser in &mut newcomers {
        assert_serves(browser, &user);
    }
    assert_eq!(proxy.live(&user), 2);
}

/// What a visitor had before signing in survives it (U17), and what is left of the visitor's cookie
/// signs nobody in.
fn a_visitors_session_becomes_the_users(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut browser = proxy.browser();
    assert_eq!(browser.get("/cart").json()["cart"], 1);
    let mut visitor = browser.moved_to(proxy.address);
    sign_in(&mut browser, &user);
    assert_eq!(browser.get("/cart").json()["cart"], 2);
    assert_eq!(visitor.whoami(), None);
    assert_serves(&mut browser, &user);
    assert_eq!(proxy.live(&user), 1);
}
