//! Room for requests at the app: so many at once, so many that wait for it, for so long. What those
//! are told who find none is the business of the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Shared by all threads; who waits longest is next.
#[derive(Debug)]
pub struct Slots {
    max: usize,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    patience: Duration,
}

/// Held by a request from before it is sent until its answer has ended.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// `max` requests at once, `waiting_max` that wait for `patience_ms` at most.
    pub fn new(max: usize, waiting_max: usize, patience_ms: u64) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            max,
            free: Arc::new(Semaphore::new(max)),
            waiting: AtomicUsize::new(0),
            waiting_max,
            patience: Duration::from_millis(patience_ms),
        }
    }

    /// A slot; `None`: too many wait already, or none became free in time.
    pub async fn take(&self) -> Option<Slot> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(Slot { _permit: permit });
        }
        let _place = self.queue()?;
        let permit = timeout(self.patience, Arc::clone(&self.free).acquire_owned()).await;
        Some(Slot { _permit: permit.ok()?.ok()? })
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.max - self.free.available_permits()
    }

    /// Requests that wait for one.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn queue(&self) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < self.waiting_max).then_some(place)
    }
}

/// In the queue, until the wait is over or given up.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_at_once_and_so_many_wait() {
        let slots = Arc::new(Slots::new(2, 1, 60_000));
        let (first, _second) = (slots.take().await.unwrap(), slots.take().await.unwrap());
        let shared = Arc::clone(&slots);
        let third = tokio::spawn(async move { shared.take().await });
        while slots.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(slots.used(), 2);
        assert!(slots.take().await.is_none(), "the queue is full");
        assert_eq!(slots.waiting(), 1);
        drop(first);
        let third = third.await.unwrap();
        assert!(third.is_some());
        assert_eq!((slots.used(), slots.waiting()), (2, 0));
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_told() {
        let slots = Slots::new(1, 10, 20);
        let first = slots.take().await;
        assert!(slots.take().await.is_none());
        assert_eq!(slots.waiting(), 0);
        drop(first);
        assert!(slots.take().await.is_some());
        assert_eq!(slots.used(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_queue() {
        let slots = Slots::new(1, 1, 60_000);
        let _first = slots.take().await;
        let given_up = timeout(Duration::from_millis(10), slots.take()).await;
        assert!(given_up.is_err());
        assert_eq!(slots.waiting(), 0);
    }
}
