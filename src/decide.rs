//! What a login, logout, password change or time-out does to the sessions concerned, as a `Plan`
//! for one transaction. Pure functions of the live sessions, the limits and the time.

use crate::audit::{AuditEvent, EventKind};
use crate::policy::{self, Admission, Limit, Limits, OnPasswordChange, Switches};
use crate::session::{
    Ceiling, Client, EndReason, Ending, Groups, Initiator, Key, KeyUse, Mode, Session, SessionId,
    SessionKey, Timestamp, User, UserLimit,
};
use crate::store::{Decision, Plan};

/// Key and exact hash of one token.
pub type KeyPair = (SessionKey, SessionKey);

/// A login that the app has accepted.
#[derive(Clone, Debug)]
pub struct Login {
    /// The id the session gets if it is a new one.
    pub id: SessionId,
    pub user: Option<User>,
    /// The user's.
    pub groups: Groups,
    pub client: Client,
    pub now: Timestamp,
    /// What the browser will present from now on.
    pub bearer: Vec<KeyPair>,
    /// What must never be a way in: the bare values behind stamped cookies.
    pub fenced: Vec<KeyPair>,
    /// What the browser presented with the login and will not present again.
    pub before: Vec<KeyPair>,
    /// What the browser may still present for a moment, since it was the session's before we knew.
    pub superseded: Vec<KeyPair>,
    /// The live session the browser had.
    pub previous: Option<SessionId>,
}

/// How and by whom sessions are ended.
#[derive(Clone, Debug)]
pub struct How {
    pub reason: EndReason,
    pub initiator: Initiator,
    pub by: Option<String>,
    pub now: Timestamp,
}

/// Decides over a login: renewal, admission with evictions, or denial.
pub fn login(limits: &Limits, switches: Switches, login: &Login, live: &[Session]) -> Plan {
    let mut draft = Draft { plan: Plan::default(), mode: switches.mode };
    let same_user = |session: &Session| login.user.is_some() && session.user == login.user;
    let previous = live.iter().find(|session| Some(session.id) == login.previous);
    let (over, others) = split_expired(limits, login, live);
    for (session, reason) in over {
        draft.end(session, &How::policy(reason, login.now), None);
    }
    let limit = &*limits.of(login.user.as_deref(), &login.groups);
    if let Some(session) = previous.filter(|session| same_user(session)) {
        renew(&mut draft, limit, login, session, &others);
        return draft.plan;
    }
    if let Some(session) = previous {
        let how = How::user(EndReason::Replaced, login.now);
        draft.end(session, &how, Some(login.id));
    }
    match policy::admit(limit, &others, login.now) {
        Admission::Admit { evict } => create(&mut draft, limit, login, &others, &evict),
        Admission::Deny { count } => deny(&mut draft, limit, login, count),
    }
    draft.plan
}

/// The user's other counting sessions, and those among them that have timed out.
fn split_expired<'a>(
    limits: &Limits,
    login: &Login,
    live: &'a [Session],
) -> (Vec<(&'a Session, EndReason)>, Vec<&'a Session>) {
    let (mut over, mut others) = (Vec::new(), Vec::new());
    for session in live {
        let counted = login.user.is_some() && session.user == login.user && session.counts();
        if !counted || Some(session.id) == login.previous {
            continue;
        }
        let limit = limits.of(session.user.as_deref(), &session.groups);
        match policy::expiry(&limit, session.renewed_at, session.last_seen_at, login.now) {
            Some(reason) => over.push((session, reason)),
            None => others.push(session),
        }
    }
    (over, others)
}

fn renew(draft: &mut Draft, limit: &Limit, login: &Login, session: &Session, others: &[&Session]) {
    // The browser's own session always stays; a limit lowered meanwhile may end others.
    let evict = match policy::admit(limit, others, login.now) {
        Admission::Admit { evict } => evict,
        Admission::Deny { .. } => Vec::new(),
    };
    draft.evict(limit, login.now, session.id, others, &evict);
    let mut renewed = session.clone();
    // The clock may have been set back since; times of a session never go back.
    renewed.renewed_at = session.renewed_at.max(login.now);
    renewed.last_seen_at = session.last_seen_at.max(login.now);
    renewed.login_seq = 0;
    renewed.client = login.client.clone();
    renewed.groups = login.groups.clone();
    renewed.would_end = None;
    let count = 1 + others.len() - evict.len();
    draft.event(
        EventKind::SessionRenewed,
        &renewed,
        &How::user(EndReason::Limit, login.now),
        |event| {
            event.reason = None;
            event.count = u32::try_from(count).ok();
            event.limit = limit.max_sessions;
        },
    );
    draft.plan.sessions.push(renewed);
    draft.keys(login, session.id, KeyUse::Bearer, KeyUse::Superseded);
    draft.plan.decision = Decision::Renewed { session: session.id };
}

fn create(
    draft: &mut Draft,
    limit: &Limit,
    login: &Login,
    others: &[&Session],
    evict: &[SessionId],
) {
    draft.evict(limit, login.now, login.id, others, evict);
    let session = newcomer(login);
    let count = 1 + others.len() - evict.len();
    let how = How::user(EndReason::Limit, login.now);
    draft.event(EventKind::SessionCreated, &session, &how, |event| {
        event.reason = None;
        event.count = u32::try_from(count).ok();
        event.limit = limit.max_sessions;
    });
    draft.plan.sessions.push(session);
    draft.keys(login, login.id, KeyUse::Bearer, KeyUse::Fenced);
    draft.plan.decision = Decision::Admitted { session: login.id };
}

fn deny(draft: &mut Draft, limit: &Limit, login: &Login, count: u32) {
    let mut session = newcomer(login);
    let how = How::policy(EndReason::Limit, login.now);
    let max = limit.max_sessions.unwrap_or(u32::MAX);
    draft.close(&mut session, &how, None);
    let mode = draft.mode;
    draft.event(EventKind::SessionDenied, &session, &how, |event| {
        event.count = Some(count);
        event.limit = Some(max);
        event.mode = mode;
    });
    draft.plan.sessions.push(session);
    if draft.mode == Mode::Observe {
        draft.keys(login, login.id, KeyUse::Bearer, KeyUse::Fenced);
        draft.plan.decision = Decision::Admitted { session: login.id };
    } else {
        draft.keys(login, login.id, KeyUse::Fenced, KeyUse::Fenced);
        draft.plan.decision = Decision::Denied { session: login.id, count, limit: max };
    }
}

fn newcomer(login: &Login) -> Session {
    Session {
        id: login.id,
        user: login.user.clone(),
        created_at: login.now,
        renewed_at: login.now,
        last_seen_at: login.now,
        login_seq: 0,
        change_seq: 0,
        client: login.client.clone(),
        groups: login.groups.clone(),
        end: None,
        would_end: None,
    }
}

/// Kills what a login that nobody received has left in the client's hands. The session is recorded
/// as ended at once, so that its keys have a home; nobody else's session is touched.
pub fn abandon(login: &Login) -> Plan {
    let mut draft = Draft { plan: Plan::default(), mode: Mode::Enforce };
    let mut session = newcomer(login);
    let how = How::system(EndReason::App, login.now);
    draft.close(&mut session, &how, None);
    draft.event(EventKind::SessionDenied, &session, &how, |_| {});
    draft.plan.sessions.push(session);
    draft.keys(login, login.id, KeyUse::Fenced, KeyUse::Fenced);
    draft.plan
}

/// Ends every live session that `pick` picks; `by_session` is the one in which that was done.
pub fn end(
    switches: Switches,
    how: &How,
    by_session: Option<SessionId>,
    live: &[Session],
    pick: impl Fn(&Session) -> bool,
) -> Plan {
    let mut draft = Draft { plan: Plan::default(), mode: switches.mode };
    for session in live.iter().filter(|session| pick(session)) {
        draft.end(session, how, by_session.filter(|id| *id != session.id));
    }
    draft.plan.decision = Decision::Ended { count: draft.ended() };
    draft.plan
}

/// What a user ends from a session of their own, `by`, which has to be live itself.
pub fn end_own(
    switches: Switches,
    user: &User,
    by: SessionId,
    now: Timestamp,
    live: &[Session],
    pick: impl Fn(SessionId) -> bool,
) -> Plan {
    let own = |session: &Session| session.user.as_ref() == Some(user);
    if !live.iter().any(|session| session.id == by && own(session)) {
        return Plan::default();
    }
    let how = How::user(EndReason::SelfService, now);
    end(switches, &how, Some(by), live, |session| own(session) && pick(session.id))
}

/// Ends the live sessions that have timed out by now.
pub fn expire(limits: &Limits, switches: Switches, now: Timestamp, live: &[Session]) -> Plan {
    let mut draft = Draft { plan: Plan::default(), mode: switches.mode };
    for session in live.iter().filter(|session| session.counts()) {
        let limit = limits.of(session.user.as_deref(), &session.groups);
        let Session { renewed_at, last_seen_at, .. } = *session;
        if let Some(reason) = policy::expiry(&limit, renewed_at, last_seen_at, now) {
            draft.end(session, &How::policy(reason, now), None);
        }
    }
    draft.plan.decision = Decision::Ended { count: draft.ended() };
    draft.plan
}

/// What a password change in session `changed` does, and the keys it brought.
pub fn password_change(
    switches: Switches,
    changed: SessionId,
    rotation: &Rotation,
    live: &[Session],
) -> Plan {
    let how = How::user(EndReason::PasswordChange, rotation.now);
    let goes = |session: &Session| match switches.password_change {
        OnPasswordChange::EndOthers => session.id != changed,
        OnPasswordChange::EndAll => true,
        OnPasswordChange::Keep => false,
    };
    let mut plan = end(switches, &how, Some(changed), live, goes);
    plan.keys = rotate(changed, rotation, live).keys;
    plan
}

/// Sets or takes back the limit of one user; what is configured counts without it. Sessions that are
/// there stay until the next login.
pub fn set_limit(limit: &UserLimit, limits: &Limits, live: &[Session]) -> Plan {
    let how = How::admin(&limit.set_by, limit.set_at);
    let event = AuditEvent::new(EventKind::LimitChanged, how.now, how.initiator, Mode::Enforce);
    let mut event = event.user(Some(&limit.user));
    event.by = how.by;
    let counted = live.iter().filter(|session| session.counts()).count();
    event.count = u32::try_from(counted).ok();
    event.limit = match limit.ceiling {
        Ceiling::Configured => {
            let newest = live.iter().max_by_key(|session| session.renewed_at);
            let groups = newest.map(|session| session.groups.clone()).unwrap_or_default();
            limits.of(Some(&limit.user), &groups).max_sessions
        }
        Ceiling::Unlimited => None,
        Ceiling::Sessions(max) => Some(max),
    };
    Plan { limits: vec![limit.clone()], events: vec![event], ..Plan::default() }
}

/// Ends every session of a user who is to be forgotten, also when observing, and takes a limit of
/// the user's own back.
pub fn erase(how: &How, taken_back: Option<&UserLimit>, live: &[Session]) -> Plan {
    let mut draft = Draft { plan: Plan::default(), mode: Mode::Enforce };
    for session in live {
        draft.end(session, how, None);
    }
    draft.plan.decision = Decision::Ended { count: draft.ended() };
    draft.plan.limits.extend(taken_back.cloned());
    draft.plan
}

/// A request of session `id` came from `client`. If that is another one than before, by `same`, it is
/// told, and the session ends or goes on with it.
pub fn client_seen(
    switches: Switches,
    id: SessionId,
    client: &Client,
    ends: bool,
    now: Timestamp,
    live: &[Session],
    same: impl Fn(&Client) -> bool,
) -> Plan {
    let mut draft = Draft { plan: Plan::default(), mode: switches.mode };
    let mut counting = live.iter().filter(|session| session.counts());
    let Some(session) = counting.find(|session| session.id == id) else { return draft.plan };
    if same(&session.client) {
        return draft.plan;
    }
    let mut changed = session.clone();
    changed.client = client.clone();
    let how = How::policy(EndReason::ClientChanged, now);
    draft.event(EventKind::SessionClientChanged, &changed, &how, |event| {
        event.reason = None;
        event.initiator = Initiator::User;
        event.previous(&session.client);
    });
    if ends {
        // Its client stays the one that signed in.
        draft.end(session, &how, None);
        let ended = draft.plan.sessions.iter().any(|session| session.end.is_some());
        draft.plan.decision =
            if ended { Decision::Ended { count: 1 } } else { Decision::Renewed { session: id } };
    } else {
        draft.plan.sessions.push(changed);
        draft.plan.decision = Decision::Renewed { session: id };
    }
    draft.plan
}

/// Forgets what observing noted about these sessions: from now on they count again.
pub fn forget_observed(live: &[Session]) -> Plan {
    let noted = live.iter().filter(|session| session.would_end.is_some());
    let sessions = noted.map(|session| Session { would_end: None, ..session.clone() }).collect();
    Plan { sessions, ..Plan::default() }
}

/// Tokens of one session that follow each other.
#[derive(Clone, Debug)]
pub struct Rotation {
    pub now: Timestamp,
    pub bearer: Vec<KeyPair>,
    pub superseded: Vec<KeyPair>,
    pub fenced: Vec<KeyPair>,
}

/// Ties new tokens to a session; those of a session that has ended meanwhile are born dead.
pub fn rotate(session: SessionId, rotation: &Rotation, live: &[Session]) -> Plan {
    let alive = live.iter().any(|other| other.id == session);
    let bearer = if alive { KeyUse::Bearer } else { KeyUse::Fenced };
    let mut plan = Plan::default();
    for (pairs, key_use) in [
        (&rotation.superseded, KeyUse::Superseded),
        (&rotation.fenced, KeyUse::Fenced),
        (&rotation.bearer, bearer),
    ] {
        plan.keys.extend(keys(pairs, session, key_use, rotation.now));
    }
    plan
}

fn keys(
    pairs: &[KeyPair],
    session: SessionId,
    key_use: KeyUse,
    since: Timestamp,
) -> impl Iterator<Item = Key> {
    pairs.iter().map(move |(key, exact)| Key { key: *key, exact: *exact, session, key_use, since })
}

impl How {
    /// A limit or timeout.
    pub fn policy(reason: EndReason, now: Timestamp) -> Self {
        Self { reason, initiator: Initiator::Policy, by: None, now }
    }

    /// The user's own doing.
    pub fn user(reason: EndReason, now: Timestamp) -> Self {
        Self { reason, initiator: Initiator::User, by: None, now }
    }

    /// Headcount's own doing.
    pub fn system(reason: EndReason, now: Timestamp) -> Self {
        Self { reason, initiator: Initiator::System, by: None, now }
    }

    /// Through the admin API.
    pub fn admin(by: &str, now: Timestamp) -> Self {
        Self { reason: EndReason::Admin, initiator: Initiator::Admin, by: Some(by.to_owned()), now }
    }

    /// In observe mode only facts end a session; what policy would do is only noted.
    fn is_fact(&self) -> bool {
        matches!(self.reason, EndReason::Logout | EndReason::Replaced | EndReason::App)
    }
}

/// A plan in the making.
struct Draft {
    plan: Plan,
    mode: Mode,
}

impl Draft {
    fn close(&self, session: &mut Session, how: &How, by_session: Option<SessionId>) {
        let ending = Ending { at: how.now, reason: how.reason, by: how.by.clone(), by_session };
        if self.mode == Mode::Observe && !how.is_fact() {
            session.would_end = session.would_end.take().or(Some(ending));
        } else {
            session.end = Some(ending);
        }
    }

    fn end(&mut self, session: &Session, how: &How, by_session: Option<SessionId>) {
        let mut ended = session.clone();
        self.close(&mut ended, how, by_session);
        self.event(EventKind::SessionEnded, &ended, how, |event| event.by_session = by_session);
        self.plan.sessions.push(ended);
    }

    fn evict(
        &mut self,
        limit: &Limit,
        now: Timestamp,
        by_session: SessionId,
        others: &[&Session],
        evict: &[SessionId],
    ) {
        let how = How::policy(EndReason::Limit, now);
        for session in others.iter().filter(|session| evict.contains(&session.id)) {
            let mut ended = (*session).clone();
            self.close(&mut ended, &how, Some(by_session));
            self.event(EventKind::SessionEnded, &ended, &how, |event| {
                event.by_session = Some(by_session);
                event.count = u32::try_from(1 + others.len() - evict.len()).ok();
                event.limit = limit.max_sessions;
            });
            self.plan.sessions.push(ended);
        }
    }

    fn keys(&mut self, login: &Login, session: SessionId, bearer: KeyUse, before: KeyUse) {
        let superseded = if bearer == KeyUse::Bearer { KeyUse::Superseded } else { bearer };
        for (pairs, key_use) in [
            (&login.before, before),
            (&login.superseded, superseded),
            (&login.fenced, KeyUse::Fenced),
            (&login.bearer, bearer),
        ] {
            self.plan.keys.extend(keys(pairs, session, key_use, login.now));
        }
    }

    fn event(
        &mut self,
        kind: EventKind,
        session: &Session,
        how: &How,
        more: impl FnOnce(&mut AuditEvent),
    ) {
        let done = session.would_end.is_none() || session.end.is_some();
        let mode = if done { Mode::Enforce } else { Mode::Observe };
        let mut event = AuditEvent::new(kind, how.now, how.initiator, mode)
            .user(session.user.as_ref())
            .session(session.id)
            .reason(how.reason)
            .client(&session.client);
        event.by.clone_from(&how.by);
        more(&mut event);
        self.plan.events.push(event);
    }

    fn ended(&self) -> u32 {
        u32::try_from(self.plan.sessions.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
