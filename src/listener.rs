//! Accepting connections and serving them over HTTP/1: caps, panics, draining. What is answered is
//! the business of the service.

#[cfg(test)]
mod tests;
mod workers;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

pub use self::workers::Workers;
use crate::body::Body;
pub use crate::conn::Hooks;
use crate::conn::{ConnState, Deadlines, Guarded, Phase, Tracked};
use crate::idle::Alarm;
use crate::lifecycle::Lifecycle;
use crate::refusal::Refusal;
use crate::settings::{ServerLimits, ServerSettings};

const BACKLOG: i32 = 1024;
/// After an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(1);
/// A drain lets a new connection say what it came for.
const FRESH_GRACE: Duration = Duration::from_millis(500);
/// A connection over the cap may wait so long for its page.
const REJECT_TIMEOUT: Duration = Duration::from_millis(250);
/// So many at a time get a page; the others are closed without.
const REJECTS_MAX: usize = 64;
/// After the grace, connections get so long to notice.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
/// hyper's default; any other number costs an allocation per request.
const HYPER_HEADERS: usize = 100;
/// hyper panics on less.
const BUFFER_MIN: usize = 8192;

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    fn call(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// What all listeners share.
#[derive(Debug)]
pub struct Edge {
    hooks: Arc<Hooks>,
    lifecycle: Lifecycle,
    connections: Arc<Semaphore>,
    connections_max: usize,
    rejects: Arc<Semaphore>,
}

impl Edge {
    pub fn new(limits: &ServerLimits, hooks: Hooks, lifecycle: Lifecycle) -> Self {
        let connections_max = limits.connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            hooks: Arc::new(hooks),
            lifecycle,
            connections: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            rejects: Arc::new(Semaphore::new(REJECTS_MAX)),
        }
    }

    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Client connections that are open now, tunnels included.
    pub fn connections_open(&self) -> usize {
        self.connections_max - self.connections.available_permits()
    }
}

/// Binds a listener; with `reuse_port` several may share an address.
pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What connections of one listener share.
struct Server<S> {
    service: Arc<S>,
    edge: Arc<Edge>,
    http: http1::Builder,
    deadlines: Deadlines,
}

/// Serves until the lifecycle drains, then until all is finished or the grace is over.
pub async fn serve<S: Service>(
    listener: std::net::TcpListener,
    service: Arc<S>,
    settings: &ServerSettings,
    edge: Arc<Edge>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let lifecycle = edge.lifecycle.clone();
    let http = http1_builder(&settings.limits);
    let deadlines = Deadlines::of(&settings.limits);
    let server = Arc::new(Server { service, edge, http, deadlines });
    accept_until_drain(&listener, &server).await;
    accept_backlog(&listener, &server).await;
    drop(listener);
    let grace = Duration::from_millis(settings.shutdown_grace_ms);
    tokio::select! {
        () = lifecycle.finished() => return Ok(()),
        () = lifecycle.exit_token().cancelled() => {}
        () = sleep(grace) => tracing::warn!("drain: grace over, closing what is left"),
    }
    lifecycle.exit();
    let _ = timeout(EXIT_TIMEOUT, lifecycle.finished()).await;
    Ok(())
}

fn http1_builder(limits: &ServerLimits) -> http1::Builder {
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

async fn accept_until_drain<S: Service>(listener: &TcpListener, server: &Arc<Server<S>>) {
    let mut drain = pin!(server.edge.lifecycle.drain_token().cancelled());
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drain => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, server),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if logged.is_none_or(|at| at.elapsed() >= ACCEPT_LOG_EVERY) {
                    logged = Some(Instant::now());
                    tracing::error!(%error, "cannot accept connections");
                }
                tokio::select! {
                    () = &mut drain => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// The kernel has accepted these: closing the listener would reset them.
async fn accept_backlog<S: Service>(listener: &TcpListener, server: &Arc<Server<S>>) {
    poll_fn(|cx| {
        while let Poll::Ready(Ok((stream, peer))) = listener.poll_accept(cx) {
            admit(stream, peer, server);
        }
        Poll::Ready(())
    })
    .await;
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn admit<S: Service>(stream: TcpStream, peer: SocketAddr, server: &Arc<Server<S>>) {
    // Only costs latency.
    let _ = stream.set_nodelay(true);
    let edge = &server.edge;
    match Arc::clone(&edge.connections).try_acquire_owned() {
        Ok(permit) => {
            edge.lifecycle.spawn(connection(stream, peer, Arc::clone(server), permit));
        }
        Err(_) => {
            (edge.hooks.on_refused)(Refusal::Overloaded, peer);
            if let Ok(permit) = Arc::clone(&edge.rejects).try_acquire_owned() {
                edge.lifecycle.spawn(reject(stream, Arc::clone(&edge.hooks), permit));
            }
        }
    }
}

/// Says that there is no room.
async fn reject(mut stream: TcpStream, hooks: Arc<Hooks>, _permit: OwnedSemaphorePermit) {
    let page = (hooks.render)(Refusal::Overloaded);
    let mut scratch = [0; 4096];
    let _ = timeout(REJECT_TIMEOUT, async {
        stream.write_all(&page).await?;
        stream.shutdown().await?;
        // Closing over unread bytes would reset the connection and lose the page.
        while tokio::io::AsyncReadExt::read(&mut stream, &mut scratch).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

async fn connection<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    server: Arc<Server<S>>,
    permit: OwnedSemaphorePermit,
) {
    let state = Arc::new(ConnState::default());
    let hooks = Arc::clone(&server.edge.hooks);
    // The permit goes with the socket, into a tunnel too.
    let io =
        Guarded::new(stream, peer, Arc::clone(&state), hooks, server.deadlines, Box::new(permit));
    let service = service_fn(|request: Request<Incoming>| {
        state.requested(!http_body::Body::is_end_stream(request.body()));
        answer(peer, request, Arc::clone(&server), Arc::clone(&state))
    });
    let served = server.http.serve_connection(TokioIo::new(io), service).with_upgrades();
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

/// Calls the service; a panic there costs one request, not the connection's neighbours.
async fn answer<S: Service>(
    peer: SocketAddr,
    request: Request<Incoming>,
    server: Arc<Server<S>>,
    state: Arc<ConnState>,
) -> Result<Response<Tracked>, std::convert::Infallible> {
    let version = request.version();
    let hooks = &server.edge.hooks;
    // `call` may panic before its future is polled: so it is called within.
    let mut call = pin!(async { server.service.call(peer, request).await });
    let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await;
    let mut response = caught.unwrap_or_else(|_| {
        (hooks.on_refused)(Refusal::InternalError, peer);
        (hooks.answer)(Refusal::InternalError)
    });
    // A new connection was not told to shut down.
    if server.edge.lifecycle.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(Tracked::wrap(response, version, &state))
}
