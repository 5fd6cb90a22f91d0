//! What the service manager is told (systemd's notifications): ready, reloading, stopping, and that
//! the process is alive while its threads get on. Without a manager nothing is said.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::lifecycle::Lifecycle;
use crate::listener::Edge;

/// Requests are answered.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A new configuration is being read; [`ready`] when that is over.
pub(super) fn reloading() {
    // The manager tells by the time whether it is the reload it has asked for.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
    }
}

/// The end has been asked for.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that it is alive, if it is asked to, as long as every thread of the data plane gets on.
pub(super) async fn keep_alive(edge: Arc<Edge>, life: Lifecycle) {
    let Some(within) = sd_notify::watchdog_enabled().filter(|within| !within.is_zero()) else {
        return;
    };
    let mut silent = false;
    loop {
        let alive = edge.gets_on();
        if alive {
            tell(&[NotifyState::Watchdog]);
        } else if !silent {
            tracing::error!("a worker hangs; the service manager is not told that all is well");
        }
        silent = !alive;
        // Twice as often as asked, as its documentation advises.
        tokio::select! {
            () = tokio::time::sleep((within / 2).max(Duration::from_millis(1))) => {}
            () = life.exit_token().cancelled() => return,
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
