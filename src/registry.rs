//! The session registry: everything live and every tombstone, in memory. The store commits first,
//! this follows; the request path reads only this. No I/O, no waiting, no clock.
//!
//! A live session with one key takes some 250 bytes. A session that is over and at rest is packed into
//! graves of 60 bytes, and comes back with the first request that shows one of its keys.

mod arena;
mod bounded;
mod entry;
mod group_sets;
mod records;
mod table;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

pub use self::bounded::UntrackedSeen;
pub use self::entry::Entry;
use crate::policy::Limits;
use crate::session::{
    Client, EndReason, Groups, Key, KeyUse, SessionId, SessionKey, Timestamp, User,
};
use crate::store::{Committed, LATE_KEYS_MAX, Loaded};

/// Sessions a sweep looks at per call, so that the lock is held for well under a millisecond.
const SWEPT_MAX: usize = 4096;
/// Sessions packed at once.
const BURIED_MAX: usize = 512;
/// An ended session that has lost its keys to others is remembered this long, so that an older
/// state of it that arrives late does not bring it back.
const KEYLESS_MS: i64 = 60_000;

/// All sessions. Changes come from the store's feed; see `store::Feed`.
pub struct Registry {
    table: RwLock<table::Table>,
    dirty: Mutex<Dirty>,
    sweep_after: Mutex<Option<arena::Place>>,
    quarantine: Mutex<bounded::Quarantine>,
    quarantined: AtomicUsize,
    untracked: Mutex<bounded::UntrackedTokens>,
}

/// What the store has not heard of.
#[derive(Default)]
struct Dirty {
    entries: Vec<Arc<Entry>>,
    keys: Vec<Key>,
}

/// What a key leads to.
#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Arc<Entry>,
    /// The hash of the very bytes issued, see [`Key`]. `None`: of a session that is over for long it
    /// is no longer known, and every spelling is as dead.
    pub exact: Option<SessionKey>,
    pub key_use: KeyUse,
    pub since: Timestamp,
}

/// A user's sessions together.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    pub sessions: u32,
    /// At the latest login.
    pub groups: Groups,
    latest: Option<Timestamp>,
}

impl Crowd {
    fn add(&mut self, entry: &Entry) {
        self.sessions += 1;
        let at = Some(entry.renewed_at());
        if at >= self.latest {
            (self.latest, self.groups) = (at, entry.groups());
        }
    }
}

/// Sizes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that have not ended.
    pub live: usize,
    /// Users with live sessions.
    pub users: usize,
    /// Keys of ended sessions.
    pub tombstones: usize,
    /// Of live and ended ones.
    pub keys: usize,
}

impl Registry {
    /// Empty; `limits` decide over time-outs.
    pub fn new(limits: Limits) -> Self {
        Self {
            table: RwLock::new(table::Table::new(limits)),
            dirty: Mutex::default(),
            sweep_after: Mutex::default(),
            quarantine: Mutex::default(),
            quarantined: AtomicUsize::new(0),
            untracked: Mutex::default(),
        }
    }

    /// Takes over a page of what the store holds, before the first request. A session comes in the
    /// same page as its keys or in an earlier one.
    pub fn load(&self, page: &Loaded) {
        self.change(|table| {
            page.sessions.iter().for_each(|session| table.load_session(session));
            for (index, key) in page.keys.iter().enumerate() {
                table.load_key(key, page.key_seqs.get(index).copied());
            }
        });
    }

    /// That was all.
    pub fn loaded(&self) {
        self.change(table::Table::loaded);
    }

    /// Other limits than it was made with: from the return on they hold for the time-outs of every
    /// session. How many there may be is decided at logins.
    pub fn set_limits(&self, limits: Limits) {
        self.change(|table| table.set_limits(limits));
        self.look_through(|table, entry| {
            if entry.ending().is_none() {
                entry.set_limit(table.limit_of(entry));
            }
        });
    }

    /// Sessions that observing has noted an end for.
    pub fn observed(&self) -> Vec<SessionId> {
        let mut noted = Vec::new();
        self.look_through(|_, entry| {
            if entry.ending().is_none() && entry.would_end().is_some() {
                noted.push(entry.id);
            }
        });
        noted
    }

    /// How many live sessions nobody has used since, and how many keys are of such as had ended before.
    pub fn unseen_since(&self, since: Timestamp) -> (usize, usize) {
        let (mut live, mut ended) = (0, 0);
        self.look_through(|table, entry| match entry.ending() {
            None => live += usize::from(entry.last_seen_at() < since),
            Some(ending) if ending.at < since => ended += table.key_count(entry.id),
            Some(_) => {}
        });
        let mut cursor = None;
        loop {
            let (some, next) = self.table.read().buried_before(since, cursor, SWEPT_MAX);
            ended += some;
            if next.is_none() {
                break;
            }
            cursor = next;
        }
        (live, ended)
    }

    /// How many counting sessions each user has who has any.
    pub fn crowd(&self) -> HashMap<User, Crowd> {
        let mut crowd: HashMap<User, Crowd> = HashMap::new();
        self.look_through(|_, entry| {
            if let Some(user) = entry.user.as_ref().filter(|_| entry.counts()) {
                crowd.entry(user.clone()).or_default().add(entry);
            }
        });
        crowd
    }

    /// The groups that `user` was in at the latest login of those that are live.
    pub fn groups_of(&self, user: &str) -> Groups {
        let mut crowd = Crowd::default();
        self.look_through(|_, entry| {
            if entry.user.as_deref() == Some(user) && entry.ending().is_none() {
                crowd.add(entry);
            }
        });
        crowd.groups
    }

    /// Looks at every session, without holding up changes for long.
    fn look_through(&self, mut look: impl FnMut(&table::Table, &Arc<Entry>)) {
        let mut after = None;
        loop {
            let table = self.table.read();
            let mut looked_at = 0;
            for (place, entry, _) in table.after(after).take(SWEPT_MAX) {
                look(&table, entry);
                after = Some(place);
                looked_at += 1;
            }
            if looked_at < SWEPT_MAX {
                return;
            }
        }
    }

    /// Follows a commit. States may come late or twice: newer ones win, and an end is for good.
    /// Streams of sessions that ended are cut before this returns.
    pub fn apply(&self, change: &Committed) {
        let newest = change.sessions.iter().map(|session| session.change_seq).max();
        let cut = self.change(|table| {
            let mut cut: Vec<_> =
                change.sessions.iter().filter_map(|session| table.put_session(session)).collect();
            cut.extend(table.forget_pruned(&change.forgotten));
            for (index, key) in change.keys.iter().enumerate() {
                table.put_key(key, change.key_seqs.get(index).copied().or(newest), false);
            }
            for key in &change.late_keys {
                table.add_late_key(key, LATE_KEYS_MAX as usize);
            }
            cut
        });
        // Outside the lock: whoever watches may come back and ask.
        for token in cut {
            token.cancel();
        }
    }

    /// What `key` leads to, live or ended.
    pub fn lookup(&self, key: SessionKey) -> Option<Found> {
        let table = self.table.read();
        let found = table.found(&key);
        if found.is_some() || !table.is_buried(&key) {
            return found;
        }
        drop(table);
        self.change(|table| {
            table.unearth(&key);
            table.found(&key)
        })
    }

    /// The keys with which this session is used now, each with its exact hash.
    pub fn bearers(&self, id: SessionId) -> Vec<(SessionKey, SessionKey)> {
        self.table.read().bearers(id)
    }

    /// The session with this public id, live or ended.
    pub fn by_id(&self, id: SessionId) -> Option<Arc<Entry>> {
        self.table.read().id(id).cloned()
    }

    /// The sessions of `user` that have not ended, in no particular order. In observe mode those
    /// that would have ended are among them. Looks at every session there is.
    pub fn live_of(&self, user: &str) -> Vec<Arc<Entry>> {
        let mut live = Vec::new();
        self.look_through(|_, entry| {
            if entry.user.as_deref() == Some(user) && entry.ending().is_none() {
                live.push(Arc::clone(entry));
            }
        });
        live
    }

    /// How many those are; at once.
    pub fn count_of(&self, user: &str) -> usize {
        self.table.read().count_of(user)
    }

    /// The last request of a session, fresher than the store's.
    pub fn last_seen_at(&self, id: SessionId) -> Option<Timestamp> {
        self.table.read().id(id).map(|entry| entry.last_seen_at())
    }

    /// Up to `count_max` sessions that timed out, to be ended in the store. Looks at a few thousand
    /// sessions per call and goes on from there at the next.
    pub fn expired(&self, now: Timestamp, count_max: usize) -> Vec<(SessionId, EndReason)> {
        let mut after = self.sweep_after.lock();
        let (mut expired, mut keyless, mut resting) = (Vec::new(), Vec::new(), Vec::new());
        let mut looked_at = 0;
        let table = self.table.read();
        for (place, entry, has_keys) in table.after(*after) {
            if looked_at == SWEPT_MAX || expired.len() == count_max {
                break;
            }
            looked_at += 1;
            *after = Some(place);
            if let Some(ending) = entry.ending() {
                if has_keys && entry.rests(now) {
                    resting.push(entry.id);
                } else if !has_keys && now.since_ms(ending.at) >= KEYLESS_MS {
                    keyless.push(entry.id);
                }
            } else if let Some(reason) = entry.expiry(now)
                && entry.counts()
            {
                expired.push((entry.id, reason));
            }
        }
        drop(table);
        if looked_at < SWEPT_MAX && expired.len() < count_max {
            *after = None;
        }
        if !keyless.is_empty() {
            self.change(|table| table.drop_keyless(&keyless));
        }
        for some in resting.chunks(BURIED_MAX) {
            self.change(|table| some.iter().for_each(|id| table.bury(*id)));
        }
        expired
    }

    /// Remembers a rotated value's key at once; it becomes durable with the next flush. `false` if
    /// it is known already. At most `kept_max` of them per session, the oldest goes.
    pub fn add_late_key(&self, key: Key, kept_max: usize) -> bool {
        let added = self.change(|table| table.add_late_key(&key, kept_max));
        if added {
            self.dirty.lock().keys.push(key);
        }
        added
    }

    /// Queues a session whose [`Entry::touch`] said so for the next flush.
    pub fn mark_dirty(&self, entry: &Arc<Entry>) {
        self.dirty.lock().entries.push(Arc::clone(entry));
    }

    /// What the store should be told: each session at most once.
    pub fn take_dirty(&self) -> (Vec<(SessionId, Timestamp)>, Vec<Key>) {
        let Dirty { entries, keys } = std::mem::take(&mut *self.dirty.lock());
        (entries.iter().map(|entry| (entry.id, entry.clear_dirty())).collect(), keys)
    }

    /// Gives back what the store could not take, for the next flush.
    pub fn return_dirty(&self, seen: &[(SessionId, Timestamp)], keys: Vec<Key>) {
        let entries: Vec<Arc<Entry>> = {
            let table = self.table.read();
            let known = seen.iter().filter_map(|(id, _)| table.id(*id));
            known.filter(|entry| entry.set_dirty()).cloned().collect()
        };
        let mut dirty = self.dirty.lock();
        dirty.entries.extend(entries);
        dirty.keys.splice(0..0, keys);
    }

    /// Cuts everything under way for any session: nobody knows any more whether it may go on.
    pub fn cut_streams(&self) {
        let table = self.table.read();
        let cut: Vec<_> = table.after(None).filter_map(|(_, entry, _)| entry.take_cut()).collect();
        drop(table);
        for token in cut {
            token.cancel();
        }
    }

    /// Drops keys that the store has pruned, and sessions with their last key.
    pub fn forget(&self, keys: &[SessionKey]) {
        self.change(|table| table.forget(keys));
    }

    /// Forgets whose these ended sessions were, as far as they are at rest. Tells whose.
    pub fn forget_names(&self, sessions: &HashSet<SessionId>) -> HashSet<User> {
        let (mut users, mut cursor) = (HashSet::new(), None);
        loop {
            let step = |table: &mut table::Table| {
                table.forget_names(sessions, cursor, SWEPT_MAX, &mut users)
            };
            cursor = self.change(step);
            if cursor.is_none() {
                return users;
            }
        }
    }

    pub fn counts(&self) -> Counts {
        self.table.read().counts()
    }

    /// Makes a key dead until the restart: the store was down when it should have been recorded.
    pub fn quarantine(&self, key: SessionKey) {
        let mut quarantine = self.quarantine.lock();
        self.quarantined.store(quarantine.add(key), Ordering::Release);
    }

    pub fn is_quarantined(&self, key: SessionKey) -> bool {
        self.quarantined.load(Ordering::Acquire) > 0 && self.quarantine.lock().has(&key)
    }

    /// Remembers a token that no known login produced, for the admin API.
    pub fn note_untracked(&self, key: SessionKey, now: Timestamp, client: &Client) {
        self.untracked.lock().note(key, now, client);
    }

    /// How many untracked tokens are listed.
    pub fn untracked_count(&self) -> usize {
        self.untracked.lock().len()
    }

    /// Untracked tokens, first seen first.
    pub fn untracked(&self) -> Vec<UntrackedSeen> {
        self.untracked.lock().all()
    }

    fn change<T>(&self, change: impl FnOnce(&mut table::Table) -> T) -> T {
        let mut table = self.table.write();
        let outcome = change(&mut table);
        if cfg!(debug_assertions) {
            table.check_invariants();
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
