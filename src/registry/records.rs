//! What the table keeps of sessions, keys, users, and sessions that are over for long: small, since
//! there are millions of them. No logic but packing.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::arena::{Place, Record};
use super::entry::Entry;
use crate::session::{EndReason, KeyUse, SessionId, SessionKey, Timestamp, User};

/// A session and its keys, which are linked in the order they came.
#[derive(Default)]
pub(super) struct Row {
    pub(super) entry: Option<Arc<Entry>>,
    pub(super) first: Option<Place>,
    pub(super) last: Option<Place>,
}

impl Record for Row {
    type Key = SessionId;

    fn key(&self) -> Option<&SessionId> {
        self.entry.as_ref().map(|entry| &entry.id)
    }

    fn hash(key: &SessionId, _: &RandomState) -> u64 {
        folded(key.0)
    }
}

/// A key of a session that has a row.
pub(super) struct KeyRow {
    pub(super) key: SessionKey,
    /// `None`: vacant.
    pub(super) session: Option<Place>,
    pub(super) next: Option<Place>,
    pub(super) since: Timestamp,
    /// The change that brought it; an older one does not replace it.
    pub(super) version: i64,
    pub(super) key_use: KeyUse,
    pub(super) late: bool,
    /// The bytes issued are not known any more.
    pub(super) buried_once: bool,
}

impl Default for KeyRow {
    fn default() -> Self {
        Self {
            key: SessionKey([0; 16]),
            session: None,
            next: None,
            since: Timestamp(0),
            version: 0,
            key_use: KeyUse::Fenced,
            late: false,
            buried_once: false,
        }
    }
}

impl Record for KeyRow {
    type Key = SessionKey;

    fn key(&self) -> Option<&SessionKey> {
        self.session.map(|_| &self.key)
    }

    fn hash(key: &SessionKey, _: &RandomState) -> u64 {
        folded(key.0)
    }
}

/// A user with live sessions, or whom a grave names.
#[derive(Default)]
pub(super) struct UserRow {
    pub(super) name: Option<User>,
    pub(super) live: u32,
    pub(super) buried: u32,
}

impl Record for UserRow {
    type Key = str;

    fn key(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn hash(key: &str, state: &RandomState) -> u64 {
        // Users choose their names.
        state.hash_one(key)
    }
}

/// A key of a session that is over and at rest: what it takes to tell that it is dead, whose it was
/// and why.
pub(super) struct Grave {
    pub(super) key: SessionKey,
    pub(super) session: SessionId,
    pub(super) user: Option<Place>,
    /// Since 1970: enough until 2106.
    ended_s: u32,
    /// An `i64` without its alignment.
    version: [u8; 8],
    pub(super) reason: EndReason,
    /// `None`: vacant.
    pub(super) key_use: Option<KeyUse>,
    pub(super) past: u8,
}

impl Grave {
    /// It has been logged out at the app.
    pub(super) const LOGGED_OUT: u8 = 1;
    /// A client was told of the end.
    pub(super) const TOLD: u8 = 2;

    pub(super) fn new(
        row: &KeyRow,
        session: SessionId,
        user: Option<Place>,
        ended: (Timestamp, EndReason),
        past: u8,
    ) -> Self {
        let (at, reason) = ended;
        Self {
            key: row.key,
            session,
            user,
            ended_s: u32::try_from(at.0 / 1_000).unwrap_or_default(),
            version: row.version.to_ne_bytes(),
            reason,
            key_use: Some(row.key_use),
            past,
        }
    }

    pub(super) fn version(&self) -> i64 {
        i64::from_ne_bytes(self.version)
    }

    /// To the second.
    pub(super) fn ended_at(&self) -> Timestamp {
        Timestamp(i64::from(self.ended_s) * 1_000)
    }
}

impl Default for Grave {
    fn default() -> Self {
        let none = KeyRow::default();
        let ended = (Timestamp(0), EndReason::App);
        Self { key_use: None, ..Self::new(&none, SessionId([0; 16]), None, ended, 0) }
    }
}

impl Record for Grave {
    type Key = SessionKey;

    fn key(&self) -> Option<&SessionKey> {
        self.key_use.map(|_| &self.key)
    }

    fn hash(key: &SessionKey, _: &RandomState) -> u64 {
        folded(key.0)
    }
}

/// Ids and keys are random or keyed hashes: nobody can choose them, any of their bits will do.
fn folded(bytes: [u8; 16]) -> u64 {
    let all = u128::from_ne_bytes(bytes);
    (all >> 64) as u64 ^ all as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_small() {
        assert_eq!(size_of::<Row>(), 16);
        assert_eq!(size_of::<KeyRow>(), 48);
        assert_eq!(size_of::<Grave>(), 52);
        assert_eq!(size_of::<UserRow>(), 24);
        assert!(size_of::<Entry>() <= 112, "{}", size_of::<Entry>());
    }
}
