//! The clock. The only place that reads the time; everything else is handed one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::session::Timestamp;

/// Differences up to so much are left alone.
const FOLLOW_MS: i64 = 50;

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// The store's clock shows `now`; a clock may go by that one from here on.
    fn follow(&self, _now: Timestamp) {}
}

/// Wall time at start plus monotonic time since: a step of the system clock neither ends every
/// session at once nor makes one immortal. With replicas it goes by the store's clock, so that all
/// show the same.
pub struct SystemClock {
    wall: Timestamp,
    start: Instant,
    /// To be added, in milliseconds.
    ahead_ms: AtomicI64,
}

impl SystemClock {
    /// A clock anchored at the present.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn new() -> Self {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        Self { wall: Timestamp(wall), start: Instant::now(), ahead_ms: AtomicI64::new(0) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.wall.plus_ms(elapsed).plus_ms(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Small differences are those of the way there and back.
    fn follow(&self, now: Timestamp) {
        let behind_ms = now.since_ms(self.now());
        if behind_ms.abs() > FOLLOW_MS {
            self.ahead_ms.fetch_add(behind_ms, Ordering::Relaxed);
        }
    }
}

/// A clock that moves only when told, for tests.
#[derive(Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.0)))
    }

    /// Moves the clock by `ms`, backwards if negative.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_clock_is_followed_but_not_its_jitter() {
        let clock = SystemClock::new();
        let before = clock.now();
        clock.follow(before.plus_ms(FOLLOW_MS / 2));
        assert!(clock.now().since_ms(before) < FOLLOW_MS / 2);
        for hour in [3_600_000, -3_600_000] {
            clock.follow(before.plus_ms(hour));
            let off = clock.now().since_ms(before.plus_ms(hour));
            assert!((0..1_000).contains(&off), "{off}");
        }
    }
}
