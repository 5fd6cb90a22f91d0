//! A tunnel after an upgrade: bytes both ways, untouched. Whether there may be one, and when it is
//! cut, is decided by those who open it.

mod frames;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf,
    copy_bidirectional_with_sizes,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::frames::Frames;

/// Held in memory per direction.
const BUFFER: usize = 16 * 1024;
/// For the client to take our close frame, and to answer it.
const FAREWELL: Duration = Duration::from_millis(500);

/// What ends a tunnel from outside.
#[derive(Debug)]
pub struct Ends {
    /// Its session has ended.
    pub session: CancellationToken,
    /// The proxy drains.
    pub drain: CancellationToken,
}

/// RFC 6455 §7.4.1.
#[derive(Clone, Copy, Debug)]
enum CloseCode {
    GoingAway = 1001,
    PolicyViolation = 1008,
}

/// Relays until both sides have closed, one has failed, or the tunnel is ended from outside; then
/// closes both. The client of a WebSocket is told why, if the app is not in the midst of a frame.
/// `on_client_bytes` is called for each piece that comes from the client; `on_wait` when the client
/// begins not to take what the app says, and when it goes on.
pub async fn relay(
    client: Upgraded,
    app: Upgraded,
    ends: Ends,
    on_client_bytes: impl Fn() + Send,
    on_wait: impl Fn(bool) + Send,
) {
    relay_io(TokioIo::new(client), TokioIo::new(app), ends, on_client_bytes, on_wait).await;
}

async fn relay_io(
    client: impl AsyncRead + AsyncWrite + Unpin,
    mut app: impl AsyncRead + AsyncWrite + Unpin,
    ends: Ends,
    on_client_bytes: impl Fn(),
    on_wait: impl Fn(bool),
) {
    let frames = Frames::default();
    let mut client =
        Watched { io: client, frames, waits: false, on_bytes: on_client_bytes, on_wait };
    let code = tokio::select! {
        biased;
        () = ends.session.cancelled() => CloseCode::PolicyViolation,
        () = ends.drain.cancelled() => CloseCode::GoingAway,
        end = copy_bidirectional_with_sizes(&mut client, &mut app, BUFFER, BUFFER) => {
            if let Err(error) = end {
                tracing::debug!(%error, "tunnel broke");
            }
            return;
        }
    };
    drop(app);
    if client.frames.is_between() {
        // Whoever does not take it is cut off without.
        let _ = timeout(FAREWELL, say_farewell(client.io, code)).await;
    }
}

async fn say_farewell(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    code: CloseCode,
) -> io::Result<()> {
    client.write_all(&frames::close(code as u16)).await?;
    client.shutdown().await?;
    // Closing over unread bytes would reset the connection, and the frame might be lost.
    let mut scratch = [0; 1024];
    while client.read(&mut scratch).await? > 0 {}
    Ok(())
}

/// Tells when bytes are read, and follows the frames that are written.
struct Watched<IO, F, G> {
    io: IO,
    frames: Frames,
    waits: bool,
    on_bytes: F,
    on_wait: G,
}

// Nothing in it is pinned.
impl<IO: Unpin, F, G> Unpin for Watched<IO, F, G> {}

impl<IO: AsyncRead + Unpin, F: Fn(), G> AsyncRead for Watched<IO, F, G> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            (this.on_bytes)();
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin, F, G: Fn(bool)> AsyncWrite for Watched<IO, F, G> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        if written.is_pending() != this.waits {
            this.waits = !this.waits;
            (this.on_wait)(this.waits);
        }
        if let Poll::Ready(Ok(count)) = written {
            this.frames.follow(&buf[..count]);
        }
        written
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    struct Tunnel {
        client: DuplexStream,
        app: DuplexStream,
        session: CancellationToken,
        drain: CancellationToken,
        pieces: Arc<AtomicUsize>,
        task: JoinHandle<()>,
    }

    fn open() -> Tunnel {
        let (client, client_far) = duplex(1024);
        let (app, app_far) = duplex(1024);
        let (session, drain) = (CancellationToken::new(), CancellationToken::new());
        let pieces = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pieces);
        let ends = Ends { session: session.clone(), drain: drain.clone() };
        let on_bytes = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let task = tokio::spawn(relay_io(client_far, app_far, ends, on_bytes, |_| {}));
        Tunnel { client, app, session, drain, pieces, task }
    }

    #[tokio::test]
    async fn half_close_is_kept() {
        let mut tunnel = open();
        tunnel.client.write_all(b"all I say").await.unwrap();
        tunnel.client.shutdown().await.unwrap();
        let mut heard = String::new();
        tunnel.app.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all I say");
        assert!(tunnel.pieces.load(Ordering::Relaxed) > 0);
        let said = tunnel.pieces.load(Ordering::Relaxed);
        tunnel.app.write_all(b"and the answer").await.unwrap();
        tunnel.app.shutdown().await.unwrap();
        heard.clear();
        tunnel.client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "and the answer");
        assert_eq!(tunnel.pieces.load(Ordering::Relaxed), said, "the app's bytes do not count");
        tunnel.task.await.unwrap();
    }

    /// Both ends are closed soon; what the client heard last.
    async fn ended(mut tunnel: Tunnel) -> Vec<u8> {
        let mut heard = Vec::new();
        let soon = Duration::from_secs(1);
        timeout(soon, tunnel.client.read_to_end(&mut heard)).await.unwrap().unwrap();
        let app = timeout(soon, tunnel.app.read(&mut [0; 1])).await.unwrap();
        assert_eq!(app.unwrap(), 0);
        drop(tunnel.client);
        timeout(soon, tunnel.task).await.unwrap().unwrap();
        heard
    }

    #[tokio::test]
    async fn the_end_of_a_session_ends_a_silent_tunnel_with_a_close_frame() {
        let tunnel = open();
        tunnel.session.cancel();
        assert_eq!(ended(tunnel).await, frames::close(1008));
    }

    #[tokio::test]
    async fn a_drain_says_that_the_proxy_goes_away() {
        let mut tunnel = open();
        tunnel.app.write_all(b"\x82\x03abc").await.unwrap();
        let mut frame = [0; 5];
        tunnel.client.read_exact(&mut frame).await.unwrap();
        tunnel.drain.cancel();
        assert_eq!(ended(tunnel).await, frames::close(1001));
    }

    #[tokio::test]
    async fn nothing_is_put_into_a_frame_of_the_app() {
        let mut tunnel = open();
        tunnel.app.write_all(b"\x82\x05abc").await.unwrap();
        let mut frame = [0; 5];
        tunnel.client.read_exact(&mut frame).await.unwrap();
        tunnel.session.cancel();
        assert_eq!(ended(tunnel).await, b"");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_left() {
        let mut tunnel = open();
        // As much as the client's side holds, to the last byte.
        tunnel.app.write_all(&[&b"\x82\x7e\x03\xfc"[..], &[0; 1020]].concat()).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tunnel.session.cancel();
        timeout(Duration::from_secs(1), tunnel.task).await.unwrap().unwrap();
        let mut heard = Vec::new();
        tunnel.client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), 1024);
    }
}
