//! Several apps behind one proxy: each has pages for its own users.

use super::{HTML, own_id, scripted};
use crate::support::browser::Browser;
use crate::support::http::Request;
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::proxy::Proxy;

const TOML: &str = r#"
limit.max_sessions = 5
enforcement.login_url = "/login"
[[credential]]
at = "cookie:sid"
[[login]]
request = { methods = "POST", path = "/login" }
user = "form:user"

[[scope]]
name = "wiki"
path = ["/wiki/**"]
self_service_path = "/wiki/.mine/"
[[scope.credential]]
at = "cookie:sid"
[[scope.login]]
request = { methods = "POST", path = "/wiki/login" }
user = "form:user"

[[scope]]
name = "forum"
host = "forum.example"
[[scope.credential]]
at = "cookie:sid"
[[scope.login]]
request = { methods = "POST", path = "/login" }
user = "form:user"
"#;

fn start() -> (LegacyApp, Proxy) {
    let app = LegacyApp::start(|arrived| {
        let folder = if arrived.target().starts_with("/wiki/") { "/wiki" } else { "" };
        if arrived.method() == "POST" {
            let number = arrived.field("number").unwrap_or_default();
            let cookie = format!("Set-Cookie: sid=value-{number}; Path={folder}/");
            return Reply::page("302 Found", &[&cookie, &format!("Location: {folder}/")], "");
        }
        Reply::page("200 OK", &[HTML], "hello")
    });
    let proxy = Proxy::start(app.address, None, TOML);
    (app, proxy)
}

fn sign_in(proxy: &Proxy, path: &str, host: Option<&str>, number: &str) -> Browser {
    let mut browser = proxy.browser();
    let form = Request::form(path, &[("user", "alice"), ("number", number)]);
    let form = host.map_or(form.clone(), |host| form.header("Host", host));
    assert_eq!(browser.send(&form).status, 302);
    browser
}

#[test]
fn each_app_shows_the_sessions_of_its_own_users() {
    let (app, proxy) = start();
    let mut shop = sign_in(&proxy, "/login", None, "1");
    let mut wiki = sign_in(&proxy, "/wiki/login", None, "2");
    let mut forum = sign_in(&proxy, "/login", Some("forum.example"), "3");
    let at_wiki = wiki.fetch_json("/wiki/.mine/");
    assert_eq!(at_wiki.status, 200, "{}", at_wiki.text());
    let at_wiki = at_wiki.json();
    assert_eq!(
        (&at_wiki["user"], at_wiki["sessions"].as_array().unwrap().len()),
        (&"alice".into(), 1)
    );
    let in_forum = Request::get("/.headcount/").xhr().header("Host", "forum.example");
    let in_forum = forum.send(&in_forum).json();
    assert_eq!(in_forum["sessions"].as_array().unwrap().len(), 1);
    let shops = own_id(&mut shop);
    let wikis = at_wiki["sessions"][0]["id"].as_str().unwrap().to_owned();
    let forums = in_forum["sessions"][0]["id"].as_str().unwrap().to_owned();

    // The page of one app is closed to those who are signed in at another.
    let elsewhere = shop.cookie_line("/");
    let request = Request::get("/wiki/.mine/").xhr().header("Cookie", &elsewhere);
    assert_eq!(shop.send(&request).status, 401);
    let request = Request::get("/.headcount/").xhr().header("Cookie", &wiki.cookie_line("/wiki/"));
    assert_eq!(wiki.send(&request).status, 401);
    let end = |path: &str, id: &str| scripted(path, &format!(r#"{{"session":"{id}"}}"#));
    for other in [&wikis, &forums] {
        assert_eq!(shop.send(&end("/.headcount/end", other)).status, 404);
    }
    for other in [&shops, &forums] {
        assert_eq!(wiki.send(&end("/wiki/.mine/end", other)).status, 404);
    }
    // A token of the wiki's page is none in the shop.
    let token = at_wiki["csrf"].as_str().unwrap();
    let form = [("csrf", token), ("session", &*shops)];
    assert_eq!(shop.post("/.headcount/end", &form).status, 403);
    assert_eq!(
        (proxy.live("alice"), proxy.live("wiki%2Falice"), proxy.live("forum%2Falice")),
        (1, 1, 1)
    );

    for odd in ["/wiki/.Mine/", "/wiki//.mine/", "/wiki/%2emine/", "/WIKI/.mine/"] {
        assert_eq!(wiki.fetch_json(odd).status, 400, "{odd}");
    }
    let done = wiki.send(&end("/wiki/.mine/end", &wikis));
    assert_eq!(done.json()["ended"], 1, "{}", done.text());
    assert_eq!((proxy.live("alice"), proxy.live("wiki%2Falice")), (1, 0));
    let seen = app.arrived();
    assert!(seen.iter().all(|one| !one.target().contains(".mine")), "it reached the app");
}
