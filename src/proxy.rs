//! The life of a request, top to bottom: who is calling, what was presented, what we know, the
//! verdict, the way to the app and back. Decisions are in `policy.rs` and `decide.rs`, answers of
//! our own in `enforce.rs`; what watched requests (logins and the like) need is in `watch.rs`.

mod answer;
mod app_logout;
mod clients;
mod guest;
mod live;
mod login;
mod own_form;
mod own_request;
mod payload;
mod probe;
mod self_service;
mod step;
mod told;
mod watch;

use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ALLOW, COOKIE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use tokio::time::{Instant as Deadline, timeout_at};

use crate::audit::{AuditEvent, EventKind};
use crate::body::{AppBody, Body, RequestBody};
use crate::client::{self, Caller};
use crate::clock::Clock;
use crate::cookies::{self, Candidate, Scan};
use crate::credentials::{Bare, Judge, Keys, Presented};
use crate::detect;
use crate::enforce::{self, Audience};
use crate::headers;
use crate::issue::{Issuer, Shapes};
use crate::keyring::{self, Keyring};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, RequestOutcome};
use crate::own_pages::OwnPages;
use crate::pace::Pace;
use crate::path;
use crate::peer::Peer;
use crate::policy::{self, Carry, Kind, Permit, Standing, Verdict};
use crate::probes::{Adopted, Probes};
use crate::recorder::Recorder;
use crate::refusal::{Refusal, Side};
use crate::registry::{Entry, Registry};
use crate::session::{EndReason, Ending, Initiator, SessionId};
use crate::settings::{OnEnded, Settings, Site};
use crate::slots::Slots;
use crate::steps::Steps;
use crate::upstream::{App, Upstream};
use crate::url::Carriers;

use self::answer::Upgrade;
pub use self::live::{Lasting, Live, LiveWorker};
use self::payload::Payload;
use self::self_service::own_page;

/// What all workers share: the settings, and everything that follows from them or outlives them.
/// Other settings make another one, see [`Live`].
pub struct Proxy {
    pub settings: Settings,
    pub keyring: Arc<Keyring>,
    /// Where the app is; connections to it are the workers' own.
    pub app: Arc<App>,
    pub registry: Arc<Registry>,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub shapes: Arc<Shapes>,
    pub steps: Arc<Steps>,
    pub probes: Arc<Probes>,
    pub own_pages: Arc<OwnPages>,
    /// How often each refusal is logged.
    pub pace: Arc<Pace>,
    /// Room for requests at the app.
    pub slots: Arc<Slots>,
    pub lifecycle: Lifecycle,
    /// Where a session id would pass beside the cookies.
    pub carriers: Carriers,
    /// The key of marks that tell one client from another.
    marks: RandomState,
}

/// One data-plane thread under some settings: the shared state, and connections to the app of its
/// own. A request has the same one from its beginning to its end.
#[derive(Clone)]
struct Worker {
    proxy: Arc<Proxy>,
    upstream: Upstream,
}

/// What is remembered of a request until its answer is out.
struct Exchange {
    caller: Caller,
    user_agent: Option<HeaderValue>,
    /// Which of several apps it is for.
    scope: Option<usize>,
    /// Canonical.
    path: String,
    audience: Audience,
    presented: Presented,
    /// The credentials that went to the app.
    sent: Vec<Bare>,
    /// A probe has just found the session that the request belongs to.
    adopted: Option<Adopted>,
}

/// An answer, and what to count it as.
struct Answered {
    response: Response<Body>,
    outcome: RequestOutcome,
}

impl From<Response<Body>> for Answered {
    fn from(response: Response<Body>) -> Self {
        Self { response, outcome: RequestOutcome::Forwarded }
    }
}

impl Worker {
    async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        let language = self.proxy.settings.pages.language;
        let audience = Audience::of(request.method(), request.headers(), language);
        let limit = self.proxy.settings.server.limits.request_timeout_ms;
        let Some(limit) = limit.map(Duration::from_millis) else {
            let result = self.handle(peer, request, audience).await;
            return self.proxy.account(result, peer, audience);
        };
        let deadline = Deadline::now() + limit;
        // A login goes on in its own task, and is taken back.
        let result = timeout_at(deadline, self.handle(peer, request, audience)).await;
        let result = result.unwrap_or(Err(Refusal::RequestTimeout));
        self.proxy.account(result, peer, audience).map(|body| body.until(deadline))
    }

    async fn handle(
        &self,
        peer: Peer,
        mut request: Request<Incoming>,
        audience: Audience,
    ) -> Result<Answered, Refusal> {
        let (proxy, settings) = (&*self.proxy, &self.proxy.settings);
        if request.version() == Version::HTTP_2 {
            headers::from_http2(&mut request, &settings.server.limits)?;
        }
        // 1 who is calling
        let caller = Caller::identify(&peer, request.headers(), &settings.server.trusted_proxies);
        // 2 read the request
        let upgrade = headers::check(&request, &caller, &settings.server)?.upgrade;
        proxy.carriers.cut_from(request.uri_mut()).map_err(|_| Refusal::TargetInvalid)?;
        let (scope, path, own) = proxy.place(request.uri().path(), &caller.host)?;
        let site = settings.site(scope);
        let on_client = upgrade.then(|| Upgrade::of(&mut request)).flatten();
        let (mut parts, body) = request.into_parts();
        let body = Payload::Streaming(body);
        let (tokens, mut payload) = proxy.tokens(site, &parts, &path, body).await?;
        let mut scan = proxy.scan(site, &parts.headers)?;
        scan.candidates.extend(tokens.iter().map(Candidate::from));
        // 3 look up
        let user_agent = parts.headers.get(USER_AGENT).cloned();
        let client = proxy.device(&tokens, &caller, user_agent.as_ref());
        let presented = proxy.judge(site, &client, audience).presented(&scan.candidates);
        proxy.check_heard(!presented.all.is_empty())?;
        let (sent, adopted) = (Vec::new(), None);
        let mut exchange =
            Exchange { caller, user_agent, scope, path, audience, presented, sent, adopted };
        if proxy.may_be_other_client(&exchange) {
            Box::pin(self.look_at_client(&mut exchange, &client, &scan.candidates)).await?;
        }
        if let Some(page) = own {
            return Box::pin(self.self_service(&exchange, peer, &page, &parts, payload)).await;
        }
        if let Some(answered) = self.identify(&mut exchange, &client, &scan.candidates).await? {
            return Ok(answered);
        }
        // 4 decide
        let verdict = proxy.verdict(&parts.method, &exchange);
        self.notice(&exchange);
        let permit = match verdict {
            Verdict::Forward(permit, carry) => {
                exchange.carry(carry);
                permit
            }
            Verdict::Ended => return Ok(proxy.tell_ended(&exchange)),
            Verdict::Ambiguous => return Ok(proxy.tell_ambiguous(&exchange, peer)),
        };
        // 5 forward
        let cookie = cookies::join(exchange.cookies_sent(), &scan.others);
        payload::take_off(&tokens, &exchange.sent, &mut parts, &mut payload)?;
        let watched = detect::may_match(site.rules, parts.method.as_str(), &exchange.path)
            || (proxy.may_identify(&exchange) && on_client.is_none());
        if watched {
            proxy.check_heard(true)?;
            return Box::pin(self.watch(exchange, permit, parts, payload, cookie)).await;
        }
        proxy.prepare(&mut parts, &exchange.caller, cookie.as_deref(), upgrade)?;
        let body = proxy.client_body(payload)?;
        let response = self.send(permit, Request::from_parts(parts, body)).await?;
        // 6 read the response, 7 record, 8 answer
        match on_client {
            Some(on_client) => Box::pin(self.switch(exchange, on_client, response)).await,
            None => self.relay(exchange, response).await.map(Answered::from),
        }
    }

    async fn send(
        &self,
        permit: Permit,
        request: Request<RequestBody>,
    ) -> Result<Response<AppBody>, Refusal> {
        let slot = self.proxy.slots.take().await.ok_or(Refusal::UpstreamBusy)?;
        let answer = self.upstream.send(permit, request).await;
        answer.map(|response| response.map(|body| body.holding(slot))).map_err(|error| {
            let refusal = error.refusal();
            if refusal.side() == Side::Upstream {
                tracing::warn!(reason = refusal.code(), %error, "the app did not answer");
            }
            refusal
        })
    }

    /// What follows from the credentials alone, whatever the verdict.
    fn notice(&self, exchange: &Exchange) {
        let proxy = &*self.proxy;
        let presented = &exchange.presented;
        proxy.rekey(presented);
        let now = proxy.clock.now();
        for key in &presented.untracked {
            proxy.metrics.untracked_requests.inc();
            proxy.registry.note_untracked(*key, now, &proxy.client(exchange));
        }
        let Some(entry) = &presented.entry else {
            return;
        };
        match presented.standing {
            Standing::Live => {
                let ignored = &proxy.settings.session.idle_ignore_paths;
                let ignored = !ignored.is_empty() && ignored.matches(&exchange.path);
                if !ignored && entry.touch(now) {
                    proxy.registry.mark_dirty(entry);
                }
                if !proxy.recorder.enforces()
                    && let Some(ending) = entry.would_end()
                {
                    proxy.note_use_after_end(exchange, entry, Some(&ending));
                }
            }
            Standing::Over(_) | Standing::Left => {
                if presented.expired_now {
                    self.record_expiry(entry.id);
                }
                proxy.note_use_after_end(exchange, entry, presented.ending.as_ref());
                self.log_out_dead(exchange, entry);
            }
            Standing::Anonymous | Standing::Ambiguous => {}
        }
    }

    /// A request found a session timed out before the sweep did.
    fn record_expiry(&self, id: SessionId) {
        let proxy = Arc::clone(&self.proxy);
        self.proxy.lifecycle.spawn(async move {
            if let Err(error) = proxy.recorder.expire(vec![id]).await {
                tracing::warn!(%error, "a timed-out session could not be recorded yet");
            }
        });
    }
}

impl Exchange {
    fn cookies_sent(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let cookies = self.sent.iter().filter(|bare| bare.is_cookie());
        cookies.map(|bare| (&*bare.name, &*bare.value))
    }

    fn carry(&mut self, carry: Carry) {
        self.sent = match carry {
            Carry::Entitled => std::mem::take(&mut self.presented.forward),
            Carry::Nothing => Vec::new(),
            Carry::Everything => self.presented.all.clone(),
        };
    }
}

impl Proxy {
    /// What counts for a request.
    fn site(&self, exchange: &Exchange) -> Site<'_> {
        self.settings.site(exchange.scope)
    }

    fn judge<'a>(&'a self, site: Site<'a>, client: &'a str, audience: Audience) -> Judge<'a> {
        Judge {
            keyring: &self.keyring,
            registry: &self.registry,
            app: site.app,
            rules: site.rules,
            session: &self.settings.session,
            mode: self.settings.switches.mode,
            now: self.clock.now(),
            client,
            navigation: audience.is_page(),
        }
    }

    /// A replica that does not know what the others did judges nothing and lets nobody in.
    fn check_heard(&self, judged: bool) -> Result<(), Refusal> {
        if judged && self.recorder.is_stale() { Err(Refusal::StoreFailed) } else { Ok(()) }
    }

    /// What credentials are known by.
    fn keys(&self, exchange: &Exchange) -> Keys<'_> {
        let Site { app, rules, .. } = self.site(exchange);
        Keys { keyring: &self.keyring, app, rules }
    }

    fn issuer<'a>(&'a self, site: Site<'a>) -> Issuer<'a> {
        let Site { scope, app, rules, .. } = site;
        Issuer { keyring: &self.keyring, scope, app, rules, now: self.clock.now() }
    }

    fn note_use_after_end(&self, exchange: &Exchange, entry: &Entry, ending: Option<&Ending>) {
        let now = self.clock.now();
        if !entry.claim_use_after_end(now) {
            return;
        }
        self.metrics.use_after_end.inc();
        let mode = self.settings.switches.mode;
        let kind = EventKind::SessionUseAfterEnd;
        let mut event = AuditEvent::new(kind, now, Initiator::User, mode)
            .user(entry.user.as_ref())
            .session(entry.id)
            .client(&self.client(exchange));
        event.reason = ending.map(|ending| ending.reason);
        event.by_session = ending.and_then(|ending| ending.by_session);
        self.recorder.note(event);
    }

    /// Where a request leads: which app's it is, its canonical path, and which page of ours it is for.
    fn place(
        &self,
        raw: &str,
        host: &str,
    ) -> Result<(Option<usize>, String, Option<String>), Refusal> {
        let path = path::canonical(raw);
        let scope = self.settings.scope_of(host, &path.text);
        let site = self.settings.site(scope);
        let own = own_page(raw, &path, site)?;
        Ok((scope, self.checked(path, site)?, own))
    }

    /// The canonical path. Another spelling of one that is watched, or that may belong to another
    /// app, is refused rather than guessed at.
    fn checked(&self, path: path::CanonicalPath, site: Site<'_>) -> Result<String, Refusal> {
        let scoped = self.settings.scopes.iter().any(|scope| !scope.paths.is_empty());
        if !path.plain && (scoped || detect::watches(site.rules, &path.text)) {
            return Err(Refusal::PathSpelling);
        }
        Ok(path.text)
    }

    fn scan<'h>(&self, site: Site<'_>, headers: &'h HeaderMap) -> Result<Scan<'h>, Refusal> {
        let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let scan = cookies::scan(lines, site.rules);
        if scan.pairs > self.settings.server.limits.cookies_max {
            return Err(Refusal::HeadTooLarge);
        }
        Ok(scan)
    }

    fn verdict(&self, method: &Method, exchange: &Exchange) -> Verdict {
        let ended_is_anonymous = self.settings.enforcement.on_ended == OnEnded::Anonymous;
        let mode = self.settings.switches.mode;
        let kind = self.kind(method, exchange);
        policy::verdict(mode, exchange.presented.standing, kind, ended_is_anonymous)
    }

    fn kind(&self, method: &Method, exchange: &Exchange) -> Kind {
        let (site, path) = (self.site(exchange), &*exchange.path);
        let login_page =
            site.login_url.is_some_and(|url| url.split(['?', '#']).next() == Some(path));
        let exempt = self.is_exempt(path);
        Kind {
            navigation: exchange.audience.is_page(),
            safe: matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
            open: login_page || exempt || detect::is_login_path(site.rules, path),
        }
    }

    fn is_exempt(&self, path: &str) -> bool {
        let exempt = &self.settings.enforcement.exempt_paths;
        !exempt.is_empty() && exempt.matches(path)
    }

    /// Makes the head that the app gets.
    fn prepare(
        &self,
        parts: &mut Parts,
        caller: &Caller,
        cookie: Option<&[u8]>,
        upgrade: bool,
    ) -> Result<(), Refusal> {
        headers::to_upstream(&mut parts.headers, caller, cookie, upgrade)?;
        if !self.settings.upstream.method_override {
            headers::remove_method_overrides(&mut parts.headers);
        }
        parts.version = Version::HTTP_11;
        if parts.uri.scheme().is_some() {
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            parts.uri = target.parse::<Uri>().map_err(|_| Refusal::TargetInvalid)?;
        }
        if !self.settings.upstream.preserve_host || !parts.headers.contains_key(HOST) {
            let host = HeaderValue::from_str(&self.settings.upstream.authority);
            parts.headers.insert(HOST, host.map_err(|_| Refusal::InternalError)?);
        }
        Ok(())
    }

    // 9 account
    fn account(
        &self,
        result: Result<Answered, Refusal>,
        peer: Peer,
        audience: Audience,
    ) -> Response<Body> {
        let refusal = match result {
            Ok(answered) => {
                self.metrics.requests.inc(answered.outcome);
                return answered.response;
            }
            Err(refusal) => refusal,
        };
        self.metrics.requests.inc(RequestOutcome::Refused);
        self.refuse(refusal, peer, audience)
    }

    fn refuse(&self, refusal: Refusal, peer: Peer, audience: Audience) -> Response<Body> {
        let id = keyring::random::<8>().map_or_else(|_| String::new(), |id| keyring::hex(&id));
        self.refused(refusal, peer, &id);
        let mut response = enforce::refuse(&self.settings.pages, refusal, audience, &id);
        let allow = self.settings.server.accepted.allow();
        if let (Refusal::MethodRefused, Some(allow)) = (refusal, allow) {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }

    /// Counts and logs a refusal, whoever made it.
    pub fn refused(&self, refusal: Refusal, peer: Peer, reference: &str) {
        self.metrics.refusals.inc(refusal);
        let Some(untold) = self.pace.say(refusal as usize, Instant::now()) else { return };
        tracing::info!(
            target: "headcount::refused",
            reason = refusal.code(),
            status = refusal.status().as_u16(),
            peer = client::logged(&peer, self.settings.log.client_address, &self.keyring),
            reference,
            untold = (untold > 0).then_some(untold),
            "request refused"
        );
    }
}

/// Reasons after which the app's own session is already gone, or is somebody else's now.
fn app_session_is_gone(reason: EndReason) -> bool {
    matches!(reason, EndReason::Logout | EndReason::App | EndReason::Replaced)
}
