//! Deadlines that cost nothing while there is progress: the timer is touched only when something
//! waits. What a missed deadline means is the business of the callers.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for deadlines that move: made at first use, moved only where it must be.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Whether the deadline has passed; if not, the task is woken when it has, or earlier.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            if Instant::now() >= deadline {
                return true;
            }
            // It was set for an earlier deadline.
            sleep.as_mut().reset(deadline);
        }
    }
}

/// The longest time without progress.
#[derive(Debug)]
pub(crate) struct Idle {
    timeout: Duration,
    since: Option<Instant>,
    alarm: Alarm,
}

impl Idle {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, alarm: Alarm::default() }
    }

    /// Something moved.
    pub(crate) fn progress(&mut self) {
        self.since = None;
    }

    /// Nothing moves: true when that has been so for too long.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.alarm.poll(since + self.timeout, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn expired(idle: &mut Idle) {
        poll_fn(|cx| if idle.poll_expired(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test]
    async fn progress_moves_the_deadline() {
        let mut idle = Idle::new(Duration::from_millis(40));
        let start = Instant::now();
        expired(&mut idle).await;
        assert!(start.elapsed() >= Duration::from_millis(40));
        idle.progress();
        let start = Instant::now();
        expired(&mut idle).await;
        assert!(start.elapsed() >= Duration::from_millis(40));
    }

    #[tokio::test]
    async fn an_alarm_can_be_moved_closer() {
        let mut alarm = Alarm::default();
        let far = Instant::now() + Duration::from_secs(3600);
        let near = Instant::now() + Duration::from_millis(20);
        poll_fn(|cx| {
            assert!(!alarm.poll(far, cx));
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| if alarm.poll(near, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        assert!(Instant::now() >= near);
    }
}
