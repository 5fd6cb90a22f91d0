//! Reaching the app: names, addresses, sockets.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use crate::idle::Idle;
use crate::settings::UpstreamSettings;

#[derive(Debug)]
pub(super) struct Connector {
    authority: String,
    timeout: Duration,
    write_stall_timeout: Duration,
    /// What the name meant when last it could be resolved.
    known: Mutex<Vec<SocketAddr>>,
}

impl Connector {
    pub(super) fn new(settings: &UpstreamSettings) -> Self {
        // Later than the first-byte timeout, which has the better answer.
        let stall_ms = settings.first_byte_timeout_ms.max(settings.body_idle_timeout_ms);
        Self {
            authority: settings.authority.clone(),
            timeout: Duration::from_millis(settings.connect_timeout_ms),
            write_stall_timeout: Duration::from_millis(stall_ms.saturating_add(1_000)),
            known: Mutex::new(Vec::new()),
        }
    }

    /// Tries all addresses of the name, within one timeout.
    pub(super) async fn connect(&self) -> io::Result<AppStream> {
        let deadline = Instant::now() + self.timeout;
        let addresses = self.resolve(deadline).await?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (index, address) in addresses.iter().enumerate() {
            // An address that swallows packets must not use up the time of the others.
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Only costs latency.
                    let _ = stream.set_nodelay(true);
                    return Ok(AppStream { io: stream, idle: Idle::new(self.write_stall_timeout) });
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn resolve(&self, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        let found = match timeout_at(deadline, lookup_host(&self.authority)).await {
            Ok(Ok(found)) => Ok(found.collect::<Vec<_>>()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let mut known = self.known.lock();
        match found {
            Ok(found) if !found.is_empty() => {
                known.clone_from(&found);
                Ok(found)
            }
            Ok(_) | Err(_) if !known.is_empty() => Ok(known.clone()),
            Ok(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
            Err(error) => Err(error),
        }
    }
}

/// A socket to the app that fails when the app takes no bytes for too long.
#[derive(Debug)]
pub(super) struct AppStream {
    io: TcpStream,
    idle: Idle,
}

impl AppStream {
    fn written<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            if self.idle.poll_expired(cx) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        } else {
            self.idle.progress();
        }
        polled
    }
}

impl AsyncRead for AppStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for AppStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.written(polled, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.written(polled, cx)
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
