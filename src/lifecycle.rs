//! The life of the process: running, draining, leaving, and the tasks that must be waited for.
//! What draining means for a connection is the business of `listener.rs`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by everything that has to end in order. Clones are the same life.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    draining: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    stop: CancellationToken,
    drain: CancellationToken,
    exit: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    pub fn new() -> Self {
        Self::default()
    }

    /// The end was asked for: be found not ready, but go on for now.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Take no new work, finish what is in flight.
    pub fn drain(&self) {
        self.stop();
        // Before the wake-up, so that whoever is woken sees it.
        self.draining.store(true, Ordering::Release);
        self.drain.cancel();
    }

    /// Leave now.
    pub fn exit(&self) {
        self.drain();
        self.exit.cancel();
    }

    /// Leave now, with an error: half alive is worse than dead.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.exit();
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Cancelled when the end is asked for.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// A plain load: for hot paths.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub fn is_exiting(&self) -> bool {
        self.exit.is_cancelled()
    }

    /// Cancelled when draining begins.
    pub fn drain_token(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled when the grace is over, or at the second signal.
    pub fn exit_token(&self) -> &CancellationToken {
        &self.exit
    }

    /// Runs work on the current runtime that outlives the connection it began on and that a drain
    /// waits for.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(work)
    }

    /// Ends when no tracked task is left; to be called when draining.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// From the return on the first SIGTERM or SIGINT stops and the second leaves at once.
    pub fn watch_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let life = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = life.exit.cancelled() => return,
                }
                if life.is_stopping() {
                    tracing::warn!("second signal: leaving at once");
                    life.exit();
                } else {
                    tracing::info!("stopping");
                    life.stop();
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_tracked_work() {
        let life = Lifecycle::new();
        let (done, work) = tokio::sync::oneshot::channel::<()>();
        let task = life.spawn(async move { work.await.is_ok() });
        life.drain();
        assert!(life.is_draining() && !life.is_exiting());
        let waiter = tokio::spawn({
            let life = life.clone();
            async move { life.finished().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        done.send(()).unwrap();
        assert!(task.await.unwrap());
        waiter.await.unwrap();
        life.exit();
        assert!(life.is_exiting());
    }
}
