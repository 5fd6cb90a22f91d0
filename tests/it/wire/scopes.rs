//! Several apps behind one proxy whose cookies have the same name: each has rules, sessions and users
//! of its own.

use super::{HTML, Shop};
use crate::support::browser::Browser;
use crate::support::http::{Request, send};
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::proxy::Proxy;

const TOML: &str = r#"
limit.max_sessions = 1
enforcement.login_url = "/login"
[[credential]]
at = "cookie:sid"
[[login]]
request = { methods = "POST", path = "/login" }
user = "form:user"
[[logout]]
request = { methods = "POST", path = "/logout" }

[[limit.override]]
users = "wiki/many"
max_sessions = 5

[[scope]]
name = "wiki"
path = ["/wiki/**"]
login_url = "/wiki/enter"
[[scope.credential]]
at = "cookie:sid"
[[scope.login]]
request = { methods = "POST", path = "/wiki/enter" }
user = "form:name"
[[scope.logout]]
request = { methods = "POST", path = "/wiki/leave" }

[[scope]]
name = "forum"
host = ["forum.example", "*.forum.example"]
[[scope.credential]]
at = "cookie:sid"
[[scope.login]]
request = { methods = "POST", path = "/login" }
user = "form:user"
"#;

/// Two shops: what is below `/wiki`, and the rest. Both take only their own cookies.
#[track_caller]
fn site() -> (LegacyApp, Proxy) {
    let (wiki, rest) = (Shop::default(), Shop::default());
    let app = LegacyApp::start(move |request| {
        let target = request.target();
        let in_wiki = target.starts_with("/wiki/");
        let (shop, path) = if in_wiki { (&wiki, "/wiki/") } else { (&rest, "/") };
        let set = |sid: &str| format!("Set-Cookie: sid={sid}; Path={path}; HttpOnly");
        match (request.method(), target) {
            ("POST", "/wiki/enter" | "/login") => {
                let field = if in_wiki { "name" } else { "user" };
                let sid = shop.issue(&request.field(field).unwrap_or_default());
                Reply::page("302 Found", &[&format!("Location: {path}"), &set(&sid)], "")
            }
            ("POST", "/wiki/leave" | "/logout") => {
                let cleared = format!("Set-Cookie: sid=; Path={path}; Max-Age=0");
                Reply::page("302 Found", &[&format!("Location: {path}"), &cleared], "")
            }
            _ => Reply::page("200 OK", &[HTML], &shop.user(request)),
        }
    });
    let proxy = Proxy::start(app.address, None, TOML);
    (app, proxy)
}

#[track_caller]
fn enter(proxy: &Proxy, browser: Option<Browser>, user: &str) -> Browser {
    let mut browser = browser.unwrap_or_else(|| proxy.browser());
    assert_eq!(browser.post("/wiki/enter", &[("name", user)]).status, 302);
    assert_eq!(browser.get("/wiki/page").text(), user);
    browser
}

#[track_caller]
fn sign_in(proxy: &Proxy, browser: Option<Browser>, user: &str) -> Browser {
    let mut browser = browser.unwrap_or_else(|| proxy.browser());
    assert_eq!(browser.post("/login", &[("user", user)]).status, 302);
    assert_eq!(browser.get("/").text(), user);
    browser
}

#[test]
fn the_same_name_in_two_apps_is_two_users() {
    let (_app, proxy) = site();
    let mut both = sign_in(&proxy, None, "alice");
    both = enter(&proxy, Some(both), "alice");
    assert_eq!((proxy.live("alice"), proxy.live("wiki%2Falice")), (1, 1));
    assert_eq!(both.get("/").text(), "alice");
    // A second login in one app leaves the other alone.
    let mut elsewhere = enter(&proxy, None, "alice");
    let told = both.get("/wiki/page");
    assert_eq!(told.status, 401);
    assert!(told.text().contains("/wiki/enter"), "{}", told.text());
    assert_eq!(both.get("/").text(), "alice");
    assert_eq!(elsewhere.get("/wiki/page").text(), "alice");
    assert_eq!(elsewhere.post("/wiki/leave", &[]).status, 302);
    assert_eq!((proxy.live("alice"), proxy.live("wiki%2Falice")), (1, 0));
}

#[test]
fn a_limit_can_be_for_the_users_of_one_app() {
    let (_app, proxy) = site();
    let mut first = enter(&proxy, None, "many");
    enter(&proxy, None, "many");
    assert_eq!(first.get("/wiki/page").text(), "many");
    let mut other = sign_in(&proxy, None, "many");
    sign_in(&proxy, None, "many");
    assert_eq!(other.get("/").status, 401);
}

#[test]
fn a_cookie_of_one_app_is_worth_nothing_in_the_other() {
    let (app, proxy) = site();
    let browser = enter(&proxy, None, "alice");
    let stamped = browser.jar.iter().find(|cookie| cookie.name == "sid").unwrap().value.clone();
    let mut thief = proxy.browser();
    thief.set_cookie("sid", &stamped);
    assert_eq!(thief.get("/").text(), "nobody");
    let last = app.arrived().pop().unwrap();
    assert_eq!((last.target(), last.header("cookie")), ("/", None));
}

/// Both cookies go to the deeper path: the one that is not its own is taken off.
#[test]
fn the_cookie_of_the_root_does_not_get_in_the_way_below() {
    let (_app, proxy) = site();
    let mut browser = sign_in(&proxy, None, "alice");
    browser = enter(&proxy, Some(browser), "bob");
    assert_eq!(browser.cookie_line("/wiki/page").matches("sid=").count(), 2);
    assert_eq!(browser.get("/wiki/page").text(), "bob");
    assert_eq!(browser.get("/").text(), "alice");
    assert_eq!((proxy.live("alice"), proxy.live("wiki%2Fbob")), (1, 1));
}

#[test]
fn an_app_can_be_told_by_its_host() {
    let (_app, proxy) = site();
    let mut first = sign_in(&proxy, None, "alice");
    for host in ["forum.example", "FORUM.example:80", "a.forum.example", "forum.example."] {
        let form = Request::form("/login", &[("user", "alice")]).header("Host", host);
        assert_eq!(send(proxy.address, &form).status, 302, "{host}");
    }
    assert_eq!((proxy.live("alice"), proxy.live("forum%2Falice")), (1, 1));
    proxy.has_events("session_created", "forum/alice", 4);
    assert_eq!(first.get("/").text(), "alice");
}

/// Whoever calls themselves like a user of another app ends nobody there.
#[test]
fn a_name_with_the_name_of_an_app_in_it_is_another_user() {
    let (_app, proxy) = site();
    let mut victim = enter(&proxy, None, "alice");
    for name in ["wiki/alice", "/wiki/alice"] {
        sign_in(&proxy, None, name);
        assert_eq!(victim.get("/wiki/page").text(), "alice", "{name}");
    }
    assert_eq!((proxy.live("wiki%2Falice"), proxy.live("%2Fwiki%2Falice")), (1, 1));
}

/// An app that reads such a path otherwise would be asked with another app's rules.
#[test]
fn a_path_that_may_belong_to_two_apps_is_refused() {
    let (app, proxy) = site();
    for target in ["/x/../wiki/page", "/wiki/../page", "//wiki/page", "/%77iki/page"] {
        let request = Request::get(target).header("Host", "a");
        assert_eq!(send(proxy.address, &request).status, 400, "{target}");
    }
    assert!(app.arrived().is_empty());
    let upper = Request::form("/WIKI/enter", &[("name", "alice")]).header("Host", "a");
    assert_eq!(send(proxy.address, &upper).status, 200);
    assert_eq!(proxy.live("alice"), 0);
}
