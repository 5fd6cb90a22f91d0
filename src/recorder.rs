//! Step 7: every change of a session goes through here, as one decision in one store transaction.
//! The store commits first; the registry and the audit trail follow through the feed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::{self, AuditEvent, AuditLog, EventKind};
use crate::client_change;
use crate::clock::Clock;
use crate::decide::{self, How, Login, Rotation};
use crate::evictions::Evictions;
use crate::metrics::Metrics;
use crate::policy::{Limit, Limits, Switches};
use crate::registry::{Entry, Registry};
use crate::session::{
    Ceiling, Client, EndReason, Groups, Mode, SessionId, Timestamp, User, UserLimit,
};
use crate::settings::{ClientChange, OnFailure, SessionSettings};
use crate::store::{Committed, Decide, Decision, Feed, Scope, Store, StoreError};
use crate::user_limits::UserLimits;

/// Timed-out sessions ended in one transaction.
const EXPIRED_PER_SWEEP: usize = 500;

/// What the store tells of every commit, in order.
pub struct RegistryFeed {
    pub registry: Arc<Registry>,
    pub audit: Arc<AuditLog>,
    pub evictions: Arc<Evictions>,
    pub user_limits: Arc<UserLimits>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
}

impl Feed for RegistryFeed {
    fn committed(&self, change: Committed) {
        self.forget_erased(&change);
        self.registry.apply(&change);
        self.user_limits.put(&change.limits);
        for event in change.events {
            if let (EventKind::SessionEnded, Some(EndReason::Limit), Some(user)) =
                (event.event, event.reason, &event.user)
            {
                self.evictions.note(&user.as_str().into(), event.time);
            }
            self.audit.publish(event);
        }
    }

    fn replicated(&self, change: Committed, ages: &[Duration]) {
        for (session, age) in change.sessions.iter().zip(ages) {
            let known = self.registry.by_id(session.id);
            if session.end.is_some() && known.is_some_and(|entry| entry.ending().is_none()) {
                self.metrics.revocation_delay_seconds.observe(age.as_secs_f64());
            }
        }
        self.forget_erased(&change);
        self.registry.apply(&change);
        self.user_limits.put(&change.limits);
    }

    fn store_time(&self, now: Timestamp) {
        self.clock.follow(now);
    }

    fn last_seen_at(&self, session: SessionId) -> Option<Timestamp> {
        self.registry.last_seen_at(session)
    }
}

impl RegistryFeed {
    /// A user has been erased, here or at another replica: ended sessions come without a name.
    fn forget_erased(&self, change: &Committed) {
        let nobodys = change.sessions.iter().filter(|one| one.user.is_none() && one.end.is_some());
        let (mut users, mut at_rest) = (HashSet::new(), HashSet::new());
        for session in nobodys {
            match self.registry.by_id(session.id) {
                Some(entry) => users.extend(entry.user.clone()),
                None => _ = at_rest.insert(session.id),
            }
        }
        if !at_rest.is_empty() {
            users.extend(self.registry.forget_names(&at_rest));
        }
        for user in users {
            self.evictions.forget(&user);
            self.audit.trail.forget(&audit::user_in_events(&user));
        }
    }
}

/// Which of their own sessions a user ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    One(SessionId),
    /// All but the one in which it is done.
    Others,
}

/// Records what happened to sessions.
#[derive(Clone)]
pub struct Recorder {
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
    pub audit: Arc<AuditLog>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub limits: Limits,
    pub switches: Switches,
    pub session: SessionSettings,
    pub evictions: Arc<Evictions>,
    pub user_limits: Arc<UserLimits>,
    pub on_failure: OnFailure,
}

impl Recorder {
    /// Decides over a login that the app has accepted.
    pub async fn login(&self, login: Login) -> Result<Decision, StoreError> {
        let scope = Scope { user: login.user.clone(), ids: login.previous.into_iter().collect() };
        let (limits, switches) = (self.limits_for(&login), self.switches);
        self.transact(scope, Box::new(move |live| decide::login(&limits, switches, &login, live)))
            .await
    }

    /// What applies to a login: as configured, unless the user's sessions were evicted too often of
    /// late. Then those that are there stay, or the war would never end.
    fn limits_for(&self, login: &Login) -> Limits {
        let set = login.user.as_deref().and_then(|user| self.user_limits.max_of(user));
        let limit = self.limit_of(login.user.as_deref(), &login.groups);
        if let (Some(max), Some(user)) = (limit.evictions_max, &login.user)
            && self.evictions.recent(user, limit.evictions_window_ms, login.now) >= max as usize
        {
            self.metrics.evictions_refused.inc();
            return Limits::only(Arc::new(limit.without_eviction()));
        }
        match set {
            None => self.limits.clone(),
            Some(_) => Limits::only(limit),
        }
    }

    /// What a user in these groups may have: as configured, but for a number set by an admin.
    pub fn limit_of(&self, user: Option<&str>, groups: &Groups) -> Arc<Limit> {
        let limit = self.limits.of(user, groups);
        match user.and_then(|user| self.user_limits.max_of(user)) {
            None => limit,
            Some(max) => Arc::new(limit.with_max(max)),
        }
    }

    /// Kills what a login that nobody received has left behind.
    pub async fn abandon(&self, login: Login) -> Result<Decision, StoreError> {
        self.transact(Scope::default(), Box::new(move |_| decide::abandon(&login))).await
    }

    /// The user logged out with this session.
    pub async fn logout(&self, entry: &Entry) -> Result<Decision, StoreError> {
        let all = self.switches.logout_all;
        let user = entry.user.clone().filter(|_| all);
        let scope = Scope { user, ids: vec![entry.id] };
        let how = How::user(EndReason::Logout, self.clock.now());
        self.end_where(scope, how, Some(entry.id), |_| true).await
    }

    /// The app itself dropped this session.
    pub async fn dropped_by_app(&self, id: SessionId) -> Result<Decision, StoreError> {
        let scope = Scope { user: None, ids: vec![id] };
        self.end_where(scope, How::system(EndReason::App, self.clock.now()), None, |_| true).await
    }

    /// The user changed the password in this session.
    pub async fn password_change(
        &self,
        entry: &Entry,
        rotation: Rotation,
    ) -> Result<Decision, StoreError> {
        let scope = Scope { user: entry.user.clone(), ids: vec![entry.id] };
        let (switches, id) = (self.switches, entry.id);
        self.transact(
            scope,
            Box::new(move |live| decide::password_change(switches, id, &rotation, live)),
        )
        .await
    }

    /// The app gave this session new tokens.
    pub async fn rotate(&self, id: SessionId, rotation: Rotation) -> Result<Decision, StoreError> {
        let scope = Scope { user: None, ids: vec![id] };
        self.transact(scope, Box::new(move |live| decide::rotate(id, &rotation, live))).await
    }

    /// A request of this session came from a client that may be another one than before.
    pub async fn client_seen(
        &self,
        id: SessionId,
        client: Client,
        rule: ClientChange,
    ) -> Result<Decision, StoreError> {
        let (switches, now, audit) = (self.switches, self.clock.now(), Arc::clone(&self.audit));
        let scope = Scope { user: None, ids: vec![id] };
        let decide: Decide = Box::new(move |live| {
            let same = |old: &Client| client_change::same(rule, &audit.places, old, &client);
            decide::client_seen(switches, id, &client, rule.ends, now, live, same)
        });
        self.transact(scope, decide).await
    }

    /// Ends sessions through the admin API; tells how many were live.
    pub async fn end(&self, ids: Vec<SessionId>, by: &str) -> Result<u32, StoreError> {
        let how = How::admin(by, self.clock.now());
        let scope = Scope { user: None, ids };
        self.end_where(scope, how, None, |_| true).await.map(|decision| count(&decision))
    }

    /// Ends a user's sessions through the admin API, all but `except`.
    pub async fn end_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        by: &str,
    ) -> Result<u32, StoreError> {
        let how = How::admin(by, self.clock.now());
        let scope = Scope { user: Some(user.into()), ids: Vec::new() };
        self.end_where(scope, how, None, move |id| Some(id) != except)
            .await
            .map(|decision| count(&decision))
    }

    /// Ends sessions of a user who asks for it in session `by`; tells how many were live. `None`: that
    /// one is over itself.
    pub async fn end_own(
        &self,
        user: &User,
        by: SessionId,
        which: Which,
    ) -> Result<Option<u32>, StoreError> {
        let scope = Scope { user: Some(user.clone()), ids: vec![by] };
        let (switches, user, now) = (self.switches, user.clone(), self.clock.now());
        let pick = move |id| match which {
            Which::One(one) => id == one,
            Which::Others => id != by,
        };
        let decide: Decide =
            Box::new(move |live| decide::end_own(switches, &user, by, now, live, pick));
        Ok(match self.transact(scope, decide).await? {
            Decision::Ended { count } => Some(count),
            Decision::Done
            | Decision::Admitted { .. }
            | Decision::Renewed { .. }
            | Decision::Denied { .. } => None,
        })
    }

    /// Sets how many sessions a user may have, or takes that back; holds from the next login on.
    pub async fn set_limit(
        &self,
        user: &str,
        ceiling: Ceiling,
        by: &str,
    ) -> Result<(), StoreError> {
        let user = User::from(user);
        let (now, limits) = (self.clock.now(), self.limits.clone());
        let set_by = by.to_owned();
        let limit = UserLimit { user: user.clone(), ceiling, set_at: now, set_by };
        let scope = Scope { user: Some(user), ids: Vec::new() };
        let decide: Decide = Box::new(move |live| decide::set_limit(&limit, &limits, live));
        self.transact(scope, decide).await.map(drop)
    }

    /// Forgets a user: ends the live sessions, then takes name and client off everything that is
    /// kept. Tells how many sessions were live, and how many were forgotten.
    pub async fn erase_user(&self, user: &str, by: &str) -> Result<(u32, u64), StoreError> {
        let (user, how) = (User::from(user), How::admin(by, self.clock.now()));
        let taken_back = self.user_limits.of(&user).map(|set| UserLimit {
            ceiling: Ceiling::Configured,
            set_at: how.now.max(set.set_at),
            set_by: by.to_owned(),
            ..set
        });
        let scope = Scope { user: Some(user.clone()), ids: Vec::new() };
        let decide: Decide = Box::new(move |live| decide::erase(&how, taken_back.as_ref(), live));
        let ended = count(&self.transact(scope, decide).await?);
        let mut erased = 0;
        loop {
            match self.store.erase(&user).await? {
                0 => break,
                some => erased += some,
            }
        }
        self.evictions.forget(&user);
        self.audit.trail.forget(&audit::user_in_events(&user));
        Ok((ended, erased))
    }

    async fn end_where(
        &self,
        scope: Scope,
        how: How,
        by_session: Option<SessionId>,
        pick: impl Fn(SessionId) -> bool + Send + Sync + 'static,
    ) -> Result<Decision, StoreError> {
        let switches = self.switches;
        self.transact(
            scope,
            Box::new(move |live| {
                decide::end(switches, &how, by_session, live, |session| pick(session.id))
            }),
        )
        .await
    }

    /// Records the end of sessions that have timed out; true if there may be more.
    pub async fn sweep(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let expired = self.registry.expired(now, EXPIRED_PER_SWEEP);
        let ids: Vec<SessionId> = expired.into_iter().map(|(id, _)| id).collect();
        let more = ids.len() == EXPIRED_PER_SWEEP;
        if !ids.is_empty() {
            self.expire(ids).await?;
        }
        Ok(more)
    }

    /// Records the end of these sessions, if they have timed out.
    pub async fn expire(&self, ids: Vec<SessionId>) -> Result<(), StoreError> {
        let (limits, switches, now) = (self.limits.clone(), self.switches, self.clock.now());
        let scope = Scope { user: None, ids };
        self.transact(scope, Box::new(move |live| decide::expire(&limits, switches, now, live)))
            .await
            .map(drop)
    }

    /// Enforcing begins: what observing only noted is not held against anybody.
    pub async fn forget_observed(&self, ids: &[SessionId]) -> Result<(), StoreError> {
        for some in ids.chunks(EXPIRED_PER_SWEEP) {
            let scope = Scope { user: None, ids: some.to_vec() };
            self.transact(scope, Box::new(decide::forget_observed)).await?;
        }
        Ok(())
    }

    /// Writes last-seen times and late keys.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (seen, keys) = self.registry.take_dirty();
        if seen.is_empty() && keys.is_empty() {
            return Ok(());
        }
        let touched = self.store.touch(seen.clone(), keys.clone()).await;
        if touched.is_err() {
            self.registry.return_dirty(&seen, keys);
        }
        touched
    }

    /// Drops what is kept no longer.
    pub async fn prune(&self) -> Result<(), StoreError> {
        let gone = self.store.prune(self.clock.now(), self.session.retention).await?;
        self.registry.forget(&gone);
        Ok(())
    }

    /// Publishes an event that changes no session.
    pub fn note(&self, event: AuditEvent) {
        self.audit.publish(event);
    }

    /// Whether too much may have happened elsewhere to judge by what is known here.
    pub fn is_stale(&self) -> bool {
        self.enforces() && self.on_failure == OnFailure::Closed && self.store.is_stale()
    }

    /// Whether decisions take effect.
    pub fn enforces(&self) -> bool {
        self.switches.mode == Mode::Enforce
    }

    async fn transact(&self, scope: Scope, decide: Decide) -> Result<Decision, StoreError> {
        let started = Instant::now();
        let decision = self.store.transact(scope, decide).await;
        self.metrics.store_transaction_seconds.observe(started.elapsed().as_secs_f64());
        decision
    }
}

fn count(decision: &Decision) -> u32 {
    match decision {
        Decision::Ended { count } => *count,
        Decision::Done
        | Decision::Admitted { .. }
        | Decision::Renewed { .. }
        | Decision::Denied { .. } => 0,
    }
}
