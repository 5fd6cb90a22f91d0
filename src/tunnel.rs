//! A tunnel after an upgrade: bytes both ways, untouched. Whether there may be one, and when it is
//! cut, is decided by those who open it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio_util::sync::CancellationToken;

/// Held in memory per direction.
const BUFFER: usize = 16 * 1024;

/// Relays until both sides have closed, one has failed, or the tunnel is cut; then closes both.
/// `on_client_bytes` is called for each piece that comes from the client.
pub async fn relay(
    client: Upgraded,
    app: Upgraded,
    cut: CancellationToken,
    on_client_bytes: impl Fn() + Send,
) {
    relay_io(TokioIo::new(client), TokioIo::new(app), cut, on_client_bytes).await;
}

async fn relay_io(
    client: impl AsyncRead + AsyncWrite + Unpin,
    mut app: impl AsyncRead + AsyncWrite + Unpin,
    cut: CancellationToken,
    on_client_bytes: impl Fn(),
) {
    let mut client = Watched { io: client, on_bytes: on_client_bytes };
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        end = copy_bidirectional_with_sizes(&mut client, &mut app, BUFFER, BUFFER) => {
            if let Err(error) = end {
                tracing::debug!(%error, "tunnel broke");
            }
        }
    }
}

/// Tells when bytes are read.
struct Watched<IO, F> {
    io: IO,
    on_bytes: F,
}

// Nothing in it is pinned.
impl<IO: Unpin, F> Unpin for Watched<IO, F> {}

impl<IO: AsyncRead + Unpin, F: Fn()> AsyncRead for Watched<IO, F> {
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

impl<IO: AsyncWrite + Unpin, F> AsyncWrite for Watched<IO, F> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
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

    struct Ends {
        client: DuplexStream,
        app: DuplexStream,
        cut: CancellationToken,
        pieces: Arc<AtomicUsize>,
        task: JoinHandle<()>,
    }

    fn open() -> Ends {
        let (client, client_far) = duplex(1024);
        let (app, app_far) = duplex(1024);
        let (cut, pieces) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&pieces);
        let token = cut.clone();
        let task = tokio::spawn(relay_io(client_far, app_far, token, move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        Ends { client, app, cut, pieces, task }
    }

    #[tokio::test]
    async fn half_close_is_kept() {
        let mut ends = open();
        ends.client.write_all(b"all I say").await.unwrap();
        ends.client.shutdown().await.unwrap();
        let mut heard = String::new();
        ends.app.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all I say");
        assert!(ends.pieces.load(Ordering::Relaxed) > 0);
        let said = ends.pieces.load(Ordering::Relaxed);
        ends.app.write_all(b"and the answer").await.unwrap();
        ends.app.shutdown().await.unwrap();
        heard.clear();
        ends.client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "and the answer");
        assert_eq!(ends.pieces.load(Ordering::Relaxed), said, "the app's bytes do not count");
        ends.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_ends_a_silent_tunnel() {
        let mut ends = open();
        ends.cut.cancel();
        tokio::time::timeout(Duration::from_secs(1), ends.task).await.unwrap().unwrap();
        assert_eq!(ends.client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(ends.app.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
