//! One session as the request path sees it: what changes often is atomic, the rest behind a small
//! lock. No indexes here, and nothing that decides.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::policy::{self, Limit};
use crate::session::{Client, EndReason, Ending, Session, SessionId, Timestamp, User};

/// A dead token in use is reported once per so long.
const USE_AFTER_END_MS: i64 = 60_000;

/// A session, live or ended. Shared by everything that has to do with it.
#[derive(Debug)]
pub struct Entry {
    pub id: SessionId,
    pub user: Option<User>,
    /// Another one after the limits have changed.
    limit: ArcSwap<Limit>,
    pub created_at: Timestamp,
    renewed_at: AtomicI64,
    last_seen_at: AtomicI64,
    login_seq: AtomicI64,
    change_seq: AtomicI64,
    use_after_end_at: AtomicI64,
    dirty: AtomicBool,
    app_logout_claimed: AtomicBool,
    ending: OnceLock<Box<Ending>>,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    address: Option<Box<str>>,
    /// Shared by the many sessions of one kind of browser.
    agent: Option<Arc<str>>,
    would_end: Option<Box<Ending>>,
    cut: Option<CancellationToken>,
}

impl Entry {
    pub(super) fn new(session: &Session, limit: Arc<Limit>, agent: Option<Arc<str>>) -> Self {
        Self {
            id: session.id,
            user: session.user.clone(),
            limit: ArcSwap::new(limit),
            created_at: session.created_at,
            renewed_at: AtomicI64::new(session.renewed_at.0),
            last_seen_at: AtomicI64::new(session.last_seen_at.0),
            login_seq: AtomicI64::new(session.login_seq),
            change_seq: AtomicI64::new(session.change_seq),
            use_after_end_at: AtomicI64::new(i64::MIN),
            dirty: AtomicBool::new(false),
            app_logout_claimed: AtomicBool::new(false),
            ending: session.end.clone().map(Box::new).map_or_else(OnceLock::new, OnceLock::from),
            rest: Mutex::new(Rest {
                address: session.client.address.as_deref().map(Box::from),
                agent,
                would_end: session.would_end.clone().map(Box::new),
                cut: None,
            }),
        }
    }

    /// The same session under another user: requests in flight keep the old entry, so both share
    /// the token that cuts them.
    pub(super) fn succeed(&self, session: &Session, limit: Arc<Limit>) -> Self {
        let agent = self.rest.lock().agent.clone();
        let entry = Self::new(session, limit, agent);
        entry.last_seen_at.fetch_max(self.last_seen_at().0, Ordering::Relaxed);
        entry.rest.lock().cut = Some(self.cut());
        entry
    }

    pub fn last_seen_at(&self) -> Timestamp {
        Timestamp(self.last_seen_at.load(Ordering::Relaxed))
    }

    pub fn renewed_at(&self) -> Timestamp {
        Timestamp(self.renewed_at.load(Ordering::Relaxed))
    }

    pub(super) fn change_seq(&self) -> i64 {
        self.change_seq.load(Ordering::Relaxed)
    }

    /// How it ended; once set it stays.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.get().map(Box::as_ref)
    }

    /// In observe mode: how it would have ended.
    pub fn would_end(&self) -> Option<Ending> {
        self.rest.lock().would_end.as_deref().cloned()
    }

    /// Neither ended nor, in observe mode, as good as ended.
    pub fn counts(&self) -> bool {
        self.ending().is_none() && self.rest.lock().would_end.is_none()
    }

    pub(super) fn set_limit(&self, limit: Arc<Limit>) {
        self.limit.store(limit);
    }

    /// Why it is over although nobody ended it.
    pub fn expiry(&self, now: Timestamp) -> Option<EndReason> {
        policy::expiry(&self.limit.load(), self.renewed_at(), self.last_seen_at(), now)
    }

    /// The client of the last login.
    pub fn client(&self) -> Client {
        let rest = self.rest.lock();
        Client {
            address: rest.address.as_deref().map(str::to_owned),
            user_agent: rest.agent.as_deref().map(str::to_owned),
        }
    }

    /// Notes a request. `true`: the caller must tell [`super::Registry::mark_dirty`].
    pub fn touch(&self, now: Timestamp) -> bool {
        if self.ending().is_some() || now <= self.last_seen_at() {
            return false;
        }
        self.last_seen_at.fetch_max(now.0, Ordering::Relaxed);
        self.set_dirty()
    }

    /// `true` if it was not yet.
    pub(super) fn set_dirty(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// From here on a touch makes it dirty again, so what is read next misses none.
    pub(super) fn clear_dirty(&self) -> Timestamp {
        self.dirty.swap(false, Ordering::AcqRel);
        self.last_seen_at()
    }

    /// Cancelled when the session ends; whoever streams for it watches this.
    pub fn cut(&self) -> CancellationToken {
        let mut rest = self.rest.lock();
        let token = rest.cut.get_or_insert_with(CancellationToken::new).clone();
        drop(rest);
        // Either this sees the ending, or `end` sees the token: both take the lock first.
        if self.ending().is_some() {
            token.cancel();
        }
        token
    }

    /// Takes the token that cuts what is under way; what begins later gets another.
    pub(super) fn take_cut(&self) -> Option<CancellationToken> {
        self.rest.lock().cut.take()
    }

    /// As known in memory, `last_seen_at` fresh.
    pub fn snapshot(&self) -> Session {
        Session {
            id: self.id,
            user: self.user.clone(),
            created_at: self.created_at,
            renewed_at: self.renewed_at(),
            last_seen_at: self.last_seen_at(),
            login_seq: self.login_seq.load(Ordering::Relaxed),
            change_seq: self.change_seq(),
            client: self.client(),
            end: self.ending().cloned(),
            would_end: self.would_end(),
        }
    }

    /// `true` exactly once: for the request that logs the session out at the app.
    pub fn claim_app_logout(&self) -> bool {
        !self.app_logout_claimed.swap(true, Ordering::AcqRel)
    }

    /// `true` at most once a minute: for the request that reports the use of a dead token.
    pub fn claim_use_after_end(&self, now: Timestamp) -> bool {
        let last = self.use_after_end_at.load(Ordering::Relaxed);
        now.since_ms(Timestamp(last)) >= USE_AFTER_END_MS
            && self
                .use_after_end_at
                .compare_exchange(last, now.0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// When a client was last told that it has ended.
    pub fn told_of_end(&self) -> Option<Timestamp> {
        let at = self.use_after_end_at.load(Ordering::Relaxed);
        (at != i64::MIN).then_some(Timestamp(at))
    }

    /// Takes over a newer state of the same user; the ending is not part of it.
    pub(super) fn update(&self, session: &Session, agent: Option<Arc<str>>) {
        self.renewed_at.store(session.renewed_at.0, Ordering::Relaxed);
        self.last_seen_at.fetch_max(session.last_seen_at.0, Ordering::Relaxed);
        self.login_seq.store(session.login_seq, Ordering::Relaxed);
        self.change_seq.store(session.change_seq, Ordering::Relaxed);
        let mut rest = self.rest.lock();
        rest.address = session.client.address.as_deref().map(Box::from);
        rest.agent = agent;
        rest.would_end = session.would_end.clone().map(Box::new);
    }

    /// Ends it for good. `None`: it had ended before; else the token to cancel, if anybody watches.
    pub(super) fn end(&self, ending: &Ending) -> Option<Option<CancellationToken>> {
        let rest = self.rest.lock();
        self.ending.set(Box::new(ending.clone())).ok()?;
        Some(rest.cut.clone())
    }
}
