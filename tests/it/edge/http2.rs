//! HTTP/2: curl for what browsers do, Python's h2 for frames that no decent client sends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::*;
use crate::support::site::{App, Site};

const SHOP: &str = "https://shop.test/";

/// What the Python client saw of one case.
#[track_caller]
pub(super) fn case(proxy: &Proxy, case: &str) -> Value {
    let (port, ca) = (proxy.address.port().to_string(), pki("ca.pem"));
    let said = python("http2.py", &[&port, ca.to_str().unwrap(), case]);
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// A case that goes on while the test does something.
pub(super) struct Held {
    child: std::process::Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Held {
    /// Starts it and waits until it has begun.
    #[track_caller]
    pub(super) fn start(proxy: &Proxy, case: &str) -> Self {
        let mut child = Command::new(top().join(".venv/bin/python"))
            .arg(top().join("tests/clients/http2.py"))
            .arg(proxy.address.port().to_string())
            .arg(pki("ca.pem"))
            .arg(case)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut begun = String::new();
        lines.read_line(&mut begun).unwrap();
        assert!(["holding\n", "waiting\n"].contains(&&*begun), "{case}: {begun}");
        Self { child, lines }
    }

    /// Ends it before it is over.
    pub(super) fn stop(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it saw in the end.
    #[track_caller]
    fn end(mut self) -> Value {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(rest.lines().last().unwrap()).unwrap()
    }
}

#[test]
fn a_login_flow_over_http2_keeps_the_limit() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    check_the_limit(&proxy, "https://shop.test", &["--http2"], "HTTP/2");
    let answer = Curl::new(&proxy, &["--http2"]).get(SHOP, &[]);
    assert_eq!((&*answer.said("proto"), &*answer.said("for")), ("https", "127.0.0.1"));
    assert_eq!(answer.said("host"), "shop.test");
    let seen = app.arrived();
    assert!(seen.iter().all(|request| request.head.contains(" HTTP/1.1\r\n")), "{seen:?}");
}

#[test]
fn http2_can_be_switched_off() {
    let app = app();
    let proxy = proxy(&app, &format!("{}server.http2 = false\n", tls("shop")));
    assert_eq!(Curl::new(&proxy, &["--http2"]).get(SHOP, &[]).version, "HTTP/1.1");
}

#[test]
fn bodies_pass_both_ways() {
    let app = LegacyApp::start(|request| {
        let length = request.body.len();
        let said = format!("{length} {}", request.header("transfer-encoding").unwrap_or("-"));
        Reply::page("200 OK", &["X-Said: yes"], &format!("{said}{}", "x".repeat(3 << 20)))
    });
    let proxy = proxy(&app, &tls("shop"));
    let curl = Curl::new(&proxy, &["--http2"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'y'; 5 << 20]).unwrap();
    let answer = curl.get(SHOP, &["-T", file.to_str().unwrap()]);
    assert_eq!((answer.status, &*answer.version), (200, "HTTP/2"));
    assert!(answer.body.starts_with("5242880 -xxx"), "{}", &answer.body[..40]);
    assert_eq!(answer.body.len(), "5242880 -".len() + (3 << 20));
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    // Answered by us.
    let refused = [
        ("host_other", 400, "authority_mismatch"),
        ("host_none", 400, "host_missing"),
        ("host_twice", 400, "host_duplicate"),
        ("userinfo", 400, "host_invalid"),
        ("connect", 405, "method_refused"),
        ("scheme_other", 400, "target_invalid"),
        ("asterisk", 400, "target_invalid"),
        ("length_twice", 400, "framing_invalid"),
        ("many_headers", 431, "head_too_large"),
        ("crumbs_many", 431, "head_too_large"),
        ("value_blank_before", 400, "malformed_head"),
        ("value_blank_behind", 400, "malformed_head"),
    ];
    for (name, status, reason) in refused {
        let seen = case(&proxy, name);
        assert_eq!(seen["status"], status, "{name}: {seen}");
        wait_for_refusal(&proxy, reason);
    }
    // Refused by the protocol itself: the stream, or with it the connection.
    for name in [
        "connection",
        "transfer_encoding",
        "upgrade",
        "keep_alive",
        "proxy_connection",
        "te_other",
        "upper_case",
        "path_missing",
        "path_empty",
        "path_relative",
        "method_twice",
        "pseudo_late",
        "pseudo_unknown",
        "pseudo_of_answers",
        "authority_twice",
        "name_blank",
        "name_colon",
        "name_empty",
        "name_line_end",
        "name_nul",
        "value_line_end",
        "value_bare_line_feed",
        "value_nul",
        "method_blank",
        "method_line_end",
        "path_blank",
        "path_line_end",
        "path_nul",
        "scheme_injected",
        "length_signed",
        "length_list",
        "length_without_body",
    ] {
        let seen = case(&proxy, name);
        let gone = !seen["reset"].is_null() || !seen["goaway"].is_null() || seen["status"] == 400;
        assert!(gone && seen["status"] != 200, "{name}: {seen}");
    }
    let seen = case(&proxy, "large_headers");
    let gone = !seen["reset"].is_null() || !seen["goaway"].is_null();
    assert!(seen["status"] == 431 || gone, "{seen}");
    assert_eq!(app.arrived().len(), 0, "{:?}", app.arrived());
    for name in ["length_short", "length_long"] {
        let seen = case(&proxy, name);
        assert!(seen["status"] != 200, "{name}: {seen}");
    }
    let whole = app.arrived().iter().filter(|request| !request.body.is_empty()).count();
    assert_eq!(whole, 0, "{:?}", app.arrived());
}

#[test]
fn a_request_is_judged_as_over_http1() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    for name in ["plain", "host_same", "host_only", "te_trailers", "trailers", "trailers_pseudo"] {
        let seen = case(&proxy, name);
        assert_eq!(seen["status"], 200, "{name}: {seen}");
        let said: Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
        assert_eq!((&said["host"], &said["cookie"]), (&"shop.test".into(), &"".into()), "{name}");
    }
    // The crumbs of one list; `sid=x` is no session of ours, and goes up once with the others.
    let seen = case(&proxy, "crumbs");
    let said: Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
    assert_eq!(said["cookie"], "sid=x; a=1; b=2", "{seen}");
    let names: Vec<_> = seen["headers"].as_array().unwrap().iter().map(|pair| &pair[0]).collect();
    assert!(names.iter().all(|name| *name != "connection" && *name != "keep-alive"), "{names:?}");
}

/// A fragment is no part of a target; hyper cuts it off before anybody looks.
#[test]
fn what_is_behind_a_path_is_judged_by_nobody_and_reaches_nobody() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    assert_eq!(case(&proxy, "path_fragment")["status"], 200);
    assert_eq!(app.arrived().remove(0).target(), "/a");
}

#[test]
fn a_session_in_two_crumbs_is_in_doubt() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    let dead = signed_in(&proxy, "alice");
    let live = signed_in(&proxy, "alice");
    let before = app.arrived().len();
    for crumbs in [format!("{dead} {live}"), format!("{live} a=1 {dead}")] {
        let seen = case(&proxy, &format!("crumbs_of {crumbs}"));
        assert_eq!(seen["status"], 400, "{seen}");
        wait_for_refusal(&proxy, "credentials_ambiguous");
    }
    assert_eq!(app.arrived().len(), before);
    assert_eq!(case(&proxy, &format!("crumbs_of a=1 {live} b=2"))["status"], 200);
}

#[test]
fn frames_that_cost_the_server_more_than_the_client_end_the_connection() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    let before = proxy.memory();
    for waste in [
        "continuation",
        "continuation_empty",
        "hpack_bomb",
        "table_size",
        "window_of_nothing",
        "window_too_large",
        "depends_on_itself",
        "data_after_end",
        "padding",
    ] {
        let seen = case(&proxy, &format!("wasteful {waste}"));
        // One request may be refused for itself.
        let answered = seen["answered"] == true;
        let over = seen["closed"] == true || !seen["goaway"].is_null() || answered;
        assert!(over, "{waste}: {seen}");
        assert_eq!(case(&proxy, "plain")["status"], 200, "after {waste}");
    }
    eventually("nothing is left at the app", || {
        (count(&proxy, "headcount_upstream_requests") == 0).then_some(())
    });
    let grown = proxy.memory().saturating_sub(before) >> 20;
    println!("{grown} MiB more");
    assert!(grown < 32, "{grown} MiB more");
}

#[test]
fn a_get_keeps_its_body() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    assert_eq!(case(&proxy, "get_with_body")["status"], 200);
    let seen = app.arrived().remove(0);
    assert_eq!((seen.method(), &*seen.body), ("GET", &b"4\r\nabcd\r\n0\r\n\r\n"[..]));
}

#[test]
fn streams_are_limited_and_resets_do_not_pile_up() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    let seen = case(&proxy, "many_streams");
    assert_eq!(seen["allowed"], 100);
    let statuses = seen["statuses"].as_array().unwrap();
    assert!(statuses.len() == 100 && statuses.iter().all(|status| *status == 200), "{seen}");
    let seen = case(&proxy, "rapid_reset");
    assert!(!seen["goaway"].is_null() || seen["closed"] == true, "{seen}");
    assert_eq!(case(&proxy, "plain")["status"], 200);
}

#[test]
fn connections_on_which_nothing_happens_are_closed() {
    let app = app();
    let keys = "server.limits.first_byte_timeout = \"400ms\"\n\
                server.limits.keep_alive_timeout = \"600ms\"\n\
                server.limits.write_stall_timeout = \"800ms\"\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    for (name, at_least) in [
        ("no_preface", 0.3),
        ("idle", 0.3),
        ("half_a_head", 0.3),
        ("idle_after_answer", 0.5),
        ("zero_window", 0.7),
        ("zero_window_many", 0.7),
    ] {
        let seen = case(&proxy, name);
        let seconds = seen["seconds"].as_f64().unwrap();
        assert_eq!(seen["closed"], true, "{name}: {seen}");
        assert!(seconds >= at_least && seconds < 5.0, "{name}: {seen}");
    }
}

/// The cookie with which somebody has signed in.
#[track_caller]
pub(super) fn signed_in(proxy: &Proxy, user: &str) -> String {
    let answer = Curl::new(proxy, &["--http2"]).sign_in("https://shop.test", user);
    let line = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    line.split(';').next().unwrap().to_owned()
}

#[test]
fn streams_of_an_ended_session_are_cut() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    for (kind, user) in [("taken", "alice"), ("held", "bob")] {
        let cookie = signed_in(&proxy, user);
        let held = Held::start(&proxy, &format!("{kind} {cookie}"));
        let started = Instant::now();
        signed_in(&proxy, user);
        let seen = held.end();
        let took = started.elapsed();
        assert!(took < Duration::from_millis(1_500), "{kind}: {took:?} {seen}");
        match kind {
            "taken" => {
                assert_eq!((&seen["closed"], seen["reset"].is_null()), (&false.into(), false))
            }
            _ => assert_eq!(seen["closed"], true, "{seen}"),
        }
    }
}

#[test]
fn a_drain_says_good_bye_and_finishes() {
    let app = app();
    let mut proxy = proxy(&app, &tls("shop"));
    let held = Held::start(&proxy, "drained");
    eventually("the request is in flight", || (!app.arrived().is_empty()).then_some(()));
    let started = Instant::now();
    assert!(proxy.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(10));
    let seen = held.end();
    assert_eq!((&seen["status"], &seen["goaway"]), (&200.into(), &0.into()), "{seen}");
    assert_eq!((&seen["body"], &seen["closed"]), (&"slow".into(), &true.into()), "{seen}");
}

#[test]
fn floods_of_frames_that_cost_nothing_are_cut() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    for frames in ["ping", "ping_ack", "settings", "priority", "unknown", "window_update"] {
        let seen = case(&proxy, &format!("flood {frames}"));
        assert_eq!(seen["closed"], true, "{frames}: {seen}");
        assert!(seen["sent"].as_u64().unwrap() < 2_000_000, "{frames}: {seen}");
        assert!(seen["seconds"].as_f64().unwrap() < 10.0, "{frames}: {seen}");
        wait_for_refusal(&proxy, "http2_flood");
    }
    // Of these the protocol itself does not bear many.
    assert_eq!(case(&proxy, "flood empty_data")["closed"], true);
    assert_eq!(case(&proxy, "pings")["status"], 200);
    assert_eq!(count(&proxy, "headcount_refusals_total{reason=\"http2_flood\"}"), 6);
}

#[test]
fn a_client_without_a_sign_of_life_is_left() {
    let app = app();
    let keys = "server.limits.http2_ping_interval = \"300ms\"\n\
                server.limits.http2_ping_timeout = \"300ms\"\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    let seen = case(&proxy, "deaf");
    assert_eq!(seen["closed"], true, "{seen}");
    let seconds = seen["seconds"].as_f64().unwrap();
    assert!(seconds > 0.4 && seconds < 8.0, "{seen}");
    // Who answers stays.
    let held = Held::start(&proxy, &format!("taken {}", signed_in(&proxy, "alice")));
    std::thread::sleep(Duration::from_millis(1_500));
    signed_in(&proxy, "alice");
    assert_eq!(held.end()["closed"], false);
}

#[test]
fn without_tls_http2_is_spoken_only_if_configured() {
    let app = app();
    let url = "http://shop.test/";
    let off = proxy(&app, "");
    assert!(!Curl::new(&off, &["--http2-prior-knowledge"]).run(url, &[]).status.success());
    assert!(app.arrived().is_empty());
    let upgraded = Curl::new(&off, &["--http2"]).get(url, &[]);
    assert_eq!((upgraded.status, &*upgraded.version), (200, "HTTP/1.1"), "never by Upgrade");
    let on = proxy(&app, "server.http2_cleartext = true\n");
    check_the_limit(&on, "http://shop.test", &["--http2-prior-knowledge"], "HTTP/2");
    let answer = Curl::new(&on, &["--http2-prior-knowledge"]).get(url, &[]);
    assert_eq!((&*answer.said("proto"), &*answer.said("host")), ("http", "shop.test"));
    let other = Curl::new(&on, &[]).get(url, &["-d", "a=b"]);
    assert_eq!((&*other.version, &*other.said("length")), ("HTTP/1.1", "3"));
    // In pieces, and what only looks like it.
    use std::io::Write as _;
    let mut stream = crate::support::raw::connect(on.address);
    for piece in ["P", "RI * HTTP/2.0\r\n\r\nSM\r", "\n\r\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "settings");
    let answer = crate::support::raw::raw(on.address, b"PRI * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(crate::support::raw::status(&answer), 400);
}

#[test]
fn good_clients_are_served_without_a_failure() {
    let app = app();
    let proxy = proxy(&app, &format!("{}server.http2_cleartext = true\n", tls("shop")));
    let url = format!("https://{}/", proxy.address);
    let output = Command::new("h2load")
        .args(["-n", "5000", "-c", "10", "-m", "20", "-t", "1", &url])
        .output()
        .expect("h2load is installed by tests/setup");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("status codes: 5000 2xx"), "{said}");
    let output = Command::new("nghttp")
        .args(["-nv", "-d", "/dev/stdin", "-H", ":authority: shop.test", &url])
        .stdin(Stdio::null())
        .output()
        .expect("nghttp is installed by tests/setup");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(":status: 200") && !said.contains("RST_STREAM"), "{said}");
}

#[test]
fn a_websocket_over_http2_is_one_of_its_session() {
    let app = app();
    let mut proxy = proxy(&app, &tls("shop"));
    let cookie = signed_in(&proxy, "alice");
    let held = Held::start(&proxy, &format!("websocket /ws websocket {cookie}"));
    let arrived = app.arrived();
    let request = arrived.iter().find(|request| request.target() == "/ws").unwrap();
    assert!(request.head.starts_with("GET /ws HTTP/1.1\r\n"), "{}", request.head);
    let of = |name: &str| request.headers(name).collect::<Vec<_>>().join(" + ");
    assert_eq!((&*of("upgrade"), &*of("sec-websocket-version")), ("websocket", "13"));
    assert_eq!((of("sec-websocket-key").len(), &*of("host")), (24, "shop.test"));
    assert!(of("cookie").starts_with("sid=S-alice-"), "{}", request.head);
    let started = Instant::now();
    signed_in(&proxy, "alice");
    let seen = held.end();
    assert!(started.elapsed() < Duration::from_millis(1_500), "{seen}");
    assert_eq!((&seen["offered"], &seen["echo"]), (&1.into(), &true.into()), "{seen}");
    let names: Vec<_> = seen["headers"].as_array().unwrap().iter().map(|pair| &pair[0]).collect();
    assert!(names.iter().any(|name| *name == "x-from"), "{names:?}");
    for hop in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!names.iter().any(|name| *name == hop), "{names:?}");
    }
    // The connection outlives the tunnel; a half that ends is passed on.
    assert!(seen["goaway"].is_null() && seen["closed"] == false, "{seen}");
    let cookie = signed_in(&proxy, "bob");
    let held = Held::start(&proxy, &format!("websocket /ws/half websocket {cookie}"));
    let seen = held.end();
    assert_eq!((&seen["ended"], &seen["bytes"]), (&true.into(), &60_003.into()), "{seen}");
    // In a drain.
    let held = Held::start(&proxy, &format!("websocket /ws websocket {cookie}"));
    let started = Instant::now();
    assert!(proxy.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(5));
    held.end();
}

#[test]
fn a_tunnel_that_its_client_does_not_read_is_cut() {
    let app = app();
    let keys = "server.limits.write_stall_timeout = \"800ms\"\n";
    let proxy_of = |keys: &str| proxy(&app, &format!("{}{keys}", tls("shop")));
    let proxy = proxy_of(keys);
    let seen = case(&proxy, &format!("websocket_held {}", signed_in(&proxy, "alice")));
    assert_eq!(seen["closed"], true, "{seen}");
    assert!(seen["seconds"].as_f64().unwrap() >= 0.7, "{seen}");
    eventually("nothing is left of it", || {
        (count(&proxy, "headcount_upstream_requests") == 0).then_some(())
    });
    // The end of its session does not wait for the client either.
    let proxy = proxy_of("");
    let held = Held::start(&proxy, &format!("websocket_held {}", signed_in(&proxy, "alice")));
    signed_in(&proxy, "alice");
    assert_eq!(held.end()["closed"], true);
    eventually("nothing is left of it", || {
        (count(&proxy, "headcount_upstream_requests") == 0).then_some(())
    });
}

#[test]
fn one_address_has_so_many_requests_at_a_time() {
    let app = app();
    let keys = "server.limits.http2_streams_per_address = 5\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    // On two connections.
    let first = Held::start(&proxy, "hanging 3");
    eventually("they are at the app", || (app.arrived().len() == 3).then_some(()));
    let seen = case(&proxy, "hanging_answered 20 18");
    assert_eq!(seen["statuses"].as_array().unwrap().len(), 18, "{seen}");
    assert!(seen["statuses"].as_array().unwrap().iter().all(|status| *status == 429), "{seen}");
    let names: Vec<_> = seen["headers"].as_array().unwrap().iter().map(|pair| &pair[0]).collect();
    assert!(names.iter().any(|name| *name == "retry-after"), "{names:?}");
    assert_eq!(count(&proxy, "headcount_refusals_total{reason=\"too_many_streams\"}"), 18);
    // A place that was left is free again.
    eventually("there is room", || (case(&proxy, "plain")["status"] == 200).then_some(()));
    first.stop();
}

#[test]
fn what_is_no_websocket_gets_no_tunnel() {
    let app = app();
    let keys = "server.limits.keep_alive_timeout = \"500ms\"\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    let dead = signed_in(&proxy, "alice");
    let cookie = signed_in(&proxy, "alice");
    for (arguments, status) in [
        (format!("/ws websocket {dead}"), 401),
        // Success would open a tunnel, and this is none.
        ("/ websocket".to_owned(), 502),
        ("/ws other".to_owned(), 405),
        ("/%2e%2e/login websocket".to_owned(), 400),
    ] {
        let seen = case(&proxy, &format!("websocket {arguments}"));
        assert_eq!(seen["status"], status, "{arguments}: {seen}");
    }
    // An open tunnel is not an idle connection.
    let held = Held::start(&proxy, &format!("websocket /ws websocket {cookie}"));
    std::thread::sleep(Duration::from_millis(1_500));
    let started = Instant::now();
    signed_in(&proxy, "alice");
    let seen = held.end();
    assert!(seen["seconds"].as_f64().unwrap() > 1.5 && seen["closed"] == false, "{seen}");
    assert!(started.elapsed() < Duration::from_millis(1_500), "{seen}");
    let off = super::proxy(&app, &format!("{}server.http2_websockets = false\n", tls("shop")));
    let seen = case(&off, "websocket /ws websocket");
    assert_eq!(seen["offered"], 0);
    assert!(
        seen["status"] != 200 && !(seen["reset"].is_null() && seen["goaway"].is_null()),
        "{seen}"
    );
}

#[test]
fn a_real_browser_signs_in_and_loses_its_websocket() {
    let site = Site::shared(App::Flask);
    let keys = format!("limit.max_sessions = 1\nserver.workers = 1\n{}", tls("shop"));
    let proxy = Proxy::start(site.address, Some("flask-login"), &keys);
    let user = site.user();
    let mut browser = Command::new("node")
        .arg(top().join("tests/clients/browser.js"))
        .args([&proxy.address.port().to_string(), &user])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let open = next()["open"].clone();
    assert_eq!((&open["protocol"], &open["echo"]), (&"h2".into(), &"hello".into()), "{open}");
    assert_eq!(open["page"], format!("hello {user}"), "{open}");
    // The socket is on the connection of the page.
    assert_eq!(count(&proxy, "headcount_connections"), 1);
    let started = Instant::now();
    let session = proxy.sessions(&user, "live")[0]["id"].as_str().unwrap().to_owned();
    proxy.admin("DELETE", &format!("/api/v1/sessions/{session}"));
    let closed = next();
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    assert!(closed["closed"].is_number(), "{closed}");
    let told = next();
    assert_eq!(told["status"], 401, "{told}");
    assert!(browser.wait().unwrap().success());
}
