//! What one HTTP/2 connection has in flight: when it is idle, and which answers its client does not
//! take. hyper polls no body while the client leaves no window for it, so that neither a cut nor a
//! timeout of the body would be seen.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Deadlines;
use crate::body::{Body, BodyError};
use crate::idle::Alarm;

/// How often answers that the client does not take are looked at.
const TICK: Duration = Duration::from_millis(250);
/// `since_ms` of an answer that waits for the app.
const NOT_SENDING: u64 = u64::MAX;

/// One per connection.
#[derive(Debug)]
pub(crate) struct Streams {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// There was a request.
    used: bool,
    /// Requests that are not answered to the end.
    open: usize,
    /// Since when there is none.
    idle_since: Instant,
    sending: Vec<Arc<Sending>>,
    /// Of the connection.
    waker: Option<Waker>,
}

impl Inner {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// An answer on its way.
#[derive(Debug)]
struct Sending {
    /// Since when hyper has a piece that it cannot hand on.
    since_ms: AtomicU64,
    cut: Option<CancellationToken>,
}

/// What the connection should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    GoOn,
    /// Nothing happens any more.
    Finish,
    /// The client takes nothing, or goes on holding what was cut.
    Abort,
}

impl Streams {
    pub(crate) fn new() -> Arc<Self> {
        let now = Instant::now();
        let inner =
            Inner { used: false, open: 0, idle_since: now, sending: Vec::new(), waker: None };
        Arc::new(Self { started: now, inner: Mutex::new(inner) })
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>) -> Stream {
        let mut inner = self.inner.lock();
        inner.used = true;
        inner.open += 1;
        Stream(Arc::clone(self))
    }

    /// Whether no request has come yet.
    pub(crate) fn is_new(&self) -> bool {
        !self.inner.lock().used
    }

    /// To be asked at each poll of the connection; wakes its task when there is more to say.
    pub(crate) fn advise(
        &self,
        deadlines: &Deadlines,
        alarm: &mut Alarm,
        cx: &mut Context<'_>,
    ) -> Advice {
        let mut inner = self.inner.lock();
        if inner.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        if inner.open == 0 {
            let wait = if inner.used { deadlines.keep_alive } else { deadlines.first_byte };
            let over = alarm.poll(inner.idle_since + wait, cx);
            return if over { Advice::Finish } else { Advice::GoOn };
        }
        let mut stuck = false;
        for sending in &inner.sending {
            let since_ms = sending.since_ms.load(Ordering::Acquire);
            if since_ms == NOT_SENDING {
                continue;
            }
            let waited = (self.started + Duration::from_millis(since_ms)).elapsed();
            let cut = sending.cut.as_ref().is_some_and(CancellationToken::is_cancelled);
            if waited >= deadlines.write_stall || (cut && waited >= TICK) {
                return Advice::Abort;
            }
            stuck = true;
        }
        if stuck {
            alarm.poll(Instant::now() + TICK, cx);
        }
        Advice::GoOn
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NOT_SENDING - 1)
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Stream(Arc<Streams>);

/// Keeps a request in flight: for a tunnel, whose answer ends before it has begun.
#[derive(Clone, Debug)]
pub(crate) struct Hold(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Stream>);

impl From<Stream> for Hold {
    fn from(stream: Stream) -> Self {
        Self(Arc::new(stream))
    }
}

impl Stream {
    /// The request is in flight until its answer's body is dropped.
    pub(crate) fn wrap(self, response: Response<Body>) -> Response<Watched> {
        response.map(|body| {
            let sending = (!body.is_end_stream()).then(|| {
                let since_ms = AtomicU64::new(NOT_SENDING);
                let sending = Arc::new(Sending { since_ms, cut: body.cut().cloned() });
                self.0.inner.lock().sending.push(Arc::clone(&sending));
                sending
            });
            Watched { body, sending, stream: self }
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.open -= 1;
        if inner.open == 0 {
            inner.idle_since = Instant::now();
            inner.wake();
        }
    }
}

/// An answer's body that tells its connection how it goes.
#[derive(Debug)]
pub(crate) struct Watched {
    body: Body,
    sending: Option<Arc<Sending>>,
    stream: Stream,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(sending) = &this.sending {
            let since = if polled.is_ready() { this.stream.0.now_ms() } else { NOT_SENDING };
            let before = sending.since_ms.swap(since, Ordering::AcqRel);
            if before == NOT_SENDING && since != NOT_SENDING {
                this.stream.0.inner.lock().wake();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            let sendings = &mut self.stream.0.inner.lock().sending;
            sendings.retain(|other| !Arc::ptr_eq(other, sending));
        }
    }
}
