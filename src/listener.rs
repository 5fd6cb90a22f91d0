//! Accepting connections and serving them: caps, panics, draining. What is answered is the business
//! of the service.

mod addresses;
mod arrival;
mod bind;
mod http1;
mod http2;
mod inherited;
mod pulse;
#[cfg(test)]
mod tests;
mod websocket;
mod workers;

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1 as hyper_http1, http2 as hyper_http2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsStream;

use self::addresses::{Addresses, Seat};
use self::arrival::Entrance;
use self::bind::Listener;
pub use self::bind::{Listening, bind};
pub use self::inherited::Inherited;
use self::pulse::Pulse;
pub use self::workers::Workers;
use crate::body::Body;
use crate::conn::Deadlines;
pub use crate::conn::Hooks;
use crate::lifecycle::Lifecycle;
use crate::peer::{Peer, ServerName};
use crate::refusal::Refusal;
use crate::settings::ServerSettings;
use crate::socket::{Socket, Transport};
use crate::tls::Tls;

/// After an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(1);
/// A drain lets a new connection say what it came for.
const FRESH_GRACE: Duration = Duration::from_millis(500);
/// A connection that is not served may wait so long for its page, and so long to take it.
const REJECT_TIMEOUT: Duration = Duration::from_millis(250);
/// So many at a time get a page; the others are closed without.
const REJECTS_MAX: usize = 64;
/// After the grace, connections get so long to notice.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    fn call(
        &self,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// What all listeners share.
pub struct Edge {
    hooks: Arc<Hooks>,
    lifecycle: Lifecycle,
    connections: Arc<Semaphore>,
    connections_max: usize,
    addresses: Arc<Addresses>,
    /// The same for streams of HTTP/2, which are many on one connection.
    stream_addresses: Arc<Addresses>,
    rejects: Arc<Semaphore>,
    terms: ArcSwap<Terms>,
    pulse: Pulse,
}

/// How a connection is served, from its beginning to its end.
struct Terms {
    entrance: Entrance,
    http1: hyper_http1::Builder,
    http2: hyper_http2::Builder<http2::Tasks>,
    control_frames_max: u32,
    host_is_sni: bool,
    deadlines: Deadlines,
    unsent_bytes: u32,
    shutdown_grace: Duration,
}

impl Terms {
    fn of(settings: &ServerSettings, tls: Option<Arc<Tls>>, lifecycle: &Lifecycle) -> Self {
        Self {
            entrance: Entrance::new(settings, tls),
            http1: http1::builder(&settings.limits),
            http2: http2::builder(settings, lifecycle.clone()),
            control_frames_max: settings.limits.http2.control_frames_max,
            host_is_sni: settings.accepted.host_is_sni,
            deadlines: Deadlines::of(&settings.limits),
            unsent_bytes: settings.limits.unsent_bytes,
            shutdown_grace: Duration::from_millis(settings.shutdown_grace_ms),
        }
    }
}

impl Edge {
    pub fn new(
        settings: &ServerSettings,
        tls: Option<Arc<Tls>>,
        hooks: Hooks,
        lifecycle: Lifecycle,
    ) -> Self {
        let connections_max = settings.limits.connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            terms: ArcSwap::from_pointee(Terms::of(settings, tls, &lifecycle)),
            hooks: Arc::new(hooks),
            lifecycle,
            connections: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            addresses: Addresses::new(settings.limits.connections_per_address_max),
            stream_addresses: Addresses::new(settings.limits.http2.streams_per_address_max),
            rejects: Arc::new(Semaphore::new(REJECTS_MAX)),
            pulse: Pulse::new(settings.workers.max(1)),
        }
    }

    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Other settings, for connections that come from here on. Where it listens, and how many
    /// connections there may be, stays.
    pub fn renew(&self, settings: &ServerSettings, tls: Option<Arc<Tls>>) {
        self.terms.store(Arc::new(Terms::of(settings, tls, &self.lifecycle)));
    }

    /// Whether every thread of the data plane has got on with its work within the last seconds.
    pub fn gets_on(&self) -> bool {
        self.pulse.is_regular()
    }

    /// Counts a connection for its address. Those of trusted proxies carry many clients, and a unix
    /// socket has no address.
    fn seat(&self, terms: &Terms, peer: Peer) -> Result<Option<Seat>, Refusal> {
        take_seat(&self.addresses, terms, peer).ok_or(Refusal::TooManyConnections)
    }

    /// The same for a stream.
    fn stream_seat(&self, terms: &Terms, peer: Peer) -> Result<Option<Seat>, Refusal> {
        take_seat(&self.stream_addresses, terms, peer).ok_or(Refusal::TooManyStreams)
    }

    /// Client connections that are open now, tunnels included.
    pub fn connections_open(&self) -> usize {
        self.connections_max - self.connections.available_permits()
    }
}

/// `None`: there is none left for the client's address.
fn take_seat(addresses: &Arc<Addresses>, terms: &Terms, peer: Peer) -> Option<Option<Seat>> {
    match peer.ip() {
        Some(address) if !terms.entrance.trusts(peer) => addresses.take(address).map(Some),
        _ => Some(None),
    }
}

/// What connections of one listener share.
struct Server<S> {
    service: Arc<S>,
    edge: Arc<Edge>,
    terms: Arc<Terms>,
}

impl<S> Server<S> {
    /// The same under the terms in force.
    fn now(self: &Arc<Self>) -> Arc<Self> {
        let terms = self.edge.terms.load();
        if Arc::ptr_eq(&terms, &self.terms) {
            return Arc::clone(self);
        }
        let (service, edge) = (Arc::clone(&self.service), Arc::clone(&self.edge));
        Arc::new(Self { service, edge, terms: Guard::into_inner(terms) })
    }
}

/// Serves until the lifecycle drains, then until all is finished or the grace is over.
pub async fn serve<S: Service>(
    listener: Listening,
    service: Arc<S>,
    edge: Arc<Edge>,
) -> io::Result<()> {
    let lifecycle = edge.lifecycle.clone();
    let terms = edge.terms.load_full();
    let listener = Listener::open(listener, terms.unsent_bytes)?;
    let server = Arc::new(Server { service, edge, terms });
    accept_until_drain(&listener, &server).await;
    accept_backlog(&listener, &server).await;
    drop(listener);
    let grace = server.edge.terms.load().shutdown_grace;
    tokio::select! {
        () = lifecycle.finished() => return Ok(()),
        () = lifecycle.exit_token().cancelled() => {}
        () = sleep(grace) => tracing::warn!("drain: grace over, closing what is left"),
    }
    lifecycle.exit();
    let _ = timeout(EXIT_TIMEOUT, lifecycle.finished()).await;
    Ok(())
}

async fn accept_until_drain<S: Service>(listener: &Listener, server: &Arc<Server<S>>) {
    let mut drain = pin!(server.edge.lifecycle.drain_token().cancelled());
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drain => return,
            accepted = poll_fn(|cx| listener.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok((socket, peer)) => admit(socket, peer, server),
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
async fn accept_backlog<S: Service>(listener: &Listener, server: &Arc<Server<S>>) {
    poll_fn(|cx| {
        while let Poll::Ready(Ok((socket, peer))) = listener.poll_accept(cx) {
            admit(socket, peer, server);
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

fn admit<S: Service>(socket: Socket, peer: Peer, server: &Arc<Server<S>>) {
    let server = server.now();
    let edge = &server.edge;
    let Ok(permit) = Arc::clone(&edge.connections).try_acquire_owned() else {
        return turn_away(socket, peer, &server, Refusal::Overloaded);
    };
    let knows = server.terms.entrance.knows_addresses();
    let seat = if knows { edge.seat(&server.terms, peer) } else { Ok(None) };
    match seat {
        Ok(seat) => {
            let admission = Admission { seat, _permit: permit };
            edge.lifecycle.spawn(connection(socket, peer, Arc::clone(&server), admission));
        }
        Err(refusal) => turn_away(socket, peer, &server, refusal),
    }
}

/// What a connection holds as long as it is open, as a tunnel too.
#[derive(Debug)]
struct Admission {
    seat: Option<Seat>,
    _permit: OwnedSemaphorePermit,
}

fn turn_away<S>(socket: Socket, peer: Peer, server: &Server<S>, refusal: Refusal) {
    let edge = &server.edge;
    (edge.hooks.on_refused)(refusal, peer);
    // Over TLS nobody could read it.
    if server.terms.entrance.speaks_tls(&socket) {
        return;
    }
    if let Ok(permit) = Arc::clone(&edge.rejects).try_acquire_owned() {
        let hooks = Arc::clone(&edge.hooks);
        edge.lifecycle.spawn(async move {
            reject(socket, &hooks, refusal).await;
            drop(permit);
        });
    }
}

/// Says why there is no service.
async fn reject(mut socket: Socket, hooks: &Hooks, refusal: Refusal) {
    let page = (hooks.render)(refusal);
    let _ = timeout(REJECT_TIMEOUT, socket.write_all(&page)).await;
    linger(socket).await;
}

/// Closes; over unread bytes that would reset the connection, and what was said last would be lost.
async fn linger(mut socket: Socket) {
    let mut scratch = [0; 4096];
    let _ = timeout(REJECT_TIMEOUT, async {
        socket.shutdown().await?;
        while socket.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

async fn connection<S: Service>(
    socket: Socket,
    peer: Peer,
    server: Arc<Server<S>>,
    mut admission: Admission,
) {
    // Boxed is what most connections have no need of.
    let arrived = match server.terms.entrance.open(socket, peer) {
        Ok(arrived) => Some(arrived),
        Err(socket) => {
            let (edge, terms) = (&server.edge, &server.terms);
            Box::pin(arrival::arrive(socket, peer, edge, terms, &mut admission.seat)).await
        }
    };
    match arrived {
        None => {}
        Some((transport, peer, false)) => http1::serve(transport, peer, server, admission).await,
        Some((transport, peer, true)) => {
            Box::pin(http2::serve(transport, peer, server, admission)).await;
        }
    }
}

/// What its requests are compared with, where that is asked for.
fn server_name(transport: &Transport, terms: &Terms) -> Option<ServerName> {
    match transport {
        Transport::Tls(stream) if terms.host_is_sni => match &**stream {
            TlsStream::Server(stream) => {
                Some(ServerName(stream.get_ref().1.server_name().map(Arc::from)))
            }
            TlsStream::Client(_) => None,
        },
        _ => None,
    }
}

/// Calls the service; a panic there costs one request, not the connection's neighbours.
async fn call<S: Service>(
    peer: Peer,
    request: Request<Incoming>,
    server: &Server<S>,
) -> Response<Body> {
    let hooks = &server.edge.hooks;
    // `call` may panic before its future is polled: so it is called within.
    let mut call = pin!(async { server.service.call(peer, request).await });
    let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await;
    caught.unwrap_or_else(|_| {
        (hooks.on_refused)(Refusal::InternalError, peer);
        (hooks.answer)(Refusal::InternalError)
    })
}
