//! Remember-me cookies: good for one use only in some apps, so nothing but the browser spends them.

use super::{LOGIN, Site, assert_told, configured, set};
use crate::support::legacy::Reply;

/// A remember-me cookie may be good for one use only: the logout at the app does not use it up, and a
/// session that has nothing else in hand is not logged out there.
#[test]
fn the_logout_at_the_app_carries_no_remember_me_cookie() {
    let keys = "[[credential]]\nat = \"cookie:remember\"\nrole = \"remember\"";
    let site = Site::scripted(&configured("", &format!("{keys}\n{LOGIN}")), |request, shop| {
        (request.target() == "/login" && request.method() == "POST").then(|| {
            let sid = shop.issue("alice");
            let remember = format!("Set-Cookie: remember=R{sid}; Path=/");
            Reply::page("302 Found", &["Location: /", &set(&sid), &remember], "")
        })
    });
    let mut first = site.signed_in("alice");
    let remember = first.cookie("remember").unwrap();
    assert!(remember.starts_with("RS1-alice.hc1."), "{remember}");
    let mut kept = first.moved_to(site.proxy.address);
    kept.jar.retain(|cookie| cookie.name == "remember");
    site.signed_in("alice");
    assert_told(&mut kept, "limit");
    assert_told(&mut first, "limit");
    site.wait_for_logout_of("S1-alice");
    for request in site.seen("/logout") {
        assert_eq!(request.cookie("remember"), None, "{}", request.head);
        assert!(request.cookie("sid").is_some(), "{}", request.head);
    }
}
