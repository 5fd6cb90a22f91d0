//! Logging a session out at the app itself, with a request of our own: for sessions that have ended
//! here, and for logins that were not admitted. Best effort; the limit never depends on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, REFERER};
use http::{Method, Request, StatusCode};

use super::{Exchange, Worker, app_session_is_gone};
use crate::body::{Body, RequestBody};
use crate::client::Caller;
use crate::cookies;
use crate::credentials::{self, Bare};
use crate::keyring;
use crate::metrics::AppLogoutOutcome;
use crate::policy::Permit;
use crate::refusal::Refusal;
use crate::registry::Entry;
use crate::session::{KeyUse, Mode};
use crate::settings::AppLogout;

impl Worker {
    /// The dead token is in hand: end the app's own session too, once.
    pub(super) fn log_out_dead(&self, exchange: &Exchange, entry: &Arc<Entry>) {
        let settings = &self.proxy.settings;
        let gone =
            exchange.presented.ending.as_ref().is_none_or(|end| app_session_is_gone(end.reason));
        if settings.switches.mode == Mode::Observe
            || settings.enforcement.app_logout.is_none()
            || gone
            || exchange.presented.dead.is_empty()
            || self.shared_with_a_live_session(&exchange.presented.dead)
            || !entry.claim_app_logout()
        {
            return;
        }
        self.log_out_at_app(exchange.caller.clone(), exchange.presented.dead.clone());
    }

    /// Some apps give two devices the same value: logging out one would log out both.
    fn shared_with_a_live_session(&self, dead: &[Bare]) -> bool {
        dead.iter().any(|bare| {
            let (key, _) =
                credentials::value_keys(&self.proxy.keyring, &self.proxy.settings.app, bare);
            self.proxy.registry.lookup(key).is_some_and(|found| {
                found.entry.ending().is_none() && found.key_use != KeyUse::Superseded
            })
        })
    }

    /// Sends the logout request with these credentials, in the background.
    pub(super) fn log_out_at_app(&self, caller: Caller, credentials: Vec<Bare>) {
        let Some(template) = self.proxy.settings.enforcement.app_logout.clone() else {
            return;
        };
        let worker = self.clone();
        self.proxy.lifecycle.spawn(async move {
            let outcome = match worker.send_logout(&template, &caller, &credentials).await {
                Ok(status) if !status.is_client_error() && !status.is_server_error() => {
                    AppLogoutOutcome::Done
                }
                Ok(status) => {
                    tracing::warn!(%status, path = template.path, "the app refused the logout");
                    AppLogoutOutcome::Refused
                }
                Err(refusal) => {
                    tracing::warn!(reason = refusal.code(), "the logout did not reach the app");
                    AppLogoutOutcome::Failed
                }
            };
            worker.proxy.metrics.app_logouts.inc(outcome);
        });
    }

    async fn send_logout(
        &self,
        template: &AppLogout,
        caller: &Caller,
        credentials: &[Bare],
    ) -> Result<StatusCode, Refusal> {
        let mut request = Request::builder()
            .method(
                Method::from_bytes(template.method.as_bytes())
                    .map_err(|_| Refusal::InternalError)?,
            )
            .uri(&*template.path)
            .body(RequestBody::Full(Bytes::new()))
            .map_err(|_| Refusal::InternalError)?
            .into_parts();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Refusal::InternalError);
        let headers = &mut request.0.headers;
        let origin = format!("{}://{}", caller.scheme, caller.host);
        headers.insert(HOST, value(&caller.host)?);
        headers.insert(REFERER, value(&format!("{origin}{}", template.path))?);
        headers.insert(ORIGIN, value(&origin)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut cookies: Vec<(&str, &[u8])> =
            credentials.iter().map(|bare| (&*bare.name, &*bare.value)).collect();
        // Django takes 32 letters and digits as cookie and header alike.
        let token = keyring::hex(&keyring::random::<16>().map_err(|_| Refusal::InternalError)?);
        if let Some(csrf) = &template.csrf {
            let name = HeaderName::from_bytes(csrf.header.as_bytes());
            headers.insert(name.map_err(|_| Refusal::InternalError)?, value(&token)?);
            cookies.push((&csrf.cookie, token.as_bytes()));
        }
        let line = cookies::join(cookies.into_iter(), &[]);
        let (mut parts, body) = (request.0, request.1);
        self.proxy.prepare(&mut parts, caller, line.as_deref(), false)?;
        let response = self.send(Permit::own(), Request::from_parts(parts, body)).await?;
        let status = response.status();
        let idle = Duration::from_millis(self.proxy.settings.upstream.body_idle_timeout_ms);
        drain(Body::upstream(response.into_body(), idle, None, None)).await;
        Ok(status)
    }
}

/// Reads a short answer to its end, so that the connection can be used again.
async fn drain(body: Body) {
    use http_body_util::{BodyExt as _, Limited};
    let _ = Limited::new(body, 64 * 1024).collect().await;
}
