//! Laravel: failures that look like successes, names in two places, JSON, a new password.

use super::LARAVEL;
use crate::support::browser::{Browser, password_of};
use crate::support::http::{Request, Response};

/// A login whose request says that the form was on this page; empty: it does not say.
#[track_caller]
fn login_from(browser: &mut Browser, user: &str, password: &str, page: &str) -> Response {
    let token = LARAVEL.csrf(browser);
    let mut form = LARAVEL.login_form(user, password);
    form.push(("_token", &token));
    browser.send(&Request::form("/login", &form).header("Referer", page))
}

#[track_caller]
fn send_json(browser: &mut Browser, method: &str, path: &str, json: &str) -> Response {
    let token = LARAVEL.csrf(browser);
    let request = Request::new(method, path)
        .xhr()
        .header("Content-Type", "application/json")
        .header("X-CSRF-TOKEN", &token);
    browser.send(&request.body(json.as_bytes().to_vec()))
}

/// Laravel sends a wrong password back to where the request says that it comes from.
#[test]
fn a_wrong_password_ends_nobody_wherever_it_comes_from() {
    let (proxy, site) = (LARAVEL.proxy("limit.max_sessions = 1"), LARAVEL.site());
    let victim = site.user();
    let mut browser = LARAVEL.signed_in(&proxy, &victim);
    let direct = login_from(&mut site.browser(), &victim, "wrong", "http://localhost/account");
    assert_eq!(direct.status, 302);
    assert_eq!(direct.header("location"), Some("http://localhost/account"));
    for page in [
        "",
        "/",
        "/login",
        "http://localhost/",
        "http://localhost/account",
        "http://localhost/login",
        "http://localhost/login?x=/account",
        "http://localhost/account?x=/login",
        "http://localhost/login#/account",
        "http://localhost/account#/login",
        "http://localhost/login/",
        "http://localhost//login",
        "HTTP://localhost/login",
        "//localhost/login",
        "http://localhost/two-factor-challenge",
        "http://localhost/register",
        "https://example.org/login",
        "#/login",
        "javascript:/login",
    ] {
        let mut attacker = proxy.browser();
        attacker.get("/");
        let answer = login_from(&mut attacker, &victim, "wrong", page);
        assert!(matches!(answer.status, 302 | 403), "{page}: {}", answer.status);
        LARAVEL.assert_serves(&mut browser, &victim);
        assert_eq!(LARAVEL.whoami(&mut attacker), None);
    }
    assert_eq!(proxy.live(&victim), 1);
    proxy.has_events("session_created", &victim, 1);
    assert!(proxy.events("session_ended", &victim).is_empty());
}

#[test]
fn a_login_from_any_other_page_lets_nobody_in() {
    let (proxy, site) = (LARAVEL.proxy("limit.max_sessions = 1"), LARAVEL.site());
    let user = site.user();
    for page in ["", "http://localhost/", "http://localhost/login/", "http://localhost/x"] {
        let mut browser = proxy.browser();
        let answer = login_from(&mut browser, &user, &password_of(&user), page);
        let served = LARAVEL.whoami(&mut browser);
        assert_eq!((answer.status, served), (403, None), "{page}");
    }
    assert_eq!(proxy.live(&user), 0);
    let mut browser = proxy.browser();
    let page = "http://localhost/login?next=/";
    assert_eq!(login_from(&mut browser, &user, &password_of(&user), page).status, 302);
    LARAVEL.assert_serves(&mut browser, &user);
    assert_eq!(proxy.live(&user), 1);
}

/// The page that was asked for first is where the login leads, with whatever query it had.
#[test]
fn a_login_is_counted_wherever_it_leads() {
    let (proxy, user) = (LARAVEL.proxy("limit.max_sessions = 1"), LARAVEL.site().user());
    let mut first = LARAVEL.signed_in(&proxy, &user);
    let mut second = proxy.browser();
    assert_eq!(second.get("/account?from=http://localhost/login").status, 302);
    let answer = LARAVEL.try_login(&mut second, &user, &password_of(&user));
    assert!(answer.header("location").unwrap().contains("/account?from="), "{answer:?}");
    LARAVEL.assert_serves(&mut second, &user);
    LARAVEL.assert_told(&mut first);
}

#[test]
fn a_login_by_json_is_counted() {
    let (proxy, user) = (LARAVEL.proxy("limit.max_sessions = 1"), LARAVEL.site().user());
    let mut first = LARAVEL.signed_in(&proxy, &user);
    let mut second = proxy.browser();
    let wrong = format!(r#"{{"email":"{user}","password":"wrong"}}"#);
    assert_eq!(send_json(&mut second, "POST", "/login", &wrong).status, 422);
    LARAVEL.assert_serves(&mut first, &user);
    let right = format!(r#"{{"email":"{user}","password":"{}"}}"#, password_of(&user));
    assert_eq!(send_json(&mut second, "POST", "/login", &right).status, 200);
    LARAVEL.assert_serves(&mut second, &user);
    LARAVEL.assert_told(&mut first);
    assert_eq!(proxy.live(&user), 1);
}

/// A body that Laravel does not read: then it looks into the query.
#[test]
fn a_name_in_two_places_ends_nobody() {
    let (proxy, site) = (LARAVEL.proxy("limit.max_sessions = 1"), LARAVEL.site());
    let (victim, attacker) = (site.user(), site.user());
    let mut browser = LARAVEL.signed_in(&proxy, &victim);
    let path = format!("/login?email={attacker}&password={}", password_of(&attacker));
    let form = "application/x-www-form-urlencoded";
    let kinds = [form.to_owned(), format!("{form}; x=/json"), "application/x+json; y".to_owned()];
    for (target, refused) in [(site.address, false), (proxy.address, true)] {
        let mut wrong = 0;
        for kind in &kinds {
            let mut other = Browser::new(target);
            let token = LARAVEL.csrf(&mut other);
            let body = if kind.contains('+') {
                format!(r#"{{"email":"{victim}","x":1}}"#)
            } else {
                format!("email={victim}")
            };
            let request = Request::new("POST", &path)
                .header("Content-Type", kind)
                .header("X-CSRF-TOKEN", &token)
                .body(body.into_bytes());
            let answer = other.send(&request);
            wrong += usize::from(LARAVEL.whoami(&mut other).as_ref() == Some(&attacker));
            assert_eq!(answer.status == 400, refused, "{kind}: {}", answer.text());
        }
        assert_eq!(wrong, usize::from(!refused), "the app reads one of them in its own way");
    }
    LARAVEL.assert_serves(&mut browser, &victim);
    assert_eq!((proxy.live(&victim), proxy.live(&attacker)), (1, 0));
}

/// Laravel goes on with them.
#[test]
fn a_new_password_ends_the_users_other_sessions() {
    let (proxy, site) = (LARAVEL.proxy("limit.max_sessions = 3"), LARAVEL.site());
    let user = site.user();
    let mut browser = LARAVEL.signed_in(&proxy, &user);
    let mut other = LARAVEL.signed_in(&proxy, &user);
    let mut direct = site.browser();
    direct.set_cookie("laravel_session", super::app_value(&LARAVEL.cookie(&other)));
    let change = |current: &str| format!(r#"{{"current_password":"{current}","password":"new"}}"#);
    assert_eq!(send_json(&mut browser, "PUT", "/user/password", &change("wrong")).status, 422);
    LARAVEL.assert_serves(&mut other, &user);
    let right = change(&password_of(&user));
    assert_eq!(send_json(&mut browser, "PUT", "/user/password", &right).status, 200);
    LARAVEL.assert_serves(&mut browser, &user);
    LARAVEL.assert_serves(&mut direct, &user);
    assert_eq!(LARAVEL.whoami(&mut other), None);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "password_change");
    assert_eq!(proxy.live(&user), 1);
}
