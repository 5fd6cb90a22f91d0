//! The decisions, as pure functions of values: is this session still good, who stays at a login.
//! No I/O, no clock, no knowledge of HTTP.

mod groups;

use std::sync::Arc;

pub use self::groups::GroupLimits;
use crate::rules::matcher::Glob;
use crate::session::{EndReason, Groups, Mode, Session, SessionId, Timestamp};

/// What a user may have. `None` in a timeout means none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `None`: unlimited. At least 1.
    pub max_sessions: Option<u32>,
    pub on_limit: OnLimit,
    pub evict_order: EvictOrder,
    /// Evict only sessions idle at least so long, else do `otherwise`.
    pub evict_if_idle_for_ms: Option<i64>,
    pub otherwise: OnLimit,
    /// After so many evictions within the window newcomers are denied; `None`: never.
    pub evictions_max: Option<u32>,
    pub evictions_window_ms: i64,
    pub idle_timeout_ms: Option<i64>,
    pub absolute_timeout_ms: Option<i64>,
}

/// What happens to a login over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLimit {
    Evict,
    Deny,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictOrder {
    LeastRecentlyUsed,
    OldestLogin,
    AllOthers,
}

/// The default limit and what applies to some users instead.
#[derive(Clone, Debug)]
pub struct Limits {
    pub default: Arc<Limit>,
    /// The first whose patterns match the user's canonical name wins.
    pub overrides: Vec<(Vec<Glob>, Arc<Limit>)>,
    /// For those whom no override names.
    pub groups: Arc<GroupLimits>,
}

impl Limits {
    /// The same for everybody.
    pub fn only(default: Arc<Limit>) -> Self {
        Self { default, overrides: Vec::new(), groups: Arc::default() }
    }

    /// The limit of `user`, who is in `groups`; a session without a user gets the default.
    pub fn of(&self, user: Option<&str>, groups: &Groups) -> Arc<Limit> {
        let Some(user) = user else { return Arc::clone(&self.default) };
        let names = |(users, _): &&(Vec<Glob>, _)| users.iter().any(|one| one.matches(user));
        match self.overrides.iter().find(names) {
            Some((_, limit)) => Arc::clone(limit),
            None => self.groups.of(groups).unwrap_or_else(|| Arc::clone(&self.default)),
        }
    }
}

impl Limit {
    /// The same with another number of sessions.
    #[must_use]
    pub fn with_max(&self, max_sessions: Option<u32>) -> Self {
        Self { max_sessions, ..self.clone() }
    }

    /// When a session that began and was last used then will be over if nobody uses it.
    pub fn expires_at(&self, renewed_at: Timestamp, last_seen_at: Timestamp) -> Option<Timestamp> {
        let idle = self.idle_timeout_ms.map(|ms| last_seen_at.plus_ms(ms));
        let absolute = self.absolute_timeout_ms.map(|ms| renewed_at.plus_ms(ms));
        idle.into_iter().chain(absolute).min()
    }

    /// The limit while the user's sessions have been evicted too often of late.
    #[must_use]
    pub fn without_eviction(&self) -> Self {
        Self { on_limit: OnLimit::Deny, ..self.clone() }
    }
}

/// Why a session that nobody ended is over all the same.
pub fn expiry(
    limit: &Limit,
    renewed_at: Timestamp,
    last_seen_at: Timestamp,
    now: Timestamp,
) -> Option<EndReason> {
    let over = |since: Timestamp, timeout_ms: Option<i64>| {
        timeout_ms.is_some_and(|timeout_ms| now.since_ms(since) >= timeout_ms)
    };
    if over(renewed_at, limit.absolute_timeout_ms) {
        Some(EndReason::AbsoluteTimeout)
    } else if over(last_seen_at, limit.idle_timeout_ms) {
        Some(EndReason::IdleTimeout)
    } else {
        None
    }
}

/// What a login over the limit leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The newcomer is in, these go.
    Admit { evict: Vec<SessionId> },
    /// The newcomer stays out; `count` sessions are live.
    Deny { count: u32 },
}

/// Decides over one login. `others` are the user's other live, unexpired sessions; the newcomer is
/// not among them, nor is the session its browser had before.
pub fn admit(limit: &Limit, others: &[&Session], now: Timestamp) -> Admission {
    let Some(max) = limit.max_sessions else {
        return Admission::Admit { evict: Vec::new() };
    };
    let room = (max.max(1) - 1) as usize;
    if others.len() <= room {
        return Admission::Admit { evict: Vec::new() };
    }
    if limit.on_limit == OnLimit::Deny {
        return deny(others);
    }
    let excess = match limit.evict_order {
        EvictOrder::AllOthers => others.len(),
        EvictOrder::LeastRecentlyUsed | EvictOrder::OldestLogin => others.len() - room,
    };
    let mut victims: Vec<&Session> = others.to_vec();
    victims.sort_by_key(|session| {
        let first = match limit.evict_order {
            EvictOrder::LeastRecentlyUsed => session.last_seen_at.0,
            EvictOrder::OldestLogin | EvictOrder::AllOthers => 0,
        };
        (first, session.login_seq)
    });
    victims.truncate(excess);
    let busy = |session: &&Session| {
        limit
            .evict_if_idle_for_ms
            .is_some_and(|idle_ms| now.since_ms(session.last_seen_at) < idle_ms)
    };
    if limit.otherwise == OnLimit::Deny && victims.iter().any(busy) {
        return deny(others);
    }
    Admission::Admit { evict: victims.iter().map(|session| session.id).collect() }
}

fn deny(others: &[&Session]) -> Admission {
    Admission::Deny { count: u32::try_from(others.len()).unwrap_or(u32::MAX) }
}

/// The policy that a decision needs beside the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    pub mode: Mode,
    /// Logging out anywhere ends all of the user's sessions.
    pub logout_all: bool,
    pub password_change: OnPasswordChange,
}

/// What a password change does to the user's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPasswordChange {
    EndOthers,
    EndAll,
    Keep,
}

/// What the credentials of a request amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// No session: nobody logged in with what was presented, as far as we know.
    #[default]
    Anonymous,
    /// A live session.
    Live,
    /// A session that its user left in this very browser, or one that ended longer ago than anyone
    /// remembers: nobody needs to be told.
    Left,
    /// A session that was ended.
    Over(EndReason),
    /// Several sessions at once, or a dead and a live one.
    Ambiguous,
}

/// What kind of request it is, as far as the verdict depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// A page load, not a fetch or an image.
    pub navigation: bool,
    /// GET, HEAD or OPTIONS.
    pub safe: bool,
    /// The login page, its form, or an exempt path: reachable for everybody.
    pub open: bool,
}

/// Proof that a request was judged; there is no way to the app without one.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    /// For requests of our own: logging a session out at the app.
    pub(crate) fn own() -> Self {
        Self(())
    }
}

/// Which of the credentials presented go on to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// Those the standing entitles to.
    Entitled,
    /// None.
    Nothing,
    /// All, as presented: observing changes nothing.
    Everything,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Verdict {
    Forward(Permit, Carry),
    /// The session has ended: tell the client.
    Ended,
    /// The credentials contradict each other.
    Ambiguous,
}

/// The verdict on one request.
pub fn verdict(mode: Mode, standing: Standing, kind: Kind, ended_is_anonymous: bool) -> Verdict {
    let forward = |carry| Verdict::Forward(Permit(()), carry);
    if mode == Mode::Observe {
        return forward(Carry::Everything);
    }
    match standing {
        Standing::Anonymous | Standing::Live => forward(Carry::Entitled),
        Standing::Ambiguous => Verdict::Ambiguous,
        Standing::Left => forward(Carry::Nothing),
        Standing::Over(_) if kind.open => forward(Carry::Nothing),
        Standing::Over(_) if ended_is_anonymous && kind.navigation && kind.safe => {
            forward(Carry::Nothing)
        }
        Standing::Over(_) => Verdict::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_on_every_standing() {
        use Standing::{Ambiguous, Anonymous, Left, Live, Over};
        let page = Kind { navigation: true, safe: true, open: false };
        let fetch = Kind { navigation: false, ..page };
        let post = Kind { safe: false, ..page };
        let open = Kind { open: true, ..post };
        let evicted = Over(EndReason::Limit);
        let table = [
            (Anonymous, page, false, "entitled"),
            (Live, fetch, false, "entitled"),
            (Ambiguous, page, false, "ambiguous"),
            (evicted, page, false, "ended"),
            (evicted, fetch, true, "ended"),
            (evicted, post, true, "ended"),
            (evicted, page, true, "nothing"),
            (evicted, open, false, "nothing"),
            (Left, post, false, "nothing"),
            (Left, fetch, false, "nothing"),
            (Over(EndReason::Admin), page, false, "ended"),
        ];
        let name = |verdict| match verdict {
            Verdict::Forward(_, Carry::Entitled) => "entitled",
            Verdict::Forward(_, Carry::Nothing) => "nothing",
            Verdict::Forward(_, Carry::Everything) => "everything",
            Verdict::Ended => "ended",
            Verdict::Ambiguous => "ambiguous",
        };
        for (standing, kind, anonymous, expected) in table {
            let found = name(verdict(Mode::Enforce, standing, kind, anonymous));
            assert_eq!(found, expected, "{standing:?} {kind:?}");
            let observed = name(verdict(Mode::Observe, standing, kind, anonymous));
            assert_eq!(observed, "everything");
        }
    }
}
