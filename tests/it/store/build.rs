//! Sessions, keys and decisions for tests of the store and the registry, and a feed that listens.

use std::sync::Arc;
use std::time::Duration;

use headcount::policy::{self, Admission, EvictOrder, Limit, Limits, OnLimit};
use headcount::registry::Registry;
use headcount::session::{
    Client, EndReason, Ending, Groups, Key, KeyUse, Session, SessionId, SessionKey, Timestamp, User,
};
use headcount::store::{Committed, Decide, Decision, Feed, Listing, Plan, Scope, Store};
use parking_lot::Mutex;

/// A feed that applies to a registry and remembers what it heard.
pub(crate) struct Ear {
    pub(crate) registry: Registry,
    pub(crate) heard: Mutex<Vec<Committed>>,
}

impl Ear {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { registry: Registry::new(limits), heard: Mutex::default() })
    }

    pub(crate) fn heard_sessions(&self) -> Vec<Session> {
        self.heard.lock().iter().flat_map(|change| change.sessions.clone()).collect()
    }
}

impl Feed for Ear {
    fn committed(&self, change: Committed) {
        self.registry.apply(&change);
        self.heard.lock().push(change);
    }

    fn replicated(&self, change: Committed, ages: &[Duration]) {
        assert_eq!(ages.len(), change.sessions.len());
        self.registry.apply(&change);
    }

    fn store_time(&self, _: Timestamp) {}

    fn last_seen_at(&self, session: SessionId) -> Option<Timestamp> {
        self.registry.last_seen_at(session)
    }
}

pub(crate) fn limit(max_sessions: u32) -> Arc<Limit> {
    Arc::new(Limit {
        max_sessions: Some(max_sessions),
        on_limit: OnLimit::Evict,
        evict_order: EvictOrder::LeastRecentlyUsed,
        evict_if_idle_for_ms: None,
        otherwise: OnLimit::Evict,
        evictions_max: None,
        evictions_window_ms: 600_000,
        idle_timeout_ms: None,
        absolute_timeout_ms: None,
    })
}

pub(crate) fn limits(max_sessions: u32) -> Limits {
    Limits::only(limit(max_sessions))
}

pub(crate) fn id(number: u64) -> SessionId {
    SessionId(u128::from(number).to_be_bytes())
}

pub(crate) fn key(number: u64) -> SessionKey {
    SessionKey((u128::from(number) << 64 | u128::from(number)).to_be_bytes())
}

pub(crate) fn bearer(number: u64, session: u64, since: i64) -> Key {
    Key {
        key: key(number),
        exact: key(number),
        session: id(session),
        key_use: KeyUse::Bearer,
        since: Timestamp(since),
    }
}

pub(crate) fn session(number: u64, user: &str, at: i64) -> Session {
    Session {
        id: id(number),
        user: Some(User::from(user)),
        created_at: Timestamp(at),
        renewed_at: Timestamp(at),
        last_seen_at: Timestamp(at),
        login_seq: 0,
        change_seq: 0,
        client: Client {
            address: Some("192.0.2.1".to_owned()),
            user_agent: Some("Mozilla/5.0 (it's; \"quoted\")".to_owned()),
        },
        groups: Groups::default(),
        end: None,
        would_end: None,
    }
}

pub(crate) fn ended(session: &Session, reason: EndReason, at: i64) -> Session {
    let ending = Ending { at: Timestamp(at), reason, by: None, by_session: None };
    Session { end: Some(ending), ..session.clone() }
}

/// A login as the recorder decides it: evict whoever has to go, or stay out.
pub(crate) fn login(number: u64, user: &str, at: i64, limit: &Arc<Limit>) -> (Scope, Decide) {
    let newcomer = session(number, user, at);
    let scope = Scope { user: newcomer.user.clone(), ids: Vec::new() };
    let limit = Arc::clone(limit);
    let decide: Decide = Box::new(move |live| {
        let mut newcomer = newcomer.clone();
        let others: Vec<&Session> = live.iter().collect();
        let mut plan = Plan::default();
        plan.decision = match policy::admit(&limit, &others, Timestamp(at)) {
            Admission::Admit { evict } => {
                let evicted = live.iter().filter(|session| evict.contains(&session.id));
                plan.sessions.extend(evicted.map(|other| ended(other, EndReason::Limit, at)));
                Decision::Admitted { session: newcomer.id }
            }
            Admission::Deny { count } => {
                newcomer = ended(&newcomer, EndReason::Limit, at);
                Decision::Denied { session: newcomer.id, count, limit: count }
            }
        };
        plan.keys.push(bearer(number, number, at));
        plan.sessions.push(newcomer);
        plan
    });
    (scope, decide)
}

/// Writes `plan` whatever is live.
pub(crate) fn always(plan: Plan) -> (Scope, Decide) {
    (Scope::default(), Box::new(move |_| plan.clone()))
}

pub(crate) async fn write(store: &dyn Store, sessions: &[Session], keys: &[Key]) {
    let plan = Plan { sessions: sessions.to_vec(), keys: keys.to_vec(), ..Plan::default() };
    let (scope, decide) = always(plan);
    store.transact(scope, decide).await.unwrap();
}

pub(crate) async fn end(store: &dyn Store, number: u64, reason: EndReason, at: i64) {
    let scope = Scope { user: None, ids: vec![id(number)] };
    let decide: Decide = Box::new(move |live| Plan {
        sessions: live.iter().map(|session| ended(session, reason, at)).collect(),
        ..Plan::default()
    });
    store.transact(scope, decide).await.unwrap();
}

pub(crate) async fn ids(store: &dyn Store, listing: Listing) -> Vec<SessionId> {
    store.list(listing).await.unwrap().iter().map(|session| session.id).collect()
}

pub(crate) fn everything() -> Listing {
    Listing { count_max: u32::MAX, ..Listing::default() }
}
