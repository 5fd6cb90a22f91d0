//! The indexes over sessions, changed together under the registry's one lock. Plain data: no locks
//! of its own, no clock, no I/O.

mod burial;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::burial::Ended;
use super::arena::{Arena, Place};
use super::entry::Entry;
use super::group_sets::GroupSets;
use super::records::{Grave, KeyRow, Row, UserRow};
use super::{Counts, Found};
use crate::policy::{Limit, Limits};
use crate::session::{Key, KeyUse, Session, SessionId, SessionKey, User};

/// Checking everything after every change is for small tables.
const CHECKED_MAX: usize = 1024;

pub(super) struct Table {
    limits: Limits,
    sessions: Arena<Row>,
    keys: Arena<KeyRow>,
    /// Where the hash of the bytes issued is another than the key.
    exacts: HashMap<Place, SessionKey>,
    graves: Arena<Grave>,
    users: Arena<UserRow>,
    live: usize,
    users_live: usize,
    /// Keys of live sessions.
    keys_live: usize,
    /// Ended sessions while the store is read: their keys come later.
    ended: HashMap<SessionId, Ended>,
    group_sets: GroupSets,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            sessions: Arena::new(),
            keys: Arena::new(),
            exacts: HashMap::new(),
            graves: Arena::new(),
            users: Arena::new(),
            live: 0,
            users_live: 0,
            keys_live: 0,
            ended: HashMap::new(),
            group_sets: GroupSets::default(),
        }
    }

    /// Other limits, for sessions to come.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limit of this session's user by the limits in force.
    pub(super) fn limit_of(&self, entry: &Entry) -> Arc<Limit> {
        self.limits.of(entry.user.as_deref(), &entry.groups())
    }

    /// What a key of a session that is not buried leads to.
    pub(super) fn found(&self, key: &SessionKey) -> Option<Found> {
        let place = self.keys.find(key)?;
        let row = self.keys.get(place);
        let entry = self.sessions.get(row.session?).entry.as_ref()?;
        let exact = (!row.buried_once).then(|| self.exact(place, row));
        Some(Found { entry: Arc::clone(entry), exact, key_use: row.key_use, since: row.since })
    }

    fn exact(&self, place: Place, row: &KeyRow) -> SessionKey {
        if self.exacts.is_empty() {
            return row.key;
        }
        self.exacts.get(&place).copied().unwrap_or(row.key)
    }

    pub(super) fn id(&self, id: SessionId) -> Option<&Arc<Entry>> {
        self.sessions.by_key(&id)?.entry.as_ref()
    }

    pub(super) fn bearers(&self, id: SessionId) -> Vec<(SessionKey, SessionKey)> {
        let Some(row) = self.sessions.by_key(&id) else { return Vec::new() };
        let bearers = self.keys_of(row).filter(|(_, key)| key.key_use == KeyUse::Bearer);
        bearers.map(|(place, key)| (key.key, self.exact(place, key))).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let keys = self.keys.len() + self.graves.len();
        let tombstones = keys - self.keys_live;
        Counts { live: self.live, users: self.users_live, tombstones, keys }
    }

    /// How many keys a session has that is not buried.
    pub(super) fn key_count(&self, id: SessionId) -> usize {
        self.sessions.by_key(&id).map_or(0, |row| self.keys_of(row).count())
    }

    pub(super) fn count_of(&self, user: &str) -> usize {
        self.users.by_key(user).map_or(0, |row| row.live as usize)
    }

    /// Takes over a state: only what is newer, but an ending always. Returns the token to cancel
    /// once the lock is released.
    pub(super) fn put_session(&mut self, session: &Session) -> Option<CancellationToken> {
        let Some(place) = self.sessions.find(&session.id) else {
            let entry = Arc::new(self.entry_of(session));
            if session.end.is_none() {
                self.live += 1;
                self.count_in(&entry);
            }
            self.sessions.insert(Row { entry: Some(entry), ..Row::default() });
            return None;
        };
        let entry = Arc::clone(self.sessions.get(place).entry.as_ref()?);
        let newer = session.change_seq > entry.change_seq();
        let entry = if newer && entry.user != session.user {
            self.change_user(place, &entry, session)
        } else {
            entry
        };
        if newer {
            entry.update(session);
            if entry.groups() != session.groups {
                entry.set_groups(self.group_sets.shared(&session.groups));
                entry.set_limit(self.limit_of(&entry));
            }
        }
        let cut = entry.end(session.end.as_ref()?)?;
        self.live -= 1;
        self.keys_live -= self.keys_of(self.sessions.get(place)).count();
        self.count_out(&entry);
        cut
    }

    /// Takes over a key of a session that is known, unless a later change has it already. Without
    /// a version it counts as the latest.
    pub(super) fn put_key(&mut self, key: &Key, version: Option<i64>, late: bool) {
        let Some(session) = self.sessions.find(&key.session) else { return };
        let Some(entry) = &self.sessions.get(session).entry else { return };
        let held = self.keys.find(&key.key);
        let known = held.map(|place| self.keys.get(place).version);
        let known = known.or_else(|| Some(self.graves.by_key(&key.key)?.version()));
        let known = known.unwrap_or(i64::MIN);
        let version = version.unwrap_or_else(|| known.max(entry.change_seq()));
        if known > version {
            return;
        }
        let Key { since, key_use, .. } = *key;
        let owner = Some(session);
        let row = KeyRow {
            key: key.key,
            session: owner,
            since,
            version,
            key_use,
            late,
            ..KeyRow::default()
        };
        let place = match held {
            Some(place) if self.keys.get(place).session == owner => {
                let next = self.keys.get(place).next;
                *self.keys.get_mut(place) = KeyRow { next, ..row };
                place
            }
            elsewhere => {
                // A session that has ended stays for a while without keys: see `drop_keyless`.
                elsewhere.into_iter().for_each(|place| self.drop_key(place));
                self.drop_grave(&key.key);
                let place = self.keys.insert(row);
                self.link(session, place);
                self.keys_live += usize::from(self.is_live(session));
                place
            }
        };
        self.exacts.remove(&place);
        if key.exact != key.key {
            self.exacts.insert(place, key.exact);
        }
    }

    /// `false` if the key is known already, or nothing may be kept.
    pub(super) fn add_late_key(&mut self, key: &Key, kept_max: usize) -> bool {
        let known = self.keys.find(&key.key).is_some() || self.is_buried(&key.key);
        if kept_max == 0 || known {
            return false;
        }
        let Some(row) = self.sessions.by_key(&key.session) else { return false };
        let late = self.keys_of(row).filter(|(_, key)| key.late);
        let late: Vec<Place> = late.map(|(place, _)| place).collect();
        for oldest in late.iter().take((late.len() + 1).saturating_sub(kept_max)) {
            self.drop_key(*oldest);
        }
        self.put_key(key, None, true);
        true
    }

    /// Drops keys of sessions that are over, and such sessions with their last key. A key that a
    /// login has taken over since the store dropped it stays.
    pub(super) fn forget(&mut self, keys: &[SessionKey]) {
        for key in keys {
            self.drop_grave(key);
            let Some((place, session, entry)) = self.owned(key) else { continue };
            if entry.counts() {
                continue;
            }
            self.drop_key(place);
            if self.sessions.get(session).first.is_none() {
                self.drop_row(session);
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
            if self.graves.by_key(key).is_some_and(|grave| grave.version() < *seq) {
                self.drop_grave(key);
            }
            let Some((place, session, entry)) = self.owned(key) else { continue };
            if self.keys.get(place).version >= *seq {
                continue;
            }
            self.drop_key(place);
            let row = self.sessions.get(session);
            if !self.keys_of(row).all(|(_, key)| key.late) {
                continue;
            }
            let late: Vec<Place> = self.keys_of(row).map(|(place, _)| place).collect();
            late.into_iter().for_each(|place| self.drop_key(place));
            cut.extend(entry.take_cut());
            self.drop_row(session);
        }
        cut
    }

    /// Drops ended sessions whose keys have all gone to others, which nothing leads to any more.
    pub(super) fn drop_keyless(&mut self, ids: &[SessionId]) {
        for id in ids {
            let Some(place) = self.sessions.find(id) else { continue };
            let Row { entry, first, .. } = self.sessions.get(place);
            if first.is_none() && entry.as_ref().is_some_and(|entry| entry.ending().is_some()) {
                self.sessions.remove(place);
            }
        }
    }

    /// Sessions after `cursor` in the order of their places, with whether they have keys.
    pub(super) fn after(
        &self,
        cursor: Option<Place>,
    ) -> impl Iterator<Item = (Place, &Arc<Entry>, bool)> {
        let rows = self.sessions.after(cursor);
        rows.filter_map(|(place, row)| Some((place, row.entry.as_ref()?, row.first.is_some())))
    }

    fn entry_of(&mut self, session: &Session) -> Entry {
        let limit = self.limits.of(session.user.as_deref(), &session.groups);
        let entry = Entry::new(session, self.interned(session.user.as_ref()), limit);
        if session.end.is_none() && !session.groups.is_empty() {
            entry.set_groups(self.group_sets.shared(&session.groups));
        }
        entry
    }

    /// One name takes memory once.
    fn interned(&self, user: Option<&User>) -> Option<User> {
        let user = user?;
        let known = self.users.by_key(user).and_then(|row| row.name.as_ref());
        Some(Arc::clone(known.unwrap_or(user)))
    }

    fn change_user(&mut self, place: Place, entry: &Arc<Entry>, session: &Session) -> Arc<Entry> {
        let limit = self.limits.of(session.user.as_deref(), &session.groups);
        let mut state = session.clone();
        // The ending goes through `Entry::end` like every other, or has come before.
        state.end = entry.ending().cloned();
        let user = self.interned(session.user.as_ref());
        let successor = Arc::new(entry.succeed(&state, user, limit));
        successor.set_groups(self.group_sets.shared(&session.groups));
        self.sessions.get_mut(place).entry = Some(Arc::clone(&successor));
        if entry.ending().is_none() {
            self.count_out(entry);
            self.count_in(&successor);
        }
        successor
    }

    fn user_row(&mut self, user: &User) -> Place {
        self.users.find(user).unwrap_or_else(|| {
            self.users.insert(UserRow { name: Some(Arc::clone(user)), ..UserRow::default() })
        })
    }

    fn count_in(&mut self, entry: &Entry) {
        let Some(user) = &entry.user else { return };
        let place = self.user_row(user);
        let row = self.users.get_mut(place);
        row.live += 1;
        self.users_live += usize::from(row.live == 1);
    }

    fn count_out(&mut self, entry: &Entry) {
        let Some(place) = entry.user.as_ref().and_then(|user| self.users.find(user)) else {
            return;
        };
        let row = self.users.get_mut(place);
        row.live -= 1;
        self.users_live -= usize::from(row.live == 0);
        self.drop_user(place);
    }

    /// If nothing needs it any more.
    fn drop_user(&mut self, place: Place) {
        let row = self.users.get(place);
        if row.live == 0 && row.buried == 0 {
            self.users.remove(place);
        }
    }

    fn keys_of<'a>(&'a self, row: &Row) -> impl Iterator<Item = (Place, &'a KeyRow)> + use<'a> {
        let places = std::iter::successors(row.first, |place| self.keys.get(*place).next);
        places.map(|place| (place, self.keys.get(place)))
    }

    /// A key that is not buried, and whose it is.
    fn owned(&self, key: &SessionKey) -> Option<(Place, Place, Arc<Entry>)> {
        let place = self.keys.find(key)?;
        let session = self.keys.get(place).session?;
        Some((place, session, Arc::clone(self.sessions.get(session).entry.as_ref()?)))
    }

    fn link(&mut self, session: Place, key: Place) {
        let row = self.sessions.get_mut(session);
        let last = row.last.replace(key);
        match last {
            Some(last) => self.keys.get_mut(last).next = Some(key),
            None => row.first = Some(key),
        }
    }

    fn drop_key(&mut self, place: Place) {
        let Some(session) = self.keys.get(place).session else { return };
        let row = self.sessions.get(session);
        let before = self.keys_of(row).find(|(_, key)| key.next == Some(place));
        let before = before.map(|(before, _)| before);
        let next = self.keys.get(place).next;
        match before {
            Some(before) => self.keys.get_mut(before).next = next,
            None => self.sessions.get_mut(session).first = next,
        }
        let row = self.sessions.get_mut(session);
        if row.last == Some(place) {
            row.last = before;
        }
        self.exacts.remove(&place);
        self.keys.remove(place);
        self.keys_live -= usize::from(self.is_live(session));
    }

    fn is_live(&self, session: Place) -> bool {
        self.sessions.get(session).entry.as_ref().is_some_and(|entry| entry.ending().is_none())
    }

    fn drop_row(&mut self, place: Place) {
        let Some(entry) = self.sessions.remove(place).and_then(|row| row.entry) else { return };
        if entry.ending().is_none() {
            self.live -= 1;
            self.count_out(&entry);
        }
    }

    /// The indexes agree. Run after each change in debug builds.
    pub(super) fn check_invariants(&self) {
        if self.sessions.len() + self.graves.len() > CHECKED_MAX {
            return;
        }
        let (mut keys, mut keys_live) = (0, 0);
        let mut of_users: HashMap<&str, u32> = HashMap::new();
        let mut live = 0;
        for (place, row) in self.sessions.after(None) {
            for (_, key) in self.keys_of(row) {
                assert_eq!(key.session, Some(place), "a session links a key of another");
                assert!(!self.is_buried(&key.key), "a key is in two places");
                keys += 1;
            }
            assert_eq!(self.keys_of(row).last().map(|(place, _)| place), row.last);
            let Some(entry) = row.entry.as_ref().filter(|entry| entry.ending().is_none()) else {
                continue;
            };
            live += 1;
            keys_live += self.keys_of(row).count();
            if let Some(user) = &entry.user {
                *of_users.entry(user).or_default() += 1;
            }
        }
        assert_eq!(keys, self.keys.len(), "a key leads to a session that does not know it");
        assert_eq!(live, self.live, "live sessions are miscounted");
        assert_eq!(keys_live, self.keys_live, "keys of live sessions are miscounted");
        assert_eq!(of_users.len(), self.users_live, "users are miscounted");
        for (place, row) in self.users.after(None).filter(|_| self.ended.is_empty()) {
            let name = row.name.as_deref().unwrap_or_default();
            assert_eq!(row.live, of_users.get(name).copied().unwrap_or_default(), "{name}");
            let buried = self.graves.after(None).filter(|(_, grave)| grave.user == Some(place));
            assert_eq!(row.buried as usize, buried.count(), "{name}");
            assert!(row.live + row.buried > 0, "a user without sessions is kept");
        }
    }
}
