//! From the start to the end of the process: another configuration while it runs, the way out, and
//! what stands in its place afterwards. The proxy is the real one, before a scripted app.

mod deploy;
mod drain;
mod load;
mod monitoring;
mod reload;
mod restart;
mod store;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::http::{Connection, Request};
use crate::support::legacy::{Arrived, LegacyApp, RULES, Reply};
use crate::support::proxy::Proxy;

/// An app that signs in whoever gives a name; what it answers begins with `name`.
fn app(name: &'static str) -> LegacyApp {
    LegacyApp::start(move |request| answer(name, request))
}

fn answer(name: &str, request: &Arrived) -> Reply {
    static ISSUED: AtomicUsize = AtomicUsize::new(0);
    match request.target() {
        "/login" | "/enter" => {
            let user = request.field("user").unwrap_or_default();
            let value = ISSUED.fetch_add(1, Ordering::Relaxed);
            let cookie = format!("Set-Cookie: sid=S{value}-{user}; Path=/");
            Reply::page("302 Found", &["Location: /", &cookie], "")
        }
        "/slow" => {
            std::thread::sleep(Duration::from_millis(700));
            Reply::page("200 OK", &[], "slow")
        }
        "/stream" => Reply::Stream(Box::new(|stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            while stream.write_all(&[b'x'; 64]).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        })),
        _ => {
            let cookie = request.header("cookie").unwrap_or_default();
            Reply::page("200 OK", &["Content-Type: text/html"], &format!("{name} {cookie}"))
        }
    }
}

/// The proxy before the app; `keys` are dotted keys.
#[track_caller]
fn proxy(app: &LegacyApp, keys: &str) -> Proxy {
    Proxy::start(app.address, None, &format!("{keys}\n{RULES}"))
}

/// A browser in which the user has signed in.
#[track_caller]
fn signed_in(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    let answer = browser.post("/login", &[("user", user)]);
    assert_eq!(answer.status, 302, "{}", answer.text());
    browser
}

/// The value of a metric.
#[track_caller]
fn count(proxy: &Proxy, metric: &str) -> u64 {
    let metrics = proxy.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric));
    line.unwrap_or_else(|| panic!("no {metric}")).trim().parse().unwrap()
}

/// One request on a connection that stays open.
fn ask(connection: &mut Connection, address: SocketAddr, path: &str) -> std::io::Result<String> {
    let request = Request::get(path).header("Host", &address.to_string());
    connection.exchange(&request).map(|(response, _)| response.text())
}
