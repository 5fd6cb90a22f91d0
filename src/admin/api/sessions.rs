//! The calls on sessions.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::views::{SessionView, views};
use super::{Answer, page_size, query_invalid, read_cursor, time_of, write_cursor};
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::calls::{self, Search, search};
use crate::session::EndReason;

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StateFilter {
    #[default]
    Live,
    Ended,
    All,
    /// Credentials in use that no known login produced; the other filters do not apply.
    Untracked,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// The user's name, in any spelling.
    user: Option<String>,
    #[serde(default)]
    #[param(inline, required = false)]
    state: StateFilter,
    /// Why it ended, or would have ended.
    #[param(inline)]
    reason: Option<EndReason>,
    /// An address as recorded, or a network as in 10.0.0.0/8.
    address: Option<String>,
    /// In use at this time or later.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Begun before this time.
    #[param(format = DateTime)]
    until: Option<String>,
    /// So many at once.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$")]
    cursor: Option<String>,
}

/// A page of sessions, newest login first.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionPage {
    sessions: Vec<SessionView>,
    /// Ask again with this cursor for more; null: that was all. A page can be short, or empty, and
    /// not be the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Sessions, newest login first.
#[utoipa::path(get, path = "/sessions", params(ListQuery), responses(
    (status = 200, description = "A page of them.", body = SessionPage),
))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer<SessionPage> {
    let Query(query) = query.map_err(|error| query_invalid(&error))?;
    let count_max = page_size(query.limit)?;
    let live = match query.state {
        StateFilter::Live => Some(true),
        StateFilter::Ended => Some(false),
        StateFilter::All => None,
        StateFilter::Untracked => {
            let untracked = admin.control.untracked().into_iter().take(count_max as usize);
            let control = &*admin.control;
            let sessions = untracked.map(|seen| SessionView::of_untracked(seen, control)).collect();
            return Ok(Json(SessionPage { sessions, next_cursor: None }));
        }
    };
    let wanted = Search {
        user: query.user.map(|user| admin.control.normalize(&user).into()),
        live,
        reason: query.reason,
        address: query.address,
        since: time_of("since", query.since.as_deref())?,
        until: time_of("until", query.until.as_deref())?,
        count_max,
        before_login_seq: query.cursor.as_deref().map(read_cursor).transpose()?,
    };
    let found = search(&*admin.control, &wanted).await?;
    let next_cursor = found.next.map(write_cursor);
    Ok(Json(SessionPage { sessions: views(found.sessions, &*admin.control), next_cursor }))
}

/// One session, live or ended.
#[utoipa::path(get, path = "/sessions/{id}",
    params(("id" = String, Path, pattern = "^[0-9a-f]{32}$")),
    responses((status = 200, description = "The session.", body = SessionView)))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Answer<SessionView> {
    let session = calls::find(&admin, &id).await?;
    Ok(Json(SessionView::of(session, &*admin.control)))
}

/// How many sessions were ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Ended {
    /// So many were live and are ended now.
    pub(super) ended: u32,
}

/// Ends one session. Role `operator`.
#[utoipa::path(delete, path = "/sessions/{id}",
    params(("id" = String, Path, pattern = "^[0-9a-f]{32}$")),
    responses((status = 200, description = "It is over.", body = Ended)))]
pub(super) async fn end(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Ended> {
    let ended = calls::end_one(&admin, &caller, &id).await?;
    Ok(Json(Ended { ended }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EndAllQuery {
    /// The app's name (`app.name`), so that nobody does it by mistake.
    confirm: String,
}

/// Ends every session of the app. Role `admin`.
#[utoipa::path(delete, path = "/sessions", params(EndAllQuery),
    responses((status = 200, description = "They are over.", body = Ended)))]
pub(super) async fn end_all(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<EndAllQuery>, QueryRejection>,
) -> Answer<Ended> {
    let Query(query) = query.map_err(|error| query_invalid(&error))?;
    let ended = calls::end_all(&admin, &caller, &query.confirm).await?;
    Ok(Json(Ended { ended }))
}
