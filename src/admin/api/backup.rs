//! A copy of the store, streamed while everything goes on.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use tokio_stream::wrappers::ReceiverStream;

use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::problem::Problem;
use crate::settings::AdminRole;

/// A copy of the SQLite store, with everything that was acknowledged before. Role `admin`.
#[utoipa::path(get, path = "/backup",
    responses((status = 200, description = "The database.", body = String,
        content_type = "application/vnd.sqlite3")))]
pub(super) async fn take(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    caller.require(AdminRole::Admin)?;
    let backup = admin.control.backup(&caller.name).await?;
    tracing::info!(target: "headcount::admin", by = &*caller.name, bytes = backup.bytes, "backup");
    let length = backup.bytes.to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.sqlite3".to_owned()),
        (header::CONTENT_LENGTH, length),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(backup.pieces))).into_response())
}
