//! Reaching the app: addresses, sockets, TLS; all within one timeout.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::names::Name;
use crate::idle::Idle;
use crate::settings::UpstreamSettings;
use crate::socket::{Socket, Transport};
use crate::tls::{ALPN_HTTP2, AppTls};

/// Of many addresses so many are tried for one connection.
const ATTEMPTS_MAX: usize = 8;

/// Why there is no connection. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Socket(Arc<io::Error>),
    #[error("not connected in time")]
    Timeout,
    /// Also a certificate that is not believed.
    #[error("TLS: {0}")]
    Tls(Arc<io::Error>),
    #[error("it does not speak HTTP/2")]
    NotHttp2,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Socket(Arc::new(error)),
        }
    }
}

/// Where the app is and how it is known: one for all workers.
#[derive(Debug)]
pub struct App {
    place: Place,
    tls: Option<Arc<AppTls>>,
}

#[derive(Debug)]
enum Place {
    Unix(PathBuf),
    Address(SocketAddr),
    Name(Arc<Name>),
}

impl App {
    /// `tls` belongs to the same settings.
    pub fn new(settings: &UpstreamSettings, tls: Option<Arc<AppTls>>) -> Arc<Self> {
        let place = match (&settings.unix, settings.authority.parse()) {
            (Some(path), _) => Place::Unix(path.clone()),
            (None, Ok(address)) => Place::Address(address),
            (None, Err(_)) => {
                let interval = Duration::from_millis(settings.resolve_interval_ms);
                Place::Name(Name::new(settings.authority.clone(), interval))
            }
        };
        Arc::new(Self { place, tls })
    }

    /// How it shows who it is.
    pub fn tls(&self) -> Option<&AppTls> {
        self.tls.as_deref()
    }
}

#[derive(Debug)]
pub(super) struct Connector {
    app: Arc<App>,
    timeout: Duration,
    write_stall_timeout: Duration,
}

impl Connector {
    pub(super) fn new(settings: &UpstreamSettings, app: Arc<App>) -> Self {
        // Later than the first-byte timeout, which has the better answer.
        let stall_ms = settings.first_byte_timeout_ms.max(settings.body_idle_timeout_ms);
        Self {
            app,
            timeout: Duration::from_millis(settings.connect_timeout_ms),
            write_stall_timeout: Duration::from_millis(stall_ms.saturating_add(1_000)),
        }
    }

    /// When a connection that is begun now must be ready for a request.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(super) fn is_secure(&self) -> bool {
        self.app.tls.is_some()
    }

    /// `http1`: for a request that only HTTP/1.1 can carry.
    pub(super) async fn connect(
        &self,
        http1: bool,
        deadline: Instant,
    ) -> Result<AppStream, ConnectError> {
        let (socket, address) = self.open(deadline).await?;
        let (io, http2) = match &self.app.tls {
            None => (Transport::Plain(socket), false),
            Some(tls) => match timeout_at(deadline, tls.connect(socket, http1)).await {
                Err(_) => return Err(ConnectError::Timeout),
                Ok(Err(error)) => return Err(ConnectError::Tls(Arc::new(error))),
                Ok(Ok(stream)) => {
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
                    (Transport::Tls(Box::new(stream.into())), http2)
                }
            },
        };
        Ok(AppStream { io, idle: Idle::new(self.write_stall_timeout), address, http2, heard: None })
    }

    /// Whether a connection to this address still leads to the app.
    pub(super) fn leads_to_app(&self, address: Option<SocketAddr>) -> bool {
        match (&self.app.place, address) {
            (Place::Name(name), Some(address)) => name.holds(address),
            _ => true,
        }
    }

    async fn open(&self, deadline: Instant) -> Result<(Socket, Option<SocketAddr>), ConnectError> {
        let name = match &self.app.place {
            Place::Unix(path) => {
                return match timeout_at(deadline, UnixStream::connect(path)).await {
                    Ok(stream) => Ok((stream?.into(), None)),
                    Err(_) => Err(ConnectError::Timeout),
                };
            }
            Place::Address(address) => return dial(&[*address], deadline).await,
            Place::Name(name) => name,
        };
        let addresses = name.addresses(deadline).await?;
        let dialled = dial(&addresses[..addresses.len().min(ATTEMPTS_MAX)], deadline).await;
        if dialled.is_err() {
            name.all_failed();
        }
        dialled
    }
}

/// Tries them one after the other.
async fn dial(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<(Socket, Option<SocketAddr>), ConnectError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (index, address) in addresses.iter().enumerate() {
        // An address that swallows packets must not use up the time of the others.
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Only costs latency.
                let _ = stream.set_nodelay(true);
                return Ok((stream.into(), Some(*address)));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last.into())
}

/// A connection to the app that fails when the app takes no bytes for too long.
#[derive(Debug)]
pub(super) struct AppStream {
    io: Transport,
    idle: Idle,
    /// Where it leads; `None`: to a unix socket.
    pub(super) address: Option<SocketAddr>,
    /// The app chose HTTP/2.
    pub(super) http2: bool,
    heard: Option<oneshot::Sender<()>>,
}

impl AppStream {
    /// Becomes ready with the first bytes that the app sends.
    pub(super) fn heard(&mut self) -> oneshot::Receiver<()> {
        let (tell, heard) = oneshot::channel();
        self.heard = Some(tell);
        heard
    }

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
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if buf.filled().len() > before
            && let Some(tell) = this.heard.take()
        {
            let _ = tell.send(());
        }
        polled
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
