//! What the socket and the service of one connection know of each other: whether a request is in
//! flight, and how its answer goes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BodyError};

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// No request yet.
    New,
    /// Between requests.
    Waiting,
    /// The service has a request.
    Busy,
    /// All of an answer was given to hyper, but perhaps not yet to the socket.
    Answered,
    /// What is said on it is no HTTP/1 any more.
    Tunnel,
}

impl Phase {
    const ALL: [Self; 5] = [Self::New, Self::Waiting, Self::Busy, Self::Answered, Self::Tunnel];

    pub(crate) fn waits_for_request(self) -> bool {
        matches!(self, Self::New | Self::Waiting)
    }
}

/// One per connection.
#[derive(Debug, Default)]
pub(crate) struct ConnState {
    phase: AtomicU8,
    /// The last request had a body.
    with_body: AtomicBool,
    /// An answer without a visible end broke off.
    broken: AtomicBool,
    /// Cuts the answer in flight.
    cut: Mutex<Option<CancellationToken>>,
}

impl ConnState {
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn step(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The service has a request now.
    pub(crate) fn requested(&self, with_body: bool) {
        self.with_body.store(with_body, Ordering::Relaxed);
        self.set(Phase::Busy);
    }

    /// For a connection on which no HTTP/1 is spoken: its requests are counted elsewhere.
    pub(crate) fn tunnel() -> Self {
        let state = Self::default();
        state.set(Phase::Tunnel);
        state
    }

    /// hyper wrote what it had; true if that was the end of an answer.
    pub(crate) fn sent(&self) -> bool {
        self.step(Phase::Answered, Phase::Waiting)
    }

    pub(crate) fn may_have_unread_body(&self) -> bool {
        self.with_body.load(Ordering::Relaxed) && self.phase() != Phase::Tunnel
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(crate) fn cut(&self) -> Option<CancellationToken> {
        self.cut.lock().clone()
    }
}

/// An answer's body that tells its connection how it goes.
#[derive(Debug)]
pub(crate) struct Tracked {
    body: Body,
    state: Arc<ConnState>,
    /// The client takes the connection's end for the body's: an abort must look like one.
    ends_with_connection: bool,
}

impl Tracked {
    /// `version` is the request's.
    pub(crate) fn wrap(
        mut response: Response<Body>,
        version: Version,
        state: &Arc<ConnState>,
    ) -> Response<Self> {
        // Ours, whatever the app speaks; hyper lowers it for an old client.
        *response.version_mut() = Version::HTTP_11;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            state.set(Phase::Tunnel);
        }
        response.map(|body| {
            if let Some(cut) = body.cut() {
                *state.cut.lock() = Some(cut.clone());
            }
            let ends_with_connection =
                version == Version::HTTP_10 && body.size_hint().exact().is_none();
            Self { body, state: Arc::clone(state), ends_with_connection }
        })
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if this.ends_with_connection && matches!(polled, Poll::Ready(Some(Err(_)))) {
            this.state.broken.store(true, Ordering::Relaxed);
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

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.body.cut().is_some() {
            *self.state.cut.lock() = None;
        }
        self.state.step(Phase::Busy, Phase::Answered);
    }
}
