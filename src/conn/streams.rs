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
use crate::body::{Body, BodyError, KeepAlive};
use crate::idle::Alarm;

/// How often answers that the client does not take are looked at.
const TICK: Duration = Duration::from_millis(250);
/// `since_ms` of an answer that waits for the app.
const NOT_SENDING: u64 = u64::MAX;
/// What hyper gets at once. It asks for more when that is sent: progress is seen in such steps, and they
/// are no smaller than a frame.
const PIECE: usize = 16 * 1024;

/// One per connection.
#[derive(Debug)]
pub(crate) struct Streams {
    started: Instant,
    /// When the client last took a piece of some answer.
    moved_ms: AtomicU64,
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
    /// A tunnel has ended, and its client does not take what was sent before.
    abandoned: bool,
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

impl Sending {
    fn is_cut(&self) -> bool {
        self.cut.as_ref().is_some_and(CancellationToken::is_cancelled)
    }
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
        let inner = Inner {
            used: false,
            open: 0,
            idle_since: now,
            sending: Vec::new(),
            abandoned: false,
            waker: None,
        };
        Arc::new(Self { started: now, moved_ms: AtomicU64::new(0), inner: Mutex::new(inner) })
    }

    /// A request has come; `keep` lives as long as it is in flight.
    pub(crate) fn begin(self: &Arc<Self>, keep: Option<KeepAlive>) -> Stream {
        let mut inner = self.inner.lock();
        inner.used = true;
        inner.open += 1;
        Stream { streams: Arc::clone(self), _keep: keep }
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
        if inner.abandoned {
            return Advice::Abort;
        }
        if inner.open == 0 {
            let wait = if inner.used { deadlines.keep_alive } else { deadlines.first_byte };
            let over = alarm.poll(inner.idle_since + wait, cx);
            return if over { Advice::Finish } else { Advice::GoOn };
        }
        let mut stuck = false;
        // One answer that is held up is not worth the others, as long as these move.
        let quiet = Duration::from_millis(
            self.now_ms().saturating_sub(self.moved_ms.load(Ordering::Acquire)),
        );
        for sending in &inner.sending {
            let since_ms = sending.since_ms.load(Ordering::Acquire);
            if since_ms == NOT_SENDING {
                continue;
            }
            let waited = (self.started + Duration::from_millis(since_ms)).elapsed();
            let stalled = waited.min(quiet) >= deadlines.write_stall;
            if stalled || (sending.is_cut() && waited >= TICK) {
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
pub(crate) struct Stream {
    streams: Arc<Streams>,
    _keep: Option<KeepAlive>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// Keeps a request in flight: for a tunnel, whose answer ends before it has begun.
#[derive(Clone, Debug)]
pub(crate) struct Hold(Arc<Held>);

#[derive(Debug)]
struct Held {
    stream: Stream,
    sending: Arc<Sending>,
}

impl From<Stream> for Hold {
    fn from(stream: Stream) -> Self {
        let sending = stream.sending(None);
        Self(Arc::new(Held { stream, sending }))
    }
}

impl Hold {
    /// Whether the tunnel has something that its client does not take. A tunnel that ends like this
    /// takes its connection with it: hyper would hold what was sent for as long as the client does.
    pub(crate) fn waits(&self, waits: bool) {
        self.0.stream.note(&self.0.sending, waits);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.stream.streams.inner.lock();
        inner.sending.retain(|other| !Arc::ptr_eq(other, &self.sending));
        if self.sending.since_ms.load(Ordering::Acquire) != NOT_SENDING {
            inner.abandoned = true;
            inner.wake();
        }
    }
}

impl Stream {
    /// The request is in flight until its answer's body is dropped.
    pub(crate) fn wrap(self, response: Response<Body>) -> Response<Watched> {
        response.map(|body| {
            let sending = (!body.is_end_stream()).then(|| self.sending(body.cut().cloned()));
            Watched { body, rest: Bytes::new(), sending, stream: self }
        })
    }

    fn sending(&self, cut: Option<CancellationToken>) -> Arc<Sending> {
        let sending = Arc::new(Sending { since_ms: AtomicU64::new(NOT_SENDING), cut });
        self.streams.inner.lock().sending.push(Arc::clone(&sending));
        sending
    }

    /// Whether there is something now that the client has not taken. What there was before, it has.
    fn note(&self, sending: &Sending, waits: bool) {
        let now = self.streams.now_ms();
        let before = sending.since_ms.swap(if waits { now } else { NOT_SENDING }, Ordering::AcqRel);
        if before != NOT_SENDING {
            self.streams.moved_ms.store(now, Ordering::Release);
        } else if waits {
            self.streams.inner.lock().wake();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.streams.inner.lock();
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
    /// Of a piece that was larger than hyper gets at once.
    rest: Bytes,
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
        if this.sending.as_ref().is_some_and(|sending| sending.is_cut()) {
            this.rest.clear();
        }
        let polled = if this.rest.is_empty() {
            Pin::new(&mut this.body).poll_frame(cx).map_ok(|frame| match frame.into_data() {
                Ok(data) => {
                    this.rest = data;
                    next_piece(&mut this.rest)
                }
                Err(frame) => frame,
            })
        } else {
            Poll::Ready(Some(Ok(next_piece(&mut this.rest))))
        };
        if let Some(sending) = &this.sending {
            this.stream.note(sending, polled.is_ready());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

fn next_piece(rest: &mut Bytes) -> Frame<Bytes> {
    Frame::data(rest.split_to(rest.len().min(PIECE)))
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            self.stream.note(sending, false);
            let sendings = &mut self.stream.streams.inner.lock().sending;
            sendings.retain(|other| !Arc::ptr_eq(other, sending));
        }
    }
}
