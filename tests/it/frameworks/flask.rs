//! Flask-Login: sessions that are sent again with every answer, and a login that leads anywhere.

use super::{FLASK, FLASK_PERMANENT};
use crate::support::browser::password_of;

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
