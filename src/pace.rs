//! How often the same thing is said in the log: a flood of refused requests must not become a flood
//! of lines. What is said is the business of those who say it; counting is that of the metrics.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// One topic for each index; each may be told so many times a second.
#[derive(Debug)]
pub struct Pace {
    per_second: u32,
    topics: Box<[Mutex<Topic>]>,
}

#[derive(Clone, Copy, Debug)]
struct Topic {
    /// The second that `said` is about began then.
    since: Instant,
    said: u32,
    unsaid: u64,
}

impl Pace {
    pub fn new(topics: usize, per_second: u32) -> Self {
        let topic = Topic { since: Instant::now(), said: 0, unsaid: 0 };
        Self { per_second, topics: (0..topics).map(|_| Mutex::new(topic)).collect() }
    }

    /// Whether it may be said now, and how often it was not since it last was; `None`: too often.
    pub fn say(&self, topic: usize, now: Instant) -> Option<u64> {
        let Some(topic) = self.topics.get(topic) else { return Some(0) };
        let mut topic = topic.lock();
        if now.saturating_duration_since(topic.since) >= Duration::from_secs(1) {
            (topic.since, topic.said) = (now, 0);
        }
        if topic.said >= self.per_second {
            topic.unsaid += 1;
            return None;
        }
        topic.said += 1;
        Some(std::mem::take(&mut topic.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_its_own_pace() {
        let pace = Pace::new(2, 3);
        let start = Instant::now();
        let said = |topic, now| (0..10).filter_map(|_| pace.say(topic, now)).collect::<Vec<_>>();
        assert_eq!(said(0, start), [0, 0, 0]);
        assert_eq!(said(1, start), [0, 0, 0]);
        let later = start + Duration::from_millis(1001);
        assert_eq!(said(0, later), [7, 0, 0], "the first tells how many were not told");
        assert_eq!(pace.say(9, start), Some(0), "unknown topics are not limited");
    }
}
