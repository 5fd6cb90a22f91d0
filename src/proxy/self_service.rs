//! Our own pages on the app's origin: a user sees and ends sessions of their own, and says that an end
//! was somebody else's doing. Nothing here reaches the app; who may is told by the credential alone.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

use super::payload::Payload;
use super::{Answered, Exchange, Proxy, Worker};
use crate::audit::{self, AuditEvent, EventKind};
use crate::body::Body;
use crate::enforce::{self, Audience};
use crate::issue;
use crate::metrics::RequestOutcome;
use crate::pages::{self, Described, Row, Sessions};
use crate::path::{CanonicalPath, Own as Asked};
use crate::peer::Peer;
use crate::policy::{self, Standing};
use crate::recorder::Which;
use crate::refusal::Refusal;
use crate::registry::Entry;
use crate::session::{Ending, Initiator, Session, SessionId, User};
use crate::settings::{ClientAddress, Site};
use crate::store::{Listing, StoreError};

type Response = http::Response<Body>;

/// Where the end of a session is disowned, in the folder of our pages.
pub(super) const NOT_ME: &str = "not-me";

/// Sessions that a page shows, and that a program is told of.
const SHOWN_MAX: usize = 25;
const LISTED_MAX: u32 = 100;

/// What was asked for, by whom.
struct Visit<'a> {
    /// With a `/` at its end.
    folder: &'a str,
    entry: &'a Arc<Entry>,
    user: &'a User,
}

/// Which page of ours is asked for, if any. Other spellings of it are nobody's: the app is not to read
/// one of them as a page of its own.
pub(super) fn own_page(
    raw: &str,
    path: &CanonicalPath,
    site: Site<'_>,
) -> Result<Option<String>, Refusal> {
    match site.self_service.map(|folder| path.below(raw, folder)) {
        None | Some(Asked::No) => Ok(None),
        Some(Asked::Page(page)) => Ok(Some(page.to_owned())),
        Some(Asked::Odd) => Err(Refusal::PathSpelling),
    }
}

impl Worker {
    /// Answers a request for `page`, which is what follows the folder of our pages.
    pub(super) async fn self_service(
        &self,
        exchange: &Exchange,
        peer: Peer,
        page: &str,
        parts: &Parts,
        payload: Payload,
    ) -> Result<Answered, Refusal> {
        let proxy = &*self.proxy;
        self.notice(exchange);
        let folder = proxy.site(exchange).self_service.unwrap_or("/");
        let looks = matches!(parts.method.as_str(), "GET" | "HEAD");
        let acts = parts.method == http::Method::POST;
        if acts && page.strip_prefix('/') == Some(NOT_ME) {
            return proxy.disown(exchange, parts, payload).await.map(own);
        }
        let presented = &exchange.presented;
        match presented.standing {
            Standing::Live => {}
            Standing::Over(_) => return Ok(proxy.tell_ended(exchange)),
            Standing::Ambiguous => return Ok(proxy.tell_ambiguous(exchange, peer)),
            Standing::Anonymous | Standing::Left => return proxy.turn_away(exchange, looks),
        }
        let Some(entry) = &presented.entry else { return proxy.turn_away(exchange, looks) };
        let Some(user) = &entry.user else { return proxy.turn_away(exchange, looks) };
        let visit = Visit { folder, entry, user };
        match page {
            "" if looks => Ok(own(enforce::redirect(folder))),
            "/" if looks => proxy.show_sessions(exchange, &visit, parts).await.map(own),
            "/end" if acts => {
                let form = proxy.own_form(exchange, parts, payload).await?;
                if !proxy.is_own(&form, entry.id) {
                    return Err(Refusal::FormForeign);
                }
                let id = form.session().ok_or(Refusal::OwnUnknown)?;
                let mut response = proxy.end_own(exchange, &visit, Which::One(id)).await?;
                if id == entry.id {
                    proxy.forget_here(exchange, &mut response);
                    self.log_out_left(exchange, entry);
                }
                Ok(own(response))
            }
            "/end-others" if acts => {
                let form = proxy.own_form(exchange, parts, payload).await?;
                if !proxy.is_own(&form, entry.id) {
                    return Err(Refusal::FormForeign);
                }
                proxy.end_own(exchange, &visit, Which::Others).await.map(own)
            }
            _ => Err(Refusal::OwnUnknown),
        }
    }
}

fn own(response: Response) -> Answered {
    Answered { response, outcome: RequestOutcome::Own }
}

fn store_failed(error: &StoreError) -> Refusal {
    tracing::error!(%error, "a user's own sessions could not be read or ended");
    Refusal::StoreFailed
}

impl Proxy {
    /// What the page of an ended session needs, where its user may disown the end.
    pub(super) fn not_me(
        &self,
        exchange: &Exchange,
        ending: &Ending,
    ) -> Option<(String, String, String)> {
        let folder = self.site(exchange).self_service?;
        let entry = exchange.presented.entry.as_ref()?;
        let told = exchange.audience.is_page() && pages::advises(ending.reason);
        told.then(|| {
            (format!("{folder}{NOT_ME}"), entry.id.to_string(), self.not_me_token(entry.id))
        })
    }

    /// Nobody is signed in: pages lead to the login, programs are told.
    fn turn_away(&self, exchange: &Exchange, looks: bool) -> Result<Answered, Refusal> {
        match (exchange.audience, self.site(exchange).login_url) {
            (Audience::Page(_), Some(url)) if looks => {
                let mut response = enforce::redirect(url);
                self.expire_dead(exchange, &mut response);
                Ok(own(response))
            }
            _ => Err(Refusal::NotSignedIn),
        }
    }

    /// Every one of these costs a look into the store.
    fn check_pace(&self, visit: &Visit<'_>) -> Result<(), Refusal> {
        let may = self.own_pages.may_call(visit.entry.id, Instant::now());
        if may { Ok(()) } else { Err(Refusal::TooManyCalls) }
    }

    async fn show_sessions(
        &self,
        exchange: &Exchange,
        visit: &Visit<'_>,
        parts: &Parts,
    ) -> Result<Response, Refusal> {
        self.check_pace(visit)?;
        let live = self.own_sessions(visit).await.map_err(|error| store_failed(&error))?;
        let total = match live.len() < LISTED_MAX as usize {
            true => live.len(),
            false => self.registry.count_of(visit.user).max(live.len()),
        };
        let mut list: Vec<Row> = live.iter().map(|session| self.row(session, visit)).collect();
        list.sort_by_key(|row| (!row.current, std::cmp::Reverse(row.last_seen_at), row.id));
        if exchange.audience.is_page() {
            list.truncate(SHOWN_MAX);
        }
        let query = parts.uri.query().unwrap_or_default();
        let ended = query.strip_prefix("ended=").and_then(|count| count.parse().ok());
        let user = self.settings.unscoped(self.site(exchange).scope, visit.user);
        let sessions = Sessions {
            user: audit::user_in_events(user),
            folder: visit.folder.to_owned(),
            csrf: self.own_token(visit.entry.id),
            can_end: self.recorder.enforces(),
            limit: self.recorder.limit_of(Some(visit.user), &visit.entry.groups()).max_sessions,
            ended,
            more: total - list.len(),
            list,
        };
        Ok(enforce::sessions(&self.settings.pages, &sessions, exchange.audience))
    }

    /// The user's sessions that are not over, as far as they are told; the one that asks is among
    /// them.
    async fn own_sessions(&self, visit: &Visit<'_>) -> Result<Vec<Session>, StoreError> {
        let (store, now) = (&self.recorder.store, self.clock.now());
        let user = Some(visit.user.clone());
        let listing =
            Listing { user, live: Some(true), count_max: LISTED_MAX, ..Listing::default() };
        let mut live = store.list(listing).await?;
        if live.iter().all(|session| session.id != visit.entry.id) {
            live.extend(store.find(visit.entry.id).await?);
        }
        live.retain_mut(|session| {
            if let Some(seen) = self.registry.last_seen_at(session.id) {
                session.last_seen_at = session.last_seen_at.max(seen);
            }
            let limit = self.recorder.limit_of(Some(visit.user), &session.groups);
            let over = policy::expiry(&limit, session.renewed_at, session.last_seen_at, now);
            session.end.is_none() && session.user.as_ref() == Some(visit.user) && over.is_none()
        });
        Ok(live)
    }

    fn row(&self, session: &Session, visit: &Visit<'_>) -> Row {
        let limit = self.recorder.limit_of(session.user.as_deref(), &session.groups);
        let readable = self.settings.log.client_address != ClientAddress::Hash;
        let mut client = Described::of(&session.client, readable);
        let address = client.address.as_deref();
        if let Some(place) = address.and_then(|address| self.recorder.audit.places.of(address)) {
            (client.country, client.city) = (place.country, place.city);
        }
        Row {
            id: session.id,
            current: session.id == visit.entry.id,
            created_at: session.created_at,
            last_seen_at: session.last_seen_at,
            expires_at: limit.expires_at(session.renewed_at, session.last_seen_at),
            client,
        }
    }

    async fn end_own(
        &self,
        exchange: &Exchange,
        visit: &Visit<'_>,
        which: Which,
    ) -> Result<Response, Refusal> {
        if !self.recorder.enforces() {
            return Err(Refusal::Observing);
        }
        self.check_pace(visit)?;
        let ended = self.recorder.end_own(visit.user, visit.entry.id, which).await;
        let ended = ended.map_err(|error| store_failed(&error))?;
        // Somebody else has ended the one that asks.
        let ended = ended.ok_or(Refusal::NotSignedIn)?;
        if ended == 0 && which != Which::Others {
            return Err(Refusal::OwnUnknown);
        }
        if !exchange.audience.is_page() {
            return Ok(enforce::sessions_ended(ended));
        }
        Ok(match which {
            Which::One(id) if id == visit.entry.id => {
                enforce::redirect(self.site(exchange).login_url.unwrap_or("/"))
            }
            Which::One(_) | Which::Others => {
                enforce::redirect(&format!("{}?ended={ended}", visit.folder))
            }
        })
    }

    /// The browser forgets the session that it has just left: nobody has to tell it.
    fn forget_here(&self, exchange: &Exchange, response: &mut Response) {
        let cookies = exchange.presented.forward.iter().filter(|bare| bare.is_cookie());
        let names: Vec<String> = cookies.map(|bare| bare.name.clone()).collect();
        let scope = self.site(exchange).scope;
        issue::expire(response.headers_mut(), scope, &names, &self.shapes, self.clock.now());
    }

    /// A user says that the end of a session was somebody else's doing. The form proves that it was
    /// told of the end; it takes no login, since that may be lost.
    async fn disown(
        &self,
        exchange: &Exchange,
        parts: &Parts,
        payload: Payload,
    ) -> Result<Response, Refusal> {
        let form = self.own_form(exchange, parts, payload).await?;
        let id = form.session().ok_or(Refusal::FormForeign)?;
        if !self.is_not_me(&form, id) {
            return Err(Refusal::FormForeign);
        }
        if !self.own_pages.is_disowned(id) {
            let ended = self.ended(id).await.map_err(|error| store_failed(&error))?;
            if let Some((user, ending)) = ended
                && self.own_pages.disown(id)
            {
                self.note_disowned(exchange, id, user.as_ref(), &ending);
            }
        }
        let login_url = self.site(exchange).login_url;
        Ok(enforce::disowned(&self.settings.pages, exchange.audience, login_url))
    }
    /// Whose session it was, and how it ended.
    async fn ended(&self, id: SessionId) -> Result<Option<(Option<User>, Ending)>, StoreError> {
        if let Some(entry) = self.registry.by_id(id) {
            return Ok(entry.ending().map(|ending| (entry.user.clone(), ending.clone())));
        }
        // At rest, or ended at another replica just now.
        let found = self.recorder.store.find(id).await?;
        Ok(found.and_then(|session| Some((session.user, session.end?))))
    }

    fn note_disowned(
        &self,
        exchange: &Exchange,
        id: SessionId,
        user: Option<&User>,
        ending: &Ending,
    ) {
        let (now, mode) = (self.clock.now(), self.settings.switches.mode);
        let event = AuditEvent::new(EventKind::SessionDisowned, now, Initiator::User, mode);
        let event = event.user(user).session(id).reason(ending.reason);
        let mut event = event.client(&self.client(exchange));
        event.by_session = ending.by_session;
        self.recorder.note(event);
    }
}
