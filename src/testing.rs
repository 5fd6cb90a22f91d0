//! For tests of the edge: small settings, a raw client, a scripted app. Real sockets only.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::body::Body;
use crate::refusal::Refusal;
use crate::settings::{
    Accepted, AppHttp, Http2Limits, Lenience, ListenAddress, ServerLimits, ServerSettings,
    TrustedProxies, UpstreamSettings,
};

/// Long enough for any machine, short enough to notice a hang.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("hangs")
}

pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Long timeouts; each test shortens the one it is about.
pub(crate) fn server_settings() -> ServerSettings {
    ServerSettings {
        listen: vec![ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))],
        unix_mode: 0o600,
        tls: None,
        http2: true,
        http2_cleartext: false,
        http2_websockets: true,
        proxy_protocol: false,
        accepted: Accepted::default(),
        workers: 1,
        trusted_proxies: TrustedProxies::default(),
        node: "test".into(),
        shutdown_grace_ms: 30_000,
        shutdown_delay_ms: 0,
        limits: ServerLimits {
            connections_max: 100,
            connections_per_address_max: 100,
            head_bytes_max: 64 * 1024,
            headers_max: 100,
            target_bytes_max: 8 * 1024,
            cookie_bytes_max: 16 * 1024,
            cookies_max: 100,
            login_body_bytes_max: 64 * 1024,
            body_bytes_max: Some(1024),
            unsent_bytes: 128 * 1024,
            first_byte_timeout_ms: 30_000,
            tls_handshake_timeout_ms: 30_000,
            head_timeout_ms: 30_000,
            keep_alive_timeout_ms: 30_000,
            body_idle_timeout_ms: 30_000,
            write_stall_timeout_ms: 30_000,
            request_timeout_ms: None,
            http2: Http2Limits {
                streams_max: 100,
                streams_per_address_max: 100,
                pending_resets_max: 20,
                control_frames_max: 100,
                window_bytes: 128 * 1024,
                send_buffer_bytes: 64 * 1024,
                ping_interval_ms: 30_000,
                ping_timeout_ms: 30_000,
            },
        },
    }
}

pub(crate) fn upstream_settings(app: SocketAddr) -> UpstreamSettings {
    UpstreamSettings {
        authority: app.to_string(),
        unix: None,
        tls: None,
        http_version: AppHttp::Http1,
        streams_max: 100,
        resolve_interval_ms: 30_000,
        preserve_host: true,
        method_override: false,
        requests_max: 100,
        queue_max: 100,
        queue_timeout_ms: 5_000,
        idle_connections_max: 4,
        headers_max: 100,
        head_bytes_max: 64 * 1024,
        interim_max: 8,
        lenience: Lenience::default(),
        inspect_bytes_max: 64 * 1024,
        connect_timeout_ms: 5_000,
        first_byte_timeout_ms: 30_000,
        body_idle_timeout_ms: 30_000,
        idle_timeout_ms: 30_000,
        ping_interval_ms: 30_000,
        ping_timeout_ms: 30_000,
    }
}

pub(crate) fn render(refusal: Refusal) -> Bytes {
    let (status, code) = (refusal.status(), refusal.code());
    let retry = if refusal == Refusal::Overloaded { "Retry-After: 1\r\n" } else { "" };
    let length = code.len();
    format!(
        "HTTP/1.1 {status}\r\n{retry}Connection: close\r\nContent-Length: {length}\r\n\r\n{code}"
    )
    .into()
}

pub(crate) fn answer(refusal: Refusal) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(refusal.code().as_bytes())));
    *response.status_mut() = refusal.status();
    response.headers_mut().insert("connection", "close".parse().unwrap());
    response
}

/// One end of a connection, byte by byte.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: soon(TcpStream::connect(address)).await.unwrap() }
    }

    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) {
        soon(self.stream.write_all(text.as_ref())).await.unwrap();
    }

    /// All that comes until a clean end.
    pub(crate) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        soon(self.stream.read_to_end(&mut all)).await.unwrap();
        String::from_utf8(all).unwrap()
    }

    /// All that comes until any end, also a reset.
    pub(crate) async fn rest_or_reset(&mut self) -> String {
        let mut all = Vec::new();
        let _ = soon(self.stream.read_to_end(&mut all)).await;
        String::from_utf8(all).unwrap()
    }

    /// Whether nothing comes, not even an end, for so long.
    pub(crate) async fn hears_nothing(&mut self, for_ms: u64) -> bool {
        tokio::time::timeout(Duration::from_millis(for_ms), self.stream.read_u8()).await.is_err()
    }

    /// Up to and with `end`.
    pub(crate) async fn up_to(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            let byte = soon(self.stream.read_u8()).await;
            all.push(byte.unwrap_or_else(|_| panic!("ended in {}", String::from_utf8_lossy(&all))));
        }
        String::from_utf8(all).unwrap()
    }
}

/// An app that does what the test says.
pub(crate) struct App {
    listener: TcpListener,
}

impl App {
    pub(crate) async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Client {
        Client { stream: soon(self.listener.accept()).await.unwrap().0 }
    }

    pub(crate) async fn nobody_else(&self) {
        let waited = tokio::time::timeout(Duration::from_millis(30), self.listener.accept()).await;
        assert!(waited.is_err(), "another connection");
    }
}
