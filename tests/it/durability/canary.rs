//! Secrets leave no trace: a password, a cookie value, an admin token and the MAC key are looked
//! for, in every usual spelling, in all that Headcount wrote or said by itself, with the log at its
//! finest.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::core::COOKIE;
use super::site::{self, Site};
use crate::support::browser::{Browser, password_of};
use crate::support::http::{self, Request, Response};
use crate::support::proxy::{ADMIN_SECRET, Proxy};
use crate::support::{eventually, raw};

/// Users' names are no secrets, their passwords are `secret-NAME`: what is looked for is all of it.
const USER: &str = "canary/7Qz+owner=";
const WRONG: &str = "wrong/Zx9+password=canary";
const WRONG_TOKEN: &str = "wrong-token-K3vT8mQ1-0123456789abcdef";

/// What our own answers and the metrics said.
#[derive(Default)]
struct Shown(Vec<(String, Vec<u8>)>);

impl Shown {
    /// An answer of ours, headers and all.
    fn ours(&mut self, what: &str, status: u16, answer: &Response) {
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        let headers: Vec<String> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let whole = [headers.concat().as_bytes(), &answer.body[..]].concat();
        self.0.push((what.to_owned(), whole));
    }
}

#[test]
fn no_secret_is_logged_stored_or_shown() {
    let site = Site::start();
    for on_limit in ["evict", "deny"] {
        let logout = format!(
            "limit.max_sessions = 1\nlimit.on_limit = \"{on_limit}\"\n\
             enforcement.app_logout = {{ method = \"POST\", path = \"{}\", csrf = \"django\" }}",
            site::APP_LOGOUT
        );
        let mut proxy = Proxy::start_traced(site.address(), None, &site::rules(&logout));
        let mut secrets: Vec<Vec<u8>> = [ADMIN_SECRET, WRONG_TOKEN, WRONG, &password_of(USER)]
            .iter()
            .map(|secret| secret.as_bytes().to_vec())
            .collect();
        let mut shown = Shown::default();
        let cookies = drive(&proxy, on_limit, &mut shown);
        assert!(cookies.len() >= 3);
        for cookie in cookies {
            // The app's part, and the stamp's.
            secrets.extend(cookie.split(".hc1.").map(|part| part.as_bytes().to_vec()));
        }
        let key = fs::read_to_string(proxy.folder().join("headcount.key")).unwrap();
        secrets.push(key.trim().as_bytes().to_vec());
        secrets.push(unhex(key.trim()));
        shown.0.push(("metrics".into(), proxy.metrics().into_bytes()));
        collect_files(&proxy, &mut shown);
        assert!(proxy.terminate().success());
        collect_files(&proxy, &mut shown);
        let log = proxy.log();
        assert!(log.iter().any(|line| line.contains("session_created")), "the log is there");
        shown.0.push(("log".into(), log.join("\n").into_bytes()));
        scan(&shown, &secrets);
    }
}

/// Everything that can be done with a secret; the cookies that were given out.
fn drive(proxy: &Proxy, on_limit: &str, shown: &mut Shown) -> Vec<String> {
    let mut cookies = Vec::new();
    let keep = |browser: &Browser, cookies: &mut Vec<String>| {
        cookies.extend(browser.cookie(COOKIE));
    };
    let (mut first, mut second) = (proxy.browser(), proxy.browser());
    assert_eq!(first.post("/login", &[("username", USER), ("password", WRONG)]).status, 200);
    assert_eq!(site::login_as(&mut first, USER).status, 302);
    keep(&first, &mut cookies);
    assert_eq!(site::served_as(&mut first).as_deref(), Some(USER));
    let body = format!(r#"{{"username":"{USER}","password":"{}"}}"#, password_of(USER));
    let json = Request::new("POST", "/login.json")
        .header("Content-Type", "application/json")
        .body(body.into_bytes());
    let answer = second.send(&json);
    let mut loser = if on_limit == "deny" {
        shown.ours("denied page", 403, &answer);
        shown.ours("denied problem", 403, &second.send(&json.clone().xhr()));
        // Ended by the admin instead, so that there is somebody to tell.
        let path = "/api/v1/sessions?state=live";
        let id = proxy.admin("GET", path).json()["sessions"][0]["id"].as_str().unwrap().to_owned();
        shown.ours("end", 200, &proxy.admin("DELETE", &format!("/api/v1/sessions/{id}")));
        assert_eq!(site::login_as(&mut second, USER).status, 302);
        first
    } else {
        assert_eq!(answer.status, 200);
        first
    };
    keep(&second, &mut cookies);
    let dead = loser.cookie(COOKIE).unwrap();
    shown.ours("ended problem", 401, &loser.fetch_json("/me"));
    loser.set_cookie(COOKIE, &dead);
    shown.ours("ended page", 401, &loser.get("/page"));
    let both = format!("{COOKIE}={}; {COOKIE}={dead}", second.cookie(COOKIE).unwrap());
    shown.ours("ambiguous", 400, &proxy.browser().send(&Request::get("/").header("Cookie", &both)));
    bad_input(proxy, &dead, shown);
    let mut third = proxy.browser();
    assert_eq!(second.post("/logout", &[]).status, 302);
    assert_eq!(site::login_as(&mut third, USER).status, 302);
    keep(&third, &mut cookies);
    shown.ours("self-service page", 200, &third.get("/.headcount/"));
    shown.ours("self-service list", 200, &third.fetch_json("/.headcount/"));
    admin(proxy, shown);
    eventually("the audit trail", || {
        proxy.audit().into_iter().find(|one| one["event"] == "session_ended")
    });
    cookies
}

/// Requests that are refused, with secrets where they do and do not belong.
fn bad_input(proxy: &Proxy, dead: &str, shown: &mut Shown) {
    let password = password_of(USER);
    let twice = [("username", USER), ("username", "other"), ("password", password.as_str())];
    shown.ours("two names", 400, &proxy.browser().post("/login", &twice));
    let broken = Request::new("POST", "/login.json")
        .header("Content-Type", "application/json")
        .body(format!(r#"{{"username":"{USER}","password":"{password}"#).into_bytes());
    let answer = proxy.browser().send(&broken);
    shown.0.push(("broken json".into(), answer.body));
    let huge = "x".repeat(200 * 1024);
    let large = [("username", USER), ("password", password.as_str()), ("more", &huge)];
    shown.ours("too large", 413, &proxy.browser().post("/login", &large));
    let odd = format!("/me?password={}&cookie={dead}", percent(password.as_bytes(), true));
    shown.ours(
        "no host",
        400,
        &answered(
            proxy,
            &format!("GET {odd} HTTP/1.1\r\nCookie: {COOKIE}={dead}\r\nConnection: close\r\n\r\n"),
        ),
    );
    shown.ours(
        "two hosts",
        400,
        &answered(
            proxy,
            &format!("GET {odd} HTTP/1.1\r\nHost: a\r\nHost: b\r\nCookie: {COOKIE}={dead}\r\n\r\n"),
        ),
    );
    shown.ours(
        "bad head",
        400,
        &answered(proxy, &format!("GET /me HTTP/1.1\r\nHost: a\r\nCookie {COOKIE}={dead}\r\n\r\n")),
    );
}

fn answered(proxy: &Proxy, request: &str) -> Response {
    let bytes = raw::raw(proxy.address, request.as_bytes());
    Response { status: raw::status(&bytes), headers: Vec::new(), body: bytes }
}

fn admin(proxy: &Proxy, shown: &mut Shown) {
    for path in
        ["/api/v1/sessions?state=all", "/api/v1/sessions?state=untracked", "/livez", "/readyz"]
    {
        shown.ours(path, 200, &proxy.admin("GET", path));
    }
    shown.ours("unknown", 404, &proxy.admin("GET", "/api/v1/nothing"));
    let address = proxy.admin_address;
    let wrong = Request::get("/api/v1/sessions")
        .header("Host", &address.to_string())
        .header("Authorization", &format!("Bearer {WRONG_TOKEN}"));
    shown.ours("wrong token", 401, &http::send(address, &wrong));
    let query = format!("/api/v1/sessions?token={ADMIN_SECRET}");
    let wrong = Request::get(&query).header("Host", &address.to_string());
    shown.ours("token in the query", 401, &http::send(address, &wrong));
}

/// Database, log of writes, shared memory, configuration; neither the key nor the token file.
fn collect_files(proxy: &Proxy, shown: &mut Shown) {
    let mut databases = 0;
    for entry in fs::read_dir(proxy.folder()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "tests.token" && name != "headcount.key" {
            databases += usize::from(name.starts_with("headcount.db"));
            shown.0.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    assert!(databases > 0);
}

fn scan(shown: &Shown, secrets: &[Vec<u8>]) {
    for secret in secrets {
        assert!(secret.len() >= 10, "long enough not to be found by chance");
        for (spelling, form) in spellings(secret) {
            for (place, bytes) in &shown.0 {
                let found =
                    bytes.windows(form.len()).any(|window| window.eq_ignore_ascii_case(&form));
                assert!(!found, "{:?} ({spelling}) in {place}", String::from_utf8_lossy(secret));
            }
        }
    }
}

/// The secret as it is, percent-encoded, in base64 wherever it may stand in longer text, in hex.
fn spellings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![
        ("plain", secret.to_vec()),
        ("percent", percent(secret, false).into_bytes()),
        ("percent, all", percent(secret, true).into_bytes()),
        ("form", form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes()),
        ("hex", secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()),
    ];
    for shift in 0..3 {
        let padded = [&vec![0; shift][..], secret].concat();
        // Without the characters that the neighbours have a part in.
        let (skip, whole) = ([0, 2, 3][shift], padded.len() * 4 / 3);
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            forms.push(("base64", encoded.as_bytes()[skip..whole.min(encoded.len() - 1)].to_vec()));
        }
    }
    forms
}

fn percent(bytes: &[u8], all: bool) -> String {
    let plain = |byte: &u8| !all && byte.is_ascii_alphanumeric();
    bytes
        .iter()
        .map(
            |byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn a_planted_secret_is_found_in_every_spelling() {
    let secret = b"to/be+found=\xffhere".to_vec();
    let longer = |before: &str| [before.as_bytes(), &secret, b"&more"].concat();
    let planted = [
        longer("x"),
        percent(&secret, false).into_bytes(),
        percent(&secret, true).to_lowercase().into_bytes(),
        STANDARD_NO_PAD.encode(longer("")).into_bytes(),
        STANDARD_NO_PAD.encode(longer("a")).into_bytes(),
        URL_SAFE_NO_PAD.encode(longer("ab")).into_bytes(),
        URL_SAFE_NO_PAD.encode(longer("abcd")).into_bytes(),
        headcount::keyring::hex(&secret).into_bytes(),
    ];
    for (number, bytes) in planted.into_iter().enumerate() {
        let shown = Shown(vec![("planted".into(), bytes)]);
        let found = std::panic::catch_unwind(|| scan(&shown, std::slice::from_ref(&secret)));
        assert!(found.is_err(), "plant {number}");
    }
}
