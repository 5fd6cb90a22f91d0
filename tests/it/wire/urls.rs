//! Session ids in URLs: they never reach the app, nor the log, where a cookie carries the session.

use super::{Site, assert_serves, configured};
use crate::support::http::{self, Request};
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::proxy::Proxy;

/// The app of the other tests, with one cookie more.
fn site(keys: &str) -> Site {
    let toml = configured(keys, super::LOGIN)
        .replace("at = \"cookie:sid\"", "at = [\"cookie:sid\", \"cookie:ASP.NET_SessionId\"]");
    Site::scripted(&toml, |_, _| None)
}

/// What the app sees of a target.
#[track_caller]
fn arrives(site: &Site, target: &str) -> String {
    let before = site.app.arrived().len();
    let answer = http::send(site.proxy.address, &Request::get(target).header("Host", "shop"));
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    let arrived = site.app.arrived();
    assert_eq!(arrived.len(), before + 1, "{target}");
    arrived[before].target().to_owned()
}

#[test]
fn session_ids_in_urls_are_cut_out() {
    let site = site("");
    for (target, seen) in [
        ("/a;sid=T0KEN", "/a"),
        ("/a;%73id=T0KEN/b;SID=T0KEN;c", "/a/b;c"),
        ("/a;jsessionid=T0KEN", "/a"),
        ("/a%3bsid=T0KEN", "/a"),
        ("/a?sid=T0KEN", "/a"),
        ("/a?b=%20&s%69d=T0KEN&c", "/a?b=%20&c"),
        ("/a?sid[]=T0KEN&SID[x]=T0KEN", "/a"),
        ("/a?asp_net_sessionid=T0KEN&b", "/a?b"),
        ("/a/(S(T0KEN)F(T0KEN))/b.aspx", "/a/b.aspx"),
        ("/%28S%28T0KEN%29%29/", "/"),
        ("http://shop/a;sid=T0KEN?sid=T0KEN&b=1", "/a?b=1"),
    ] {
        assert_eq!(arrives(&site, target), seen, "{target}");
    }
    let log = site.proxy.log().join("\n");
    assert!(!log.contains("T0KEN"), "{log}");
}

#[test]
fn what_is_no_session_id_passes_byte_for_byte() {
    let site = site("");
    for target in ["/a;v=%31;sids=1//b/%2e?x=sid=1&&sid&xsid=2;y", "/(a)/;?", "/caf%C3%A9?q=%3Bsid"]
    {
        assert_eq!(arrives(&site, target), target);
    }
}

/// For apps with fields of that name; and observing leaves everything as it is.
#[test]
fn they_pass_where_they_are_let_through() {
    for keys in ["session.url_ids = \"pass\"", "enforcement.mode = \"observe\""] {
        let site = site(keys);
        assert_eq!(arrives(&site, "/a;sid=T?sid=T"), "/a;sid=T?sid=T", "{keys}");
    }
}

/// Judged and forwarded is what is left.
#[test]
fn a_login_and_a_logout_behind_session_ids_are_seen() {
    let site = site("");
    for target in ["/login;sid=x", "/(S(x))/login?sid=y", "/login"] {
        let mut browser = site.proxy.browser();
        assert_eq!(browser.post(target, &[("user", "alice")]).status, 302, "{target}");
        assert_serves(&mut browser, "alice");
        assert_eq!(site.proxy.live("alice"), 1);
    }
    let mut browser = site.signed_in("bob");
    assert_eq!(browser.post("/(S(x))/logout;sid=y", &[]).status, 302);
    assert_eq!(site.proxy.live("bob"), 0);
    assert!(
        site.app.arrived().iter().all(|seen| matches!(seen.target(), "/" | "/login" | "/logout"))
    );
}

/// Flask never reads ids there, and a form may well have a field of that name.
#[test]
fn a_preset_lets_ordinary_fields_pass() {
    let app = LegacyApp::start(|_| Reply::page("200 OK", &[], ""));
    let proxy = Proxy::start(app.address, Some("flask-login"), "limit.max_sessions = 1");
    http::send(proxy.address, &Request::get("/talks?session=3").header("Host", "shop"));
    assert_eq!(app.arrived()[0].target(), "/talks?session=3");
}
