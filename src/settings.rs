//! The settings after checking: typed, complete, in the units the code works in. Defaults, key names
//! and TOML are the business of `config.rs`; nothing here parses or reads files.

mod clients;
mod log;
mod store;
mod strictness;
mod upstream;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::clients::{AddressChange, AgentChange, ClientChange, GroupSources};
pub use self::log::{ClientAddress, LogFormat, LogSettings};
pub use self::store::{OnFailure, PostgresSettings, StorePlace, StoreSettings};
pub use self::strictness::{Accepted, Lenience};
pub use self::upstream::{AppHttp, AppTlsSettings, UpstreamSettings};
use crate::pages::Pages;
use crate::policy::{Limits, Switches};
use crate::rules::expression::Expression;
use crate::rules::matcher::{Glob, Patterns};
use crate::rules::{RuleSet, SuccessMatch};
use crate::store::Retention;

/// Everything, for one app.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tells one text of the file from another: the first 12 hexadecimal digits of its SHA-256.
    pub fingerprint: String,
    /// The file as it was written, without its secrets.
    pub written: Arc<str>,
    /// The keys that are on and that no cautious operator sets; to be warned of.
    pub unsafe_keys: Vec<&'static str>,
    pub server: ServerSettings,
    pub upstream: UpstreamSettings,
    /// Sessions are counted per name.
    pub app: String,
    /// The preset the file names.
    pub preset: Option<String>,
    pub rules: RuleSet,
    /// Other apps behind the same proxy; what is said above is about the rest.
    pub scopes: Vec<Scope>,
    /// The folder of our own pages, `/…/`; `None`: there are none.
    pub self_service: Option<String>,
    pub session: SessionSettings,
    pub normalize: Normalize,
    /// How to ask the app who somebody is.
    pub probe: Option<Probe>,
    /// Other names of users, to the name they are counted under; both sides normalised.
    pub aliases: HashMap<String, String>,
    pub groups: GroupSources,
    pub limits: Limits,
    pub switches: Switches,
    pub enforcement: EnforcementSettings,
    pub pages: Arc<Pages>,
    pub store: StoreSettings,
    pub admin: Option<AdminSettings>,
    pub log: LogSettings,
    /// `geo.database`: the file that tells where addresses are.
    pub geo_database: Option<PathBuf>,
}

/// `[[scope]]`: one of several apps behind the same proxy, with rules, credentials and users of its
/// own.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: String,
    /// Any of, lower case and without port; empty: any.
    pub hosts: Patterns,
    /// Any of, on the canonical path, in lower case; empty: any.
    pub paths: Patterns,
    /// What its tokens are hashed with.
    pub app: String,
    pub rules: RuleSet,
    pub login_url: Option<String>,
    pub app_logout: Option<AppLogout>,
    pub probe: Option<Probe>,
    pub self_service: Option<String>,
}

/// What counts for one request: the whole app's, or those of the scope it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The scope's name.
    pub scope: Option<&'a str>,
    pub app: &'a str,
    pub rules: &'a RuleSet,
    pub login_url: Option<&'a str>,
    pub app_logout: Option<&'a AppLogout>,
    pub probe: Option<&'a Probe>,
    pub self_service: Option<&'a str>,
}

impl Settings {
    /// The scope of a request, by its host and canonical path.
    pub fn scope_of(&self, host: &str, path: &str) -> Option<usize> {
        if self.scopes.is_empty() {
            return None;
        }
        let host = host_name(host);
        let path = path.to_ascii_lowercase();
        self.scopes.iter().position(|scope| {
            (scope.hosts.is_empty() || scope.hosts.matches(&host))
                && (scope.paths.is_empty() || scope.paths.matches(&path))
        })
    }

    /// What counts in a scope.
    pub fn site(&self, scope: Option<usize>) -> Site<'_> {
        match scope.and_then(|at| self.scopes.get(at)) {
            Some(scope) => Site {
                scope: Some(&scope.name),
                app: &scope.app,
                rules: &scope.rules,
                login_url: scope.login_url.as_deref(),
                app_logout: scope.app_logout.as_ref(),
                probe: scope.probe.as_ref(),
                self_service: scope.self_service.as_deref(),
            },
            None => Site {
                scope: None,
                app: &self.app,
                rules: &self.rules,
                login_url: self.enforcement.login_url.as_deref(),
                app_logout: self.enforcement.app_logout.as_ref(),
                probe: self.probe.as_ref(),
                self_service: self.self_service.as_deref(),
            },
        }
    }

    /// A user's name as it is counted: those of a scope are a group of their own, whatever names
    /// there are elsewhere.
    pub fn scoped(&self, scope: Option<&str>, user: String) -> String {
        let taken = |name: &str| {
            name.starts_with('/')
                || self.scopes.iter().any(|scope| {
                    name.strip_prefix(&*scope.name).is_some_and(|rest| rest.starts_with('/'))
                })
        };
        match scope {
            Some(scope) => format!("{scope}/{user}"),
            None if !self.scopes.is_empty() && taken(&user) => format!("/{user}"),
            None => user,
        }
    }

    /// A counted name as its user knows it; undoes [`Self::scoped`].
    pub fn unscoped<'u>(&self, scope: Option<&str>, user: &'u str) -> &'u str {
        let own = match scope {
            Some(scope) => user.strip_prefix(scope).and_then(|rest| rest.strip_prefix('/')),
            None if self.scopes.is_empty() => None,
            None => user.strip_prefix('/'),
        };
        own.unwrap_or(user)
    }
}

/// The name in a Host: lower case, without port and final dot.
pub fn host_name(host: &str) -> String {
    let host = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// `[server]` and `[server.limits]`.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub listen: Vec<ListenAddress>,
    /// Who may connect to a unix socket, as for a file.
    pub unix_mode: u32,
    /// For what comes over TCP.
    pub tls: Option<TlsSettings>,
    /// Whether HTTP/2 is offered over TLS.
    pub http2: bool,
    /// Whether HTTP/2 is understood without TLS, from clients that begin with it.
    pub http2_cleartext: bool,
    /// Whether WebSockets may be opened over HTTP/2.
    pub http2_websockets: bool,
    /// Every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    pub accepted: Accepted,
    /// Data-plane threads; at least 1.
    pub workers: usize,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// The name of this process in events.
    pub node: String,
    /// How long a drain waits for requests in flight.
    pub shutdown_grace_ms: u64,
    /// How long it goes on as before, but not ready, when the end is asked for.
    pub shutdown_delay_ms: u64,
    pub limits: ServerLimits,
}

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl ListenAddress {
    /// Its address in the network.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Peers that are proxies of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    /// Whoever can connect to a unix socket of ours.
    pub unix: bool,
}

impl TrustedProxies {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// `None` came over a unix socket.
    pub fn contain(&self, address: Option<IpAddr>) -> bool {
        match address {
            Some(address) => self.networks.iter().any(|network| network.contains(&address)),
            None => self.unix,
        }
    }
}

/// `server.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The first is for clients that name no host, or one that no certificate is for; at least one.
    pub certificates: Vec<CertificateFiles>,
    /// Whom the certificates of clients must be from.
    pub client_ca: Option<PathBuf>,
    /// Whether a client may come without one.
    pub client_auth_optional: bool,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a client can make grow, and how far.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Open connections over all listeners.
    pub connections_max: usize,
    /// Open connections from one IPv4 address or IPv6 /64; those of trusted proxies do not count.
    pub connections_per_address_max: usize,
    /// Bytes of a request head: request line and headers.
    pub head_bytes_max: usize,
    /// Header lines of a request.
    pub headers_max: usize,
    /// Bytes of the request target.
    pub target_bytes_max: usize,
    /// Bytes of all Cookie lines together.
    pub cookie_bytes_max: usize,
    /// Cookies in a request.
    pub cookies_max: usize,
    /// Bytes of a body that is read for recognition (logins).
    pub login_body_bytes_max: usize,
    /// Bytes of any request body; `None`: unlimited (streamed).
    pub body_bytes_max: Option<u64>,
    /// Bytes of an answer that the kernel holds for a connection before it can send them.
    pub unsent_bytes: u32,
    /// A new connection must send its first byte within.
    pub first_byte_timeout_ms: u64,
    /// A TLS handshake must be complete within.
    pub tls_handshake_timeout_ms: u64,
    /// A started head must be complete within.
    pub head_timeout_ms: u64,
    /// An idle kept-alive connection is closed after.
    pub keep_alive_timeout_ms: u64,
    /// A request body must make progress within.
    pub body_idle_timeout_ms: u64,
    /// A client must take some of the answer within.
    pub write_stall_timeout_ms: u64,
    /// From the head of a request to the end of its answer; tunnels excepted.
    pub request_timeout_ms: Option<u64>,
    pub http2: Http2Limits,
}

/// What an HTTP/2 client can make grow or wait, beside what every client can.
#[derive(Clone, Copy, Debug)]
pub struct Http2Limits {
    /// Requests at a time on one connection.
    pub streams_max: u32,
    /// Requests at a time from one address, on all its connections.
    pub streams_per_address_max: usize,
    /// Streams that the client has reset before they were looked at.
    pub pending_resets_max: usize,
    /// Frames per second that cost the client nothing.
    pub control_frames_max: u32,
    /// Bytes of a request body under way on one stream; all of a connection have eight times that.
    pub window_bytes: u32,
    /// Bytes of an answer held per stream.
    pub send_buffer_bytes: usize,
    /// How often a silent client is asked for a sign of life, and how long that may take.
    pub ping_interval_ms: u64,
    pub ping_timeout_ms: u64,
}

/// How cookies are tied to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Stamped with lineage and MAC.
    Signed,
    /// Left as they are, known by keyed hash.
    Value,
}

/// What happens to a credential that no known login produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untracked {
    /// Forwarded, listed as unattributed.
    Pass,
    /// The app is asked whose it is, and counted is what it says.
    Probe,
    /// Stripped: the app sees an anonymous request.
    Refuse,
}

/// What happens to session ids in URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlIds {
    /// Cut out: a session comes in by its cookie or not at all.
    Strip,
    /// Left: the app reads none there.
    Pass,
}

/// What happens to a login without a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unattributed {
    /// Counted alone.
    Pass,
    Refuse,
}

/// `[identity.probe]`: a request of our own that tells whom the app takes a client for.
#[derive(Clone, Debug)]
pub struct Probe {
    pub method: String,
    /// Path, and perhaps query, on the app.
    pub path: String,
    /// Beside those that every request gets; lower case.
    pub headers: Vec<(String, String)>,
    /// Where the name is in the answer; the first that yields.
    pub user: Vec<Expression>,
    /// What the answer looks like when nobody is signed in.
    pub anonymous: SuccessMatch,
    pub timeout_ms: u64,
    /// How long an answer counts for a credential that belongs to nobody.
    pub cache_ms: i64,
    /// Questions per second at most.
    pub rate: u32,
    pub on_failure: ProbeFailure,
}

/// What happens when the app cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// 503: nobody passes uncounted.
    Refuse,
    /// As if there were no probe.
    Pass,
}

/// `[session]`. The timeouts are part of each [`Limits`] entry.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    pub binding: Binding,
    pub untracked: Untracked,
    pub unattributed: Unattributed,
    pub url_ids: UrlIds,
    /// `None`: whoever holds the token is the client.
    pub client_change: Option<ClientChange>,
    /// Requests to these paths are not activity.
    pub idle_ignore_paths: Patterns,
    pub rotation_grace_ms: i64,
    /// How long a login in several steps may take from one to the end.
    pub step_timeout_ms: i64,
    pub retention: Retention,
    /// How often merged `last_seen` times are written.
    pub flush_interval_ms: u64,
    /// How often timed-out sessions are looked for.
    pub sweep_interval_ms: u64,
}

/// `[identity] normalize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalize {
    pub trim: bool,
    pub nfkc: bool,
    pub casefold: bool,
}

/// What a page navigation with an ended session gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnded {
    Page,
    Redirect,
    Anonymous,
}

/// `[enforcement]`; the mode is in [`Switches`].
#[derive(Clone, Debug)]
pub struct EnforcementSettings {
    pub on_ended: OnEnded,
    /// Path on the app's origin, starting with one `/`.
    pub login_url: Option<String>,
    pub app_logout: Option<AppLogout>,
    /// No verdict on these paths: dead credentials are stripped, the request goes on.
    pub exempt_paths: Patterns,
}

/// How to log a session out at the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppLogout {
    pub method: String,
    pub path: String,
    /// `None`: no token needed.
    pub csrf: Option<Csrf>,
}

/// The double-submit recipe: the same random token as cookie and header, with a Referer of the
/// app's own origin (Django's `CsrfViewMiddleware`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csrf {
    pub cookie: String,
    pub header: String,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    pub tokens: Vec<AdminToken>,
    /// Users whose sessions only the role `admin` may end.
    pub protected_users: Vec<Glob>,
    /// Wrong tokens from one address before it is braked.
    pub failures_max: u32,
}

/// One admin token. The secret itself is forgotten after hashing; `Debug` shows none of it.
#[derive(Clone)]
pub struct AdminToken {
    pub name: String,
    pub role: AdminRole,
    /// SHA-256 of the secret.
    pub digest: [u8; 32],
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a token may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    Viewer,
    Operator,
    Admin,
}
