//! An app that speaks HTTP/2: Node's server for what apps do, Python's h2 for what they seldom do.

use std::time::{Duration, Instant};

use super::app_tls::tunnel;
use super::*;
use crate::support::http::{self, Request};

const URL: &str = "http://shop.test/";

/// An app that speaks HTTP/2 without TLS.
fn plain(app: &OtherApp) -> String {
    format!(
        "upstream.url = \"http://127.0.0.1:{}\"\nupstream.http_version = \"2\"\nserver.workers = 1\n",
        app.place
    )
}

fn secure(app: &OtherApp, version: &str) -> String {
    let ca = pki("ca.pem");
    format!(
        "upstream.url = \"https://127.0.0.1:{}\"\nupstream.ca = {ca:?}\nupstream.server_name = \"shop.test\"\nupstream.http_version = \"{version}\"\nserver.workers = 1\n",
        app.place
    )
}

#[track_caller]
fn check(proxy: &Proxy, version: &str) {
    let (first, second) = (Curl::new(proxy, &[]), Curl::new(proxy, &[]));
    first.sign_in("http://shop.test", "alice");
    let answer = first.get(&format!("{URL}a?b=c"), &["-H", "Cookie: other=1"]);
    assert_eq!((&*answer.said("version"), &*answer.said("host")), (version, "shop.test"));
    assert_eq!(answer.said("target"), "/a?b=c");
    second.sign_in("http://shop.test", "alice");
    assert_eq!(first.get(URL, &[]).status, 401);
    assert!(second.get(URL, &[]).said("cookie").starts_with("sid=S-alice-"));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'y'; 5 << 20]).unwrap();
    let upload = ["-H", "Expect:", "-T", file.to_str().unwrap()];
    let answer = second.get(URL, &upload);
    assert_eq!((&*answer.said("length"), &*answer.said("method")), ("5242880", "PUT"));
    let hash = "d9c660a0ecee6a1248fcee92e19a9edacb0912c155165b3362ab652fe5739316";
    assert_eq!(answer.said("hash"), hash, "of the five MiB that were sent");
    let big = second.get(&format!("{URL}big"), &[]);
    assert_eq!(big.body.len(), 8 << 20);
    assert_eq!(second.get(URL, &["-X", "OPTIONS", "--request-target", "*"]).said("target"), "*");
    assert_eq!(second.get(&format!("{URL}early"), &upload).status, 413);
    assert_eq!(second.get(URL, &["-I"]).status, 200);
}

#[test]
fn over_tls_http2_is_agreed_on() {
    for (kind, version, spoken) in
        [("h2", "2", "2.0"), ("h2", "auto", "2.0"), ("https", "auto", "1.1"), ("h2", "1.1", "1.1")]
    {
        let app = OtherApp::secure(kind, "shop");
        let proxy = proxy_to(&secure(&app, version));
        check(&proxy, spoken);
        let protocols = app.said("connection");
        let wanted = if spoken == "2.0" { "h2" } else { "http/1.1" };
        assert!(protocols.iter().all(|said| said["connection"] == wanted), "{protocols:?}");
        // A WebSocket needs HTTP/1.1, for which it gets a connection of its own.
        tunnel(&proxy, &app);
    }
    let app = OtherApp::secure("https", "shop");
    let proxy = proxy_to(&secure(&app, "2"));
    assert_eq!(Curl::new(&proxy, &[]).get(URL, &[]).status, 502);
    wait_for_refusal(&proxy, "upstream_tls");
}

#[test]
fn without_tls_http2_is_known_beforehand() {
    let app = OtherApp::node(&["h2c", "0"]);
    let proxy = proxy_to(&plain(&app));
    check(&proxy, "2.0");
}

#[test]
fn requests_share_a_connection_that_is_left_when_idle() {
    let app = OtherApp::node(&["h2c", "0"]);
    let proxy = proxy_to(&format!("{}upstream.timeouts.idle = \"2s\"\n", plain(&app)));
    let curl = Curl::new(&proxy, &["-Z", "--parallel-max", "40", "--fail"]);
    let slow = format!("{URL}slow");
    let more: Vec<&str> = vec![&slow; 39];
    let started = Instant::now();
    assert!(curl.run(&slow, &more).status.success());
    assert!(started.elapsed() < Duration::from_secs(8), "at the same time");
    assert_eq!(app.said("connection").len(), 1);
    // Aborted requests end at the app, and hurt no others.
    let curl = Curl::new(&proxy, &["--max-time", "0.5"]);
    assert!(!curl.run(&format!("{URL}stream"), &[]).status.success());
    eventually("the app is told", || (!app.said("stream").is_empty()).then_some(()));
    assert_eq!(Curl::new(&proxy, &[]).get(URL, &[]).status, 200);
    assert_eq!(app.said("connection").len(), 1);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(Curl::new(&proxy, &[]).get(URL, &[]).status, 200);
    eventually("the first was left", || (app.said("connection").len() == 2).then_some(()));
}

/// What happens to one request with a body and one without, before an app that does as the case says.
struct Case {
    app: OtherApp,
    proxy: Proxy,
    get: u16,
    post: u16,
}

impl Case {
    #[track_caller]
    fn run(case: &str, keys: &str) -> Self {
        let app = OtherApp::frames(case);
        let proxy = proxy_to(&format!("{}{keys}", plain(&app)));
        let get = Curl::new(&proxy, &[]).get(URL, &[]).status;
        let post = Curl::new(&proxy, &[]).get(URL, &["-d", "a=b"]).status;
        Self { app, proxy, get, post }
    }

    fn requests(&self) -> usize {
        self.app.said("request").len()
    }
}

#[test]
fn only_what_the_app_has_not_processed_is_sent_again() {
    // Refused unprocessed: the GET goes out again, on another connection.
    let case = Case::run("refuse", "");
    assert_eq!((case.get, case.post, case.requests()), (200, 200, 3));
    let case = Case::run("goaway_before", "");
    assert_eq!((case.get, case.post, case.requests()), (200, 200, 3));
    // Once only.
    let case = Case::run("refuse_all", "");
    assert_eq!((case.get, case.post, case.requests()), (502, 502, 3));
    // It may have been processed: never again.
    for name in ["goaway_at", "goaway_error"] {
        let case = Case::run(name, "");
        assert_eq!((case.get, case.post, case.requests()), (502, 200, 2), "{name}");
    }
    for name in ["reset", "close"] {
        let case = Case::run(name, "");
        assert_eq!((case.get, case.post, case.requests()), (502, 502, 2), "{name}");
    }
    // An app that is restarted: what it has it answers, the next goes elsewhere.
    let case = Case::run("goaway_after", "");
    assert_eq!((case.get, case.post, case.requests()), (200, 200, 2));
    let connections: Vec<_> =
        case.app.said("request").iter().map(|said| said["connection"].as_u64().unwrap()).collect();
    assert_eq!(connections, [0, 1]);
}

#[test]
fn answers_have_their_limits() {
    for name in ["many_headers", "large_headers"] {
        let case = Case::run(name, "");
        assert_eq!((case.get, case.post, case.requests()), (502, 502, 2), "{name}");
        wait_for_refusal(&case.proxy, "upstream_invalid");
    }
}

#[test]
fn an_app_that_does_not_speak_it_is_told_apart() {
    let case = Case::run("not_http2", "");
    assert_eq!((case.get, case.post), (502, 502));
    wait_for_refusal(&case.proxy, "upstream_invalid");
    let started = Instant::now();
    let case = Case::run("silent", "upstream.timeouts.connect = \"300ms\"\n");
    assert_eq!((case.get, case.post), (504, 504));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_app_gets_no_more_streams_than_it_allows() {
    let app = OtherApp::frames("one_stream");
    let proxy = proxy_to(&plain(&app));
    std::thread::scope(|scope| {
        for _ in 0..10 {
            let address = proxy.address;
            scope.spawn(move || {
                for _ in 0..3 {
                    let request = Request::get("/").header("Host", "shop.test");
                    assert_eq!(http::send(address, &request).status, 200);
                }
            });
        }
    });
    assert_eq!(app.said("request").len(), 30);
    assert!(app.said("too_many").is_empty());
    assert!(app.said("connection").iter().filter(|said| said["request"].is_null()).count() > 1);
}

#[test]
fn a_connection_without_a_sign_of_life_is_cut() {
    let app = OtherApp::frames("no_pong");
    let keys =
        "upstream.timeouts.ping_interval = \"300ms\"\nupstream.timeouts.ping_timeout = \"300ms\"\n";
    let proxy = proxy_to(&format!("{}{keys}", plain(&app)));
    let started = Instant::now();
    let output = Curl::new(&proxy, &[]).run(URL, &[]);
    assert!(!output.status.success(), "the answer has begun and never ends");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
