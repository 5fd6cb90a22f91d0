//! The events of this process, as a list that is read backwards and as a feed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::{page_size, query_invalid, read_cursor, time_of, write_cursor};
use crate::admin::Admin;
use crate::admin::calls::within;
use crate::admin::problem::Problem;
use crate::audit::{EventKind, Noted};
use crate::session::{EndReason, Initiator, SessionId, Timestamp};

/// Events waiting for a reader of the feed.
const WAITING_MAX: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct EventQuery {
    /// The user's name, in any spelling.
    user: Option<String>,
    #[param(inline)]
    event: Option<EventKind>,
    #[param(inline)]
    reason: Option<EndReason>,
    /// `admin`: who did what through the API and the page.
    #[param(inline)]
    pub(in crate::admin) initiator: Option<Initiator>,
    #[param(pattern = "^[0-9a-f]{32}$")]
    session: Option<String>,
    /// An address as recorded, or a network as in 10.0.0.0/8.
    address: Option<String>,
    #[param(format = DateTime)]
    since: Option<String>,
    #[param(format = DateTime)]
    until: Option<String>,
    /// So many at once.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$")]
    cursor: Option<String>,
}

/// A page of events, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct EventPage {
    events: Vec<Noted>,
    /// Ask again with this cursor for older ones; null: that was all.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// The latest events of this process, newest first; those of before its start are in the log. With
/// `Accept: text/event-stream` what is to come, as server-sent events; `Last-Event-ID` goes on
/// after one.
#[utoipa::path(get, path = "/events", params(EventQuery), responses(
    (status = 200, description = "A page of them.", body = EventPage),
))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| query_invalid(&error))?;
    let filter = Filter::new(&admin, &query)?;
    if headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream") {
        return feed(&admin, &headers, filter);
    }
    let count_max = page_size(query.limit)? as usize;
    let before = query.cursor.as_deref().map(read_cursor).transpose()?;
    let before = before.map(|before| u64::try_from(before).unwrap_or_default());
    let found = events_before(&admin, &filter, before, count_max);
    let next_cursor = found.next.and_then(|id| i64::try_from(id).ok()).map(write_cursor);
    let events = found.events.iter().map(|noted| Noted::clone(noted)).collect();
    Ok(Json(EventPage { next_cursor, events }).into_response())
}

/// A page of the trail, newest first.
pub(in crate::admin) struct Found {
    pub(in crate::admin) events: Vec<Arc<Noted>>,
    /// Where to go on; `None`: that was all.
    pub(in crate::admin) next: Option<u64>,
}

/// The events before the one with the id `before` that are wanted.
pub(in crate::admin) fn events_before(
    admin: &Admin,
    filter: &Filter,
    before: Option<u64>,
    count_max: usize,
) -> Found {
    let by_admins = filter.initiator == Some(Initiator::Admin);
    let mut events = admin.control.trail().before(before, by_admins);
    events.retain(|noted| filter.wants(noted));
    let more = events.len() > count_max;
    events.truncate(count_max);
    let next = events.last().filter(|_| more).map(|last| last.id);
    Found { events, next }
}

/// Which events are wanted. All that is given must hold.
#[derive(Default)]
pub(in crate::admin) struct Filter {
    pub(in crate::admin) user: Option<String>,
    pub(in crate::admin) event: Option<EventKind>,
    pub(in crate::admin) reason: Option<EndReason>,
    pub(in crate::admin) initiator: Option<Initiator>,
    pub(in crate::admin) session: Option<SessionId>,
    pub(in crate::admin) address: Option<String>,
    pub(in crate::admin) since: Option<Timestamp>,
    pub(in crate::admin) until: Option<Timestamp>,
}

impl Filter {
    fn new(admin: &Admin, query: &EventQuery) -> Result<Self, Problem> {
        let session = query.session.as_deref().map(str::parse).transpose();
        let not_an_id = |()| {
            let detail = "session must be a session id".to_owned();
            super::bad_request("session_invalid", detail)
        };
        Ok(Self {
            user: query.user.as_deref().map(|user| admin.control.normalize(user)),
            event: query.event,
            reason: query.reason,
            initiator: query.initiator,
            session: session.map_err(not_an_id)?,
            address: query.address.clone(),
            since: time_of("since", query.since.as_deref())?,
            until: time_of("until", query.until.as_deref())?,
        })
    }

    fn wants(&self, noted: &Noted) -> bool {
        let event = &noted.event;
        let same = |wanted: Option<&String>, found: Option<&String>| {
            wanted.is_none_or(|wanted| found == Some(wanted))
        };
        same(self.user.as_ref(), event.user.as_ref())
            && self.event.is_none_or(|kind| event.event == kind)
            && self.reason.is_none_or(|reason| event.reason == Some(reason))
            && self.initiator.is_none_or(|initiator| event.initiator == initiator)
            && self.session.is_none_or(|session| event.session == Some(session))
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && self.address.as_deref().is_none_or(|wanted| {
                event.client_address.as_deref().is_some_and(|address| within(address, wanted))
            })
    }
}

/// What is to come, until the reader leaves or this process ends.
pub(in crate::admin) fn feed(
    admin: &Admin,
    headers: &HeaderMap,
    filter: Filter,
) -> Result<Response, Problem> {
    let permit = Arc::clone(&admin.feeds).try_acquire_owned().map_err(|_| {
        let detail = "Too many feeds are open.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_feeds", detail)
    })?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (missed, mut news) = admin.control.trail().follow(last);
    let (told, stream) = mpsc::channel::<Result<Event, Infallible>>(WAITING_MAX);
    let shutdown = admin.shutdown.clone();
    tokio::spawn(async move {
        let _permit = permit;
        // So that the reader knows that it is listening.
        if told.send(Ok(Event::default().comment("feed"))).await.is_err() {
            return;
        }
        for noted in missed.iter().filter(|noted| filter.wants(noted)) {
            if told.send(Ok(event_of(noted))).await.is_err() {
                return;
            }
        }
        loop {
            let heard = tokio::select! {
                heard = news.recv() => heard,
                () = told.closed() => return,
                () = shutdown.cancelled() => return,
            };
            // Who was too slow comes again and goes on after the last event it has.
            let Ok(noted) = heard else { return };
            if filter.wants(&noted) && told.send(Ok(event_of(&noted))).await.is_err() {
                return;
            }
        }
    });
    let sse = Sse::new(ReceiverStream::new(stream));
    Ok(sse.keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn event_of(noted: &Noted) -> Event {
    let event = Event::default().id(noted.id.to_string()).event(noted.event.event.as_str());
    // It has no maps with keys that JSON cannot have.
    event.data(serde_json::to_string(noted).unwrap_or_default())
}
