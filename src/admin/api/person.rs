//! What is known of one person: told, or forgotten.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use super::users::user_name;
use super::views::{LimitView, SessionView};
use crate::admin::auth::Caller;
use crate::admin::{Admin, calls};
use crate::audit::{Noted, user_in_events};
use crate::session::Timestamp;
use crate::settings::AdminRole;

/// Everything that is kept of a user.
#[derive(Serialize, ToSchema)]
#[schema(as = UserExport)]
pub(super) struct ExportView {
    app: String,
    /// In the one spelling that is counted.
    user: String,
    exported_at: Timestamp,
    /// The limit of this user's own, if one was set while running.
    #[schema(required)]
    limit: Option<LimitView>,
    /// Oldest sign-in first.
    sessions: Vec<KeptView>,
    /// Those of the latest events of this process that are about the user, newest first.
    events: Vec<Noted>,
}

/// A session, and for what it is kept.
#[derive(Serialize, ToSchema)]
#[schema(as = KeptSession)]
pub(super) struct KeptView {
    #[serde(flatten)]
    session: SessionView,
    /// False: it is no longer history, and kept only so that its tokens stay dead.
    history: bool,
    /// How many of its tokens are known, by a keyed hash each, or by the id in their stamp.
    tokens: u32,
}

/// Everything that is kept of a user. Role `admin`.
#[utoipa::path(get, path = "/users/{user}/export",
    params(("user" = String, Path, min_length = 1, max_length = 1000, pattern = r"\S")),
    responses((status = 200, description = "All of it.", body = ExportView)))]
pub(super) async fn export(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    user: Result<Path<String>, PathRejection>,
) -> Answer<ExportView> {
    caller.require(AdminRole::Admin)?;
    let control = &*admin.control;
    let user = user_name(control, user)?;
    let in_events = user_in_events(&user);
    let mut events = control.trail().before(None, false);
    events.retain(|noted| noted.event.user.as_ref() == Some(&in_events));
    let kept = control.export_user(&user, &caller.name).await?;
    let sessions = kept.into_iter().map(|kept| KeptView {
        session: SessionView::of(kept.session, control),
        history: !kept.hidden,
        tokens: kept.keys,
    });
    Ok(Json(ExportView {
        app: control.about().app,
        exported_at: control.now(),
        limit: control.limit_set(&user).map(LimitView::from),
        sessions: sessions.collect(),
        events: events.iter().map(|noted| Noted::clone(noted)).collect(),
        user,
    }))
}

/// What was forgotten.
#[derive(Serialize, ToSchema)]
pub(super) struct Erased {
    /// Sessions that were live.
    ended: u32,
    /// Sessions that nothing names the user of any more, those included.
    erased: u64,
}

/// Ends a user's sessions and forgets whose they were; their tokens stay dead. Role `admin`.
#[utoipa::path(delete, path = "/users/{user}",
    params(("user" = String, Path, min_length = 1, max_length = 1000, pattern = r"\S")),
    responses((status = 200, description = "Nothing in the store names the user.", body = Erased)))]
pub(super) async fn erase(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    user: Result<Path<String>, PathRejection>,
) -> Answer<Erased> {
    caller.require(AdminRole::Admin)?;
    let user = user_name(&*admin.control, user)?;
    let (ended, erased) = calls::erase_user(&admin, &caller, &user).await?;
    Ok(Json(Erased { ended, erased }))
}
