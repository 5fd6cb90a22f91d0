//! Requests that a rule watches: logins, logouts, password changes. From the first byte to the app
//! until the outcome is committed they run in a task of their own, which outlives the client.

use std::time::{Duration, Instant};

use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use tokio::sync::oneshot;

use super::login::Claim;
use super::payload::Payload;
use super::{Answered, Exchange, Worker};
use crate::body::{AppBody, Body, RequestBody};
use crate::credentials::Bare;
use crate::decide::{KeyPair, Rotation};
use crate::detect::{self, AnswerBody, AnswerFacts, Intent, Outcome, RequestFacts, groups};
use crate::fields;
use crate::headers;
use crate::inspect::{self, AnswerText};
use crate::issue::{self, Changes};
use crate::policy::{Permit, Standing};
use crate::refusal::Refusal;
use crate::rules::Role;
use crate::session::SessionId;
use crate::settings::Binding;

/// Tokens of one session that can be used at the same time; one more, and the oldest is dead.
const TOKENS_MAX: usize = 32;

/// A request that a rule watches, on its way to the app.
struct Watched {
    permit: Permit,
    request: Request<RequestBody>,
    intent: Intent,
    /// By its method.
    safe: bool,
    /// Of the user, as a trusted proxy says.
    groups: Vec<String>,
}

/// The answer of a watched request, and what to take back if nobody is there to receive it.
pub(super) struct Settled {
    pub(super) answered: Answered,
    /// A session that this answer would hand to the client, with its credentials.
    pub(super) handed: Option<(SessionId, Vec<Bare>)>,
}

impl From<Response<Body>> for Settled {
    fn from(response: Response<Body>) -> Self {
        Self { answered: response.into(), handed: None }
    }
}

impl Worker {
    /// Forwards a request that could be a login or the like, and settles what it turns out to be.
    pub(super) async fn watch(
        &self,
        exchange: Exchange,
        permit: Permit,
        mut parts: Parts,
        payload: Payload,
        cookie: Option<Vec<u8>>,
    ) -> Result<Answered, Refusal> {
        let rules = self.proxy.site(&exchange).rules;
        let method = parts.method.as_str();
        let form = fields::is_form(&parts.headers);
        let payload = if rules.needs_body(method, &exchange.path, form) {
            self.proxy.read(&parts, payload).await?
        } else {
            payload
        };
        let step = self.proxy.named_in_step(&exchange);
        let facts = RequestFacts {
            method,
            path: &exchange.path,
            query: parts.uri.query(),
            headers: &parts.headers,
            fields: payload.fields(),
            step: step.as_deref(),
        };
        let intent = detect::intent(rules, facts)?;
        let sources = &self.proxy.settings.groups;
        let groups_inside = sources.read_answer_body() && intent.may_log_in();
        let introduced = exchange.caller.is_introduced() && intent.may_log_in();
        let groups = match introduced {
            true => groups::sent(&sources.login, sources.separator, &parts.headers),
            false => Vec::new(),
        };
        if intent.may_look_into_answer(rules) || groups_inside {
            // The client gets what the app answers to this: readable for both.
            parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        self.proxy.prepare(&mut parts, &exchange.caller, cookie.as_deref(), false)?;
        let safe = parts.method.is_safe();
        let request = Request::from_parts(parts, self.proxy.client_body(payload)?);
        if intent.is_empty() && !self.proxy.may_identify(&exchange) {
            let response = self.send(permit, request).await?;
            return self.relay(exchange, response).await.map(Answered::from);
        }
        let (answer, answered) = oneshot::channel();
        let worker = self.clone();
        self.proxy.lifecycle.spawn(async move {
            let (scope, caller) = (exchange.scope, exchange.caller.clone());
            let watched = Watched { permit, request, intent, safe, groups };
            let result = worker.settle_watched(exchange, watched, &answer).await;
            if let Err(Ok(Settled { handed: Some((id, credentials)), .. })) = answer.send(result) {
                worker.take_back(id);
                worker.log_out_at_app(scope, caller, credentials);
            }
        });
        let settled = answered.await.map_err(|_| Refusal::InternalError)??;
        Ok(settled.answered)
    }

    async fn settle_watched(
        &self,
        exchange: Exchange,
        watched: Watched,
        answer: &oneshot::Sender<Result<Settled, Refusal>>,
    ) -> Result<Settled, Refusal> {
        let proxy = &*self.proxy;
        let sent = Instant::now();
        let Watched { permit, request, intent, safe, mut groups } = watched;
        let mut response = self.send(permit, request).await?;
        proxy.metrics.upstream_seconds.observe(sent.elapsed().as_secs_f64());
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::UpstreamInvalid);
        }
        headers::to_downstream(response.headers_mut());
        let (response, text) = self.inspected(&exchange, &intent, response).await?;
        let (outcome, mut changes) = {
            let cookies = issue::read_all(response.headers(), proxy.clock.now());
            let facts = AnswerFacts {
                status: response.status().as_u16(),
                headers: response.headers(),
                cookies: &cookies,
                body: text.as_ref().map_or(AnswerBody::Unreadable, AnswerBody::Read),
            };
            let rules = proxy.site(&exchange).rules;
            let credentials =
                cookies.iter().filter(|cookie| rules.credential(cookie.name).is_some());
            let changes = issue::changes(&credentials.cloned().collect::<Vec<_>>());
            let sources = &proxy.settings.groups;
            groups.extend(groups::told(&sources.login, sources.separator, facts));
            (detect::outcome(rules, &intent, facts), changes)
        };
        match outcome {
            Outcome::LoggedIn { user, in_place, guests_only, tokens } => {
                changes.add(&tokens);
                let confirmed = false;
                let claim = Claim { user, in_place, guests_only, confirmed, groups, changes };
                self.accept(exchange, claim, response, answer).await
            }
            Outcome::LoginFailed { user } => {
                self.note_failed(&exchange, user);
                self.unruled(exchange, changes, safe, response, answer).await
            }
            Outcome::Stepped { user } => {
                let answer = self.finish_step(exchange, user, &changes, response).await;
                answer.map(Settled::from)
            }
            Outcome::PasswordChanged => {
                self.password_changed(&exchange, &changes).await?;
                self.relay(exchange, response).await.map(Settled::from)
            }
            Outcome::LoggedOut => self.log_out(exchange, response).await.map(Settled::from),
            Outcome::Refreshed { tokens } => {
                changes.add(&tokens);
                self.refreshed(&exchange, &changes.issued).await?;
                self.relay(exchange, response).await.map(Settled::from)
            }
            Outcome::Nothing => self.unruled(exchange, changes, safe, response, answer).await,
        }
    }

    /// Lets a login in, unless the app, when asked, does not stand by it.
    async fn accept(
        &self,
        exchange: Exchange,
        claim: Claim,
        mut response: Response<AppBody>,
        answer: &oneshot::Sender<Result<Settled, Refusal>>,
    ) -> Result<Settled, Refusal> {
        self.proxy.learn(&exchange, &claim.changes);
        let Some(claim) = self.confirm(&exchange, claim, &mut response).await? else {
            return self.relay(exchange, response).await.map(Settled::from);
        };
        let unproven = claim.guests_only && !claim.confirmed;
        if unproven && self.is_no_guest(&exchange, claim.user.as_deref())? {
            return self.relay(exchange, response).await.map(Settled::from);
        }
        let Some(candidate) = self.candidate(&exchange, claim)? else {
            return self.relay(exchange, response).await.map(Settled::from);
        };
        let steps = self.proxy.steps_of(&exchange);
        let settled = self.log_in(exchange, candidate, response, answer).await?;
        self.proxy.steps.forget(&steps);
        Ok(settled)
    }

    /// An answer that no rule explains. If it sets a credential, the app may have signed somebody
    /// in: it is asked.
    async fn unruled(
        &self,
        exchange: Exchange,
        changes: Changes,
        safe: bool,
        mut response: Response<AppBody>,
        answer: &oneshot::Sender<Result<Settled, Refusal>>,
    ) -> Result<Settled, Refusal> {
        let telling = !safe || response.status().is_redirection();
        match self.identify_answer(&exchange, changes, telling, &mut response).await {
            Some(claim) => {
                let Some(candidate) = self.candidate(&exchange, claim)? else {
                    return self.relay(exchange, response).await.map(Settled::from);
                };
                self.log_in(exchange, candidate, response, answer).await
            }
            None => self.relay(exchange, response).await.map(Settled::from),
        }
    }

    /// The session's new tokens, known before the client has them.
    async fn refreshed(&self, exchange: &Exchange, issued: &[Bare]) -> Result<(), Refusal> {
        let proxy = &*self.proxy;
        let live = exchange.presented.standing == Standing::Live;
        let Some(entry) = exchange.presented.entry.as_ref().filter(|_| live) else {
            return Ok(());
        };
        let tokens = issued.iter().filter(|bare| !bare.is_cookie());
        let keys = |bare: &Bare| proxy.keys(exchange).of_bare(bare);
        let bearer: Vec<KeyPair> = tokens.clone().map(keys).collect();
        // A token to refresh with is replaced; one to use goes on until the app no longer takes it.
        let refresh = Role::Refresh.token_name();
        let replaced = tokens.clone().any(|bare| bare.name == refresh);
        let spent = exchange.sent.iter().filter(|bare| bare.name == refresh && replaced);
        let superseded: Vec<KeyPair> =
            spent.map(keys).filter(|pair| !bearer.contains(pair)).collect();
        let known = proxy.registry.bearers(entry.id);
        let over = (known.len() + bearer.len()).saturating_sub(TOKENS_MAX);
        let lineage = exchange.presented.lineage.map(|own| (own.key(), own.key()));
        let in_use: Vec<KeyPair> = exchange.sent.iter().map(keys).chain(lineage).collect();
        let spare = |pair: &KeyPair| !bearer.contains(pair) && !in_use.contains(pair);
        let fenced = known.into_iter().filter(spare).take(over).collect();
        let rotation = Rotation { now: proxy.clock.now(), bearer, superseded, fenced };
        proxy.record_rotation(entry.id, rotation).await
    }

    /// Reads the answer's body if the outcome hangs on it.
    async fn inspected(
        &self,
        exchange: &Exchange,
        intent: &Intent,
        response: Response<AppBody>,
    ) -> Result<(Response<AppBody>, Option<AnswerText>), Refusal> {
        let proxy = &*self.proxy;
        let wanted = {
            let cookies = issue::read_all(response.headers(), proxy.clock.now());
            let facts = AnswerFacts {
                status: response.status().as_u16(),
                headers: response.headers(),
                cookies: &cookies,
                body: AnswerBody::Unread,
            };
            let rules = proxy.site(exchange).rules;
            detect::wants_body(rules, intent, facts)
                || (proxy.settings.groups.read_answer_body()
                    && detect::looks_like_login(rules, intent, facts))
        };
        if !wanted {
            return Ok((response, None));
        }
        let upstream = &proxy.settings.upstream;
        let patience = Duration::from_millis(upstream.body_idle_timeout_ms);
        let (head, body) = response.into_parts();
        let (text, body) =
            inspect::read(&head.headers, body, upstream.inspect_bytes_max, patience).await?;
        if text.is_none() {
            tracing::warn!("a rule looks into an answer that is too large, slow or encoded");
        }
        Ok((Response::from_parts(head, body), text))
    }

    async fn log_out(
        &self,
        mut exchange: Exchange,
        response: Response<AppBody>,
    ) -> Result<Response<Body>, Refusal> {
        let proxy = &*self.proxy;
        if exchange.presented.standing == Standing::Live
            && let Some(entry) = exchange.presented.entry.take()
        {
            proxy.recorder.logout(&entry).await.map_err(|error| {
                tracing::error!(%error, "a logout could not be recorded");
                Refusal::StoreFailed
            })?;
            // What the app sets with this answer belongs to nobody yet.
            exchange.presented.standing = Standing::Anonymous;
            exchange.presented.lineage = None;
        }
        self.relay(exchange, response).await
    }

    async fn password_changed(
        &self,
        exchange: &Exchange,
        changes: &Changes,
    ) -> Result<(), Refusal> {
        let proxy = &*self.proxy;
        let entry = exchange.presented.entry.as_ref();
        let Some(entry) = entry.filter(|_| exchange.presented.standing == Standing::Live) else {
            return Ok(());
        };
        let keys = |bare: &Bare| proxy.keys(exchange).of_bare(bare);
        let fresh: Vec<KeyPair> = changes.issued.iter().map(keys).collect();
        let mut rotation =
            Rotation { now: proxy.clock.now(), bearer: vec![], superseded: vec![], fenced: vec![] };
        match proxy.settings.session.binding {
            Binding::Signed => rotation.fenced = fresh,
            Binding::Value => rotation.bearer = fresh,
        }
        proxy.recorder.password_change(entry, rotation).await.map(drop).map_err(|error| {
            tracing::error!(%error, "a password change could not be recorded");
            Refusal::StoreFailed
        })
    }
}
