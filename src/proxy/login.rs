//! A login that the app has accepted: what it brings, whether it is let in, and what the client gets.
//! How a login is recognised is the business of `watch.rs`, whom the app names that of `probe.rs`.

use http::Response;
use tokio::sync::oneshot;

use super::watch::Settled;
use super::{Answered, Exchange, Proxy, Worker};
use crate::audit::{AuditEvent, EventKind};
use crate::body::{AppBody, Body};
use crate::credentials::Bare;
use crate::decide::{KeyPair, Login};
use crate::enforce;
use crate::identity;
use crate::issue::{Changes, Label};
use crate::keyring;
use crate::metrics::{LoginOutcome, RequestOutcome};
use crate::policy::Standing;
use crate::refusal::Refusal;
use crate::session::{Groups, Initiator, SessionId, User};
use crate::settings::{Binding, Unattributed};
use crate::stamp::{self, Lineage};
use crate::store::Decision;

/// What an answer says about a login.
pub(super) struct Claim {
    /// As found.
    pub(super) user: Option<String>,
    pub(super) in_place: bool,
    /// The app does not look at the password of who is signed in already.
    pub(super) guests_only: bool,
    /// The app itself named the user when it was asked.
    pub(super) confirmed: bool,
    /// As found.
    pub(super) groups: Vec<String>,
    pub(super) changes: Changes,
}

/// A login on its way to being recorded.
pub(super) struct Candidate {
    login: Login,
    lineage: Lineage,
    /// Credentials that the answer sets or holds.
    issued: Vec<Bare>,
    /// Credentials the app left as they were, which are the session's from now on.
    kept: Vec<Bare>,
}

impl Worker {
    /// What a login brings, or nothing if its answer proves too little.
    pub(super) fn candidate(
        &self,
        exchange: &Exchange,
        claim: Claim,
    ) -> Result<Option<Candidate>, Refusal> {
        let proxy = &*self.proxy;
        let live = exchange.presented.standing == Standing::Live;
        let Claim { user, in_place, confirmed, changes, groups, .. } = claim;
        let kept = exchange.kept(&changes);
        let issued = changes.issued;
        let in_place = in_place || confirmed;
        let user = user.and_then(|raw| proxy.user(exchange, &raw));
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
            groups: proxy.groups(&groups),
            client: proxy.client(exchange),
            now: proxy.clock.now(),
            bearer: Vec::new(),
            fenced: Vec::new(),
            before: Vec::new(),
            superseded: Vec::new(),
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
        let keys = |bare: &Bare| proxy.keys(exchange).of_bare(bare);
        let carried = issued.iter().chain(kept).filter(|bare| !bare.is_chunk_head());
        let now: Vec<KeyPair> = carried.clone().map(keys).collect();
        let earlier = |bare: &&Bare| !carried.clone().any(|other| other == *bare);
        let sent = exchange.sent.iter().filter(|bare| !bare.is_chunk_head());
        login.before = sent.filter(earlier).map(keys).collect();
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
            let stamped = bare.is_cookie() && stamp::fits(line_bytes);
            if stamped { login.fenced.push(keys(bare)) } else { login.bearer.push(keys(bare)) }
        }
    }

    pub(super) async fn log_in(
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
            if proxy.settings.session.unattributed == Unattributed::Refuse
                && proxy.recorder.enforces()
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
                self.log_out_at_app(
                    exchange.scope,
                    exchange.caller.clone(),
                    candidate.credentials(),
                );
                return Err(Refusal::StoreFailed);
            }
        };
        match decision {
            Decision::Denied { count, limit, .. } => {
                proxy.metrics.logins.inc(LoginOutcome::Denied);
                self.log_out_at_app(
                    exchange.scope,
                    exchange.caller.clone(),
                    candidate.credentials(),
                );
                let pages = &proxy.settings.pages;
                let response = enforce::denied(pages, count, limit, exchange.audience);
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
            let issuer = proxy.issuer(proxy.site(exchange));
            let headers = response.headers_mut();
            let unstamped = issuer.relabel(headers, Label::Stamp(candidate.lineage));
            for bare in candidate.kept.iter().filter(|bare| bare.is_cookie()) {
                issuer.reissue(headers, bare, candidate.lineage, &proxy.shapes);
            }
            if !unstamped.is_empty() {
                proxy.bind_unstamped(exchange, session, &unstamped).await?;
            }
        }
        proxy.mark_client(exchange, session);
        Ok(proxy.finish(exchange, response, None))
    }

    /// Nothing of this login stays: not in the client's hands, not at the app.
    pub(super) async fn withdraw(&self, exchange: &Exchange, candidate: Candidate) {
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
        self.log_out_at_app(exchange.scope, exchange.caller.clone(), candidate.credentials());
    }

    /// Ends a session that was recorded, or may be recorded yet, but that nobody has received.
    pub(super) fn take_back(&self, id: SessionId) {
        let proxy = std::sync::Arc::clone(&self.proxy);
        self.proxy.lifecycle.spawn(async move {
            if let Err(error) = proxy.recorder.dropped_by_app(id).await {
                tracing::error!(%error, session = %id, "a session nobody received stays counted until it times out");
            }
        });
    }

    pub(super) fn note_failed(&self, exchange: &Exchange, user: Option<String>) {
        let proxy = &*self.proxy;
        proxy.metrics.logins.inc(LoginOutcome::Failed);
        let user = user.and_then(|raw| proxy.user(exchange, &raw));
        let event = self.event(EventKind::LoginFailed, exchange);
        proxy.recorder.note(event.user(user.as_ref()));
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

impl Proxy {
    /// The canonical user of a name as found; `None`: nothing is left of it.
    pub(super) fn user(&self, exchange: &Exchange, raw: &str) -> Option<User> {
        let settings = &self.settings;
        let user = identity::canonical(&settings.normalize, &settings.aliases, raw);
        let scope = self.site(exchange).scope;
        (!user.is_empty()).then(|| User::from(settings.scoped(scope, user)))
    }
}

impl Proxy {
    /// Groups as they are compared and kept. Of too many those that have a limit stay.
    pub(super) fn groups(&self, found: &[String]) -> Groups {
        let settings = &self.settings;
        let names = found.iter().map(|name| identity::normalize(&settings.normalize, name));
        let mut names: Vec<String> = names.collect();
        names.sort_by_key(|name| !settings.limits.groups.names(name));
        let (groups, left_out) = Groups::of(names);
        if left_out {
            tracing::warn!(
                found = found.len(),
                "a user's groups are too many, or their names too long; some are left out"
            );
        }
        groups
    }
}

impl Exchange {
    /// The credentials that the app got and that its answer leaves as they are.
    pub(super) fn kept(&self, changes: &Changes) -> Vec<Bare> {
        let Changes { issued, deleted, .. } = changes;
        let replaced = |bare: &&Bare| {
            issued.iter().any(|issued| issued.name == bare.name) || deleted.contains(&bare.name)
        };
        self.sent.iter().filter(|bare| !replaced(bare)).cloned().collect()
    }
}

impl Candidate {
    fn credentials(&self) -> Vec<Bare> {
        self.issued.iter().chain(&self.kept).cloned().collect()
    }
}
