//! What stays as it was at the start, and is told when a reload would change it. The rest of the
//! settings may change while requests are under way.

use std::fmt;

use crate::settings::{ListenAddress, LogFormat, PostgresSettings, Settings, StorePlace};

/// A key whose value cannot change without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub key: &'static str,
    /// In force, and asked for.
    pub old: String,
    pub new: String,
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        write!(f, "{key} is {old} and cannot become {new} without a restart")
    }
}

/// Every such key in which `new` differs from `old`.
pub fn fixed(old: &Settings, new: &Settings) -> Vec<Fixed> {
    let pairs = values(old).into_iter().zip(values(new));
    pairs
        .filter(|((_, old), (_, new))| old != new)
        .map(|((key, old), (_, new))| Fixed { key, old, new })
        .collect()
}

/// The keys, and their values as an operator would write them.
fn values(settings: &Settings) -> Vec<(&'static str, String)> {
    let Settings { server, app, store, admin, log, .. } = settings;
    let admin = admin.as_ref().map_or_else(none, |admin| quoted(&admin.listen));
    let (url, postgres) = match &store.place {
        StorePlace::Sqlite(path) => (quoted(&format_args!("sqlite://{}", path.display())), None),
        StorePlace::Postgres(postgres) => (quoted(&postgres.server), Some(postgres)),
    };
    let of_postgres = |value: fn(&PostgresSettings) -> String| {
        postgres.map_or_else(none, |postgres| value(postgres))
    };
    let format = match log.format {
        LogFormat::Json => "json",
        LogFormat::Pretty => "pretty",
    };
    vec![
        ("server.listen", addresses(&server.listen)),
        ("server.unix_mode", quoted(&format_args!("{:04o}", server.unix_mode))),
        ("server.tls", server.tls.as_ref().map_or_else(none, |_| "set".to_owned())),
        ("server.proxy_protocol", quoted(&if server.proxy_protocol { "required" } else { "off" })),
        ("server.workers", server.workers.to_string()),
        ("server.node", quoted(&server.node)),
        ("server.limits.connections", server.limits.connections_max.to_string()),
        (
            "server.limits.connections_per_address",
            server.limits.connections_per_address_max.to_string(),
        ),
        ("server.limits.unsent", server.limits.unsent_bytes.to_string()),
        (
            "server.limits.http2_streams_per_address",
            server.limits.http2.streams_per_address_max.to_string(),
        ),
        ("app.name", quoted(&app)),
        ("store.url", url),
        ("store.key_file", quoted(&store.key_file.display())),
        ("store.timeout", quoted(&format_args!("{}ms", store.timeout_ms))),
        ("store.connections", of_postgres(|postgres| postgres.connections_max.to_string())),
        ("store.notify", of_postgres(|postgres| postgres.notify.to_string())),
        (
            "store.poll_interval",
            of_postgres(|it| quoted(&format_args!("{}ms", it.poll_interval_ms))),
        ),
        ("store.grace", of_postgres(|it| quoted(&format_args!("{}ms", it.grace_ms)))),
        (
            "limit.consistency",
            of_postgres(|it| quoted(&if it.strict { "strict" } else { "bounded" })),
        ),
        ("admin.listen", admin),
        ("log.format", quoted(&format)),
    ]
}

fn none() -> String {
    "absent".to_owned()
}

fn quoted(value: &impl fmt::Display) -> String {
    format!("\"{value}\"")
}

fn addresses(listen: &[ListenAddress]) -> String {
    let each: Vec<String> = listen.iter().map(quoted).collect();
    format!("[{}]", each.join(", "))
}
