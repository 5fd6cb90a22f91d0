//! The calls on users and their limits.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sessions::Ended;
use super::views::{LimitView, SessionView, views};
use super::{Answer, query_invalid};
use crate::admin::auth::Caller;
use crate::admin::calls::{self, PAGE_MAX, bad_request};
use crate::admin::problem::Problem;
use crate::admin::{Admin, Control};
use crate::session::{Ceiling, Session};
use crate::store::{Listing, StoreError};

/// Live sessions of one user that are shown; nobody has more who has a limit worth showing.
const SHOWN_MAX: usize = 10 * PAGE_MAX as usize;
const LIMIT_MAX: u32 = 1_000_000;

/// A user, whether there are sessions or not.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView {
    /// In the one spelling that is counted.
    user: String,
    /// In force; null: unlimited.
    #[schema(required)]
    limit: Option<u32>,
    /// The limit of this user's own, if one was set while running.
    #[schema(required)]
    set: Option<LimitView>,
    /// Whether only the role `admin` may end the sessions.
    protected: bool,
    /// Sessions that count.
    live: usize,
    sessions: Vec<SessionView>,
}

/// A user's limit and live sessions.
#[utoipa::path(get, path = "/users/{user}",
    params(("user" = String, Path, min_length = 1, max_length = 1000, pattern = r"\S")),
    responses((status = 200, description = "The user.", body = UserView)))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    user: Result<Path<String>, PathRejection>,
) -> Answer<UserView> {
    let user = user_name(&*admin.control, user)?;
    let sessions = live_of(&*admin.control, &user).await?;
    Ok(Json(UserView {
        limit: admin.control.limit_of(&user),
        set: admin.control.limit_set(&user).map(LimitView::from),
        protected: admin.control.is_protected(&user),
        live: sessions.iter().filter(|session| session.counts()).count(),
        sessions: views(sessions, &*admin.control),
        user,
    }))
}

async fn live_of(control: &dyn Control, user: &str) -> Result<Vec<Session>, StoreError> {
    let mut sessions = Vec::new();
    let mut before_login_seq = None;
    loop {
        let listing = Listing {
            user: Some(user.into()),
            live: Some(true),
            count_max: PAGE_MAX,
            before_login_seq,
        };
        let page = control.list(listing).await?;
        before_login_seq = page.last().map(|last| last.login_seq);
        let full = page.len() >= PAGE_MAX as usize;
        sessions.extend(page);
        if !full || sessions.len() >= SHOWN_MAX {
            return Ok(sessions);
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EndUserQuery {
    /// The session that stays.
    #[param(pattern = "^[0-9a-f]{32}$")]
    except: Option<String>,
}

/// Ends a user's sessions, all or all but one. Role `operator`; for protected users `admin`.
#[utoipa::path(delete, path = "/users/{user}/sessions",
    params(
        ("user" = String, Path, min_length = 1, max_length = 1000, pattern = r"\S"),
        EndUserQuery,
    ),
    responses((status = 200, description = "They are over.", body = Ended)))]
pub(super) async fn end(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    user: Result<Path<String>, PathRejection>,
    query: Result<Query<EndUserQuery>, QueryRejection>,
) -> Answer<Ended> {
    caller.require(crate::settings::AdminRole::Operator)?;
    let Query(query) = query.map_err(|error| query_invalid(&error))?;
    // Read strictly: with a mistyped exception everything would be ended.
    let except =
        query.except.map(|id| id.parse()).transpose().map_err(|()| {
            bad_request("except_invalid", "except must be a session id".to_owned())
        })?;
    let user = user_name(&*admin.control, user)?;
    let ended = calls::end_user(&admin, &caller, &user, except).await?;
    Ok(Json(Ended { ended }))
}

/// How many sessions a user may have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitBody {
    /// Null: unlimited. It must be there: an empty object is no wish.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required, minimum = 1, maximum = 1_000_000)]
    max_sessions: Option<u32>,
}

/// Sets how many sessions a user may have, from the next login on. Role `admin`.
#[utoipa::path(put, path = "/users/{user}/limit",
    params(("user" = String, Path, min_length = 1, max_length = 1000, pattern = r"\S")),
    request_body = LimitBody,
    responses((status = 200, description = "It is set.", body = LimitView)))]
pub(super) async fn set_limit(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    user: Result<Path<String>, PathRejection>,
    body: Result<Json<LimitBody>, JsonRejection>,
) -> Answer<LimitView> {
    caller.require(crate::settings::AdminRole::Admin)?;
    let Json(body) = body.map_err(|error| match error.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type_unsupported",
            "Send application/json.",
        ),
        _ => bad_request("body_invalid", error.body_text()),
    })?;
    let ceiling = match body.max_sessions {
        None => Ceiling::Unlimited,
        Some(max @ 1..=LIMIT_MAX) => Ceiling::Sessions(max),
        Some(_) => {
            let detail = format!("max_sessions must be 1 to {LIMIT_MAX}, or null for unlimited");
            return Err(bad_request("limit_invalid", detail));
        }
    };
    let user = user_name(&*admin.control, user)?;
    calls::set_limit(&admin, &caller, &user, ceiling).await?;
    let set = admin.control.limit_set(&user).ok_or_else(limit_unknown)?;
    Ok(Json(set.into()))
}

/// What counts for the user again.
#[derive(Serialize, ToSchema)]
pub(super) struct TakenBack {
    user: String,
    /// As configured; null: unlimited.
    #[schema(required)]
    limit: Option<u32>,
}

/// Takes the limit of a user back: what is configured counts again. Role `admin`.
#[utoipa::path(delete, path = "/users/{user}/limit",
    params(("user" = String, Path, min_length = 1, max_length = 1000, pattern = r"\S")),
    responses((status = 200, description = "It is taken back.", body = TakenBack)))]
pub(super) async fn take_limit_back(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    user: Result<Path<String>, PathRejection>,
) -> Answer<TakenBack> {
    caller.require(crate::settings::AdminRole::Admin)?;
    let user = user_name(&*admin.control, user)?;
    admin.control.limit_set(&user).ok_or_else(limit_unknown)?;
    calls::set_limit(&admin, &caller, &user, Ceiling::Configured).await?;
    Ok(Json(TakenBack { limit: admin.control.limit_of(&user), user }))
}

fn limit_unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "limit_unknown", "No limit is set for this user.")
}

/// Every limit that was set for a single user.
#[derive(Serialize, ToSchema)]
pub(super) struct LimitList {
    limits: Vec<LimitView>,
}

/// Limits set for single users while Headcount runs, by name.
#[utoipa::path(get, path = "/limits",
    responses((status = 200, description = "All of them.", body = LimitList)))]
pub(super) async fn limits(State(admin): State<Arc<Admin>>) -> Json<LimitList> {
    let limits = admin.control.limits_set().into_iter().map(LimitView::from).collect();
    Json(LimitList { limits })
}

pub(super) fn user_name(
    control: &dyn Control,
    user: Result<Path<String>, PathRejection>,
) -> Result<String, Problem> {
    let Path(user) = user.map_err(|error| bad_request("user_invalid", error.body_text()))?;
    calls::user_name(control, &user)
}
