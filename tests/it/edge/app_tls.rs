//! An app that speaks TLS, or listens on a unix socket: Node's servers, and certificates of all kinds.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::*;
use crate::support::raw;

const URL: &str = "http://shop.test/";

/// Where the app is, and that its certificate must be for `name`.
fn at(app: &OtherApp, ca: &str, name: &str) -> String {
    let ca = pki(&format!("{ca}.pem"));
    format!(
        "upstream.url = \"https://127.0.0.1:{}\"\nupstream.ca = {ca:?}\nupstream.server_name = \"{name}\"\n",
        app.place
    )
}

/// The limit holds, whatever the app speaks.
#[track_caller]
fn check(proxy: &Proxy) {
    let (first, second) = (Curl::new(proxy, &[]), Curl::new(proxy, &[]));
    first.sign_in("http://shop.test", "alice");
    assert!(first.get(URL, &[]).said("cookie").starts_with("sid=S-alice-"));
    second.sign_in("http://shop.test", "alice");
    assert_eq!(first.get(URL, &[]).status, 401);
    let answer = second.get(URL, &["-d", &"x".repeat(100_000)]);
    assert_eq!((&*answer.said("host"), &*answer.said("length")), ("shop.test", "100000"));
}

#[test]
fn an_app_that_speaks_tls_is_known_by_its_certificate() {
    let app = OtherApp::secure("https", "shop");
    let proxy = proxy_to(&at(&app, "ca", "shop.test"));
    check(&proxy);
    let answer = Curl::new(&proxy, &[]).get(URL, &[]);
    assert_eq!((&*answer.said("sni"), &*answer.said("version")), ("shop.test", "1.1"));
    // Connections are kept here too.
    let before = app.said("connection").len();
    Curl::new(&proxy, &[]).run(URL, &[URL; 20]);
    assert!(app.said("connection").len() <= before + 2);
}

#[test]
fn an_app_that_cannot_be_believed_gets_nothing() {
    let (app, expired) = (OtherApp::secure("https", "shop"), OtherApp::secure("https", "expired"));
    let cases = [
        (at(&app, "ca", "other.test"), "not valid for name"),
        (at(&expired, "ca", "shop.test"), "expired"),
        (at(&app, "stranger-ca", "shop.test"), "UnknownIssuer"),
        // The authorities of the system do not know it either.
        (
            format!(
                "upstream.url = \"https://127.0.0.1:{}\"\nupstream.server_name = \"shop.test\"\n",
                app.place
            ),
            "UnknownIssuer",
        ),
        (format!("upstream.url = \"https://127.0.0.1:{}\"\n", app.place), "TLS"),
    ];
    for (keys, reason) in cases {
        let proxy = proxy_to(&keys);
        let answer = Curl::new(&proxy, &[]).get(URL, &["-d", "secret=1"]);
        assert_eq!(answer.status, 502, "{keys}");
        wait_for_refusal(&proxy, "upstream_tls");
        let log = proxy.log().join("\n");
        assert!(log.contains("cannot connect to the app: TLS: ") && log.contains(reason), "{log}");
        assert_eq!(proxy.live("alice"), 0);
    }
    // An app that speaks no TLS at all, and one that never says anything.
    let plain = OtherApp::node(&["http1", "0"]);
    let proxy = proxy_to(&at(&plain, "ca", "shop.test"));
    assert_eq!(Curl::new(&proxy, &[]).get(URL, &[]).status, 502);
    wait_for_refusal(&proxy, "upstream_tls");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("upstream.url = \"https://{}\"\n", silent.local_addr().unwrap());
    let ca = pki("ca.pem");
    let proxy =
        proxy_to(&format!("{url}upstream.ca = {ca:?}\nupstream.timeouts.connect = \"300ms\"\n"));
    let started = Instant::now();
    assert_eq!(Curl::new(&proxy, &[]).get(URL, &[]).status, 504);
    assert!(started.elapsed() < Duration::from_secs(5), "the handshake is part of connecting");
}

#[test]
fn the_app_can_ask_who_we_are_and_files_are_read_again() {
    let folder = TempDir::new().unwrap();
    let at_path = |name: &str| folder.path().join(name);
    let install = |from: &str| {
        for suffix in ["pem", "key"] {
            std::fs::copy(pki(&format!("{from}.{suffix}")), at_path(&format!("us.{suffix}")))
                .unwrap();
        }
    };
    install("stranger");
    let (pem, key, ca) = (pki("shop.pem"), pki("shop.key"), pki("ca.pem"));
    let files = [&pem, &key, &ca].map(|path| path.to_str().unwrap());
    let app = OtherApp::node(&["https", "0", files[0], files[1], files[2]]);
    let (certificate, key) = (at_path("us.pem"), at_path("us.key"));
    let ours =
        format!("upstream.client_certificate = {certificate:?}\nupstream.client_key = {key:?}\n");
    let proxy = proxy_to(&format!("{}{ours}", at(&app, "ca", "shop.test")));
    let curl = Curl::new(&proxy, &[]);
    assert_eq!(curl.get(URL, &[]).status, 502);
    install("client");
    proxy.signal("HUP");
    eventually("the new certificate is shown", || (curl.get(URL, &[]).status == 200).then_some(()));
    assert_eq!(curl.get(URL, &[]).said("peer"), "client");
    // What cannot be used changes nothing.
    std::fs::write(at_path("us.key"), "nothing").unwrap();
    proxy.signal("HUP");
    eventually("the failure is told", || {
        proxy.log().into_iter().find(|line| line.contains("configuration not reloaded"))
    });
    assert_eq!(curl.get(URL, &[]).status, 200);
}

#[test]
fn mistakes_are_found_before_anything_starts() {
    let complaint = |keys: &str| {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("text.pem"), "no certificate").unwrap();
        let toml = format!("[upstream]\n{keys}[limit]\nmax_sessions = 1\n{RULES}");
        std::fs::write(folder.path().join("headcount.toml"), toml).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .args(["check", "-c", "headcount.toml"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(checked.status.code(), Some(2));
        String::from_utf8_lossy(&checked.stderr).into_owned()
    };
    let url = "url = \"https://127.0.0.1:1\"\n";
    let table = [
        ("ca = \"none.pem\"\n", "cannot read none.pem: No such file"),
        ("ca = \"text.pem\"\n", "text.pem holds no certificate"),
        ("client_key = \"text.pem\"\n", "`upstream.client_certificate` is missing beside"),
        ("client_certificate = \"text.pem\"\n", "`upstream.client_key` is missing beside"),
        ("server_name = \"a b\"\n", "is not a name that a certificate can be for"),
        ("http_version = \"3\"\n", "`upstream.http_version`"),
    ];
    for (keys, expected) in table {
        let said = complaint(&format!("{url}{keys}"));
        assert!(said.contains(expected) && said.contains("headcount.toml:"), "{keys}: {said}");
    }
    let said = complaint("url = \"http://127.0.0.1:1\"\nca = \"text.pem\"\n");
    assert!(said.contains("`upstream.ca` says nothing about an app without TLS"), "{said}");
}

#[test]
fn an_app_on_a_unix_socket_is_served() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("app.sock");
    let app = OtherApp::node(&["http1", socket.to_str().unwrap()]);
    let proxy = proxy_to(&format!("upstream.url = \"unix:{}\"\n", app.place));
    check(&proxy);
    tunnel(&proxy, &app);
    let old = raw::raw(proxy.address, b"GET / HTTP/1.0\r\n\r\n");
    assert!(String::from_utf8_lossy(&old).contains("\"host\":\"localhost\""));
    drop(app);
    assert_eq!(Curl::new(&proxy, &[]).get(URL, &[]).status, 502);
    wait_for_refusal(&proxy, "upstream_unreachable");
}

/// Bytes pass both ways, and the end of the session ends the tunnel on both sides.
#[track_caller]
pub(super) fn tunnel(proxy: &Proxy, app: &OtherApp) {
    let answer = Curl::new(proxy, &[]).sign_in("http://shop.test", "carol");
    let line = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = line.unwrap().split(';').next().unwrap();
    let mut stream = raw::connect(proxy.address);
    write!(stream, "GET /ws HTTP/1.1\r\nHost: shop.test\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert_eq!(raw::status(&head), 101, "{}", String::from_utf8_lossy(&head));
    let sent: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut heard = vec![0; sent.len()];
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent).unwrap());
        stream.read_exact(&mut heard).unwrap();
    });
    assert!(heard == sent);
    let closed = app.said("tunnel").len();
    let session = proxy.sessions("carol", "live")[0]["id"].as_str().unwrap().to_owned();
    let started = Instant::now();
    proxy.admin("DELETE", &format!("/api/v1/sessions/{session}"));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(started.elapsed() < Duration::from_secs(2));
    eventually("the app's side is closed", || (app.said("tunnel").len() > closed).then_some(()));
}

#[test]
fn tunnels_pass_through_tls() {
    let app = OtherApp::secure("https", "shop");
    let proxy = proxy_to(&at(&app, "ca", "shop.test"));
    tunnel(&proxy, &app);
}
