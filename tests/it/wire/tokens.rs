//! Bearer tokens: they join a session with the answer to a login or a refresh, count in every place
//! where the app takes them, and die with their session.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::refusals;
use crate::support::eventually;
use crate::support::http::{Request, Response, send};
use crate::support::legacy::{Arrived, LegacyApp, Reply};
use crate::support::proxy::Proxy;
use crate::support::raw::{self, raw};

const RULES: &str = r#"
[[credential]]
at = ["header:authorization | bearer", "query:access_token", "form:access_token"]
[[credential]]
at = "json:/refresh"
role = "refresh"
[[login]]
request = { methods = "POST", path = "/api/login" }
success = { status = 200 }
issues = { access = "rjson:/access", refresh = "rjson:/refresh" }
user = "json:/user"
[[refresh]]
request = { methods = "POST", path = "/api/refresh" }
success = { status = 200 }
issues = { access = "rjson:/access", refresh = "rjson:/refresh" }
[[logout]]
request = { methods = "POST", path = "/api/logout" }
success = { status = 204 }
"#;

const JSON: &str = "Content-Type: application/json";

/// An app that never takes a token back, and takes one wherever RFC 6750 lets it stand.
#[derive(Default)]
struct Api {
    users: Mutex<HashMap<String, String>>,
    rotates: bool,
}

impl Api {
    fn issue(&self, kind: &str, user: &str) -> String {
        let mut users = self.users.lock();
        let token = format!("{kind}{}.{user}|x", users.len());
        users.insert(token.clone(), user.to_owned());
        token
    }

    fn user(&self, token: &str) -> Option<String> {
        self.users.lock().get(token).cloned()
    }

    fn answer(&self, request: &Arrived) -> Reply {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let (path, query) = request.target().split_once('?').unwrap_or((request.target(), ""));
        let ok = |body: &serde_json::Value| Reply::page("200 OK", &[JSON], &body.to_string());
        let refused = || Reply::page("401 Unauthorized", &[JSON], r#"{"detail":"no"}"#);
        match (request.method(), path) {
            ("POST", "/api/login") if body["password"] == "right" => {
                let user = body["user"].as_str().unwrap_or_default();
                let (access, refresh) = (self.issue("A", user), self.issue("R", user));
                ok(&serde_json::json!({"access": access, "refresh": refresh}))
            }
            ("POST", "/api/refresh") => {
                let presented = body["refresh"].as_str().unwrap_or_default();
                let Some(user) = self.user(presented) else { return refused() };
                let mut issued = serde_json::json!({"access": self.issue("A", &user)});
                if self.rotates {
                    issued["refresh"] = self.issue("R", &user).into();
                }
                ok(&issued)
            }
            ("POST", "/api/logout") => Reply::page("204 No Content", &[], ""),
            ("GET" | "POST", "/api/me") => {
                let words: Vec<&str> = request
                    .header("authorization")
                    .unwrap_or_default()
                    .split_whitespace()
                    .collect();
                let bearer = match words[..] {
                    [scheme, token] if scheme.eq_ignore_ascii_case("bearer") => Some(token.into()),
                    _ => None,
                };
                let in_query = form_urlencoded::parse(query.as_bytes())
                    .find(|(name, _)| name == "access_token")
                    .map(|(_, value)| value.into_owned());
                let token = bearer.or(in_query).or_else(|| request.field("access_token"));
                match token.and_then(|token| self.user(&token)) {
                    Some(user) => ok(&serde_json::json!({"user": user})),
                    None => refused(),
                }
            }
            _ => refused(),
        }
    }
}

fn site_of(api: Api, keys: &str) -> (LegacyApp, Proxy) {
    let app = LegacyApp::start(move |request| api.answer(request));
    let proxy = Proxy::start(app.address, None, &format!("{keys}\n{RULES}"));
    (app, proxy)
}

#[track_caller]
fn site(keys: &str) -> (LegacyApp, Proxy) {
    site_of(Api::default(), keys)
}

const ONE: &str = "limit.max_sessions = 1\nsession.untracked = \"refuse\"";

#[derive(Clone)]
struct Tokens {
    access: String,
    refresh: String,
}

fn json(path: &str, body: &serde_json::Value) -> Request {
    Request::new("POST", path)
        .xhr()
        .header("Host", "shop.example")
        .header("Content-Type", "application/json")
        .body(body.to_string().into_bytes())
}

#[track_caller]
fn sign_in(proxy: &Proxy, user: &str) -> Tokens {
    let body = serde_json::json!({"user": user, "password": "right"});
    let answer = send(proxy.address, &json("/api/login", &body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    Tokens { access: text("access"), refresh: text("refresh") }
}

#[track_caller]
fn wait_for_refusal(proxy: &Proxy, reason: &str) {
    eventually("it is logged", || refusals(proxy).iter().any(|seen| seen == reason).then_some(()));
}

fn refresh(proxy: &Proxy, token: &str) -> Response {
    send(proxy.address, &json("/api/refresh", &serde_json::json!({"refresh": token})))
}

/// The same token in each place where it can stand.
fn asked(token: &str) -> [Request; 4] {
    let me = |method: &str, target: &str| {
        Request::new(method, target).xhr().header("Host", "shop.example")
    };
    let quoted: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let form = Request::form("/api/me", &[("a", "1"), ("access_token", token)]);
    [
        me("GET", "/api/me").header("Authorization", &format!("Bearer {token}")),
        me("GET", "/api/me").header("Authorization", &format!("bearer  {token}")),
        me("GET", &format!("/api/me?a=1&access%5Ftoken={quoted}")),
        form.header("Host", "shop.example").header("Accept", "application/json"),
    ]
}

fn whoami(proxy: &Proxy, token: &str) -> Vec<Option<String>> {
    let user = |request| {
        let answer = send(proxy.address, &request);
        (answer.status == 200).then(|| answer.json()["user"].as_str().unwrap().to_owned())
    };
    asked(token).into_iter().map(user).collect()
}

#[track_caller]
fn assert_is(proxy: &Proxy, token: &str, user: Option<&str>) {
    let found = whoami(proxy, token);
    assert!(found.iter().all(|found| found.as_deref() == user), "{found:?}");
}

#[test]
fn a_second_login_ends_the_first_in_every_place_a_token_can_stand() {
    let (app, proxy) = site(ONE);
    let first = sign_in(&proxy, "alice");
    assert_is(&proxy, &first.access, Some("alice"));
    let other = sign_in(&proxy, "bob");
    let second = sign_in(&proxy, "Alice");
    assert_is(&proxy, &second.access, Some("Alice"));
    assert_is(&proxy, &other.access, Some("bob"));
    let before = app.arrived().len();
    for request in asked(&first.access) {
        let answer = send(proxy.address, &request);
        assert_eq!((answer.status, &answer.json()["reason"]), (401, &"limit".into()));
        assert!(answer.is("application/problem+json"));
    }
    let answer = refresh(&proxy, &first.refresh);
    assert_eq!((answer.status, &answer.json()["reason"]), (401, &"limit".into()));
    assert_eq!(app.arrived().len(), before, "nothing of the ended session reaches the app");
    assert_eq!((proxy.live("alice"), proxy.live("bob")), (1, 1));
    assert!(!proxy.log().join("\n").contains(&first.access));
}

#[test]
fn a_refreshed_token_is_the_same_session() {
    let (_app, proxy) = site(ONE);
    let first = sign_in(&proxy, "alice");
    let mut all = vec![first.access.clone()];
    for _ in 0..3 {
        let answer = refresh(&proxy, &first.refresh);
        assert_eq!(answer.status, 200, "{}", answer.text());
        all.push(answer.json()["access"].as_str().unwrap().to_owned());
    }
    for token in &all {
        assert_is(&proxy, token, Some("alice"));
    }
    assert_eq!(proxy.live("alice"), 1);
    sign_in(&proxy, "alice");
    for token in &all {
        assert_is(&proxy, token, None);
    }
    assert_eq!(proxy.live("alice"), 1);
}

#[test]
fn a_token_to_refresh_with_is_good_until_the_next() {
    let api = Api { rotates: true, ..Api::default() };
    let (_app, proxy) = site_of(api, &format!("{ONE}\nsession.rotation_grace = \"0ms\""));
    let first = sign_in(&proxy, "alice");
    let answer = refresh(&proxy, &first.refresh).json();
    let next = answer["refresh"].as_str().unwrap();
    let again = refresh(&proxy, &first.refresh);
    assert_eq!(again.status, 401);
    wait_for_refusal(&proxy, "token_unknown");
    assert_eq!(refresh(&proxy, next).status, 200);
    assert_eq!(proxy.live("alice"), 1);
}

/// However often a session is refreshed, it is known by few tokens, and the oldest are dead.
#[test]
fn a_session_has_so_many_tokens_at_a_time() {
    let (_app, proxy) = site(ONE);
    let first = sign_in(&proxy, "alice");
    let mut last = String::new();
    for _ in 0..40 {
        let answer = refresh(&proxy, &first.refresh);
        assert_eq!(answer.status, 200, "{}", answer.text());
        last = answer.json()["access"].as_str().unwrap().to_owned();
    }
    assert_is(&proxy, &first.access, None);
    assert_is(&proxy, &last, Some("alice"));
    assert_eq!(proxy.live("alice"), 1);
    assert!(proxy.events("session_ended", "alice").is_empty());
}

#[test]
fn tokens_nobody_knows_pass_or_are_taken_off() {
    let api = Api::default();
    let foreign = api.issue("A", "eve");
    let (app, proxy) = site_of(api, ONE);
    assert_is(&proxy, &foreign, None);
    assert_eq!(app.arrived().len(), asked("x").len());
    for request in app.arrived() {
        assert!(!request.head.contains("eve") && !request.body.ends_with(b"eve%7Cx"));
        assert!(request.target() == "/api/me" || request.target() == "/api/me?a=1");
        assert!(request.body.is_empty() || request.body == b"a=1");
    }
    let answer = refresh(&proxy, &foreign);
    assert_eq!(answer.status, 401);
    wait_for_refusal(&proxy, "token_unknown");

    let api = Api::default();
    let foreign = api.issue("A", "eve");
    let (_app, proxy) = site_of(api, "limit.max_sessions = 1");
    assert_is(&proxy, &foreign, Some("eve"));
    assert_eq!(refresh(&proxy, &foreign).status, 200);
    assert_eq!(proxy.live("eve"), 0);
}

#[test]
fn a_logout_ends_a_tokens_session() {
    for untracked in ["pass", "refuse"] {
        let keys = format!("limit.max_sessions = 2\nsession.untracked = \"{untracked}\"");
        let (_app, proxy) = site(&keys);
        let (first, second) = (sign_in(&proxy, "alice"), sign_in(&proxy, "alice"));
        let logout = json("/api/logout", &serde_json::json!({}))
            .header("Authorization", &format!("Bearer {}", first.access));
        assert_eq!(send(proxy.address, &logout).status, 204);
        assert_is(&proxy, &first.access, None);
        assert_eq!(refresh(&proxy, &first.refresh).status, 401);
        assert_is(&proxy, &second.access, Some("alice"));
        assert_eq!(proxy.live("alice"), 1);
    }
}

#[test]
fn a_wrong_password_ends_nobody() {
    let (_app, proxy) = site(ONE);
    let tokens = sign_in(&proxy, "alice");
    for _ in 0..10 {
        let body = serde_json::json!({"user": "alice", "password": "wrong"});
        assert_eq!(send(proxy.address, &json("/api/login", &body)).status, 401);
    }
    assert_is(&proxy, &tokens.access, Some("alice"));
    proxy.has_events("session_created", "alice", 1);
}

#[test]
fn a_denied_login_gives_no_token_away() {
    let keys = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"1h\"";
    let (_app, proxy) = site(keys);
    let first = sign_in(&proxy, "alice");
    let body = serde_json::json!({"user": "alice", "password": "right"});
    let answer = send(proxy.address, &json("/api/login", &body));
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(!answer.text().contains("alice|x"));
    assert_is(&proxy, &first.access, Some("alice"));
}

/// What one server reads as the token and another does not.
#[test]
fn a_token_in_two_readings_is_refused_and_never_reaches_the_app() {
    let (app, proxy) = site("limit.max_sessions = 1");
    let (first, second) = (sign_in(&proxy, "alice").access, sign_in(&proxy, "alice").access);
    let before = app.arrived().len();
    let lines = [
        format!("Authorization: Bearer {second}\r\nAuthorization: Bearer {first}"),
        format!("Authorization: Bearer {second}, Bearer {first}"),
        format!("Authorization: Bearer\u{a0}{first}"),
        format!("Authorization: Bearer {first} x"),
    ];
    for line in &lines {
        let request =
            format!("GET /api/me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{line}\r\n\r\n");
        assert_eq!(raw::status(&raw(proxy.address, request.as_bytes())), 400, "{line}");
    }
    let two = [
        format!("/api/me?access_token={second}&access_token={first}"),
        format!("/api/me?access_token={first}&access.token=x"),
    ];
    for target in two {
        let request = Request::get(&target.replace('|', "%7C")).header("Host", "a");
        assert_eq!(send(proxy.address, &request).status, 400, "{target}");
    }
    // One of an ended session beside one of a live session.
    let both = Request::get(&format!("/api/me?access_token={first}").replace('|', "%7C"))
        .header("Host", "a")
        .header("Authorization", &format!("Bearer {second}"));
    assert_eq!(send(proxy.address, &both).status, 400);
    assert_eq!(app.arrived().len(), before);
    assert_is(&proxy, &second, Some("alice"));
}

#[test]
fn tokens_of_a_session_are_known_after_a_restart() {
    let (_app, mut proxy) = site(ONE);
    let (first, second) = (sign_in(&proxy, "alice"), sign_in(&proxy, "alice"));
    let more = refresh(&proxy, &second.refresh).json()["access"].as_str().unwrap().to_owned();
    proxy.kill9();
    proxy.start_again();
    assert_is(&proxy, &first.access, None);
    assert_is(&proxy, &second.access, Some("alice"));
    assert_is(&proxy, &more, Some("alice"));
    assert_eq!(proxy.live("alice"), 1);
}
