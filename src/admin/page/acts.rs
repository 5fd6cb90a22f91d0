//! What the page changes. Who comes here is signed in and comes from a form of ours; what the role
//! allows is asked in `calls.rs`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::sign_in::{Visitor, field};
use super::user_page;
use crate::admin::Admin;
use crate::admin::calls::{self, bad_request};
use crate::admin::problem::Problem;
use crate::session::Ceiling;

type Done = Result<Response, Problem>;

/// Back to a page, which then says what was done.
fn back(to: &str, done: &str) -> Response {
    let mark = if to.contains('?') { '&' } else { '?' };
    let to = format!("{to}{mark}done={done}");
    (StatusCode::SEE_OTHER, Redirect::to(&to)).into_response()
}

pub(super) async fn end_session(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Done {
    let ended = calls::end_one(&admin, &visitor.caller, &id).await?;
    let session = calls::find(&admin, &id).await?;
    let to = session.user.as_deref().map_or_else(|| format!("/sessions/{id}"), user_page);
    Ok(back(&to, &format!("ended-{ended}")))
}

pub(super) async fn end_user(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Path(user): Path<String>,
    form: Bytes,
) -> Done {
    let user = calls::user_name(&*admin.control, &user)?;
    // Read strictly: with a mistyped exception everything would be ended.
    let except = field(&form, "except").filter(|id| !id.is_empty());
    let except = except
        .map(|id| id.parse())
        .transpose()
        .map_err(|()| bad_request("except_invalid", "except must be a session id".to_owned()))?;
    let ended = calls::end_user(&admin, &visitor.caller, &user, except).await?;
    Ok(back(&user_page(&user), &format!("ended-{ended}")))
}

pub(super) async fn end_all(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    form: Bytes,
) -> Done {
    let confirm = field(&form, "confirm").unwrap_or_default();
    let ended = calls::end_all(&admin, &visitor.caller, confirm.trim()).await?;
    Ok(back("/", &format!("ended-{ended}")))
}

pub(super) async fn set_limit(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    Path(user): Path<String>,
    form: Bytes,
) -> Done {
    let user = calls::user_name(&*admin.control, &user)?;
    change_limit(&admin, &visitor, &user, &form).await?;
    Ok(back(&user_page(&user), "limit"))
}

pub(super) async fn set_limit_by_form(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    form: Bytes,
) -> Done {
    let user = calls::user_name(&*admin.control, &field(&form, "user").unwrap_or_default())?;
    change_limit(&admin, &visitor, &user, &form).await?;
    Ok(back("/limits", "limit"))
}

async fn change_limit(
    admin: &Admin,
    visitor: &Visitor,
    user: &str,
    form: &[u8],
) -> Result<(), Problem> {
    let kind = field(form, "kind").unwrap_or_default();
    let max = field(form, "max_sessions").and_then(|max| max.trim().parse().ok());
    let ceiling = match (kind.as_str(), max) {
        ("configured", _) => Ceiling::Configured,
        ("unlimited", _) => Ceiling::Unlimited,
        ("sessions", Some(max @ 1..=1_000_000)) => Ceiling::Sessions(max),
        _ => {
            let detail = "The limit must be a number from 1 to 1000000, or unlimited.";
            return Err(bad_request("limit_invalid", detail.to_owned()));
        }
    };
    calls::set_limit(admin, &visitor.caller, user, ceiling).await
}
