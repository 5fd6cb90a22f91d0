//! Recordings exported from a browser.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Learned, Subject, command, finished, folder, on_every_app};
use crate::support::browser::{Browser, password_of};
use crate::support::http::{Request, Response};
use crate::support::process::Process;
use crate::support::top;

on_every_app! {
    what_a_browser_exports_is_enough
}

/// The developer tools' list, as Chrome writes it.
fn exported(address: SocketAddr, tape: &[(Request, Response)]) -> Value {
    let pairs = |list: &[(String, String)]| -> Vec<Value> {
        list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    let entries: Vec<Value> = tape
        .iter()
        .enumerate()
        .map(|(at, (request, response))| {
            let mut sent = json!({
                "method": request.method,
                "url": format!("http://{address}{}", request.target),
                "httpVersion": "HTTP/1.1",
                "headers": pairs(&request.headers),
                "cookies": [],
            });
            if let Some(body) = &request.body {
                let kind = "application/x-www-form-urlencoded";
                sent["postData"] = json!({"mimeType": kind, "text": String::from_utf8_lossy(body)});
            }
            json!({
                "startedDateTime": format!("2026-11-21T10:{:02}:{:02}.000Z", at / 60, at % 60),
                "request": sent,
                "response": {
                    "status": response.status,
                    "headers": pairs(&response.headers),
                    "cookies": [],
                    "content": {"size": response.body.len(), "text": response.text()},
                    "redirectURL": response.header("location").unwrap_or_default(),
                },
            })
        })
        .collect();
    json!({"log": {"version": "1.2", "creator": {"name": "tests"}, "entries": entries}})
}

fn from_file(har: &Path, args: &[&str]) -> Learned {
    let folder = folder();
    let mut command = command(&folder, args);
    command.arg("--har").arg(har);
    let process = Process::start("learn", &mut command);
    finished(folder, process)
}

fn what_a_browser_exports_is_enough(subject: Subject) {
    let (address, user) = (subject.site)();
    let mut browser = Browser::new(address);
    browser.tape = Some(Vec::new());
    for phase in [1, 2, 3, 5] {
        subject.act(phase, &mut browser, &mut Browser::new(address), &user);
    }
    let har = exported(address, &browser.tape.unwrap());
    let scratch = folder();
    let file = scratch.path().join("app.har");
    std::fs::write(&file, har.to_string()).unwrap();
    for args in [&["--no-preset", "--user", &user][..], &["--user", &user]] {
        let learned = from_file(&file, args);
        learned.assert_verified();
        let preset = learned.toml.contains(&format!("preset = \"{}\"", subject.preset));
        assert_eq!(preset, args.len() == 2, "{}", learned.toml);
        for cookie in subject.cookies.iter().filter(|_| !preset) {
            assert!(learned.toml.contains(&format!("\"cookie:{cookie}\"")), "{}", learned.toml);
        }
        let written = format!("{}\n{}", learned.toml, learned.told.join("\n"));
        assert!(!written.contains(&password_of(&user)), "{written}");
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    top().join("tests/har").join(name)
}

/// Chrome: lower-case names and pseudo-headers of HTTP/2, cookies in their own list, base64.
#[test]
fn chromes_file_is_read() {
    let learned = from_file(&fixture("chrome.har"), &["--user", "ada@example.com"]);
    learned.assert_verified();
    for line in [
        "at = [\"cookie:shop_session\"]",
        "has = [\"json:/email\"]",
        "path = [\"/api/login\"]",
        "user = [\"rjson:/user/email\"]",
        "methods = [\"DELETE\"], path = [\"/api/session\"]",
        "success = { clears = [\"shop_session\"] }",
    ] {
        assert!(learned.toml.contains(line), "{line}\n{}", learned.toml);
    }
    assert!(!learned.toml.contains("analytics"), "{}", learned.toml);
    assert!(!learned.toml.contains("example.com"), "{}", learned.toml);
}

/// Firefox: several Set-Cookie lines in one header, fields in `params`.
#[test]
fn firefoxes_file_is_read() {
    let learned = from_file(&fixture("firefox.har"), &["--user", "grace"]);
    learned.assert_verified();
    for line in [
        "at = [\"cookie:JSESSIONID\"]",
        "has = [\"form:j_username\"]",
        "path = [\"/app/j_security_check\"]",
        "location = [\"!*error=*\"]",
        "is = { \"query:do\" = \"logout\" }",
    ] {
        assert!(learned.toml.contains(line), "{line}\n{}", learned.toml);
    }
}

/// Chrome takes the cookies out unless told otherwise.
#[test]
fn a_file_without_cookies_is_told_plainly() {
    let learned = from_file(&fixture("chrome-sanitized.har"), &["--user", "ada@example.com"]);
    assert_eq!(learned.status.code(), Some(1), "{}", learned.toml);
    let told = learned.told.join("\n");
    assert!(told.contains("no cookie is in the recording at all"), "{told}");
    assert!(told.contains("with sensitive data"), "{told}");
}

#[test]
fn another_file_is_refused() {
    let scratch = folder();
    let file = scratch.path().join("x.har");
    for text in ["", "{}", "{\"log\":{\"entries\":[]}}", "{\"log\":{\"entries\":[{}]}}"] {
        std::fs::write(&file, text).unwrap();
        let learned = from_file(&file, &[]);
        assert_eq!(learned.status.code(), Some(2), "{text}: {:?}", learned.told);
    }
}
