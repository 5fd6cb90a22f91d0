//! Credentials that stand in several cookies: they count together, and pieces of two sessions never
//! make one.

use super::{HTML, Shop};
use crate::support::browser::Browser;
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::proxy::Proxy;

const TOML: &str = r#"
limit.max_sessions = 1
[[credential]]
at = ["cookie:ticket", "cookie:ticketC?"]
[[login]]
request = { methods = "POST", path = "/login" }
user = "form:user"
[[logout]]
request = { methods = "POST", path = "/logout" }
success = { clears = "ticket" }
"#;

/// An app whose ticket is cut in two. The head, `chunks-2`, is the same for everybody.
#[track_caller]
fn site(binding: &str) -> (LegacyApp, Proxy) {
    let shop = Shop::default();
    let app = LegacyApp::start(move |request| match (request.method(), request.target()) {
        ("POST", "/login") => {
            let ticket = shop.issue(&request.field("user").unwrap_or_default());
            let (first, second) = (&*ticket, &*format!("2{ticket}"));
            let set = |name: &str, value: &str| format!("Set-Cookie: {name}={value}; Path=/");
            let lines =
                [set("ticket", "chunks-2"), set("ticketC1", first), set("ticketC2", second)];
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            Reply::page("302 Found", &[&["Location: /"], &lines[..]].concat(), "")
        }
        _ => {
            let whole = request.cookie("ticket") == Some("chunks-2");
            let piece = |name| request.cookie(name).unwrap_or_default();
            let whole = whole && piece("ticketC2").strip_prefix('2') == Some(piece("ticketC1"));
            let user = shop.users.lock().get(piece("ticketC1")).filter(|_| whole).cloned();
            Reply::page("200 OK", &[HTML], user.as_deref().unwrap_or("nobody"))
        }
    });
    let proxy =
        Proxy::start(app.address, None, &format!("session.binding = \"{binding}\"\n{TOML}"));
    (app, proxy)
}

#[track_caller]
fn sign_in(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    assert_eq!(browser.post("/login", &[("user", user)]).status, 302);
    assert_eq!(browser.get("/").text(), user);
    browser
}

#[test]
fn a_head_that_is_the_same_for_everybody_mixes_nobody_up() {
    for binding in ["signed", "value"] {
        let (_app, proxy) = site(binding);
        let (mut alice, mut bob) = (sign_in(&proxy, "alice"), sign_in(&proxy, "bob"));
        assert_eq!(alice.get("/").text(), "alice", "{binding}");
        let mut again = sign_in(&proxy, "alice");
        assert_eq!(alice.get("/").status, 401, "{binding}");
        assert_eq!(bob.get("/").text(), "bob", "{binding}");
        assert_eq!(again.get("/").text(), "alice", "{binding}");
        assert_eq!((proxy.live("alice"), proxy.live("bob")), (1, 1), "{binding}");
    }
}

#[test]
fn pieces_of_two_sessions_are_refused() {
    for binding in ["signed", "value"] {
        let (app, proxy) = site(binding);
        let (alice, bob) = (sign_in(&proxy, "alice"), sign_in(&proxy, "bob"));
        let before = app.arrived().len();
        let mut mixed = proxy.browser();
        mixed.set_cookie("ticket", &alice.cookie("ticket").unwrap());
        mixed.set_cookie("ticketC1", &alice.cookie("ticketC1").unwrap());
        mixed.set_cookie("ticketC2", &bob.cookie("ticketC2").unwrap());
        assert_eq!(mixed.get("/").status, 400, "{binding}");
        assert_eq!(app.arrived().len(), before, "{binding}");
    }
}

#[test]
fn a_head_alone_is_a_visitors() {
    for binding in ["signed", "value"] {
        let (app, proxy) = site(binding);
        let mut visitor = proxy.browser();
        visitor.set_cookie("ticket", "chunks-2");
        assert_eq!(visitor.get("/").text(), "nobody", "{binding}");
        assert_eq!(app.arrived().last().unwrap().header("cookie"), None, "{binding}");
    }
}
