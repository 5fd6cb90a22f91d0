//! Counting the HTTP/2 frames that cost a client nothing and that hyper answers without limit: PING,
//! SETTINGS, PRIORITY, frames of unknown kinds, empty DATA, WINDOW_UPDATE for what was never sent. More
//! than an honest client ever sends end the connection. What the frames say is not looked at.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`: what every HTTP/2 connection begins with (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
/// Bytes written that entitle the client to one WINDOW_UPDATE: a small frame may bring two.
const BYTES_PER_UPDATE: usize = 8;
/// So many seconds' worth may come at once: browsers change many priorities in one go.
const BURST: f64 = 10.0;

/// Reads along.
#[derive(Debug)]
struct Meter {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
    per_second: f64,
    left: f64,
    /// Bytes written that no WINDOW_UPDATE has come for yet.
    owed: usize,
    since: Instant,
}

impl Meter {
    fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        let left = per_second * BURST;
        Self {
            skip: PREFACE.len(),
            head: [0; HEAD],
            filled: 0,
            per_second,
            left,
            owed: 0,
            since: now,
        }
    }

    /// False: it is too much.
    fn read(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let count = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                let free = kind == WINDOW_UPDATE && self.take_owed();
                if !free && costs_nothing(kind, flags, self.skip) && !self.spend(now) {
                    return false;
                }
            }
        }
        true
    }

    fn wrote(&mut self, count: usize) {
        self.owed = self.owed.saturating_add(count);
    }

    /// Whether a WINDOW_UPDATE is for something that was sent.
    fn take_owed(&mut self) -> bool {
        let left = self.owed.checked_sub(BYTES_PER_UPDATE);
        self.owed = left.unwrap_or(self.owed);
        left.is_some()
    }

    fn spend(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.left = (self.left + elapsed * self.per_second).min(self.per_second * BURST) - 1.0;
        self.left >= 0.0
    }
}

fn costs_nothing(kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        // Requests and what belongs to answers have limits of their own.
        HEADERS | CONTINUATION | RST_STREAM => false,
        _ => true,
    }
}

/// A connection that ends with an error when there are too many such frames.
pub(crate) struct Metered<IO> {
    io: IO,
    meter: Meter,
    on_flood: Option<Box<dyn FnOnce() + Send>>,
}

// Nothing in it is pinned.
impl<IO: Unpin> Unpin for Metered<IO> {}

impl<IO> Metered<IO> {
    pub(crate) fn new(io: IO, per_second: u32, on_flood: Box<dyn FnOnce() + Send>) -> Self {
        Self { io, meter: Meter::new(per_second, Instant::now()), on_flood: Some(on_flood) }
    }
}

impl<IO> Metered<IO> {
    fn written(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.meter.wrote(*count);
        }
        polled
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        let fresh = &buf.filled()[before..];
        if !fresh.is_empty() && !this.meter.read(fresh, Instant::now()) {
            if let Some(on_flood) = this.on_flood.take() {
                on_flood();
            }
            let error = io::Error::new(io::ErrorKind::InvalidData, "too many control frames");
            return Poll::Ready(Err(error));
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.written(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn frames_are_found_wherever_the_pieces_end() {
        let ping = frame(6, 0, &[0; 8]);
        let others = [frame(1, 4, &[6; 40]), frame(0, 0, b"x"), frame(0, END_STREAM, b"")].concat();
        let mut bytes = PREFACE.to_vec();
        for _ in 0..10 {
            bytes.extend_from_slice(&others);
            bytes.extend_from_slice(&ping);
        }
        let now = Instant::now();
        for piece in [1, 2, 3, 5, 7, 64, 10_000] {
            let mut meter = Meter::new(1, now);
            assert!(bytes.chunks(piece).all(|piece| meter.read(piece, now)), "{piece}");
            assert!(!ping.chunks(piece).all(|piece| meter.read(piece, now)), "{piece}");
        }
    }

    #[test]
    fn what_is_left_grows_with_time() {
        let now = Instant::now();
        let mut meter = Meter::new(10, now);
        assert!(meter.read(PREFACE, now));
        let flood = [frame(4, 0, b""), frame(2, 0, &[0; 5]), frame(0, 0, b"")].concat();
        for second in 1..100 {
            // Nine a second.
            let now = now + Duration::from_secs(second);
            assert!((0..3).all(|_| meter.read(&flood, now)));
        }
        let later = now + Duration::from_secs(1000);
        let taken = (0..1000).take_while(|_| meter.read(&flood, later)).count();
        assert_eq!(taken, 33, "a hundred frames at once");
    }

    #[test]
    fn windows_are_opened_for_what_was_sent() {
        let now = Instant::now();
        let mut meter = Meter::new(10, now);
        assert!(meter.read(PREFACE, now));
        let update = frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
        // Both windows after each piece of a download in the smallest of frames.
        for _ in 0..10_000 {
            meter.wrote(HEAD + 7);
            assert!(meter.read(&update, now) && meter.read(&update, now));
        }
        let taken = (0..1000).take_while(|_| meter.read(&update, now)).count();
        assert_eq!(taken, 100, "for nothing, as many as of other frames");
    }
}
