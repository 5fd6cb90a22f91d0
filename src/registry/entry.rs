//! One session as the request path sees it: what changes often is atomic, the rest behind a small
//! lock. Only what a request asks for is here; the rest of a session stays in the store. No indexes,
//! and nothing that decides.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::policy::{self, Limit};
use crate::session::{EndReason, Ending, Groups, Session, SessionId, Timestamp, User};

/// A dead token in use is reported once per so long.
const USE_AFTER_END_MS: i64 = 60_000;
/// An ended session that nobody has used for so long is as good as forgotten by its browser.
const REST_MS: i64 = 600_000;
/// A client that changes all the time is looked at once per so long.
const CLIENT_LOOK_MS: i64 = 60_000;
/// No client was told of the end; nobody has looked.
const NEVER: i64 = i64::MIN;

/// A session, live or ended. Shared by everything that has to do with it.
#[derive(Debug)]
pub struct Entry {
    pub id: SessionId,
    pub user: Option<User>,
    /// Another one after the limits have changed.
    limit: ArcSwap<Limit>,
    renewed_at: AtomicI64,
    last_seen_at: AtomicI64,
    change_seq: AtomicI64,
    use_after_end_at: AtomicI64,
    ending: OnceLock<Box<Ending>>,
    rare: Mutex<Option<Box<Rare>>>,
    /// Of the client that is known to be the session's; 0: of none.
    client_mark: AtomicU32,
    dirty: AtomicBool,
    app_logout_claimed: AtomicBool,
}

/// What few sessions have.
#[derive(Debug, Default)]
struct Rare {
    would_end: Option<Box<Ending>>,
    cut: Option<CancellationToken>,
    /// As `client_mark`, of the client as it is recorded.
    client_kind: u32,
    /// What it was set under: as long as the store has the same client, it holds.
    client_stored: u64,
    client_look_at: Option<Timestamp>,
    groups: Groups,
}

impl Entry {
    pub(super) fn new(session: &Session, user: Option<User>, limit: Arc<Limit>) -> Self {
        let rare = session.would_end.clone();
        let rare =
            rare.map(|end| Box::new(Rare { would_end: Some(Box::new(end)), ..Rare::default() }));
        Self {
            id: session.id,
            user,
            limit: ArcSwap::new(limit),
            renewed_at: AtomicI64::new(session.renewed_at.0),
            last_seen_at: AtomicI64::new(session.last_seen_at.0),
            change_seq: AtomicI64::new(session.change_seq),
            use_after_end_at: AtomicI64::new(NEVER),
            ending: session.end.clone().map(Box::new).map_or_else(OnceLock::new, OnceLock::from),
            rare: Mutex::new(rare),
            client_mark: AtomicU32::new(0),
            dirty: AtomicBool::new(false),
            app_logout_claimed: AtomicBool::new(false),
        }
    }

    /// The same session under another user: requests in flight keep the old entry, so both share
    /// the token that cuts them.
    pub(super) fn succeed(&self, session: &Session, user: Option<User>, limit: Arc<Limit>) -> Self {
        let entry = Self::new(session, user, limit);
        entry.last_seen_at.fetch_max(self.last_seen_at().0, Ordering::Relaxed);
        entry.rare.lock().get_or_insert_default().cut = Some(self.cut());
        entry
    }

    pub fn last_seen_at(&self) -> Timestamp {
        Timestamp(self.last_seen_at.load(Ordering::Relaxed))
    }

    pub fn renewed_at(&self) -> Timestamp {
        Timestamp(self.renewed_at.load(Ordering::Relaxed))
    }

    /// The state of the store that it shows.
    pub fn change_seq(&self) -> i64 {
        self.change_seq.load(Ordering::Relaxed)
    }

    /// How it ended; once set it stays.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.get().map(Box::as_ref)
    }

    /// In observe mode: how it would have ended.
    pub fn would_end(&self) -> Option<Ending> {
        self.rare.lock().as_ref()?.would_end.as_deref().cloned()
    }

    /// Neither ended nor, in observe mode, as good as ended.
    pub fn counts(&self) -> bool {
        self.ending().is_none()
            && self.rare.lock().as_ref().is_none_or(|rare| rare.would_end.is_none())
    }

    pub(super) fn set_limit(&self, limit: Arc<Limit>) {
        self.limit.store(limit);
    }

    /// Of the user, at the last login with it.
    pub fn groups(&self) -> Groups {
        self.rare.lock().as_ref().map(|rare| rare.groups.clone()).unwrap_or_default()
    }

    pub(super) fn set_groups(&self, groups: Groups) {
        let mut rare = self.rare.lock();
        if !groups.is_empty() || rare.is_some() {
            rare.get_or_insert_default().groups = groups;
        }
    }

    /// Why it is over although nobody ended it.
    pub fn expiry(&self, now: Timestamp) -> Option<EndReason> {
        policy::expiry(&self.limit.load(), self.renewed_at(), self.last_seen_at(), now)
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

    /// Whether a request with this mark is from the client that is known.
    pub fn has_mark(&self, mark: u32) -> bool {
        self.client_mark.load(Ordering::Relaxed) == mark
    }

    /// Whether a client of this kind is known; then this mark is its own from now on.
    pub fn knows_client(&self, mark: u32, kind: u32) -> bool {
        let known = self.rare.lock().as_ref().is_some_and(|rare| rare.client_kind == kind);
        if known {
            self.client_mark.store(mark, Ordering::Relaxed);
        }
        known
    }

    /// This is the session's client now.
    pub fn set_client(&self, mark: u32, kind: u32) {
        self.rare.lock().get_or_insert_default().client_kind = kind;
        self.client_mark.store(mark, Ordering::Relaxed);
    }

    /// `true` at most once a minute: for the request whose client is looked at.
    pub fn claim_client_look(&self, now: Timestamp) -> bool {
        let mut rare = self.rare.lock();
        let last = &mut rare.get_or_insert_default().client_look_at;
        let may = last.is_none_or(|last| now.since_ms(last) >= CLIENT_LOOK_MS);
        if may {
            *last = Some(now);
        }
        may
    }

    /// The look found nothing new: the next one need not wait.
    pub fn allow_client_look(&self) {
        self.rare.lock().get_or_insert_default().client_look_at = None;
    }

    /// Cancelled when the session ends; whoever streams for it watches this.
    pub fn cut(&self) -> CancellationToken {
        let mut rare = self.rare.lock();
        let cut = &mut rare.get_or_insert_default().cut;
        let token = cut.get_or_insert_with(CancellationToken::new).clone();
        drop(rare);
        // Either this sees the ending, or `end` sees the token: both take the lock first.
        if self.ending().is_some() {
            token.cancel();
        }
        token
    }

    /// Takes the token that cuts what is under way; what begins later gets another.
    pub(super) fn take_cut(&self) -> Option<CancellationToken> {
        self.rare.lock().as_mut()?.cut.take()
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
        (at != NEVER).then_some(Timestamp(at))
    }

    /// Ended, and nobody has come with its tokens of late.
    pub(super) fn rests(&self, now: Timestamp) -> bool {
        let still = |at: Timestamp| now.since_ms(at) >= REST_MS;
        self.ending().is_some_and(|ending| still(ending.at)) && self.told_of_end().is_none_or(still)
    }

    /// What has to be remembered of its past: whether it was logged out at the app, and whether a
    /// client was told of its end.
    pub(super) fn claimed(&self) -> (bool, bool) {
        (self.app_logout_claimed.load(Ordering::Acquire), self.told_of_end().is_some())
    }

    /// As [`Self::claimed`] of the same session was.
    pub(super) fn claim(&self, app_logout: bool, told_at: Option<Timestamp>) {
        self.app_logout_claimed.store(app_logout, Ordering::Release);
        self.use_after_end_at.store(told_at.map_or(NEVER, |at| at.0), Ordering::Relaxed);
    }

    /// Takes over a newer state of the same user; the ending is not part of it.
    pub(super) fn update(&self, session: &Session) {
        self.renewed_at.store(session.renewed_at.0, Ordering::Relaxed);
        self.last_seen_at.fetch_max(session.last_seen_at.0, Ordering::Relaxed);
        self.change_seq.store(session.change_seq, Ordering::Relaxed);
        let mut rare = self.rare.lock();
        if let Some(rare) = rare.as_mut().filter(|rare| rare.client_kind != 0) {
            let stored = BuildHasherDefault::<DefaultHasher>::new().hash_one(&session.client);
            if std::mem::replace(&mut rare.client_stored, stored) != stored {
                rare.client_kind = 0;
                self.client_mark.store(0, Ordering::Relaxed);
            }
        }
        if session.would_end.is_some() || rare.is_some() {
            rare.get_or_insert_default().would_end = session.would_end.clone().map(Box::new);
        }
    }

    /// Ends it for good. `None`: it had ended before; else the token to cancel, if anybody watches.
    pub(super) fn end(&self, ending: &Ending) -> Option<Option<CancellationToken>> {
        let mut rare = self.rare.lock();
        self.ending.set(Box::new(ending.clone())).ok()?;
        Some(rare.take().and_then(|rare| rare.cut))
    }
}
