//! Who is signed in at the page: a token is changed for a cookie that lives for minutes, and every
//! change needs the page's own origin and a token in its form. No token is kept, only its digest.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, RequestExt as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use minijinja::context;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::render::page;
use crate::admin::Admin;
use crate::admin::auth::{Caller, too_many_failures};
use crate::admin::problem::{Problem, Told};
use crate::keyring;

const COOKIE: &str = "headcount_admin";
/// Without a request for so long, and after so long in any case, one has to sign in again.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
const STAY_MAX: Duration = Duration::from_secs(8 * 3600);
const SIGNED_IN_MAX: usize = 1000;

/// Who is signed in, by the digest of the cookie.
#[derive(Default)]
pub(super) struct Doors(Mutex<HashMap<[u8; 32], SignedIn>>);

struct SignedIn {
    /// Of the token: one that is no longer known lets nobody in.
    token: [u8; 32],
    csrf: String,
    since: Instant,
    used: Instant,
}

/// Whoever looks at the page.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    pub(super) csrf: String,
}

impl Doors {
    /// The value of the cookie.
    fn open(&self, token: [u8; 32], now: Instant) -> Option<String> {
        let cookie = URL_SAFE_NO_PAD.encode(keyring::random::<32>().ok()?);
        let csrf = URL_SAFE_NO_PAD.encode(keyring::random::<16>().ok()?);
        let mut open = self.0.lock();
        open.retain(|_, signed_in| signed_in.lasts(now));
        if open.len() >= SIGNED_IN_MAX {
            let oldest = open.iter().min_by_key(|(_, signed_in)| signed_in.used);
            let oldest = oldest.map(|(cookie, _)| *cookie);
            oldest.map(|cookie| open.remove(&cookie));
        }
        open.insert(digest(&cookie), SignedIn { token, csrf, since: now, used: now });
        Some(cookie)
    }

    /// The token's digest and the form token of who comes with this cookie.
    fn pass(&self, cookie: &str, now: Instant) -> Option<([u8; 32], String)> {
        let mut open = self.0.lock();
        let signed_in = open.get_mut(&digest(cookie)).filter(|signed_in| signed_in.lasts(now))?;
        signed_in.used = now;
        Some((signed_in.token, signed_in.csrf.clone()))
    }

    fn close(&self, cookie: &str) {
        self.0.lock().remove(&digest(cookie));
    }
}

impl SignedIn {
    fn lasts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IDLE_MAX
            && now.saturating_duration_since(self.since) < STAY_MAX
    }
}

fn digest(cookie: &str) -> [u8; 32] {
    Sha256::digest(cookie.as_bytes()).into()
}

/// Lets in who is signed in, and what changes something only from a form of ours. Errors become
/// pages.
pub(super) async fn require(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(visitor) = visitor(&admin, request.headers()) else {
        return strangers(&request);
    };
    let request = match checked(request, &visitor).await {
        Ok(request) => request,
        Err(problem) => return as_page(&admin, &visitor, problem.into_response()),
    };
    let mut request = request;
    request.extensions_mut().insert(visitor.clone());
    as_page(&admin, &visitor, next.run(request).await)
}

fn visitor(admin: &Admin, headers: &HeaderMap) -> Option<Visitor> {
    let (token, csrf) = admin.page.doors.pass(cookie(headers)?, Instant::now())?;
    Some(Visitor { caller: admin.gate.caller(&token)?, csrf })
}

/// Who is not signed in: pages lead to the form, and come back after it.
fn strangers(request: &Request) -> Response {
    let wants_page = request
        .headers()
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")));
    if request.method() != Method::GET || !(wants_page || request.uri().path() == "/") {
        let detail = "Sign in first.";
        return Problem::new(StatusCode::UNAUTHORIZED, "signed_out", detail).into_response();
    }
    let there = request.uri().path_and_query().map_or("/", |there| there.as_str());
    if there == "/" {
        return Redirect::to("/sign-in").into_response();
    }
    let mut next = form_urlencoded::Serializer::new(String::new());
    let next = next.append_pair("next", there).finish();
    Redirect::to(&format!("/sign-in?{next}")).into_response()
}

/// A request that changes something has to come from a form of ours.
async fn checked(request: Request, visitor: &Visitor) -> Result<Request, Problem> {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return Ok(request);
    }
    from_our_origin(request.headers())?;
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let body: Bytes = request.extract().await.map_err(|_| foreign("The form is too large."))?;
    let given = field(&body, "csrf").unwrap_or_default();
    if !bool::from(given.as_bytes().ct_eq(visitor.csrf.as_bytes())) {
        return Err(foreign("This form is not of this session. Load the page again."));
    }
    Ok(Request::from_parts(parts, axum::body::Body::from(body)))
}

/// Origin and type of what a browser sends for a form of ours. A browser names the origin with every
/// POST; whoever leaves it out is none, and has the API.
fn from_our_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let one = |name: header::HeaderName| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => line.to_str().ok(),
            _ => None,
        }
    };
    let origin = one(header::ORIGIN).and_then(|origin| {
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
    });
    let site = headers.get("sec-fetch-site");
    let same_site = site.is_none_or(|site| site == "same-origin");
    if origin.is_none() || origin != one(header::HOST) || !same_site {
        return Err(foreign("This request does not come from this page."));
    }
    let form = one(header::CONTENT_TYPE).is_some_and(|content_type| {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    if form { Ok(()) } else { Err(foreign("This is not a form of this page.")) }
}

fn foreign(detail: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "request_foreign", detail)
}

/// The value of exactly one field of a form.
pub(super) fn field(form: &[u8], name: &str) -> Option<String> {
    let mut values = form_urlencoded::parse(form).filter(|(field, _)| field == name);
    let value = values.next()?.1.into_owned();
    values.next().is_none().then_some(value)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut values = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Errors as people read them.
fn as_page(admin: &Admin, visitor: &Visitor, response: Response) -> Response {
    let Some(told) = response.extensions().get::<Told>() else { return response };
    let facts = context! { status => response.status().as_u16(), detail => &*told.0 };
    let Ok(mut shown) = page(admin, visitor, "error.html", "", facts) else { return response };
    *shown.status_mut() = response.status();
    shown
}

#[derive(Default, Deserialize)]
pub(super) struct Destination {
    next: Option<String>,
}

pub(super) async fn form(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Query(Destination { next }): Query<Destination>,
) -> Response {
    let next = own_path(next);
    if visitor(&admin, &headers).is_some() {
        return Redirect::to(&next).into_response();
    }
    sign_in_page(&admin, StatusCode::OK, &next, None)
}

pub(super) async fn sign_in(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let next = own_path(field(&body, "next"));
    if let Err(problem) = from_our_origin(&headers) {
        let told = problem.detail.to_string();
        return sign_in_page(&admin, StatusCode::FORBIDDEN, &next, Some(&told));
    }
    let secret = field(&body, "token").unwrap_or_default();
    let known = admin.gate.known(secret.trim().as_bytes());
    let Some((caller, token)) = known else {
        let now = Instant::now();
        if admin.gate.failed_too_often(peer.ip().to_canonical(), now) {
            let problem = too_many_failures();
            let told = problem.detail.to_string();
            let mut shown = sign_in_page(&admin, problem.status, &next, Some(&told));
            shown.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            return shown;
        }
        tracing::warn!(target: "headcount::admin", %peer, "sign-in refused");
        let told = "This token is not known.";
        return sign_in_page(&admin, StatusCode::FORBIDDEN, &next, Some(told));
    };
    let Some(cookie) = admin.page.doors.open(token, Instant::now()) else {
        let told = "There are no random numbers on this system.";
        return sign_in_page(&admin, StatusCode::INTERNAL_SERVER_ERROR, &next, Some(told));
    };
    tracing::info!(target: "headcount::admin", %peer, by = &*caller.name, "signed in at the page");
    let stay = STAY_MAX.as_secs();
    let set = format!("{COOKIE}={cookie}; Path=/; Max-Age={stay}; HttpOnly; SameSite=Strict");
    ([(header::SET_COOKIE, set)], Redirect::to(&next)).into_response()
}

pub(super) async fn sign_out(
    State(admin): State<Arc<Admin>>,
    Extension(_): Extension<Visitor>,
    headers: HeaderMap,
) -> Response {
    if let Some(cookie) = cookie(&headers) {
        admin.page.doors.close(cookie);
    }
    let set = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    ([(header::SET_COOKIE, set)], Redirect::to("/sign-in")).into_response()
}

fn sign_in_page(admin: &Admin, status: StatusCode, next: &str, told: Option<&str>) -> Response {
    let facts = context! { next, told, about => admin.page.templates.about(admin) };
    match admin.page.templates.html("sign_in.html", facts) {
        Ok(html) => (status, axum::response::Html(html)).into_response(),
        Err(error) => super::broken(&error).into_response(),
    }
}

/// A path on this listener; anything else becomes the first page.
fn own_path(next: Option<String>) -> String {
    let fine = |next: &String| {
        next.starts_with('/')
            && !next.starts_with("//")
            && !next.contains('\\')
            && next.bytes().all(|byte| byte.is_ascii_graphic())
    };
    next.filter(fine).unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_signed_in_is_known_for_a_while_and_not_for_ever() {
        let doors = Doors::default();
        let start = Instant::now();
        let after = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let cookie = doors.open([7; 32], start).unwrap();
        assert_eq!(doors.pass(&cookie, after(29)).unwrap().0, [7; 32]);
        assert!(doors.pass("other", after(29)).is_none());
        assert!(doors.pass(&cookie, after(60)).is_none(), "idle");
        let cookie = doors.open([7; 32], start).unwrap();
        for quarter in 1..32 {
            assert!(doors.pass(&cookie, after(quarter * 15)).is_some());
        }
        assert!(doors.pass(&cookie, after(481)).is_none(), "eight hours");
        let cookie = doors.open([7; 32], start).unwrap();
        doors.close(&cookie);
        assert!(doors.pass(&cookie, start).is_none());
        for _ in 0..SIGNED_IN_MAX + 10 {
            doors.open([7; 32], start).unwrap();
        }
        assert_eq!(doors.0.lock().len(), SIGNED_IN_MAX);
    }

    #[test]
    fn the_way_back_stays_on_this_listener() {
        for foreign in ["//evil", "/\\evil", "https://evil", "", "/a b", "javascript:x"] {
            assert_eq!(own_path(Some(foreign.to_owned())), "/");
        }
        assert_eq!(own_path(Some("/users/a?x=1".to_owned())), "/users/a?x=1");
    }
}
