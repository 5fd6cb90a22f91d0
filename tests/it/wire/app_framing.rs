//! Answers of the app that two readers could see end in different places: refused, or cut to the one
//! that was asked for, and nobody else gets what was left of them.

use std::io::Write as _;

use super::{LOGIN, Site, configured};
use crate::support::http::{self, Request};
use crate::support::legacy::Reply;
use crate::support::raw;

/// A site whose app answers `/odd` with these bytes, and keeps the connection.
fn site(answer: Vec<u8>) -> Site {
    Site::scripted(&configured("", LOGIN), move |request, _| {
        request.target().starts_with("/odd").then(|| Reply::Bytes(answer.clone()))
    })
}

fn ask(site: &Site, method: &str) -> http::Response {
    http::send(site.proxy.address, &Request::new(method, "/odd").header("Host", "shop"))
}

/// The next clients get their own answers.
#[track_caller]
fn assert_clean(site: &Site, what: &str) {
    for _ in 0..5 {
        let next = http::send(site.proxy.address, &Request::get("/").header("Host", "shop"));
        assert_eq!((next.status, next.text()), (200, "nobody".into()), "after {what}");
    }
}

#[test]
fn an_answer_without_a_clear_end_is_answered_502() {
    let heads = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\n folded",
        "no colon",
        "Space : 1",
        ": no name",
    ];
    for head in heads {
        let body = "0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden";
        let site = site(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes());
        let answer = ask(&site, "GET");
        assert_eq!(answer.status, 502, "{head:?}: {}", answer.text());
        site.wait_for_refusal("upstream_invalid");
        assert_clean(&site, head);
    }
    let site = site(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec());
    assert_eq!(ask(&site, "GET").status, 502, "chunks in HTTP/1.0");
}

#[test]
fn what_follows_an_answer_is_nobodys() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden";
    let cases = [
        ("GET", "200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("GET", "200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"),
        ("GET", "204 No Content\r\n\r\n", 204, ""),
        ("GET", "204 No Content\r\nContent-Length: 3\r\n\r\nabc", 204, ""),
        ("GET", "304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, ""),
        ("HEAD", "200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, ""),
    ];
    for (method, answer, status, body) in cases {
        let site = site(format!("HTTP/1.1 {answer}{surplus}").into_bytes());
        for _ in 0..5 {
            let got = ask(&site, method);
            assert_eq!((got.status, got.text()), (status, body.into()), "{method} {answer:?}");
            assert!(got.all("content-length").count() < 2, "{answer:?}");
            assert_clean(&site, answer);
        }
    }
}

#[test]
fn interim_answers_are_few_and_go_no_further() {
    for (count, status) in [(0, 200), (1, 200), (8, 200), (9, 502), (1000, 502)] {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(count);
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let site = site(format!("{interim}{last}").into_bytes());
        let mut socket = raw::connect(site.proxy.address);
        let request = b"GET /odd HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
        socket.write_all(request).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut socket, &mut answer).unwrap();
        assert_eq!(raw::status(&answer), status, "{count}: {}", answer.escape_ascii());
        assert_clean(&site, "interim answers");
    }
}
