//! Cookies of the app that are none of ours, and odd ones that are: relayed as they came.

use super::{LOGIN, Site, assert_serves, configured, set};
use crate::support::http::{self, Request};
use crate::support::legacy::Reply;
use crate::support::raw;

/// The Set-Cookie lines of an answer, byte for byte.
fn lines(answer: &[u8]) -> Vec<&[u8]> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let lines = answer[..end].split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter_map(|line| line.strip_prefix(b"set-cookie: ")).collect()
}

#[test]
fn lines_of_every_kind_are_relayed_as_they_came() {
    let mut sent: Vec<Vec<u8>> = [
        &b"plain=1; Path=/"[..],
        b"quoted=\"a b; c\"; path=/; HTTPONLY",
        b"no-value",
        b"=no-name",
        b"",
        b"latin=\xe9\xff; Path=/",
        b"eternal=1; Max-Age=18446744073709551616",
        b"never=1; Max-Age=-99999999999999999999",
        b"odd=1; Max-Age=1e9; Expires=Thu, 32 Foo 1970 25:61:61 GMT",
        b"gone=; Expires=Thu, 01-Jan-1970 00:00:00 GMT",
        b"many=1;;; ; Secure=;Path",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    sent.push([b"large=".to_vec(), vec![b'x'; 16 << 10]].concat());
    sent.extend((0..138).map(|number| format!("c{number}=v; Path=/").into_bytes()));
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_vec();
    for line in &sent {
        answer.extend([b"Set-Cookie: ", &**line, b"\r\n"].concat());
    }
    answer.extend(b"\r\nok");
    let site = Site::scripted(&configured("", LOGIN), move |request, _| {
        (request.target() == "/odd").then(|| Reply::Bytes(answer.clone()))
    });
    let request = b"GET /odd HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let got = raw::raw(site.proxy.address, request);
    assert_eq!(raw::status(&got), 200, "{}", got.escape_ascii());
    let got = lines(&got);
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        assert_eq!(got.escape_ascii().to_string(), sent.escape_ascii().to_string());
    }
}

#[test]
fn the_last_line_of_a_name_counts() {
    let site = Site::scripted(&configured("", LOGIN), |request, shop| {
        let user = request.field("user").unwrap_or_default();
        let lines = |first: &str, last: &str| {
            Some(Reply::page("302 Found", &["Location: /", first, last], ""))
        };
        let sid = set(&shop.issue(&user));
        match (request.target(), &*user) {
            ("/login", "alice") => lines("Set-Cookie: sid=; Path=/; Max-Age=0", &sid),
            ("/login", "bob") => lines(&sid, "Set-Cookie: sid=; Path=/; Max-Age=0"),
            ("/login", "carol") => {
                lines(&sid, "Set-Cookie: sid=x; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
            }
            _ => None,
        }
    });
    assert_serves(&mut site.signed_in("alice"), "alice");
    assert_eq!(site.proxy.live("alice"), 1);
    for user in ["bob", "carol"] {
        let login = Request::form("/login", &[("user", user)]).header("Host", "shop");
        assert_eq!(http::send(site.proxy.address, &login).status, 302);
        assert_eq!(site.proxy.live(user), 0, "{user} was given nothing that lasts");
    }
}

#[test]
fn an_answer_may_have_so_many_header_lines() {
    for (keys, count, status) in
        [("", 190, 200), ("", 201, 502), ("upstream.headers = 400", 390, 200)]
    {
        let many: String = (0..count).map(|number| format!("X-{number}: 1\r\n")).collect();
        let site = Site::scripted(&configured(keys, LOGIN), move |request, _| {
            let answer = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 2\r\n\r\nok");
            (request.target() == "/odd").then(|| Reply::Bytes(answer.into_bytes()))
        });
        let answer = http::send(site.proxy.address, &Request::get("/odd").header("Host", "shop"));
        assert_eq!(answer.status, status, "{count} {keys}");
    }
}
