//! Putting the parts together: store, registry, workers, background work, admin listener; and
//! taking them down in order. No decisions here.

mod control;
mod reload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::admin;
use crate::audit::{AuditEvent, AuditLog};
use crate::clock::{Clock, SystemClock};
use crate::enforce::{self, Audience};
use crate::issue::Shapes;
use crate::keyring::{KeyError, Keyring};
use crate::lifecycle::Lifecycle;
use crate::listener::{Edge, Hooks, Workers};
use crate::metrics::{Levels, Metrics};
use crate::probes::Probes;
use crate::proxy::{Proxy, Worker};
use crate::recorder::{Recorder, RegistryFeed};
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::session::{Mode, SessionId};
use crate::settings::{ListenAddress, Settings, UrlIds};
use crate::steps::Steps;
use crate::store::{self, StoreError};
use crate::tls::TlsError;
use crate::upstream::{App, Upstream};
use crate::url::Carriers;

use self::control::AdminControl;

/// Audit events a slow listener may lag behind.
const TAP_EVENTS: usize = 1024;
/// How often what is kept no longer is dropped.
const PRUNE_INTERVAL: Duration = Duration::from_secs(2);

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot open the store {path}")]
    Store { path: PathBuf, source: StoreError },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen on {addresses}")]
    Listen { addresses: String, source: std::io::Error },
    #[error("cannot listen on {address} for the admin API")]
    AdminListen { address: SocketAddr, source: std::io::Error },
}

/// A running Headcount.
pub struct Running {
    /// Where the data plane listens, with real ports.
    pub addresses: Vec<ListenAddress>,
    /// Where the admin API listens.
    pub admin: Option<SocketAddr>,
    /// Every audit event from the start on.
    pub audit: broadcast::Receiver<AuditEvent>,
    pub metrics: Arc<Metrics>,
    pub lifecycle: Lifecycle,
    proxy: Arc<Proxy>,
    certificates: reload::Certificates,
    workers: Workers,
    background: Vec<JoinHandle<()>>,
}

/// Starts everything; returns when requests are answered.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Arc::new(Metrics::new());
    metrics.set_mode(settings.switches.mode);
    let lifecycle = Lifecycle::new();
    let (tap, audit) = broadcast::channel(TAP_EVENTS);
    let proxy = build(settings, clock, Arc::clone(&metrics), tap, lifecycle.clone()).await?;
    let admin = listen_admin(&proxy).await?;
    let certificates = reload::load(&proxy)?;
    let workers = start_workers(&proxy, certificates.clone())?;
    let addresses = workers.addresses().to_vec();
    let mut background = vec![
        tokio::spawn(sweep(Arc::clone(&proxy))),
        tokio::spawn(flush(Arc::clone(&proxy))),
        tokio::spawn(prune(Arc::clone(&proxy))),
    ];
    let admin_address = admin.as_ref().map(|(address, _)| *address);
    if let Some((_, listener)) = admin {
        background.push(tokio::spawn(serve_admin(listener, Arc::clone(&proxy))));
    }
    Ok(Running {
        addresses,
        admin: admin_address,
        audit,
        metrics,
        lifecycle,
        proxy,
        certificates,
        workers,
        background,
    })
}

async fn build(
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tap: broadcast::Sender<AuditEvent>,
    lifecycle: Lifecycle,
) -> Result<Arc<Proxy>, StartError> {
    let keyring = Keyring::open(&settings.store.key_file)?;
    let node = settings.server.node.clone();
    let audit =
        Arc::new(AuditLog::new(settings.app.clone(), node, Some(tap), Arc::clone(&metrics)));
    let registry = Arc::new(Registry::new(settings.limits.clone()));
    let feed =
        Arc::new(RegistryFeed { registry: Arc::clone(&registry), audit: Arc::clone(&audit) });
    let path = settings.store.path.clone();
    let failed = |source| StartError::Store { path: path.clone(), source };
    let store =
        store::sqlite::open(&path, settings.store.timeout_ms, feed).await.map_err(failed)?;
    let mut loaded = store.load().await.map_err(failed)?;
    let noted = loaded.sessions.iter().filter(|session| session.would_end.is_some());
    let noted: Vec<SessionId> = noted.map(|session| session.id).collect();
    let shapes = Shapes::new(std::mem::take(&mut loaded.shapes));
    registry.load(loaded);
    let recorder = Recorder {
        store,
        registry: Arc::clone(&registry),
        audit,
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
        limits: settings.limits.clone(),
        switches: settings.switches,
        session: settings.session.clone(),
    };
    let carriers = match (settings.session.url_ids, settings.switches.mode) {
        (UrlIds::Strip, Mode::Enforce) => {
            let scopes = settings.scopes.iter().map(|scope| &scope.rules);
            let all: Vec<_> = std::iter::once(&settings.rules).chain(scopes).collect();
            Carriers::of(&all)
        }
        (UrlIds::Pass, _) | (_, Mode::Observe) => Carriers::default(),
    };
    let failed = AtomicBool::new(false);
    if settings.switches.mode == Mode::Enforce {
        let noted = recorder.forget_observed(&noted).await;
        noted.map_err(|source| StartError::Store { path, source })?;
    }
    let steps = Steps::new(settings.session.step_timeout_ms);
    let of_scopes = settings.scopes.iter().filter_map(|scope| scope.probe.as_ref());
    let asked = settings.probe.iter().chain(of_scopes);
    let cache_ms = asked.clone().map(|probe| probe.cache_ms).min().unwrap_or_default();
    let probes = Probes::new(cache_ms, asked.map(|probe| probe.rate).max().unwrap_or_default());
    Ok(Arc::new(Proxy {
        settings,
        keyring,
        registry,
        recorder,
        metrics,
        clock,
        shapes,
        steps,
        probes,
        lifecycle,
        carriers,
        failed,
    }))
}

fn read_levels(proxy: &Proxy, edge: &Arc<Edge>) {
    let (registry, edge) = (Arc::clone(&proxy.registry), Arc::clone(edge));
    let store = Arc::clone(&proxy.recorder.store);
    proxy.metrics.read_levels(move || {
        let counts = registry.counts();
        Levels {
            sessions_live: counts.live as u64,
            users_live: counts.users as u64,
            tombstones: counts.tombstones as u64,
            keys: counts.keys as u64,
            untracked: registry.untracked_count() as u64,
            store_statements: store.statements(),
            connections: edge.connections_open() as u64,
        }
    });
}

fn start_workers(
    proxy: &Arc<Proxy>,
    certificates: reload::Certificates,
) -> Result<Workers, StartError> {
    let refused = Arc::clone(proxy);
    let hooks = Hooks {
        render: enforce::refuse_raw,
        answer: |refusal| enforce::refuse(refusal, Audience::Page, "-"),
        on_refused: Box::new(move |refusal, peer| {
            if refusal == Refusal::InternalError {
                // The edge reports this for a panic alone.
                refused.metrics.panics.inc();
            }
            refused.refused(refusal, peer, "-");
        }),
    };
    let settings = &proxy.settings.server;
    let edge = Arc::new(Edge::new(settings, certificates.clients, hooks, proxy.lifecycle.clone()));
    read_levels(proxy, &edge);
    let shared = Arc::clone(proxy);
    let app = App::new(&proxy.settings.upstream, certificates.app);
    let make = move |_| {
        let upstream = Upstream::new(&shared.settings.upstream, Arc::clone(&app));
        Arc::new(Worker { proxy: Arc::clone(&shared), upstream })
    };
    Workers::start(settings, &edge, make).map_err(|source| {
        let addresses: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        StartError::Listen { addresses: addresses.join(", "), source }
    })
}

async fn listen_admin(proxy: &Arc<Proxy>) -> Result<Option<(SocketAddr, TcpListener)>, StartError> {
    let Some(admin) = &proxy.settings.admin else {
        return Ok(None);
    };
    let address = admin.listen;
    let failed = |source| StartError::AdminListen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Some((address, listener)))
}

async fn serve_admin(listener: TcpListener, proxy: Arc<Proxy>) {
    let tokens = proxy.settings.admin.as_ref().map(|admin| admin.tokens.clone());
    let metrics = Arc::clone(&proxy.metrics);
    let exit = proxy.lifecycle.exit_token().clone();
    let control = Arc::new(AdminControl { proxy });
    let served = admin::serve(listener, control, metrics, tokens.unwrap_or_default(), exit).await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// Ends what has timed out.
async fn sweep(proxy: Arc<Proxy>) {
    let interval = Duration::from_millis(proxy.settings.session.sweep_interval_ms);
    while pause(&proxy, interval).await {
        loop {
            let result = proxy.recorder.sweep().await;
            let more = matches!(result, Ok(true));
            note(&proxy, result.map(drop));
            if !more {
                break;
            }
        }
    }
}

/// Writes last-seen times.
async fn flush(proxy: Arc<Proxy>) {
    let interval = Duration::from_millis(proxy.settings.session.flush_interval_ms);
    while pause(&proxy, interval).await {
        note(&proxy, proxy.recorder.flush().await);
    }
}

/// Drops what is kept no longer.
async fn prune(proxy: Arc<Proxy>) {
    while pause(&proxy, PRUNE_INTERVAL).await {
        note(&proxy, proxy.recorder.prune().await);
    }
}

/// False when it is time to leave.
async fn pause(proxy: &Proxy, interval: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(interval) => true,
        () = proxy.lifecycle.drain_token().cancelled() => false,
    }
}

fn note(proxy: &Proxy, result: Result<(), StoreError>) {
    match result {
        Ok(()) => {}
        Err(StoreError::Stopped) => {
            // Half alive is worse than dead: nothing could be revoked any more.
            tracing::error!("the store has stopped; leaving");
            proxy.failed.store(true, Ordering::Release);
            proxy.lifecycle.exit();
        }
        Err(error) => tracing::warn!(%error, "background work on the store failed"),
    }
}

impl Running {
    /// Drains: no new connections, requests in flight finish, then everything is written.
    pub async fn shutdown(self) {
        self.lifecycle.drain();
        let grace = Duration::from_millis(self.proxy.settings.server.shutdown_grace_ms);
        let lifecycle = self.lifecycle.clone();
        let workers = self.workers;
        // The workers keep to the grace by themselves; this is the backstop.
        let joined = tokio::task::spawn_blocking(move || workers.join());
        if tokio::time::timeout(grace + Duration::from_secs(5), joined).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        lifecycle.exit();
        for task in self.background {
            // They end with the lifecycle; one that panicked has nothing left to do.
            let _ = task.await;
        }
        if let Err(error) = self.proxy.recorder.flush().await {
            tracing::warn!(%error, "last-seen times of the last seconds are lost");
        }
        self.proxy.recorder.store.close().await;
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal leaves at once. SIGHUP reloads
    /// certificates. False if it left because something failed that cannot be mended.
    pub async fn serve(self) -> bool {
        let lifecycle = self.lifecycle.clone();
        let signals = tokio::spawn(async move {
            if let Err(error) = lifecycle.watch_signals().await {
                tracing::error!(%error, "signals cannot be watched");
                lifecycle.drain();
            }
        });
        let reloads =
            tokio::spawn(reload::on_signals(Arc::clone(&self.proxy), self.certificates.clone()));
        self.lifecycle.drain_token().cancelled().await;
        let proxy = Arc::clone(&self.proxy);
        self.shutdown().await;
        signals.abort();
        reloads.abort();
        !proxy.failed.load(Ordering::Acquire)
    }
}
