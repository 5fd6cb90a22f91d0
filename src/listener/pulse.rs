//! Whether the data plane's threads get on with their work: each leaves a mark again and again. What
//! follows from silence, others decide.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two marks of a thread.
pub(super) const BEAT: Duration = Duration::from_millis(500);
/// A thread that has left no mark for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// When each thread was last seen.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    /// Milliseconds since the start.
    beats: Vec<AtomicU64>,
}

impl Pulse {
    pub(super) fn new(threads: usize) -> Self {
        Self { start: Instant::now(), beats: (0..threads).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(super) fn beat(&self, thread: usize) {
        if let Some(beat) = self.beats.get(thread) {
            beat.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Whether all threads were seen lately.
    pub(super) fn is_regular(&self) -> bool {
        let since =
            self.now_ms().saturating_sub(u64::try_from(SILENCE_MAX.as_millis()).unwrap_or(0));
        self.beats.iter().all(|beat| beat.load(Ordering::Relaxed) >= since)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_silent_for_long_shows() {
        let mut pulse = Pulse::new(2);
        assert!(pulse.is_regular(), "just begun");
        pulse.start -= SILENCE_MAX * 2;
        pulse.beat(0);
        assert!(!pulse.is_regular(), "one is silent");
        pulse.beat(1);
        assert!(pulse.is_regular());
    }
}
