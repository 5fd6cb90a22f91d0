//! Serving one connection over HTTP/1.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{Admission, FRESH_GRACE, Server, Service, call, server_name};
use crate::conn::{ConnState, Guarded, Phase, Tracked};
use crate::idle::Alarm;
use crate::peer::Peer;
use crate::settings::ServerLimits;
use crate::socket::Transport;

/// hyper's default; any other number costs an allocation per request.
const HYPER_HEADERS: usize = 100;
/// hyper panics on less.
const BUFFER_MIN: usize = 8192;

pub(super) fn builder(limits: &ServerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_MIN))
        .max_header_size(limits.head_bytes_max);
    if limits.headers_max != HYPER_HEADERS {
        builder.max_headers(limits.headers_max);
    }
    builder
}

pub(super) async fn serve<S: Service>(
    transport: Transport,
    peer: Peer,
    server: Arc<Server<S>>,
    admission: Admission,
) {
    let state = Arc::new(ConnState::default());
    let name = server_name(&transport, &server.terms);
    let hooks = Arc::clone(&server.edge.hooks);
    // The admission goes with the socket, into a tunnel too.
    let io = Guarded::new(
        transport,
        peer,
        Arc::clone(&state),
        hooks,
        server.terms.deadlines,
        Box::new(admission),
    );
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(name) = &name {
            request.extensions_mut().insert(name.clone());
        }
        state.requested(!http_body::Body::is_end_stream(request.body()));
        answer(peer, request, Arc::clone(&server), Arc::clone(&state))
    });
    let served = server.terms.http1.serve_connection(TokioIo::new(io), service).with_upgrades();
    let lifecycle = &server.edge.lifecycle;
    let mut served = pin!(served);
    let mut drain = pin!(lifecycle.drain_token().cancelled());
    let mut exit = pin!(lifecycle.exit_token().cancelled());
    let mut alarm = Alarm::default();
    let mut draining = Draining::Unregistered;
    let end = poll_fn(|cx| {
        if let Draining::Unregistered = draining {
            // Once is enough: a task has one waker.
            let _ = drain.as_mut().poll(cx);
            draining = Draining::No;
        }
        if lifecycle.is_draining() {
            if exit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Draining::No = draining {
                draining = Draining::Since(Instant::now());
            }
            if let Draining::Since(since) = draining
                && (state.phase() != Phase::New || alarm.poll(since + FRESH_GRACE, cx))
            {
                served.as_mut().graceful_shutdown();
                draining = Draining::Told;
            }
        }
        served.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = end {
        tracing::debug!(%error, "connection ended");
    }
}

enum Draining {
    Unregistered,
    No,
    Since(Instant),
    Told,
}

async fn answer<S: Service>(
    peer: Peer,
    request: Request<Incoming>,
    server: Arc<Server<S>>,
    state: Arc<ConnState>,
) -> Result<Response<Tracked>, std::convert::Infallible> {
    let version = request.version();
    let mut response = call(peer, request, &server).await;
    // A new connection was not told to shut down.
    if server.edge.lifecycle.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(Tracked::wrap(response, version, &state))
}
