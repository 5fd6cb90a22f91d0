//! Ended sessions at rest: packed into graves, and back again when one of their keys is shown. What
//! the store holds of them at the start goes into graves at once.

use std::collections::HashSet;
use std::sync::Arc;

use super::{KeyRow, Table};
use crate::registry::arena::Place;
use crate::registry::records::Grave;
use crate::session::{EndReason, Ending, Key, Session, SessionId, SessionKey, Timestamp, User};

/// What a grave says of its session.
pub(super) struct Ended {
    user: Option<Place>,
    at: Timestamp,
    reason: EndReason,
    change_seq: i64,
}

impl Table {
    /// As [`Self::put_session`], for a session of the store whose keys come later.
    pub(in crate::registry) fn load_session(&mut self, session: &Session) {
        let Some(Ending { at, reason, .. }) = session.end else {
            self.put_session(session);
            return;
        };
        let user = session.user.as_ref().map(|user| self.user_row(user));
        if let Some(user) = user {
            // Until all is loaded, so that nobody drops it.
            self.users.get_mut(user).buried += 1;
        }
        let change_seq = session.change_seq;
        self.ended.insert(session.id, Ended { user, at, reason, change_seq });
    }

    /// As [`Self::put_key`]; what belongs to an ended session is buried at once.
    pub(in crate::registry) fn load_key(&mut self, key: &Key, version: Option<i64>) {
        // A change that came meanwhile knows better.
        let known = self.keys.find(&key.key).is_some() || self.is_buried(&key.key);
        let Some(ended) = self.ended.get(&key.session) else {
            return self.put_key(key, version, false);
        };
        if known {
            return;
        }
        let version = version.unwrap_or(ended.change_seq);
        let row = KeyRow { key: key.key, version, key_use: key.key_use, ..KeyRow::default() };
        let user = ended.user;
        let grave = Grave::new(&row, key.session, user, (ended.at, ended.reason), 0);
        self.graves.insert(grave);
        if let Some(user) = user {
            self.users.get_mut(user).buried += 1;
        }
    }

    /// All that the store holds is here.
    pub(in crate::registry) fn loaded(&mut self) {
        for ended in std::mem::take(&mut self.ended).into_values() {
            if let Some(user) = ended.user {
                self.users.get_mut(user).buried -= 1;
                self.drop_user(user);
            }
        }
    }

    /// Packs an ended session into graves, if nobody has it in hand. It comes back with the first
    /// request that shows a key of it.
    pub(in crate::registry) fn bury(&mut self, id: SessionId) {
        let Some(place) = self.sessions.find(&id) else { return };
        let row = self.sessions.get(place);
        let Some(entry) = row.entry.clone() else { return };
        let Some(&Ending { at, reason, .. }) = entry.ending() else { return };
        let keys: Vec<Place> = self.keys_of(row).map(|(place, _)| place).collect();
        // The table's, and the one above.
        let in_hand = Arc::strong_count(&entry) > 2;
        if in_hand || keys.is_empty() {
            return;
        }
        let user = entry.user.as_ref().map(|user| self.user_row(user));
        let (logged_out, told) = entry.claimed();
        let past =
            if logged_out { Grave::LOGGED_OUT } else { 0 } | if told { Grave::TOLD } else { 0 };
        for key in keys {
            self.exacts.remove(&key);
            let Some(row) = self.keys.remove(key) else { continue };
            self.graves.insert(Grave::new(&row, id, user, (at, reason), past));
            if let Some(user) = user {
                self.users.get_mut(user).buried += 1;
            }
        }
        self.sessions.remove(place);
    }

    /// Takes the user off the graves of these sessions. Looks at `count` graves after `cursor`; answers
    /// where to go on, and puts whose they were into `users`.
    pub(in crate::registry) fn forget_names(
        &mut self,
        sessions: &HashSet<SessionId>,
        cursor: Option<Place>,
        count: usize,
        users: &mut HashSet<User>,
    ) -> Option<Place> {
        let looked_at: Vec<(Place, bool)> = self
            .graves
            .after(cursor)
            .take(count)
            .map(|(place, grave)| (place, sessions.contains(&grave.session)))
            .collect();
        for (place, _) in looked_at.iter().filter(|(_, wanted)| *wanted) {
            let Some(user) = self.graves.get_mut(*place).user.take() else { continue };
            let row = self.users.get_mut(user);
            row.buried -= 1;
            users.extend(row.name.clone());
            self.drop_user(user);
        }
        looked_at.last().map(|(place, _)| *place)
    }

    /// How many keys at rest are of sessions that had ended before; of `count` graves after `cursor`, with where to go on.
    pub(in crate::registry) fn buried_before(
        &self,
        at: Timestamp,
        cursor: Option<Place>,
        count: usize,
    ) -> (usize, Option<Place>) {
        let (mut before, mut last) = (0, None);
        for (place, grave) in self.graves.after(cursor).take(count) {
            before += usize::from(grave.ended_at() < at);
            last = Some(place);
        }
        (before, last)
    }

    pub(in crate::registry) fn is_buried(&self, key: &SessionKey) -> bool {
        self.graves.find(key).is_some()
    }

    /// Makes the session of a buried key one as all others.
    pub(in crate::registry) fn unearth(&mut self, key: &SessionKey) {
        let Some(place) = self.graves.find(key) else { return };
        let grave = self.graves.get(place);
        let Some(key_use) = grave.key_use else { return };
        let user = grave.user.and_then(|user| self.users.get(user).name.clone());
        let (session, version, at) = (grave.session, grave.version(), grave.ended_at());
        let end = Ending { at, reason: grave.reason, by: None, by_session: None };
        let past = grave.past;
        self.drop_grave(key);
        if self.sessions.find(&session).is_none() {
            self.put_session(&Session::ended_as(session, user, version, end));
            if let Some(entry) = self.id(session) {
                entry.claim(past & Grave::LOGGED_OUT != 0, (past & Grave::TOLD != 0).then_some(at));
            }
        }
        let key = Key { key: *key, exact: *key, session, key_use, since: at };
        self.put_key(&key, Some(version), false);
        if let Some(place) = self.keys.find(&key.key) {
            self.keys.get_mut(place).buried_once = true;
        }
    }

    pub(super) fn drop_grave(&mut self, key: &SessionKey) {
        let place = self.graves.find(key);
        let Some(grave) = place.and_then(|place| self.graves.remove(place)) else { return };
        if let Some(user) = grave.user {
            self.users.get_mut(user).buried -= 1;
            self.drop_user(user);
        }
    }
}
