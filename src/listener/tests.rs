//! The listener and its connections, from the client's side.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, copy, split};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::body::read_limited;
use crate::testing::{Client, answer as answer_page, render, server_settings, soon, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A page for each thing a service may do.
#[derive(Default)]
pub(crate) struct Site {
    calls: AtomicUsize,
    go_on: Notify,
}

impl Service for Site {
    async fn call(&self, _peer: Peer, request: Request<Incoming>) -> Response<Body> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/panic" => panic!("as asked"),
            "/wait" => self.go_on.notified().await,
            "/large" => return Response::new(Body::Full(Bytes::from(vec![b'x'; 64 << 20]))),
            "/read" => {
                let body = read_limited(request.into_body(), 1024, Duration::from_millis(150));
                return match body.await {
                    Ok(body) => Response::new(Body::from(body)),
                    Err(refusal) => answer_page(refusal),
                };
            }
            "/upgrade" => {
                let upgrade = hyper::upgrade::on(request);
                tokio::spawn(async move {
                    let (mut from, mut to) = split(TokioIo::new(upgrade.await.unwrap()));
                    copy(&mut from, &mut to).await.unwrap();
                });
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert("upgrade", "echo".parse().unwrap());
                return response;
            }
            _ => {}
        }
        Response::new(Body::Full(Bytes::from_static(b"hello")))
    }
}

type Refusals = Arc<Mutex<Vec<(Peer, Refusal)>>>;

pub(crate) fn edge(settings: &ServerSettings, refusals: &Refusals) -> Arc<Edge> {
    let refusals = Arc::clone(refusals);
    let on_refused = move |refusal, peer| refusals.lock().push((peer, refusal));
    let (render, answer) = (Box::new(render), Box::new(answer_page));
    let hooks = Hooks { render, answer, on_refused: Box::new(on_refused) };
    Arc::new(Edge::new(settings, None, hooks, Lifecycle::new()))
}

struct Running {
    address: SocketAddr,
    site: Arc<Site>,
    life: Lifecycle,
    served: JoinHandle<io::Result<()>>,
    refusals: Refusals,
}

impl Running {
    /// What was reported about a client.
    fn refused(&self, client: &Client) -> Vec<Refusal> {
        let me = client.stream.local_addr().unwrap();
        let refusals = self.refusals.lock();
        refusals
            .iter()
            .filter(|(peer, _)| peer.address == Some(me))
            .map(|(_, refusal)| *refusal)
            .collect()
    }

    fn assert_page(&self, page: &str, client: &Client, refusal: Refusal) {
        assert_eq!(page.as_bytes(), render(refusal), "{page}");
        assert_eq!(self.refused(client), [refusal]);
    }
}

fn start(change: impl FnOnce(&mut ServerSettings)) -> Running {
    let mut settings = server_settings();
    change(&mut settings);
    let listener = bind(&settings.listen[0], false, 0).unwrap();
    let address = listener.address(&settings.listen[0]).unwrap().tcp().unwrap();
    let refusals = Refusals::default();
    let (site, edge) = (Arc::new(Site::default()), edge(&settings, &refusals));
    let life = edge.lifecycle().clone();
    let service = Arc::clone(&site);
    let served = tokio::spawn(async move { serve(listener, service, edge).await });
    Running { address, site, life, served, refusals }
}

#[tokio::test]
async fn requests_are_answered_and_connections_kept() {
    let running = start(|_| {});
    let mut client = Client::connect(running.address).await;
    for _ in 0..3 {
        client.send(GET).await;
        assert!(client.up_to("hello").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    // Pipelined, with an error at the end.
    client.send(format!("{GET}{GET}bad\r\n\r\n")).await;
    let all = client.rest().await;
    assert_eq!(all.matches("hello").count(), 2);
    assert!(all.ends_with("malformed_head"), "{all}");
    assert_eq!(running.refused(&client), [Refusal::MalformedHead]);
}

#[tokio::test]
async fn unreadable_heads_get_our_page() {
    let running = start(|settings| settings.limits.head_bytes_max = 128 * 1024);
    let many = "X: y\r\n".repeat(101);
    let long = "a".repeat(65_600);
    let large = "a".repeat(140 * 1024);
    let cases = [
        ("\u{1}\u{2}garbage\r\n\r\n".into(), Refusal::MalformedHead),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n".into(), Refusal::MalformedHead),
        ("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n".into(), Refusal::MalformedHead),
        ("GET / HTTP/3.7\r\n\r\n".into(), Refusal::VersionUnsupported),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(),
            Refusal::FramingInvalid,
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n".into(), Refusal::FramingInvalid),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), Refusal::HeadTooLarge),
        (format!("GET / HTTP/1.1\r\nX: {large}\r\n\r\n"), Refusal::HeadTooLarge),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), Refusal::TargetTooLong),
    ];
    for (head, refusal) in cases {
        let mut client = Client::connect(running.address).await;
        client.send(head).await;
        running.assert_page(&client.rest().await, &client, refusal);
    }
    assert_eq!(running.site.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_head_over_its_limit_is_refused_however_it_comes() {
    let running = start(|settings| settings.limits.head_bytes_max = 64 * 1024);
    let mut client = Client::connect(running.address).await;
    // More than is read at once, and more than is ever read: the page must still arrive.
    client.send(format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(500 * 1024))).await;
    running.assert_page(&client.rest().await, &client, Refusal::HeadTooLarge);
    // Not reset, though it goes on sending.
    client.send("more").await;
    let mut client = Client::connect(running.address).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(60_000))).await;
    assert!(client.up_to("hello").await.contains("200 OK"));
}

#[tokio::test]
async fn a_silent_connection_is_closed_quietly() {
    let running = start(|settings| settings.limits.first_byte_timeout_ms = 50);
    let mut client = Client::connect(running.address).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(running.refused(&client), []);
}

#[tokio::test]
async fn a_head_that_does_not_end_gets_a_page() {
    let running = start(|settings| settings.limits.head_timeout_ms = 60);
    for head in ["G", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut client = Client::connect(running.address).await;
        client.send(head).await;
        running.assert_page(&client.rest().await, &client, Refusal::HeadTimeout);
    }
    // Also after an answer, where the timer was set for longer.
    let mut client = Client::connect(running.address).await;
    client.send(GET).await;
    client.up_to("hello").await;
    client.send("GET /").await;
    running.assert_page(&client.rest().await, &client, Refusal::HeadTimeout);
}

#[tokio::test]
async fn a_head_that_trickles_is_not_given_more_time() {
    let running = start(|settings| settings.limits.head_timeout_ms = 100);
    let client = Client::connect(running.address).await;
    let me = client.stream.local_addr().unwrap();
    let (mut from, mut to) = client.stream.into_split();
    let trickle = tokio::spawn(async move {
        while tokio::io::AsyncWriteExt::write_all(&mut to, b"a").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    let mut page = vec![0; 12];
    soon(from.read_exact(&mut page)).await.unwrap();
    assert_eq!(page, b"HTTP/1.1 408");
    assert!(running.refusals.lock().contains(&(me.into(), Refusal::HeadTimeout)));
    soon(trickle).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_quietly() {
    let running = start(|settings| settings.limits.keep_alive_timeout_ms = 60);
    let mut client = Client::connect(running.address).await;
    for _ in 0..2 {
        client.send(GET).await;
        client.up_to("hello").await;
    }
    assert_eq!(client.rest().await, "");
    assert_eq!(running.refused(&client), []);
}

#[tokio::test]
async fn a_request_in_flight_has_no_client_deadline() {
    let running = start(|settings| {
        settings.limits.first_byte_timeout_ms = 20;
        settings.limits.head_timeout_ms = 20;
        settings.limits.keep_alive_timeout_ms = 20;
    });
    let mut client = Client::connect(running.address).await;
    client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(client.hears_nothing(120).await);
    running.site.go_on.notify_one();
    client.up_to("hello").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_reset() {
    let running = start(|settings| settings.limits.write_stall_timeout_ms = 80);
    let mut client = Client::connect(running.address).await;
    client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // All buffers are full long before the end; the connection's task ends on its own.
    running.life.drain();
    soon(running.served).await.unwrap().unwrap();
    assert!(!running.life.is_exiting(), "not by the grace");
    let mut all = Vec::new();
    soon(client.stream.read_to_end(&mut all)).await.unwrap_err();
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let running = start(|_| {});
    let mut other = Client::connect(running.address).await;
    other.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut client = Client::connect(running.address).await;
    client.send("GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let page = client.rest().await;
    assert!(page.starts_with("HTTP/1.1 500") && page.ends_with("internal_error"), "{page}");
    assert_eq!(running.refused(&client), [Refusal::InternalError]);
    running.site.go_on.notify_one();
    other.up_to("hello").await;
}

#[tokio::test]
async fn bodies_are_read_within_limits() {
    let running = start(|_| {});
    let post = "POST /read HTTP/1.1\r\nHost: x\r\n";
    let cases = [
        ("Content-Length: 4\r\n\r\nabcd".to_owned(), "abcd"),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\nCookie: a\r\n\r\n".into(),
            "abcd",
        ),
        ("Content-Length: 2000\r\n\r\n".into(), "body_too_large"),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n7d0\r\n{}", "a".repeat(2000)),
            "body_too_large",
        ),
        ("Content-Length: 4\r\n\r\nab".into(), "body_timeout"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nabX".into(), "body_invalid"),
        ("Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd".into(), "abcd"),
    ];
    for (rest, end) in cases {
        let mut client = Client::connect(running.address).await;
        client.send(format!("{post}Connection: close\r\n{rest}")).await;
        let answer = client.rest().await;
        assert!(answer.ends_with(&format!("\r\n{end}")), "{rest}: {answer}");
    }
}

#[tokio::test]
async fn the_rest_of_an_unread_body_is_no_request() {
    let running = start(|_| {});
    let mut client = Client::connect(running.address).await;
    let smuggled = format!("{GET}{}", "a".repeat(200 * 1024));
    let length = smuggled.len();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{smuggled}"))
        .await;
    let all = client.rest().await;
    assert_eq!(all.matches("HTTP/1.1").count(), 1, "{all}");
    assert_eq!(running.site.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn connections_over_the_cap_are_told() {
    let running = start(|settings| settings.limits.connections_max = 1);
    let mut first = Client::connect(running.address).await;
    first.send(GET).await;
    first.up_to("hello").await;
    let mut second = Client::connect(running.address).await;
    second.send(GET).await;
    let page = second.rest().await;
    assert!(page.contains("Retry-After: 1\r\n"));
    running.assert_page(&page, &second, Refusal::Overloaded);
    drop(first);
    soon(async {
        loop {
            let mut third = Client::connect(running.address).await;
            third.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            if third.rest_or_reset().await.ends_with("hello") {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    let running = start(|_| {});
    let mut idle = Client::connect(running.address).await;
    idle.send(GET).await;
    idle.up_to("hello").await;
    let mut busy = Client::connect(running.address).await;
    busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(|| running.site.calls.load(Ordering::SeqCst) == 2).await;
    // Accepted by the kernel, perhaps not yet by us.
    let mut fresh = Client::connect(running.address).await;
    running.life.drain();
    assert_eq!(idle.rest().await, "");
    fresh.send(GET).await;
    assert!(fresh.up_to("hello").await.contains("connection: close\r\n"));
    assert_eq!(fresh.rest().await, "");
    assert!(TcpStream::connect(running.address).await.is_err());
    running.site.go_on.notify_one();
    let answer = busy.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("hello"), "{answer}");
    soon(running.served).await.unwrap().unwrap();
    assert!(!running.life.is_exiting());
}

#[tokio::test]
async fn the_grace_is_bounded() {
    let running = start(|settings| settings.shutdown_grace_ms = 50);
    let mut busy = Client::connect(running.address).await;
    busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(|| running.site.calls.load(Ordering::SeqCst) == 1).await;
    running.life.drain();
    soon(running.served).await.unwrap().unwrap();
    assert_eq!(busy.rest_or_reset().await, "");
}

#[tokio::test]
async fn an_upgraded_connection_is_left_alone() {
    let running = start(|settings| {
        settings.limits.connections_max = 1;
        settings.limits.keep_alive_timeout_ms = 20;
        settings.limits.head_timeout_ms = 20;
    });
    let mut client = Client::connect(running.address).await;
    client
        .send(
            "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst",
        )
        .await;
    let head = client.up_to("\r\n\r\nfirst").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(client.hears_nothing(80).await);
    client.send("GET / is not a request here").await;
    client.up_to("GET / is not a request here").await;
    // A tunnel counts as a connection.
    let mut second = Client::connect(running.address).await;
    running.assert_page(&second.rest().await, &second, Refusal::Overloaded);
}
