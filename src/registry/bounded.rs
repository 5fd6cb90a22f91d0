//! Small bounded memories beside the sessions: tokens that belong to none, and keys that must not
//! pass until the restart. What does not fit drops the oldest; nothing here is stored.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::session::{Client, SessionKey, Timestamp};

/// Untracked tokens remembered.
pub(super) const UNTRACKED_MAX: usize = 4096;
/// Quarantined keys remembered.
pub(super) const QUARANTINED_MAX: usize = 10_000;

/// A token that no known login produced, as seen on requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntrackedSeen {
    pub key: SessionKey,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub requests: u64,
    /// Of the last request.
    pub client: Client,
}

#[derive(Default)]
pub(super) struct UntrackedTokens {
    seen: HashMap<SessionKey, UntrackedSeen>,
    by_age: VecDeque<SessionKey>,
}

impl UntrackedTokens {
    pub(super) fn note(&mut self, key: SessionKey, now: Timestamp, client: &Client) {
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.last_seen = seen.last_seen.max(now);
            seen.requests += 1;
            if seen.client != *client {
                seen.client = client.clone();
            }
            return;
        }
        if self.by_age.len() >= UNTRACKED_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.by_age.push_back(key);
        let client = client.clone();
        let seen = UntrackedSeen { key, first_seen: now, last_seen: now, requests: 1, client };
        self.seen.insert(key, seen);
    }

    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    /// First seen first.
    pub(super) fn all(&self) -> Vec<UntrackedSeen> {
        self.by_age.iter().filter_map(|key| self.seen.get(key)).cloned().collect()
    }
}

#[derive(Default)]
pub(super) struct Quarantine {
    keys: HashSet<SessionKey>,
    by_age: VecDeque<SessionKey>,
}

impl Quarantine {
    pub(super) fn add(&mut self, key: SessionKey) -> usize {
        if self.keys.insert(key) {
            self.by_age.push_back(key);
        }
        if self.by_age.len() > QUARANTINED_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.keys.len()
    }

    pub(super) fn has(&self, key: &SessionKey) -> bool {
        self.keys.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> SessionKey {
        SessionKey((number as u128).to_be_bytes())
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let mut tokens = UntrackedTokens::default();
        let mut quarantine = Quarantine::default();
        for number in 0..QUARANTINED_MAX + 5 {
            tokens.note(key(number), Timestamp(number as i64), &Client::default());
            quarantine.add(key(number));
        }
        assert_eq!(tokens.all().len(), UNTRACKED_MAX);
        assert_eq!(tokens.all()[0].key, key(QUARANTINED_MAX + 5 - UNTRACKED_MAX));
        assert!(!quarantine.has(&key(4)));
        assert!(quarantine.has(&key(5)));
    }

    #[test]
    fn requests_with_one_token_are_one_line() {
        let mut tokens = UntrackedTokens::default();
        tokens.note(key(1), Timestamp(10), &Client::default());
        tokens.note(key(1), Timestamp(30), &Client::default());
        let seen = tokens.all();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].first_seen.0, seen[0].last_seen.0, seen[0].requests), (10, 30, 2));
    }
}
