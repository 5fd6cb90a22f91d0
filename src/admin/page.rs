//! The page for people, at `/` of the admin listener: rendered here, with one style sheet and one small
//! script, embedded. Everything but the live feed works without the script. What it shows and does is
//! what the API shows and does.

mod acts;
mod render;
mod shows;
mod sign_in;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::render::Templates;
use self::sign_in::Doors;
use super::Admin;
use super::problem::Problem;
use crate::report::Report;

/// Forms are small.
const FORM_BYTES_MAX: usize = 16 * 1024;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// For a page that brings its own style and is not one of ours to act on.
const PRINTED_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox; \
    base-uri 'none'; frame-ancestors 'none'";

/// What the page keeps: its templates, and who is signed in.
pub(super) struct Desk {
    templates: Templates,
    doors: Doors,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { templates: Templates::new(), doors: Doors::default() }
    }
}

pub(super) fn routes(admin: &Arc<Admin>) -> Router<Arc<Admin>> {
    let inside = Router::new()
        .route("/", get(shows::overview))
        .route("/feed", get(shows::feed))
        .route("/users", get(shows::users))
        .route("/users/{user}", get(shows::user))
        .route("/users/{user}/end", get(shows::end_user).post(acts::end_user))
        .route("/users/{user}/limit", post(acts::set_limit))
        .route("/sessions", get(shows::sessions))
        .route("/sessions/{id}", get(shows::session))
        .route("/sessions/{id}/end", get(shows::end_session).post(acts::end_session))
        .route("/end-all", get(shows::end_all).post(acts::end_all))
        .route("/events", get(shows::events))
        .route("/limits", get(shows::limits).post(acts::set_limit_by_form))
        .route("/report", get(shows::report))
        .route("/configuration", get(shows::configuration))
        .route("/sign-out", post(sign_in::sign_out))
        .layer(from_fn_with_state(Arc::clone(admin), sign_in::require))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX));
    let outside = Router::new()
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .route("/assets/admin.css", get(style))
        .route("/assets/admin.js", get(script))
        .route("/assets/icon.svg", get(icon))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX));
    inside.merge(outside).layer(from_fn(guarded))
}

/// Where a user is shown.
fn user_page(user: &str) -> String {
    format!("/users/{}", utf8_percent_encode(user, NON_ALPHANUMERIC))
}

async fn style() -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (content_type, include_str!("../../config/admin/admin.css")).into_response()
}

async fn icon() -> Response {
    let content_type = [(header::CONTENT_TYPE, "image/svg+xml")];
    (content_type, include_str!("../../config/admin/icon.svg")).into_response()
}

async fn script() -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (content_type, include_str!("../../config/admin/admin.js")).into_response()
}

/// What no other page may do with ours, and what ours may not do.
async fn guarded(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

/// A report as one page that needs nothing else.
pub(super) fn printed(admin: &Admin, report: &Report) -> Result<Response, Problem> {
    let html = admin.page.templates.printed(&admin.control.about(), report);
    let html = html.map_err(|error| broken(&error))?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PRINTED_POLICY),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"headcount-report.html\""),
    ];
    Ok((headers, html).into_response())
}

/// A template of ours does not fit what it is given.
fn broken(error: &minijinja::Error) -> Problem {
    tracing::error!(target: "headcount::admin", error = format!("{error:#}"), "a page cannot be made");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "page_broken", "This page cannot be made.")
}
