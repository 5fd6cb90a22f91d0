//! Idle connections to the app: last in, first out. A connection comes back only when hyper is
//! ready for its next request, that is when both messages were complete and nothing followed them.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::connect::{AppStream, ConnectError, Connector};
use crate::body::RequestBody;
use crate::idle::Alarm;
use crate::settings::UpstreamSettings;

/// hyper's default; any other number costs an allocation per answer.
const HYPER_HEADERS: usize = 100;
/// hyper panics on less.
const BUFFER_MIN: usize = 8192;

#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    http: Builder,
    idle_max: usize,
    idle_timeout: Duration,
    /// Oldest first.
    idle: Mutex<VecDeque<Resting>>,
    reaping: AtomicBool,
}

#[derive(Debug)]
struct Resting {
    link: Link,
    since: Instant,
}

/// A connection, for one request at a time.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    driver: AbortHandle,
    place: Arc<Place>,
    address: Option<SocketAddr>,
    /// For the answers, one after another: to keep a timer is cheaper than to make one.
    alarm: Alarm,
}

/// Where a sender waits for the end of its answer, for the driver to find it.
type Place = Mutex<Option<(SendRequest<RequestBody>, AbortHandle, Alarm)>>;

impl Link {
    pub(super) fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.sender
    }

    pub(super) fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    pub(super) fn driver(&self) -> AbortHandle {
        self.driver.clone()
    }
}

impl Pool {
    pub(super) fn new(settings: &UpstreamSettings, connector: Connector) -> Self {
        let mut http = Builder::new();
        http.max_buf_size(settings.head_bytes_max.max(BUFFER_MIN))
            .max_header_size(settings.head_bytes_max)
            .allow_obsolete_multiline_headers_in_responses(settings.lenience.folded_headers)
            .allow_spaces_after_header_name_in_responses(settings.lenience.spaced_headers);
        if settings.headers_max != HYPER_HEADERS {
            http.max_headers(settings.headers_max);
        }
        Self {
            connector,
            http,
            idle_max: settings.idle_connections_max,
            idle_timeout: Duration::from_millis(settings.idle_timeout_ms),
            idle: Mutex::new(VecDeque::new()),
            reaping: AtomicBool::new(false),
        }
    }

    /// The connection used last, if it is still good.
    pub(super) fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock();
        while let Some(resting) = idle.pop_back() {
            let Resting { link, since } = resting;
            if link.sender.is_ready()
                && since.elapsed() < self.idle_timeout
                && self.connector.leads_to_app(link.address)
            {
                return Some(link);
            }
        }
        None
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) async fn connect(self: &Arc<Self>) -> Result<Link, ConnectError> {
        let stream = self.connector.connect(true, self.connector.deadline()).await?;
        self.handshake(stream).await
    }

    /// Puts a connection to rest that was made for something else.
    pub(super) async fn adopt(self: &Arc<Self>, stream: AppStream) -> Result<(), ConnectError> {
        let link = self.handshake(stream).await?;
        self.rest(link);
        Ok(())
    }

    async fn handshake(self: &Arc<Self>, stream: AppStream) -> Result<Link, ConnectError> {
        let address = stream.address;
        let (sender, connection) =
            self.http.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let place = Arc::new(Place::default());
        let driving =
            drive(connection.with_upgrades(), Arc::clone(&place), address, Arc::downgrade(self));
        let driver = tokio::spawn(driving).abort_handle();
        Ok(Link { sender, driver, place, address, alarm: Alarm::default() })
    }

    /// To be called with the head of the answer: the connection returns with the end of it.
    pub(super) fn give_back(self: &Arc<Self>, link: Link) {
        let Link { sender, driver, place, address, alarm } = link;
        let mut parked = place.lock();
        // Under the lock: either it is ready now, or the driver finds it.
        if sender.is_ready() {
            drop(parked);
            self.rest(Link { sender, driver, place, address, alarm });
        } else if !sender.is_closed() {
            *parked = Some((sender, driver, alarm));
        }
    }

    fn rest(self: &Arc<Self>, link: Link) {
        let mut idle = self.idle.lock();
        if self.idle_max == 0 {
            return;
        }
        if idle.len() >= self.idle_max {
            idle.pop_front();
        }
        idle.push_back(Resting { link, since: Instant::now() });
        drop(idle);
        if !self.reaping.swap(true, Ordering::AcqRel) {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    /// Closes what has rested too long, or was closed by the app; `None` if nothing is left.
    fn sweep(&self) -> Option<Instant> {
        let mut idle = self.idle.lock();
        idle.retain(|resting| {
            !resting.link.sender.is_closed() && resting.since.elapsed() < self.idle_timeout
        });
        let next = idle.front().map(|resting| resting.since + self.idle_timeout);
        if next.is_none() {
            // Under the lock, or a connection that comes just now would never be swept.
            self.reaping.store(false, Ordering::Release);
        }
        next
    }

    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        self.idle.lock().iter().filter(|resting| resting.link.sender.is_ready()).count()
    }
}

/// Runs while connections rest.
async fn reap(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.sweep()) {
        sleep_until(next).await;
    }
}

/// Runs a connection, and puts it to rest whenever it is ready for another request.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    place: Arc<Place>,
    address: Option<SocketAddr>,
    pool: Weak<Pool>,
) {
    let mut connection = pin!(connection);
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = connection.as_mut().poll(cx) {
            return Poll::Ready(end);
        }
        let parked = place.lock().take_if(|(sender, ..)| sender.is_ready());
        if let (Some((sender, driver, alarm)), Some(pool)) = (parked, pool.upgrade()) {
            pool.rest(Link { sender, driver, place: Arc::clone(&place), address, alarm });
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = end {
        tracing::debug!(%error, "connection to the app ended");
    }
}
