//! A login is counted once, whole, and only when its answer reached somebody: whatever the client,
//! the app or the store do in the middle of it.

use std::io::Write as _;
use std::thread;

use super::{
    Gate, HTML, LOGIN, LOGIN_WITHOUT_COOKIE, Shop, Site, assert_serves, assert_told, configured,
    set, sign_in, signed_in_with,
};
use crate::support::eventually;
use crate::support::http::{Connection, Request};
use crate::support::legacy::{Arrived, LegacyApp, Reply};
use crate::support::proxy::Proxy;
use crate::support::{http, raw};

/// The user's name is in the form or in the JSON document.
const LOGIN_OF_ANY_KIND: &str = r#"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302], sets = "sid" }
user = ["form:user", "json:/user"]
"#;

/// A site whose login waits at the gate.
#[track_caller]
fn gated(keys: &str) -> (Site, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::scripted(&configured(keys, LOGIN), move |request, _| {
        if request.target().ends_with("?slow") {
            held.wait();
        }
        None
    });
    (site, gate)
}

fn login_at(target: &str, user: &str) -> Request {
    Request::form(target, &[("user", user)]).header("Host", "shop")
}

#[test]
fn a_client_that_leaves_before_the_answer_evicts_nobody_and_counts_for_nothing() {
    let (site, gate) = gated("");
    let mut first = site.signed_in("alice");
    let mut leaving = raw::connect(site.proxy.address);
    leaving.write_all(&login_at("/login?slow", "alice").bytes()).unwrap();
    site.wait_for("/login?slow");
    drop(leaving);
    gate.open();
    site.wait_for_logout_of("S2-alice");
    assert_serves(&mut first, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    site.proxy.has_events("session_created", "alice", 1);
    let ended = site.proxy.events("session_ended", "alice");
    assert!(ended.iter().all(|event| event["reason"] != "limit"), "{ended:?}");
}

#[test]
fn an_app_that_hangs_is_answered_504_and_counts_nothing() {
    let keys = "upstream.timeouts.first_byte = \"300ms\"";
    let site = Site::scripted(&configured(keys, LOGIN), |request, _| {
        (request.target() == "/login?hang").then_some(Reply::Hang)
    });
    let mut first = site.signed_in("alice");
    let answer = site.proxy.browser().post("/login?hang", &[("user", "alice")]);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(answer.header("set-cookie"), None);
    site.wait_for_refusal("upstream_timeout");
    assert_serves(&mut first, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    site.proxy.has_events("session_created", "alice", 1);
}

#[test]
fn an_app_that_fails_is_relayed_and_the_login_is_told_as_failed() {
    let site = Site::scripted(&configured("", LOGIN), |request, _| {
        let fails = request.target() == "/login?fail";
        fails.then(|| Reply::page("500 Oops", &[&set("half"), HTML], "out of luck"))
    });
    let mut first = site.signed_in("alice");
    let answer = site.proxy.browser().post("/login?fail", &[("user", "alice")]);
    assert_eq!((answer.status, answer.text()), (500, "out of luck".to_owned()));
    let event = site.proxy.wait_for_event("login_failed", "alice");
    assert_eq!(event["mode"], "enforced");
    assert_serves(&mut first, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    site.proxy.has_events("session_created", "alice", 1);
}

#[test]
fn an_app_that_closes_without_an_answer_is_answered_502_and_asked_once() {
    let site = Site::scripted(&configured("", LOGIN), |request, _| {
        (request.target() == "/login?close").then_some(Reply::Close)
    });
    let answer = site.proxy.browser().post("/login?close", &[("user", "alice")]);
    assert_eq!(answer.status, 502, "{}", answer.text());
    site.wait_for_refusal("upstream_invalid");
    assert_eq!(site.seen("/login?close").len(), 1, "what may have arrived is not sent again");
    assert_eq!(site.proxy.live("alice"), 0);
}

#[test]
fn a_login_in_chunks_of_one_byte_is_the_same_login() {
    let site = Site::start("");
    let mut first = site.signed_in("alice");
    let mut connection = Connection::open(site.proxy.address).unwrap();
    let head = b"POST /login HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\
        Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    connection.write(head).unwrap();
    for byte in b"user=alice" {
        connection.write(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']).unwrap();
    }
    connection.write(b"0\r\n\r\n").unwrap();
    let (answer, _) = connection.read_response("POST").unwrap();
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert!(answer.header("set-cookie").unwrap().starts_with("sid=S2-alice.hc1."));
    let seen = site.seen("/login").pop().unwrap();
    assert_eq!(seen.body, b"user=alice");
    assert_eq!(seen.header("content-length"), Some("10"));
    assert_told(&mut first, "limit");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn a_login_larger_than_the_limit_is_answered_413_and_the_app_sees_nothing() {
    let site = Site::start("server.limits.login_body = \"1KiB\"");
    let large = format!("user=alice&rest={}", "x".repeat(1024));
    let plain = login_at("/login", "").body(large.clone().into_bytes());
    let head = "POST /login HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\
        Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    let chunked = format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    for bytes in [plain.bytes(), chunked.into_bytes()] {
        assert_eq!(raw::status(&raw::raw(site.proxy.address, &bytes)), 413);
    }
    eventually("both are logged", || {
        (site.refusals() == ["body_too_large", "body_too_large"]).then_some(())
    });
    assert!(site.app.arrived().is_empty());
    assert_eq!(site.proxy.live("alice"), 0);
    site.signed_in("alice");
}

/// A body that two parsers could read differently.
fn of_type(content_type: &str, body: &str) -> Request {
    Request::new("POST", "/login")
        .header("Host", "shop")
        .header("Content-Type", content_type)
        .body(body.replace('\n', "\r\n").into_bytes())
}

#[test]
fn a_name_that_is_given_twice_is_answered_400_and_the_app_sees_nothing() {
    let site = Site::scripted(&configured("", LOGIN_OF_ANY_KIND), |_, _| None);
    let part = |name: &str, user: &str| {
        format!("--b\nContent-Disposition: form-data; name=\"{name}\"\n\n{user}\n")
    };
    let multipart = |parts: &[String]| format!("{}--b--\n", parts.concat());
    let form = "application/x-www-form-urlencoded";
    let table = [
        (form, "user=alice&user=bob".to_owned()),
        (form, "user=alice&user=alice".to_owned()),
        (form, "user=alice&%75ser=bob".to_owned()),
        (form, "us%65r=alice&user=bob".to_owned()),
        (form, "user=alice&user[]=bob".to_owned()),
        (form, "user[]=alice".to_owned()),
        (form, "user%5B0%5D=alice&user=bob".to_owned()),
        (form, "user=%ff".to_owned()),
        ("application/json", r#"{"user":"alice","user":"bob"}"#.to_owned()),
        ("application/json", r#"{"user":"alice","\u0075ser":"bob"}"#.to_owned()),
        ("application/json", r#"{"user":"alice"} {"user":"bob"}"#.to_owned()),
        ("application/json", r#"{"user":"alice""#.to_owned()),
        ("multipart/form-data; boundary=b", multipart(&[part("user", "a"), part("user", "b")])),
        ("multipart/form-data; boundary=b", multipart(&[part("user", "a"), part("user[]", "b")])),
        ("multipart/form-data; boundary=b; boundary=c", multipart(&[part("user", "a")])),
        ("multipart/form-data", multipart(&[part("user", "a")])),
    ];
    for (content_type, body) in &table {
        let answer = http::send(site.proxy.address, &of_type(content_type, body));
        assert_eq!(answer.status, 400, "{content_type}: {body}");
        assert!(!answer.text().contains("login_ambiguous"), "the reason is for the log");
    }
    let twice = of_type(form, "user=alice");
    let mut twice = String::from_utf8(twice.bytes()).unwrap();
    twice = twice.replace("Host: shop\r\n", "Host: shop\r\nContent-Type: text/plain\r\n");
    assert_eq!(raw::status(&raw::raw(site.proxy.address, twice.as_bytes())), 400);
    eventually("all are logged", || (site.refusals().len() == table.len() + 1).then_some(()));
    assert!(site.refusals().iter().all(|reason| reason == "login_ambiguous"));
    assert!(site.app.arrived().is_empty(), "the app sees nothing");
    assert!(site.proxy.sessions("alice", "all").is_empty());
}

#[test]
fn a_login_in_an_encoding_others_may_read_differently_is_answered_415() {
    let site = Site::scripted(&configured("", LOGIN_OF_ANY_KIND), |_, _| None);
    let form = "application/x-www-form-urlencoded";
    let table = [
        of_type(form, "user=alice").header("Content-Encoding", "gzip"),
        of_type(form, "user=alice").header("Content-Encoding", "br"),
        of_type(&format!("{form}; charset=utf-16"), "user=alice"),
        of_type(&format!("{form}; Charset=\"iso-8859-1\""), "user=alice"),
        of_type("application/json; charset=utf-16", r#"{"user":"alice"}"#),
    ];
    for request in &table {
        let answer = http::send(site.proxy.address, request);
        assert_eq!(answer.status, 415, "{:?}", request.headers);
    }
    eventually("all are logged", || (site.refusals().len() == table.len()).then_some(()));
    assert!(site.refusals().iter().all(|reason| reason == "encoding_unsupported"));
    assert!(site.app.arrived().is_empty(), "the app sees nothing");
}

#[test]
fn a_login_without_a_name_is_refused_and_undone_at_the_app() {
    let site = Site::start("");
    let mut browser = site.proxy.browser();
    for form in [&[("other", "x")][..], &[("user", "")], &[("user", "  ")]] {
        let answer = browser.post("/login", form);
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.is("text/html"));
        assert_eq!(browser.cookie("sid"), None);
    }
    for sid in ["S1-", "S2-", "S3-  "] {
        site.wait_for_logout_of(sid.trim_end());
    }
    site.wait_for_refusal("login_unattributed");
    let events = eventually("the events are out", || {
        let mut events = site.proxy.audit();
        events.retain(|event| event["event"] == "login_unattributed");
        (events.len() == 3).then_some(events)
    });
    assert!(events.iter().all(|event| event["user"].is_null()));
    let all = site.proxy.admin("GET", "/api/v1/sessions?state=live").json();
    assert_eq!(all["sessions"].as_array().map(Vec::len), Some(0), "{all}");
}

#[test]
fn a_login_by_json_or_multipart_is_counted() {
    let site = Site::scripted(&configured("", LOGIN_OF_ANY_KIND), |request, shop| {
        (request.target() == "/login").then(|| signed_in_with(&shop.issue("alice")))
    });
    let mut first = site.proxy.browser();
    let json = of_type("application/json", r#"{"user":"alice","password":"x"}"#);
    assert_eq!(first.send(&json).status, 302);
    assert_serves(&mut first, "alice");
    let parts = "--b\nContent-Disposition: form-data; name=\"user\"\n\nAlice\n--b--\n";
    let mut second = site.proxy.browser();
    let multipart = of_type("multipart/form-data; boundary=b", parts);
    assert_eq!(second.send(&multipart).status, 302);
    assert_serves(&mut second, "alice");
    assert_told(&mut first, "limit");
    assert_eq!(site.proxy.live("alice"), 1);
    let seen = site.seen("/login");
    assert_eq!(seen[0].body, br#"{"user":"alice","password":"x"}"#);
    assert_eq!(seen[1].body, parts.replace('\n', "\r\n").as_bytes());
}

// E01, E02
#[test]
fn odd_spellings_of_the_login_path_are_answered_400_and_the_app_sees_nothing() {
    let site = Site::start("");
    let spellings = [
        "//login",
        "/./login",
        "/x/../login",
        "/login/../login",
        "/x/..;/login",
        "/;a/login",
        "/%6cogin",
        "/%6Cogin",
        "/%2e/login",
        "/x/%2e%2e/login",
        "/x%2f..%2flogin",
        "/%2flogin",
        "/%5clogin",
        "/x\\..\\login",
        "/%256cogin",
        "/login%00",
        "/login%3Bx",
    ];
    for spelling in spellings {
        let answer = raw::raw(site.proxy.address, &login_at(spelling, "alice").bytes());
        assert_eq!(raw::status(&answer), 400, "{spelling}");
    }
    assert!(site.app.arrived().is_empty(), "the app sees nothing");
    site.wait_for_refusal("path_spelling");
    let answer = http::send(site.proxy.address, &login_at("/login;x=1", "alice"));
    assert_eq!(answer.status, 302, "a path parameter changes nothing");
}

/// An app that signs in whatever cookie it is sent, or gives one if there is none.
fn keeps_its_cookie(request: &Arrived, shop: &Shop) -> Option<Reply> {
    if request.target() != "/login" || request.method() != "POST" {
        return None;
    }
    let user = request.field("user").unwrap_or_default();
    let Some(sid) = request.cookie("sid") else {
        return Some(signed_in_with(&shop.issue(&user)));
    };
    shop.users.lock().insert(sid.into(), user);
    Some(Reply::page("302 Found", &["Location: /"], ""))
}

#[test]
fn a_cookie_the_app_does_not_rotate_is_issued_again_and_the_planted_one_is_dead() {
    let site = Site::scripted(&configured("", LOGIN_WITHOUT_COOKIE), keeps_its_cookie);
    let mut attacker = site.proxy.browser();
    attacker.get("/visit");
    let planted = attacker.cookie("sid").unwrap();
    let mut victim = site.proxy.browser();
    victim.set_cookie("sid", &planted);
    let answer = sign_in(&mut victim, "alice");
    let line = answer.header("set-cookie").unwrap();
    assert!(line.starts_with("sid=S1-nobody.hc1."), "the app's value stays: {line}");
    assert!(line.ends_with("; Path=/; HttpOnly"), "with the attributes it had: {line}");
    assert_ne!(victim.cookie("sid").unwrap(), planted);
    assert_serves(&mut victim, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    assert_serves(&mut attacker, "nobody");
    let bare = Request::get("/").header("Host", "shop").header("Cookie", "sid=S1-nobody");
    assert_eq!(http::send(site.proxy.address, &bare).text(), "nobody", "nor is its bare value");
    assert_serves(&mut victim, "alice");
}

/// An app that answers any login over a session with its success redirect, whatever name it gives.
fn answers_anything(request: &Arrived, _: &Shop) -> Option<Reply> {
    let over = request.target() == "/login" && request.cookie("sid").is_some();
    over.then(|| Reply::page("302 Found", &["Location: /"], ""))
}

#[test]
fn a_login_answer_that_sets_nothing_over_a_session_is_ignored() {
    let site = Site::scripted(&configured("", LOGIN_WITHOUT_COOKIE), answers_anything);
    let mut alice = site.signed_in("alice");
    let mut bob = site.signed_in("bob");
    let before = alice.cookie("sid");
    let answer = alice.post("/login", &[("user", "bob"), ("password", "wrong")]);
    assert_eq!((answer.status, answer.header("set-cookie")), (302, None));
    assert_eq!(alice.cookie("sid"), before);
    assert_serves(&mut alice, "alice");
    assert_serves(&mut bob, "bob");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("bob")), (1, 1));
    site.proxy.has_events("session_created", "bob", 1);
}

#[test]
fn a_login_answer_that_sets_nothing_over_a_session_counts_where_the_rule_says_in_place() {
    let rule = format!("{LOGIN_WITHOUT_COOKIE}in_place = true\n");
    let site = Site::scripted(&configured("", &rule), keeps_its_cookie);
    let mut browser = site.signed_in("alice");
    let before = browser.cookie("sid").unwrap();
    sign_in(&mut browser, "bob");
    assert_ne!(browser.cookie("sid").unwrap(), before, "under a new stamp");
    assert_serves(&mut browser, "bob");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("bob")), (0, 1));
    assert_eq!(site.proxy.wait_for_event("session_ended", "alice")["reason"], "replaced");
}

#[test]
fn a_request_with_the_cookie_before_a_login_again_counts_as_the_session_for_a_while() {
    let site = Site::start("");
    let mut browser = site.signed_in("alice");
    let mut late = browser.moved_to(site.proxy.address);
    sign_in(&mut browser, "alice");
    let answer = late.get("/");
    assert_eq!((answer.status, answer.text()), (200, "alice".to_owned()));
    assert_eq!(answer.header("set-cookie"), None, "it would sign out the browser");
    assert_serves(&mut browser, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn after_that_while_it_is_anonymous_and_nothing_expires() {
    let site = Site::start("session.rotation_grace = \"300ms\"");
    let mut browser = site.signed_in("alice");
    let mut late = browser.moved_to(site.proxy.address);
    sign_in(&mut browser, "alice");
    eventually("the old cookie is anonymous", || {
        let answer = late.get("/");
        assert_eq!((answer.status, answer.header("set-cookie")), (200, None));
        (answer.text() == "nobody").then_some(())
    });
    assert_serves(&mut browser, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn a_request_in_flight_while_its_browser_signs_in_again_takes_no_cookie_away() {
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::scripted(&configured("", LOGIN), move |request, _| {
        if request.target() != "/slow" {
            return None;
        }
        held.wait();
        let lines = ["Set-Cookie: sid=late; Path=/", "Set-Cookie: theme=dark; Path=/"];
        Some(Reply::page("200 OK", &lines, "done"))
    });
    let mut browser = site.signed_in("alice");
    let mut late = browser.moved_to(site.proxy.address);
    let slow = thread::spawn(move || late.get("/slow"));
    site.wait_for("/slow");
    sign_in(&mut browser, "alice");
    gate.open();
    let answer = slow.join().unwrap();
    let lines: Vec<&str> = answer.all("set-cookie").collect();
    assert_eq!((answer.status, &*lines), (200, &["theme=dark; Path=/"][..]));
    assert_serves(&mut browser, "alice");
}

#[test]
fn a_late_cookie_of_an_ended_session_is_taken_off_the_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::scripted(&configured("", LOGIN), move |request, shop| {
        if request.target() != "/slow" {
            return None;
        }
        held.wait();
        let lines = [&*set(&shop.issue("alice")), "Set-Cookie: theme=dark; Path=/"];
        Some(Reply::page("200 OK", &lines, ""))
    });
    let mut first = site.signed_in("alice");
    let mut late = first.moved_to(site.proxy.address);
    let slow = thread::spawn(move || late.get("/slow"));
    site.wait_for("/slow");
    let mut second = site.signed_in("alice");
    gate.open();
    let answer = slow.join().unwrap();
    assert_eq!(answer.status, 200);
    let lines: Vec<&str> = answer.all("set-cookie").collect();
    assert_eq!(lines, ["theme=dark; Path=/"]);
    assert_told(&mut first, "limit");
    assert_serves(&mut second, "alice");
}

#[test]
fn a_login_in_flight_when_the_proxy_is_told_to_stop_is_completed() {
    let (site, gate) = gated("");
    let mut browser = site.proxy.browser();
    let signing_in = thread::spawn(move || {
        let answer = browser.post("/login?slow", &[("user", "alice")]);
        (browser, answer)
    });
    site.wait_for("/login?slow");
    let Site { app, mut proxy } = site;
    let address = proxy.address;
    let opener = thread::spawn(move || {
        eventually("the proxy takes no new connections", || {
            std::net::TcpStream::connect(address).is_err().then_some(())
        });
        gate.open();
    });
    assert!(proxy.terminate().success());
    opener.join().unwrap();
    let (mut browser, answer) = signing_in.join().unwrap();
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert!(browser.cookie("sid").is_some());
    proxy.start_again();
    assert_serves(&mut browser, "alice");
    assert_eq!(proxy.live("alice"), 1);
    drop(app);
}

#[test]
fn a_login_the_store_cannot_record_is_withheld_and_everybody_else_goes_on() {
    let shop = Shop::default();
    let app = LegacyApp::start(move |request| shop.answer(request));
    let proxy = Proxy::start_on_small_disk(app.address, &configured("", LOGIN), 512);
    let mut site = Site { app, proxy };
    let mut first = site.signed_in("alice");
    let mut at = 0;
    eventually("the disk is full", || {
        at += 1;
        let answer = site.proxy.browser().post("/login", &[("user", &format!("user{at}"))]);
        assert!(matches!(answer.status, 302 | 503), "{}", answer.text());
        (answer.status == 503).then_some(())
    });

    let mut second = site.proxy.browser();
    let answer = second.post("/login", &[("user", "alice")]);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!((answer.header("set-cookie"), answer.header("location")), (None, None));
    assert!(answer.is("text/html") && answer.header("retry-after").is_some());
    assert!(!answer.text().contains("store"), "{}", answer.text());
    site.wait_for_refusal("store_failed");
    let fresh = format!("S{}-alice", at + 2);
    site.wait_for_logout_of(&fresh);
    let forged = Request::get("/forged").header("Host", "shop");
    http::send(site.proxy.address, &forged.header("Cookie", &format!("sid={fresh}")));
    assert_eq!(site.seen("/forged")[0].header("cookie"), None, "its bare value is no way in");
    assert_serves(&mut first, "alice");
    site.proxy.has_events("session_created", "alice", 1);

    site.proxy.restart();
    assert_serves(&mut first, "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    sign_in(&mut second, "alice");
    assert_told(&mut first, "limit");
}
