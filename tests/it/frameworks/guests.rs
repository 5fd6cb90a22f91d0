//! Apps that let only guests sign in, and answer everybody else as if they had: Rails and Laravel.

use super::{Case, LARAVEL, RAILS};
use crate::support::browser::Browser;
use crate::support::http::Request;

/// Signs up as somebody new.
#[track_caller]
fn sign_up(case: Case, browser: &mut Browser, user: &str) {
    let (path, again) = if case.app == RAILS.app {
        ("/users", "user[password_confirmation]")
    } else {
        ("/register", "again")
    };
    let mut form = case.login_form(user, "secret-of-new");
    form.push((again, "secret-of-new"));
    let answer = case.post(browser, path, &form);
    assert_eq!(answer.status, 302, "{}", answer.text());
    case.assert_serves(browser, user);
}

/// Were it not counted, nobody would know at the login that this is no guest.
#[test]
fn who_signed_up_is_counted_and_cannot_end_others() {
    for case in [RAILS, LARAVEL] {
        let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
        let (victim, new) = (site.user(), format!("new-{}", site.user()));
        let mut browser = case.signed_in(&proxy, &victim);
        let mut attacker = proxy.browser();
        sign_up(case, &mut attacker, &new);
        assert_eq!(proxy.live(&new), 1, "{case:?}");
        assert_eq!(case.try_login(&mut attacker, &victim, "wrong").status, 403);
        case.assert_serves(&mut browser, &victim);
        case.assert_serves(&mut attacker, &new);
        proxy.has_events("session_created", &victim, 1);
        // A name that is taken.
        let mut form = case.login_form(&victim, "secret-of-new");
        form.push(("user[password_confirmation]", "secret-of-new"));
        let path = if case.app == RAILS.app { "/users" } else { "/register" };
        let request = Request::form(path, &form).header("Referer", "http://localhost/register");
        let mut fresh = proxy.browser();
        let token = case.csrf(&mut fresh);
        fresh.send(&request.header("X-CSRF-Token", &token));
        case.assert_serves(&mut browser, &victim);
        assert_eq!(proxy.live(&victim), 1);
    }
}

/// The app does not look at it, and says so with the redirect of a success and a new cookie.
#[test]
fn the_app_itself_would_take_a_wrong_password_for_a_success() {
    for case in [RAILS, LARAVEL] {
        let site = case.site();
        let (own, other) = (site.user(), site.user());
        let mut browser = site.browser();
        case.sign_in(&mut browser, &own);
        let success =
            case.try_login(&mut site.browser(), &own, &crate::support::browser::password_of(&own));
        let before = case.cookie(&browser);
        let answer = case.try_login(&mut browser, &other, "wrong");
        assert_eq!((answer.status, answer.header("location")), (302, success.header("location")));
        assert_ne!(case.cookie(&browser), before, "{case:?}");
        case.assert_serves(&mut browser, &own);
    }
}

#[test]
fn observing_changes_nothing_about_it() {
    for case in [RAILS, LARAVEL] {
        let toml = "limit.max_sessions = 1\nenforcement.mode = \"observe\"";
        let (proxy, site) = (case.proxy(toml), case.site());
        let (own, other) = (site.user(), site.user());
        let mut browser = case.signed_in(&proxy, &own);
        assert_eq!(case.try_login(&mut browser, &other, "wrong").status, 302);
        case.assert_serves(&mut browser, &own);
        assert_eq!((proxy.live(&own), proxy.live(&other)), (1, 0), "{case:?}");
    }
}
