//! What is remembered for our own pages: how often a session has asked for them of late, and which ends
//! their users have disowned. In memory and bounded; a restart forgets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use parking_lot::Mutex;

use crate::session::SessionId;

/// Calls that a session may make at once, and in the long run.
const CALLS_MAX: f64 = 30.0;
const CALLS_PER_SECOND: f64 = 1.0;
/// Sessions remembered for that.
const CALLERS_MAX: usize = 10_000;
/// Disowned ends remembered; beyond it the one of longest ago is forgotten.
const DISOWNED_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub struct OwnPages {
    calls: Mutex<HashMap<SessionId, Bucket>>,
    disowned: Mutex<Disowned>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

#[derive(Debug, Default)]
struct Disowned {
    known: HashSet<SessionId>,
    order: VecDeque<SessionId>,
}

impl Bucket {
    fn refilled(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * CALLS_PER_SECOND).min(CALLS_MAX)
    }
}

impl OwnPages {
    /// Notes a call that asks the store; whether it may.
    pub fn may_call(&self, session: SessionId, now: Instant) -> bool {
        let mut calls = self.calls.lock();
        if calls.len() >= CALLERS_MAX && !calls.contains_key(&session) {
            calls.retain(|_, bucket| bucket.refilled(now) < CALLS_MAX);
            if calls.len() >= CALLERS_MAX {
                // Under a flood from everywhere nobody is told apart any more.
                return false;
            }
        }
        let bucket = calls.entry(session).or_insert(Bucket { left: CALLS_MAX, at: now });
        bucket.left = bucket.refilled(now);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }

    /// Whether an end has been disowned already.
    pub fn is_disowned(&self, session: SessionId) -> bool {
        self.disowned.lock().known.contains(&session)
    }

    /// `true` exactly once for an end: for the request that reports it.
    pub fn disown(&self, session: SessionId) -> bool {
        let mut disowned = self.disowned.lock();
        if !disowned.known.insert(session) {
            return false;
        }
        disowned.order.push_back(session);
        if disowned.order.len() > DISOWNED_MAX
            && let Some(oldest) = disowned.order.pop_front()
        {
            disowned.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(number: u128) -> SessionId {
        SessionId(number.to_be_bytes())
    }

    #[test]
    fn each_session_has_a_pace_of_its_own_and_memory_is_bounded() {
        let pages = OwnPages::default();
        let now = Instant::now();
        let allowed = (0..100).filter(|_| pages.may_call(id(1), now)).count();
        assert_eq!(allowed, CALLS_MAX as usize);
        assert!(pages.may_call(id(2), now), "another session");
        let later = now + Duration::from_secs(3);
        assert_eq!((0..100).filter(|_| pages.may_call(id(1), later)).count(), 3);
        (0..20_000).for_each(|number| _ = pages.may_call(id(number), later));
        assert!(pages.calls.lock().len() <= CALLERS_MAX);
        assert!(pages.may_call(id(99_999), later + Duration::from_secs(60)));
    }

    #[test]
    fn an_end_is_disowned_once() {
        let pages = OwnPages::default();
        assert!(pages.disown(id(1)));
        assert!(!pages.disown(id(1)));
        (2..20_000).for_each(|number| _ = pages.disown(id(number)));
        let disowned = pages.disowned.lock();
        assert_eq!((disowned.known.len(), disowned.order.len()), (DISOWNED_MAX, DISOWNED_MAX));
    }
}
