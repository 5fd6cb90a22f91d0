//! What a store must do: keep sessions and keys, and run one decision in one transaction.
//! The decision itself is a pure function handed in (`policy.rs`); SQL lives in `store/`.

pub mod migrate;
pub mod postgres;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::audit::AuditEvent;
use crate::session::{Key, Session, SessionId, SessionKey, Timestamp, User, UserLimit};

/// The live sessions a decision is about: all of `user`, and those in `ids` whoever's they are.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub user: Option<User>,
    pub ids: Vec<SessionId>,
}

/// What a decision changes, written in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Full new states; inserted or replaced by id. `login_seq` 0 asks for a new one,
    /// `change_seq` is always assigned by the store.
    pub sessions: Vec<Session>,
    /// Inserted or replaced by key.
    pub keys: Vec<Key>,
    /// Inserted or replaced by user.
    pub limits: Vec<UserLimit>,
    /// Published after the commit, in order.
    pub events: Vec<AuditEvent>,
    /// What the caller asked about.
    pub decision: Decision,
}

/// What became of a login, for the caller; other changes leave it `Done`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to tell.
    #[default]
    Done,
    /// The newcomer is in.
    Admitted { session: SessionId },
    /// The browser's own session goes on.
    Renewed { session: SessionId },
    /// The newcomer stays out; the user has `count` sessions of `limit`.
    Denied { session: SessionId, count: u32, limit: u32 },
    /// So many sessions were live and are ended now.
    Ended { count: u32 },
}

/// A pure decision over the live sessions in scope, ordered by `login_seq`.
/// May be run again when the transaction has to be repeated.
pub type Decide = Box<dyn Fn(&[Session]) -> Plan + Send + Sync>;

/// What a committed transaction changed, with the sequence numbers the store gave.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    pub sessions: Vec<Session>,
    pub keys: Vec<Key>,
    /// The change that wrote each of `keys`, in their order; empty: the newest of `sessions`.
    pub key_seqs: Vec<i64>,
    /// Keys of rotated values that another replica came upon.
    pub late_keys: Vec<Key>,
    /// Keys that another replica has pruned, each with the change that did it.
    pub forgotten: Vec<(SessionKey, i64)>,
    pub limits: Vec<UserLimit>,
    pub events: Vec<AuditEvent>,
}

impl Committed {
    /// Whether there is anything to tell.
    pub fn says_something(&self) -> bool {
        !(self.sessions.is_empty()
            && self.keys.is_empty()
            && self.late_keys.is_empty()
            && self.forgotten.is_empty()
            && self.limits.is_empty()
            && self.events.is_empty())
    }
}

/// Late keys (from [`Store::touch`]) kept per session, newest first; older ones are forgotten.
/// An app that changes its cookie with every answer would fill the store otherwise.
pub const LATE_KEYS_MAX: u32 = 64;

/// The other side of the store: learns of every commit, in commit order, before whoever asked for
/// it gets an answer. Implemented by the registry side; must not block.
pub trait Feed: Send + Sync {
    /// A transaction was committed.
    fn committed(&self, change: Committed);

    /// What the store holds of what changed lately, by whatever replica: it may come twice, and
    /// some of it is our own. Each session comes before its keys, and with how long ago it changed.
    fn replicated(&self, change: Committed, ages: &[Duration]);

    /// The time by the store's clock, which all replicas go by.
    fn store_time(&self, now: Timestamp);

    /// A fresher `last_seen_at` than the store's, for decisions.
    fn last_seen_at(&self, session: SessionId) -> Option<Timestamp>;
}

/// How a cookie was last set by the app, so that it can be re-issued or expired as it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookieShape {
    pub name: String,
    /// As the app wrote it, lower case, no leading dot; empty: host-only.
    pub domain: String,
    /// As the app wrote it; empty: none given.
    pub path: String,
    /// The other attributes but Expires and Max-Age, as `; Secure; HttpOnly; SameSite=Lax`.
    pub attributes: String,
}

/// Which sessions a listing shows.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub user: Option<User>,
    /// `Some(true)`: live only; `Some(false)`: ended only.
    pub live: Option<bool>,
    /// At most so many; the store caps it at 1,000.
    pub count_max: u32,
    /// Continue below this `login_seq`.
    pub before_login_seq: Option<i64>,
}

/// How long ended sessions and dead keys are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Ended sessions older than this go.
    pub history_ms: i64,
    /// Ended sessions of one user beyond this many go, oldest first.
    pub history_per_user: u32,
    /// Keys of sessions that ended longer ago than this go.
    pub tombstones_ms: i64,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or server could not be opened; says what to do.
    #[error("{0}")]
    Open(String),
    /// Another process has it.
    #[error("the store {0} is in use by another process: one Headcount per SQLite file")]
    Locked(String),
    /// It took longer than `store.timeout`.
    #[error("the store did not answer within {0} ms")]
    Timeout(u64),
    /// There is no copy to be had; says why, or where.
    #[error("{0}")]
    NoBackup(String),
    /// The store's writer has stopped.
    #[error("the store has stopped")]
    Stopped,
    /// The database reported an error.
    #[error("the store failed")]
    Database(#[from] sqlx::Error),
    /// The file is damaged, or a row does not make sense.
    #[error("the store is damaged, or holds what this version cannot read: {0}")]
    Corrupt(String),
}

/// What is loaded at the start, or a page of it.
#[derive(Default)]
pub struct Loaded {
    /// Live sessions, and ended ones that still have keys.
    pub sessions: Vec<Session>,
    pub keys: Vec<Key>,
    /// As in [`Committed`].
    pub key_seqs: Vec<i64>,
    pub shapes: Vec<CookieShape>,
    pub limits: Vec<UserLimit>,
}

impl Loaded {
    fn append(&mut self, page: Self) {
        let Self { sessions, keys, key_seqs, shapes, limits } = page;
        self.sessions.extend(sessions);
        self.keys.extend(keys);
        self.key_seqs.extend(key_seqs);
        self.shapes.extend(shapes);
        self.limits.extend(limits);
    }
}

/// Who takes the pages of what is loaded.
pub type Take = Box<dyn FnMut(Loaded) + Send>;

/// A copy of the store in pieces, as it was when it was asked for. Dropping it gives it up.
pub struct Backup {
    pub bytes: u64,
    pub pieces: mpsc::Receiver<std::io::Result<Bytes>>,
}

/// What tells the MAC keys of one replica from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChecks {
    pub used: [u8; 16],
    /// Still, or already.
    pub accepted: Option<[u8; 16]>,
    /// The one that is used came after the one that is accepted.
    pub promoted: bool,
}

impl KeyChecks {
    /// Whether what was made with this key is understood.
    pub fn know(&self, check: &[u8]) -> bool {
        self.used == check || self.accepted.is_some_and(|accepted| accepted == check)
    }
}

/// A session as the store keeps it, shown to nobody but its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub session: Session,
    /// No longer history: kept so that its tokens stay dead.
    pub hidden: bool,
    /// Keyed hashes of tokens, the current ones and those that are dead.
    pub keys: u32,
}

/// A durable place for sessions. Every method is one transaction; `Ok` means committed.
#[async_trait]
pub trait Store: Send + Sync {
    /// Everything the registry needs, a page at a time: all sessions come before the first key.
    /// Called once, before the first request.
    async fn load_pages(&self, take: Take) -> Result<(), StoreError>;

    /// The same at once, where there is little.
    async fn load(&self) -> Result<Loaded, StoreError> {
        let whole = Arc::new(Mutex::new(Loaded::default()));
        let into = Arc::clone(&whole);
        self.load_pages(Box::new(move |page| into.lock().append(page))).await?;
        let whole = std::mem::take(&mut *whole.lock());
        Ok(whole)
    }

    /// Locks the user, reads the live sessions in `scope`, runs `decide`, writes its plan, commits,
    /// tells the feed, answers.
    async fn transact(&self, scope: Scope, decide: Decide) -> Result<Decision, StoreError>;

    /// Writes merged `last_seen_at`s and late keys in one batch; ended sessions are left alone.
    async fn touch(
        &self,
        seen: Vec<(SessionId, Timestamp)>,
        keys: Vec<Key>,
    ) -> Result<(), StoreError>;

    /// Remembers how a cookie was set.
    async fn remember_shape(&self, shape: CookieShape) -> Result<(), StoreError>;

    /// Sessions for the admin API, newest login first.
    async fn list(&self, listing: Listing) -> Result<Vec<Session>, StoreError>;

    /// One session, live or ended.
    async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// Drops what `retention` no longer keeps; returns the keys dropped.
    async fn prune(
        &self,
        now: Timestamp,
        retention: Retention,
    ) -> Result<Vec<SessionKey>, StoreError>;

    /// Answers when the store can write.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Everything kept of a user's sessions, oldest login first; goes on after `after_login_seq`, and
    /// is at its end when it is empty.
    async fn kept_of(&self, user: &User, after_login_seq: i64) -> Result<Vec<Kept>, StoreError>;

    /// Forgets whose some of the user's ended sessions were, and their clients: those that are only
    /// history go, of the others nothing stays but what keeps their tokens dead. Answers how many; 0:
    /// there are no more.
    async fn erase(&self, user: &User) -> Result<u64, StoreError>;

    /// From now on keys are made with another MAC key; replicas that do not know it may not start.
    async fn use_key(&self, keys: &KeyChecks) -> Result<(), StoreError>;

    /// A copy with everything that was answered before; nobody waits for it meanwhile.
    async fn backup(&self) -> Result<Backup, StoreError>;

    /// Ends when the store can do nothing any more, whatever the reason.
    async fn stopped(&self);

    /// How old this replica's knowledge of the others' changes may be; `None` where there are none.
    fn lag(&self) -> Option<Duration> {
        None
    }

    /// Whether that is too old to judge by: a session may have ended elsewhere.
    fn is_stale(&self) -> bool {
        false
    }

    /// Statements run so far, for the metric and for the test that the request path runs none.
    fn statements(&self) -> u64;

    /// Finishes what was accepted and closes.
    async fn close(&self);
}
