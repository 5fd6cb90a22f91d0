//! The naive model: a list of sessions, and the rules on it written down as plainly as they read.

use headcount::policy::{EvictOrder, Limit, Limits, OnLimit};
use headcount::session::{SessionId, Timestamp};

/// A session, as the model sees it.
pub(super) struct Naive {
    pub(super) id: SessionId,
    pub(super) user: &'static str,
    pub(super) groups: Vec<&'static str>,
    pub(super) renewed: Timestamp,
    pub(super) seen: Timestamp,
    /// Which login it was, counted over all.
    pub(super) login: u64,
    pub(super) ended: bool,
}

/// The groups there are: how many sessions they allow, and after how long they are idle.
pub(super) const GROUPS: [(&str, Option<u32>, i64); 3] =
    [("staff", Some(3), 60_000), ("temps", Some(1), 30_000), ("night", None, 90_000)];

/// Whose name has a limit has that one; who is in groups the fewest sessions and the shortest time of
/// any of them; everybody else the default.
pub(super) fn limit_of(limits: &Limits, user: &str, groups: &[&str]) -> Limit {
    if user == "ops" {
        return (*limits.overrides[0].1).clone();
    }
    let own: Vec<_> = GROUPS.iter().filter(|(name, ..)| groups.contains(name)).collect();
    let mut limit = (*limits.default).clone();
    if !own.is_empty() {
        limit.max_sessions = own.iter().filter_map(|(_, max, _)| *max).min();
        limit.idle_timeout_ms = own.iter().map(|(.., idle)| *idle).min();
    }
    limit
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) sessions: Vec<Naive>,
    pub(super) logins: u64,
}

impl Model {
    pub(super) fn find(&mut self, id: SessionId) -> Option<&mut Naive> {
        self.sessions.iter_mut().find(|session| session.id == id && !session.ended)
    }

    pub(super) fn end(&mut self, id: SessionId) {
        self.find(id).into_iter().for_each(|session| session.ended = true);
    }

    pub(super) fn live_of(&self, user: &str) -> Vec<&Naive> {
        self.sessions.iter().filter(|one| one.user == user && !one.ended).collect()
    }

    /// What the rules say of this login; whether it is in, and as which session.
    pub(super) fn login(
        &mut self,
        limits: &Limits,
        (user, groups): (&'static str, &[&'static str]),
        fresh: SessionId,
        previous: Option<SessionId>,
        now: Timestamp,
    ) -> Option<SessionId> {
        self.logins += 1;
        let login = self.logins;
        let limit = &limit_of(limits, user, groups);
        // Those of this user that have timed out do not count; the browser's own is settled below.
        let timed_out = self
            .sessions
            .iter_mut()
            .filter(|one| one.user == user && Some(one.id) != previous && over(limits, one, now));
        timed_out.for_each(|session| session.ended = true);
        let own = previous.and_then(|id| self.find(id)).map(|own| (own.id, own.user));
        let renews = own.filter(|(_, owner)| *owner == user).map(|(id, _)| id);
        if let (Some((id, _)), None) = (own, renews) {
            self.end(id);
        }
        let mut others: Vec<(Timestamp, u64, SessionId)> = self
            .live_of(user)
            .iter()
            .filter(|one| Some(one.id) != renews)
            .map(|one| (one.seen, one.login, one.id))
            .collect();
        let max = limit.max_sessions.map_or(usize::MAX, |max| max as usize);
        if others.len() >= max {
            if limit.on_limit == OnLimit::Deny && renews.is_none() {
                return None;
            }
            match limit.evict_order {
                EvictOrder::LeastRecentlyUsed => others.sort_unstable(),
                EvictOrder::OldestLogin => others.sort_unstable_by_key(|(_, login, _)| *login),
                EvictOrder::AllOthers => {}
            }
            let all = limit.evict_order == EvictOrder::AllOthers;
            let excess = if all { others.len() } else { others.len() + 1 - max };
            // The browser's own session stays, and where nobody is evicted the others do, too.
            let excess = if limit.on_limit == OnLimit::Deny { 0 } else { excess };
            others.iter().take(excess).for_each(|(_, _, id)| self.end(*id));
        }
        if let Some(session) = renews.and_then(|id| self.find(id)) {
            (session.renewed, session.login) = (session.renewed.max(now), login);
            session.seen = session.seen.max(now);
            session.groups = groups.to_vec();
            return renews;
        }
        let (ended, groups) = (false, groups.to_vec());
        let session = Naive { id: fresh, user, groups, renewed: now, seen: now, login, ended };
        self.sessions.push(session);
        Some(fresh)
    }
}

/// Whether it has timed out.
pub(super) fn over(limits: &Limits, session: &Naive, now: Timestamp) -> bool {
    let limit = limit_of(limits, session.user, &session.groups);
    limit.idle_timeout_ms.is_some_and(|ms| now.0 - session.seen.0 >= ms)
        || limit.absolute_timeout_ms.is_some_and(|ms| now.0 - session.renewed.0 >= ms)
}
