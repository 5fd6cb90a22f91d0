//! Logins that only the answer's body tells from failures: it is read where a rule needs it, and
//! goes on as it came.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Site, assert_serves, assert_told, configured, set};
use crate::support::http::{self, Connection, Request, Response};
use crate::support::legacy::{Arrived, Reply};

/// Success, and the name in the app's own spelling, are in a JSON document.
const LOGIN_TOLD_IN_JSON: &str = r#"
[[login]]
request = { methods = ["POST"], path = "/api/login" }
success = { status = [200], sets = "sid", is = { "rjson:/ok" = "true" } }
user = ["rjson:/user/name"]
"#;

/// The page of a failure is told by what it does not say.
const LOGIN_TOLD_IN_HTML: &str = r#"
[[login]]
request = { methods = ["POST"], path = "/api/login" }
success = { sets = "sid", is = { "rbody:(wrong password)" = "!?*" } }
user = ["rbody:(?i)signed in as <b>([^<|]+)</b> | trim", "form:user"]
"#;

fn site(login: &str, script: impl Fn(&Arrived, &str) -> Reply + Send + Sync + 'static) -> Site {
    Site::scripted(&configured("upstream.inspect = \"4KiB\"", login), move |request, shop| {
        let login = request.target().starts_with("/api/login") && request.method() == "POST";
        login.then(|| script(request, &shop.issue("alice")))
    })
}

fn told(ok: bool, name: &str, rest: &str) -> String {
    format!(r#"{{"ok":{ok},"user":{{"name":"{name}"}},"rest":"{rest}"}}"#)
}

fn page(sid: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut page = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
    for header in [&set(sid)].into_iter().map(String::as_str).chain(headers.iter().copied()) {
        page.push_str(header);
        page.push_str("\r\n");
    }
    page.push_str("\r\n");
    [page.as_bytes(), body].concat()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn login(site: &Site, target: &str) -> Response {
    let request = Request::form(target, &[("user", "typed")])
        .header("Host", "shop")
        .header("Accept-Encoding", "gzip, br");
    http::send(site.proxy.address, &request)
}

#[test]
fn a_login_is_told_by_the_body_and_so_is_the_user() {
    let site = site(LOGIN_TOLD_IN_JSON, |request, sid| {
        let ok = !request.target().ends_with("?wrong");
        Reply::Bytes(page(sid, &["Content-Type: text/plain"], told(ok, "Alice", "").as_bytes()))
    });
    let mut first = site.proxy.browser();
    let answer = first.post("/api/login", &[("user", "typed")]);
    assert_eq!((answer.status, answer.text()), (200, told(true, "Alice", "")));
    assert_serves(&mut first, "alice");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("typed")), (1, 0));

    let answer = site.proxy.browser().post("/api/login?wrong", &[("user", "alice")]);
    assert_eq!((answer.status, answer.text()), (200, told(false, "Alice", "")));
    assert_serves(&mut first, "alice");
    site.proxy.has_events("session_created", "alice", 1);

    site.proxy.browser().post("/api/login", &[("user", "typed")]);
    assert_told(&mut first, "limit");
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn the_app_is_asked_not_to_compress_only_where_a_rule_looks_into_its_answer() {
    let site = site(LOGIN_TOLD_IN_JSON, |_, sid| {
        Reply::Bytes(page(sid, &[], told(true, "alice", "").as_bytes()))
    });
    login(&site, "/api/login");
    let seen = site.seen("/api/login").pop().unwrap();
    assert_eq!(seen.headers("accept-encoding").collect::<Vec<_>>(), ["identity"]);
    let page = Request::get("/page").header("Host", "shop").header("Accept-Encoding", "gzip, br");
    http::send(site.proxy.address, &page);
    assert_eq!(site.seen("/page").pop().unwrap().header("accept-encoding"), Some("gzip, br"));
}

#[test]
fn a_compressed_answer_is_read_and_passed_on_as_it_came() {
    let packed = gzip(told(true, "alice", "").as_bytes());
    let sent = packed.clone();
    let site = site(LOGIN_TOLD_IN_JSON, move |_, sid| {
        Reply::Bytes(page(sid, &["Content-Encoding: gzip"], &sent))
    });
    let answer = login(&site, "/api/login");
    assert_eq!((answer.status, &answer.body), (200, &packed));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.header("content-length"), Some(&*packed.len().to_string()));
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn what_cannot_be_read_proves_nothing_and_is_passed_on_as_it_came() {
    let large = told(true, "alice", &"x".repeat(1 << 20));
    let bomb = gzip(large.as_bytes());
    let packed = bomb.clone();
    for rule in [LOGIN_TOLD_IN_JSON, LOGIN_TOLD_IN_HTML] {
        let (large, packed) = (large.clone(), packed.clone());
        let plain = large.clone();
        let site = site(rule, move |request, sid| {
            Reply::Bytes(match request.target() {
                "/api/login?large" => page(sid, &[], large.as_bytes()),
                "/api/login?bomb" => page(sid, &["Content-Encoding: gzip"], &packed),
                "/api/login?zstd" => page(sid, &["Content-Encoding: zstd"], b"{}"),
                _ => {
                    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", set(sid));
                    let body = large.as_bytes().chunks(3_000).flat_map(|chunk| {
                        [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
                    });
                    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
                    let body: Vec<u8> = body.collect();
                    [head.as_bytes(), chunked.as_bytes(), &body, b"0\r\n\r\n"].concat()
                }
            })
        });
        for (target, body) in [
            ("/api/login?large", plain.as_bytes()),
            ("/api/login?chunked", plain.as_bytes()),
            ("/api/login?bomb", &bomb),
            ("/api/login?zstd", b"{}"),
        ] {
            let answer = login(&site, target);
            assert_eq!(answer.status, 200, "{target}");
            assert!(answer.body == body, "{target}: {} bytes", answer.body.len());
        }
        assert_eq!((site.proxy.live("alice"), site.proxy.live("typed")), (0, 0));
    }
}

#[test]
fn a_page_is_searched_for_the_name_and_for_what_failures_say() {
    let site = site(LOGIN_TOLD_IN_HTML, |request, sid| {
        let body: &[u8] = match request.target() {
            "/api/login?wrong" => b"<p>Sorry: wrong password",
            "/api/login?named" => b"<p>Signed in as <b> Bob </b>",
            _ => b"<p>Welcome",
        };
        Reply::Bytes(page(sid, &[], body))
    });
    login(&site, "/api/login?wrong");
    assert_eq!((site.proxy.live("bob"), site.proxy.live("typed")), (0, 0));
    login(&site, "/api/login?named");
    login(&site, "/api/login?other");
    assert_eq!((site.proxy.live("bob"), site.proxy.live("typed")), (1, 1));
}

#[test]
fn an_answer_without_a_body_or_with_half_of_one_is_no_login() {
    let site = site(LOGIN_TOLD_IN_JSON, |request, sid| {
        let set = set(sid);
        match request.target() {
            "/api/login?none" => {
                Reply::Bytes(format!("HTTP/1.1 204 No Content\r\n{set}\r\n\r\n").into_bytes())
            }
            "/api/login?304" => Reply::Bytes(
                format!("HTTP/1.1 304 Not Modified\r\n{set}\r\nContent-Length: 90\r\n\r\n")
                    .into_bytes(),
            ),
            _ => Reply::Last(
                format!("HTTP/1.1 200 OK\r\n{set}\r\nContent-Length: 90\r\n\r\n{{\"ok\":")
                    .into_bytes(),
            ),
        }
    });
    assert_eq!(login(&site, "/api/login?none").status, 204);
    assert_eq!(login(&site, "/api/login?304").status, 304);
    assert_eq!(login(&site, "/api/login?half").status, 502);
    site.wait_for_refusal("upstream_invalid");
    assert_eq!((site.proxy.live("alice"), site.proxy.live("typed")), (0, 0));
}

#[test]
fn an_answer_that_trickles_is_passed_on_in_time() {
    let keys = "upstream.timeouts.body_idle = \"300ms\"";
    let site = Site::scripted(&configured(keys, LOGIN_TOLD_IN_JSON), |request, _| {
        (request.target() == "/api/login").then(|| {
            Reply::Stream(Box::new(|stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=slow\r\n\r\n");
                while stream.write_all(b" ").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            }))
        })
    });
    let mut connection = Connection::open(site.proxy.address).unwrap();
    let request = Request::form("/api/login", &[("user", "typed")]).header("Host", "shop");
    connection.write(&request.bytes()).unwrap();
    assert_eq!(connection.read_head().unwrap().0, 200);
    assert_eq!(site.proxy.live("typed"), 0);
}
