//! A client's connection as hyper sees it: the socket with deadlines of its own, and with our pages
//! in place of hyper's empty refusals. Accepting and serving is the business of `listener.rs`.

mod frames;
mod framing;
mod state;
mod streams;

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

pub(crate) use self::frames::{Metered, PREFACE};
use self::framing::Framing;
pub(crate) use self::state::{ConnState, Phase, Tracked};
pub(crate) use self::streams::{Advice, Hold, Stream, Streams, Watched};
use crate::body::{Body, KeepAlive};
use crate::idle::Alarm;
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::settings::ServerLimits;
use crate::socket::Transport;

/// How the edge makes answers, and whom it tells.
pub struct Hooks {
    /// A whole HTTP/1.1 response with `Connection: close`, as bytes; with `Retry-After` where the
    /// refusal is [`Refusal::Overloaded`].
    pub render: Box<dyn Fn(Refusal) -> Bytes + Send + Sync>,
    /// The same for hyper to write.
    pub answer: Box<dyn Fn(Refusal) -> Response<Body> + Send + Sync>,
    /// Called once for each refusal that the service did not make.
    pub on_refused: Box<dyn Fn(Refusal, Peer) + Send + Sync>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// After a refusal, what still comes in is read and dropped for so long and up to so many bytes:
/// closing over unread bytes would reset the connection, and the client might lose the page.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// How long a connection may do what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    pub(crate) first_byte: Duration,
    pub(crate) handshake: Duration,
    pub(crate) head: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) write_stall: Duration,
}

impl Deadlines {
    pub(crate) fn of(limits: &ServerLimits) -> Self {
        Self {
            first_byte: Duration::from_millis(limits.first_byte_timeout_ms),
            handshake: Duration::from_millis(limits.tls_handshake_timeout_ms),
            head: Duration::from_millis(limits.head_timeout_ms),
            keep_alive: Duration::from_millis(limits.keep_alive_timeout_ms),
            write_stall: Duration::from_millis(limits.write_stall_timeout_ms),
        }
    }
}

/// The socket under hyper.
pub(crate) struct Guarded {
    io: Transport,
    peer: Peer,
    state: Arc<ConnState>,
    hooks: Arc<Hooks>,
    deadlines: Deadlines,
    alarm: Alarm,
    framing: Framing,
    /// What came behind the present request: hyper gets it when that is answered. At most what hyper
    /// had room for in one read.
    ahead: BytesMut,
    /// Bytes came since the last answer (or since the start), but no request yet.
    head_started: bool,
    /// When the present wait for the client began.
    since: Option<Instant>,
    /// When the client stopped taking bytes.
    stalled: Option<Instant>,
    cutting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Our page, as far as it is not written.
    page: Bytes,
    refused: bool,
    closing: Closing,
    _keep: KeepAlive,
}

#[derive(Clone, Copy)]
enum Closing {
    No,
    Linger { until: Instant, bytes_left: usize },
    Closed,
}

impl Guarded {
    pub(crate) fn new(
        io: Transport,
        peer: Peer,
        state: Arc<ConnState>,
        hooks: Arc<Hooks>,
        deadlines: Deadlines,
        keep: KeepAlive,
    ) -> Self {
        Self {
            io,
            peer,
            state,
            hooks,
            deadlines,
            alarm: Alarm::default(),
            framing: Framing::default(),
            ahead: BytesMut::new(),
            head_started: false,
            since: None,
            stalled: None,
            cutting: None,
            page: Bytes::new(),
            refused: false,
            closing: Closing::No,
            _keep: keep,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        if !self.refused {
            self.refused = true;
            self.page = (self.hooks.render)(refusal);
            (self.hooks.on_refused)(refusal, self.peer);
        }
    }

    /// No request is in flight: whether the client has been waited for long enough.
    fn poll_wait_over(&mut self, cx: &mut Context<'_>) -> bool {
        let wait = if self.head_started {
            self.deadlines.head
        } else if self.state.phase() == Phase::New {
            self.deadlines.first_byte
        } else {
            self.deadlines.keep_alive
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        self.alarm.poll(since + wait, cx)
    }

    /// The socket takes no more: pending, until that lasts too long or the answer is cut.
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let since = *self.stalled.get_or_insert_with(Instant::now);
        if self.alarm.poll(since + self.deadlines.write_stall, cx) {
            self.io.reset();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.cutting.is_none() {
            self.cutting = self.state.cut().map(|cut| Box::pin(cut.cancelled_owned()));
        }
        if self.cutting.as_mut().is_some_and(|cutting| cutting.as_mut().poll(cx).is_ready()) {
            self.io.reset();
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Pending
    }

    fn written<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            return self.poll_stalled(cx);
        }
        self.stalled = None;
        polled
    }

    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.page.is_empty() {
            let polled = Pin::new(&mut self.io).poll_write(cx, &self.page);
            let count = ready!(self.written(polled, cx))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.page.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Everything hyper had to write is written: an answer that was finished is now sent.
    fn sent(&mut self, cx: &mut Context<'_>) {
        if self.state.sent() {
            self.head_started = false;
            self.cutting = None;
            self.since = None;
            // hyper may see no reason to read again before it is woken.
            self.poll_wait_over(cx);
            if !self.ahead.is_empty() {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Bytes as they came: what was held back, then the socket's.
    fn poll_any(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(count));
        Poll::Ready(Ok(()))
    }

    /// Bytes of the present request and no others: what hyper cannot see it cannot take for another
    /// request than we do.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.framing.wrong().is_some() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            let count = self.framing.follow(&self.ahead[..count]);
            buf.put_slice(&self.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let came = &buf.filled()[before..];
        let count = self.framing.follow(came);
        self.ahead.extend_from_slice(&came[count..]);
        buf.set_filled(before + count);
        Poll::Ready(Ok(()))
    }

    /// While a request that came whole is being answered: whether the client is still there.
    fn poll_behind(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            // `sent` wakes.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let came = &buf.filled()[before..];
        if came.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.ahead.extend_from_slice(came);
        buf.set_filled(before);
        Poll::Pending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_page(cx))?;
        if let Closing::No = self.closing {
            let polled = Pin::new(&mut self.io).poll_shutdown(cx);
            ready!(self.written(polled, cx))?;
            let until = Instant::now() + LINGER;
            let unread = self.state.may_have_unread_body() || !self.ahead.is_empty();
            self.closing = if self.refused || unread {
                Closing::Linger { until, bytes_left: LINGER_BYTES }
            } else {
                Closing::Closed
            };
        }
        while let Closing::Linger { until, bytes_left } = self.closing {
            let mut scratch = [0; 4096];
            let mut scratch = ReadBuf::new(&mut scratch);
            let over = match Pin::new(&mut self.io).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) => scratch.filled().is_empty(),
                Poll::Ready(Err(_)) => true,
                Poll::Pending if self.alarm.poll(until, cx) => true,
                Poll::Pending => return Poll::Pending,
            };
            self.closing = match bytes_left.checked_sub(scratch.filled().len()) {
                Some(bytes_left) if !over => Closing::Linger { until, bytes_left },
                _ => Closing::Closed,
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            // An end of file makes hyper give up; it has nothing to write.
            return this.poll_close(cx);
        }
        let before = buf.filled().len();
        let phase = this.state.phase();
        let read = if phase == Phase::Tunnel {
            this.poll_any(cx, buf)
        } else if this.framing.is_between() && !phase.waits_for_request() {
            return this.poll_behind(cx, buf);
        } else {
            this.poll_request(cx, buf)
        };
        if !phase.waits_for_request() {
            return read;
        }
        match this.framing.wrong() {
            Some(wrong) if buf.filled().len() == before => {
                // Of a body nobody waits for, when the answer was early, nobody is told either.
                if wrong != Refusal::BodyInvalid {
                    this.refuse(wrong);
                }
                return this.poll_close(cx);
            }
            _ => {}
        }
        if read.is_ready() {
            if !this.head_started && buf.filled().len() > before {
                this.head_started = true;
                this.since = None;
            }
            return read;
        }
        if !this.poll_wait_over(cx) {
            return Poll::Pending;
        }
        // What came after an answer given early may be the rest of a body instead of a head: then,
        // as on a connection that is merely idle, nobody waits for a page.
        if this.head_started && !this.state.may_have_unread_body() {
            this.refuse(Refusal::HeadTimeout);
            return this.poll_close(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Without a request only hyper itself has something to say: that it could not read one.
        if this.refused || this.state.phase().waits_for_request() {
            let head: &[u8] = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf);
            this.refuse(refusal_of(head));
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_page(cx))?;
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        ready!(this.written(polled, cx))?;
        this.sent(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_close(cx)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.state.is_broken() {
            self.io.reset();
        }
    }
}

/// What hyper's own refusal says, by its status line.
fn refusal_of(head: &[u8]) -> Refusal {
    match head.get(9..12) {
        Some(b"431") => Refusal::HeadTooLarge,
        Some(b"414") => Refusal::TargetTooLong,
        _ => Refusal::MalformedHead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hypers_status_lines_are_understood() {
        assert_eq!(refusal_of(b"HTTP/1.1 400 Bad Request\r\n"), Refusal::MalformedHead);
        assert_eq!(refusal_of(b"HTTP/1.1 431 Request Header"), Refusal::HeadTooLarge);
        assert_eq!(refusal_of(b"HTTP/1.0 414 URI Too Long\r\n"), Refusal::TargetTooLong);
        assert_eq!(refusal_of(b""), Refusal::MalformedHead);
    }
}
