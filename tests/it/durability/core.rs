//! Headcount without its network side: recorder, registry and judge over a real SQLite file, put
//! together as the server does it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headcount::audit::AuditLog;
use headcount::clock::Clock;
use headcount::cookies::Candidate;
use headcount::credentials::{Judge, Keys, Presented};
use headcount::decide::Login;
use headcount::evictions::Evictions;
use headcount::keyring::{Keyring, hex, random, random_session_id};
use headcount::metrics::Metrics;
use headcount::policy::{
    self, Carry, EvictOrder, Kind, Limit, Limits, OnLimit, OnPasswordChange, Switches, Verdict,
};
use headcount::recorder::{Recorder, RegistryFeed};
use headcount::registry::Registry;
use headcount::rules::RuleSet;
use headcount::rules::matcher::Patterns;
use headcount::session::{Client, Groups, Mode, SessionId, SessionKey, Timestamp};
use headcount::settings::{Binding, OnFailure, SessionSettings, Unattributed, Untracked, UrlIds};
use headcount::stamp::{self, Lineage};
use headcount::store::{Committed, Feed, Retention, sqlite};
use headcount::user_limits::UserLimits;

/// The name of the app, as the server has it when none is given.
pub(super) const APP: &str = "default";
/// The app's session cookie.
pub(super) const COOKIE: &str = "sid";

const DAY_MS: i64 = 24 * 3_600_000;

/// A limit without timeouts; `None`: unlimited.
pub(super) fn limit(max_sessions: Option<u32>, on_limit: OnLimit) -> Limit {
    Limit {
        max_sessions,
        on_limit,
        evict_order: EvictOrder::LeastRecentlyUsed,
        evict_if_idle_for_ms: None,
        otherwise: OnLimit::Deny,
        evictions_max: None,
        evictions_window_ms: 600_000,
        idle_timeout_ms: None,
        absolute_timeout_ms: None,
    }
}

/// The defaults of the configuration, as far as they matter here.
pub(super) fn session_settings() -> SessionSettings {
    SessionSettings {
        client_change: None,
        binding: Binding::Signed,
        untracked: Untracked::Pass,
        url_ids: UrlIds::Strip,
        unattributed: Unattributed::Refuse,
        idle_ignore_paths: Patterns::default(),
        rotation_grace_ms: 10_000,
        step_timeout_ms: 600_000,
        retention: Retention {
            history_ms: 30 * DAY_MS,
            history_per_user: 100,
            tombstones_ms: 400 * DAY_MS,
        },
        flush_interval_ms: 5_000,
        sweep_interval_ms: 1_000,
    }
}

/// Looks at what every commit has made of the registry, before anybody gets an answer.
struct WatchedFeed {
    inner: RegistryFeed,
    most_live: Arc<AtomicUsize>,
}

impl Feed for WatchedFeed {
    fn committed(&self, change: Committed) {
        let users: Vec<_> = change.sessions.iter().filter_map(|one| one.user.clone()).collect();
        self.inner.committed(change);
        for user in users {
            let live = self.inner.registry.count_of(&user);
            self.most_live.fetch_max(live, Ordering::Relaxed);
        }
    }

    fn replicated(&self, change: Committed, ages: &[Duration]) {
        self.inner.replicated(change, ages);
    }

    fn store_time(&self, now: Timestamp) {
        self.inner.store_time(now);
    }

    fn last_seen_at(&self, session: SessionId) -> Option<Timestamp> {
        self.inner.last_seen_at(session)
    }
}

/// The core of a running Headcount.
pub(super) struct Core {
    pub(super) recorder: Recorder,
    /// The most live sessions that any user ever had after a commit.
    pub(super) most_live: Arc<AtomicUsize>,
    keyring: Keyring,
}

/// What a browser has after a login: the cookie as we issued it, and the app's own part of it.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) id: SessionId,
    pub(super) cookie: Vec<u8>,
    pub(super) bare: Vec<u8>,
    /// What the registry knows it by.
    pub(super) key: SessionKey,
}

impl Core {
    /// Opens `headcount.db` and `headcount.key` in the folder, and loads what is there.
    pub(super) async fn open(folder: &Path, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let audit =
            AuditLog::new(APP.into(), "test".into(), None, Arc::clone(&metrics), Arc::default());
        let audit = Arc::new(audit);
        let registry = Arc::new(Registry::new(limits.clone()));
        let most_live = Arc::new(AtomicUsize::new(0));
        let evictions = Arc::new(Evictions::default());
        let user_limits = Arc::new(UserLimits::default());
        let inner = RegistryFeed {
            registry: Arc::clone(&registry),
            audit: Arc::clone(&audit),
            evictions: Arc::clone(&evictions),
            user_limits: Arc::clone(&user_limits),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
        };
        let feed = WatchedFeed { inner, most_live: Arc::clone(&most_live) };
        let path = folder.join("headcount.db");
        let store = sqlite::open(&path, 60_000, Arc::new(feed)).await.unwrap();
        registry.load(&store.load().await.unwrap());
        registry.loaded();
        let switches = Switches {
            mode: Mode::Enforce,
            logout_all: false,
            password_change: OnPasswordChange::EndOthers,
        };
        let session = session_settings();
        let recorder = Recorder {
            store,
            registry,
            audit,
            metrics,
            clock,
            limits,
            switches,
            session,
            evictions,
            user_limits,
            on_failure: OnFailure::Closed,
        };
        let keyring = Keyring::open(&folder.join("headcount.key")).unwrap();
        Self { recorder, most_live, keyring }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.recorder.registry
    }

    /// A login that the app has accepted, from a fresh browser, as the proxy would record it.
    pub(super) fn arrive(&self, user: &str) -> (Login, Ticket) {
        let (id, lineage) = (random_session_id().unwrap(), Lineage::authenticated().unwrap());
        let bare = hex(&random::<16>().unwrap()).into_bytes();
        let cookie = stamp::issue(&self.keyring, APP, COOKIE, &bare, lineage, 100).unwrap();
        let rules = RuleSet::default();
        let keys = Keys { keyring: &self.keyring, app: APP, rules: &rules };
        let login = Login {
            id,
            user: Some(user.into()),
            groups: Groups::default(),
            client: Client::default(),
            now: self.recorder.clock.now(),
            bearer: vec![(lineage.key(), lineage.key())],
            fenced: vec![keys.of(COOKIE, &bare)],
            before: Vec::new(),
            superseded: Vec::new(),
            previous: None,
        };
        (login, Ticket { id, cookie, bare, key: lineage.key() })
    }

    /// What a request with this cookie amounts to, as the request path finds it.
    pub(super) fn judge(&self, cookie: &[u8]) -> Presented {
        let judge = Judge {
            keyring: &self.keyring,
            registry: self.registry(),
            app: APP,
            rules: &RuleSet::default(),
            session: &self.recorder.session,
            mode: Mode::Enforce,
            now: self.recorder.clock.now(),
            client: "",
            navigation: true,
        };
        judge.presented(&[Candidate { name: COOKIE, value: cookie }])
    }

    /// Whether the app would get to see this cookie.
    pub(super) fn reaches_app(&self, cookie: &[u8]) -> bool {
        let presented = self.judge(cookie);
        let kind = Kind { navigation: true, safe: true, open: true };
        let verdict = policy::verdict(Mode::Enforce, presented.standing, kind, true);
        matches!(verdict, Verdict::Forward(_, Carry::Entitled | Carry::Everything))
            && !presented.forward.is_empty()
    }
}
