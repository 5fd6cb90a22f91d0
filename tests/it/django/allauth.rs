//! django-allauth: its form, its answers to scripts, and one user under several spellings.

use super::{assert_problem, assert_serves, assert_told};
use crate::support::browser::{Browser, password_of};
use crate::support::django::Django;
use crate::support::http::{Request, Response};
use crate::support::proxy::Proxy;

fn proxy(toml: &str) -> (Proxy, String) {
    let site = Django::shared_allauth();
    (Proxy::start(site.address, Some("django-allauth"), toml), site.user())
}

#[track_caller]
fn by_form(browser: &mut Browser, name: &str, user: &str) -> Response {
    let password = password_of(user);
    browser.submit("/accounts/login/", &[("login", name), ("password", &password)])
}

#[track_caller]
fn by_script(browser: &mut Browser, name: &str, password: &str) -> Response {
    browser.get("/accounts/login/");
    let token = browser.cookie("csrftoken").unwrap();
    let form = Request::form("/accounts/login/", &[("login", name), ("password", password)]);
    browser.send(&form.xhr().header("X-CSRFToken", &token))
}

#[test]
fn a_second_login_by_form_ends_the_first() {
    let (proxy, user) = proxy("limit.max_sessions = 1");
    let (mut first, mut second) = (proxy.browser(), proxy.browser());
    assert_eq!(by_form(&mut first, &user, &user).status, 302);
    assert_serves(&mut first, &user);
    assert_eq!(by_form(&mut second, &user, &user).status, 302);
    assert_told(&mut first, "limit");
    assert_serves(&mut second, &user);
}

#[test]
fn logins_by_script_are_counted_and_failed_ones_are_not() {
    let (proxy, user) = proxy("limit.max_sessions = 1");
    let (mut first, mut second) = (proxy.browser(), proxy.browser());
    let answer = by_script(&mut first, &user, &password_of(&user));
    assert_eq!((answer.status, answer.json()["location"].as_str()), (200, Some("/")));
    assert_serves(&mut first, &user);
    let refused = by_script(&mut second, &user, "wrong");
    assert!(refused.json()["location"].is_null(), "{}", refused.text());
    assert_serves(&mut first, &user);
    assert_eq!(by_script(&mut second, &user, &password_of(&user)).status, 200);
    assert_problem(&first.fetch_json("/whoami"), 401, "limit");
    assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}

#[test]
fn a_script_over_the_limit_is_refused_in_json() {
    let (proxy, user) = proxy("limit.max_sessions = 1\nlimit.on_limit = \"deny\"");
    let (mut first, mut second) = (proxy.browser(), proxy.browser());
    by_script(&mut first, &user, &password_of(&user));
    assert_problem(&by_script(&mut second, &user, &password_of(&user)), 403, "limit");
    assert_eq!(second.whoami(), None);
    assert_serves(&mut first, &user);
}

// N8, as far as names go; an e-mail address in the name's place needs the app's word for whose it is.
#[test]
fn one_user_under_several_spellings_is_one_user() {
    let (proxy, user) = proxy("limit.max_sessions = 1");
    let mut earlier: Option<Browser> = None;
    for name in [user.clone(), user.to_uppercase(), format!(" {user} ")] {
        let mut browser = proxy.browser();
        let answer = by_form(&mut browser, &name, &user);
        assert_eq!(answer.status, 302, "{name:?}: {}", answer.text());
        assert_serves(&mut browser, &user);
        if let Some(earlier) = &mut earlier {
            assert_told(earlier, "limit");
        }
        assert_eq!(proxy.live(&user), 1, "{name:?}");
        earlier = Some(browser);
    }
}

#[test]
fn a_password_change_and_a_logout_are_recognised() {
    let (proxy, user) = proxy("limit.max_sessions = 3");
    let (mut first, mut second) = (proxy.browser(), proxy.browser());
    by_form(&mut first, &user, &user);
    by_form(&mut second, &user, &user);
    let old = password_of(&user);
    let fields =
        [("oldpassword", old.as_str()), ("password1", "a-new-1"), ("password2", "a-new-1")];
    let answer = first.submit("/accounts/password/change/", &fields);
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert_serves(&mut first, &user);
    assert_told(&mut second, "password_change");
    assert_eq!(proxy.live(&user), 1);
    assert_eq!(first.submit("/accounts/logout/", &[]).status, 302);
    assert_eq!(proxy.live(&user), 0);
}
