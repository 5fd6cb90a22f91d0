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

/// What the site says about whoever asks.
const PROBE: &str = r#"
limit.max_sessions = 1
identity.probe.path = "/whoami"
identity.probe.user = "rjson:/user"
identity.probe.anonymous = { is = { "rjson:/user" = "!?*" } }
"#;

// N8
#[test]
fn user_name_and_e_mail_address_are_one_user_when_the_app_is_asked() {
    let (proxy, user) = proxy(PROBE);
    let address = format!("{user}@shop.example");
    let mut earlier: Option<Browser> = None;
    for name in [user.clone(), address.clone(), address.to_uppercase(), user.to_uppercase()] {
        let mut browser = proxy.browser();
        let answer = by_form(&mut browser, &name, &user);
        assert_eq!(answer.status, 302, "{name:?}: {}", answer.text());
        assert_serves(&mut browser, &user);
        if let Some(earlier) = &mut earlier {
            assert_told(earlier, "limit");
        }
        assert_eq!((proxy.live(&user), proxy.live(&address)), (1, 0), "{name:?}");
        earlier = Some(browser);
    }
}

/// Signing up signs in, and no rule is about that.
#[test]
fn a_sign_up_is_counted_when_the_app_is_asked() {
    let (proxy, user) = proxy(PROBE);
    let name = format!("new-{user}");
    let mut first = proxy.browser();
    let fields = [
        ("email", format!("{name}@shop.example")),
        ("username", name.clone()),
        ("password1", "long-enough-1".to_owned()),
        ("password2", "long-enough-1".to_owned()),
    ];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(key, value)| (*key, &**value)).collect();
    let answer = first.submit("/accounts/signup/", &fields);
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert_serves(&mut first, &name);
    assert_eq!(proxy.live(&name), 1);
    let mut second = proxy.browser();
    let form = [("login", name.as_str()), ("password", "long-enough-1")];
    assert_eq!(second.submit("/accounts/login/", &form).status, 302);
    assert_told(&mut first, "limit");
}

// N8, as far as names go.
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
