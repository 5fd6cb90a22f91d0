//! HTTP Basic: the app is asked whether a password is right, devices are told apart by address and
//! browser, and who was signed out is asked for the password again.

use std::thread;
use std::time::Duration;

use base64::Engine as _;

use crate::support::browser::Browser;
use crate::support::http::{Request, Response};
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::proxy::Proxy;

const TOML: &str = r#"
[[credential]]
at = "basic:"
[identity.probe]
path = "/inside"
user = "basic:user"
anonymous = { status = 401 }
cache = "1s"
"#;

/// An app that looks at passwords below `/inside` only.
#[track_caller]
fn site(keys: &str) -> (LegacyApp, Proxy) {
    let app = LegacyApp::start(|request| {
        let sent = request.header("authorization").unwrap_or_default().strip_prefix("Basic ");
        let plain =
            sent.and_then(|code| base64::engine::general_purpose::STANDARD.decode(code).ok());
        let plain = plain.and_then(|plain| String::from_utf8(plain).ok()).unwrap_or_default();
        match plain.split_once(':') {
            Some((user, "right")) => Reply::page("200 OK", &[], user),
            _ if !request.target().starts_with("/inside") => Reply::page("200 OK", &[], "public"),
            _ => {
                let asks = "WWW-Authenticate: Basic realm=\"shop\"";
                Reply::page("401 Unauthorized", &[asks], "who are you?")
            }
        }
    });
    let proxy = Proxy::start(app.address, None, &format!("{keys}\n{TOML}"));
    (app, proxy)
}

const ONE: &str = "limit.max_sessions = 1\nlog.client_address = \"full\"";

fn device(proxy: &Proxy, agent: &str) -> Browser {
    proxy.browser().with_agent(agent)
}

fn page(browser: &mut Browser, user: &str, password: &str) -> Response {
    let code = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    browser.send(&Request::get("/inside").header("Authorization", &format!("Basic {code}")))
}

fn poll(browser: &mut Browser, user: &str) -> u16 {
    let code = base64::engine::general_purpose::STANDARD.encode(format!("{user}:right"));
    let poll = Request::get("/inside").xhr().header("Authorization", &format!("Basic {code}"));
    browser.send(&poll).status
}

#[test]
fn a_second_device_ends_the_first_until_the_password_is_typed_again() {
    let (_app, proxy) = site(ONE);
    let (mut first, mut second) = (device(&proxy, "Firefox"), device(&proxy, "Safari"));
    for _ in 0..3 {
        assert_eq!(page(&mut first, "alice", "right").text(), "alice");
    }
    proxy.has_events("session_created", "alice", 1);
    assert_eq!(page(&mut second, "alice", "right").text(), "alice");
    let told = page(&mut first, "alice", "right");
    assert_eq!(told.status, 401);
    assert!(told.header("www-authenticate").is_some_and(|asks| asks.starts_with("Basic ")));
    assert!(told.text().to_lowercase().contains("limit"), "{}", told.text());
    // What the page does by itself brings nobody back.
    thread::sleep(Duration::from_millis(1_100));
    assert_eq!(poll(&mut first, "alice"), 401);
    assert_eq!(poll(&mut second, "alice"), 200);
    assert_eq!(page(&mut first, "alice", "right").text(), "alice");
    assert_eq!(page(&mut second, "alice", "right").status, 401);
    assert_eq!(proxy.live("alice"), 1);
}

#[test]
fn a_wrong_password_ends_nobody_wherever_it_is_sent() {
    let (_app, proxy) = site(ONE);
    let mut victim = device(&proxy, "Firefox");
    assert_eq!(page(&mut victim, "alice", "right").text(), "alice");
    let mut attacker = device(&proxy, "Evil");
    for path in ["/inside", "/public"] {
        let code = base64::engine::general_purpose::STANDARD.encode("alice:wrong");
        let guess = Request::get(path).header("Authorization", &format!("Basic {code}"));
        let answer = attacker.send(&guess);
        assert_eq!(answer.status, if path == "/inside" { 401 } else { 200 });
        assert_ne!(answer.text(), "alice");
    }
    assert_eq!(page(&mut victim, "alice", "right").text(), "alice");
    proxy.has_events("session_created", "alice", 1);
}

#[test]
fn a_device_that_is_denied_can_try_again() {
    let keys = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"1s\"";
    let (_app, proxy) = site(keys);
    let (mut first, mut second) = (device(&proxy, "Firefox"), device(&proxy, "Safari"));
    assert_eq!(page(&mut first, "alice", "right").text(), "alice");
    assert_eq!(page(&mut second, "alice", "right").status, 403);
    thread::sleep(Duration::from_millis(2_200));
    assert_eq!(page(&mut second, "alice", "right").text(), "alice");
    assert_eq!(proxy.live("alice"), 1);
}

#[test]
fn the_password_is_in_no_log() {
    let (_app, proxy) = site(ONE);
    page(&mut device(&proxy, "Firefox"), "alice", "right");
    let code = base64::engine::general_purpose::STANDARD.encode("alice:right");
    assert!(!proxy.log().join("\n").contains(&code));
}
