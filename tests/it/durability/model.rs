//! Registry, decisions and store against the naive model. Random logins, uses, logouts, ends, sweeps, restarts and clock steps.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use headcount::clock::{Clock as _, ManualClock};
use headcount::decide::Rotation;
use headcount::policy::{EvictOrder, GroupLimits, Limit, Limits, OnLimit, Standing};
use headcount::rules::matcher::Glob;
use headcount::session::{Groups, SessionId, Timestamp};
use headcount::store::{Decision, Listing};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::core::{Core, Ticket};
use super::naive::{GROUPS, Model, Naive, limit_of, over};
use crate::support::soak;

const USERS: [&str; 3] = ["alice", "bob", "ops"];
const BROWSERS: usize = 5;
const IDLE_MS: i64 = 60_000;
const ABSOLUTE_MS: i64 = 600_000;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Login { browser: usize, user: usize, groups: usize },
    Use { browser: usize },
    Logout { browser: usize },
    EndOne { browser: usize },
    EndUser { user: usize, but: usize },
    PasswordChange { browser: usize },
    Sweep,
    Flush,
    Prune,
    Clock { ms: i64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (browser, user) = (0..BROWSERS, 0..USERS.len());
    // Most logins are of somebody without groups; else any of them together.
    let groups = prop_oneof![2 => Just(0), 1 => 0..1_usize << GROUPS.len()];
    prop_oneof![
        8 => (browser.clone(), user.clone(), groups)
            .prop_map(|(browser, user, groups)| Step::Login { browser, user, groups }),
        8 => browser.clone().prop_map(|browser| Step::Use { browser }),
        2 => browser.clone().prop_map(|browser| Step::Logout { browser }),
        1 => browser.clone().prop_map(|browser| Step::EndOne { browser }),
        1 => (user, browser.clone()).prop_map(|(user, but)| Step::EndUser { user, but }),
        1 => browser.prop_map(|browser| Step::PasswordChange { browser }),
        2 => Just(Step::Sweep),
        1 => Just(Step::Flush),
        1 => Just(Step::Prune),
        4 => (1..20_000_i64).prop_map(|ms| Step::Clock { ms }),
        1 => (20_000..400_000_i64).prop_map(|ms| Step::Clock { ms }),
        1 => (-2_000..0_i64).prop_map(|ms| Step::Clock { ms }),
        1 => Just(Step::Restart),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let order = prop_oneof![
        Just(EvictOrder::LeastRecentlyUsed),
        Just(EvictOrder::OldestLogin),
        Just(EvictOrder::AllOthers)
    ];
    let on_limit = prop_oneof![3 => Just(OnLimit::Evict), 1 => Just(OnLimit::Deny)];
    (1..4_u32, on_limit, order).prop_map(|(max, on_limit, evict_order)| {
        let limit = Limit {
            max_sessions: Some(max),
            on_limit,
            evict_order,
            evict_if_idle_for_ms: None,
            otherwise: OnLimit::Deny,
            evictions_max: None,
            evictions_window_ms: 600_000,
            idle_timeout_ms: Some(IDLE_MS),
            absolute_timeout_ms: Some(ABSOLUTE_MS),
        };
        let ops = Limit { max_sessions: None, idle_timeout_ms: None, ..limit };
        let overrides = vec![(vec![Glob::name("ops")], Arc::new(ops))];
        let groups = GROUPS.iter().map(|(name, max_sessions, idle_ms)| {
            let (max_sessions, idle_timeout_ms) = (*max_sessions, Some(*idle_ms));
            let limit = Limit { max_sessions, idle_timeout_ms, ..limit.clone() };
            (vec![Glob::name(&format!("{}*", &name[..3]))], Arc::new(limit))
        });
        let groups = Arc::new(GroupLimits::new(groups.collect()));
        Limits { default: Arc::new(limit), overrides, groups }
    })
}

#[test]
fn whatever_happens_the_naive_model_agrees_soak() {
    let (cases, steps) = if soak() { (1000, 100) } else { (64, 60) };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let strategy = (limits(), prop::collection::vec(step(), steps));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = TestRunner::new(config)
        .run(&strategy, |(limits, steps)| runtime.block_on(play(limits, &steps)));
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn play(limits: Limits, steps: &[Step]) -> Result<(), TestCaseError> {
    let folder = super::folder();
    let clock = ManualClock::at(Timestamp(1_700_000_000_000));
    let core = Core::open(folder.path(), limits.clone(), Arc::new(clock.clone())).await;
    let mut world = World {
        core,
        clock,
        limits,
        model: Model::default(),
        browsers: vec![None; BROWSERS],
        tickets: HashMap::new(),
    };
    for step in steps {
        if matches!(step, Step::Restart) {
            world = world.restart(folder.path()).await?;
        } else {
            world.take(step).await;
        }
        world.check().await?;
    }
    world.core.recorder.store.close().await;
    Ok(())
}

/// The real thing and the model, side by side.
struct World {
    core: Core,
    clock: ManualClock,
    limits: Limits,
    model: Model,
    /// What each browser holds.
    browsers: Vec<Option<(SessionId, Ticket)>>,
    /// Every cookie ever given out, and the session it was given for; `None`: taken back.
    tickets: HashMap<Vec<u8>, (Ticket, Option<SessionId>)>,
}

impl World {
    async fn take(&mut self, step: &Step) {
        let recorder = &self.core.recorder;
        let now = self.clock.now();
        match *step {
            Step::Login { browser, user, groups } => {
                self.login(browser, USERS[user], groups).await;
            }
            Step::Use { browser } => self.use_session(browser),
            Step::Logout { browser } => {
                if let Some(entry) = self.served(browser) {
                    recorder.logout(&entry).await.unwrap();
                    self.model.end(entry.id);
                }
            }
            Step::EndOne { browser } => {
                if let Some((id, _)) = self.browsers[browser] {
                    recorder.end(vec![id], "model").await.unwrap();
                    self.model.end(id);
                }
            }
            Step::EndUser { user, but } => {
                let but = self.browsers[but].as_ref().map(|(id, _)| *id);
                recorder.end_user(USERS[user], but, "model").await.unwrap();
                self.end_others(USERS[user], but);
            }
            Step::PasswordChange { browser } => {
                if let Some(entry) = self.served(browser) {
                    let rotation = Rotation {
                        now,
                        bearer: Vec::new(),
                        superseded: Vec::new(),
                        fenced: Vec::new(),
                    };
                    recorder.password_change(&entry, rotation).await.unwrap();
                    self.end_others(entry.user.as_deref().unwrap(), Some(entry.id));
                }
            }
            Step::Sweep => {
                while recorder.sweep().await.unwrap() {}
                let limits = &self.limits;
                let gone = |one: &&mut Naive| over(limits, one, now);
                self.model.sessions.iter_mut().filter(gone).for_each(|one| one.ended = true);
            }
            Step::Flush => recorder.flush().await.unwrap(),
            Step::Prune => recorder.prune().await.unwrap(),
            Step::Clock { ms } => self.clock.advance_ms(ms),
            Step::Restart => {}
        }
    }

    fn end_others(&mut self, user: &str, but: Option<SessionId>) {
        let others = |one: &&mut Naive| one.user == user && Some(one.id) != but;
        self.model.sessions.iter_mut().filter(others).for_each(|one| one.ended = true);
    }

    /// The session with which a request of this browser goes to the app.
    fn served(&self, browser: usize) -> Option<Arc<headcount::registry::Entry>> {
        let (_, ticket) = self.browsers[browser].as_ref()?;
        let presented = self.core.judge(&ticket.cookie);
        presented.entry.filter(|_| presented.standing == Standing::Live)
    }

    fn use_session(&mut self, browser: usize) {
        let now = self.clock.now();
        if let Some(entry) = self.served(browser) {
            if entry.touch(now) {
                self.core.registry().mark_dirty(&entry);
            }
            let session = self.model.find(entry.id).unwrap();
            session.seen = session.seen.max(now);
        }
    }

    /// As the proxy does it: the session the browser had is its previous one as long as it is live.
    async fn login(&mut self, browser: usize, user: &'static str, groups: usize) {
        let groups: Vec<&str> = GROUPS
            .iter()
            .enumerate()
            .filter(|(at, _)| groups & 1 << at != 0)
            .map(|(_, (name, ..))| *name)
            .collect();
        let previous = self.served(browser).map(|entry| entry.id);
        let (mut login, ticket) = self.core.arrive(user);
        login.previous = previous;
        (login.groups, _) = Groups::of(groups.iter().map(|name| (*name).to_owned()));
        if let Some((_, before)) = self.browsers[browser].as_ref().filter(|_| previous.is_some()) {
            login.before = vec![(before.key, before.key)];
            self.tickets.get_mut(&before.cookie).unwrap().1 = None;
        }
        let (limits, whose) = (&self.limits, (user, &*groups));
        let expected = self.model.login(limits, whose, login.id, previous, login.now);
        let decision = self.core.recorder.login(login).await.unwrap();
        let found = match decision {
            Decision::Admitted { session } | Decision::Renewed { session } => Some(session),
            _ => None,
        };
        assert_eq!(found, expected, "{user} {groups:?} in browser {browser}: {decision:?}");
        self.tickets.insert(ticket.cookie.clone(), (ticket.clone(), found));
        self.browsers[browser] = found.map(|id| (id, ticket));
    }

    async fn restart(self, folder: &std::path::Path) -> Result<Self, TestCaseError> {
        self.core.recorder.flush().await.unwrap();
        let before = snapshot(&self.core);
        self.core.recorder.store.close().await;
        let clock = Arc::new(self.clock.clone());
        let core = Core::open(folder, self.limits.clone(), clock).await;
        prop_assert_eq!(before, snapshot(&core), "the registry is as it was");
        Ok(Self { core, ..self })
    }

    async fn check(&self) -> Result<(), TestCaseError> {
        let (registry, now) = (self.core.registry(), self.clock.now());
        for user in USERS {
            let live: BTreeSet<_> = registry.live_of(user).iter().map(|entry| entry.id).collect();
            let model: BTreeSet<_> = self.model.live_of(user).iter().map(|one| one.id).collect();
            prop_assert_eq!(&live, &model, "live sessions of {}", user);
            // The latest login decided; where nobody is evicted, an earlier one may have.
            let latest = self.model.live_of(user).into_iter().max_by_key(|one| one.login);
            let limit = latest.map(|one| limit_of(&self.limits, user, &one.groups));
            if let Some(limit) = limit.filter(|limit| limit.on_limit == OnLimit::Evict) {
                let max = limit.max_sessions.map_or(usize::MAX, |max| max as usize);
                prop_assert!(live.len() <= max);
            }
            let user = Some(user.into());
            let listing =
                Listing { user, live: Some(true), count_max: 1000, before_login_seq: None };
            let stored = self.core.recorder.store.list(listing).await.unwrap();
            let stored: BTreeSet<_> = stored.iter().map(|session| session.id).collect();
            prop_assert_eq!(&stored, &live, "the store agrees");
        }
        for (ticket, given_for) in self.tickets.values() {
            prop_assert!(!self.core.reaches_app(&ticket.bare), "bare values are never a way in");
            let session = given_for
                .and_then(|id| self.model.sessions.iter().find(|one| one.id == id && !one.ended));
            let good = session.is_some_and(|one| !over(&self.limits, one, now));
            let presented = self.core.judge(&ticket.cookie);
            // A cookie taken back by a login counts for a moment as the session it became.
            let in_grace = given_for.is_none() && presented.standing == Standing::Live;
            if in_grace {
                let entry = presented.entry.as_ref().unwrap();
                prop_assert!(entry.ending().is_none());
                let holds = |held: &(SessionId, Ticket)| held.0 == entry.id;
                prop_assert!(self.browsers.iter().flatten().any(holds));
                continue;
            }
            prop_assert_eq!(presented.standing == Standing::Live, good);
            prop_assert_eq!(self.core.reaches_app(&ticket.cookie), good);
        }
        Ok(())
    }
}

/// What memory knows, in an order of its own.
fn snapshot(core: &Core) -> (Vec<impl PartialEq + Debug + use<>>, headcount::registry::Counts) {
    let registry = core.registry();
    let mut sessions: Vec<_> = USERS
        .iter()
        .flat_map(|user| registry.live_of(user))
        .map(|entry| {
            let times = (entry.renewed_at(), entry.last_seen_at(), entry.change_seq());
            (entry.id, entry.user.clone(), times, entry.would_end())
        })
        .collect();
    sessions.sort_by_key(|session| session.0);
    (sessions, registry.counts())
}
