//! The report over a period: what limits would have done.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{query_invalid, time_of};
use crate::admin::Admin;
use crate::admin::page::printed;
use crate::admin::problem::Problem;
use crate::report::Report;

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    #[default]
    Json,
    /// One page that needs nothing else, to keep or to send.
    Html,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReportQuery {
    /// From this time on; by default 30 days before `until`.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Up to this time; by default now.
    #[param(format = DateTime)]
    until: Option<String>,
    #[serde(default)]
    #[param(inline, required = false)]
    format: Format,
}

/// What limits of 1 to 5 would have done in a period, as far as the history goes back.
#[utoipa::path(get, path = "/report", params(ReportQuery), responses(
    (status = 200, description = "The report.", content(
        (Report = "application/json"), (String = "text/html"),
    )),
))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| query_invalid(&error))?;
    let since = time_of("since", query.since.as_deref())?;
    let until = time_of("until", query.until.as_deref())?;
    let report = admin.control.report(since, until).await?;
    match query.format {
        Format::Json => Ok(Json(report).into_response()),
        Format::Html => printed(&admin, &report),
    }
}
