//! Keys and defaults of `[upstream]`: where the app is, how it is spoken to, and for how long it is
//! waited for. Certificates are read, so that a mistake in them is found before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::settings::{AppHttp, AppTlsSettings, CertificateFiles, ListenAddress, UpstreamSettings};
use crate::tls::AppTls;

use super::super::reader::{At, Table};
use super::server::{DAY, KIB, MIB, PATIENCE, SECOND, socket_path, to_usize};
use super::{Context, strictness};

const URL: &str = "\"http://HOST:PORT\", \"https://HOST:PORT\" or \"unix:/PATH\" of the app, like \
                   \"http://127.0.0.1:8000\"";
const TLS_KEYS: [&str; 4] = ["ca", "client_certificate", "client_key", "server_name"];

/// `[upstream]`.
pub(super) fn upstream(
    root: &mut Table<'_>,
    listen: &[ListenAddress],
    context: &Context<'_>,
) -> UpstreamSettings {
    let mut upstream = root.table("upstream");
    let app = app(&mut upstream, listen, context);
    let versions = [("1.1", AppHttp::Http1), ("2", AppHttp::Http2), ("auto", AppHttp::Auto)];
    let http_version = upstream.choice("http_version", AppHttp::Http1, &versions, &[]);
    let tls = tls(&mut upstream, &app, http_version, context);
    let preserve_host = upstream.flag("preserve_host", true);
    let method_override = upstream.flag("method_override", false);
    let idle_connections = upstream.count("idle_connections", 64, 0..=10_000);
    let streams = upstream.count("streams", 100, 1..=10_000);
    let requests = upstream.count("requests", 10_000, 1..=1_000_000);
    let queue = upstream.count("queue", 1_000, 0..=1_000_000);
    let headers = upstream.count("headers", 200, 10..=1_000);
    let head = upstream.size("head", 64 * KIB, 8 * KIB..=MIB);
    let interim = upstream.count("interim_answers", 8, 0..=1_000);
    let lenience = strictness::lenience(&mut upstream);
    let inspect = upstream.size("inspect", 256 * KIB, KIB..=16 * MIB);
    let resolve_interval_ms = upstream.duration("resolve_interval", 30 * SECOND, SECOND..=DAY);
    let mut timeouts = upstream.table("timeouts");
    let settings = UpstreamSettings {
        authority: app.authority,
        unix: app.unix,
        tls,
        http_version,
        streams_max: to_usize(streams),
        resolve_interval_ms,
        preserve_host,
        method_override,
        requests_max: to_usize(requests),
        queue_max: to_usize(queue),
        queue_timeout_ms: timeouts.duration("queue", 5 * SECOND, PATIENCE),
        idle_connections_max: to_usize(idle_connections),
        headers_max: to_usize(headers),
        head_bytes_max: to_usize(head),
        interim_max: to_usize(interim),
        lenience,
        inspect_bytes_max: to_usize(inspect),
        connect_timeout_ms: timeouts.duration("connect", 2 * SECOND, PATIENCE),
        first_byte_timeout_ms: timeouts.duration("first_byte", 60 * SECOND, 100..=DAY),
        body_idle_timeout_ms: timeouts.duration("body_idle", 60 * SECOND, 100..=DAY),
        // Below the 5 s after which Node, Uvicorn and Apache close: who closes first must be us,
        // or a request meets a closing connection and may not be sent again.
        idle_timeout_ms: timeouts.duration("idle", 1500, PATIENCE),
        ping_interval_ms: timeouts.duration("ping_interval", 20 * SECOND, PATIENCE),
        ping_timeout_ms: timeouts.duration("ping_timeout", 10 * SECOND, PATIENCE),
    };
    timeouts.finish();
    upstream.finish();
    settings
}

/// What `url` says.
#[derive(Default)]
struct App {
    authority: String,
    host: String,
    secure: bool,
    unix: Option<PathBuf>,
}

fn app(upstream: &mut Table<'_>, listen: &[ListenAddress], context: &Context<'_>) -> App {
    let stated = upstream.has("url");
    let Some(At { value, at }) = upstream.text("url") else {
        if !stated {
            upstream.missing("url", "is missing: where is the app?", URL);
        }
        return App::default();
    };
    let here = "is the address Headcount itself listens on (`server.listen`)";
    if let Some(path) = value.strip_prefix("unix:").and_then(|path| socket_path(context, path)) {
        if listen.iter().any(|listen| matches!(listen, ListenAddress::Unix(at) if *at == path)) {
            upstream.wrong("url", &at, here, URL);
        }
        let host = "localhost".to_owned();
        return App { authority: host.clone(), host, secure: false, unix: Some(path) };
    }
    let Some(app) = network(&value) else {
        let what = "is not the address of an app: scheme, host and port, nothing behind";
        upstream.wrong("url", &at, what, URL);
        return App::default();
    };
    let mut listen = listen.iter().filter_map(ListenAddress::tcp);
    if listen.any(|listen| is_here(listen, &app.authority)) {
        upstream.wrong("url", &at, here, URL);
    }
    app
}

/// An app in the network.
fn network(value: &str) -> Option<App> {
    let url = value.parse::<http::Uri>().ok()?;
    let secure = match url.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let plain = url.path() == "/" && url.query().is_none() && !value.contains(['@', '#']);
    let host = url.host().filter(|host| plain && !host.is_empty())?;
    let port = match url.port() {
        Some(port) => port.as_u16(),
        None if secure => 443,
        None => 80,
    };
    (port != 0).then(|| App {
        authority: format!("{host}:{port}"),
        host: host.trim_matches(['[', ']']).to_owned(),
        secure,
        unix: None,
    })
}

/// Whether connecting to `authority` would reach the listener; names but `localhost` are not
/// resolved.
fn is_here(listen: SocketAddr, authority: &str) -> bool {
    let authority = authority.replace("localhost", "127.0.0.1");
    authority.parse::<SocketAddr>().is_ok_and(|upstream| {
        let every = listen.ip().is_unspecified();
        upstream.port() == listen.port()
            && (upstream.ip() == listen.ip() || (every && upstream.ip().is_loopback()))
    })
}

/// How an https app is known, and we to it.
fn tls(
    upstream: &mut Table<'_>,
    app: &App,
    http_version: AppHttp,
    context: &Context<'_>,
) -> Option<AppTlsSettings> {
    if !app.secure {
        for key in TLS_KEYS {
            if let Some(At { at, .. }) = upstream.text(key) {
                let what = "says nothing about an app without TLS";
                upstream.wrong(key, &at, what, "`url = \"https://HOST:PORT\"` beside it");
            }
        }
        return None;
    }
    let mut file = |key| upstream.text(key).map(|path| context.folder.join(path.value));
    let (ca, certificate, key) = (file("ca"), file("client_certificate"), file("client_key"));
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            upstream.missing("client_key", "is missing beside `client_certificate`", "a PEM file");
            return None;
        }
        (None, Some(_)) => {
            let what = "is missing beside `client_key`";
            upstream.missing("client_certificate", what, "a PEM file");
            return None;
        }
    };
    let name = upstream.text("server_name");
    let server_name = name.map_or_else(|| app.host.clone(), |name| name.value);
    let settings = AppTlsSettings { server_name, ca, client };
    if let Err(error) = AppTls::load(&settings, http_version) {
        let allowed = "PEM files, and the name that the app's certificate is for";
        upstream.problem(&format!("TLS to the app does not work: {error}"), allowed);
    }
    Some(settings)
}
