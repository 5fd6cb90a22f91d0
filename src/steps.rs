//! Names from the first steps of logins that take several: kept in memory until the login is done,
//! under what the same browser presents next. Nothing here is a session; nothing is stored.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::session::{SessionKey, Timestamp};

/// Steps remembered; one more drops the oldest.
const STEPS_MAX: usize = 10_000;
/// A longer name is no user's; remembered, it could fill the memory.
const NAME_BYTES_MAX: usize = 1024;

/// Whose login is under way, by client.
pub struct Steps {
    kept_ms: AtomicI64,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    by_key: HashMap<SessionKey, Named>,
    by_age: VecDeque<SessionKey>,
}

struct Named {
    user: String,
    since: Timestamp,
}

impl Steps {
    pub fn new(kept_ms: i64) -> Self {
        Self { kept_ms: AtomicI64::new(kept_ms), names: Mutex::default() }
    }

    /// Another time to remember names for, in milliseconds; those that are remembered stay.
    pub fn keep_for(&self, kept_ms: i64) {
        self.kept_ms.store(kept_ms, Ordering::Relaxed);
    }

    /// Remembers a user as named in a step, in place of whom the same client named before. Returns
    /// how many others, still under way, had to go for it.
    pub fn remember(&self, keys: &[SessionKey], user: &str, now: Timestamp) -> u64 {
        let mut dropped = 0;
        if user.len() > NAME_BYTES_MAX {
            return dropped;
        }
        let mut names = self.names.lock();
        for key in keys {
            let named = Named { user: user.to_owned(), since: now };
            if names.by_key.insert(*key, named).is_none() {
                names.by_age.push_back(*key);
            }
        }
        while let Some(oldest) = names.by_age.front().copied() {
            let over = names.by_age.len() > STEPS_MAX;
            let abandoned = names.by_key.get(&oldest).is_none_or(|named| self.is_over(named, now));
            if !over && !abandoned {
                break;
            }
            names.by_age.pop_front();
            names.by_key.remove(&oldest);
            dropped += u64::from(!abandoned);
        }
        dropped
    }

    /// The user named under these keys; nobody if they disagree.
    pub fn user(&self, keys: &[SessionKey], now: Timestamp) -> Option<String> {
        let names = self.names.lock();
        let found = keys.iter().filter_map(|key| names.by_key.get(key));
        let mut users = found.filter(|named| !self.is_over(named, now)).map(|named| &named.user);
        let first = users.next()?;
        users.all(|user| user == first).then(|| first.clone())
    }

    /// The login is done.
    pub fn forget(&self, keys: &[SessionKey]) {
        let mut names = self.names.lock();
        for key in keys {
            if names.by_key.remove(key).is_some() {
                names.by_age.retain(|other| other != key);
            }
        }
    }

    fn is_over(&self, named: &Named, now: Timestamp) -> bool {
        now.since_ms(named.since) >= self.kept_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> [SessionKey; 1] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        [SessionKey(bytes)]
    }

    #[test]
    fn a_name_is_remembered_for_its_time() {
        let steps = Steps::new(1_000);
        steps.remember(&key(1), "alice", Timestamp(0));
        assert_eq!(steps.user(&key(1), Timestamp(999)).as_deref(), Some("alice"));
        assert_eq!(steps.user(&key(1), Timestamp(1_000)), None);
        assert_eq!(steps.user(&key(2), Timestamp(0)), None);
        steps.remember(&key(1), "bob", Timestamp(900));
        assert_eq!(steps.user(&key(1), Timestamp(1_500)).as_deref(), Some("bob"));
        steps.forget(&key(1));
        assert_eq!(steps.user(&key(1), Timestamp(1_500)), None);
    }

    #[test]
    fn keys_that_disagree_name_nobody() {
        let steps = Steps::new(1_000);
        steps.remember(&key(1), "alice", Timestamp(0));
        steps.remember(&key(2), "bob", Timestamp(0));
        let both = [key(1), key(2)].concat();
        assert_eq!(steps.user(&both, Timestamp(0)), None);
        steps.remember(&both, "carol", Timestamp(0));
        assert_eq!(steps.user(&both, Timestamp(0)).as_deref(), Some("carol"));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let steps = Steps::new(1_000);
        for number in 0..STEPS_MAX {
            assert_eq!(steps.remember(&key(number), "a", Timestamp(0)), 0);
        }
        assert_eq!(steps.remember(&key(0), "again", Timestamp(1)), 0, "nobody is added");
        assert_eq!(steps.remember(&key(STEPS_MAX), "b", Timestamp(1)), 1);
        assert_eq!(steps.user(&key(0), Timestamp(1)), None);
        assert!(steps.user(&key(1), Timestamp(1)).is_some());
        assert_eq!(steps.remember(&key(STEPS_MAX + 1), "c", Timestamp(2_000)), 0, "abandoned");
        assert_eq!(steps.names.lock().by_key.len(), 1);
        assert_eq!(steps.names.lock().by_age.len(), 1);
        steps.remember(&key(7), &"x".repeat(NAME_BYTES_MAX + 1), Timestamp(2_000));
        assert_eq!(steps.user(&key(7), Timestamp(2_000)), None);
    }
}
