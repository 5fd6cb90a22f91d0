//! Tables over the strict checks and the header rewriting.

use std::net::SocketAddr;

use super::*;
use crate::peer::Peer;

fn settings() -> ServerSettings {
    let limits = ServerLimits {
        connections_max: 10,
        connections_per_address_max: 10,
        head_bytes_max: 65_536,
        headers_max: 100,
        target_bytes_max: 64,
        cookie_bytes_max: 64,
        cookies_max: 10,
        login_body_bytes_max: 65_536,
        body_bytes_max: None,
        unsent_bytes: 131_072,
        first_byte_timeout_ms: 1,
        tls_handshake_timeout_ms: 1,
        head_timeout_ms: 1,
        keep_alive_timeout_ms: 1,
        body_idle_timeout_ms: 1,
        write_stall_timeout_ms: 1,
        ..crate::testing::server_settings().limits
    };
    ServerSettings { limits, ..crate::testing::server_settings() }
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn checked(request: &Request<()>, settings: &ServerSettings) -> Result<Checked, Refusal> {
    let host = request.headers().get("host").map_or("", |host| host.to_str().unwrap());
    check(request, &Caller::direct(&Peer::UNIX, host), settings)
}

fn refused(method: &str, target: &str, headers: &[(&str, &str)]) -> Option<Refusal> {
    checked(&request(method, target, headers), &settings()).err()
}

#[test]
fn requests_that_could_be_read_two_ways_are_refused() {
    use Refusal::*;
    const H: (&str, &str) = ("host", "h");
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<Refusal>);
    let table: &[Row<'_>] = &[
        ("GET", "/", &[H], None),
        ("GET", "/", &[], Some(HostMissing)),
        ("GET", "/", &[("host", "")], Some(HostMissing)),
        ("GET", "/", &[H, H], Some(HostDuplicate)),
        ("GET", "/", &[("host", "h:0")], Some(HostInvalid)),
        ("GET", "/", &[("host", "h:99999")], Some(HostInvalid)),
        ("GET", "/", &[("host", "a@b")], Some(HostInvalid)),
        ("GET", "/", &[("host", "a, b")], Some(HostInvalid)),
        ("GET", "/", &[("host", "[::1]:80")], None),
        ("GET", "/", &[("host", "[::1]x")], Some(HostInvalid)),
        ("GET", "http://h/x", &[H], None),
        ("GET", "http://other/x", &[H], Some(AuthorityMismatch)),
        ("GET", "http://u@h/x", &[("host", "h")], Some(TargetInvalid)),
        ("GET", "ftp://h/x", &[H], Some(TargetInvalid)),
        ("GET", "*", &[H], Some(TargetInvalid)),
        ("OPTIONS", "*", &[H], None),
        ("CONNECT", "h:80", &[H], Some(MethodRefused)),
        ("TRACE", "/", &[H], Some(MethodRefused)),
        ("POST", "/", &[H, ("transfer-encoding", "gzip, chunked")], Some(FramingInvalid)),
        (
            "POST",
            "/",
            &[H, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            Some(FramingInvalid),
        ),
        ("POST", "/", &[H, ("transfer_encoding", "chunked")], Some(FramingInvalid)),
        ("POST", "/", &[H, ("content-length", "003")], Some(FramingInvalid)),
        ("POST", "/", &[H, ("content-length", "0")], None),
        ("POST", "/", &[H, ("trailer", "cookie")], Some(RequestTrailers)),
        ("POST", "/", &[H, ("expect", "y")], Some(ExpectationUnknown)),
        ("POST", "/", &[H, ("expect", "100-Continue")], None),
        ("GET", "/", &[H, ("connection", "close, Cookie")], Some(ConnectionHeader)),
        ("GET", "/", &[H, ("connection", "x-forwarded-for")], Some(ConnectionHeader)),
    ];
    for (method, target, headers, expected) in table {
        assert_eq!(refused(method, target, headers), *expected, "{method} {target} {headers:?}");
    }
    let long = format!("/{}", "a".repeat(64));
    assert_eq!(refused("GET", &long, &[H]), Some(TargetTooLong));
    let cookies = "c=".repeat(33);
    assert_eq!(refused("GET", "/", &[H, ("cookie", &cookies)]), Some(HeadTooLarge));
}

#[test]
fn only_a_proper_websocket_request_is_an_upgrade() {
    let upgrade = |method, headers: &[(&str, &str)]| {
        checked(&request(method, "/", headers), &settings()).unwrap().upgrade
    };
    let ask = [
        ("host", "h"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert!(upgrade("GET", &ask));
    assert!(!upgrade("POST", &ask));
    for (name, value) in [
        ("connection", "close"),
        ("upgrade", "h2c"),
        ("upgrade", "h2c, websocket"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "dGhlIHNhbXBsZQ=="),
        ("sec-websocket-key", "no base64"),
    ] {
        let other = ask.map(|line| if line.0 == name { (name, value) } else { line });
        assert!(!upgrade("GET", &other), "{name}: {value}");
    }
    for left_out in 1..ask.len() {
        let mut less = ask.to_vec();
        less.remove(left_out);
        assert!(!upgrade("GET", &less), "{less:?}");
    }
}

#[test]
fn hop_by_hop_and_forged_headers_never_reach_the_app() {
    let caller =
        Caller::direct(&"192.0.2.7:5".parse::<SocketAddr>().unwrap().into(), "shop.example");
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "x-private"),
        ("x-private", "1"),
        ("keep-alive", "5"),
        ("te", "trailers"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x_forwarded_for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("cookie", "sid=T.hc1.x"),
        ("content-length", "3"),
        ("accept", "a/b"),
    ] {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    to_upstream(&mut headers, &caller, Some(b"sid=T"), false).unwrap();
    let mut found: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "accept: a/b",
            "cookie: sid=T",
            "forwarded: for=192.0.2.7;host=shop.example;proto=http",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: shop.example",
            "x-forwarded-proto: http",
        ]
    );
}

#[test]
fn headers_that_change_the_method_are_taken_off_in_every_spelling() {
    let mut headers = HeaderMap::new();
    for name in
        ["X-HTTP-Method-Override", "x-http-method", "X_Method-Override", "X-Http_Method_Override"]
    {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), "DELETE".parse().unwrap());
    }
    headers.append("x-method", "kept".parse().unwrap());
    remove_method_overrides(&mut headers);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-method"]);
}
