//! cookie-session: the value follows from the content, so that two devices have the same.

use super::{COOKIE_SESSION, app_value};

#[test]
fn the_same_value_on_two_devices_is_two_sessions() {
    let case = COOKIE_SESSION;
    let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut first = case.signed_in(&proxy, &user);
    let mut second = case.signed_in(&proxy, &user);
    for name in case.cookies {
        let value = |browser: &crate::support::browser::Browser| browser.cookie(name).unwrap();
        assert_eq!(app_value(&value(&first)), app_value(&value(&second)));
        assert_ne!(value(&first), value(&second));
    }
    case.assert_told(&mut first);
    case.assert_serves(&mut second, &user);
}

/// Each of the two cookies has to be its own session's.
#[test]
fn a_cookie_and_another_sessions_signature_do_not_go_together() {
    let case = COOKIE_SESSION;
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut first = case.signed_in(&proxy, &user);
    let second = case.signed_in(&proxy, &user);
    let mut mixed = proxy.browser();
    mixed.set_cookie("session", &first.cookie("session").unwrap());
    mixed.set_cookie("session.sig", &second.cookie("session.sig").unwrap());
    assert_eq!(case.whoami(&mut mixed), None);
    case.log_out(&mut first);
    assert_eq!(case.whoami(&mut mixed), None);
}
