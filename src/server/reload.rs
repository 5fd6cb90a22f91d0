//! Certificates: read at the start, read again on SIGHUP. The rest of the configuration stays as it
//! was at the start.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::metrics::ReloadOutcome;
use crate::proxy::Proxy;
use crate::tls::{AppTls, Expiry, Tls, TlsError};

/// What TLS needs, on either side.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) clients: Option<Arc<Tls>>,
    pub(super) app: Option<Arc<AppTls>>,
}

pub(super) fn load(proxy: &Proxy) -> Result<Certificates, TlsError> {
    let (server, upstream) = (&proxy.settings.server, &proxy.settings.upstream);
    let mut certificates = Certificates { clients: None, app: None };
    if let Some(settings) = &server.tls {
        let (tls, expiries) = Tls::load(settings, server.http2)?;
        warn_of_expired(proxy, &expiries);
        certificates.clients = Some(Arc::new(tls));
    }
    if let Some(settings) = &upstream.tls {
        certificates.app = Some(Arc::new(AppTls::load(settings, upstream.http_version)?));
    }
    Ok(certificates)
}

/// Reloads at each SIGHUP, for ever.
pub(super) async fn on_signals(proxy: Arc<Proxy>, certificates: Certificates) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be watched");
            return;
        }
    };
    while hangup.recv().await.is_some() {
        reload(&proxy, &certificates);
    }
}

fn reload(proxy: &Proxy, certificates: &Certificates) {
    if certificates.clients.is_none() && certificates.app.is_none() {
        tracing::info!("nothing to reload: there are no certificates");
        return;
    }
    match read_again(certificates) {
        Ok(expiries) => {
            proxy.metrics.reloads.inc(ReloadOutcome::Done);
            tracing::info!("certificates reloaded");
            warn_of_expired(proxy, &expiries);
        }
        Err(error) => {
            proxy.metrics.reloads.inc(ReloadOutcome::Failed);
            tracing::error!(%error, "certificates not reloaded; the old ones stay in use");
        }
    }
}

/// All or nothing: what is towards clients changes only when what is towards the app could.
fn read_again(certificates: &Certificates) -> Result<Vec<Expiry>, TlsError> {
    let fresh = certificates.app.as_ref().map(|tls| tls.read_again()).transpose()?;
    let expiries = certificates.clients.as_ref().map(|tls| tls.reload()).transpose()?;
    if let (Some(tls), Some(fresh)) = (&certificates.app, fresh) {
        tls.use_from_now(fresh);
    }
    Ok(expiries.unwrap_or_default())
}

fn warn_of_expired(proxy: &Proxy, expiries: &[Expiry]) {
    let now = proxy.clock.now();
    for Expiry { path, not_after } in expiries.iter().filter(|expiry| expiry.not_after < now) {
        tracing::warn!(certificate = %path.display(), %not_after, "certificate has expired");
    }
}
