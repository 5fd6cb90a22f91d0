//! The way back of an ordinary answer: credential cookies stamped or stripped, rotations recorded,
//! bodies and tunnels that end with their session.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SET_COOKIE, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;

use super::{Answered, Exchange, Proxy, Worker};
use crate::body::{AppBody, Body};
use crate::conn::Hold;
use crate::credentials::{Bare, Presented};
use crate::decide::Rotation;
use crate::headers;
use crate::issue::{self, Changes, Label};
use crate::metrics::RequestOutcome;
use crate::policy::Standing;
use crate::refusal::Refusal;
use crate::registry::Entry;
use crate::rules::Role;
use crate::session::{Key, KeyUse, Mode, SessionId};
use crate::settings::Binding;
use crate::stamp::Lineage;
use crate::store::LATE_KEYS_MAX;
use crate::tunnel;

/// The client's side of a WebSocket that was asked for.
pub(super) struct Upgrade {
    socket: OnUpgrade,
    /// Keeps the connection it shares.
    hold: Option<Hold>,
    key: HeaderValue,
}

impl Upgrade {
    /// Nothing without a key, which was checked before.
    pub(super) fn of<B>(request: &mut Request<B>) -> Option<Self> {
        let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned()?;
        let hold = request.extensions_mut().remove();
        Some(Self { socket: hyper::upgrade::on(request), hold, key })
    }
}

/// What an ordinary answer meant for the session of its request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Goes,
    /// The app took the session's cookie back.
    Dropped,
}

impl Worker {
    /// Relays an answer that no rule watches.
    pub(super) async fn relay(
        &self,
        exchange: Exchange,
        mut response: Response<AppBody>,
    ) -> Result<Response<Body>, Refusal> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::UpstreamInvalid);
        }
        headers::to_downstream(response.headers_mut());
        let adopted = exchange.adopted.as_ref();
        if let Some(adopted) = adopted {
            precede(response.headers_mut(), &adopted.set_cookies);
        }
        let mut cut = self.proxy.cut(&exchange);
        if adopted.is_some() || response.headers().contains_key(SET_COOKIE) {
            let settle = self.proxy.settle(&exchange, response.headers_mut());
            let settled = Box::pin(settle).await?;
            // The answer that ends the session is not cut by that.
            cut = cut.filter(|_| settled == Settled::Goes);
        }
        Ok(self.proxy.finish(&exchange, response, cut))
    }

    /// Opens the tunnel after an upgrade, or relays whatever the app answered instead.
    pub(super) async fn switch(
        &self,
        exchange: Exchange,
        upgrade: Upgrade,
        mut response: Response<AppBody>,
    ) -> Result<Answered, Refusal> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.relay(exchange, response).await.map(Answered::from);
        }
        let Upgrade { socket: on_client, hold, key } = upgrade;
        if !headers::websocket::opens(response.headers(), &key) {
            return Err(Refusal::UpstreamInvalid);
        }
        let on_app = hyper::upgrade::on(&mut response);
        let slot = response.body_mut().take_slot();
        let ends = tunnel::Ends {
            session: self.proxy.cut(&exchange).unwrap_or_default(),
            drain: self.proxy.lifecycle.drain_token().clone(),
        };
        let (proxy, entry) = (Arc::clone(&self.proxy), exchange.presented.entry.clone());
        self.proxy.lifecycle.spawn(async move {
            let _slot = slot;
            let (Ok(client), Ok(app)) = (on_client.await, on_app.await) else {
                return;
            };
            let active = move || {
                let Some(entry) = &entry else { return };
                if entry.touch(proxy.clock.now()) {
                    proxy.registry.mark_dirty(entry);
                }
            };
            let waits = move |waits| hold.iter().for_each(|hold: &Hold| hold.waits(waits));
            tunnel::relay(client, app, ends, active, waits).await;
        });
        headers::to_downstream(response.headers_mut());
        if response.headers().contains_key(SET_COOKIE) {
            self.proxy.settle(&exchange, response.headers_mut()).await?;
        }
        let upgrade = [(CONNECTION, "upgrade"), (UPGRADE, "websocket")];
        for (name, value) in upgrade {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let response = response.map(|_| Body::default());
        Ok(Answered { response, outcome: RequestOutcome::Upgraded })
    }
}

/// Puts Set-Cookie lines before those that are there already, which then count.
fn precede(headers: &mut HeaderMap, lines: &[HeaderValue]) {
    let later: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for line in lines.iter().cloned().chain(later) {
        headers.append(SET_COOKIE, line);
    }
}

impl Proxy {
    /// What ends the answer's body or tunnel early: the end of its session.
    pub(super) fn cut(&self, exchange: &Exchange) -> Option<CancellationToken> {
        let enforced = self.settings.switches.mode == Mode::Enforce;
        let live = exchange.presented.standing == Standing::Live && enforced;
        exchange.presented.entry.as_ref().filter(|_| live).map(|entry| entry.cut())
    }

    /// The answer as the client gets it.
    pub(super) fn finish(
        &self,
        exchange: &Exchange,
        mut response: Response<AppBody>,
        cut: Option<CancellationToken>,
    ) -> Response<Body> {
        *response.version_mut() = http::Version::HTTP_11;
        if exchange.audience.is_page() {
            self.expire_dead(exchange, &mut response);
        }
        let idle = Duration::from_millis(self.settings.upstream.body_idle_timeout_ms);
        response.map(|body| Body::upstream(body, idle, cut, None))
    }

    /// Labels the credential cookies of an ordinary answer and records what they mean for the
    /// session of its request.
    async fn settle(
        &self,
        exchange: &Exchange,
        headers: &mut HeaderMap,
    ) -> Result<Settled, Refusal> {
        let cookies = issue::read(headers, self.site(exchange).rules, self.clock.now());
        let mut settled = Settled::Goes;
        if cookies.is_empty() && exchange.adopted.is_none() {
            return Ok(settled);
        }
        let changes = issue::changes(&cookies);
        self.learn(exchange, &changes);
        let live = exchange.presented.entry.as_ref();
        let live = live.filter(|_| exchange.presented.standing == Standing::Live);
        let label = self.label(exchange, live).await?;
        if let Some(entry) = live.filter(|_| label != Label::Strip) {
            if self.took_back(exchange, &changes) {
                // The browser forgets the session, so nobody can use it any more.
                settled = Settled::Dropped;
                if let Err(error) = self.recorder.dropped_by_app(entry.id).await {
                    tracing::warn!(%error, "a session the app dropped could not be recorded");
                }
            } else {
                self.follow(exchange, entry, &changes.issued).await?;
            }
        }
        let unstamped = self.issuer(self.site(exchange)).relabel(headers, label);
        if let (Some(_), Label::Stamp(lineage)) = (&exchange.adopted, label) {
            let kept = exchange.kept(&changes);
            for bare in kept.iter().filter(|bare| bare.is_cookie()) {
                self.issuer(self.site(exchange)).reissue(headers, bare, lineage, &self.shapes);
            }
        }
        if let Some(entry) = live.filter(|_| !unstamped.is_empty()) {
            self.bind_unstamped(exchange, entry.id, &unstamped).await?;
        }
        Ok(settled)
    }

    /// How the cookies of this answer are labelled. Looks again at the lineage: a login or an end
    /// may have come between, and its cookies must not be overwritten by late ones.
    async fn label(
        &self,
        exchange: &Exchange,
        live: Option<&Arc<Entry>>,
    ) -> Result<Label, Refusal> {
        let late = |lineage: Lineage| {
            let found = self.registry.lookup(lineage.key());
            found.is_some_and(|found| found.key_use != KeyUse::Bearer)
        };
        let enforced = self.settings.switches.mode == Mode::Enforce;
        let ended = live.is_some_and(|entry| entry.ending().is_some()) && enforced;
        let lineage = exchange.presented.lineage;
        if ended || lineage.is_some_and(late) {
            return Ok(Label::Strip);
        }
        if self.settings.session.binding == Binding::Value {
            return Ok(Label::Keep);
        }
        let internal = |_| Refusal::InternalError;
        let lineage = match (lineage, live) {
            (Some(lineage), _) => lineage,
            (None, None) => Lineage::anonymous().map_err(internal)?,
            // The session is known by a value without a stamp; what follows gets one.
            (None, Some(entry)) => {
                let lineage = Lineage::authenticated().map_err(internal)?;
                let bearer = vec![(lineage.key(), lineage.key())];
                let (superseded, fenced) = (Vec::new(), Vec::new());
                let now = self.clock.now();
                let rotation = Rotation { now, bearer, superseded, fenced };
                self.record_rotation(entry.id, rotation).await?;
                lineage
            }
        };
        Ok(Label::Stamp(lineage))
    }

    /// Whether the answer deletes the session cookie its request carried, or whatever else was all
    /// it carried (a remember-me that the app has forgotten).
    fn took_back(&self, exchange: &Exchange, changes: &Changes) -> bool {
        let deleted = |sent: &Bare| changes.deleted.contains(&sent.name);
        if !exchange.sent.is_empty()
            && changes.issued.is_empty()
            && exchange.sent.iter().all(deleted)
        {
            return true;
        }
        changes.deleted.iter().any(|name| {
            self.site(exchange).rules.role_of(name) == Some(Role::Session)
                && exchange.sent.iter().any(|sent| sent.name == *name)
        })
    }

    /// New values of a live session: remembered behind the stamp, or, without stamps, recorded
    /// before the browser learns of them.
    async fn follow(
        &self,
        exchange: &Exchange,
        entry: &Arc<Entry>,
        issued: &[Bare],
    ) -> Result<(), Refusal> {
        let now = self.clock.now();
        let keys = |bare: &Bare| self.keys(exchange).of_bare(bare);
        let fresh = |bare: &&Bare| !exchange.sent.contains(bare) && !bare.is_chunk_head();
        let fresh = issued.iter().filter(fresh);
        if self.settings.session.binding == Binding::Signed {
            for (key, exact) in fresh.map(keys) {
                let key =
                    Key { key, exact, session: entry.id, key_use: KeyUse::Fenced, since: now };
                self.registry.add_late_key(key, LATE_KEYS_MAX as usize);
            }
            return Ok(());
        }
        let bearer: Vec<_> = fresh.map(keys).collect();
        if bearer.is_empty() {
            return Ok(());
        }
        let replaced = |sent: &&Bare| {
            issued.iter().any(|bare| bare.name == sent.name && bare.value != sent.value)
        };
        let sent = exchange.sent.iter().filter(|bare| !bare.is_chunk_head());
        let superseded = sent.filter(replaced).map(keys).collect();
        let rotation = Rotation { now, bearer, superseded, fenced: Vec::new() };
        self.record_rotation(entry.id, rotation).await
    }

    /// Cookies too large for a stamp are known by their value.
    pub(super) async fn bind_unstamped(
        &self,
        exchange: &Exchange,
        session: SessionId,
        unstamped: &[Bare],
    ) -> Result<(), Refusal> {
        tracing::warn!(
            %session,
            "a credential cookie is too large for a stamp and is known by its value"
        );
        let keys = |bare| self.keys(exchange).of_bare(bare);
        let rotation = Rotation {
            now: self.clock.now(),
            bearer: unstamped.iter().map(keys).collect(),
            superseded: Vec::new(),
            fenced: Vec::new(),
        };
        self.record_rotation(session, rotation).await
    }

    pub(super) async fn record_rotation(
        &self,
        id: SessionId,
        rotation: Rotation,
    ) -> Result<(), Refusal> {
        self.recorder.rotate(id, rotation).await.map(drop).map_err(|error| {
            tracing::error!(%error, "a rotated credential could not be recorded");
            Refusal::StoreFailed
        })
    }

    /// Credentials that only the earlier MAC key knew are known by the new one from now on.
    pub(super) fn rekey(&self, presented: &Presented) {
        for key in &presented.rekeyed {
            self.registry.add_late_key(key.clone(), LATE_KEYS_MAX as usize);
        }
    }

    /// Remembers how the app sets its credential cookies.
    pub(super) fn learn(&self, exchange: &Exchange, changes: &Changes) {
        let scope = self.site(exchange).scope;
        for shape in &changes.shapes {
            if let Some(shape) = self.shapes.learn(scope, shape) {
                let store = Arc::clone(&self.recorder.store);
                self.lifecycle.spawn(async move {
                    if let Err(error) = store.remember_shape(shape).await {
                        tracing::warn!(%error, "the attributes of a cookie could not be kept");
                    }
                });
            }
        }
    }
}
