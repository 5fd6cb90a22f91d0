//! The bodies that flow through the proxy, with their limits: idle timeouts, sizes, dropped
//! trailers, and the cut that ends an answer when its session ends. Nothing here looks at what a
//! body says.

mod app;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub use self::app::AppBody;
use crate::idle::{Alarm, Idle};
use crate::refusal::Refusal;

/// Why a body broke off. The other side sees an aborted message, never a clean end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("cut, because its session ended")]
    Cut,
    #[error("no progress in time")]
    Idle,
    #[error("not finished in time")]
    Overdue,
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error(transparent)]
    Source(#[from] hyper::Error),
}

/// Something that lives until a body has ended, such as a counter's permit.
pub type KeepAlive = Box<dyn Send + Sync>;

/// The body of an answer.
#[derive(Debug, Default)]
pub enum Body {
    #[default]
    Empty,
    Full(Bytes),
    Upstream(Box<Relayed>),
}

impl Body {
    /// The app's answer, relayed. `cut` ends it with an error as soon as it is cancelled.
    pub fn upstream(
        incoming: impl Into<AppBody>,
        idle_timeout: Duration,
        cut: Option<CancellationToken>,
        keep: Option<KeepAlive>,
    ) -> Self {
        let incoming = incoming.into();
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let idle = Idle::new(idle_timeout);
        let overdue = None;
        Self::Upstream(Box::new(Relayed {
            incoming,
            idle,
            overdue,
            cut,
            cutting: None,
            _keep: keep,
        }))
    }

    /// Ends with an error when it has not ended by `deadline`. Answers of ours are all there.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        if let Self::Upstream(relayed) = &mut self {
            relayed.overdue = Some((deadline, Alarm::default()));
        }
        self
    }

    /// What cuts it, for a connection that is stuck writing and does not poll it.
    pub(crate) fn cut(&self) -> Option<&CancellationToken> {
        match self {
            Self::Upstream(relayed) => relayed.cut.as_ref(),
            Self::Empty | Self::Full(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(take_all(bytes)),
            Self::Upstream(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Upstream(relayed) => relayed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(relayed) => relayed.incoming.size_hint(),
        }
    }
}

fn take_all<E>(bytes: &mut Bytes) -> Option<Result<Frame<Bytes>, E>> {
    let bytes = std::mem::take(bytes);
    (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
}

/// An answer on its way from the app to the client.
pub struct Relayed {
    incoming: AppBody,
    idle: Idle,
    /// When it has to be at its end.
    overdue: Option<(Instant, Alarm)>,
    cut: Option<CancellationToken>,
    /// Registered when the body first had to wait.
    cutting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _keep: Option<KeepAlive>,
}

impl std::fmt::Debug for Relayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relayed").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl Relayed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.cut.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        if self.overdue.as_ref().is_some_and(|(deadline, _)| Instant::now() >= *deadline) {
            return Poll::Ready(Some(Err(BodyError::Overdue)));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle.progress();
                Poll::Ready(data_only(frame))
            }
            Poll::Pending => self.poll_waiting(cx),
        }
    }

    fn poll_waiting(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(cut) = &self.cut {
            let cutting =
                self.cutting.get_or_insert_with(|| Box::pin(cut.clone().cancelled_owned()));
            if cutting.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(BodyError::Cut)));
            }
        }
        if let Some((deadline, alarm)) = &mut self.overdue
            && alarm.poll(*deadline, cx)
        {
            return Poll::Ready(Some(Err(BodyError::Overdue)));
        }
        if self.idle.poll_expired(cx) {
            return Poll::Ready(Some(Err(BodyError::Idle)));
        }
        Poll::Pending
    }
}

/// Trailers come last: dropping them ends the body.
fn data_only(
    frame: Option<Result<Frame<Bytes>, hyper::Error>>,
) -> Option<Result<Frame<Bytes>, BodyError>> {
    match frame? {
        Ok(frame) if frame.is_data() => Some(Ok(frame)),
        Ok(_) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// What is sent to the app.
#[derive(Debug)]
pub enum RequestBody {
    Full(Bytes),
    Client(Box<ClientBody>),
}

impl RequestBody {
    /// The client's body, streamed. Refused at once when its declared length is over the limit.
    pub fn client(
        incoming: Incoming,
        bytes_max: Option<u64>,
        idle_timeout: Duration,
    ) -> Result<Self, Refusal> {
        if incoming.is_end_stream() {
            return Ok(Self::Full(Bytes::new()));
        }
        if bytes_max.is_some_and(|max| incoming.size_hint().lower() > max) {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Self::Client(Box::new(ClientBody {
            incoming,
            bytes_left: bytes_max.unwrap_or(u64::MAX),
            idle: Idle::new(idle_timeout),
            upload: Arc::new(Upload::new()),
        })))
    }

    /// How the upload goes, while and after it is sent; `None`: it is all there.
    pub fn upload(&self) -> Option<&Arc<Upload>> {
        match self {
            Self::Full(_) => None,
            Self::Client(client) => Some(&client.upload),
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(take_all(bytes)),
            Self::Client(client) => client.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Client(client) => client.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Client(client) => client.incoming.size_hint(),
        }
    }
}

/// A request body on its way from the client to the app.
#[derive(Debug)]
pub struct ClientBody {
    incoming: Incoming,
    bytes_left: u64,
    idle: Idle,
    upload: Arc<Upload>,
}

impl ClientBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            self.upload.to(WAITING);
            if self.idle.poll_expired(cx) {
                return self.refuse(Refusal::BodyTimeout);
            }
            return Poll::Pending;
        };
        self.idle.progress();
        match data_only(frame) {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.bytes_left.checked_sub(length) {
                    Some(left) => self.bytes_left = left,
                    None => return self.refuse(Refusal::BodyTooLarge),
                }
                self.upload.to(if self.incoming.is_end_stream() { SENT } else { SENDING });
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => self.refuse(Refusal::BodyInvalid),
            None => {
                self.upload.to(SENT);
                Poll::Ready(None)
            }
        }
    }

    fn refuse(&self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // The first reason stands.
        let refusal = *self.upload.refusal.get_or_init(|| refusal);
        Poll::Ready(Some(Err(BodyError::Refused(refusal))))
    }
}

const SENDING: u8 = 0;
const WAITING: u8 = 1;
const SENT: u8 = 2;

/// How an upload goes, for those who wait for the answer to it.
#[derive(Debug)]
pub struct Upload {
    refusal: OnceLock<Refusal>,
    phase: AtomicU8,
    started: Instant,
    progress_us: AtomicU64,
}

impl Upload {
    fn new() -> Self {
        Self {
            refusal: OnceLock::new(),
            phase: AtomicU8::new(SENDING),
            started: Instant::now(),
            progress_us: AtomicU64::new(0),
        }
    }

    fn to(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        if phase != WAITING {
            let elapsed = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.progress_us.store(elapsed, Ordering::Relaxed);
        }
    }

    /// Why the client's body was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    /// Whether all of it was handed on.
    pub fn finished(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == SENT
    }

    /// Whether the client, not the app, is what it waits for.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == WAITING
    }

    /// When a piece was last handed on.
    pub(crate) fn last_progress(&self) -> Instant {
        self.started + Duration::from_micros(self.progress_us.load(Ordering::Relaxed))
    }
}

/// Reads a body whole, as logins need it. Trailers are ignored.
pub async fn read_limited(
    mut body: Incoming,
    bytes_max: usize,
    idle_timeout: Duration,
) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while !body.is_end_stream() {
        let piece = tokio::time::timeout(idle_timeout, body.frame());
        let frame = match piece.await.map_err(|_| Refusal::BodyTimeout)? {
            None => break,
            Some(frame) => frame.map_err(|_| Refusal::BodyInvalid)?,
        };
        let Ok(data) = frame.into_data() else { break };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}
