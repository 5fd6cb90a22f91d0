//! How often sessions of a user made room for newcomers of late: a password in two hands becomes a war
//! of logins, in which each throws the other out. What follows from a count is decided by `policy.rs`
//! and the recorder.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::session::{Timestamp, User};

/// Users remembered; beyond it the one whose last eviction is longest ago is forgotten.
const USERS_MAX: usize = 10_000;
/// Evictions remembered for each.
const KEPT_MAX: usize = 1_000;

/// In memory only: a restart forgets.
#[derive(Debug, Default)]
pub struct Evictions {
    users: Mutex<HashMap<User, VecDeque<Timestamp>>>,
}

impl Evictions {
    /// A session of `user` was evicted.
    pub fn note(&self, user: &User, now: Timestamp) {
        let mut users = self.users.lock();
        if users.len() >= USERS_MAX && !users.contains_key(user) {
            let oldest = users.iter().min_by_key(|(_, times)| times.back().copied());
            let oldest = oldest.map(|(user, _)| user.clone());
            oldest.map(|user| users.remove(&user));
        }
        let times = users.entry(user.clone()).or_default();
        if times.len() == KEPT_MAX {
            times.pop_front();
        }
        times.push_back(now);
    }

    /// Forgets a user.
    pub fn forget(&self, user: &str) {
        self.users.lock().remove(user);
    }

    /// How many of the user's sessions were evicted within the last `window_ms`.
    pub fn recent(&self, user: &str, window_ms: i64, now: Timestamp) -> usize {
        let users = self.users.lock();
        let times = users.get(user).into_iter().flatten();
        times.filter(|time| now.since_ms(**time) < window_ms).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evictions_count_for_their_user_and_for_a_while() {
        let evictions = Evictions::default();
        let (alice, start) = (User::from("alice"), Timestamp(1_000_000));
        for second in 0..5 {
            evictions.note(&alice, start.plus_ms(second * 1_000));
        }
        let now = start.plus_ms(5_000);
        assert_eq!(evictions.recent("alice", 60_000, now), 5);
        assert_eq!(evictions.recent("alice", 3_000, now), 2);
        assert_eq!(evictions.recent("bob", 60_000, now), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let evictions = Evictions::default();
        for number in 0..USERS_MAX as i64 + 10 {
            evictions.note(&format!("user-{number}").into(), Timestamp(number));
        }
        assert_eq!(evictions.users.lock().len(), USERS_MAX);
        assert_eq!(evictions.recent("user-3", i64::MAX, Timestamp(20_000)), 0);
        assert_eq!(evictions.recent("user-10009", i64::MAX, Timestamp(20_000)), 1);
        let last = User::from("user-10009");
        (0..2 * KEPT_MAX).for_each(|_| evictions.note(&last, Timestamp(20_000)));
        assert_eq!(evictions.recent("user-10009", i64::MAX, Timestamp(20_000)), KEPT_MAX);
    }
}
