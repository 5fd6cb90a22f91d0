//! Asking the app whom it takes a credential for: at a login before its answer goes out, for
//! credentials that no session has, and for answers that set one where no rule expects it.

use std::time::Duration;

use http::Response;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, USER_AGENT};
use tokio::time::timeout;

use super::login::Claim;
use super::own_request::OwnRequest;
use super::{Answered, Exchange, Proxy, Worker};
use crate::body::AppBody;
use crate::cookies::Candidate;
use crate::credentials::{self, Bare};
use crate::decide::{KeyPair, Login};
use crate::detect::{self, AnswerBody, AnswerFacts, groups};
use crate::enforce;
use crate::inspect;
use crate::issue::{self, Changes};
use crate::keyring;
use crate::metrics::{LoginOutcome, ProbeOutcome, RequestOutcome};
use crate::policy::Standing;
use crate::probes::{Adopted, Found};
use crate::refusal::Refusal;
use crate::rules::expression::{Filter, Place};
use crate::rules::{BASIC, Role};
use crate::session::{Groups, SessionKey, User};
use crate::settings::{Binding, Probe, ProbeFailure};
use crate::stamp::Lineage;
use crate::store::Decision;

/// Whom the app takes a client for.
enum Who {
    User(String),
    Nobody,
    /// No answer, or none that says.
    Unknown,
}

/// What a probe brought.
struct Told {
    who: Who,
    /// Of the user, as found.
    groups: Vec<String>,
    set_cookies: Vec<HeaderValue>,
}

impl Told {
    const NOTHING: Self = Self { who: Who::Unknown, groups: Vec::new(), set_cookies: Vec::new() };
}

impl Worker {
    /// At a login: the app's word for it, in place of what the request says. `None`: the app does not
    /// know of any login.
    pub(super) async fn confirm(
        &self,
        exchange: &Exchange,
        mut claim: Claim,
        response: &mut Response<AppBody>,
    ) -> Result<Option<Claim>, Refusal> {
        let Some(probe) = self.proxy.site(exchange).probe else { return Ok(Some(claim)) };
        let credentials = exchange.after(&claim.changes);
        let told = self.ask(exchange, probe, &credentials).await;
        match told.who {
            Who::User(name) => {
                self.take_over(
                    exchange,
                    response.headers_mut(),
                    told.set_cookies,
                    &mut claim.changes,
                );
                claim.groups.extend(told.groups);
                Ok(Some(Claim { user: Some(name), confirmed: true, ..claim }))
            }
            Who::Nobody => {
                tracing::warn!(
                    path = exchange.path,
                    "a login looked accepted, but the app knows nobody behind it; it is not counted"
                );
                self.take_over(
                    exchange,
                    response.headers_mut(),
                    told.set_cookies,
                    &mut claim.changes,
                );
                Ok(None)
            }
            Who::Unknown if probe.on_failure == ProbeFailure::Pass => Ok(Some(claim)),
            Who::Unknown => {
                if let Some(candidate) = self.candidate(exchange, claim)? {
                    self.withdraw(exchange, candidate).await;
                }
                Err(Refusal::ProbeFailed)
            }
        }
    }

    /// An answer set a credential outside the rules: whom does the app take it for? `telling`: by
    /// its method or status the answer may well be that of a login.
    pub(super) async fn identify_answer(
        &self,
        exchange: &Exchange,
        mut changes: Changes,
        telling: bool,
        response: &mut Response<AppBody>,
    ) -> Option<Claim> {
        let proxy = &*self.proxy;
        let site = proxy.site(exchange);
        let probe = site.probe?;
        let of_role = |bare: &Bare, role| site.rules.role_of(&bare.name) == Some(role);
        let fresh = changes
            .issued
            .iter()
            .any(|bare| of_role(bare, Role::Session) && !exchange.sent.contains(bare));
        let remembered = exchange.sent.iter().any(|bare| of_role(bare, Role::Remember));
        let anonymous = exchange.presented.standing == Standing::Anonymous;
        // Otherwise it is asked when the credential is presented.
        if !anonymous
            || !fresh
            || !(telling || remembered)
            || !proxy.probes.may_ask(proxy.clock.now())
        {
            return None;
        }
        let told = self.ask(exchange, probe, &exchange.after(&changes)).await;
        let user = match told.who {
            Who::User(name) => Some(name),
            Who::Nobody | Who::Unknown => None,
        };
        self.take_over(exchange, response.headers_mut(), told.set_cookies, &mut changes);
        user.map(|name| Claim {
            user: Some(name),
            in_place: true,
            guests_only: false,
            confirmed: true,
            groups: told.groups,
            changes,
        })
    }

    /// Credentials that no session has are asked about, and those the app takes for somebody's
    /// become a session's. An answer means: the request goes no further.
    pub(super) async fn identify(
        &self,
        exchange: &mut Exchange,
        client: &str,
        candidates: &[Candidate<'_>],
    ) -> Result<Option<Answered>, Refusal> {
        let proxy = &*self.proxy;
        let site = proxy.settings.site(exchange.scope);
        let (Some(probe), Standing::Anonymous) = (site.probe, exchange.presented.standing) else {
            return Ok(None);
        };
        let unproven = proxy.provable(exchange, &exchange.presented.unproven);
        if unproven.is_empty() || proxy.is_exempt(&exchange.path) {
            return Ok(None);
        }
        let issued = exchange.presented.untracked.is_empty();
        let key = match exchange.presented.lineage {
            Some(lineage) if issued => lineage.key(),
            _ => proxy.key_of_all(exchange, &unproven),
        };
        let Some(question) = proxy.probes.question(key, issued, proxy.clock.now()) else {
            proxy.metrics.probes.inc(ProbeOutcome::Limited);
            // What we issued belonged to nobody when it was issued.
            return if issued || probe.on_failure == ProbeFailure::Pass {
                Ok(None)
            } else {
                Err(Refusal::ProbeFailed)
            };
        };
        let find = || Box::pin(self.find(exchange, probe, &unproven));
        let found = question.get_or_try_init(find).await;
        match found {
            Ok(Found::Nobody) => Ok(None),
            Ok(Found::Session(adopted)) => {
                exchange.presented =
                    proxy.judge(site, client, exchange.audience).presented(candidates);
                exchange.presented.lineage = Some(adopted.lineage);
                exchange.adopted = Some(adopted.clone());
                Ok(None)
            }
            Ok(Found::Denied { count, limit }) => {
                let pages = &proxy.settings.pages;
                let response = enforce::denied(pages, *count, *limit, exchange.audience);
                Ok(Some(Answered { response, outcome: RequestOutcome::Denied }))
            }
            Err(refusal) => {
                proxy.probes.forget(key);
                match refusal {
                    Refusal::ProbeFailed if probe.on_failure == ProbeFailure::Pass => Ok(None),
                    refusal => Err(refusal),
                }
            }
        }
    }

    /// Asks, and begins a session for whom the app names.
    async fn find(
        &self,
        exchange: &Exchange,
        probe: &Probe,
        unproven: &[Bare],
    ) -> Result<Found, Refusal> {
        let proxy = &*self.proxy;
        let told = self.ask(exchange, probe, unproven).await;
        let user = match told.who {
            Who::User(name) => proxy.user(exchange, &name).ok_or(Refusal::ProbeFailed)?,
            Who::Nobody => return Ok(Found::Nobody),
            Who::Unknown => return Err(Refusal::ProbeFailed),
        };
        let lineage = Lineage::authenticated().map_err(|_| Refusal::InternalError)?;
        let mut login = self.adoption(exchange, user, lineage, unproven)?;
        login.groups = proxy.groups(&told.groups);
        let decision = proxy.recorder.login(login).await.map_err(|error| {
            tracing::error!(%error, "a session that the app knows could not be recorded");
            Refusal::StoreFailed
        })?;
        match decision {
            Decision::Denied { count, limit, .. } => {
                proxy.metrics.logins.inc(LoginOutcome::Denied);
                self.log_out_at_app(exchange.scope, exchange.caller.clone(), unproven.to_vec());
                Ok(Found::Denied { count, limit })
            }
            Decision::Admitted { .. } | Decision::Renewed { .. } => {
                proxy.metrics.logins.inc(LoginOutcome::Admitted);
                Ok(Found::Session(Adopted { lineage, set_cookies: told.set_cookies }))
            }
            Decision::Done | Decision::Ended { .. } => Err(Refusal::InternalError),
        }
    }

    /// What a session that was found is known by. A value that was not issued through us goes on
    /// counting; a stamp from before does so for a moment only, as somebody may have planted it.
    fn adoption(
        &self,
        exchange: &Exchange,
        user: User,
        lineage: Lineage,
        unproven: &[Bare],
    ) -> Result<Login, Refusal> {
        let proxy = &*self.proxy;
        let (keys, signed) =
            (proxy.keys(exchange), proxy.settings.session.binding == Binding::Signed);
        let values: Vec<KeyPair> = unproven.iter().map(|bare| keys.of_bare(bare)).collect();
        let tracked = |pair: &KeyPair| !exchange.presented.untracked.contains(&pair.0);
        let (fenced, mut bearer): (Vec<_>, Vec<_>) =
            values.into_iter().partition(|pair| signed && tracked(pair));
        bearer.push((lineage.key(), lineage.key()));
        let before = exchange.presented.lineage.map(|old| (old.key(), old.key()));
        Ok(Login {
            id: keyring::random_session_id().map_err(|_| Refusal::InternalError)?,
            user: Some(user),
            groups: Groups::default(),
            client: proxy.client(exchange),
            now: proxy.clock.now(),
            bearer,
            fenced,
            before: Vec::new(),
            superseded: before.into_iter().collect(),
            previous: None,
        })
    }

    async fn ask(&self, exchange: &Exchange, probe: &Probe, credentials: &[Bare]) -> Told {
        let proxy = &*self.proxy;
        let credentials = proxy.provable(exchange, credentials);
        let asked = self.asked(exchange, probe, &credentials);
        let told = timeout(Duration::from_millis(probe.timeout_ms), asked).await;
        let told = match told {
            Ok(Ok(told)) => told,
            Ok(Err(refusal)) => {
                tracing::warn!(
                    reason = refusal.code(),
                    "the app could not be asked who somebody is"
                );
                Told::NOTHING
            }
            Err(_) => {
                tracing::warn!("the app took too long to say who somebody is");
                Told::NOTHING
            }
        };
        proxy.metrics.probes.inc(match told.who {
            Who::User(_) => ProbeOutcome::User,
            Who::Nobody => ProbeOutcome::Nobody,
            Who::Unknown => ProbeOutcome::Failed,
        });
        told
    }

    async fn asked(
        &self,
        exchange: &Exchange,
        probe: &Probe,
        credentials: &[Bare],
    ) -> Result<Told, Refusal> {
        let proxy = &*self.proxy;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/html;q=0.9"));
        if let Some(agent) = &exchange.user_agent {
            headers.insert(USER_AGENT, agent.clone());
        }
        for (name, value) in &probe.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            {
                headers.insert(name, value);
            }
        }
        let (method, target) = (&*probe.method, &*probe.path);
        let rules = proxy.site(exchange).rules;
        let own = OwnRequest { method, target, headers, cookies: Vec::new(), credentials, rules };
        let (head, body) = self.send_own(&exchange.caller, own).await?.into_parts();
        let upstream = &proxy.settings.upstream;
        let patience = Duration::from_millis(probe.timeout_ms);
        let (text, _) =
            inspect::read(&head.headers, body, upstream.inspect_bytes_max, patience).await?;
        let cookies = issue::read_all(&head.headers, proxy.clock.now());
        let facts = AnswerFacts {
            status: head.status.as_u16(),
            headers: &head.headers,
            cookies: &cookies,
            body: text.as_ref().map_or(AnswerBody::Unreadable, AnswerBody::Read),
        };
        let who = who(probe, facts, credentials);
        let sources = &proxy.settings.groups;
        let groups = groups::told(&sources.probe, sources.separator, facts);
        let set_cookies = head.headers.get_all(SET_COOKIE).iter().cloned().collect();
        Ok(Told { who, groups, set_cookies })
    }

    /// What the probe's answer set goes to the client, as if the answer at hand had set it later.
    fn take_over(
        &self,
        exchange: &Exchange,
        headers: &mut HeaderMap,
        lines: Vec<HeaderValue>,
        changes: &mut Changes,
    ) {
        if lines.is_empty() {
            return;
        }
        for line in lines {
            headers.append(SET_COOKIE, line);
        }
        let proxy = &*self.proxy;
        let tokens = std::mem::take(changes).issued.into_iter().filter(|bare| !bare.is_cookie());
        let tokens: Vec<Bare> = tokens.collect();
        *changes =
            issue::changes(&issue::read(headers, proxy.site(exchange).rules, proxy.clock.now()));
        changes.issued.extend(tokens);
    }
}

/// What an answer says.
fn who(probe: &Probe, facts: AnswerFacts<'_>, credentials: &[Bare]) -> Who {
    if detect::success_matches(&probe.anonymous, &probe.path, facts) {
        return Who::Nobody;
    }
    // Who was let in with HTTP Basic has the name that was sent.
    let basic = credentials.iter().find(|bare| bare.name == BASIC);
    let sent = basic.and_then(|bare| {
        let code = std::str::from_utf8(credentials::basic_code(&bare.value)).ok()?;
        Some(Filter::Base64.apply(code)?.split_once(':')?.0.to_owned())
    });
    let name = probe.user.iter().find_map(|expression| match expression.place {
        Place::BasicUser => sent.clone().filter(|name| !name.is_empty()),
        _ => detect::answer_value(expression, facts),
    });
    match name {
        Some(name) if (200..300).contains(&facts.status) => Who::User(name),
        _ => Who::Unknown,
    }
}

impl Proxy {
    /// Those of the credentials that a probe may carry: presenting one that is good for one use
    /// only, as some remember-me cookies are, would spend it.
    fn provable(&self, exchange: &Exchange, credentials: &[Bare]) -> Vec<Bare> {
        let rules = self.site(exchange).rules;
        let session = |bare: &&Bare| rules.role_of(&bare.name) == Some(Role::Session);
        credentials.iter().filter(session).cloned().collect()
    }

    fn key_of_all(&self, exchange: &Exchange, credentials: &[Bare]) -> SessionKey {
        let keys = self.keys(exchange);
        let all: Vec<u8> = credentials.iter().flat_map(|bare| keys.of_bare(bare).1.0).collect();
        self.keyring.token(keys.app, ":all", &all)
    }

    /// Whether an answer to this request has to be watched for credentials outside the rules.
    pub(super) fn may_identify(&self, exchange: &Exchange) -> bool {
        self.site(exchange).probe.is_some() && exchange.presented.standing == Standing::Anonymous
    }
}

impl Exchange {
    /// The credentials the client has after this answer.
    fn after(&self, changes: &Changes) -> Vec<Bare> {
        changes.issued.iter().cloned().chain(self.kept(changes)).collect()
    }
}
