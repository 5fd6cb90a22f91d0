//! HTTP/2 to the app: a connection is shared by as many requests as the app allows, and left behind
//! when it says good-bye. What was sent on one is never sent on another; that is for
//! `upstream.rs` to decide.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::connect::{AppStream, ConnectError};
use super::pool::Pool;
use crate::body::RequestBody;
use crate::idle::Alarm;
use crate::settings::UpstreamSettings;

/// Bytes of an answer under way on one stream. The connection has room for those of all, so that
/// one client that does not read holds up no other.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes of a request held per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Between the first bytes of the app and the end of its settings.
const SETTINGS_CHECK: Duration = Duration::from_millis(1);
const SWEEP_MIN: Duration = Duration::from_millis(50);

/// The connections of one worker.
pub(super) struct Shared {
    /// For connections to an app that turns out to speak HTTP/1.1.
    pool: Arc<Pool>,
    http: Builder<TokioExecutor>,
    streams_max: usize,
    idle_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: Vec<Arc<Shareable>>,
    /// One is opened at a time, and all who need one wait for it.
    opening: Option<watch::Receiver<Option<Opened>>>,
    /// The app chose HTTP/1.1.
    http1: bool,
    sweeping: bool,
}

#[derive(Clone, Debug)]
enum Opened {
    Http2,
    Http1,
    Failed(ConnectError),
}

struct Shareable {
    sender: SendRequest<RequestBody>,
    address: Option<SocketAddr>,
    /// Requests at a time that the app allows, and we do.
    limit: Arc<AtomicUsize>,
    load: Mutex<Load>,
}

struct Load {
    open: usize,
    idle_since: Instant,
    /// Gets no more requests.
    retired: bool,
}

/// Room for one request; to be kept until its answer has ended.
pub(super) struct Slot(Arc<Shareable>);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Slot {
    pub(super) fn sender(&self) -> SendRequest<RequestBody> {
        self.0.sender.clone()
    }

    /// The connection is going away.
    pub(super) fn retire(&self) {
        self.0.load.lock().retired = true;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut load = self.0.load.lock();
        load.open -= 1;
        load.idle_since = Instant::now();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("streams_max", &self.streams_max).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(settings: &UpstreamSettings, pool: Arc<Pool>) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        let streams = u32::try_from(settings.streams_max).unwrap_or(u32::MAX);
        let window = STREAM_WINDOW.saturating_mul(streams).clamp(STREAM_WINDOW, (1 << 31) - 1);
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .max_header_list_size(u32::try_from(settings.head_bytes_max).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            // Until the app has said how many, none: this is how it is known that it has.
            .initial_max_send_streams(0)
            .keep_alive_interval(Duration::from_millis(settings.ping_interval_ms))
            .keep_alive_timeout(Duration::from_millis(settings.ping_timeout_ms));
        Self {
            pool,
            http,
            streams_max: settings.streams_max,
            idle_timeout: Duration::from_millis(settings.idle_timeout_ms),
            state: Mutex::default(),
        }
    }

    /// Room for a request; `None`: the app speaks HTTP/1.1.
    pub(super) async fn slot(self: &Arc<Self>) -> Result<Option<Slot>, ConnectError> {
        loop {
            let mut opening = {
                let mut state = self.state.lock();
                if state.http1 {
                    return Ok(None);
                }
                if let Some(slot) = self.take(&mut state) {
                    return Ok(Some(slot));
                }
                match &state.opening {
                    Some(opening) => opening.clone(),
                    None => {
                        let (tell, opening) = watch::channel(None);
                        state.opening = Some(opening.clone());
                        // In a task: it is for others too, if this request is given up.
                        tokio::spawn(Arc::clone(self).opening(tell));
                        opening
                    }
                }
            };
            let opened = opening.wait_for(Option::is_some).await.map(|opened| opened.clone());
            match opened {
                Ok(Some(Opened::Failed(error))) => return Err(error),
                Ok(Some(Opened::Http1)) => return Ok(None),
                // Others may have been faster.
                Ok(Some(Opened::Http2) | None) => {}
                Err(_) => return Err(ConnectError::NotHttp2),
            }
        }
    }

    fn take(&self, state: &mut State) -> Option<Slot> {
        state.connections.retain(|connection| !connection.is_over(&self.pool));
        state.connections.iter().find_map(|connection| {
            let mut load = connection.load.lock();
            (load.open < connection.limit.load(Ordering::Relaxed)).then(|| {
                load.open += 1;
                Slot(Arc::clone(connection))
            })
        })
    }

    async fn opening(self: Arc<Self>, tell: watch::Sender<Option<Opened>>) {
        let opened = match self.open().await {
            Ok(opened) => opened,
            Err(error) => Opened::Failed(error),
        };
        let mut state = self.state.lock();
        state.opening = None;
        if matches!(opened, Opened::Http1) {
            state.http1 = true;
        }
        drop(state);
        let _ = tell.send(Some(opened));
    }

    async fn open(self: &Arc<Self>) -> Result<Opened, ConnectError> {
        let connector = self.pool.connector();
        let deadline = connector.deadline();
        let mut stream = connector.connect(false, deadline).await?;
        if connector.is_secure() && !stream.http2 {
            self.pool.adopt(stream).await?;
            return Ok(Opened::Http1);
        }
        let (address, heard) = (stream.address, stream.heard());
        let handshake = self.http.handshake(TokioIo::new(stream));
        let (sender, connection) = match timeout_at(deadline, handshake).await {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(_)) => return Err(ConnectError::NotHttp2),
            Err(_) => return Err(ConnectError::Timeout),
        };
        let limit = Arc::new(AtomicUsize::new(0));
        let (tell, ready) = oneshot::channel();
        let driving = drive(connection, Arc::clone(&limit), self.streams_max, heard, tell);
        let driver = tokio::spawn(driving);
        match timeout_at(deadline, ready).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(ConnectError::NotHttp2),
            Err(_) => {
                driver.abort();
                return Err(ConnectError::Timeout);
            }
        }
        let load = Load { open: 0, idle_since: Instant::now(), retired: false };
        let load = Mutex::new(load);
        let mut state = self.state.lock();
        state.connections.push(Arc::new(Shareable { sender, address, limit, load }));
        if !std::mem::replace(&mut state.sweeping, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
        Ok(Opened::Http2)
    }

    /// Leaves what is not used; false if nothing is left.
    fn sweep(&self) -> bool {
        let mut state = self.state.lock();
        state.connections.retain(|connection| {
            let load = connection.load.lock();
            let idle = load.open == 0 && load.idle_since.elapsed() >= self.idle_timeout;
            drop(load);
            !idle && !connection.is_over(&self.pool)
        });
        state.sweeping = !state.connections.is_empty();
        state.sweeping
    }
}

impl Shareable {
    fn is_over(&self, pool: &Pool) -> bool {
        self.sender.is_closed()
            || self.load.lock().retired
            || !pool.connector().leads_to_app(self.address)
    }
}

/// Runs while there are connections. Those it leaves close when their last answer has ended.
async fn sweep(shared: Weak<Shared>, idle_timeout: Duration) {
    while shared.upgrade().is_some_and(|shared| shared.sweep()) {
        sleep((idle_timeout / 4).max(SWEEP_MIN)).await;
    }
}

/// Runs a connection, and keeps what the app allows.
async fn drive(
    connection: Connection<TokioIo<AppStream>, RequestBody, TokioExecutor>,
    limit: Arc<AtomicUsize>,
    streams_max: usize,
    heard: oneshot::Receiver<()>,
    ready: oneshot::Sender<()>,
) {
    let (mut connection, mut heard) = (pin!(connection), pin!(heard));
    let (mut ready, mut hears, mut alarm) = (Some(ready), false, Alarm::default());
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = connection.as_mut().poll(cx) {
            return Poll::Ready(end);
        }
        let allowed = connection.current_max_send_streams().min(streams_max);
        limit.store(allowed, Ordering::Relaxed);
        if allowed > 0 {
            if let Some(ready) = ready.take() {
                let _ = ready.send(());
            }
        } else {
            // hyper reads in a task of its own, and does not say what it has read.
            hears = hears || heard.as_mut().poll(cx).is_ready();
            if hears {
                alarm.poll(Instant::now() + SETTINGS_CHECK, cx);
            }
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = end {
        tracing::debug!(%error, "HTTP/2 connection to the app ended");
    }
}
