//! Keys and defaults of `[history]`, `[admin]`, `[log]` and `[geo]`. Secrets are hashed here and
//! forgotten.

use std::net::SocketAddr;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::identity;
use crate::rules::matcher::Glob;
use crate::settings::{
    AdminRole, AdminSettings, AdminToken, ClientAddress, ListenAddress, LogFormat, LogSettings,
};
use crate::store::Retention;

use super::super::reader::{At, Table};
use super::Context;
use super::policy::Identity;

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
/// Shorter ones can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// `[history]`: what is remembered of ended sessions.
pub(super) fn history(root: &mut Table<'_>) -> Retention {
    let mut history = root.table("history");
    let keep_days = history.count("keep_days", 30, 1..=3_650);
    let per_user = history.count("keep_per_user", 100, 1..=1_000_000);
    // Longer than any browser keeps a cookie (400 days), so that a dead token stays dead.
    let tombstones = history.duration("tombstones", 400 * DAY, DAY..=3_650 * DAY);
    history.finish();
    Retention {
        history_ms: to_i64(keep_days * DAY),
        history_per_user: u32::try_from(per_user).unwrap_or(u32::MAX),
        tombstones_ms: to_i64(tombstones),
    }
}

/// `[admin]`; without the table there is no admin listener.
pub(super) fn admin(
    root: &mut Table<'_>,
    context: &Context<'_>,
    public: &[ListenAddress],
    identity: &Identity,
) -> Option<AdminSettings> {
    let mut admin = root.table_if_any("admin")?;
    let allowed = "one loopback address and a port of its own, like \"127.0.0.1:9901\"";
    let mut listen =
        super::server::addresses(&mut admin, "listen", "127.0.0.1:9901", allowed, |value| {
            value.parse::<SocketAddr>().ok()
        });
    for At { value, at } in &listen {
        if !value.ip().is_loopback() {
            let what = "is reachable from other machines, which needs TLS, not available in this \
                        version";
            admin.wrong("listen", at, what, allowed);
        } else if value.port() != 0
            && public.iter().filter_map(ListenAddress::tcp).any(|public| clash(public, *value))
        {
            admin.wrong("listen", at, "is the address of the public listener", allowed);
        }
    }
    if let Some(second) = listen.get(1) {
        admin.wrong("listen", &second.at, "can be only one address", allowed);
    }
    let tokens = tokens(&mut admin, context);
    let protected_users = protected_users(&mut admin, identity);
    let failures_max = admin.count("failures_per_address", 10, 1..=1_000_000);
    let failures_max = u32::try_from(failures_max).unwrap_or(u32::MAX);
    admin.later(&[("tls", "a loopback address, or a proxy of your own before it")]);
    admin.finish();
    let listen = (!listen.is_empty()).then(|| listen.swap_remove(0))?;
    Some(AdminSettings { listen: listen.value, tokens, protected_users, failures_max })
}

/// Whether two listeners would want the same port of the same address.
fn clash(public: SocketAddr, admin: SocketAddr) -> bool {
    public.port() == admin.port() && (public.ip() == admin.ip() || public.ip().is_unspecified())
}

fn tokens(admin: &mut Table<'_>, context: &Context<'_>) -> Vec<AdminToken> {
    let mut tokens: Vec<AdminToken> = Vec::new();
    for mut table in admin.tables("tokens") {
        let name = name(&mut table);
        let roles = [
            ("viewer", AdminRole::Viewer),
            ("operator", AdminRole::Operator),
            ("admin", AdminRole::Admin),
        ];
        let stated = table.has("role");
        let role = table.choice_if_any("role", &roles, &[]).map(|role| role.value);
        if !stated {
            let allowed = "\"viewer\" (reads), \"operator\" (also ends sessions) or \"admin\" \
                           (also changes limits)";
            table.missing("role", "is missing: what may the token do?", allowed);
        }
        let secret = secret(&mut table, context);
        if let (Some(name), Some(role), Some(secret)) = (name, role, secret) {
            let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
            if tokens.iter().any(|token| token.name == name || token.digest == digest) {
                let what = "has the name or the secret of another token";
                table.problems.missing(
                    &table.at,
                    format!("the admin token \"{name}\" {what}"),
                    "a name and a secret of its own for each token",
                );
            }
            tokens.push(AdminToken { name, role, digest });
        }
        table.finish();
    }
    tokens
}

fn protected_users(admin: &mut Table<'_>, identity: &Identity) -> Vec<Glob> {
    let mut users = Vec::new();
    for At { value, at } in admin.texts("protected_users") {
        let name = identity::normalize(&identity.normalize, &value);
        if name.is_empty() {
            let allowed =
                "names, or patterns with `*` and `?`, like [\"root\", \"*@ops.example.com\"]";
            admin.wrong("protected_users", &at, "has an empty name", allowed);
        }
        users.push(Glob::name(&name));
    }
    users
}

fn name(token: &mut Table<'_>) -> Option<String> {
    let allowed = "a name for the audit log: letters, digits, `-`, `_` or `.`";
    let stated = token.has("name");
    let name = token.text("name");
    match &name {
        Some(name) if !super::is_plain_name(&name.value) => {
            token.wrong("name", &name.at, "cannot be a name", allowed);
        }
        None if !stated => token.missing("name", "is missing", allowed),
        Some(_) | None => {}
    }
    name.map(|name| name.value)
}

/// From `secret` or the file of `secret_file`; never part of a message.
fn secret(token: &mut Table<'_>, context: &Context<'_>) -> Option<String> {
    let stated = (token.has("secret"), token.has("secret_file"));
    let (plain, file) = (token.text("secret"), token.text("secret_file"));
    if stated.0 == stated.1 {
        let what = if stated.0 { "and `secret_file` are both given" } else { "is missing" };
        let allowed = "either `secret = \"${NAME}\"` (environment) or `secret_file = \"FILE\"`";
        token.missing("secret", what, allowed);
        return None;
    }
    let (key, at, secret) = match (plain, file) {
        (Some(At { value, at }), _) => ("secret", at, value),
        (None, Some(At { value, at })) => {
            let path = context.folder.join(&value);
            match std::fs::read_to_string(&path) {
                Ok(text) => ("secret_file", at, text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => {
                    let what = format!("cannot be read: {}", reason(&error));
                    let allowed = "a file that this user may read, relative to this file";
                    token.wrong("secret_file", &at, &what, allowed);
                    return None;
                }
            }
        }
        (None, None) => return None,
    };
    if secret.len() < SECRET_BYTES_MIN {
        let what = format!("holds only {} bytes: too easy to guess", secret.len());
        let allowed = format!("at least {SECRET_BYTES_MIN} bytes, as `openssl rand -hex 32` makes");
        token.wrong(key, &at, &what, &allowed);
        return None;
    }
    Some(secret)
}

/// The reason in words that are the same on every system.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// `[log]`.
pub(super) fn log(root: &mut Table<'_>) -> LogSettings {
    let mut log = root.table("log");
    let formats = [("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];
    let addresses = [
        ("full", ClientAddress::Full),
        ("prefix", ClientAddress::Prefix),
        ("hash", ClientAddress::Hash),
        ("none", ClientAddress::None),
    ];
    let settings = LogSettings {
        format: log.choice("format", LogFormat::Json, &formats, &[]),
        client_address: log.choice("client_address", ClientAddress::Full, &addresses, &[]),
    };
    log.finish();
    settings
}

/// `[geo]`: the file that tells where addresses are.
pub(super) fn geo(root: &mut Table<'_>, context: &Context<'_>) -> Option<PathBuf> {
    let mut geo = root.table("geo");
    let database = geo.text("database");
    if let Some(At { value, at }) = &database
        && value.is_empty()
    {
        let allowed = "a file in MaxMind's format, like \"GeoLite2-City.mmdb\"";
        geo.wrong("database", at, "is empty", allowed);
    }
    geo.finish();
    database.map(|database| context.folder.join(database.value))
}

/// Durations are bounded far below.
fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
