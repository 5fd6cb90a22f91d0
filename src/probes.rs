//! What was asked of the app about credentials that no session has: each at most once in a while, so
//! many at once wait for one answer, and only so many per second. Nothing here talks to the app.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::session::{SessionKey, Timestamp};
use crate::stamp::Lineage;

/// Answers remembered; one more drops the oldest, which is then asked for again.
const ANSWERS_MAX: usize = 10_000;

/// Whom the app took a credential for.
#[derive(Clone, Debug)]
pub enum Found {
    Nobody,
    /// A session was begun for it.
    Session(Adopted),
    /// A session would have been one too many.
    Denied {
        count: u32,
        limit: u32,
    },
}

/// What goes to the client with the next answer of a session that a probe has found.
#[derive(Clone, Debug)]
pub struct Adopted {
    pub lineage: Lineage,
    /// Set-Cookie lines of the probe's answer.
    pub set_cookies: Vec<HeaderValue>,
}

/// One question; whoever comes first asks it, the others wait.
pub type Question = Arc<OnceCell<Found>>;

/// What was asked lately.
pub struct Probes {
    cache_ms: AtomicI64,
    asked: Mutex<Asked>,
    /// Of credentials that anybody can make up, and of those that were issued through us: a flood of
    /// the first must not use up the second.
    made_up: Mutex<Bucket>,
    issued: Mutex<Bucket>,
}

#[derive(Default)]
struct Asked {
    by_key: HashMap<SessionKey, (Question, Timestamp)>,
    by_age: VecDeque<(SessionKey, Timestamp)>,
}

impl Probes {
    /// `rate`: questions per second, of each of the two kinds.
    pub fn new(cache_ms: i64, rate: u32) -> Self {
        let bucket = || Mutex::new(Bucket::new(rate));
        let cache_ms = AtomicI64::new(cache_ms);
        Self { cache_ms, asked: Mutex::default(), made_up: bucket(), issued: bucket() }
    }

    /// Other bounds than those it was made with; what was asked stays answered.
    pub fn set_bounds(&self, cache_ms: i64, rate: u32) {
        self.cache_ms.store(cache_ms, Ordering::Relaxed);
        for bucket in [&self.made_up, &self.issued] {
            bucket.lock().rate = rate;
        }
    }

    /// The question about this credential, perhaps answered already; `None`: too many are being
    /// asked. `issued`: it was issued through us.
    pub fn question(&self, key: SessionKey, issued: bool, now: Timestamp) -> Option<Question> {
        let mut asked = self.asked.lock();
        if let Some((question, since)) = asked.by_key.get(&key)
            && now.since_ms(*since) < self.cache_ms.load(Ordering::Relaxed)
        {
            return Some(Arc::clone(question));
        }
        if !if issued { &self.issued } else { &self.made_up }.lock().take(now) {
            return None;
        }
        let question = Question::default();
        asked.put(key, &question, now);
        Some(question)
    }

    /// A question that could not be answered is asked again the next time.
    pub fn forget(&self, key: SessionKey) {
        self.asked.lock().by_key.remove(&key);
    }

    /// Whether an answer may be asked about that set a credential outside the rules.
    pub fn may_ask(&self, now: Timestamp) -> bool {
        self.issued.lock().take(now)
    }
}

impl Asked {
    fn put(&mut self, key: SessionKey, question: &Question, now: Timestamp) {
        self.by_key.insert(key, (Arc::clone(question), now));
        self.by_age.push_back((key, now));
        while self.by_age.len() > ANSWERS_MAX {
            let Some((oldest, since)) = self.by_age.pop_front() else { break };
            // It may have been asked again since.
            if self.by_key.get(&oldest).is_some_and(|(_, newer)| *newer == since) {
                self.by_key.remove(&oldest);
            }
        }
    }
}

/// A token bucket that holds two seconds' worth.
struct Bucket {
    rate: u32,
    /// Thousandths of a question.
    filled: i64,
    since: Timestamp,
}

impl Bucket {
    fn new(rate: u32) -> Self {
        Self { rate, filled: i64::from(rate) * 2_000, since: Timestamp(0) }
    }

    fn take(&mut self, now: Timestamp) -> bool {
        let gained = now.since_ms(self.since).clamp(0, 2_000) * i64::from(self.rate);
        self.since = now;
        self.filled = (self.filled + gained).min(i64::from(self.rate) * 2_000);
        let enough = self.filled >= 1_000;
        if enough {
            self.filled -= 1_000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> SessionKey {
        SessionKey((number as u128).to_be_bytes())
    }

    #[test]
    fn one_question_is_shared_for_its_time() {
        let probes = Probes::new(1_000, 10);
        let first = probes.question(key(1), false, Timestamp(5_000)).unwrap();
        let second = probes.question(key(1), false, Timestamp(5_999)).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let later = probes.question(key(1), false, Timestamp(6_000)).unwrap();
        assert!(!Arc::ptr_eq(&first, &later));
        probes.forget(key(1));
        let again = probes.question(key(1), false, Timestamp(6_001)).unwrap();
        assert!(!Arc::ptr_eq(&later, &again));
    }

    #[test]
    fn a_flood_of_made_up_credentials_leaves_room_for_the_others() {
        let probes = Probes::new(1_000, 2);
        let now = Timestamp(10_000);
        let asked = (0..100).filter(|n| probes.question(key(*n), false, now).is_some()).count();
        assert_eq!(asked, 4);
        assert!(probes.question(key(1_000), true, now).is_some());
        assert!(probes.question(key(1_001), false, Timestamp(10_500)).is_some());
        assert!(probes.question(key(1_002), false, Timestamp(10_500)).is_none());
        // Known questions cost nothing.
        assert!(probes.question(key(0), false, now).is_some());
    }

    #[test]
    fn no_flood_fills_the_memory() {
        let probes = Probes::new(1_000_000, u32::MAX);
        for number in 0..ANSWERS_MAX + 10 {
            assert!(probes.question(key(number), false, Timestamp(1)).is_some());
        }
        let asked = probes.asked.lock();
        assert_eq!((asked.by_key.len(), asked.by_age.len()), (ANSWERS_MAX, ANSWERS_MAX));
        assert!(!asked.by_key.contains_key(&key(0)));
    }
}
