//! Serving one connection over HTTP/2: hyper's limits, and the deadlines that hyper does not keep.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::CONNECTION;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{Admission, FRESH_GRACE, Server, Service, call, server_name, websocket};
use crate::body::{Body, KeepAlive};
use crate::conn::{Advice, ConnState, Guarded, Hold, Hooks, Metered, Stream, Streams, Watched};
use crate::idle::Alarm;
use crate::lifecycle::Lifecycle;
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::settings::ServerSettings;
use crate::socket::Transport;

/// Streams that were reset because of the client's mistakes.
const RESETS_OF_OURS_MAX: usize = 100;
/// Windows of streams that fit into that of their connection.
const WINDOWS: u32 = 8;
const FRAME_MAX: u32 = 16 * 1024;

pub(super) fn builder(settings: &ServerSettings, lifecycle: Lifecycle) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks(lifecycle));
    let (limits, head_max) = (&settings.limits.http2, settings.limits.head_bytes_max);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_pending_accept_reset_streams(limits.pending_resets_max)
        .max_local_error_reset_streams(RESETS_OF_OURS_MAX)
        .max_header_list_size(u32::try_from(head_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.window_bytes.saturating_mul(WINDOWS))
        .max_frame_size(FRAME_MAX)
        .max_send_buf_size(limits.send_buffer_bytes)
        .keep_alive_interval(Duration::from_millis(limits.ping_interval_ms))
        .keep_alive_timeout(Duration::from_millis(limits.ping_timeout_ms));
    if settings.http2_websockets {
        builder.enable_connect_protocol();
    }
    builder
}

/// Runs streams as tasks that a drain waits for.
#[derive(Clone, Debug)]
pub(super) struct Tasks(Lifecycle);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// The answer as HTTP/2 has it; `switch`: that to a CONNECT.
fn for_http2(
    mut response: Response<Body>,
    switch: bool,
    peer: Peer,
    hooks: &Hooks,
) -> Response<Body> {
    if switch && !websocket::answers_connect(&mut response) {
        response = refused(Refusal::UpstreamInvalid, peer, hooks);
    }
    response.headers_mut().remove(CONNECTION);
    response
}

fn refused(refusal: Refusal, peer: Peer, hooks: &Hooks) -> Response<Body> {
    (hooks.on_refused)(refusal, peer);
    (hooks.answer)(refusal)
}

/// A request that has come.
struct Begun {
    stream: Stream,
    /// It is to become a tunnel.
    switch: bool,
    /// There is no room for it.
    refusal: Option<Refusal>,
}

fn begin<S>(
    request: &mut Request<Incoming>,
    peer: Peer,
    streams: &Arc<Streams>,
    server: &Server<S>,
) -> Begun {
    let (seat, refusal) = match server.edge.stream_seat(&server.terms, peer) {
        Ok(seat) => (seat.map(|seat| Box::new(seat) as KeepAlive), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let switch = websocket::as_upgrade(request);
    if !switch {
        return Begun { stream: streams.begin(seat), switch, refusal };
    }
    request.extensions_mut().insert(Hold::from(streams.begin(seat)));
    Begun { stream: streams.begin(None), switch, refusal }
}

async fn answer<S: Service>(
    request: Request<Incoming>,
    begun: Begun,
    peer: Peer,
    server: Arc<Server<S>>,
) -> Result<Response<Watched>, std::convert::Infallible> {
    let hooks = &server.edge.hooks;
    let response = match begun.refusal {
        Some(refusal) => refused(refusal, peer, hooks),
        None => call(peer, request, &server).await,
    };
    Ok(begun.stream.wrap(for_http2(response, begun.switch, peer, hooks)))
}

pub(super) async fn serve<S: Service>(
    transport: Transport,
    peer: Peer,
    server: Arc<Server<S>>,
    admission: Admission,
) {
    let state = Arc::new(ConnState::tunnel());
    let name = server_name(&transport, &server.terms);
    let hooks = Arc::clone(&server.edge.hooks);
    let flooded = Arc::clone(&hooks);
    let on_flood = Box::new(move || (flooded.on_refused)(Refusal::Http2Flood, peer));
    let deadlines = server.terms.deadlines;
    let io = Guarded::new(transport, peer, state, hooks, deadlines, Box::new(admission));
    let io = Metered::new(io, server.terms.control_frames_max, on_flood);
    let streams = Streams::new();
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(name) = &name {
            request.extensions_mut().insert(name.clone());
        }
        let begun = begin(&mut request, peer, &streams, &server);
        answer(request, begun, peer, Arc::clone(&server))
    });
    let served = server.terms.http2.serve_connection(TokioIo::new(io), service);
    let lifecycle = &server.edge.lifecycle;
    let mut served = pin!(served);
    let mut drain = pin!(lifecycle.drain_token().cancelled());
    let mut exit = pin!(lifecycle.exit_token().cancelled());
    let (mut idle, mut fresh, mut last) = (Alarm::default(), Alarm::default(), Alarm::default());
    let mut draining: Option<Instant> = None;
    let mut told: Option<Instant> = None;
    let end = poll_fn(|cx| {
        if served.as_mut().poll(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if exit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if draining.is_none() && drain.as_mut().poll(cx).is_ready() {
            draining = Some(Instant::now());
        }
        // A new connection may say what it came for.
        let leave =
            draining.is_some_and(|since| !streams.is_new() || fresh.poll(since + FRESH_GRACE, cx));
        let advice = streams.advise(&server.terms.deadlines, &mut idle, cx);
        if advice == Advice::Abort {
            tracing::debug!(%peer, "the client takes nothing");
            return Poll::Ready(Ok(()));
        }
        if told.is_none() && (leave || advice == Advice::Finish) {
            told = Some(Instant::now());
            served.as_mut().graceful_shutdown();
            // It has something to write now.
            if served.as_mut().poll(cx)?.is_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        // Who does not answer to the good-bye, and has nothing under way, is left.
        let over = advice == Advice::Finish
            && told.is_some_and(|since| last.poll(since + FRESH_GRACE, cx));
        if over { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    if let Err::<(), hyper::Error>(error) = end {
        tracing::debug!(%error, "connection ended");
    }
}
