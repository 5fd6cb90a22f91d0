//! The indexes over sessions, changed together under the registry's one lock. Plain data: no locks
//! of its own, no clock, no I/O.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::entry::Entry;
use crate::policy::{Limit, Limits};
use crate::session::{Key, KeyUse, Session, SessionId, SessionKey, Timestamp};

/// Different User-Agents shared between sessions; beyond that sharing starts anew.
const AGENTS_MAX: usize = 4096;
/// Checking everything after every change is for small tables.
const CHECKED_MAX: usize = 1024;

pub(super) struct Table {
    limits: Limits,
    by_key: HashMap<SessionKey, KeySlot>,
    /// Ordered, so that a sweep can go on where it stopped.
    by_id: BTreeMap<SessionId, Row>,
    /// Sessions that have not ended, of users.
    by_user: HashMap<Arc<str>, Vec<Arc<Entry>>>,
    agents: HashSet<Arc<str>>,
    live: usize,
}

pub(super) struct KeySlot {
    pub(super) entry: Arc<Entry>,
    pub(super) exact: SessionKey,
    pub(super) since: Timestamp,
    /// The change that brought it; an older one does not replace it.
    version: i64,
    pub(super) key_use: KeyUse,
    late: bool,
}

struct Row {
    entry: Arc<Entry>,
    /// In the order they came.
    keys: Vec<SessionKey>,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_key: HashMap::new(),
            by_id: BTreeMap::new(),
            by_user: HashMap::new(),
            agents: HashSet::new(),
            live: 0,
        }
    }

    /// Other limits, for sessions to come.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limit of this session's user by the limits in force.
    pub(super) fn limit_of(&self, entry: &Entry) -> Arc<Limit> {
        Arc::clone(self.limits.of(entry.user.as_deref()))
    }

    pub(super) fn reserve(&mut self, keys: usize) {
        self.by_key.reserve(keys);
    }

    pub(super) fn key(&self, key: &SessionKey) -> Option<&KeySlot> {
        self.by_key.get(key)
    }

    pub(super) fn id(&self, id: SessionId) -> Option<&Arc<Entry>> {
        self.by_id.get(&id).map(|row| &row.entry)
    }

    pub(super) fn bearers(&self, id: SessionId) -> Vec<(SessionKey, SessionKey)> {
        let keys = self.by_id.get(&id).map_or(&[][..], |row| &row.keys);
        let slots = keys.iter().filter_map(|key| Some((*key, self.by_key.get(key)?)));
        let bearers = slots.filter(|(_, slot)| slot.key_use == KeyUse::Bearer);
        bearers.map(|(key, slot)| (key, slot.exact)).collect()
    }

    pub(super) fn of_user(&self, user: &str) -> &[Arc<Entry>] {
        self.by_user.get(user).map_or(&[], Vec::as_slice)
    }

    /// Live sessions, users, ended sessions, keys.
    pub(super) fn counts(&self) -> (usize, usize, usize, usize) {
        (self.live, self.by_user.len(), self.by_id.len() - self.live, self.by_key.len())
    }

    /// Takes over a state: only what is newer, but an ending always. Returns the token to cancel
    /// once the lock is released.
    pub(super) fn put_session(&mut self, session: &Session) -> Option<CancellationToken> {
        let agent = self.intern(session.client.user_agent.as_deref());
        let entry = match self.by_id.entry(session.id) {
            Slot::Vacant(slot) => {
                let limit = Arc::clone(self.limits.of(session.user.as_deref()));
                let entry = Arc::new(Entry::new(session, limit, agent));
                slot.insert(Row { entry: Arc::clone(&entry), keys: Vec::new() });
                if session.end.is_none() {
                    self.live += 1;
                    self.add_to_user(entry);
                }
                return None;
            }
            Slot::Occupied(slot) => Arc::clone(&slot.get().entry),
        };
        let newer = session.change_seq > entry.change_seq();
        let entry = if newer && entry.user != session.user {
            self.change_user(&entry, session)
        } else {
            entry
        };
        if newer {
            entry.update(session, agent);
        }
        let cut = entry.end(session.end.as_ref()?)?;
        self.live -= 1;
        self.remove_from_user(&entry);
        cut
    }

    /// Takes over a key of a session that is known, unless a later change has it already. Without
    /// a version it counts as the latest.
    pub(super) fn put_key(&mut self, key: &Key, version: Option<i64>, late: bool) {
        let Some(row) = self.by_id.get_mut(&key.session) else { return };
        let entry = Arc::clone(&row.entry);
        let known = self.by_key.get(&key.key).map_or(i64::MIN, |slot| slot.version);
        let version = version.unwrap_or_else(|| known.max(entry.change_seq()));
        if known > version {
            return;
        }
        if !row.keys.contains(&key.key) {
            row.keys.reserve_exact(1);
            row.keys.push(key.key);
        }
        let Key { exact, since, key_use, .. } = *key;
        let slot = KeySlot { entry, exact, since, version, key_use, late };
        let before = self.by_key.insert(key.key, slot);
        if let Some(before) = before.filter(|before| before.entry.id != key.session)
            && let Some(row) = self.by_id.get_mut(&before.entry.id)
        {
            // If it has ended it stays for a while without keys: see `drop_keyless`.
            row.keys.retain(|known| *known != key.key);
        }
    }

    /// `false` if the key is known already, or nothing may be kept.
    pub(super) fn add_late_key(&mut self, key: &Key, kept_max: usize) -> bool {
        if kept_max == 0 || self.by_key.contains_key(&key.key) {
            return false;
        }
        let Some(row) = self.by_id.get(&key.session) else { return false };
        let is_late = |key: &&SessionKey| self.by_key.get(*key).is_some_and(|slot| slot.late);
        let late: Vec<SessionKey> = row.keys.iter().filter(is_late).copied().collect();
        for oldest in late.iter().take((late.len() + 1).saturating_sub(kept_max)) {
            self.drop_key(oldest);
        }
        self.put_key(key, None, true);
        true
    }

    /// Drops keys of sessions that are over, and such sessions with their last key. A key that a
    /// login has taken over since the store dropped it stays.
    pub(super) fn forget(&mut self, keys: &[SessionKey]) {
        for key in keys {
            let Some(slot) = self.by_key.get(key) else { continue };
            let entry = Arc::clone(&slot.entry);
            if entry.counts() {
                continue;
            }
            self.drop_key(key);
            if self.by_id.get(&entry.id).is_some_and(|row| row.keys.is_empty()) {
                self.drop_row(&entry);
            }
        }
    }

    /// Drops keys that another replica has pruned, unless a later change brought them back, and
    /// sessions with their last key, even those that are live as far as we know: their end has been
    /// pruned as well. Late keys that only we still have go along. Returns the tokens to cancel
    /// once the lock is released.
    pub(super) fn forget_pruned(&mut self, keys: &[(SessionKey, i64)]) -> Vec<CancellationToken> {
        let mut cut = Vec::new();
        for (key, seq) in keys {
            let Some(slot) = self.by_key.get(key).filter(|slot| slot.version < *seq) else {
                continue;
            };
            let entry = Arc::clone(&slot.entry);
            self.drop_key(key);
            let late = |key| self.by_key.get(key).is_some_and(|slot| slot.late);
            let Some(row) = self.by_id.get(&entry.id).filter(|row| row.keys.iter().all(late))
            else {
                continue;
            };
            row.keys.clone().iter().for_each(|key| self.drop_key(key));
            cut.extend(entry.take_cut());
            self.drop_row(&entry);
        }
        cut
    }

    /// Drops ended sessions whose keys have all gone to others, which nothing leads to any more.
    pub(super) fn drop_keyless(&mut self, ids: &[SessionId]) {
        for id in ids {
            if let Some(row) = self.by_id.get(id)
                && row.keys.is_empty()
                && row.entry.ending().is_some()
            {
                self.by_id.remove(id);
            }
        }
    }

    /// Entries after `cursor` in the order of ids, with whether they have keys.
    pub(super) fn after(
        &self,
        cursor: Option<SessionId>,
    ) -> impl Iterator<Item = (&Arc<Entry>, bool)> {
        use std::ops::Bound;
        let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.by_id.range((start, Bound::Unbounded));
        rows.map(|(_, row)| (&row.entry, !row.keys.is_empty()))
    }

    fn change_user(&mut self, entry: &Arc<Entry>, session: &Session) -> Arc<Entry> {
        let limit = Arc::clone(self.limits.of(session.user.as_deref()));
        let mut state = session.clone();
        // The ending goes through `Entry::end` like every other, or has come before.
        state.end = entry.ending().cloned();
        let successor = Arc::new(entry.succeed(&state, limit));
        if let Some(row) = self.by_id.get_mut(&entry.id) {
            row.entry = Arc::clone(&successor);
            for key in &row.keys {
                if let Some(slot) = self.by_key.get_mut(key) {
                    slot.entry = Arc::clone(&successor);
                }
            }
        }
        if entry.ending().is_none() {
            self.remove_from_user(entry);
            self.add_to_user(Arc::clone(&successor));
        }
        successor
    }

    fn add_to_user(&mut self, entry: Arc<Entry>) {
        if let Some(user) = &entry.user {
            let of_user = self.by_user.entry(Arc::clone(user)).or_default();
            of_user.reserve_exact(1);
            of_user.push(entry);
        }
    }

    fn remove_from_user(&mut self, entry: &Entry) {
        let Some(user) = &entry.user else { return };
        if let Some(of_user) = self.by_user.get_mut(user) {
            of_user.retain(|other| other.id != entry.id);
            if of_user.is_empty() {
                self.by_user.remove(user);
            }
        }
    }

    fn drop_key(&mut self, key: &SessionKey) {
        if let Some(slot) = self.by_key.remove(key)
            && let Some(row) = self.by_id.get_mut(&slot.entry.id)
        {
            row.keys.retain(|known| known != key);
        }
    }

    fn drop_row(&mut self, entry: &Entry) {
        self.by_id.remove(&entry.id);
        if entry.ending().is_none() {
            self.live -= 1;
            self.remove_from_user(entry);
        }
    }

    fn intern(&mut self, agent: Option<&str>) -> Option<Arc<str>> {
        let agent = agent?;
        if let Some(known) = self.agents.get(agent) {
            return Some(Arc::clone(known));
        }
        if self.agents.len() >= AGENTS_MAX {
            self.agents.clear();
        }
        let agent: Arc<str> = Arc::from(agent);
        self.agents.insert(Arc::clone(&agent));
        Some(agent)
    }

    /// The indexes agree. Run after each change in debug builds.
    pub(super) fn check_invariants(&self) {
        if self.by_id.len() > CHECKED_MAX {
            return;
        }
        for (key, slot) in &self.by_key {
            let row = self.by_id.get(&slot.entry.id);
            let leads_there = row.is_some_and(|row| Arc::ptr_eq(&row.entry, &slot.entry));
            assert!(leads_there, "key {key} leads to a session that is not the one by id");
            assert!(row.is_some_and(|row| row.keys.contains(key)), "session misses its key {key}");
        }
        let keys: usize = self.by_id.values().map(|row| row.keys.len()).sum();
        assert_eq!(keys, self.by_key.len(), "sessions and keys disagree");
        let mut of_users = 0;
        for (user, of_user) in &self.by_user {
            assert!(!of_user.is_empty(), "a user without sessions is kept");
            of_users += of_user.len();
            for entry in of_user {
                assert!(entry.ending().is_none(), "an ended session counts for its user");
                assert_eq!(entry.user.as_ref(), Some(user));
                assert!(self.id(entry.id).is_some_and(|known| Arc::ptr_eq(known, entry)));
            }
        }
        let live = self.by_id.values().filter(|row| row.entry.ending().is_none());
        let (of_user, of_nobody): (Vec<_>, Vec<_>) = live.partition(|row| row.entry.user.is_some());
        assert_eq!(of_user.len(), of_users, "a user misses a session");
        assert_eq!(of_user.len() + of_nobody.len(), self.live, "live sessions are miscounted");
    }
}
