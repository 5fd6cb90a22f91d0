//! Login requests: who is named by forms, JSON, multipart bodies and HTTP Basic. Two names are never
//! one: what some app's parser reads otherwise is refused.

use bytes::Bytes;
use headcount::detect::{RequestFacts, intent};
use headcount::fields::{self, Fields};
use headcount::rules::expression::Expression;
use headcount::rules::{RequestMatch, Rule, RuleSet};
use http::HeaderMap;

use super::parsers::decode;

/// The first byte says what the rest is.
pub fn logins(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 4 {
        0 => form(body),
        1 => json(body),
        2 => multipart(body),
        _ => basic(body),
    }
}

fn read(content_type: &str, body: &[u8]) -> Option<Fields> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", content_type.parse().ok()?);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(fields::read(&headers, &Bytes::copy_from_slice(body))).ok()
}

/// The plain reading: split, replace, decode. Whoever is named is the one field of that name.
fn form(body: &[u8]) {
    let Some(fields) = read("application/x-www-form-urlencoded", body) else { return };
    let Ok(found) = fields.form("user") else { return };
    let mut named = Vec::new();
    for pair in body.split(|byte| *byte == b'&') {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let name = decode(&pair[..at], true);
        if !pair.is_empty() && name == b"user" {
            named.push(decode(pair.get(at + 1..).unwrap_or_default(), true));
        }
        // An array of that name is refused, however it is written.
        assert!(!name.starts_with(b"user[") || !name.contains(&b']'), "{}", body.escape_ascii());
    }
    match found {
        Some(user) => assert_eq!(named, [user.as_bytes()], "{}", body.escape_ascii()),
        None => assert!(named.is_empty(), "{}", body.escape_ascii()),
    }
}

/// What an ordinary reader finds at the pointer is what was found, or nothing was.
fn json(body: &[u8]) {
    let Some(fields) = read("application/json", body) else { return };
    let plain: serde_json::Value = serde_json::from_slice(body).expect("a stricter reader took it");
    for pointer in ["/user", "/login/name", "/0"] {
        if let Some(user) = fields.json(pointer) {
            let value = plain.pointer(pointer).expect("it is there");
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(user, text, "{}", body.escape_ascii());
        }
    }
}

fn multipart(body: &[u8]) {
    let Some(fields) = read("multipart/form-data; boundary=b", body) else { return };
    let Ok(Some(user)) = fields.form("user") else { return };
    let text = String::from_utf8_lossy(body);
    assert!(text.contains(user), "{text:?} does not hold {user:?}");
    // The name stands there as the value of that parameter, and the text behind the head it is in.
    let lower = text.to_ascii_lowercase();
    let heads =
        lower.split("content-disposition").skip(1).filter_map(|part| part.split("\r\n\r\n").next());
    let named = heads.filter(|head| {
        let parameters = head.lines().next().unwrap_or_default().split(';').skip(1);
        let mut names = parameters.filter_map(|parameter| parameter.split_once('='));
        names.any(|(key, value)| key.trim() == "name" && value.trim().trim_matches('"') == "user")
    });
    assert!(named.count() > 0, "{text:?} names nobody {user:?}");
}

/// A rule that is about logins by HTTP Basic.
fn basic(body: &[u8]) {
    let line = super::header_bytes(body);
    let Ok(value) = http::HeaderValue::from_bytes(&line) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    let user = Expression::parse("basic:user").expect("an expression");
    let request = RequestMatch { has: vec![user], ..RequestMatch::default() };
    let rule = Rule {
        request,
        success: None,
        user: Vec::new(),
        in_place: false,
        issues: Vec::new(),
        guests_only: false,
    };
    let rules = RuleSet { logins: vec![rule], ..RuleSet::default() };
    let fields = Fields::Opaque;
    let facts = RequestFacts {
        method: "GET",
        path: "/",
        query: None,
        headers: &headers,
        fields: &fields,
        step: None,
    };
    let found = intent(&rules, facts).expect("one header is not ambiguous");
    let said = String::from_utf8_lossy(&line).to_ascii_lowercase();
    assert!(!found.may_log_in() || said.starts_with("basic "), "{said:?}");
}
