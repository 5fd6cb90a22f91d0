//! Putting the parts together: store, registry, workers, background work, admin listener; and
//! taking them down in order. No decisions here.

mod background;
mod control;
mod reload;
mod storage;
mod supervisor;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, broadcast};
use tokio::task::JoinHandle;

use crate::admin::{self, Tokens};
use crate::audit::{AuditEvent, AuditLog};
use crate::clock::{Clock, SystemClock};
use crate::descriptors::{Budget, Room, Wanted};
use crate::enforce::{self, Audience};
use crate::evictions::Evictions;
use crate::geo::{GeoError, Places};
use crate::issue::Shapes;
use crate::keyring::{KeyError, Keyring};
use crate::lifecycle::Lifecycle;
use crate::listener::{Edge, Hooks, Inherited, Workers};
use crate::metrics::{Levels, Metrics};
use crate::pace::Pace;
use crate::proxy::{Lasting, Live, LiveWorker, Proxy};
use crate::recorder::RegistryFeed;
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::settings::{ListenAddress, Settings};
use crate::store::{Loaded, Store, StoreError};
use crate::tls::{Tls, TlsError};
use crate::user_limits::UserLimits;

use self::control::AdminControl;
use self::reload::Reloader;
pub use self::storage::migrate;

/// Audit events a slow listener may lag behind.
const TAP_EVENTS: usize = 1024;
/// For each reason; all are counted.
const REFUSALS_LOGGED_PER_SECOND: u32 = 200;

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot open the store {place}")]
    Store { place: String, source: StoreError },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Geo(#[from] GeoError),
    #[error("cannot listen on {addresses}")]
    Listen { addresses: String, source: std::io::Error },
    #[error(
        "the service manager passed on a socket for {0}, where server.listen and admin.listen have nothing"
    )]
    Left(String),
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
    live: Arc<Live>,
    reloader: Arc<Reloader>,
    workers: Workers,
    background: Vec<JoinHandle<()>>,
}

/// Starts everything; returns when requests are answered. `file` is where the settings are from, if
/// they can be read again; `inherited` are sockets to use instead of new ones.
pub async fn start(
    mut settings: Settings,
    file: Option<PathBuf>,
    mut inherited: Inherited,
    lifecycle: Lifecycle,
) -> Result<Running, StartError> {
    let (room, connections_written) = (room(), settings.server.limits.connections_max);
    if let Some(budget) = fit(&mut settings, room) {
        tracing::warn!(
            open_files = budget.limit,
            connections = budget.clients,
            upstream_requests = budget.app,
            "the limit of open files allows no more; raise it (LimitNOFILE, ulimit -n)"
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Arc::new(Metrics::new());
    let (tap, audit) = broadcast::channel(TAP_EVENTS);
    let proxy = build(settings, clock, Arc::clone(&metrics), tap, lifecycle).await?;
    let admin = listen_admin(&proxy, &mut inherited)?;
    let tls = reload::load_tls(&proxy.settings)?;
    reload::announce(&proxy);
    let tls = tls.map(|(tls, expiries)| {
        reload::warn_of_expired(&proxy, &expiries);
        Arc::new(tls)
    });
    let live = Arc::new(Live::new(proxy));
    let edge = make_edge(&live, tls.clone());
    let workers = start_workers(&live, &mut inherited, &edge)?;
    let left: Vec<String> = inherited.left().map(ToString::to_string).collect();
    if !left.is_empty() {
        live.now().lifecycle.exit();
        return Err(StartError::Left(left.join(", ")));
    }
    let tokens = live
        .now()
        .settings
        .admin
        .as_ref()
        .map(|admin| Tokens::new(&admin.tokens, admin.failures_max));
    let reloader = Arc::new(Reloader {
        live: Arc::clone(&live),
        edge,
        tls,
        tokens: Arc::new(tokens.unwrap_or_else(|| Tokens::new(&[], 10))),
        file,
        room,
        connections_written,
        turn: Mutex::default(),
    });
    let mut background = background::start(&live);
    let life = live.now().lifecycle.clone();
    background.push(tokio::spawn(supervisor::keep_alive(Arc::clone(&reloader.edge), life)));
    let admin_address = admin.as_ref().map(|(address, _)| *address);
    if let Some((_, listener)) = admin {
        background.push(tokio::spawn(serve_admin(listener, Arc::clone(&reloader))));
    }
    Ok(Running {
        addresses: workers.addresses().to_vec(),
        admin: admin_address,
        audit,
        metrics,
        live,
        reloader,
        workers,
        background,
    })
}

/// Lowers the limits to what open files suffice for, so that whoever comes too many is told, and the
/// store and the admin listener can always open what they need; the budget if that was needed.
fn fit(settings: &mut Settings, room: Option<Room>) -> Option<Budget> {
    let (server, upstream) = (&mut settings.server, &mut settings.upstream);
    let (connections, requests) = (&mut server.limits.connections_max, &mut upstream.requests_max);
    let wanted = Wanted { clients: *connections, app: *requests };
    let idle = upstream.idle_connections_max;
    let budget = room?.budget(server.workers, idle, wanted);
    if budget.clients >= *connections && budget.app >= *requests {
        return None;
    }
    (*connections, *requests) = (budget.clients, budget.app);
    Some(budget)
}

/// The same when settings are read again: the connections of clients stay as they were divided at
/// the start, if as many are wanted as then.
fn refit(new: &mut Settings, old: &Settings, written: usize, room: Option<Room>) {
    let divided = old.server.limits.connections_max;
    let connections = &mut new.server.limits.connections_max;
    if *connections == written {
        *connections = divided;
    }
    let Some(room) = room else { return };
    let wanted = Wanted { clients: divided, app: new.upstream.requests_max };
    let idle = new.upstream.idle_connections_max;
    new.upstream.requests_max = room.budget(old.server.workers, idle, wanted).app;
}

/// How many files may be open, as far as the system tells.
fn room() -> Option<Room> {
    Room::take()
        .inspect_err(|error| tracing::warn!(%error, "the limit of open files is not known"))
        .ok()
}

async fn build(
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tap: broadcast::Sender<AuditEvent>,
    lifecycle: Lifecycle,
) -> Result<Proxy, StartError> {
    let keyring = Keyring::open(&settings.store.key_file)?;
    let node = settings.server.node.clone();
    let places = Arc::new(Places::default());
    places.replace(reload::load_places(&settings).await?);
    let app = settings.app.clone();
    let audit = AuditLog::new(app, node, Some(tap), Arc::clone(&metrics), places);
    let audit = Arc::new(audit);
    let registry = Arc::new(Registry::new(settings.limits.clone()));
    let evictions = Arc::new(Evictions::default());
    let user_limits = Arc::new(UserLimits::default());
    let feed = Arc::new(RegistryFeed {
        registry: Arc::clone(&registry),
        audit: Arc::clone(&audit),
        evictions: Arc::clone(&evictions),
        user_limits: Arc::clone(&user_limits),
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
    });
    let place = settings.store.place.to_string();
    let failed = |source| StartError::Store { place: place.clone(), source };
    let store = storage::open(&settings, &keyring, feed).await.map_err(failed)?;
    let shapes = load(&*store, &registry, &user_limits).await.map_err(failed)?;
    let pace = Pace::new(Refusal::ALL.len(), REFUSALS_LOGGED_PER_SECOND);
    let app = reload::load_app(&settings)?;
    let lasting = Lasting {
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
    };
    let proxy = Proxy::new(settings, lasting);
    if proxy.recorder.enforces() {
        let noted = proxy.registry.observed();
        proxy.recorder.forget_observed(&noted).await.map_err(failed)?;
    }
    Ok(proxy)
}

/// What the store holds goes into memory a page at a time.
async fn load(
    store: &dyn Store,
    registry: &Arc<Registry>,
    user_limits: &Arc<UserLimits>,
) -> Result<Shapes, StoreError> {
    let shapes = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (into, limits, seen) = (Arc::clone(registry), Arc::clone(user_limits), Arc::clone(&shapes));
    let take = move |page: Loaded| {
        into.load(&page);
        limits.put(&page.limits);
        seen.lock().extend(page.shapes);
    };
    store.load_pages(Box::new(take)).await?;
    registry.loaded();
    let shapes = std::mem::take(&mut *shapes.lock());
    Ok(Shapes::new(shapes))
}

fn read_levels(live: &Arc<Live>, edge: &Arc<Edge>) {
    let (shared, proxy) = (Arc::clone(live), live.now());
    let (registry, edge) = (Arc::clone(&proxy.registry), Arc::clone(edge));
    let store = Arc::clone(&proxy.recorder.store);
    proxy.metrics.read_levels(move || {
        let slots = Arc::clone(&shared.now().slots);
        let counts = registry.counts();
        Levels {
            sessions_live: counts.live as u64,
            users_live: counts.users as u64,
            tombstones: counts.tombstones as u64,
            keys: counts.keys as u64,
            untracked: registry.untracked_count() as u64,
            store_statements: store.statements(),
            store_lag: store.lag(),
            connections: edge.connections_open() as u64,
            upstream_requests: slots.used() as u64,
            upstream_queue: slots.waiting() as u64,
        }
    });
}

fn make_edge(live: &Arc<Live>, tls: Option<Arc<Tls>>) -> Arc<Edge> {
    let proxy = live.now();
    let [raw, answered, refused] = [(); 3].map(|()| Arc::clone(live));
    let hooks = Hooks {
        render: Box::new(move |refusal| enforce::refuse_raw(&raw.now().settings.pages, refusal)),
        answer: Box::new(move |refusal| {
            let pages = &answered.now().settings.pages;
            enforce::refuse(pages, refusal, Audience::Page(pages.language), "-")
        }),
        on_refused: Box::new(move |refusal, peer| {
            let proxy = refused.now();
            if refusal == Refusal::InternalError {
                // The edge reports this for a panic alone.
                proxy.metrics.panics.inc();
            }
            proxy.refused(refusal, peer, "-");
        }),
    };
    let edge = Edge::new(&proxy.settings.server, tls, hooks, proxy.lifecycle.clone());
    let edge = Arc::new(edge);
    read_levels(live, &edge);
    edge
}

fn start_workers(
    live: &Arc<Live>,
    inherited: &mut Inherited,
    edge: &Arc<Edge>,
) -> Result<Workers, StartError> {
    let proxy = live.now();
    let settings = &proxy.settings.server;
    let live = Arc::clone(live);
    let make = move |_| Arc::new(LiveWorker::new(Arc::clone(&live)));
    Workers::start(settings, inherited, edge, make).map_err(|source| {
        let addresses: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        StartError::Listen { addresses: addresses.join(", "), source }
    })
}

fn listen_admin(
    proxy: &Proxy,
    inherited: &mut Inherited,
) -> Result<Option<(SocketAddr, TcpListener)>, StartError> {
    let Some(admin) = &proxy.settings.admin else {
        return Ok(None);
    };
    let mut listen = || {
        let listener = match inherited.take_tcp(admin.listen) {
            Some(listener) => listener,
            None => std::net::TcpListener::bind(admin.listen)?,
        };
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
    };
    let failed = |source| StartError::AdminListen { address: admin.listen, source };
    listen().map(Some).map_err(failed)
}

async fn serve_admin(listener: TcpListener, reloader: Arc<Reloader>) {
    let proxy = reloader.live.now();
    let (metrics, life) = (Arc::clone(&proxy.metrics), proxy.lifecycle.clone());
    let audit = Arc::clone(&proxy.recorder.audit);
    drop(proxy);
    let exit = life.exit_token().clone();
    let tokens = Arc::clone(&reloader.tokens);
    let control = Arc::new(AdminControl {
        live: Arc::clone(&reloader.live),
        reloader,
        audit,
        counted: parking_lot::Mutex::default(),
    });
    if let Err(error) = admin::serve(listener, control, metrics, tokens, exit).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

impl Running {
    /// Drains: no new connections, requests in flight finish, then everything is written.
    pub async fn shutdown(self) {
        let proxy = self.live.now();
        let lifecycle = proxy.lifecycle.clone();
        lifecycle.drain();
        let grace = Duration::from_millis(proxy.settings.server.shutdown_grace_ms);
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
        if let Err(error) = proxy.recorder.flush().await {
            tracing::warn!(%error, "last-seen times of the last seconds are lost");
        }
        proxy.recorder.store.close().await;
    }

    /// Serves until the lifecycle stops, then drains. `hangup` reloads the configuration. False if
    /// it left because something failed that cannot be mended.
    pub async fn serve(self, hangup: Signal) -> bool {
        let lifecycle = self.live.now().lifecycle.clone();
        let reloader = Arc::clone(&self.reloader);
        let reloads = tokio::spawn(async move { reloader.on_signals(hangup).await });
        supervisor::ready();
        lifecycle.stop_token().cancelled().await;
        supervisor::stopping();
        reloads.abort();
        let delay = self.live.now().settings.server.shutdown_delay_ms;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay)) => {}
            () = lifecycle.drain_token().cancelled() => {}
        }
        self.shutdown().await;
        !lifecycle.has_failed()
    }
}
