//! What is not quite HTTP gets a neutral answer and never reaches the app; what is HTTP reaches it
//! as it came.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use super::{Gate, HTML, LOGIN, Site, configured, refusals};
use crate::support::http::{Connection, Request};
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::proxy::Proxy;
use crate::support::{eventually, http, raw};

/// A request as a page load sends it; `extra` are whole header lines.
fn head(line: &str, extra: &str) -> Vec<u8> {
    format!("{line}\r\nHost: shop\r\nAccept: text/html\r\n{extra}\r\n").into_bytes()
}

fn get(extra: &str) -> Vec<u8> {
    head("GET / HTTP/1.1", extra)
}

fn post(extra: &str, body: &str) -> Vec<u8> {
    [head("POST / HTTP/1.1", extra), body.into()].concat()
}

/// Without the headers that others add.
fn bare(lines: &str) -> Vec<u8> {
    format!("{}\r\nAccept: text/html\r\n\r\n", lines.replace('\n', "\r\n")).into_bytes()
}

/// Sends what the proxy refuses: the answer is neutral, the reason is in the log alone, the app
/// sees nothing, and the next client is served.
#[track_caller]
fn assert_refused(site: &Site, bytes: &[u8], status: u16, reason: &str) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let (logged, arrived) = (site.refusals().len(), site.app.arrived().len());
    let answer = raw::raw(site.proxy.address, bytes);
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(raw::status(&answer), status, "{shown:?}: {text}");
    let (answer_head, body) = text.split_once("\r\n\r\n").unwrap();
    let answer_head = answer_head.to_ascii_lowercase();
    assert!(answer_head.contains("content-type: text/html"), "{shown:?}: {text}");
    assert!(answer_head.contains("connection: close"), "{shown:?}: {text}");
    assert!(answer_head.contains("cache-control: no-store"), "{shown:?}: {text}");
    assert!(body.to_ascii_lowercase().contains("<!doctype html>"), "{shown:?}: {text}");
    for internal in [reason, "hyper", "panicked", "127.0.0.1", ".rs"] {
        assert!(!text.contains(internal), "{shown:?} tells {internal}: {text}");
    }
    let told = eventually(&format!("{shown:?} is logged"), || site.refusals().get(logged).cloned());
    assert_eq!(told, reason, "{shown:?}");
    assert_eq!(site.app.arrived().len(), arrived, "{shown:?} reached the app");
    let next = http::send(site.proxy.address, &Request::get("/").header("Host", "shop"));
    assert_eq!(next.status, 200, "after {shown:?}");
    assert_eq!(site.refusals().len(), logged + 1, "{shown:?} is logged once");
}

#[test]
fn what_is_no_http_is_answered_400() {
    let site = Site::start("");
    let table: &[&[u8]] = &[
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n",
        b"complete nonsense\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : shop\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop\r\nX: folded\r\n line\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop\r\nX: nul\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop\r\nX\x01: control\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: shop\r\n\r\n",
        b"G\xc3\x84T / HTTP/1.1\r\nHost: shop\r\n\r\n",
    ];
    for bytes in table {
        assert_refused(&site, bytes, 400, "malformed_head");
    }
}

#[test]
fn a_host_that_two_servers_could_read_differently_is_answered_400() {
    let site = Site::start("");
    let table = [
        ("GET / HTTP/1.1", "host_missing"),
        ("GET / HTTP/1.1\nHost:", "host_missing"),
        ("GET / HTTP/1.1\nHost: shop\nHost: shop", "host_duplicate"),
        ("GET / HTTP/1.1\nHost: shop\nhost: evil", "host_duplicate"),
        ("GET / HTTP/1.1\nHost: shop, evil", "host_invalid"),
        ("GET / HTTP/1.1\nHost: shop/x", "host_invalid"),
        ("GET / HTTP/1.1\nHost: user@shop", "host_invalid"),
        ("GET / HTTP/1.1\nHost: shop:0", "host_invalid"),
        ("GET / HTTP/1.1\nHost: shop:99999", "host_invalid"),
        ("GET / HTTP/1.1\nHost: shop:80:80", "host_invalid"),
        ("GET / HTTP/1.1\nHost: [::1", "host_invalid"),
        ("GET / HTTP/1.1\nHost: sh%6fp", "host_invalid"),
        ("GET http://evil/ HTTP/1.1\nHost: shop", "authority_mismatch"),
        ("GET http://shop:81/ HTTP/1.1\nHost: shop", "authority_mismatch"),
        ("GET http://user@shop/ HTTP/1.1\nHost: shop", "target_invalid"),
        ("GET ftp://shop/ HTTP/1.1\nHost: shop", "target_invalid"),
        ("GET shop:80 HTTP/1.1\nHost: shop", "target_invalid"),
        ("GET * HTTP/1.1\nHost: shop", "target_invalid"),
        ("CONNECT shop:80 HTTP/1.1\nHost: shop:80", "method_refused"),
        ("TRACE / HTTP/1.1\nHost: shop", "method_refused"),
    ];
    for (lines, reason) in table {
        let status = if reason == "method_refused" { 405 } else { 400 };
        assert_refused(&site, &bare(lines), status, reason);
    }
    // What is not ASCII is no target.
    assert_refused(&site, &head("GET /caf\u{e9} HTTP/1.1", ""), 400, "target_invalid");
}

#[test]
fn a_body_whose_end_two_servers_could_see_differently_is_answered_400() {
    let site = Site::start("");
    let chunks = "0\r\n\r\n";
    let table = [
        ("Transfer-Encoding: chunked\r\nTrailer: X\r\n", chunks, "request_trailers"),
        ("Transfer-Encoding: gzip, chunked\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: chunked, chunked\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: xchunked\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: chunked, identity\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: identity\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: \"chunked\"\r\n", chunks, "framing_invalid"),
        ("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", chunks, "framing_invalid"),
        ("Content_Length: 3\r\n", "", "framing_invalid"),
        ("Content_Type: text/plain\r\nContent-Length: 1\r\n", "a", "framing_invalid"),
        ("Content_Encoding: gzip\r\nContent-Length: 1\r\n", "a", "framing_invalid"),
        ("Keep_Alive: 5\r\n", "", "framing_invalid"),
        ("Content-Length: 003\r\n", "abc", "framing_invalid"),
        ("Content-Length: +3\r\n", "abc", "framing_invalid"),
        ("Content-Length: -3\r\n", "abc", "framing_invalid"),
        ("Content-Length: 3, 3\r\n", "abc", "framing_invalid"),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd", "framing_invalid"),
        ("Content-Length: 99999999999999999999\r\n", "", "framing_invalid"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks, "framing_invalid"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", chunks, "framing_invalid"),
    ];
    for (lines, body, reason) in table {
        assert_refused(&site, &post(lines, body), 400, reason);
    }
    let old = head("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n");
    assert_refused(&site, &[old, chunks.into()].concat(), 400, "malformed_head");
}

/// What would be a request behind what is refused.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n";

#[test]
fn a_length_beside_an_encoding_is_refused_and_nothing_after_it_is_a_request() {
    let site = Site::start("");
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for lines in [[length, chunked], [chunked, length]] {
        let body = format!("3\r\nabc\r\n0\r\n\r\n{HIDDEN}");
        assert_refused(&site, &post(&lines.concat(), &body), 400, "framing_invalid");
    }
    assert!(site.seen("/smuggled").is_empty());
}

#[test]
fn line_ends_of_another_kind_and_fragments_are_refused() {
    let site = Site::start("");
    let table: &[(&[u8], &str)] = &[
        (b"GET / HTTP/1.1\nHost: shop\nAccept: text/html\n\n", "malformed_head"),
        (b"GET / HTTP/1.1\r\nHost: shop\nAccept: text/html\r\n\r\n", "malformed_head"),
        (b"GET / HTTP/1.1\r\nHost: shop\r\nAccept: text/html\r\n\n", "malformed_head"),
        (b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: shop\r\n\r\n", "malformed_head"),
        (b"GET /a#b HTTP/1.1\r\nHost: shop\r\n\r\n", "target_invalid"),
        (b"GET http://shop#@evil/ HTTP/1.1\r\nHost: shop\r\n\r\n", "target_invalid"),
    ];
    for (bytes, reason) in table {
        assert_refused(&site, bytes, 400, reason);
    }
}

#[test]
fn what_is_wrong_behind_a_request_is_refused_after_its_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::scripted(&configured("", LOGIN), move |request, _| {
        (request.target() == "/slow").then(|| {
            held.wait();
            Reply::page("200 OK", &[HTML], "slow")
        })
    });
    let wrong = b"GET /wrong HTTP/1.1\nHost: shop\n\n".to_vec();
    let hidden = HIDDEN.as_bytes().to_vec();
    let bytes =
        [head("GET /slow HTTP/1.1", ""), post("Content-Length: 3\r\n", "abc"), wrong, hidden];
    let mut socket = raw::connect(site.proxy.address);
    socket.write_all(&bytes.concat()).unwrap();
    site.wait_for("/slow");
    assert!(site.refusals().is_empty(), "{:?}", site.refusals());
    gate.open();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).unwrap();
    let statuses: Vec<&str> =
        answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answers}");
    site.wait_for_refusal("malformed_head");
    let targets: Vec<_> = site.app.arrived().iter().map(|seen| seen.target().to_owned()).collect();
    assert_eq!(targets, ["/slow", "/"]);
}

#[test]
fn headers_that_would_change_what_was_judged_are_refused() {
    let site = Site::start("");
    for named in ["cookie", "close, Cookie", "host", "x-forwarded-for", "Content-Length"] {
        let bytes = get(&format!("Connection: {named}\r\n"));
        assert_refused(&site, &bytes, 400, "connection_header");
    }
    let expects = post("Expect: y\r\nContent-Length: 1\r\n", "a");
    assert_refused(&site, &expects, 417, "expectation_unknown");
}

#[test]
fn what_is_too_large_is_answered_by_its_kind() {
    let site = Site::start("");
    let large = "x".repeat(70 * 1024);
    assert_refused(&site, &get(&format!("X-Large: {large}\r\n")), 431, "head_too_large");
    let many: String = (0..101).map(|at| format!("X-{at}: 1\r\n")).collect();
    assert_refused(&site, &get(&many), 431, "head_too_large");
    let cookies: Vec<String> = (0..101).map(|at| format!("c{at}=1")).collect();
    let line = format!("Cookie: {}\r\n", cookies.join("; "));
    assert_refused(&site, &get(&line), 431, "head_too_large");
    let line = format!("Cookie: c={}\r\n", "x".repeat(17 * 1024));
    assert_refused(&site, &get(&line), 431, "head_too_large");
    let line = format!("GET /{} HTTP/1.1", "x".repeat(17 * 1024));
    assert_refused(&site, &head(&line, ""), 414, "target_too_long");
    let line = format!("GET /?{} HTTP/1.1", "x".repeat(17 * 1024));
    assert_refused(&site, &head(&line, ""), 414, "target_too_long");
}

#[test]
fn a_body_over_its_limit_is_answered_413() {
    let site = Site::start("server.limits.body = \"1KiB\"");
    let body = "x".repeat(1025);
    let stated = post("Content-Length: 1025\r\n", &body);
    assert_refused(&site, &stated, 413, "body_too_large");
    let chunked = format!("401\r\n{body}\r\n0\r\n\r\n");
    let chunked = post("Transfer-Encoding: chunked\r\n", &chunked);
    assert_refused(&site, &chunked, 413, "body_too_large");
    let fits = Request::new("POST", "/").header("Host", "shop").body(vec![b'x'; 1024]);
    assert_eq!(http::send(site.proxy.address, &fits).status, 200);
}

#[test]
fn a_body_that_breaks_off_or_is_no_body_is_answered_400() {
    let site = Site::start("");
    // What is said beside the sizes goes no further, so nobody needs much of it.
    let (long, often) = ("x".repeat(64 << 10), format!("1;a={}\r\nb\r\n", "x".repeat(100)));
    let extended = [format!("3;{long}\r\nabc\r\n0\r\n\r\n"), often.repeat(1000)];
    let wrong = ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "ffffffffffffffff1\r\n"];
    for chunks in wrong.into_iter().chain(extended.iter().map(String::as_str)) {
        let bytes = post("Transfer-Encoding: chunked\r\n", chunks);
        assert_refused(&site, &bytes, 400, "body_invalid");
        let login = head("POST /login HTTP/1.1", "Transfer-Encoding: chunked\r\n");
        assert_refused(&site, &[login, chunks.into()].concat(), 400, "body_invalid");
    }
}

#[test]
fn a_client_that_dawdles_is_answered_408() {
    let site = Site::start(
        "server.limits.head_timeout = \"300ms\"\nserver.limits.body_idle_timeout = \"300ms\"",
    );
    assert_refused(&site, b"GET / HTTP/1.1\r\nHost: shop\r\n", 408, "head_timeout");
    assert_refused(&site, &post("Content-Length: 10\r\n", "abc"), 408, "body_timeout");
    assert_refused(
        &site,
        &post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"),
        408,
        "body_timeout",
    );
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n";
    let login = [head("POST /login HTTP/1.1", form), b"user=a".to_vec()].concat();
    assert_refused(&site, &login, 408, "body_timeout");
}

#[test]
fn a_connection_on_which_nothing_comes_is_closed_without_a_word() {
    let site = Site::start("server.limits.first_byte_timeout = \"300ms\"");
    assert_eq!(raw::raw(site.proxy.address, b""), b"");
    assert!(site.refusals().is_empty());
}

#[test]
fn an_app_that_is_down_is_answered_502() {
    // Bound, so that nobody else gets the port, but nobody listens.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let closed = held.local_addr().unwrap();
    let proxy = Proxy::start(closed, None, &configured("", LOGIN));
    let answer = proxy.browser().get("/");
    assert_eq!(answer.status, 502);
    assert!(answer.is("text/html") && !answer.text().contains("upstream_unreachable"));
    let answer = proxy.browser().post("/login", &[("user", "alice")]);
    assert_eq!(answer.status, 502);
    eventually("both are logged", || {
        (refusals(&proxy) == ["upstream_unreachable", "upstream_unreachable"]).then_some(())
    });
    assert_eq!(proxy.live("alice"), 0);
}

#[test]
fn an_app_that_is_slow_is_answered_504_and_one_that_talks_nonsense_502() {
    let keys = "upstream.timeouts.first_byte = \"300ms\"";
    let large = format!("X-Large: {}", "x".repeat(300 * 1024));
    let site = Site::scripted(&configured(keys, LOGIN), move |request, _| match request.target() {
        "/slow" => Some(Reply::Hang),
        "/close" => Some(Reply::Close),
        "/nonsense" => Some(Reply::Last(b"220 ready for mail\r\n\r\n".to_vec())),
        "/large" => Some(Reply::page("200 OK", &[&large], "")),
        "/twice" => Some(Reply::page("200 OK", &["Content-Length: 5"], "")),
        _ => None,
    });
    let table = [
        ("/slow", 504, "upstream_timeout"),
        ("/close", 502, "upstream_invalid"),
        ("/nonsense", 502, "upstream_invalid"),
        ("/large", 502, "upstream_invalid"),
        ("/twice", 502, "upstream_invalid"),
    ];
    for (target, status, reason) in table {
        let logged = site.refusals().len();
        let answer = site.proxy.browser().get(target);
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert!(answer.is("text/html") && !answer.text().contains(reason));
        let told = eventually(target, || site.refusals().get(logged).cloned());
        assert_eq!(told, reason, "{target}");
        assert_eq!(site.seen(target).len(), 1, "{target} is asked once");
        assert_eq!(site.proxy.browser().get("/").status, 200, "after {target}");
    }
}

#[test]
fn old_and_rare_kinds_of_requests_work() {
    let site = Site::start("");
    let address = site.proxy.address;
    let old = raw::raw(address, b"GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(raw::status(&old), 200);
    assert!(old.ends_with(b"nobody"));
    let host = format!("Host: {}", site.app.address);
    assert!(site.seen("/old")[0].head.to_ascii_lowercase().contains(&host.to_ascii_lowercase()));

    let absolute =
        raw::raw(address, &head("GET http://shop/abs?q HTTP/1.1", "Connection: close\r\n"));
    assert_eq!((raw::status(&absolute), site.seen("/abs?q").len()), (200, 1));

    let answer = raw::raw(address, &head("HEAD /head HTTP/1.1", "Connection: close\r\n"));
    assert_eq!(raw::status(&answer), 200);
    let text = String::from_utf8(answer).unwrap();
    assert!(text.contains("content-length: 6\r\n") || text.contains("Content-Length: 6\r\n"));
    assert!(text.ends_with("\r\n\r\n"), "a head alone: {text}");

    let all = raw::raw(address, &head("OPTIONS * HTTP/1.1", "Connection: close\r\n"));
    assert_eq!((raw::status(&all), site.seen("*")[0].method()), (200, "OPTIONS"));

    let two = [head("GET /one HTTP/1.1", ""), head("GET /two HTTP/1.1", "Connection: close\r\n")];
    let both = String::from_utf8(raw::raw(address, &two.concat())).unwrap();
    assert_eq!(both.matches("HTTP/1.1 200").count(), 2, "{both}");
    let own = head("PROPFIND /dav HTTP/1.1", "Connection: close\r\n");
    assert_eq!(raw::status(&raw::raw(address, &own)), 200);
    assert_eq!(site.seen("/dav")[0].method(), "PROPFIND");
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let site = Site::start("");
    let mut socket = raw::connect(site.proxy.address);
    let extra = "Expect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n";
    socket.write_all(&head("POST /upload HTTP/1.1", extra)).unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"body").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(raw::status(&answer), 200);
    let seen = &site.seen("/upload")[0];
    assert_eq!((&*seen.body, seen.header("expect")), (&b"body"[..], None));
}

/// The lines of a head after the first, sorted: only lines of one name have an order.
fn lines(head: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        head.lines().skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_app_gets_the_clients_headers_without_those_of_the_hop_and_with_the_truth_about_it() {
    let site = Site::start("");
    let request = "GET /a%2Fb//c/./d?x=%zz&y=1;z HTTP/1.1\r\n\
        Host: shop.example:8443\r\n\
        accept: a/b;q=0.5, */*\r\n\
        X-Custom: keeps   inner  spaces, \"quotes\"\r\n\
        X-Twice: 1\r\n\
        X-Twice: 2\r\n\
        X-Empty:\r\n\
        Authorization: Basic YTpi\r\n\
        Range: bytes=0-1\r\n\
        Cookie: theme=dark; a=\"b, c\"\r\n\
        Cookie: d=e\r\n\
        Connection: close, X-Private\r\n\
        X-Private: 1\r\n\
        Keep-Alive: timeout=5\r\n\
        Proxy-Authorization: Basic YTpi\r\n\
        Proxy-Connection: keep-alive\r\n\
        TE: trailers\r\n\
        Upgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABk\r\n\
        X-Forwarded-For: 6.6.6.6\r\n\
        X_Forwarded_For: 6.6.6.6\r\n\
        X-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: evil\r\n\
        X-Real-IP: 6.6.6.6\r\n\
        Forwarded: for=6.6.6.6\r\n\
        Via: 1.1 evil\r\n\r\n";
    let answer = raw::raw(site.proxy.address, request.as_bytes());
    assert_eq!(raw::status(&answer), 200, "{}", String::from_utf8_lossy(&answer));
    let seen = site.app.arrived().remove(0);
    assert_eq!(seen.head.lines().next(), Some("GET /a%2Fb//c/./d?x=%zz&y=1;z HTTP/1.1"));
    let expected = [
        "accept: a/b;q=0.5, */*",
        "authorization: Basic YTpi",
        "cookie: theme=dark; a=\"b, c\"; d=e",
        "forwarded: for=127.0.0.1;host=\"shop.example:8443\";proto=http",
        "host: shop.example:8443",
        "range: bytes=0-1",
        "x-custom: keeps   inner  spaces, \"quotes\"",
        "x-empty: ",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: shop.example:8443",
        "x-forwarded-proto: http",
        "x-twice: 1",
        "x-twice: 2",
    ];
    assert_eq!(lines(&seen.head), expected);
    assert!(seen.head.contains("x-twice: 1\r\nx-twice: 2\r\n"));
}

#[test]
fn a_trusted_proxys_word_about_the_client_is_kept_and_added_to() {
    let site = Site::start("server.trusted_proxies = [\"127.0.0.1\"]");
    let extra = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: shop.example\r\nConnection: close\r\n";
    assert_eq!(raw::status(&raw::raw(site.proxy.address, &get(extra))), 200);
    let seen = site.app.arrived().remove(0);
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
}

#[test]
fn the_client_gets_the_apps_headers_without_those_of_the_hop() {
    let site = Site::scripted(&configured("", LOGIN), |request, _| {
        let answer = "HTTP/1.1 299 Peculiar\r\nContent-Length: 4\r\nX-Twice: 1\r\nX-Twice: 2\r\n\
            Set-Cookie: theme=dark; Path=/; Weird=\"a;b\"\r\nSet-Cookie: b=2\r\n\
            Connection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
            Proxy-Authenticate: Basic\r\nServer: legacy/0.1\r\n\r\n\u{0}\u{ff}\r\n";
        let bytes: Vec<u8> = answer.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        (request.target() == "/own").then_some(Reply::Bytes(bytes))
    });
    let answer = http::send(site.proxy.address, &Request::get("/own").header("Host", "shop"));
    assert_eq!((answer.status, &*answer.body), (299, &b"\x00\xff\r\n"[..]));
    let all = |name: &str| answer.all(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all("x-twice"), ["1", "2"]);
    assert_eq!(all("set-cookie"), ["theme=dark; Path=/; Weird=\"a;b\"", "b=2"]);
    assert_eq!(all("server"), ["legacy/0.1"]);
    for gone in ["x-private", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
}

/// Bytes that do not repeat soon and hold no chunk end.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 1
    })
    .take(length)
    .collect()
}

/// The data of a chunked body.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|at| at == b"\r\n").unwrap();
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        body = &body[end + 2..];
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}

#[test]
fn an_upload_in_chunks_arrives_byte_for_byte() {
    let site = Site::start("");
    let data = noise(1 << 20);
    let mut connection = Connection::open(site.proxy.address).unwrap();
    connection.write(&head("PUT /upload HTTP/1.1", "Transfer-Encoding: chunked\r\n")).unwrap();
    for piece in data.chunks(70_001) {
        connection.write(format!("{:X};ext=1\r\n", piece.len()).as_bytes()).unwrap();
        connection.write(piece).unwrap();
        connection.write(b"\r\n").unwrap();
    }
    connection.write(b"0\r\n\r\n").unwrap();
    assert_eq!(connection.read_response("PUT").unwrap().0.status, 200);
    let seen = site.seen("/upload").remove(0);
    assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
    assert!(unchunked(&seen.body) == data, "the bytes differ");
}

/// Reads just so many bytes of a body.
fn read(stream: &mut impl std::io::Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_download_streams_and_arrives_byte_for_byte() {
    const PIECE: usize = 1 << 20;
    let (gate, data) = (Gate::default(), noise(10 * PIECE));
    let (held, sent) = (gate.clone(), data.clone());
    let app = LegacyApp::start(move |_| {
        let (held, sent) = (held.clone(), sent.clone());
        Reply::Stream(Box::new(move |stream| {
            let head =
                format!("HTTP/1.1 200 OK\r\n{HTML}\r\nContent-Length: {}\r\n\r\n", sent.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&sent[..PIECE]);
            // The rest is not there before the client has the beginning.
            held.wait();
            let _ = stream.write_all(&sent[PIECE..]);
        }))
    });
    let proxy = Proxy::start(app.address, None, &configured("", LOGIN));
    let mut socket = download(proxy.address);
    assert!(read(&mut socket, PIECE) == data[..PIECE], "the beginning differs");
    gate.open();
    assert!(read(&mut socket, 9 * PIECE) == data[PIECE..], "the rest differs");
}

/// A socket at the beginning of the body.
fn download(address: SocketAddr) -> impl std::io::Read {
    let mut socket = std::io::BufReader::new(raw::connect(address));
    socket.get_mut().write_all(&get("")).unwrap();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        std::io::BufRead::read_line(&mut socket, &mut line).unwrap();
    }
    socket
}
