//! Sending to scripted apps over real sockets, through the real listener.

use std::net::SocketAddr;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::body::Body;
use crate::lifecycle::Lifecycle;
use crate::listener::{Edge, Hooks, Service, bind, serve};
use crate::peer::Peer;
use crate::settings::ServerSettings;
use crate::testing::{
    App as ScriptedApp, Client, answer, render, server_settings, soon, until, upstream_settings,
};

/// The least a proxy does.
struct Relay {
    upstream: Upstream,
    settings: ServerSettings,
    body_idle_timeout: Duration,
    cut: CancellationToken,
    kept: Arc<()>,
    errors: Mutex<Vec<String>>,
}

impl Service for Relay {
    async fn call(&self, _peer: Peer, mut request: Request<Incoming>) -> Response<Body> {
        let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
        let limits = &self.settings.limits;
        let idle_timeout = Duration::from_millis(limits.body_idle_timeout_ms);
        let (parts, body) = request.into_parts();
        let body = match RequestBody::client(body, limits.body_bytes_max, idle_timeout) {
            Ok(body) => body,
            Err(refusal) => return answer(refusal),
        };
        match self.upstream.send(Permit::own(), Request::from_parts(parts, body)).await {
            Ok(mut response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let app = hyper::upgrade::on(&mut response);
                let (client, session) = (upgrade.unwrap(), self.cut.clone());
                tokio::spawn(async move {
                    let (client, app) = (client.await.unwrap(), app.await.unwrap());
                    let ends = crate::tunnel::Ends { session, drain: CancellationToken::new() };
                    crate::tunnel::relay(client, app, ends, || {}, |_| {}).await;
                });
                response.map(|_| Body::Empty)
            }
            Ok(response) => response.map(|body| {
                let keep = Box::new(Arc::clone(&self.kept));
                Body::upstream(body, self.body_idle_timeout, Some(self.cut.clone()), Some(keep))
            }),
            Err(error) => {
                self.errors.lock().push(error.to_string());
                answer(error.refusal())
            }
        }
    }
}

struct Running {
    address: SocketAddr,
    app: ScriptedApp,
    relay: Arc<Relay>,
}

impl Running {
    async fn get(&self) -> Client {
        self.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await
    }

    async fn ask(&self, request: &str) -> Client {
        let mut client = Client::connect(self.address).await;
        client.send(request).await;
        client
    }

    fn resting(&self) -> usize {
        self.relay.upstream.pool.resting()
    }
}

async fn start(change: impl FnOnce(&mut ServerSettings, &mut UpstreamSettings)) -> Running {
    let app = ScriptedApp::bind().await;
    let (mut settings, mut upstream) = (server_settings(), upstream_settings(app.address()));
    change(&mut settings, &mut upstream);
    let relay = Arc::new(Relay {
        upstream: Upstream::new(&upstream, App::new(&upstream, None)),
        settings: settings.clone(),
        body_idle_timeout: Duration::from_millis(upstream.body_idle_timeout_ms),
        cut: CancellationToken::new(),
        kept: Arc::new(()),
        errors: Mutex::default(),
    });
    let listener = bind(&settings.listen[0], false, 0).unwrap();
    let address = listener.address(&settings.listen[0]).unwrap().tcp().unwrap();
    let (render, answer) = (Box::new(render), Box::new(answer));
    let hooks = Hooks { render, answer, on_refused: Box::new(|_, _| {}) };
    let edge = Arc::new(Edge::new(&settings, None, hooks, Lifecycle::new()));
    let service = Arc::clone(&relay);
    tokio::spawn(async move { serve(listener, service, edge).await });
    Running { address, app, relay }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_finished_connection_is_used_again() {
    let running = start(|_, _| {}).await;
    let mut client = running.get().await;
    let mut app = running.app.accept().await;
    for _ in 0..3 {
        let head = app.up_to("\r\n\r\n").await;
        assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
        // In pieces: it must not come back before its end.
        app.send(&OK[..OK.len() - 1]).await;
        client.up_to("\r\n\r\no").await;
        assert_eq!(running.resting(), 0);
        app.send("k").await;
        client.up_to("k").await;
        until(|| running.resting() == 1).await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    }
    app.up_to("\r\n\r\n").await;
    running.app.nobody_else().await;
}

#[tokio::test]
async fn framing_is_kept_and_trailers_are_not() {
    let running = start(|_, _| {}).await;
    let mut client = running.ask("POST / HTTP/1.1\r\nHost: x\r\nTrailer: Cookie\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nCookie: a=b\r\n\r\n").await;
    let mut app = running.app.accept().await;
    let request = app.up_to("0\r\n\r\n").await;
    assert!(request.ends_with("\r\n\r\n2\r\nab\r\n0\r\n\r\n"), "{request}");
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n").await;
    assert!(client.up_to("0\r\n\r\n").await.ends_with("\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab").await;
    until(|| running.resting() == 0).await;
    let request = app.up_to("\r\n\r\nab").await;
    assert!(request.contains("content-length: 2\r\n"), "{request}");
    app.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    app.send(OK).await;
    let answer = client.up_to("ok").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"), "{answer}");
}

#[tokio::test]
async fn each_side_is_spoken_to_in_its_version() {
    let running = start(|_, _| {}).await;
    let mut client = running.ask("GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
    let mut app = running.app.accept().await;
    assert!(app.up_to("\r\n\r\n").await.starts_with("GET / HTTP/1.1\r\n"));
    app.send(OK).await;
    assert!(client.rest().await.starts_with("HTTP/1.0 200 OK\r\n"));
    let mut client = running.get().await;
    app.up_to("\r\n\r\n").await;
    app.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    drop(app);
    assert!(client.up_to("0\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn surplus_bytes_end_a_connection() {
    let running = start(|_, _| {}).await;
    let mut client = running.get().await;
    let mut app = running.app.accept().await;
    app.up_to("\r\n\r\n").await;
    app.send(format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")).await;
    client.up_to("ok").await;
    assert_eq!(app.rest_or_reset().await, "");
    assert_eq!(running.resting(), 0);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut app = running.app.accept().await;
    app.send(OK).await;
    assert!(client.up_to("ok").await.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn after_an_early_answer_a_connection_is_not_used_again() {
    let running = start(|_, _| {}).await;
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc";
    let mut client = running.ask(post).await;
    let mut app = running.app.accept().await;
    app.up_to("abc").await;
    app.send(OK).await;
    client.up_to("ok").await;
    client.send("def").await;
    assert_eq!(app.rest_or_reset().await, "def");
    let mut other = running.get().await;
    let mut app = running.app.accept().await;
    app.send(OK).await;
    other.up_to("ok").await;
}

#[tokio::test]
async fn an_aborted_upload_closes_both_sides() {
    let running = start(|_, _| {}).await;
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc";
    let client = running.ask(post).await;
    let mut app = running.app.accept().await;
    app.up_to("abc").await;
    drop(client);
    assert_eq!(app.rest_or_reset().await, "");
    assert_eq!(running.resting(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_frees_the_app() {
    let running = start(|_, _| {}).await;
    let mut client = running.get().await;
    let mut app = running.app.accept().await;
    app.up_to("\r\n\r\n").await;
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    client.up_to("1\r\na\r\n").await;
    assert_eq!(Arc::strong_count(&running.relay.kept), 2);
    drop(client);
    assert_eq!(app.rest_or_reset().await, "");
    until(|| Arc::strong_count(&running.relay.kept) == 1).await;
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_nothing() {
    let running = start(|_, _| {}).await;
    let mut client = running.get().await;
    let mut app = running.app.accept().await;
    app.up_to("\r\n\r\n").await;
    app.send(OK).await;
    client.up_to("ok").await;
    until(|| running.resting() == 1).await;
    drop(app);
    until(|| running.resting() == 0).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut app = running.app.accept().await;
    app.send(OK).await;
    client.up_to("ok").await;
}

#[tokio::test]
async fn idle_connections_are_few_and_do_not_stay() {
    let running = start(|_, upstream| {
        upstream.idle_connections_max = 1;
        upstream.idle_timeout_ms = 60;
    })
    .await;
    let (mut first, mut second) = (running.get().await, running.get().await);
    let (mut one, mut two) = (running.app.accept().await, running.app.accept().await);
    for app in [&mut one, &mut two] {
        app.up_to("\r\n\r\n").await;
        app.send(OK).await;
    }
    first.up_to("ok").await;
    second.up_to("ok").await;
    assert_eq!(one.rest_or_reset().await, "");
    assert_eq!(two.rest_or_reset().await, "");
    assert_eq!(running.resting(), 0);
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_sent_again() {
    let running = start(|_, _| {}).await;
    for _ in 0..2 {
        let mut client = running.get().await;
        let mut app = running.app.accept().await;
        app.up_to("\r\n\r\n").await;
        drop(app);
        assert!(client.rest().await.ends_with("upstream_invalid"));
        running.app.nobody_else().await;
    }
}

#[tokio::test]
async fn answers_that_are_not_http_are_refused() {
    let running = start(|_, upstream| upstream.headers_max = 10).await;
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(11));
    let cases = [
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        &many,
    ];
    for case in cases {
        let mut client = running.get().await;
        let mut app = running.app.accept().await;
        app.up_to("\r\n\r\n").await;
        app.send(case).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{case}: {answer}");
        assert!(answer.ends_with("upstream_invalid"), "{case}: {answer}");
        assert_eq!(app.rest_or_reset().await, "");
    }
}

#[tokio::test]
async fn an_app_that_does_not_answer_times_out() {
    let running = start(|_, upstream| upstream.first_byte_timeout_ms = 60).await;
    let mut client = running.get().await;
    let mut app = running.app.accept().await;
    app.up_to("\r\n\r\n").await;
    assert!(client.rest().await.ends_with("upstream_timeout"));
    assert_eq!(app.rest_or_reset().await, "");
}

#[tokio::test]
async fn an_app_that_does_not_read_times_out() {
    let running = start(|settings, upstream| {
        settings.limits.body_bytes_max = None;
        upstream.first_byte_timeout_ms = 100;
    })
    .await;
    let length = 64 << 20;
    let post = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let client = running.ask(&post).await;
    let (mut from, mut to) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut to, &vec![b'a'; length]).await;
    });
    let app = running.app.accept().await;
    let mut status = [0; 12];
    soon(from.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 504");
    drop(from);
    soon(sending).await.unwrap();
    // Nothing is left but the listener, though the app still has not read.
    until(|| tokio::runtime::Handle::current().metrics().num_alive_tasks() == 1).await;
    drop(app);
}

#[tokio::test]
async fn an_upload_with_progress_is_not_timed_out() {
    let running = start(|_, upstream| upstream.first_byte_timeout_ms = 100).await;
    let mut client = running.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n").await;
    let mut app = running.app.accept().await;
    for piece in ["abc", "def", "ghi"] {
        tokio::time::sleep(Duration::from_millis(130)).await;
        client.send(piece).await;
        app.up_to(piece).await;
    }
    app.send(OK).await;
    client.up_to("ok").await;
}

#[tokio::test]
async fn a_body_that_fails_is_the_clients_fault() {
    let running = start(|settings, _| settings.limits.body_idle_timeout_ms = 120).await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let large = "a".repeat(2000);
    let cases = [
        (format!("Content-Length: 2000\r\n\r\n{large}"), "body_too_large", false),
        (format!("{chunked}7d0\r\n{large}\r\n"), "body_too_large", true),
        (format!("{chunked}2\r\nab\r\nX"), "body_invalid", true),
        (format!("{chunked}2\r\nab\r\n"), "body_timeout", true),
        ("Content-Length: 3\r\n\r\nab".into(), "body_timeout", true),
    ];
    for (rest, code, reaches_app) in cases {
        let mut client = running.ask(&format!("POST / HTTP/1.1\r\nHost: x\r\n{rest}")).await;
        let answer = client.rest().await;
        assert!(answer.ends_with(code), "{rest}: {answer}");
        if reaches_app {
            let mut app = running.app.accept().await;
            let seen = app.rest_or_reset().await;
            assert!(!seen.ends_with("0\r\n\r\n"), "completed: {seen}");
        }
    }
    running.app.nobody_else().await;
}

#[tokio::test]
async fn an_app_that_is_not_there_is_unreachable() {
    let running = start(|_, upstream| upstream.authority = "127.0.0.1:1".into()).await;
    assert!(running.get().await.rest().await.ends_with("upstream_unreachable"));
    let running = start(|_, upstream| upstream.authority = "no-such-name.invalid:1".into()).await;
    assert!(running.get().await.rest().await.ends_with("upstream_unreachable"));
}

#[tokio::test]
async fn a_name_is_tried_at_all_its_addresses() {
    // The listener is on IPv4 only; the name may mean IPv6 first.
    let running = start(|_, upstream| {
        let port = upstream.authority.rsplit(':').next().unwrap().to_owned();
        upstream.authority = format!("localhost:{port}");
    })
    .await;
    let mut client = running.get().await;
    let mut app = running.app.accept().await;
    app.send(OK).await;
    client.up_to("ok").await;
}

#[tokio::test]
async fn answers_that_break_off_never_end_cleanly() {
    let running = start(|_, upstream| upstream.body_idle_timeout_ms = 100).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok";
    for (answer, close) in [(chunked, true), (sized, true), (chunked, false), (sized, false)] {
        let mut client = running.get().await;
        let mut app = running.app.accept().await;
        app.up_to("\r\n\r\n").await;
        app.send(answer).await;
        let app = (!close).then_some(app);
        let got = client.rest_or_reset().await;
        assert!(got.contains("ok") && !got.ends_with("0\r\n\r\n"), "{got}");
        drop(app);
    }
    // Where the end of the connection is the end of the body, it must be a reset.
    let mut client = running.ask("GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
    let mut app = running.app.accept().await;
    app.up_to("\r\n\r\n").await;
    app.send(chunked).await;
    let mut all = Vec::new();
    soon(client.stream.read_to_end(&mut all)).await.unwrap_err();
}

#[tokio::test]
async fn a_cut_ends_answers_and_tunnels_at_once() {
    let running = start(|_, _| {}).await;
    let mut streaming = running.get().await;
    let mut app = running.app.accept().await;
    app.up_to("\r\n\r\n").await;
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    streaming.up_to("1\r\na\r\n").await;

    // Takes nothing, so that nobody polls its body.
    let stuck = running.get().await;
    let mut flooding = running.app.accept().await;
    flooding.up_to("\r\n\r\n").await;
    flooding.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 256 << 20)).await;
    let flood = tokio::spawn(async move {
        let piece = Bytes::from(vec![b'a'; 1 << 20]);
        while tokio::io::AsyncWriteExt::write_all(&mut flooding.stream, &piece).await.is_ok() {}
    });

    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\n";
    let mut tunnel = running.ask(upgrade).await;
    let mut far = running.app.accept().await;
    let head = far.up_to("\r\n\r\n").await;
    assert!(head.contains("upgrade: any\r\n"), "{head}");
    far.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\nhi")
        .await;
    tunnel.up_to("\r\n\r\nhi").await;
    tunnel.send("ho").await;
    far.up_to("ho").await;

    running.relay.cut.cancel();
    assert_eq!(streaming.rest_or_reset().await, "");
    assert_eq!(app.rest_or_reset().await, "");
    assert_eq!(tunnel.rest_or_reset().await, "");
    assert_eq!(far.rest_or_reset().await, "");
    soon(flood).await.unwrap();
    until(|| Arc::strong_count(&running.relay.kept) == 1).await;
    drop(stuck);
}
