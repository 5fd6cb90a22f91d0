//! Requests that a rule watches: logins, logouts, password changes. From the first byte to the app
//! until the outcome is committed they run in a task of their own, which outlives the client.

use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

use super::{Answered, Exchange, Worker};
use crate::audit::{AuditEvent, EventKind};
use crate::body::{self, AppBody, Body, RequestBody};
use crate::credentials::{self, Bare};
use crate::decide::{KeyPair, Login, Rotation};
use crate::detect::{self, AnswerBody, AnswerFacts, Intent, Outcome, RequestFacts};
use crate::enforce;
use crate::fields::{self, Fields};
use crate::headers;
use crate::identity;
use crate::inspect::{self, AnswerText};
use crate::issue::{self, Changes, Label};
use crate::keyring;
use crate::metrics::{LoginOutcome, RequestOutcome};
use crate::policy::{Permit, Standing};
use crate::refusal::Refusal;
use crate::session::{Initiator, SessionId, User};
use crate::settings::{Binding, Untracked};
use crate::stamp::{self, Lineage};
use crate::store::Decision;

/// The answer of a watched request, and what to take back if nobody is there to receive it.
struct Settled {
    answered: Answered,
    /// A session that this answer would hand to the client, with its credentials.
    handed: Option<(SessionId, Vec<Bare>)>,
}

impl From<Response<Body>> for Settled {
    fn from(response: Response<Body>) -> Self {
        Self { answered: response.into(), handed: None }
    }
}

/// A login on its way to being recorded.
struct Candidate {
    login: Login,
    lineage: Lineage,
    /// Cookies the answer sets.
    issued: Vec<Bare>,
    /// Cookies the app left as they were, which are the session's from now on.
    kept: Vec<Bare>,
}

impl Worker {
    /// Forwards a request that could be a login or the like, and settles what it turns out to be.
    pub(super) async fn watch(
        &self,
        exchange: Exchange,
        permit: Permit,
        mut parts: Parts,
        body: Incoming,
        cookie: Option<Vec<u8>>,
    ) -> Result<Answered, Refusal> {
        let settings = &self.proxy.settings;
        let limits = &settings.server.limits;
        let method = parts.method.as_str();
        let form = fields::is_form(&parts.headers);
        let (fields, body) = if settings.rules.needs_body(method, &exchange.path, form) {
            let idle = Duration::from_millis(limits.body_idle_timeout_ms);
            let bytes = body::read_limited(body, limits.login_body_bytes_max, idle).await?;
            (fields::read(&parts.headers, &bytes).await?, RequestBody::Full(bytes))
        } else {
            (Fields::Opaque, self.proxy.client_body(body)?)
        };
        let step = self.proxy.named_in_step(&exchange);
        let facts = RequestFacts {
            method,
            path: &exchange.path,
            query: parts.uri.query(),
            headers: &parts.headers,
            fields: &fields,
            step: step.as_deref(),
        };
        let intent = detect::intent(&settings.rules, facts)?;
        drop(fields);
        if intent.may_look_into_answer(&settings.rules) {
            // The client gets what the app answers to this: readable for both.
            parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        self.proxy.prepare(&mut parts, &exchange.caller, cookie.as_deref(), false)?;
        let request = Request::from_parts(parts, body);
        if intent.is_empty() {
            let response = self.send(permit, request).await?;
            return self.relay(exchange, response).await.map(Answered::from);
        }
        let (answer, answered) = oneshot::channel();
        let worker = self.clone();
        self.proxy.lifecycle.spawn(async move {
            let caller = exchange.caller.clone();
            let result = worker.settle_watched(exchange, permit, request, intent, &answer).await;
            if let Err(Ok(Settled { handed: Some((id, credentials)), .. })) = answer.send(result) {
                worker.take_back(id);
                worker.log_out_at_app(caller, credentials);
            }
        });
        let settled = answered.await.map_err(|_| Refusal::InternalError)??;
        Ok(settled.answered)
    }

    async fn settle_watched(
        &self,
        exchange: Exchange,
        permit: Permit,
        request: Request<RequestBody>,
        intent: Intent,
        answer: &oneshot::Sender<Result<Settled, Refusal>>,
    ) -> Result<Settled, Refusal> {
        let proxy = &*self.proxy;
        let sent = Instant::now();
        let mut response = self.send(permit, request).await?;
        proxy.metrics.upstream_seconds.observe(sent.elapsed().as_secs_f64());
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::UpstreamInvalid);
        }
        headers::to_downstream(response.headers_mut());
        let (response, text) = self.inspected(&intent, response).await?;
        let (outcome, changes) = {
            let cookies = issue::read_all(response.headers(), proxy.clock.now());
            let facts = AnswerFacts {
                status: response.status().as_u16(),
                headers: response.headers(),
                cookies: &cookies,
                body: text.as_ref().map_or(AnswerBody::Unreadable, AnswerBody::Read),
            };
            let rules = &proxy.settings.rules;
            let credentials =
                cookies.iter().filter(|cookie| rules.credential(cookie.name).is_some());
            let changes = issue::changes(&credentials.cloned().collect::<Vec<_>>());
            (detect::outcome(rules, &intent, facts), changes)
        };
        match outcome {
            Outcome::LoggedIn { user, in_place, guests_only } => {
                proxy.learn(&changes);
                if guests_only && self.is_no_guest(&exchange, user.as_deref())? {
                    return self.relay(exchange, response).await.map(Settled::from);
                }
                let candidate = self.candidate(&exchange, user, in_place, changes)?;
                match candidate {
                    Some(candidate) => {
                        let steps = proxy.steps_of(&exchange);
                        let settled = self.log_in(exchange, candidate, response, answer).await?;
                        proxy.steps.forget(&steps);
                        Ok(settled)
                    }
                    None => self.relay(exchange, response).await.map(Settled::from),
                }
            }
            Outcome::LoginFailed { user } => {
                self.note_failed(&exchange, user);
                self.relay(exchange, response).await.map(Settled::from)
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
            Outcome::Nothing => self.relay(exchange, response).await.map(Settled::from),
        }
    }

    /// Reads the answer's body if the outcome hangs on it.
    async fn inspected(
        &self,
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
            detect::wants_body(&proxy.settings.rules, intent, facts)
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

    /// What a login brings, or nothing if its answer proves too little.
    fn candidate(
        &self,
        exchange: &Exchange,
        user: Option<String>,
        in_place: bool,
        changes: Changes,
    ) -> Result<Option<Candidate>, Refusal> {
        let proxy = &*self.proxy;
        let live = exchange.presented.standing == Standing::Live;
        let Changes { issued, deleted, .. } = changes;
        let replaced = |bare: &&Bare| {
            issued.iter().any(|issued| issued.name == bare.name) || deleted.contains(&bare.name)
        };
        let kept: Vec<Bare> =
            exchange.sent.iter().filter(|bare| !replaced(bare)).cloned().collect();
        let settings = &proxy.settings;
        let user: Option<User> = user
            .map(|raw| identity::canonical(&settings.normalize, &settings.aliases, &raw))
            .filter(|user| !user.is_empty())
            .map(User::from);
        if issued.is_empty() && (kept.is_empty() || (live && !in_place)) {
            tracing::info!(
                path = exchange.path,
                "a login answer set no credential; it proves nothing and is not counted"
            );
            return Ok(None);
        }
        // Apps that prolong their cookie set it again with every answer, whoever the request names.
        let renewed = exchange.presented.entry.as_ref().is_some_and(|entry| entry.user == user);
        let fresh = issued.iter().any(|bare| !exchange.sent.contains(bare));
        if live && !in_place && !fresh && !renewed {
            tracing::info!(
                path = exchange.path,
                "a login answer left the credential of another user's session as it was; it \
                 proves nothing and is not counted"
            );
            return Ok(None);
        }
        let internal = |_| Refusal::InternalError;
        let lineage = Lineage::authenticated().map_err(internal)?;
        let previous = exchange.presented.entry.as_ref().filter(|_| live).map(|entry| entry.id);
        let mut login = Login {
            id: keyring::random_session_id().map_err(internal)?,
            user,
            client: proxy.client(exchange),
            now: proxy.clock.now(),
            bearer: Vec::new(),
            fenced: Vec::new(),
            before: Vec::new(),
            previous,
        };
        self.tie(exchange, &mut login, lineage, &issued, &kept);
        Ok(Some(Candidate { login, lineage, issued, kept }))
    }

    /// Which tokens are the session's from now on, and which must never be again.
    fn tie(
        &self,
        exchange: &Exchange,
        login: &mut Login,
        lineage: Lineage,
        issued: &[Bare],
        kept: &[Bare],
    ) {
        let proxy = &*self.proxy;
        let keys = |bare: &Bare| credentials::value_keys(&proxy.keyring, &proxy.settings.app, bare);
        let carried = issued.iter().chain(kept);
        let now: Vec<KeyPair> = carried.clone().map(keys).collect();
        let earlier = |bare: &&Bare| !carried.clone().any(|other| other == *bare);
        login.before = exchange.sent.iter().filter(earlier).map(keys).collect();
        if let Some(old) = exchange.presented.lineage {
            login.before.push((old.key(), old.key()));
        }
        if let Some(entry) = exchange.presented.entry.as_ref().filter(|_| login.previous.is_some())
        {
            // One browser has one token: whoever else holds one of this session's goes too.
            login.before.extend(proxy.registry.bearers(entry.id));
        }
        if proxy.settings.session.binding == Binding::Value {
            login.bearer = now;
            return;
        }
        login.bearer.push((lineage.key(), lineage.key()));
        for bare in carried {
            // As in `Issuer`: the line is at least this long, so a value that fits no stamp here
            // fits none there; what only its attributes make too long is bound after relabelling.
            let line_bytes = bare.name.len() + 1 + bare.value.len();
            let stamped = stamp::fits(line_bytes);
            if stamped { login.fenced.push(keys(bare)) } else { login.bearer.push(keys(bare)) }
        }
    }

    async fn log_in(
        &self,
        exchange: Exchange,
        candidate: Candidate,
        response: Response<AppBody>,
        answer: &oneshot::Sender<Result<Settled, Refusal>>,
    ) -> Result<Settled, Refusal> {
        let proxy = &*self.proxy;
        let login = &candidate.login;
        if login.user.is_none() {
            self.note_unattributed(&exchange, login);
            if proxy.settings.session.unattributed == Untracked::Refuse && proxy.recorder.enforces()
            {
                self.withdraw(&exchange, candidate).await;
                return Err(Refusal::LoginUnattributed);
            }
        }
        if answer.is_closed() && proxy.recorder.enforces() {
            // Nobody will receive the session, so nobody is evicted for it.
            proxy.metrics.logins.inc(LoginOutcome::Abandoned);
            self.withdraw(&exchange, candidate).await;
            return Err(Refusal::InternalError);
        }
        let decision = match proxy.recorder.login(login.clone()).await {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(%error, "a login could not be recorded and is withheld");
                proxy.metrics.logins.inc(LoginOutcome::StoreFailed);
                for (key, _) in login.before.iter().chain(&login.fenced).chain(&login.bearer) {
                    proxy.registry.quarantine(*key);
                }
                self.take_back(login.id);
                self.log_out_at_app(exchange.caller.clone(), candidate.credentials());
                return Err(Refusal::StoreFailed);
            }
        };
        match decision {
            Decision::Denied { count, limit, .. } => {
                proxy.metrics.logins.inc(LoginOutcome::Denied);
                self.log_out_at_app(exchange.caller.clone(), candidate.credentials());
                let response = enforce::denied(count, limit, exchange.audience);
                let answered = Answered { response, outcome: RequestOutcome::Denied };
                Ok(Settled { answered, handed: None })
            }
            Decision::Renewed { session } => {
                proxy.metrics.logins.inc(LoginOutcome::Renewed);
                let response = self.hand_over(&exchange, &candidate, session, response).await?;
                Ok(response.into())
            }
            Decision::Admitted { session } => {
                proxy.metrics.logins.inc(LoginOutcome::Admitted);
                let response = self.hand_over(&exchange, &candidate, session, response).await?;
                let handed = Some((session, candidate.credentials()));
                Ok(Settled { answered: response.into(), handed })
            }
            Decision::Done | Decision::Ended { .. } => Err(Refusal::InternalError),
        }
    }

    /// The app's answer with the session's cookies under their new lineage.
    async fn hand_over(
        &self,
        exchange: &Exchange,
        candidate: &Candidate,
        session: SessionId,
        mut response: Response<AppBody>,
    ) -> Result<Response<Body>, Refusal> {
        let proxy = &*self.proxy;
        if proxy.settings.session.binding == Binding::Signed {
            let issuer = proxy.issuer();
            let headers = response.headers_mut();
            let unstamped = issuer.relabel(headers, Label::Stamp(candidate.lineage));
            for bare in &candidate.kept {
                issuer.reissue(headers, bare, candidate.lineage, &proxy.shapes);
            }
            if !unstamped.is_empty() {
                proxy.bind_unstamped(session, &unstamped).await?;
            }
        }
        Ok(proxy.finish(exchange, response, None))
    }

    /// Nothing of this login stays: not in the client's hands, not at the app.
    async fn withdraw(&self, exchange: &Exchange, candidate: Candidate) {
        let proxy = &*self.proxy;
        let own = exchange.presented.entry.as_ref();
        let renewal = candidate.login.previous.is_some()
            && own.is_some_and(|entry| entry.user == candidate.login.user);
        if renewal {
            return;
        }
        if let Err(error) = proxy.recorder.abandon(candidate.login.clone()).await {
            tracing::error!(%error, "a withheld login could not be recorded");
            for (key, _) in candidate.login.before.iter().chain(&candidate.login.bearer) {
                proxy.registry.quarantine(*key);
            }
        }
        self.log_out_at_app(exchange.caller.clone(), candidate.credentials());
    }

    /// Ends a session that was recorded, or may be recorded yet, but that nobody has received.
    fn take_back(&self, id: SessionId) {
        let proxy = std::sync::Arc::clone(&self.proxy);
        self.proxy.lifecycle.spawn(async move {
            if let Err(error) = proxy.recorder.dropped_by_app(id).await {
                tracing::error!(%error, session = %id, "a session nobody received stays counted until it times out");
            }
        });
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
        let keys = |bare: &Bare| credentials::value_keys(&proxy.keyring, &proxy.settings.app, bare);
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

    fn note_failed(&self, exchange: &Exchange, user: Option<String>) {
        let proxy = &*self.proxy;
        proxy.metrics.logins.inc(LoginOutcome::Failed);
        let settings = &proxy.settings;
        let user =
            user.map(|raw| identity::canonical(&settings.normalize, &settings.aliases, &raw));
        let event = self.event(EventKind::LoginFailed, exchange);
        proxy.recorder.note(event.user(user.map(User::from).as_ref()));
    }

    fn note_unattributed(&self, exchange: &Exchange, login: &Login) {
        let proxy = &*self.proxy;
        proxy.metrics.logins.inc(LoginOutcome::Unattributed);
        let event = self.event(EventKind::LoginUnattributed, exchange);
        proxy.recorder.note(event.session(login.id));
    }

    fn event(&self, kind: EventKind, exchange: &Exchange) -> AuditEvent {
        let proxy = &*self.proxy;
        let mode = proxy.settings.switches.mode;
        AuditEvent::new(kind, proxy.clock.now(), Initiator::User, mode)
            .client(&proxy.client(exchange))
    }
}

impl Candidate {
    fn credentials(&self) -> Vec<Bare> {
        self.issued.iter().chain(&self.kept).cloned().collect()
    }
}
