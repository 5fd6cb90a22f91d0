//! Cookies that two parsers read differently, that come twice, late, from elsewhere or broken.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{Stack, with_every_parser};
use crate::support::http::Request;
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::proxy::Proxy;
use crate::support::raw::{self, raw};
use crate::support::spellings::spellings;
use crate::support::{eventually, top};

with_every_parser! {
    a_tossed_cookie_beside_the_live_one_is_not_read
    two_live_sessions_in_one_request_are_nobodys
    what_is_no_cookie_does_no_harm
    every_value_the_session_ever_had_dies_with_it
    a_cookie_of_another_app_is_a_strangers
    visitors_leave_nothing_behind
}

/// Set by another page of the site's domain, for a deeper path or the parent domain: it comes before
/// or after the session's own.
fn a_tossed_cookie_beside_the_live_one_is_not_read(stack: Stack) {
    let (proxy, user, other) = (stack.proxy(""), stack.user(), stack.user());
    let name = stack.cookie();
    let own = stack.signed_in(&proxy, &user).cookie(name).unwrap();
    let theirs = stack.signed_in(&stack.proxy(""), &other).cookie(name).unwrap();
    let bare = theirs.split(".hc1.").next().unwrap();
    for tossed in ["tossed", bare, &theirs, "", "\"", "x sid=y"] {
        for line in [
            format!("{name}={tossed}; {name}={own}"),
            format!("{name}={own}; {name}={tossed}"),
            format!("{name}[x]={tossed}; {name}={own}; {name}[x]={tossed}"),
            format!("a=\"; {name}={own}; {name} ={tossed}; b=\""),
            format!("$Version=1; {name}=\"{tossed}\"; $Path=/; {name}={own}"),
        ] {
            let answer = stack.whoami_with(&proxy, &line);
            assert_eq!(
                (answer.status, answer.json()["user"].as_str()),
                (200, Some(&*user)),
                "{line}"
            );
        }
    }
    assert_eq!(proxy.live(&user), 1);
}

fn two_live_sessions_in_one_request_are_nobodys(stack: Stack) {
    let (proxy, name) = (stack.proxy(""), stack.cookie());
    let (alice, bob) = (stack.user(), stack.user());
    let mut first = stack.signed_in(&proxy, &alice);
    let mut second = stack.signed_in(&proxy, &bob);
    let (one, two) = (first.cookie(name).unwrap(), second.cookie(name).unwrap());
    for line in [format!("{name}={one}; {name}={two}"), format!("{name}={two}; {name}={one}")] {
        assert_eq!(stack.whoami_with(&proxy, &line).status, 400, "{line}");
    }
    assert_eq!(stack.whoami(&mut first), Some(alice));
    assert_eq!(stack.whoami(&mut second), Some(bob));
}

fn what_is_no_cookie_does_no_harm(stack: Stack) {
    let (proxy, name) = (stack.proxy(""), stack.cookie());
    // Not over what gunicorn takes.
    let long = "x".repeat(6 * 1024);
    let lines: [&[u8]; 14] = [
        name.as_bytes(),
        &[name.as_bytes(), b"="].concat(),
        b"=T",
        &[name.as_bytes(), b"==T"].concat(),
        &[name.as_bytes(), b"=", long.as_bytes()].concat(),
        &[name.as_bytes(), b"=\xff\xfe"].concat(),
        &[name.as_bytes(), b"=%ff%fe"].concat(),
        &[name.as_bytes(), b"=%00"].concat(),
        &[name.as_bytes(), b"=\""].concat(),
        &[name.as_bytes(), b"=../../etc/passwd"].concat(),
        &[name.as_bytes(), b"=.hc1."].concat(),
        &[b"\xc3\xa9=", name.as_bytes()].concat(),
        b";;;;  ;\t;=;==;",
        b"a=\"b\\",
    ];
    for line in lines {
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\nCookie: ",
            stack.whoami_path(),
            proxy.address
        );
        let answer = raw(proxy.address, &[head.as_bytes(), line, b"\r\n\r\n"].concat());
        let (shown, text) = (line.escape_ascii(), String::from_utf8_lossy(&answer));
        assert_eq!(raw::status(&answer), 200, "{shown}: {text}");
        assert!(text.replace(' ', "").contains("\"user\":null"), "{shown}: {text}");
    }
}

/// A session whose value the site changes again and again: none of its values outlives it.
fn every_value_the_session_ever_had_dies_with_it(stack: Stack) {
    let (proxy, user, name) = (stack.proxy(""), stack.user(), stack.cookie());
    let touch = match stack {
        Stack::Django => "/write",
        Stack::Flask | Stack::Express => "/touch",
        Stack::Php => "/touch.php",
    };
    let mut browser = stack.signed_in(&proxy, &user);
    let mut values = vec![browser.cookie(name).unwrap()];
    for _ in 0..3 {
        let answer = browser.fetch_json(touch);
        assert_eq!(answer.json()["user"], *user, "{}", answer.text());
        values.push(browser.cookie(name).unwrap());
    }
    let distinct: std::collections::BTreeSet<_> = values.iter().collect();
    assert!(distinct.len() > 1 || matches!(stack, Stack::Express | Stack::Django), "{values:?}");
    assert_eq!(proxy.live(&user), 1, "it is one session all the time");
    let mut second = stack.signed_in(&proxy, &user);
    for value in &values {
        let answer = stack.whoami_with(&proxy, &format!("{name}={value}"));
        assert_ne!(answer.json()["user"], *user, "{value}");
    }
    assert_eq!(stack.whoami(&mut second), Some(user));
}

fn a_cookie_of_another_app_is_a_strangers(stack: Stack) {
    let proxy = stack.proxy("app.name = \"one\"\nsession.untracked = \"refuse\"");
    let other = stack.proxy("app.name = \"two\"\nsession.untracked = \"refuse\"");
    let user = stack.user();
    let mut browser = stack.signed_in(&proxy, &user);
    let mut moved = browser.moved_to(other.address);
    assert_eq!(stack.whoami(&mut moved), None);
    stack.signed_in(&other, &user);
    assert_eq!(stack.whoami(&mut browser), Some(user.clone()), "a login there ends nothing here");
    assert_eq!((proxy.live(&user), other.live(&user)), (1, 1));
}

fn visitors_leave_nothing_behind(stack: Stack) {
    let proxy = stack.proxy("");
    let page = match stack {
        Stack::Django => "/cart",
        Stack::Flask | Stack::Express => "/touch",
        Stack::Php => "/index.php",
    };
    for _ in 0..30 {
        let mut visitor = proxy.browser();
        assert_eq!(visitor.get(page).status, 200);
        assert!(visitor.cookie(stack.cookie()).is_some(), "the site gives a cookie to anybody");
        assert_eq!(visitor.get(page).status, 200);
    }
    for state in ["live", "ended", "untracked"] {
        let listed =
            proxy.admin("GET", &format!("/api/v1/sessions?state={state}&limit=100")).json();
        assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(0), "{state}: {listed}");
    }
}

/// What reaches the app is shown to Python's own parsers, among them the one that Bottle and CherryPy
/// use, which ends cookies at blanks.
#[test]
fn pythons_own_parsers_find_no_ended_session_in_what_reaches_the_app() {
    let toml = r#"limit.max_sessions = 1
enforcement.app_logout = { method = "GET", path = "/bye" }
[[credential]]
at = "cookie:sid"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302], sets = "sid" }
user = ["form:user"]
"#;
    let issued = std::sync::atomic::AtomicUsize::new(0);
    let app = LegacyApp::start(move |request| {
        if request.target() != "/login" {
            return Reply::page("200 OK", &[], "page");
        }
        let at = issued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let line = format!("Set-Cookie: sid=tOken{at}x; Path=/");
        Reply::page("302 Found", &["Location: /", &line], "")
    });
    let proxy = Proxy::start(app.address, None, toml);
    let [first, second] = [proxy.browser(), proxy.browser()].map(|mut browser| {
        assert_eq!(browser.post("/login", &[("user", "alice")]).status, 302);
        browser.cookie("sid").unwrap()
    });
    assert_ne!(first, second);
    eventually("the first is over", || (proxy.live("alice") == 1).then_some(()));
    let before = app.arrived().len();
    for token in ["tOken0x", &first] {
        for line in spellings("sid", token) {
            let head = b"GET /page HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n";
            raw(proxy.address, &[&head[..], &line, b"\r\n\r\n"].concat());
        }
    }
    let arrived = app.arrived().split_off(before);
    let pages = arrived.iter().filter(|request| request.target() == "/page");
    let lines: Vec<String> =
        pages.flat_map(|request| request.headers("cookie")).map(str::to_owned).collect();
    assert!(lines.len() > 10, "other cookies go up: {lines:?}");

    let mut process = Command::new(top().join(".venv/bin/python"))
        .arg(top().join("tests/parsers/cookies.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run tests/setup");
    let hex =
        |line: &String| line.bytes().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let input: String = lines.iter().map(hex).collect();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.lines().count() == lines.len(), "{text}");
    let sid = "sid".bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let dead = "tOken0x".bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (line, read) in lines.iter().zip(text.lines()) {
        let read: serde_json::Value = serde_json::from_str(read).unwrap();
        for parser in ["python", "django", "werkzeug"] {
            let found = read[parser][&sid].as_str().unwrap_or_default();
            assert!(!found.contains(&dead), "{parser} reads the dead one in {line:?}");
        }
    }
}

/// A logout that the site refuses (no CSRF token) or does not know ends nothing.
#[test]
fn a_logout_the_site_refuses_ends_nothing() {
    for (stack, request, refused) in [
        (Stack::Django, Request::form("/accounts/logout/", &[]), 403),
        (Stack::Django, Request::get("/accounts/logout/"), 405),
        (Stack::Express, Request::get("/logout"), 404),
        (Stack::Flask, Request::form("/logout", &[]), 405),
    ] {
        let (proxy, user) = (stack.proxy(""), stack.user());
        let mut browser = stack.signed_in(&proxy, &user);
        assert_eq!(browser.send(&request).status, refused, "{stack:?} {request:?}");
        assert_eq!(stack.whoami(&mut browser), Some(user.clone()));
        assert_eq!(proxy.live(&user), 1);
    }
}
