//! Keys and defaults of `[store]`: a SQLite file or a PostgreSQL server. Opens neither.

use std::path::PathBuf;

use crate::settings::{OnFailure, PostgresSettings, StorePlace, StoreSettings};
use crate::store::postgres::Server;

use super::super::reader::{At, Table};
use super::Context;
use super::operation::reason;

const SECOND: u64 = 1_000;
const ALLOWED: &str = "\"sqlite://FILE\", FILE relative to this file or absolute: \
                       \"sqlite://headcount.db\", \"sqlite:///var/lib/headcount/headcount.db\"; or \
                       \"postgres://USER@HOST/DATABASE\"";
/// What means nothing with SQLite.
const POSTGRES_ONLY: [&str; 5] =
    ["password_file", "connections", "notify", "poll_interval", "grace"];

/// `[store]`; `strict` comes from `[limit]`.
pub(super) fn store(root: &mut Table<'_>, context: &Context<'_>, strict: bool) -> StoreSettings {
    let mut store = root.table("store");
    let url = store.text("url");
    let is_postgres = |url: &At<String>| {
        url.value.starts_with("postgres://") || url.value.starts_with("postgresql://")
    };
    let place = match url {
        Some(url) if is_postgres(&url) => postgres(&mut store, context, &url, strict),
        url => {
            for key in POSTGRES_ONLY {
                if let Some(node) = store.take(key) {
                    let what = "is for PostgreSQL only";
                    store.wrong(key, &node.at, what, "leave it out, or url = \"postgres://…\"");
                }
            }
            sqlite(&store, context, url)
        }
    };
    let key_file = store.text("key_file").map_or_else(|| "headcount.key".to_owned(), |at| at.value);
    let timeout_ms = store.duration("timeout", 2 * SECOND, 100..=60 * SECOND);
    let choices = [("closed", OnFailure::Closed), ("open", OnFailure::Open)];
    let on_failure = store.choice("on_failure", OnFailure::Closed, &choices, &[]);
    store.later(&[("revocation_max_delay", "leave it out: it is below a second")]);
    store.finish();
    StoreSettings { place, key_file: context.folder.join(key_file), timeout_ms, on_failure }
}

fn sqlite(store: &Table<'_>, context: &Context<'_>, url: Option<At<String>>) -> StorePlace {
    let default = StorePlace::Sqlite(context.folder.join("headcount.db"));
    let Some(At { value, at }) = url else { return default };
    match value.strip_prefix("sqlite://") {
        Some(path) if path.contains(":memory:") || path.contains("mode=memory") => {
            let what = "would forget every session at a restart: the store must be a file";
            store.wrong("url", &at, what, ALLOWED);
            default
        }
        Some(path) if !path.is_empty() && !path.ends_with('/') && !path.contains(['?', '\0']) => {
            StorePlace::Sqlite(context.folder.join(PathBuf::from(path)))
        }
        _ => {
            store.wrong("url", &at, "does not name a store", ALLOWED);
            default
        }
    }
}

fn postgres(
    store: &mut Table<'_>,
    context: &Context<'_>,
    url: &At<String>,
    strict: bool,
) -> StorePlace {
    let connections_max = store.count("connections", 8, 2..=100);
    let notify = store.flag("notify", true);
    let poll_interval_ms = store.duration("poll_interval", 250, 20..=2 * SECOND);
    let grace_ms = store.duration("grace", 5 * SECOND, SECOND..=60 * SECOND);
    let password = store.text("password_file").and_then(|At { value, at }| {
        match std::fs::read_to_string(context.folder.join(value)) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                let what = format!("cannot be read: {}", reason(&error));
                let allowed = "a file that this user may read, relative to this file";
                store.wrong("password_file", &at, &what, allowed);
                None
            }
        }
    });
    match Server::parse(&url.value, password.as_deref()) {
        Ok(server) => StorePlace::Postgres(Box::new(PostgresSettings {
            server,
            connections_max: u32::try_from(connections_max).unwrap_or(u32::MAX),
            notify,
            poll_interval_ms,
            grace_ms,
            strict,
        })),
        Err(error) => {
            store.wrong("url", &url.at, &format!("cannot be read: {error}"), ALLOWED);
            StorePlace::Sqlite(context.folder.join("headcount.db"))
        }
    }
}
