//! Logging a session out at the app itself, with a request of our own: for sessions that have ended
//! here, and for logins that were not admitted. Best effort; the limit never depends on it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER};

use super::own_request::OwnRequest;
use super::{Exchange, Worker, app_session_is_gone};
use crate::body::Body;
use crate::client::Caller;
use crate::credentials::{Bare, Keys};
use crate::keyring;
use crate::metrics::AppLogoutOutcome;
use crate::refusal::Refusal;
use crate::registry::Entry;
use crate::rules::{Role, RuleSet};
use crate::session::{KeyUse, Mode};
use crate::settings::AppLogout;

impl Worker {
    /// The dead token is in hand: end the app's own session too, once.
    pub(super) fn log_out_dead(&self, exchange: &Exchange, entry: &Arc<Entry>) {
        let settings = &self.proxy.settings;
        let gone =
            exchange.presented.ending.as_ref().is_none_or(|end| app_session_is_gone(end.reason));
        if settings.switches.mode == Mode::Observe
            || self.proxy.site(exchange).app_logout.is_none()
            || gone
            || !self.can_log_out(exchange.scope, &exchange.presented.dead)
            || self.shared_with_a_live_session(exchange, &exchange.presented.dead)
            || !entry.claim_app_logout()
        {
            return;
        }
        self.log_out_at_app(
            exchange.scope,
            exchange.caller.clone(),
            exchange.presented.dead.clone(),
        );
    }

    /// A session that its user has just left here is ended at the app too, since its token is in hand.
    pub(super) fn log_out_left(&self, exchange: &Exchange, entry: &Entry) {
        let credentials = &exchange.presented.forward;
        if self.can_log_out(exchange.scope, credentials)
            && !self.shared_with_a_live_session(exchange, credentials)
            && entry.claim_app_logout()
        {
            self.log_out_at_app(exchange.scope, exchange.caller.clone(), credentials.clone());
        }
    }

    /// Whether there is anything among these that a logout carries.
    fn can_log_out(&self, scope: Option<usize>, credentials: &[Bare]) -> bool {
        let rules = self.proxy.settings.site(scope).rules;
        credentials.iter().any(|bare| is_of_session(rules, bare))
    }

    /// Some apps give two devices the same value: logging out one would log out both.
    fn shared_with_a_live_session(&self, exchange: &Exchange, credentials: &[Bare]) -> bool {
        credentials.iter().any(|bare| {
            let keys = self.proxy.keys(exchange);
            let earlier = keys.keyring.other().map(|keyring| Keys { keyring, ..keys });
            std::iter::once(keys).chain(earlier).any(|keys| {
                self.proxy.registry.lookup(keys.of_bare(bare).0).is_some_and(|found| {
                    found.entry.ending().is_none() && found.key_use != KeyUse::Superseded
                })
            })
        })
    }

    /// Sends the logout request with these credentials, in the background.
    pub(super) fn log_out_at_app(
        &self,
        scope: Option<usize>,
        caller: Caller,
        credentials: Vec<Bare>,
    ) {
        let site = self.proxy.settings.site(scope);
        let Some(template) = site.app_logout.cloned() else {
            return;
        };
        let of_session = |bare: &Bare| is_of_session(site.rules, bare);
        let credentials: Vec<Bare> = credentials.into_iter().filter(of_session).collect();
        if credentials.is_empty() {
            return;
        }
        let worker = self.clone();
        self.proxy.lifecycle.spawn(async move {
            let outcome = match worker.send_logout(scope, &template, &caller, &credentials).await {
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
        scope: Option<usize>,
        template: &AppLogout,
        caller: &Caller,
        credentials: &[Bare],
    ) -> Result<StatusCode, Refusal> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Refusal::InternalError);
        let mut headers = HeaderMap::new();
        let origin = format!("{}://{}", caller.scheme, caller.host);
        headers.insert(REFERER, value(&format!("{origin}{}", template.path))?);
        headers.insert(ORIGIN, value(&origin)?);
        let mut cookies: Vec<(&str, &[u8])> = Vec::new();
        // Django takes 32 letters and digits as cookie and header alike.
        let token = keyring::hex(&keyring::random::<16>().map_err(|_| Refusal::InternalError)?);
        if let Some(csrf) = &template.csrf {
            let name = HeaderName::from_bytes(csrf.header.as_bytes());
            headers.insert(name.map_err(|_| Refusal::InternalError)?, value(&token)?);
            cookies.push((&csrf.cookie, token.as_bytes()));
        }
        let (method, target) = (&*template.method, &*template.path);
        let rules = self.proxy.settings.site(scope).rules;
        let own = OwnRequest { method, target, headers, cookies, credentials, rules };
        let response = self.send_own(caller, own).await?;
        let status = response.status();
        let idle = Duration::from_millis(self.proxy.settings.upstream.body_idle_timeout_ms);
        drain(Body::upstream(response.into_body(), idle, None, None)).await;
        Ok(status)
    }
}

/// A remember-me cookie may be good for one use only: to present it again is to steal it.
fn is_of_session(rules: &RuleSet, bare: &Bare) -> bool {
    rules.role_of(&bare.name) == Some(Role::Session)
}

/// Reads a short answer to its end, so that the connection can be used again.
async fn drain(body: Body) {
    use http_body_util::{BodyExt as _, Limited};
    let _ = Limited::new(body, 64 * 1024).collect().await;
}
