//! Plain PHP: fixed ids, ids that come back, and names that PHP reads in its own way.

use super::{Case, PHP, PHP_KEEPS_OLD, PHP_SAME_ID, app_value};
use crate::support::browser::password_of;
use crate::support::http::Request;

/// An id that was known before the login, as it was, without its stamp, and after a logout.
fn an_id_from_before_the_login_is_dead_after_it(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut browser = proxy.browser();
    browser.get("/index.php");
    let planted = case.cookie(&browser);
    case.sign_in(&mut browser, &user);
    for known in [planted.as_str(), app_value(&planted)] {
        let mut attacker = proxy.browser();
        attacker.set_cookie("PHPSESSID", known);
        assert_eq!(case.whoami(&mut attacker), None, "{known}");
    }
    case.assert_serves(&mut browser, &user);
    assert_eq!(proxy.live(&user), 1);
}

#[test]
fn an_id_from_before_the_login_is_dead_after_it_although_the_app_keeps_it() {
    an_id_from_before_the_login_is_dead_after_it(PHP_KEEPS_OLD);
}

#[test]
fn an_id_from_before_the_login_is_dead_after_it_although_it_is_the_sessions_own() {
    an_id_from_before_the_login_is_dead_after_it(PHP_SAME_ID);
}

/// Nobody but the attacker has chosen it, and the app takes it as it comes.
#[test]
fn an_id_made_up_by_an_attacker_is_worth_nothing_after_the_login() {
    for case in [PHP, PHP_KEEPS_OLD, PHP_SAME_ID] {
        let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
        let planted = format!("madeup{user}");
        let mut browser = proxy.browser();
        browser.set_cookie("PHPSESSID", &planted);
        case.sign_in(&mut browser, &user);
        let mut attacker = proxy.browser();
        attacker.set_cookie("PHPSESSID", &planted);
        assert_eq!(case.whoami(&mut attacker), None);
        assert_eq!(proxy.live(&user), 1);
    }
}

/// The browser still has the cookie of its last session: known by its value, it is the same id.
#[test]
fn the_same_id_signs_in_again_after_a_logout() {
    let toml = "limit.max_sessions = 1\nsession.binding = \"value\"";
    let (proxy, user) = (PHP_SAME_ID.proxy(toml), PHP_SAME_ID.site().user());
    let mut browser = PHP_SAME_ID.signed_in(&proxy, &user);
    for _ in 0..2 {
        let id = PHP_SAME_ID.cookie(&browser);
        PHP_SAME_ID.log_out(&mut browser);
        assert_eq!((proxy.live(&user), browser.cookie("PHPSESSID")), (0, Some(id.clone())));
        let mut thief = proxy.browser();
        thief.set_cookie("PHPSESSID", &id);
        assert_eq!(PHP_SAME_ID.whoami(&mut thief), None);
        PHP_SAME_ID.sign_in(&mut browser, &user);
        assert_eq!(proxy.live(&user), 1);
    }
}

/// PHP takes the last field of a name, and reads these as that name: bob's login is never alice's.
#[test]
fn a_name_in_a_spelling_of_phps_own_ends_nobody() {
    let (proxy, site) = (PHP.proxy("limit.max_sessions = 1"), PHP.site());
    let (victim, attacker) = (site.user(), site.user());
    let mut browser = PHP.signed_in(&proxy, &victim);
    let password = password_of(&attacker);
    for field in ["username", " username", "username\0", "username\0x", "username[]"] {
        let form = [("username", victim.as_str()), (field, &attacker), ("password", &password)];
        let answer = proxy.browser().post("/login.php", &form);
        assert_eq!(answer.status, 400, "{field:?}: {}", answer.text());
    }
    PHP.assert_serves(&mut browser, &victim);
    assert_eq!((proxy.live(&victim), proxy.live(&attacker)), (1, 0));
}

#[test]
fn a_login_behind_a_path_info_is_counted() {
    let (proxy, user) = (PHP.proxy("limit.max_sessions = 1"), PHP.site().user());
    let mut first = PHP.signed_in(&proxy, &user);
    let form = [("username", user.as_str()), ("password", &password_of(&user))];
    let mut second = proxy.browser();
    assert_eq!(second.send(&Request::form("/login.php/x", &form)).status, 302);
    PHP.assert_serves(&mut second, &user);
    PHP.assert_told(&mut first);
}
