//! The admin API's view of a running proxy. Translates calls; decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::admin::{About, AtLimit, Control, ControlError, MacKeys, Overview, UntrackedUse};
use crate::audit::{AuditEvent, AuditLog, EventKind, Trail};
use crate::explain::{self, Section};
use crate::geo::Place;
use crate::identity;
use crate::proxy::{Live, Proxy};
use crate::report::{self, Report};
use crate::session::{
    Ceiling, Groups, Initiator, Mode, Session, SessionId, Timestamp, User, UserLimit,
};
use crate::settings::OnFailure;
use crate::store::{Backup, Kept, Listing, StoreError};

use super::reload::Reloader;

pub(super) struct AdminControl {
    pub(super) live: Arc<Live>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) audit: Arc<AuditLog>,
    /// Counted at most once in [`COUNTED_FOR`].
    pub(super) counted: Mutex<Option<(Instant, Overview)>>,
}

/// Counting goes through all sessions.
const COUNTED_FOR: Duration = Duration::from_secs(2);
const AT_LIMIT_MAX: usize = 20;
/// Sessions read at once, and ended in one transaction.
const PAGE: u32 = 1000;
const ENDED_AT_ONCE: usize = 500;
/// A report looks through so many sessions.
const REPORTED_MAX: usize = 200_000;
const REPORT_MS: i64 = 30 * 86_400_000;

impl AdminControl {
    fn proxy(&self) -> Arc<Proxy> {
        self.live.now()
    }

    /// With the last-seen time that memory knows before the store does.
    fn fresh(&self, mut session: Session) -> Session {
        if let Some(seen) = self.proxy().registry.last_seen_at(session.id) {
            session.last_seen_at = session.last_seen_at.max(seen);
        }
        session
    }

    /// What an admin did that changes no session.
    fn done_by(&self, event: EventKind, by: &str) -> AuditEvent {
        let proxy = self.proxy();
        let mode = proxy.settings.switches.mode;
        let mut event = AuditEvent::new(event, proxy.clock.now(), Initiator::Admin, mode);
        event.by = Some(by.to_owned());
        event
    }

    fn enforcing(&self) -> Result<(), ControlError> {
        if self.proxy().recorder.enforces() { Ok(()) } else { Err(ControlError::ObserveMode) }
    }
}

#[async_trait]
impl Control for AdminControl {
    async fn list(&self, listing: Listing) -> Result<Vec<Session>, StoreError> {
        let sessions = self.proxy().recorder.store.list(listing).await?;
        Ok(sessions.into_iter().map(|session| self.fresh(session)).collect())
    }

    async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let session = self.proxy().recorder.store.find(id).await?;
        Ok(session.map(|session| self.fresh(session)))
    }

    async fn end(&self, ids: Vec<SessionId>, by: &str) -> Result<u32, ControlError> {
        self.enforcing()?;
        Ok(self.proxy().recorder.end(ids, by).await?)
    }

    async fn end_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        by: &str,
    ) -> Result<u32, ControlError> {
        self.enforcing()?;
        Ok(self.proxy().recorder.end_user(user, except, by).await?)
    }

    async fn end_all(&self, by: &str) -> Result<u32, ControlError> {
        self.enforcing()?;
        let mut ended = 0;
        let mut listing = Listing { live: Some(true), count_max: PAGE, ..Listing::default() };
        loop {
            let page = self.proxy().recorder.store.list(listing.clone()).await?;
            for some in page.chunks(ENDED_AT_ONCE) {
                let ids = some.iter().map(|session| session.id).collect();
                ended += self.proxy().recorder.end(ids, by).await?;
            }
            // Later logins have higher numbers: it comes to an end.
            listing.before_login_seq = page.last().map(|last| last.login_seq);
            if page.len() < PAGE as usize {
                return Ok(ended);
            }
        }
    }

    fn limit_of(&self, user: &str) -> Option<u32> {
        let proxy = self.proxy();
        let groups = groups_of(&proxy, user);
        proxy.recorder.limit_of(Some(user), &groups).max_sessions
    }

    fn limit_set(&self, user: &str) -> Option<UserLimit> {
        self.proxy().recorder.user_limits.of(user)
    }

    fn limits_set(&self) -> Vec<UserLimit> {
        self.proxy().recorder.user_limits.all()
    }

    async fn set_limit(&self, user: &str, ceiling: Ceiling, by: &str) -> Result<(), ControlError> {
        let proxy = self.proxy();
        if ceiling != Ceiling::Configured && !proxy.recorder.user_limits.has_room_for(user) {
            return Err(ControlError::TooManyLimits);
        }
        *self.counted.lock() = None;
        Ok(proxy.recorder.set_limit(user, ceiling, by).await?)
    }

    fn is_protected(&self, user: &str) -> bool {
        let proxy = self.proxy();
        let admin = proxy.settings.admin.as_ref();
        admin.is_some_and(|admin| admin.protected_users.iter().any(|glob| glob.matches(user)))
    }

    fn trail(&self) -> &Trail {
        &self.audit.trail
    }

    fn about(&self) -> About {
        let proxy = self.proxy();
        let settings = &proxy.settings;
        About {
            app: settings.app.clone(),
            node: settings.server.node.clone(),
            observing: settings.switches.mode == Mode::Observe,
            fingerprint: settings.fingerprint.clone(),
        }
    }

    async fn overview(&self) -> Overview {
        if let Some((at, overview)) = &*self.counted.lock()
            && at.elapsed() < COUNTED_FOR
        {
            return overview.clone();
        }
        let proxy = self.proxy();
        let counting = tokio::task::spawn_blocking(move || count(&proxy));
        // It fails only when it panics, which is told where panics are.
        let overview = counting.await.unwrap_or_default();
        *self.counted.lock() = Some((Instant::now(), overview.clone()));
        overview
    }

    async fn users_like(&self, part: &str, count_max: usize) -> Vec<(Arc<str>, u32)> {
        let (proxy, part) = (self.proxy(), part.to_owned());
        let looking = tokio::task::spawn_blocking(move || {
            let crowd = proxy.registry.crowd().into_iter();
            let named = crowd.filter(|(user, _)| user.contains(&*part));
            let mut found: Vec<_> = named.map(|(user, crowd)| (user, crowd.sessions)).collect();
            found.sort();
            found.truncate(count_max);
            found
        });
        looking.await.unwrap_or_default()
    }

    async fn report(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Report, StoreError> {
        let until = until.unwrap_or_else(|| self.now());
        let since = since.unwrap_or_else(|| until.plus_ms(-REPORT_MS));
        let mut sessions = Vec::new();
        let mut listing = Listing { count_max: PAGE, ..Listing::default() };
        let truncated = loop {
            let page = self.list(listing.clone()).await?;
            let last_page = page.len() < PAGE as usize;
            listing.before_login_seq = page.last().map(|last| last.login_seq);
            sessions.extend(page);
            if last_page || sessions.len() >= REPORTED_MAX {
                break !last_page;
            }
        };
        let counting = move || report::report(&sessions, since, until, truncated);
        tokio::task::spawn_blocking(counting).await.map_err(|_| StoreError::Stopped)
    }

    fn explained(&self) -> Vec<Section> {
        explain::sections(&self.proxy().settings)
    }

    fn written(&self) -> Arc<str> {
        Arc::clone(&self.proxy().settings.written)
    }

    fn now(&self) -> Timestamp {
        self.proxy().clock.now()
    }

    fn place_of(&self, address: &str) -> Option<Place> {
        self.audit.places.of(address)
    }

    fn normalize(&self, user: &str) -> String {
        let proxy = self.proxy();
        let settings = &proxy.settings;
        identity::canonical(&settings.normalize, &settings.aliases, user)
    }

    fn expires_at(&self, session: &Session) -> Option<Timestamp> {
        let proxy = self.proxy();
        let limit = proxy.settings.limits.of(session.user.as_deref(), &session.groups);
        limit.expires_at(session.renewed_at, session.last_seen_at)
    }

    async fn reload(&self, by: &str) -> Result<String, String> {
        let reloaded = self.reloader.reload().await.map_err(|error| error.to_string())?;
        self.audit.publish(self.done_by(EventKind::ConfigReloaded, by));
        Ok(reloaded)
    }

    async fn mac_keys(&self) -> MacKeys {
        let proxy = self.proxy();
        let keyring = Arc::clone(&proxy.keyring);
        let since = keyring.since();
        let counting = tokio::task::spawn_blocking(move || proxy.registry.unseen_since(since));
        MacKeys {
            used: keyring.fingerprint(),
            accepted: keyring.other().map(|other| other.fingerprint()),
            promoted: keyring.is_promoted(),
            since,
            unseen: counting.await.unwrap_or_default(),
        }
    }

    async fn export_user(&self, user: &str, by: &str) -> Result<Vec<Kept>, StoreError> {
        let (proxy, user) = (self.proxy(), User::from(user));
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let page = proxy.recorder.store.kept_of(&user, after).await?;
            let Some(last) = page.last() else { break };
            after = last.session.login_seq;
            all.extend(
                page.into_iter().map(|kept| Kept { session: self.fresh(kept.session), ..kept }),
            );
        }
        self.audit.publish(self.done_by(EventKind::UserExported, by).user(Some(&user)));
        Ok(all)
    }

    async fn erase_user(&self, user: &str, by: &str) -> Result<(u32, u64), StoreError> {
        let erased = self.proxy().recorder.erase_user(user, by).await?;
        *self.counted.lock() = None;
        let mut event = self.done_by(EventKind::UserErased, by).user(Some(&user.into()));
        event.count = u32::try_from(erased.1).ok();
        self.audit.publish(event);
        Ok(erased)
    }

    async fn backup(&self, by: &str) -> Result<Backup, StoreError> {
        let backup = self.proxy().recorder.store.backup().await?;
        self.audit.publish(self.done_by(EventKind::BackupTaken, by));
        Ok(backup)
    }

    fn gets_on(&self) -> bool {
        self.reloader.edge.gets_on()
    }

    async fn ready(&self) -> Result<Option<String>, String> {
        let proxy = self.proxy();
        if proxy.lifecycle.is_stopping() {
            return Err("draining".to_owned());
        }
        let store = &proxy.recorder.store;
        let why = if store.is_stale() {
            "the store was not heard for longer than store.grace".to_owned()
        } else if let Err(error) = store.ping().await {
            error.to_string()
        } else {
            return Ok(None);
        };
        match proxy.settings.store.on_failure {
            OnFailure::Closed => Err(why),
            // It goes on: taken out of service it would be as good as closed.
            OnFailure::Open => Ok(Some(format!("{why}; on_failure is open: no limit is held"))),
        }
    }

    fn untracked(&self) -> Vec<UntrackedUse> {
        let seen = self.proxy().registry.untracked().into_iter();
        seen.map(|seen| UntrackedUse {
            first_seen_at: seen.first_seen,
            last_seen_at: seen.last_seen,
            client: seen.client,
        })
        .collect()
    }
}

/// Looked for among all sessions, so only where it matters.
fn groups_of(proxy: &Proxy, user: &str) -> Groups {
    let matter = !proxy.settings.limits.groups.is_empty();
    if matter { proxy.registry.groups_of(user) } else { Groups::default() }
}

fn count(proxy: &Proxy) -> Overview {
    let crowd = proxy.registry.crowd();
    let users = crowd.len();
    let mut at_limit: Vec<AtLimit> = crowd
        .into_iter()
        .filter_map(|(user, crowd)| {
            let limit = proxy.recorder.limit_of(Some(&user), &crowd.groups).max_sessions?;
            let sessions = crowd.sessions;
            (sessions >= limit).then_some(AtLimit { user, sessions, limit })
        })
        .collect();
    let users_at_limit = at_limit.len();
    at_limit.sort_by(|one, other| (other.sessions, &one.user).cmp(&(one.sessions, &other.user)));
    at_limit.truncate(AT_LIMIT_MAX);
    Overview { sessions: proxy.registry.counts().live, users, users_at_limit, at_limit }
}
