//! Rails with Devise: cookies that outlive the logout, names as Rack reads them, the reset of a
//! password, JSON.

use super::{RAILS, app_value};
use crate::support::browser::{Browser, password_of};
use crate::support::http::{Request, Response};

#[track_caller]
fn send_json(browser: &mut Browser, method: &str, path: &str, json: &str) -> Response {
    let token = RAILS.csrf(browser);
    let request = Request::new(method, path)
        .xhr()
        .header("Content-Type", "application/json")
        .header("X-CSRF-Token", &token);
    browser.send(&request.body(json.as_bytes().to_vec()))
}

/// Rails takes every value it has ever issued.
#[test]
fn a_cookie_outlives_the_logout_only_at_the_app() {
    let (proxy, site) = (RAILS.proxy("limit.max_sessions = 2"), RAILS.site());
    let user = site.user();
    let mut browser = RAILS.signed_in(&proxy, &user);
    let early = browser.jar.clone();
    browser.get("/touch");
    let late = browser.jar.clone();
    assert_ne!(early, late, "every answer brings another value");
    RAILS.log_out(&mut browser);
    for jar in [early, late] {
        let (mut thief, mut direct) = (proxy.browser(), site.browser());
        thief.jar.clone_from(&jar);
        direct.jar = jar;
        for cookie in &mut direct.jar {
            cookie.value = app_value(&cookie.value).to_owned();
        }
        let mut bare = direct.moved_to(proxy.address);
        RAILS.assert_serves(&mut direct, &user);
        assert_eq!((RAILS.whoami(&mut thief), RAILS.whoami(&mut bare)), (None, None));
    }
    assert_eq!(proxy.live(&user), 0);
}

#[test]
fn a_login_and_a_logout_by_json_are_seen() {
    let (proxy, user) = (RAILS.proxy("limit.max_sessions = 1"), RAILS.site().user());
    let mut first = RAILS.signed_in(&proxy, &user);
    let mut second = proxy.browser();
    let body =
        |password: &str| format!(r#"{{"user":{{"email":"{user}","password":"{password}"}}}}"#);
    let answer = send_json(&mut second, "POST", "/users/sign_in.json", &body("wrong"));
    assert_eq!(answer.status, 401, "{}", answer.text());
    RAILS.assert_serves(&mut first, &user);
    let answer = send_json(&mut second, "POST", "/users/sign_in.json", &body(&password_of(&user)));
    assert_eq!(answer.status, 201, "{}", answer.text());
    RAILS.assert_serves(&mut second, &user);
    RAILS.assert_told(&mut first);
    let answer = send_json(&mut second, "DELETE", "/users/sign_out.json", "{}");
    assert_eq!((answer.status, proxy.live(&user)), (204, 0));
}

/// The page that was asked for first is where the login leads, with whatever query it had.
#[test]
fn a_login_is_counted_wherever_it_leads() {
    let (proxy, user) = (RAILS.proxy("limit.max_sessions = 1"), RAILS.site().user());
    let mut first = RAILS.signed_in(&proxy, &user);
    let mut second = proxy.browser();
    second.get("/users/edit?from=/users/sign_in");
    let answer = RAILS.try_login(&mut second, &user, &password_of(&user));
    let location = answer.header("location").unwrap();
    assert!(location.ends_with("/users/edit?from=/users/sign_in"), "{location}");
    RAILS.assert_serves(&mut second, &user);
    RAILS.assert_told(&mut first);
}

/// Devise ignores case and blanks, Rack the type of the body and where brackets stand.
#[test]
fn a_login_is_counted_in_every_spelling() {
    let (proxy, user) = (RAILS.proxy("limit.max_sessions = 1"), RAILS.site().user());
    let password = password_of(&user);
    let mut before = RAILS.signed_in(&proxy, &user);
    let shouted = format!(" {} ", user.to_uppercase());
    for (path, name) in [("/users/sign_in", &shouted), ("/users/sign_in.html", &user)] {
        let mut browser = proxy.browser();
        let answer = RAILS.post(&mut browser, path, &RAILS.login_form(name, &password));
        assert_eq!(answer.status, 302, "{path}: {}", answer.text());
        RAILS.assert_serves(&mut browser, &user);
        RAILS.assert_told(&mut before);
        before = browser;
    }
    let mut browser = proxy.browser();
    let token = RAILS.csrf(&mut browser);
    let mut request = Request::form("/users/sign_in", &RAILS.login_form(&user, &password));
    request.headers.clear();
    let answer = browser.send(&request.header("X-CSRF-Token", &token));
    assert_eq!(answer.status, 302, "{}", answer.text());
    RAILS.assert_serves(&mut browser, &user);
    RAILS.assert_told(&mut before);
    assert_eq!(proxy.live(&user), 1);
}

/// Rack takes the last field of a name, and reads these as that name; and what it cannot read, it
/// leaves to the query. The attacker's login is never the victim's.
#[test]
fn a_name_in_a_spelling_of_racks_own_ends_nobody() {
    let (proxy, site) = (RAILS.proxy("limit.max_sessions = 1"), RAILS.site());
    let (victim, attacker) = (site.user(), site.user());
    let mut browser = RAILS.signed_in(&proxy, &victim);
    let password = password_of(&attacker);
    for field in ["user[email]", "[user][email]", "user[[email]", "user]email", "user[email]]"] {
        let form = [("user[email]", &*victim), (field, &attacker), ("user[password]", &password)];
        let direct = &mut site.browser();
        RAILS.post(direct, "/users/sign_in", &form);
        assert_eq!(RAILS.whoami(direct).as_ref(), Some(&attacker), "{field}");
        let other = &mut proxy.browser();
        assert_eq!(RAILS.post(other, "/users/sign_in", &form).status, 400, "{field}");
        assert_eq!(RAILS.whoami(other), None);
    }
    let query = format!("user[email]={attacker}&user[password]={password}");
    let body = format!(r#"{{"user":{{"email":"{victim}"}}}}"#);
    for (address, refused) in [(site.address, false), (proxy.address, true)] {
        let mut other = Browser::new(address);
        let token = RAILS.csrf(&mut other);
        let request = Request::new("POST", &format!("/users/sign_in?{query}"))
            .header("Content-Type", "application/x+json")
            .header("X-CSRF-Token", &token);
        let answer = other.send(&request.body(body.clone().into_bytes()));
        assert_eq!(answer.status == 400, refused, "{}", answer.text());
        assert_eq!(RAILS.whoami(&mut other).is_none(), refused);
    }
    RAILS.assert_serves(&mut browser, &victim);
    assert_eq!((proxy.live(&victim), proxy.live(&attacker)), (1, 0));
}

#[test]
fn a_new_password_ends_the_users_other_sessions() {
    let (proxy, user) = (RAILS.proxy("limit.max_sessions = 3"), RAILS.site().user());
    let mut browser = RAILS.signed_in(&proxy, &user);
    let mut other = RAILS.signed_in(&proxy, &user);
    let change = |browser: &mut Browser, current: &str, new: &str| {
        let form = [
            ("_method", "put"),
            ("user[email]", user.as_str()),
            ("user[password]", new),
            ("user[password_confirmation]", new),
            ("user[current_password]", current),
        ];
        RAILS.post(browser, "/users", &form).status
    };
    assert_eq!(change(&mut browser, "wrong", "brand new"), 200);
    assert_eq!(change(&mut browser, &password_of(&user), ""), 302);
    RAILS.assert_serves(&mut other, &user);
    assert_eq!(proxy.live(&user), 2);
    assert_eq!(change(&mut browser, &password_of(&user), "brand new"), 302);
    RAILS.assert_serves(&mut browser, &user);
    assert_eq!(RAILS.whoami(&mut other), None);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "password_change");
    assert_eq!(proxy.live(&user), 1);
}

/// It signs in, and names nobody whom one could believe.
#[test]
fn a_reset_of_the_password_lets_nobody_in_uncounted() {
    let (proxy, site) = (RAILS.proxy("limit.max_sessions = 1"), RAILS.site());
    let (victim, user) = (site.user(), site.user());
    let mut browser = RAILS.signed_in(&proxy, &victim);
    let reset = |browser: &mut Browser, new: &str| {
        let mailed = site.browser().fetch_json(&format!("/reset?email={user}")).json();
        let form = [
            ("_method", "put"),
            ("user[reset_password_token]", mailed["token"].as_str().unwrap()),
            ("user[email]", &victim),
            ("user[password]", new),
            ("user[password_confirmation]", new),
        ];
        RAILS.post(browser, "/users/password", &form).status
    };
    let mut direct = site.browser();
    assert_eq!(reset(&mut direct, "brand new"), 302);
    RAILS.assert_serves(&mut direct, &user);
    let mut other = proxy.browser();
    assert_eq!(reset(&mut other, "brand newer"), 403);
    assert_eq!(RAILS.whoami(&mut other), None);
    RAILS.assert_serves(&mut browser, &victim);
    assert_eq!((proxy.live(&victim), proxy.live(&user)), (1, 0));
    assert_eq!(RAILS.try_login(&mut other, &user, "brand newer").status, 302);
    RAILS.assert_serves(&mut other, &user);
    assert_eq!(proxy.live(&user), 1);
    // To ask for the mail is no login.
    let answer = RAILS.post(&mut proxy.browser(), "/users/password", &[("user[email]", &victim)]);
    assert_eq!((answer.status, proxy.live(&victim)), (302, 1));
    RAILS.assert_serves(&mut browser, &victim);
}
