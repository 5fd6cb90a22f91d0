//! Certificates: read at the start, read again on SIGHUP. The rest of the configuration stays as it
//! was at the start.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::metrics::ReloadOutcome;
use crate::proxy::Proxy;
use crate::tls::{Expiry, Tls, TlsError};

pub(super) fn load(proxy: &Proxy) -> Result<Option<Arc<Tls>>, TlsError> {
    let server = &proxy.settings.server;
    let Some(settings) = &server.tls else {
        return Ok(None);
    };
    let (tls, expiries) = Tls::load(settings, server.http2)?;
    warn_of_expired(proxy, &expiries);
    Ok(Some(Arc::new(tls)))
}

/// Reloads at each SIGHUP, for ever.
pub(super) async fn on_signals(proxy: Arc<Proxy>, tls: Option<Arc<Tls>>) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be watched");
            return;
        }
    };
    while hangup.recv().await.is_some() {
        reload(&proxy, tls.as_deref());
    }
}

fn reload(proxy: &Proxy, tls: Option<&Tls>) {
    let Some(tls) = tls else {
        tracing::info!("nothing to reload: there are no certificates");
        return;
    };
    match tls.reload() {
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

fn warn_of_expired(proxy: &Proxy, expiries: &[Expiry]) {
    let now = proxy.clock.now();
    for Expiry { path, not_after } in expiries.iter().filter(|expiry| expiry.not_after < now) {
        tracing::warn!(certificate = %path.display(), %not_after, "certificate has expired");
    }
}
