//! Serving one connection over HTTP/2: hyper's limits, and the deadlines that hyper does not keep.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{Admission, FRESH_GRACE, Server, Service, call};
use crate::conn::{Advice, ConnState, Guarded, Streams};
use crate::idle::Alarm;
use crate::lifecycle::Lifecycle;
use crate::peer::Peer;
use crate::settings::ServerLimits;
use crate::socket::Transport;

/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 100;
/// Streams that the client has reset before they were looked at.
const RESETS_PENDING_MAX: usize = 20;
/// Streams that were reset because of the client's mistakes.
const RESETS_OF_OURS_MAX: usize = 100;
/// Request bytes under way on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const FRAME_MAX: u32 = 16 * 1024;
/// Answer bytes held per stream.
const SEND_BUFFER: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn builder(limits: &ServerLimits, lifecycle: Lifecycle) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks(lifecycle));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_OF_OURS_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
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

pub(super) async fn serve<S: Service>(
    transport: Transport,
    peer: Peer,
    server: Arc<Server<S>>,
    admission: Admission,
) {
    let state = Arc::new(ConnState::tunnel());
    let hooks = Arc::clone(&server.edge.hooks);
    let deadlines = server.terms.deadlines;
    let io = Guarded::new(transport, peer, state, hooks, deadlines, Box::new(admission));
    let streams = Streams::new();
    let service = service_fn(|request: Request<Incoming>| {
        let (server, stream) = (Arc::clone(&server), streams.begin());
        async move {
            let mut response = call(peer, request, &server).await;
            response.headers_mut().remove(CONNECTION);
            Ok::<_, std::convert::Infallible>(stream.wrap(response))
        }
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
