//! Tomcat with FORM authentication: the form on any protected page, ids in URLs, two cookies of one
//! name, and names in the query.

use super::{Case, PHP_URL_IDS, TOMCAT, app_value};
use crate::support::browser::{Browser, password_of};
use crate::support::http::{self, Request};
use crate::support::proxy::Proxy;

/// Where the form on this page is sent; as if it were there, if it is not.
pub(super) fn action(page: &str) -> String {
    let found = page.split("action=\"").nth(1).and_then(|rest| rest.split('"').next());
    found.unwrap_or("j_security_check").to_owned()
}

/// A logout request that leaves the app's own session alive.
const HARMLESS: &str = r#"enforcement.app_logout = { method = "GET", path = "/whoami.jsp" }"#;

/// Whom the app takes a request for, with this target and Cookie line.
#[track_caller]
fn says(proxy: &Proxy, target: &str, cookie: &str) -> serde_json::Value {
    let mut request = Request::get(target).header("Host", &proxy.address.to_string()).xhr();
    if !cookie.is_empty() {
        request = request.header("Cookie", cookie);
    }
    let answer = http::send(proxy.address, &request);
    assert!(matches!(answer.status, 200 | 401), "{target}: {} {}", answer.status, answer.text());
    answer.json()["user"].clone()
}

/// An ended session and a live one, and the ids the app has for them.
fn ended_and_live(case: Case, proxy: &Proxy) -> (String, String, Browser) {
    let (mut direct, user) = (case.site().browser(), case.site().user());
    let first = case.signed_in(proxy, &user);
    let second = case.signed_in(proxy, &user);
    let [dead, live] = [&first, &second].map(|browser| app_value(&case.cookie(browser)).to_owned());
    for id in [&dead, &live] {
        direct.set_cookie(case.cookies[0], id);
        case.assert_serves(&mut direct, &user);
    }
    (dead, live, second)
}

#[test]
fn ids_in_urls_are_nobodys_at_tomcat() {
    let proxy = TOMCAT.proxy(&format!("limit.max_sessions = 1\n{HARMLESS}"));
    let (dead, live, _second) = ended_and_live(TOMCAT, &proxy);
    // Where they are let through, the app knows whose they are.
    let open = TOMCAT.proxy("limit.max_sessions = 1\nsession.url_ids = \"pass\"");
    assert!(says(&open, &format!("/whoami.jsp;jsessionid={dead}"), "").is_string());
    for id in [&dead, &live] {
        for target in [
            format!("/whoami.jsp;jsessionid={id}"),
            format!("/whoami.jsp;%6asessionid={id}"),
            format!("/whoami.jsp;JSESSIONID={id}"),
            format!("/;jsessionid={id}/whoami.jsp"),
            format!("/whoami.jsp;a=1;jsessionid={id};b?jsessionid={id}"),
            format!("/whoami.jsp;jsessionid={id};jsessionid={id}"),
        ] {
            assert_eq!(says(&proxy, &target, ""), serde_json::Value::Null, "{target}");
        }
    }
}

#[test]
fn ids_in_urls_are_nobodys_at_php() {
    let toml = r#"limit.max_sessions = 1
        enforcement.app_logout = { method = "GET", path = "/whoami.php" }"#;
    let proxy = PHP_URL_IDS.proxy(toml);
    let (dead, live, _second) = ended_and_live(PHP_URL_IDS, &proxy);
    let open = PHP_URL_IDS.proxy("limit.max_sessions = 1\nsession.url_ids = \"pass\"");
    assert!(says(&open, &format!("/whoami.php?a&PHPSESSID={dead}"), "").is_string());
    for id in [&dead, &live] {
        for target in [
            format!("/whoami.php?PHPSESSID={id}"),
            format!("/whoami.php?a=1&%50HPSESSID={id}&b"),
            format!("/whoami.php?+PHPSESSID={id}"),
            format!("/whoami.php?PHPSESSID%00={id}"),
            format!("/whoami.php?PHPSESSID[]={id}&PHPSESSID={id}"),
            format!("/whoami.php/PHPSESSID={id}/x"),
        ] {
            assert_eq!(says(&proxy, &target, ""), serde_json::Value::Null, "{target}");
        }
    }
}

/// Tomcat takes the first of them that is a session of its own; so may the proxy not.
#[test]
fn two_cookies_of_one_name_are_never_two_sessions() {
    let proxy = TOMCAT.proxy(&format!("limit.max_sessions = 1\n{HARMLESS}"));
    let (dead, live, second) = ended_and_live(TOMCAT, &proxy);
    let held = TOMCAT.cookie(&second);
    for cookie in [
        format!("JSESSIONID={dead}; JSESSIONID={live}"),
        format!("JSESSIONID=AAAA; JSESSIONID={dead}"),
        format!("JSESSIONID={dead}; JSESSIONID=AAAA"),
        format!("JSESSIONID={held}; JSESSIONID={dead}"),
        format!("JSESSIONID={dead}; JSESSIONID={held}"),
    ] {
        let user = says(&proxy, "/whoami.jsp", &cookie);
        let own = cookie.contains(".hc1.") && user.is_string();
        assert!(user.is_null() || own, "{cookie}: {user}");
    }
    let mut second = second;
    assert!(TOMCAT.whoami(&mut second).is_some());
}

/// The first form of a browser has the id in its address; the app reads the cookie beside it.
#[test]
fn a_login_with_an_id_in_its_address_is_counted() {
    let (proxy, user) = (TOMCAT.proxy("limit.max_sessions = 1"), TOMCAT.site().user());
    let mut first = TOMCAT.signed_in(&proxy, &user);
    let mut browser = proxy.browser();
    let action = action(&browser.get("/members/").text());
    assert!(action.starts_with("j_security_check;jsessionid="), "{action}");
    let password = password_of(&user);
    let form = [("j_username", user.as_str()), ("j_password", password.as_str())];
    assert_eq!(browser.post(&format!("/members/{action}"), &form).status, 303);
    TOMCAT.assert_serves(&mut browser, &user);
    TOMCAT.assert_told(&mut first);
}

/// Tomcat takes the name from the query before it looks into the form: two names are refused, and one
/// in the query counts.
#[test]
fn a_name_in_the_query_is_whose_login_it_is() {
    let (proxy, site) = (TOMCAT.proxy("limit.max_sessions = 1"), TOMCAT.site());
    let (victim, attacker) = (site.user(), site.user());
    let mut browser = TOMCAT.signed_in(&proxy, &victim);
    let password = password_of(&attacker);
    let target = format!("/members/j_security_check?j_username={attacker}&j_password={password}");
    let both = [("j_username", victim.as_str()), ("j_password", "x")];
    let mut direct = site.browser();
    direct.get("/members/");
    assert_eq!(direct.post(&target, &both).status, 303);
    TOMCAT.assert_serves(&mut direct, &attacker);

    let mut other = proxy.browser();
    other.get("/members/");
    assert_eq!(other.post(&target, &both).status, 400);
    assert_eq!(other.post(&target, &[("j_password", "x")]).status, 303);
    TOMCAT.assert_serves(&mut other, &attacker);
    TOMCAT.assert_serves(&mut browser, &victim);
    assert_eq!((proxy.live(&victim), proxy.live(&attacker)), (1, 1));
}

/// What is not there yet cannot be signed in: the app says so, and nobody is ended.
#[test]
fn a_form_sent_without_a_session_ends_nobody() {
    let (proxy, user) = (TOMCAT.proxy("limit.max_sessions = 1"), TOMCAT.site().user());
    let mut browser = TOMCAT.signed_in(&proxy, &user);
    let password = password_of(&user);
    let form = [("j_username", user.as_str()), ("j_password", password.as_str())];
    assert_eq!(proxy.browser().post("/members/j_security_check", &form).status, 408);
    TOMCAT.assert_serves(&mut browser, &user);
    proxy.has_events("session_created", &user, 1);
}
