//! The calls of `/api/v1`, and their description, which is made from the same types and handlers.
//! Names and shapes are an interface.

mod backup;
mod document;
mod events;
mod keys;
mod person;
mod report;
mod sessions;
mod users;
mod views;

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::auth::Caller;
use super::calls::{PAGE_MAX, bad_request, time};
use super::problem::Problem;
use crate::session::Timestamp;
use crate::settings::AdminRole;

pub(super) use events::{Filter, events_before, feed};

const PAGE_DEFAULT: u32 = 100;

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/sessions", get(sessions::list).delete(sessions::end_all))
        .route("/sessions/{id}", get(sessions::show).delete(sessions::end))
        .route("/users/{user}", get(users::show).delete(person::erase))
        .route("/users/{user}/export", get(person::export))
        .route("/users/{user}/sessions", delete(users::end))
        .route("/users/{user}/limit", put(users::set_limit).delete(users::take_limit_back))
        .route("/limits", get(users::limits))
        .route("/events", get(events::list))
        .route("/report", get(report::show))
        .route("/keys", get(keys::show))
        .route("/backup", get(backup::take))
        .route("/reload", post(reload))
        .route("/openapi.json", get(document::show))
}

/// What came of a reload.
#[derive(Serialize, ToSchema)]
struct Reloaded {
    /// Tells this configuration from others, as in the metric `headcount_config_info`.
    hash: String,
}

/// Reads the configuration again, all or nothing. Role `admin`.
#[utoipa::path(post, path = "/reload", responses(
    (status = 200, description = "It is in force.", body = Reloaded),
    (status = 422, description = "It has mistakes; the old one stays in force.", body = Problem,
        content_type = "application/problem+json"),
))]
async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Reloaded> {
    caller.require(AdminRole::Admin)?;
    tracing::info!(target: "headcount::admin", by = &*caller.name, "reload");
    let refused = |why| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reload_refused", why);
    let hash = admin.control.reload(&caller.name).await.map_err(refused)?;
    Ok(Json(Reloaded { hash }))
}

fn query_invalid(error: &QueryRejection) -> Problem {
    bad_request("query_invalid", error.body_text())
}

fn page_size(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(bad_request("limit_invalid", format!("limit must be 1 to {PAGE_MAX}")))
}

fn time_of(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        let what = "must be a time like 2026-11-21T08:00:00Z (RFC 3339)";
        bad_request("time_invalid", format!("{name} {what}"))
    };
    time(text).map(Some).ok_or_else(wrong)
}

fn write_cursor(place: i64) -> String {
    URL_SAFE_NO_PAD.encode(place.to_be_bytes())
}

fn read_cursor(cursor: &str) -> Result<i64, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(i64::from_be_bytes).ok_or_else(|| {
        bad_request("cursor_invalid", "this cursor is not one of next_cursor".to_owned())
    })
}
