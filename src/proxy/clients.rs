//! The client of a request, and what happens when a live session has another one than before: told once,
//! or the end of the session before the request goes anywhere (`[session.client_change]`). The store
//! says what the client was, and one transaction decides, so that replicas tell it once between them.

use std::sync::Arc;

use http::HeaderValue;

use super::{Exchange, Proxy, Worker};
use crate::client::Caller;
use crate::client_change;
use crate::cookies::Candidate;
use crate::detect::tokens::Token;
use crate::policy::Standing;
use crate::refusal::Refusal;
use crate::registry::Entry;
use crate::rules::BASIC;
use crate::session::{Client, SessionId};
use crate::settings::ClientChange;
use crate::store::{Decision, StoreError};

/// A client that may be another one.
struct Seen {
    rule: ClientChange,
    entry: Arc<Entry>,
    client: Client,
    /// Of the request, and of the client as recorded.
    mark: u32,
    kind: u32,
}

impl Proxy {
    /// What tells one device from another where the credential does not: HTTP Basic.
    pub(super) fn device(
        &self,
        tokens: &[Token<'_>],
        caller: &Caller,
        agent: Option<&HeaderValue>,
    ) -> String {
        if tokens.iter().all(|token| token.name() != BASIC) {
            return String::new();
        }
        let agent = agent.map(HeaderValue::as_bytes).unwrap_or_default();
        format!("{} {}", caller.address(), String::from_utf8_lossy(agent))
    }

    /// The client as sessions and events record it.
    pub(super) fn client(&self, exchange: &Exchange) -> Client {
        let keep = self.settings.log.client_address;
        exchange.caller.recorded(exchange.user_agent.as_ref(), keep, &self.keyring)
    }

    /// Whether a look is needed: the request does not have the mark of those before. Off, it costs
    /// nothing; on, a short hash.
    pub(super) fn may_be_other_client(&self, exchange: &Exchange) -> bool {
        let Some(rule) = self.settings.session.client_change else { return false };
        let live = exchange.presented.standing == Standing::Live;
        let entry = exchange.presented.entry.as_ref().filter(|_| live);
        entry.is_some_and(|entry| !entry.has_mark(self.mark(rule, exchange)))
    }

    fn mark(&self, rule: ClientChange, exchange: &Exchange) -> u32 {
        let agent = exchange.user_agent.as_ref().map(|agent| agent.as_bytes());
        let (address, agent) = (exchange.caller.ip(), agent.unwrap_or_default());
        client_change::mark(rule, &self.marks, address, agent)
    }

    /// The client that has just signed in is the session's.
    pub(super) fn mark_client(&self, exchange: &Exchange, session: SessionId) {
        let Some(rule) = self.settings.session.client_change else { return };
        let Some(entry) = self.registry.by_id(session) else { return };
        let seen = self.seen(rule, exchange, entry);
        seen.entry.set_client(seen.mark, seen.kind);
    }

    fn seen(&self, rule: ClientChange, exchange: &Exchange, entry: Arc<Entry>) -> Seen {
        let (client, mark) = (self.client(exchange), self.mark(rule, exchange));
        let kind = client_change::kind(rule, &self.marks, &self.recorder.audit.places, &client);
        Seen { rule, entry, client, mark, kind }
    }
}

impl Worker {
    /// Looks closer, and has the session ended where that is wanted; then nothing of it goes to the app.
    pub(super) async fn look_at_client(
        &self,
        exchange: &mut Exchange,
        device: &str,
        candidates: &[Candidate<'_>],
    ) -> Result<(), Refusal> {
        let proxy = &self.proxy;
        let rule = proxy.settings.session.client_change;
        let (Some(rule), Some(entry)) = (rule, exchange.presented.entry.clone()) else {
            return Ok(());
        };
        let seen = proxy.seen(rule, exchange, entry);
        if seen.entry.knows_client(seen.mark, seen.kind) {
            return Ok(());
        }
        if !rule.ends || !proxy.recorder.enforces() {
            if seen.entry.claim_client_look(proxy.clock.now()) {
                let proxy = Arc::clone(proxy);
                self.proxy.lifecycle.spawn(async move {
                    if let Err(error) = settle(&proxy, seen).await {
                        tracing::warn!(%error, "a changed client could not be recorded yet");
                    }
                });
            }
            return Ok(());
        }
        let entry = Arc::clone(&seen.entry);
        settle(proxy, seen).await.map_err(|error| {
            tracing::error!(%error, "whose request it is could not be looked up; it is refused");
            Refusal::StoreFailed
        })?;
        // By this request, or by another one meanwhile.
        if entry.ending().is_some() {
            let judge = proxy.judge(proxy.site(exchange), device, exchange.audience);
            exchange.presented = judge.presented(candidates);
        }
        Ok(())
    }
}

/// Asks the store, which says what the client was before.
async fn settle(proxy: &Proxy, seen: Seen) -> Result<(), StoreError> {
    let Seen { rule, entry, client, mark, kind } = seen;
    let decision = proxy.recorder.client_seen(entry.id, client, rule).await?;
    match decision {
        Decision::Ended { .. } => {}
        // It was told; of the next change no sooner than in a while.
        Decision::Renewed { .. } => entry.set_client(mark, kind),
        _ => {
            entry.set_client(mark, kind);
            entry.allow_client_look();
        }
    }
    Ok(())
}
