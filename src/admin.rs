//! The admin listener: health, metrics, the calls of `/api/v1` and the page, on a socket of its own. What the
//! calls do is behind [`Control`]; nothing here touches the data path, the registry or the store.

mod api;
mod auth;
mod calls;
mod connection;
mod page;
mod problem;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::audit::Trail;
use crate::explain::Section;
use crate::geo::Place;
use crate::metrics::{self, Metrics};
use crate::report::Report;
use crate::session::{Ceiling, Client, Session, SessionId, Timestamp, UserLimit};
use crate::store::{Backup, Kept, Listing, StoreError};
pub use auth::Tokens;
use problem::Problem;

/// What the admin calls need from the rest of Headcount.
#[async_trait]
pub trait Control: Send + Sync {
    /// Sessions, newest login first, with the freshest `last_seen_at` known.
    async fn list(&self, listing: Listing) -> Result<Vec<Session>, StoreError>;

    /// One session, live or ended.
    async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// Ends those of `ids` that are live, for the admin `by`; answers how many, after the commit.
    async fn end(&self, ids: Vec<SessionId>, by: &str) -> Result<u32, ControlError>;

    /// Ends every session that is live now; answers how many, after the commits.
    async fn end_all(&self, by: &str) -> Result<u32, ControlError>;

    /// The limit of a (normalised) user; `None`: unlimited.
    fn limit_of(&self, user: &str) -> Option<u32>;

    /// What was set for this user alone while running.
    fn limit_set(&self, user: &str) -> Option<UserLimit>;

    /// All that was set, by name.
    fn limits_set(&self) -> Vec<UserLimit>;

    /// Sets the limit of a (normalised) user, or takes it back; answers after the commit.
    async fn set_limit(&self, user: &str, ceiling: Ceiling, by: &str) -> Result<(), ControlError>;

    /// Whether only the role `admin` may end this user's sessions.
    fn is_protected(&self, user: &str) -> bool;

    /// The latest events.
    fn trail(&self) -> &Trail;

    /// What this process is.
    fn about(&self) -> About;

    /// How many sessions there are, and who has as many as allowed.
    async fn overview(&self) -> Overview;

    /// Users with sessions whose name has this part, and how many; by name, `count_max` at most.
    async fn users_like(&self, part: &str, count_max: usize) -> Vec<(Arc<str>, u32)>;

    /// What limits would have done; by default in the last 30 days.
    async fn report(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Report, StoreError>;

    /// The policy in sentences.
    fn explained(&self) -> Vec<Section>;

    /// The configuration in force as it was written, without its secrets.
    fn written(&self) -> Arc<str>;

    /// What time it is.
    fn now(&self) -> Timestamp;

    /// Where a recorded address is, as far as a database of places knows.
    fn place_of(&self, _: &str) -> Option<Place> {
        None
    }

    /// The one spelling of a user's name.
    fn normalize(&self, user: &str) -> String;

    /// When a live session will be over if nobody uses it.
    fn expires_at(&self, session: &Session) -> Option<Timestamp>;

    /// Reads the configuration again, all or nothing; answers what tells the one now in force from
    /// others, or why the old one stays.
    async fn reload(&self, by: &str) -> Result<String, String>;

    /// Everything the store has of a (normalised) user's sessions, for the admin `by`.
    async fn export_user(&self, user: &str, by: &str) -> Result<Vec<Kept>, StoreError>;

    /// Ends a user's sessions and forgets whose they were; how many were live, and how many were
    /// forgotten.
    async fn erase_user(&self, user: &str, by: &str) -> Result<(u32, u64), StoreError>;

    /// A copy of the store, for the admin `by`.
    async fn backup(&self, by: &str) -> Result<Backup, StoreError>;

    /// Which MAC keys are in use.
    async fn mac_keys(&self) -> MacKeys;

    /// Whether every thread of the data plane gets on with its work.
    fn gets_on(&self) -> bool;

    /// The reason why no traffic should be sent here is the error; a warning, if there is one, the rest.
    async fn ready(&self) -> Result<Option<String>, String>;

    /// Ends every live session of `user` but `except`; answers how many, after the commit.
    async fn end_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        by: &str,
    ) -> Result<u32, ControlError>;

    /// Credentials in use that no known login produced, latest use first. Never stored.
    fn untracked(&self) -> Vec<UntrackedUse> {
        Vec::new()
    }
}

/// A credential in use that no known login produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UntrackedUse {
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
    pub client: Client,
}

/// Which MAC keys are in use, by their fingerprints.
#[derive(Clone, Debug, Default)]
pub struct MacKeys {
    /// Everything is made with it.
    pub used: String,
    pub accepted: Option<String>,
    /// The accepted one came before the one that is used.
    pub promoted: bool,
    pub since: Timestamp,
    /// Live sessions that nobody has used since then, and keys of those that had ended before.
    pub unseen: (usize, usize),
}

/// What this process is.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub app: String,
    pub node: String,
    pub observing: bool,
    /// Of the configuration in force.
    pub fingerprint: String,
}

/// How many sessions there are.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub sessions: usize,
    pub users: usize,
    /// Users with as many sessions as they may have, or more,
    pub users_at_limit: usize,
    /// and some of them, those with most sessions first.
    pub at_limit: Vec<AtLimit>,
}

#[derive(Clone, Debug)]
pub struct AtLimit {
    pub user: Arc<str>,
    pub sessions: u32,
    pub limit: u32,
}

/// Why nothing was ended or set.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// In observe mode nothing is ended.
    #[error("mode is \"observe\": nothing is ended")]
    ObserveMode,
    /// No more users can have a limit of their own.
    #[error("too many users have a limit of their own")]
    TooManyLimits,
}

/// Readers of the feed at a time.
const FEEDS_MAX: usize = 64;

/// What every handler sees.
struct Admin {
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
    gate: auth::Gate,
    page: page::Desk,
    /// Room for readers of the feed.
    feeds: Arc<Semaphore>,
    shutdown: CancellationToken,
    /// Where the listener is bound.
    address: SocketAddr,
}

/// Serves the admin listener until `shutdown`, then finishes what is under way.
pub async fn serve(
    listener: tokio::net::TcpListener,
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
    tokens: Arc<Tokens>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let admin = Arc::new(Admin {
        control,
        metrics,
        gate: auth::Gate::new(tokens),
        page: page::Desk::new(),
        feeds: Arc::new(Semaphore::new(FEEDS_MAX)),
        shutdown: shutdown.clone(),
        address,
    });
    connection::accept(listener, &router(admin), shutdown).await;
    Ok(())
}

fn router(admin: Arc<Admin>) -> Router {
    let api = api::routes()
        .fallback(unknown)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&admin), auth::require_token));
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .nest("/api/v1", api)
        .merge(page::routes(&admin))
        .fallback(unknown)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&admin), own_names_only))
        .with_state(admin)
}

async fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "path_unknown", "There is nothing at this path.")
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path does not take this method.",
    )
}

async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    if admin.control.gets_on() {
        return Json(serde_json::json!({ "status": "ok" })).into_response();
    }
    let body = Json(serde_json::json!({ "status": "stuck", "reason": "a worker hangs" }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    match admin.control.ready().await {
        Ok(None) => Json(serde_json::json!({ "status": "ready" })).into_response(),
        Ok(Some(but)) => {
            Json(serde_json::json!({ "status": "ready", "warning": but })).into_response()
        }
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(serde_json::json!({ "status": "not_ready", "reason": reason })),
        )
            .into_response(),
    }
}

async fn show_metrics(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], admin.metrics.encode()).into_response()
}

/// Refuses requests under foreign names, so that no web page can reach this listener through a
/// name that it points here; and marks every answer as not to be kept.
async fn own_names_only(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = if names_us(&request, admin.address) {
        next.run(request).await
    } else {
        tracing::debug!(target: "headcount::admin", %peer, "request under a foreign name");
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host_unknown",
            "The admin listener answers to localhost and to its own address only.",
        )
        .into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn names_us(request: &Request, address: SocketAddr) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let target_agrees =
        request.uri().authority().is_none_or(|authority| authority.as_str() == host);
    target_agrees && is_own_name(host, address)
}

/// Whether `host` (`name[:port]`) is a loopback name or an IP literal of `address`. An address
/// bound to all interfaces has any literal: a literal cannot be pointed elsewhere.
fn is_own_name(host: &str, address: SocketAddr) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    literal.parse::<std::net::IpAddr>().is_ok_and(|ip| {
        ip.to_canonical().is_loopback() || ip == address.ip() || address.ip().is_unspecified()
    })
}
