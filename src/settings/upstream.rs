//! Where the app is, how it is spoken to, and for how long it is waited for.

use std::path::PathBuf;

use super::{CertificateFiles, Lenience};

/// `[upstream]` and `[upstream.timeouts]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// `host:port`, or `localhost` where the app is on a unix socket; also the Host of requests that
    /// have none.
    pub authority: String,
    /// Where the app's socket is, if it is not in the network.
    pub unix: Option<PathBuf>,
    /// For an `https` app.
    pub tls: Option<AppTlsSettings>,
    pub http_version: AppHttp,
    /// Requests at a time on one HTTP/2 connection to the app.
    pub streams_max: usize,
    /// How old the meaning of the app's name may be.
    pub resolve_interval_ms: u64,
    pub preserve_host: bool,
    /// Whether the app gets headers that ask it to take one method for another.
    pub method_override: bool,
    /// Requests at the app at once, tunnels included.
    pub requests_max: usize,
    /// Requests that wait while it has so many.
    pub queue_max: usize,
    pub queue_timeout_ms: u64,
    /// Idle connections kept per worker.
    pub idle_connections_max: usize,
    /// Header lines accepted in an answer.
    pub headers_max: usize,
    /// Bytes of an answer's head.
    pub head_bytes_max: usize,
    /// Interim answers (1xx) to one request.
    pub interim_max: usize,
    pub lenience: Lenience,
    /// Bytes of an answer's body that rules can look into.
    pub inspect_bytes_max: usize,
    pub connect_timeout_ms: u64,
    /// From the request sent to the first byte of the answer.
    pub first_byte_timeout_ms: u64,
    /// Between two pieces of an answer's body.
    pub body_idle_timeout_ms: u64,
    /// Keep below the app's own keep-alive.
    pub idle_timeout_ms: u64,
    /// How often an HTTP/2 connection in use is asked for a sign of life, and how long one may take.
    pub ping_interval_ms: u64,
    pub ping_timeout_ms: u64,
}

/// How the app shows who it is, and we to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppTlsSettings {
    /// Whom its certificate must be for, and the name it is asked for.
    pub server_name: String,
    /// PEM file of authorities; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// What we show, if the app asks.
    pub client: Option<CertificateFiles>,
}

/// `upstream.http_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppHttp {
    Http1,
    /// Over TLS by ALPN, without by prior knowledge.
    Http2,
    /// What the app chooses by ALPN.
    Auto,
}
