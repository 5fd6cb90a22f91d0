//! The settings in force, and their replacement while requests are under way: a request reads them
//! once, and keeps what it read. What new settings must satisfy is the business of `server.rs`.

use std::hash::RandomState;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use http::{Request, Response};
use hyper::body::Incoming;

use super::{Proxy, Worker};
use crate::audit::AuditLog;
use crate::body::Body;
use crate::clock::Clock;
use crate::evictions::Evictions;
use crate::issue::Shapes;
use crate::keyring::Keyring;
use crate::lifecycle::Lifecycle;
use crate::listener::Service;
use crate::metrics::Metrics;
use crate::own_pages::OwnPages;
use crate::pace::Pace;
use crate::peer::Peer;
use crate::probes::Probes;
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::session::Mode;
use crate::settings::{Settings, UrlIds};
use crate::slots::Slots;
use crate::steps::Steps;
use crate::store::Store;
use crate::upstream::{App, Upstream};
use crate::url::Carriers;
use crate::user_limits::UserLimits;

/// The [`Proxy`] in force.
pub struct Live(ArcSwap<Proxy>);

impl Live {
    pub fn new(proxy: Proxy) -> Self {
        Self(ArcSwap::from_pointee(proxy))
    }

    /// What is in force now. Keep it for one request or one round of work, no longer.
    pub fn now(&self) -> Arc<Proxy> {
        self.0.load_full()
    }

    /// Puts another in force, for requests that begin from here on; gives back the one before.
    pub fn replace(&self, proxy: Proxy) -> Arc<Proxy> {
        self.0.swap(Arc::new(proxy))
    }
}

/// What outlives a change of settings.
pub struct Lasting {
    pub keyring: Keyring,
    pub store: Arc<dyn Store>,
    pub app: Arc<App>,
    pub registry: Arc<Registry>,
    pub audit: Arc<AuditLog>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub shapes: Shapes,
    pub evictions: Arc<Evictions>,
    pub user_limits: Arc<UserLimits>,
    pub pace: Pace,
    pub lifecycle: Lifecycle,
}

impl Proxy {
    /// The first one.
    pub fn new(settings: Settings, lasting: Lasting) -> Self {
        let Lasting {
            keyring,
            store,
            app,
            registry,
            audit,
            metrics,
            clock,
            shapes,
            evictions,
            user_limits,
            pace,
            lifecycle,
        } = lasting;
        let (cache_ms, rate) = probe_bounds(&settings);
        Self {
            keyring: Arc::new(keyring),
            app,
            recorder: Recorder {
                store,
                registry: Arc::clone(&registry),
                audit,
                metrics: Arc::clone(&metrics),
                clock: Arc::clone(&clock),
                limits: settings.limits.clone(),
                switches: settings.switches,
                session: settings.session.clone(),
                evictions,
                user_limits,
                on_failure: settings.store.on_failure,
            },
            registry,
            metrics,
            clock,
            shapes: Arc::new(shapes),
            steps: Arc::new(Steps::new(settings.session.step_timeout_ms)),
            probes: Arc::new(Probes::new(cache_ms, rate)),
            own_pages: Arc::new(OwnPages::default()),
            pace: Arc::new(pace),
            slots: Arc::new(slots(&settings)),
            lifecycle,
            carriers: carriers(&settings),
            marks: RandomState::new(),
            settings,
        }
    }

    /// The same under other settings; `app` and `keyring` belong to them.
    pub fn with(&self, settings: Settings, app: Arc<App>, keyring: Keyring) -> Self {
        let (cache_ms, rate) = probe_bounds(&settings);
        self.probes.set_bounds(cache_ms, rate);
        self.steps.keep_for(settings.session.step_timeout_ms);
        let room = |settings: &Settings| {
            let app = &settings.upstream;
            (app.requests_max, app.queue_max, app.queue_timeout_ms)
        };
        // Requests under way keep their room in the old ones.
        let slots = match room(&self.settings) == room(&settings) {
            true => Arc::clone(&self.slots),
            false => Arc::new(slots(&settings)),
        };
        Self {
            app,
            keyring: Arc::new(keyring),
            recorder: Recorder {
                limits: settings.limits.clone(),
                switches: settings.switches,
                session: settings.session.clone(),
                on_failure: settings.store.on_failure,
                ..self.recorder.clone()
            },
            registry: Arc::clone(&self.registry),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            shapes: Arc::clone(&self.shapes),
            steps: Arc::clone(&self.steps),
            probes: Arc::clone(&self.probes),
            own_pages: Arc::clone(&self.own_pages),
            pace: Arc::clone(&self.pace),
            slots,
            lifecycle: self.lifecycle.clone(),
            carriers: carriers(&settings),
            marks: self.marks.clone(),
            settings,
        }
    }
}

fn slots(settings: &Settings) -> Slots {
    let app = &settings.upstream;
    Slots::new(app.requests_max, app.queue_max, app.queue_timeout_ms)
}

/// How long an answer of a probe counts, and how many there may be in a second.
fn probe_bounds(settings: &Settings) -> (i64, u32) {
    let of_scopes = settings.scopes.iter().filter_map(|scope| scope.probe.as_ref());
    let asked = settings.probe.iter().chain(of_scopes);
    let cache_ms = asked.clone().map(|probe| probe.cache_ms).min().unwrap_or_default();
    (cache_ms, asked.map(|probe| probe.rate).max().unwrap_or_default())
}

fn carriers(settings: &Settings) -> Carriers {
    match (settings.session.url_ids, settings.switches.mode) {
        (UrlIds::Strip, Mode::Enforce) => {
            let scopes = settings.scopes.iter().map(|scope| &scope.rules);
            let all: Vec<_> = std::iter::once(&settings.rules).chain(scopes).collect();
            Carriers::of(&all)
        }
        (UrlIds::Pass, _) | (_, Mode::Observe) => Carriers::default(),
    }
}

/// One data-plane thread, under whatever settings are in force.
pub struct LiveWorker {
    live: Arc<Live>,
    worker: ArcSwap<Worker>,
}

impl LiveWorker {
    /// To be called within the thread's runtime.
    pub fn new(live: Arc<Live>) -> Self {
        let proxy = live.now();
        let upstream = Upstream::new(&proxy.settings.upstream, Arc::clone(&proxy.app));
        Self { live, worker: ArcSwap::from_pointee(Worker { proxy, upstream }) }
    }

    fn worker(&self) -> Arc<Worker> {
        let worker = self.worker.load();
        let proxy = self.live.0.load();
        if Arc::ptr_eq(&worker.proxy, &proxy) {
            return Guard::into_inner(worker);
        }
        // Connections to the app stay, unless it is another app, or spoken to in another way.
        let upstream = if Arc::ptr_eq(&worker.proxy.app, &proxy.app) {
            worker.upstream.clone()
        } else {
            Upstream::new(&proxy.settings.upstream, Arc::clone(&proxy.app))
        };
        let worker = Arc::new(Worker { proxy: Guard::into_inner(proxy), upstream });
        self.worker.store(Arc::clone(&worker));
        worker
    }
}

impl Service for LiveWorker {
    async fn call(&self, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        self.worker().answer(peer, request).await
    }
}
