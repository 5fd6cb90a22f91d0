//! The calls of `/api/v1`: sessions and users, as JSON. Names and shapes are an interface.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::problem::Problem;
use super::{Admin, Control, UntrackedUse};
use crate::session::{Client, EndReason, Ending, Session, SessionId, Timestamp};
use crate::settings::AdminRole;
use crate::store::Listing;

const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1000;

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/sessions", get(list))
        .route("/sessions/{id}", get(show).delete(end))
        .route("/users/{user}", get(show_user))
        .route("/users/{user}/sessions", delete(end_user))
        .route("/reload", post(reload))
}

/// A session as the API shows it.
#[derive(Serialize)]
struct SessionView {
    /// Null for an untracked credential: it has no session.
    id: Option<SessionId>,
    user: Option<String>,
    state: &'static str,
    created_at: Timestamp,
    last_seen_at: Timestamp,
    expires_at: Option<Timestamp>,
    client: ClientView,
    end: Option<EndView>,
    /// In observe mode: how it would have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_end: Option<EndView>,
}

#[derive(Serialize)]
struct ClientView {
    address: Option<String>,
    user_agent: Option<String>,
    /// Not told apart yet.
    device: Option<String>,
    /// Not told apart yet.
    country: Option<String>,
}

#[derive(Serialize)]
struct EndView {
    reason: EndReason,
    at: Timestamp,
    by: Option<String>,
    by_session: Option<SessionId>,
}

impl From<Client> for ClientView {
    fn from(client: Client) -> Self {
        Self { address: client.address, user_agent: client.user_agent, device: None, country: None }
    }
}

impl From<Ending> for EndView {
    fn from(end: Ending) -> Self {
        Self { reason: end.reason, at: end.at, by: end.by, by_session: end.by_session }
    }
}

impl SessionView {
    fn of(session: Session, control: &dyn Control) -> Self {
        let live = session.end.is_none();
        Self {
            id: Some(session.id),
            state: if live { "live" } else { "ended" },
            created_at: session.created_at,
            last_seen_at: session.last_seen_at,
            expires_at: if live { control.expires_at(&session) } else { None },
            user: session.user.map(|user| user.to_string()),
            client: session.client.into(),
            end: session.end.map(EndView::from),
            would_end: session.would_end.map(EndView::from),
        }
    }
}

impl From<UntrackedUse> for SessionView {
    fn from(seen: UntrackedUse) -> Self {
        Self {
            id: None,
            user: None,
            state: "untracked",
            created_at: seen.first_seen_at,
            last_seen_at: seen.last_seen_at,
            expires_at: None,
            client: seen.client.into(),
            end: None,
            would_end: None,
        }
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateFilter {
    #[default]
    Live,
    Ended,
    All,
    Untracked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    user: Option<String>,
    #[serde(default)]
    state: StateFilter,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Page {
    sessions: Vec<SessionView>,
    /// Ask again with this cursor for more; null: that was all.
    next_cursor: Option<String>,
}

async fn list(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer<Page> {
    let Query(query) = query.map_err(|error| bad_request("query_invalid", error.body_text()))?;
    let count_max = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&count_max) {
        return Err(bad_request("limit_invalid", "limit must be 1 to 1000".to_owned()));
    }
    let live = match query.state {
        StateFilter::Live => Some(true),
        StateFilter::Ended => Some(false),
        StateFilter::All => None,
        StateFilter::Untracked => {
            let untracked = admin.control.untracked().into_iter().take(count_max as usize);
            let sessions = untracked.map(SessionView::from).collect();
            return Ok(Json(Page { sessions, next_cursor: None }));
        }
    };
    let before_login_seq = query.cursor.as_deref().map(read_cursor).transpose()?;
    let user = query.user.map(|user| admin.control.normalize(&user).into());
    let listing = Listing { user, live, count_max, before_login_seq };
    let sessions = admin.control.list(listing).await?;
    let full = sessions.len() >= count_max as usize;
    let next_cursor = sessions.last().filter(|_| full).map(|last| write_cursor(last.login_seq));
    Ok(Json(Page { sessions: views(sessions, &*admin.control), next_cursor }))
}

async fn show(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer<SessionView> {
    let id = id.parse().map_err(|()| session_unknown())?;
    let session = admin.control.find(id).await?.ok_or_else(session_unknown)?;
    Ok(Json(SessionView::of(session, &*admin.control)))
}

#[derive(Serialize)]
struct Ended {
    /// How many were live and are ended now.
    ended: u32,
}

async fn end(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Ended> {
    caller.require(AdminRole::Operator)?;
    let id = id.parse().map_err(|()| session_unknown())?;
    admin.control.find(id).await?.ok_or_else(session_unknown)?;
    let ended = admin.control.end(vec![id], &caller.name).await?;
    Ok(Json(Ended { ended }))
}

#[derive(Serialize)]
struct Reloaded {
    /// As in the metric `headcount_config_info`.
    hash: String,
}

async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Reloaded> {
    caller.require(AdminRole::Admin)?;
    tracing::info!(target: "headcount::admin", by = &*caller.name, "reload");
    let refused = |why| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reload_refused", why);
    let hash = admin.control.reload().await.map_err(refused)?;
    Ok(Json(Reloaded { hash }))
}

#[derive(Serialize)]
struct UserView {
    user: String,
    /// Null: unlimited.
    limit: Option<u32>,
    live: usize,
    sessions: Vec<SessionView>,
}

async fn show_user(
    State(admin): State<Arc<Admin>>,
    user: Result<Path<String>, PathRejection>,
) -> Answer<UserView> {
    let user = user_name(&*admin.control, user)?;
    let mut sessions = Vec::new();
    let mut before_login_seq = None;
    loop {
        let listing = Listing {
            user: Some(user.as_str().into()),
            live: Some(true),
            count_max: PAGE_MAX,
            before_login_seq,
        };
        let page = admin.control.list(listing).await?;
        before_login_seq = page.last().map(|last| last.login_seq);
        let full = page.len() >= PAGE_MAX as usize;
        sessions.extend(page);
        // A user with more live sessions than this has no limit worth showing in full.
        if !full || sessions.len() >= 10 * PAGE_MAX as usize {
            break;
        }
    }
    Ok(Json(UserView {
        limit: admin.control.limit_of(&user),
        live: sessions.iter().filter(|session| session.counts()).count(),
        sessions: views(sessions, &*admin.control),
        user,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndUserQuery {
    except: Option<String>,
}

async fn end_user(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    user: Result<Path<String>, PathRejection>,
    query: Result<Query<EndUserQuery>, QueryRejection>,
) -> Answer<Ended> {
    caller.require(AdminRole::Operator)?;
    let Query(query) = query.map_err(|error| bad_request("query_invalid", error.body_text()))?;
    // Read strictly: with a mistyped exception everything would be ended.
    let except =
        query.except.map(|id| id.parse()).transpose().map_err(|()| {
            bad_request("except_invalid", "except must be a session id".to_owned())
        })?;
    let user = user_name(&*admin.control, user)?;
    let ended = admin.control.end_user(&user, except, &caller.name).await?;
    Ok(Json(Ended { ended }))
}

fn user_name(
    control: &dyn Control,
    user: Result<Path<String>, PathRejection>,
) -> Result<String, Problem> {
    let Path(user) = user.map_err(|error| bad_request("user_invalid", error.body_text()))?;
    let user = control.normalize(&user);
    if user.is_empty() {
        return Err(bad_request("user_invalid", "the user's name is empty".to_owned()));
    }
    Ok(user)
}

fn views(sessions: Vec<Session>, control: &dyn Control) -> Vec<SessionView> {
    sessions.into_iter().map(|session| SessionView::of(session, control)).collect()
}

fn write_cursor(login_seq: i64) -> String {
    URL_SAFE_NO_PAD.encode(login_seq.to_be_bytes())
}

fn read_cursor(cursor: &str) -> Result<i64, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(i64::from_be_bytes).ok_or_else(|| {
        bad_request("cursor_invalid", "this cursor is not one of next_cursor".to_owned())
    })
}

fn bad_request(reason: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, reason, detail)
}

fn session_unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "session_unknown", "There is no session with this id.")
}
