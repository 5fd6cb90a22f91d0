//! What the page shows: each handler asks what the API would be asked and hands it to a template.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::HeaderMap;
use minijinja::{Value, context};
use serde::Deserialize;

use super::render::{page, report_facts};
use super::sign_in::Visitor;
use super::{user_page, words};
use crate::admin::api::{self, Filter};
use crate::admin::calls::{self, Search, bad_request, search};
use crate::admin::problem::Problem;
use crate::admin::{Admin, Control};
use crate::audit::{EventKind, Noted};
use crate::explain::Section;
use crate::geo::Place;
use crate::session::{Ceiling, EndReason, Initiator, Session, Timestamp, UserLimit};

type Shown = Result<Response, Problem>;

const EVENTS_SHOWN: usize = 20;
const EVENTS_LISTED: usize = 200;
const SESSIONS_SHOWN: u32 = 50;
const USERS_SHOWN: usize = 100;

/// What a form of ours puts into the URL. Empty fields are as good as none.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    user: String,
    state: String,
    reason: String,
    address: String,
    since: String,
    until: String,
    before: String,
    event: String,
    initiator: String,
    except: String,
    done: String,
}

fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// What was just done, from the URL that an act leads back to.
fn notice(asked: &Asked) -> Option<String> {
    match asked.done.split_once('-').unwrap_or((&asked.done, "")) {
        ("ended", number) => Some(match number.parse::<u32>().ok()? {
            0 => "It had ended before; nothing was changed.".to_owned(),
            1 => "1 session ended.".to_owned(),
            number => format!("{number} sessions ended."),
        }),
        ("limit", _) => Some("The limit is changed. It holds from the next sign-in on.".to_owned()),
        _ => None,
    }
}

fn row(control: &dyn Control, session: &Session) -> Value {
    let live = session.end.is_none();
    let ending = session.end.as_ref().or(session.would_end.as_ref());
    let agent = session.client.user_agent.as_deref();
    let place = session.client.address.as_deref().and_then(|address| control.place_of(address));
    context! {
        id => session.id.to_string(),
        short => &session.id.to_string()[..8],
        user => session.user.as_deref(),
        live,
        would => live && session.would_end.is_some(),
        created => session.created_at.0,
        renewed => session.renewed_at.0,
        last => session.last_seen_at.0,
        expires => if live { control.expires_at(session).map(|at| at.0) } else { None },
        address => session.client.address.as_deref(),
        agent,
        device => agent.and_then(words::device),
        place => place.as_ref().map(words::place),
        groups => session.groups.iter().collect::<Vec<_>>().join(", "),
        reason => ending.map(|end| end.reason.as_str()),
        why => ending.map(|end| words::reason(end.reason)),
        ended => ending.map(|end| end.at.0),
        by => ending.and_then(|end| end.by.as_deref()),
        by_session => ending.and_then(|end| end.by_session).map(|id| id.to_string()),
    }
}

fn rows(control: &dyn Control, sessions: &[Session]) -> Vec<Value> {
    sessions.iter().map(|session| row(control, session)).collect()
}

fn event_row(noted: &Noted) -> Value {
    let event = &noted.event;
    let place = Place { country: event.country.clone(), city: event.city.clone() };
    let place = Some(words::place(&place)).filter(|place| !place.is_empty());
    context! {
        id => noted.id,
        at => event.time.0,
        kind => event.event.as_str(),
        words => words::event(event.event),
        user => event.user.as_deref(),
        session => event.session.map(|id| id.to_string()),
        reason => event.reason.map(|reason| reason.as_str()),
        why => event.reason.map(words::reason),
        initiator => event.initiator.as_str(),
        by => event.by.as_deref(),
        count => event.count,
        limit => event.limit,
        changed => event.event == EventKind::LimitChanged,
        address => event.client_address.as_deref(),
        place,
        device => event.user_agent.as_deref().and_then(words::device),
        would => event.mode == crate::session::Mode::Observe,
    }
}

fn limit_row(limit: &UserLimit) -> Value {
    let max = match limit.ceiling {
        Ceiling::Sessions(max) => Some(max),
        Ceiling::Unlimited | Ceiling::Configured => None,
    };
    context! { user => &*limit.user, max, at => limit.set_at.0, by => &*limit.set_by }
}

pub(super) async fn overview(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Shown {
    let counted = admin.control.overview().await;
    let trail = admin.control.trail();
    let events = trail.before(None, false);
    let at_limit = counted.at_limit.iter().map(|user| {
        context! { user => &*user.user, sessions => user.sessions, limit => user.limit }
    });
    let facts = context! {
        notice => notice(&asked),
        sessions => counted.sessions,
        users => counted.users,
        users_at_limit => counted.users_at_limit,
        at_limit => at_limit.collect::<Vec<_>>(),
        chart => Value::from(minijinja::value::Serde(
            words::chart(&trail.ends(), admin.control.now()),
        )),
        events => events.iter().take(EVENTS_SHOWN).map(|noted| event_row(noted)).collect::<Vec<_>>(),
    };
    page(&admin, &visitor, "overview.html", "overview", facts)
}

/// Something has happened: the script asks what the page shows now.
pub(super) async fn feed(
    State(admin): State<Arc<Admin>>,
    Extension(_): Extension<Visitor>,
    headers: HeaderMap,
) -> Shown {
    api::feed(&admin, &headers, Filter::default())
}

pub(super) async fn users(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Shown {
    let Some(q) = given(&asked.q) else {
        let facts = context! { q => "", name => "", found => Vec::<Value>::new() };
        return page(&admin, &visitor, "users.html", "users", facts);
    };
    let name = calls::user_name(&*admin.control, q)?;
    let found = admin.control.users_like(&name, USERS_SHOWN).await;
    if found.len() <= 1 && found.iter().all(|(user, _)| **user == name) {
        return Ok(Redirect::to(&user_page(&name)).into_response());
    }
    let found = found.iter().map(|(user, sessions)| context! { user => &**user, sessions });
    let facts = context! { q, name, found => found.collect::<Vec<_>>() };
    page(&admin, &visitor, "users.html", "users", facts)
}

pub(super) async fn user(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Path(user): Path<String>,
    Query(asked): Query<Asked>,
) -> Shown {
    let control = &*admin.control;
    let user = calls::user_name(control, &user)?;
    let of_user = |live, before_login_seq| Search {
        user: Some(user.as_str().into()),
        live: Some(live),
        count_max: SESSIONS_SHOWN,
        before_login_seq,
        ..Search::default()
    };
    let live = search(control, &of_user(true, None)).await?;
    let before = asked.before.parse().ok();
    let past = search(control, &of_user(false, before)).await?;
    let protected = control.is_protected(&user);
    let latest = live.sessions.iter().max_by_key(|session| session.renewed_at);
    let facts = context! {
        notice => notice(&asked),
        user => &*user,
        limit => control.limit_of(&user),
        set => control.limit_set(&user).as_ref().map(limit_row),
        protected,
        may_end => calls::may_end(&admin, &visitor.caller, Some(&user)).is_ok(),
        groups => latest.map(|session| session.groups.iter().collect::<Vec<_>>().join(", ")),
        count => live.sessions.iter().filter(|session| session.counts()).count(),
        live => rows(control, &live.sessions),
        more_live => live.next.is_some(),
        past => rows(control, &past.sessions),
        next => past.next,
        paged => before.is_some(),
    };
    page(&admin, &visitor, "user.html", "users", facts)
}

pub(super) async fn sessions(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Shown {
    let control = &*admin.control;
    let wanted = Search {
        user: given(&asked.user).map(|user| control.normalize(user).into()),
        live: match asked.state.as_str() {
            "ended" => Some(false),
            "all" => None,
            _ => Some(true),
        },
        reason: given(&asked.reason).and_then(EndReason::parse),
        address: given(&asked.address).map(str::to_owned),
        since: time_of(&asked.since)?,
        until: time_of(&asked.until)?,
        count_max: SESSIONS_SHOWN,
        before_login_seq: asked.before.parse().ok(),
    };
    let found = search(control, &wanted).await?;
    let reasons = EndReason::ALL
        .map(|reason| context! { name => reason.as_str(), words => words::reason(reason) });
    let facts = context! {
        asked => asked_facts(&asked),
        reasons => reasons.to_vec(),
        sessions => rows(control, &found.sessions),
        next => found.next,
    };
    page(&admin, &visitor, "sessions.html", "sessions", facts)
}

fn asked_facts(asked: &Asked) -> Value {
    let mut again = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("user", &asked.user),
        ("state", &asked.state),
        ("reason", &asked.reason),
        ("address", &asked.address),
        ("since", &asked.since),
        ("until", &asked.until),
        ("event", &asked.event),
        ("initiator", &asked.initiator),
    ] {
        given(value).map(|value| again.append_pair(name, value));
    }
    let Asked { user, state, reason, address, since, until, event, initiator, .. } = asked;
    let again = again.finish();
    context! { user, state, reason, address, since, until, event, initiator, again }
}

/// A time of a form: in UTC, the seconds may be left out.
fn time_of(text: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = given(text) else { return Ok(None) };
    let spellings = [text.to_owned(), format!("{text}Z"), format!("{text}:00Z")];
    let read = spellings.iter().find_map(|text| calls::time(text));
    let wrong = || bad_request("time_invalid", format!("{text:?} is not a time"));
    read.map(Some).ok_or_else(wrong)
}

pub(super) async fn session(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Shown {
    let session = calls::find(&admin, &id).await?;
    let events = admin.control.trail().before(None, false);
    let own = events.iter().filter(|noted| noted.event.session == Some(session.id));
    let facts = context! {
        notice => notice(&asked),
        session => row(&*admin.control, &session),
        may_end => calls::may_end(&admin, &visitor.caller, session.user.as_deref()).is_ok(),
        events => own.take(EVENTS_SHOWN).map(|noted| event_row(noted)).collect::<Vec<_>>(),
    };
    page(&admin, &visitor, "session.html", "sessions", facts)
}

pub(super) async fn end_session(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Shown {
    let session = calls::find(&admin, &id).await?;
    calls::may_end(&admin, &visitor.caller, session.user.as_deref())?;
    let session = row(&*admin.control, &session);
    let action = format!("/sessions/{id}/end");
    let facts = context! { kind => "session", action, session };
    page(&admin, &visitor, "confirm.html", "sessions", facts)
}

pub(super) async fn end_user(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Path(user): Path<String>,
    Query(asked): Query<Asked>,
) -> Shown {
    let control = &*admin.control;
    let user = calls::user_name(control, &user)?;
    calls::may_end(&admin, &visitor.caller, Some(&user))?;
    let except = match given(&asked.except) {
        Some(id) => Some(calls::find(&admin, id).await?),
        None => None,
    };
    let live = Search {
        user: Some(user.as_str().into()),
        live: Some(true),
        count_max: calls::PAGE_MAX,
        ..Search::default()
    };
    let live = search(control, &live).await?.sessions;
    let kept = except.as_ref().map(|session| session.id);
    let count = live.iter().filter(|session| Some(session.id) != kept).count();
    let action = format!("{}/end", user_page(&user));
    let except = except.map(|session| row(control, &session));
    let facts = context! { kind => "user", action, user, count, except };
    page(&admin, &visitor, "confirm.html", "users", facts)
}

pub(super) async fn end_all(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
) -> Shown {
    visitor.caller.require(crate::settings::AdminRole::Admin)?;
    let counted = admin.control.overview().await;
    let facts = context! { kind => "all", action => "/end-all", count => counted.sessions };
    page(&admin, &visitor, "confirm.html", "overview", facts)
}

pub(super) async fn events(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Shown {
    let filter = Filter {
        event: EventKind::parse(&asked.event),
        initiator: Initiator::parse(&asked.initiator),
        user: given(&asked.user).map(|user| admin.control.normalize(user)),
        ..Filter::default()
    };
    let found = api::events_before(&admin, &filter, asked.before.parse().ok(), EVENTS_LISTED);
    let kinds =
        EventKind::ALL.map(|kind| context! { name => kind.as_str(), words => words::event(kind) });
    let facts = context! {
        asked => asked_facts(&asked),
        kinds => kinds.to_vec(),
        next => found.next,
        events => found.events.iter().map(|noted| event_row(noted)).collect::<Vec<_>>(),
    };
    page(&admin, &visitor, "events.html", "events", facts)
}

pub(super) async fn limits(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Shown {
    let set: Vec<Value> = admin.control.limits_set().iter().map(limit_row).collect();
    let facts = context! { notice => notice(&asked), set };
    page(&admin, &visitor, "limits.html", "limits", facts)
}

pub(super) async fn report(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Shown {
    let (since, until) = (time_of(&asked.since)?, time_of(&asked.until)?);
    let report = admin.control.report(since, until).await?;
    let facts = context! { report => report_facts(&report), asked => asked_facts(&asked) };
    page(&admin, &visitor, "report.html", "report", facts)
}

pub(super) async fn configuration(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
) -> Shown {
    let sections = admin.control.explained().into_iter().map(|section| {
        let Section { heading, sentences } = section;
        context! { heading, sentences }
    });
    let facts = context! {
        sections => sections.collect::<Vec<_>>(),
        written => &*admin.control.written(),
    };
    page(&admin, &visitor, "configuration.html", "configuration", facts)
}
