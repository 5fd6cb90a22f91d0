//! The PROXY protocol, spoken by curl and by hand. Which headers are good is tabled with the parser.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::*;
use crate::support::raw;

const REQUIRED: &str = "server.proxy_protocol = \"required\"\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for a client at 192.0.2.7:56324.
fn v2(command: u8) -> Vec<u8> {
    [V2, &[command, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 4, 1, 187]].concat()
}

/// Whether it says that anybody may name any client.
fn warns(proxy: &Proxy) -> bool {
    proxy.log().iter().any(|line| line.contains("proxy_protocol is required of everybody"))
}

/// What the app was told of the client's address behind a header.
#[track_caller]
fn client_of(proxy: &Proxy, header: &[u8]) -> String {
    let answer = raw::raw(proxy.address, &[header, GET].concat());
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(raw::status(&answer), 200, "{text}");
    let body = text.split("\r\n\r\n").nth(1).unwrap();
    let said: Value = serde_json::from_str(body).unwrap();
    said["for"].as_str().unwrap().to_owned()
}

#[test]
fn the_header_says_whose_connection_it_is() {
    let app = app();
    let proxy = proxy(&app, REQUIRED);
    assert!(warns(&proxy), "{:?}", proxy.log());
    let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n";
    let v1_6 = b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n";
    assert_eq!(client_of(&proxy, v1), "192.0.2.7");
    assert_eq!(client_of(&proxy, v1_6), "2001:db8::7");
    assert_eq!(client_of(&proxy, &v2(0x21)), "192.0.2.7");
    // From the proxy itself.
    assert_eq!(client_of(&proxy, &v2(0x20)), "127.0.0.1");
    assert_eq!(client_of(&proxy, b"PROXY UNKNOWN\r\n"), "127.0.0.1");
    let answer = Curl::new(&proxy, &["--haproxy-protocol"]).sign_in("http://shop.test", "alice");
    assert_eq!(answer.status, 302);
    assert_eq!(proxy.wait_for_event("session_created", "alice")["client_address"], "127.0.0.1");
}

#[test]
fn a_header_in_pieces_is_read_and_what_follows_is_not_lost() {
    let app = app();
    let proxy = proxy(&app, REQUIRED);
    let mut stream = raw::connect(proxy.address);
    for byte in [&v2(0x21)[..], GET].concat() {
        stream.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"for\":\"192.0.2.7\""), "{answer}");
}

#[test]
fn without_a_good_header_nothing_is_served() {
    let app = app();
    let proxy = proxy(&app, REQUIRED);
    let bad: [&[u8]; 6] = [
        GET,
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        b"PROXY TCP4 999.0.2.7 10.0.0.1 1 2\r\n",
        &[V2, &[0x31, 0x11, 0, 12]].concat(),
        &[V2, &[0x21, 0x11, 0xff, 0xff]].concat(),
        &[0x16, 3, 1, 0, 3, 1, 2, 3],
    ];
    let metric = "headcount_refusals_total{reason=\"proxy_protocol\"}";
    for (number, bytes) in bad.into_iter().enumerate() {
        let answer = raw::raw(proxy.address, &[bytes, GET].concat());
        assert_eq!(answer, b"", "{}", String::from_utf8_lossy(bytes));
        assert_eq!(count(&proxy, metric), number as u64 + 1);
    }
    wait_for_refusal(&proxy, "proxy_protocol");
    assert!(app.arrived().is_empty());
}

#[test]
fn the_header_must_come_in_time_and_from_whom_it_may() {
    let app = app();
    let keys =
        "server.limits.first_byte_timeout = \"300ms\"\nserver.limits.head_timeout = \"300ms\"\n";
    let timed = proxy(&app, &format!("{REQUIRED}{keys}"));
    let started = Instant::now();
    let mut silent = raw::connect(timed.address);
    let mut slow = raw::connect(timed.address);
    slow.write_all(b"PROXY TCP4 ").unwrap();
    assert_eq!(slow.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(3));
    wait_for_refusal(&timed, "proxy_protocol");
    let strangers = proxy(&app, &format!("{REQUIRED}server.trusted_proxies = [\"192.0.2.1\"]\n"));
    assert_eq!(raw::raw(strangers.address, &[&v2(0x21), GET].concat()), b"");
    wait_for_refusal(&strangers, "proxy_protocol");
    assert!(!warns(&strangers));
    assert!(app.arrived().is_empty());
}

#[test]
fn forwarding_headers_count_if_the_named_client_is_a_trusted_proxy() {
    let app = app();
    let keys = "server.trusted_proxies = [\"127.0.0.1\", \"192.0.2.0/24\"]\n";
    let proxy = proxy(&app, &format!("{REQUIRED}{keys}"));
    let get = "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 198.51.100.4\r\n";
    let get = format!("{get}Connection: close\r\n\r\n");
    for (header, expected) in [
        (&v2(0x21)[..], "\"for\":\"198.51.100.4, 192.0.2.7\""),
        (b"PROXY TCP4 203.0.113.5 10.0.0.1 1 2\r\n", "\"for\":\"203.0.113.5\""),
        // From a proxy that cannot say for whom.
        (b"PROXY UNKNOWN\r\n", "\"for\":\"127.0.0.1\""),
    ] {
        let answer = raw::raw(proxy.address, &[header, get.as_bytes()].concat());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains(expected), "{answer}");
    }
}

#[test]
fn the_header_comes_before_the_handshake() {
    let app = app();
    let proxy = proxy(&app, &format!("{REQUIRED}{}", tls("shop")));
    let answer = Curl::new(&proxy, &["--haproxy-protocol"]).get("https://shop.test/", &[]);
    assert_eq!((&*answer.said("proto"), &*answer.said("for")), ("https", "127.0.0.1"));
    Curl::new(&proxy, &[]).fails("https://shop.test/", &[]);
    wait_for_refusal(&proxy, "proxy_protocol");
}
