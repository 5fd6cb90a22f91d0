//! The naive model: a list of sessions, and the rules on it written down as plainly as they read.

use headcount::policy::{EvictOrder, Limit, OnLimit};
use headcount::session::{SessionId, Timestamp};

/// A session, as the model sees it.
pub(super) struct Naive {
    pub(super) id: SessionId,
    pub(super) user: &'static str,
    pub(super) renewed: Timestamp,
    pub(super) seen: Timestamp,
    /// Which login it was, counted over all.
    pub(super) login: u64,
    pub(super) ended: bool,
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
        limit: &Limit,
        user: &'static str,
        fresh: SessionId,
        previous: Option<SessionId>,
        now: Timestamp,
    ) -> Option<SessionId> {
        self.logins += 1;
        let login = self.logins;
        // Those of this user that have timed out do not count; the browser's own is settled below.
        let timed_out = self
            .sessions
            .iter_mut()
            .filter(|one| one.user == user && Some(one.id) != previous && over(limit, one, now));
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
            if limit.on_limit == OnLimit::Deny {
                assert!(renews.is_none(), "never more than the limit");
                return None;
            }
            match limit.evict_order {
                EvictOrder::LeastRecentlyUsed => others.sort_unstable(),
                EvictOrder::OldestLogin => others.sort_unstable_by_key(|(_, login, _)| *login),
                EvictOrder::AllOthers => {}
            }
            let all = limit.evict_order == EvictOrder::AllOthers;
            let excess = if all { others.len() } else { others.len() + 1 - max };
            others.iter().take(excess).for_each(|(_, _, id)| self.end(*id));
        }
        if let Some(session) = renews.and_then(|id| self.find(id)) {
            (session.renewed, session.login) = (session.renewed.max(now), login);
            session.seen = session.seen.max(now);
            return renews;
        }
        let session = Naive { id: fresh, user, renewed: now, seen: now, login, ended: false };
        self.sessions.push(session);
        Some(fresh)
    }
}

/// Whether it has timed out.
pub(super) fn over(limit: &Limit, session: &Naive, now: Timestamp) -> bool {
    limit.idle_timeout_ms.is_some_and(|ms| now.0 - session.seen.0 >= ms)
        || limit.absolute_timeout_ms.is_some_and(|ms| now.0 - session.renewed.0 >= ms)
}
