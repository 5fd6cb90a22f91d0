//! Another configuration while it runs: read, checked, and put in force as a whole or not at all.
//! What it consists of is the business of `config.rs`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::Mutex;

use super::{refit, storage, supervisor};
use crate::admin::Tokens;
use crate::config::{self, Fixed, Report};
use crate::descriptors::Room;
use crate::geo::{Database, GeoError};
use crate::keyring::{KeyError, Keyring};
use crate::listener::Edge;
use crate::metrics::ReloadOutcome;
use crate::proxy::{Live, Proxy};
use crate::session::Mode;
use crate::settings::Settings;
use crate::store::StoreError;
use crate::tls::{AppTls, AppTlsFiles, Expiry, Tls, TlsError};
use crate::upstream::App;

/// A file that somebody writes is left alone until it has been the same for so long.
const SETTLED: Duration = Duration::from_millis(50);
/// So often it is looked at again.
const LOOKS_MAX: usize = 40;
/// Longest pause between two looks for what requests under the old settings have left.
const TIDY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why the old configuration stays.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    #[error("there is no configuration file to read again")]
    NoFile,
    #[error("it is being written")]
    Unsettled,
    #[error("{0}")]
    Wrong(Report),
    #[error("{}", .0.iter().map(Fixed::to_string).collect::<Vec<_>>().join("; "))]
    Fixed(Vec<Fixed>),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Geo(#[from] GeoError),
    #[error("the store does not take the key over: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Interrupted(tokio::task::JoinError),
}

/// Puts configurations in force, one at a time.
pub(super) struct Reloader {
    pub(super) live: Arc<Live>,
    pub(super) edge: Arc<Edge>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) tokens: Arc<Tokens>,
    /// Where the configuration is from.
    pub(super) file: Option<PathBuf>,
    /// As it was at the start: connections that are open now do not count twice.
    pub(super) room: Option<Room>,
    pub(super) connections_written: usize,
    pub(super) turn: Mutex<()>,
}

impl Reloader {
    /// Reloads at each signal, for ever. Signals that come in the meantime count as one.
    pub(super) async fn on_signals(&self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            // It says itself what came of it.
            let _ = self.reload().await;
        }
    }

    /// Reads the file, and those it names, and puts them in force; gives what tells this
    /// configuration from others.
    pub(super) async fn reload(&self) -> Result<String, ReloadError> {
        let _turn = self.turn.lock().await;
        let metrics = Arc::clone(&self.live.now().metrics);
        supervisor::reloading();
        let done = self.attempt().await;
        supervisor::ready();
        match &done {
            Ok(hash) => {
                metrics.reloads.inc(ReloadOutcome::Done);
                tracing::info!(hash, "configuration reloaded");
            }
            Err(error) => {
                metrics.reloads.inc(ReloadOutcome::Failed);
                metrics.config_refused();
                tracing::error!(%error, "configuration not reloaded; the old one stays in force");
            }
        }
        done
    }

    async fn attempt(&self) -> Result<String, ReloadError> {
        let file = self.file.clone().ok_or(ReloadError::NoFile)?;
        let mut settings = settled(&file).await?;
        let old = self.live.now();
        refit(&mut settings, &old.settings, self.connections_written, self.room);
        let fixed = config::fixed(&old.settings, &settings);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed(fixed));
        }
        let tls = load_tls(&settings)?;
        let (app, files) = app_again(&old, &settings)?;
        let places = load_places(&settings).await?;
        let keyring = old.keyring.again(&settings.store.key_file)?;
        if !keyring.accepts_all_of(&old.keyring) {
            // What only the key that goes knew is known by the new one: to all, before it goes.
            old.recorder.flush().await?;
        }
        old.recorder.store.use_key(&storage::key_checks(&keyring)).await?;
        // Nothing fails from here on.
        if let (Some(tls), Some((new, expiries))) = (&self.tls, &tls) {
            tls.replace(new);
            warn_of_expired(&old, expiries);
        }
        if let (Some(tls), Some(files)) = (app.tls(), files) {
            tls.use_from_now(files);
        }
        old.recorder.audit.places.replace(places);
        Ok(self.put_in_force(&old, settings, app, keyring))
    }

    fn put_in_force(
        &self,
        old: &Arc<Proxy>,
        settings: Settings,
        app: Arc<App>,
        keyring: Keyring,
    ) -> String {
        let hash = settings.fingerprint.clone();
        let begins_enforcing =
            (old.settings.switches.mode, settings.switches.mode) == (Mode::Observe, Mode::Enforce);
        self.edge.renew(&settings.server, self.tls.clone());
        if let Some(admin) = &settings.admin {
            self.tokens.replace(&admin.tokens, admin.failures_max);
        }
        if keyring.fingerprint() != old.keyring.fingerprint() {
            let (now, before) = (keyring.fingerprint(), old.keyring.fingerprint());
            tracing::info!(now, before, "another key is in use");
        }
        let new = old.with(settings, app, keyring);
        announce(&new);
        self.live.replace(new);
        // After the request path has the new settings, so that none of its sessions has old limits.
        let new = self.live.now();
        new.registry.set_limits(new.settings.limits.clone());
        if begins_enforcing {
            tokio::spawn(forget_observed(Arc::clone(&self.live), Arc::downgrade(old)));
        }
        hash
    }
}

/// Shows in the metrics what is in force, and warns of what is looser than it should be.
pub(super) fn announce(proxy: &Proxy) {
    proxy.metrics.set_mode(proxy.settings.switches.mode);
    proxy.metrics.set_config(&proxy.settings.fingerprint, proxy.clock.now().0 / 1000);
    for key in &proxy.settings.unsafe_keys {
        tracing::warn!(key, "an unsafe key is on: see what it opens in docs/configuration.md");
    }
    let server = &proxy.settings.server;
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        tracing::warn!(
            "proxy_protocol is required of everybody: whoever connects says which address is the              client's, unless server.trusted_proxies names who may"
        );
    }
}

/// Enforcing has begun. Requests that began before may still note what would have ended.
async fn forget_observed(live: Arc<Live>, old: Weak<Proxy>) {
    let mut pause = Duration::from_secs(1);
    loop {
        let last = old.strong_count() == 0;
        let proxy = live.now();
        if !proxy.recorder.enforces() {
            return;
        }
        let noted = proxy.registry.observed();
        let forgotten = proxy.recorder.forget_observed(&noted).await;
        if let Err(error) = &forgotten {
            tracing::warn!(%error, "what observing has noted is not forgotten yet");
        }
        if last && forgotten.is_ok() {
            return;
        }
        let life = proxy.lifecycle.clone();
        drop(proxy);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = life.drain_token().cancelled() => return,
        }
        pause = (pause * 2).min(TIDY_PAUSE_MAX);
    }
}

/// The settings, once the file is the same at two looks: who writes it in place, instead of
/// renaming a new one over it, leaves half of it to be read.
async fn settled(file: &Path) -> Result<Settings, ReloadError> {
    let mut before = None;
    for _ in 0..LOOKS_MAX {
        let path = file.to_owned();
        let read = move || (std::fs::read(&path).ok(), config::load(&path));
        let read = tokio::task::spawn_blocking(read).await;
        let (text, settings) = read.map_err(ReloadError::Interrupted)?;
        if before.as_ref() == Some(&text) {
            return settings.map_err(ReloadError::Wrong);
        }
        before = Some(text);
        tokio::time::sleep(SETTLED).await;
    }
    Err(ReloadError::Unsettled)
}

/// Where the app is, and what TLS with it needs.
pub(super) fn load_app(settings: &Settings) -> Result<Arc<App>, TlsError> {
    let upstream = &settings.upstream;
    let tls = upstream.tls.as_ref();
    let tls = tls.map(|files| AppTls::load(files, upstream.http_version)).transpose()?;
    Ok(App::new(upstream, tls.map(Arc::new)))
}

/// The same app with its files read again, or another one.
fn app_again(
    old: &Proxy,
    settings: &Settings,
) -> Result<(Arc<App>, Option<AppTlsFiles>), TlsError> {
    if old.settings.upstream != settings.upstream {
        return Ok((load_app(settings)?, None));
    }
    let files = old.app.tls().map(AppTls::read_again).transpose()?;
    Ok((Arc::clone(&old.app), files))
}

/// What tells where addresses are, if anything is to. It may take a moment: it is read whole.
pub(super) async fn load_places(settings: &Settings) -> Result<Option<Database>, GeoError> {
    let Some(path) = settings.geo_database.clone() else { return Ok(None) };
    let file = path.clone();
    match tokio::task::spawn_blocking(move || Database::open(&file)).await {
        Ok(opened) => opened.map(Some),
        Err(error) => Err(GeoError::Format { path, what: error.to_string() }),
    }
}

/// The certificates, if there are to be any.
pub(super) fn load_tls(settings: &Settings) -> Result<Option<(Tls, Vec<Expiry>)>, TlsError> {
    let server = &settings.server;
    server.tls.as_ref().map(|files| Tls::load(files, server.http2)).transpose()
}

pub(super) fn warn_of_expired(proxy: &Proxy, expiries: &[Expiry]) {
    let now = proxy.clock.now();
    for Expiry { path, not_after } in expiries.iter().filter(|expiry| expiry.not_after < now) {
        tracing::warn!(certificate = %path.display(), %not_after, "certificate has expired");
    }
}
