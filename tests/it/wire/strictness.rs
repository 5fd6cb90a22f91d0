//! Which hosts, methods and versions are served at all, and what passes only where the operator says
//! that it may.

use serde_json::Value;

use super::{HTML, LOGIN, Site, configured, set};
use crate::support::http::{self, Request, Response};
use crate::support::legacy::Reply;
use crate::support::{eventually, raw};

fn ask(site: &Site, request: &str) -> (u16, String) {
    let answer = raw::raw(site.proxy.address, request.as_bytes());
    (raw::status(&answer), String::from_utf8_lossy(&answer).into_owned())
}

fn get(site: &Site, host: &str) -> u16 {
    ask(site, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).0
}

#[test]
fn a_host_that_is_not_served_is_answered_421() {
    let keys = "server.hosts = [\"shop.test\", \"*.shop.test\", \"127.0.0.1\"]\n\
                server.trusted_proxies = [\"unix\"]";
    let site = Site::start(keys);
    for served in ["shop.test", "SHOP.test:8080", "www.shop.test", "shop.test.", "127.0.0.1:80"] {
        assert_eq!(get(&site, served), 200, "{served}");
    }
    let seen = site.seen("/").len();
    for other in ["evil.test", "shop.test.evil.test", "xshop.test", "10.0.0.1", "localhost"] {
        assert_eq!(get(&site, other), 421, "{other}");
    }
    // Nobody but a trusted proxy speaks for another host.
    let forged = "GET / HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: shop.test\r\n\r\n";
    assert_eq!(ask(&site, forged).0, 421);
    assert_eq!(ask(&site, "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n").0, 421);
    assert_eq!(ask(&site, "GET / HTTP/1.0\r\n\r\n").0, 421, "without Host");
    assert_eq!(site.seen("/").len(), seen);
    site.wait_for_refusal("host_unknown");
}

#[test]
fn only_listed_methods_are_let_through() {
    let site = Site::start("server.methods = [\"GET\", \"POST\", \"PROPFIND\"]");
    let send = |method: &str| -> Response {
        http::send(site.proxy.address, &Request::new(method, "/dav").header("Host", "shop"))
    };
    for method in ["GET", "POST", "PROPFIND"] {
        assert_eq!(send(method).status, 200, "{method}");
    }
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS", "MKCOL", "G!T", "Get"] {
        let answer = send(method);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST, PROPFIND")));
    }
    assert_eq!(site.seen("/dav").len(), 3);
    let any = Site::start("");
    for method in ["PROPFIND", "M-SEARCH", "G!T", "A0.B_C", &"X".repeat(64)] {
        let request = Request::new(method, "/dav").header("Host", "shop");
        assert_eq!(http::send(any.proxy.address, &request).status, 200, "{method}");
        assert_eq!(any.seen("/dav").pop().unwrap().method(), method);
    }
}

#[test]
fn a_login_in_small_letters_is_none_and_does_not_reach_the_app() {
    // As many an app has it.
    let site = Site::scripted(&configured("", LOGIN), |request, shop| {
        let login = request.target() == "/login" && request.method().to_uppercase() == "POST";
        login.then(|| {
            let sid = shop.issue(&request.field("user").unwrap_or_default());
            Reply::page("302 Found", &["Location: /", &set(&sid)], "")
        })
    });
    for method in ["post", "Post", "pOST"] {
        let mut login = Request::form("/login", &[("user", "alice")]).header("Host", "shop");
        login.method = method.to_owned();
        assert_eq!(http::send(site.proxy.address, &login).status, 405, "{method}");
    }
    assert!(site.seen("/login").is_empty());
    site.signed_in("alice");
}

#[test]
fn other_versions_of_http_are_answered_505() {
    let site = Site::start("");
    for line in [
        "GET / HTTP/9.9",
        "GET / HTTP/2.0",
        "GET / HTTP/2",
        "GET / HTTP/1.2",
        "GET / HTTP/0.9",
        "PRI * HTTP/2.0",
    ] {
        let (status, answer) = ask(&site, &format!("{line}\r\nHost: shop\r\n\r\n"));
        assert_eq!(status, 505, "{line}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    for line in ["GET / HTTP/1.10", "GET / http/1.1", "GET / HTTP/x.1", "GET / HTTP/1", "GET /"] {
        assert_eq!(ask(&site, &format!("{line}\r\nHost: shop\r\n\r\n")).0, 400, "{line}");
    }
    assert!(site.app.arrived().is_empty());
    site.wait_for_refusal("version_unsupported");
}

/// The keys that were warned of.
fn warned(site: &Site) -> Vec<String> {
    let lines = site.proxy.log();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let keys = lines.filter(|line| line["message"].to_string().contains("unsafe key"));
    keys.filter_map(|line| line["key"].as_str().map(str::to_owned)).collect()
}

/// What an app answers to `/odd`, with and without the key for it.
fn answers(key: &str, head: &str, body: &str) -> (u16, Response) {
    let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes();
    let ask = |keys: &str| {
        let answer = answer.clone();
        let site = Site::scripted(&configured(keys, LOGIN), move |request, _| {
            (request.target() == "/odd").then(|| Reply::Last(answer.clone()))
        });
        let got = http::send(site.proxy.address, &Request::get("/odd").header("Host", "shop"));
        (site, got)
    };
    let (off, refused) = ask("");
    off.wait_for_refusal("upstream_invalid");
    assert!(warned(&off).is_empty());
    let (on, passed) = ask(&format!("{key} = true"));
    eventually("the warning", || (warned(&on) == [key]).then_some(()));
    (refused.status, passed)
}

#[test]
fn answers_of_old_apps_pass_where_they_may() {
    let (refused, passed) =
        answers("upstream.unsafe_folded_headers", "X-Long: one\r\n two\r\nContent-Length: 2", "ok");
    assert_eq!((refused, passed.status, &*passed.text()), (502, 200, "ok"));
    let folded = passed.header("x-long").unwrap();
    assert_eq!(folded.split_whitespace().collect::<Vec<_>>(), ["one", "two"], "{folded:?}");

    let head = "X-Spaced : yes\r\nContent-Length: 2";
    let (refused, passed) = answers("upstream.unsafe_spaced_headers", head, "ok");
    assert_eq!((refused, passed.status, passed.header("x-spaced")), (502, 200, Some("yes")));

    let head = "Content-Length: 9\r\nTransfer-Encoding: chunked";
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    let (refused, passed) = answers("upstream.unsafe_length_beside_chunks", head, chunks);
    assert_eq!((refused, passed.status, &*passed.text()), (502, 200, "ok"));
    assert!(passed.header("content-length").is_none_or(|length| length == "2"), "{passed:?}");
}

#[test]
fn requests_of_old_clients_pass_where_they_may() {
    let site = Site::start("server.unsafe_non_ascii_targets = true");
    let target = "/caf\u{e9}?q=\u{fc}";
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(&site, &request).0, 200);
    assert_eq!(site.seen(target).len(), 1, "{:?}", site.app.arrived());
    // A watched path in such letters is none.
    assert_eq!(warned(&site), ["server.unsafe_non_ascii_targets"]);
    assert_eq!(ask(&Site::start(""), &request).0, 400);

    let bare = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    let site = Site::start("server.unsafe_missing_host = true");
    assert_eq!(ask(&site, bare).0, 200);
    let seen = site.seen("/").pop().unwrap();
    assert_eq!(seen.header("host"), Some(&*site.app.address.to_string()));
    for (lines, status) in [("Host:\r\n", 400), ("Host: a\r\nHost: a\r\n", 400)] {
        assert_eq!(ask(&site, &format!("GET / HTTP/1.1\r\n{lines}\r\n")).0, status, "{lines}");
    }
    assert_eq!(ask(&site, "GET http://evil/ HTTP/1.1\r\n\r\n").0, 400);
    let served = Site::start("server.unsafe_missing_host = true\nserver.hosts = \"shop\"");
    assert_eq!(ask(&served, bare).0, 421);
}

#[test]
fn so_many_interim_answers_are_borne_as_the_operator_says() {
    for (keys, count, status) in [
        ("upstream.interim_answers = 0", 1, 502),
        ("upstream.interim_answers = 20", 20, 200),
        ("upstream.interim_answers = 20", 21, 502),
    ] {
        let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(count);
        let site = Site::scripted(&configured(keys, LOGIN), move |request, _| {
            let last = format!("{interim}HTTP/1.1 200 OK\r\n{HTML}\r\nContent-Length: 2\r\n\r\nok");
            (request.target() == "/odd").then(|| Reply::Bytes(last.into_bytes()))
        });
        let request = Request::get("/odd").header("Host", "shop");
        assert_eq!(http::send(site.proxy.address, &request).status, status, "{keys} {count}");
    }
}
