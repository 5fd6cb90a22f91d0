//! The app must not see another method than the one that rules saw.

use super::{Site, assert_serves, configured, set};
use crate::support::http::{self, Request};
use crate::support::legacy::Reply;

/// As frameworks of the Rails kind have it: one path, several methods.
const REST: &str = r#"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302], sets = "sid" }
user = ["form:user"]
[[logout]]
request = { methods = ["DELETE"], path = "/account/session" }
success = { clears = "sid" }
"#;

const OVERRIDES: [&str; 4] =
    ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_Method_Override"];

fn overridden() -> Request {
    let request = Request::form("/account", &[("a", "b")]).header("Host", "shop");
    OVERRIDES.into_iter().fold(request, |request, name| request.header(name, "DELETE"))
}

#[test]
fn headers_that_change_the_method_do_not_reach_the_app() {
    for (keys, reach) in [("", 0), ("upstream.method_override = true", 4)] {
        let site = Site::scripted(&configured(keys, REST), |_, _| None);
        http::send(site.proxy.address, &overridden());
        let seen = site.seen("/account").pop().unwrap();
        assert_eq!(seen.head.to_lowercase().matches("method").count(), reach);
    }
}

#[test]
fn a_logout_by_a_form_that_asks_for_delete_is_one() {
    let site = Site::scripted(&configured("", REST), |request, _| {
        let logout = request.target() == "/account/session" && request.method() == "POST";
        logout.then(|| match request.field("_method").as_deref() {
            Some("delete") => {
                let cleared = "Set-Cookie: sid=; Path=/; Max-Age=0";
                Reply::page("302 Found", &["Location: /", cleared], "")
            }
            _ => Reply::page("200 OK", &[&set("other")], "nothing"),
        })
    });
    let mut browser = site.signed_in("alice");
    browser.post("/account/session", &[("_method", "put")]);
    assert_eq!(site.proxy.live("alice"), 1);
    browser.post("/account/session", &[("_method", "delete")]);
    assert_eq!(site.proxy.live("alice"), 0);
    let ended = site.proxy.wait_for_event("session_ended", "alice");
    assert_eq!(ended["reason"], "logout");

    // A large upload to the same path is none of our business.
    let upload = Request::new("POST", "/account/session")
        .header("Host", "shop")
        .header("Content-Type", "application/octet-stream")
        .body(vec![b'x'; 1 << 20]);
    assert_eq!(http::send(site.proxy.address, &upload).status, 200);
    assert_serves(&mut site.signed_in("alice"), "alice");
}
