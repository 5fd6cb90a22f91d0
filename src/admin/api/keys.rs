//! The MAC keys, by what tells them apart; never themselves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::{Admin, MacKeys};
use crate::session::Timestamp;

/// Which MAC keys are in use.
#[derive(Serialize, ToSchema)]
#[schema(as = MacKeys)]
pub(super) struct KeysView {
    /// Fingerprint of the key that everything is made with.
    used: String,
    /// Fingerprint of the other that is accepted.
    #[schema(required)]
    accepted: Option<String>,
    /// Whether the accepted one came before the one that is used; else it is the next.
    promoted: bool,
    /// When the key file was last changed.
    since: Timestamp,
    /// Live sessions that nobody has used since: they would be lost with the earlier key.
    unseen_live: usize,
    /// Keys of sessions that had ended before: with the earlier key they would be forgotten.
    unseen_tombstones: usize,
}

/// The MAC keys in use, by fingerprint, and what depends on the earlier one.
#[utoipa::path(get, path = "/keys",
    responses((status = 200, description = "The keys.", body = KeysView)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<KeysView> {
    let MacKeys { used, accepted, promoted, since, unseen } = admin.control.mac_keys().await;
    let (unseen_live, unseen_tombstones) = unseen;
    Json(KeysView { used, accepted, promoted, since, unseen_live, unseen_tombstones })
}
