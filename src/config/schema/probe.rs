//! Keys and defaults of `[identity.probe]`: how the app is asked who somebody is.

use http::HeaderValue;

use crate::settings::{Probe, ProbeFailure};

use super::super::reader::{At, Table};
use super::recognition::{Side, conditions_met, expressions, is_header_name, method};

/// `[identity.probe]`.
pub(super) fn probe(identity: &mut Table<'_>) -> Option<Probe> {
    let mut table = identity.table_if_any("probe")?;
    for (key, what, allowed) in [
        ("path", "is missing: which page says who is signed in?", "path = \"/api/me\""),
        ("user", "is missing: where is the name in its answer?", "user = \"rjson:/username\""),
        (
            "anonymous",
            "is missing: what does the app answer when nobody is signed in?",
            "anonymous = { status = [401, 403] }",
        ),
    ] {
        if !table.has_some(key) {
            table.missing(key, what, allowed);
        }
    }
    let written = table.text("method");
    let method = method(&table, "method", written.as_ref()).unwrap_or_else(|| "GET".to_owned());
    let path = table.text("path");
    let path = super::own_path(&table, "path", path).unwrap_or_default();
    let failure = [("refuse", ProbeFailure::Refuse), ("pass", ProbeFailure::Pass)];
    let probe = Probe {
        method,
        path,
        headers: headers(&mut table),
        user: expressions(&mut table, "user", Side::Asked),
        anonymous: conditions_met(&mut table, "anonymous"),
        timeout_ms: table.duration("timeout", 2_000, 50..=60_000),
        cache_ms: i64::try_from(table.duration("cache", 60_000, 1_000..=3_600_000))
            .unwrap_or(i64::MAX),
        rate: u32::try_from(table.count("rate", 100, 1..=100_000)).unwrap_or(u32::MAX),
        on_failure: table.choice("on_failure", ProbeFailure::Refuse, &failure, &[]),
    };
    table.finish();
    Some(probe)
}

/// `headers = { "x-requested-with" = "XMLHttpRequest" }`.
fn headers(table: &mut Table<'_>) -> Vec<(String, String)> {
    const OURS: [&str; 6] =
        ["cookie", "host", "content-length", "transfer-encoding", "connection", "authorization"];
    let mut headers = Vec::new();
    for (At { value: name, at }, node) in table.pairs("headers") {
        let Some(value) = table.to_text("headers", node) else { continue };
        let lower = name.to_ascii_lowercase();
        if !is_header_name(&name) || OURS.contains(&&*lower) {
            let allowed =
                "a header that is not Cookie, Authorization, Host or about the connection";
            table.wrong("headers", &at, "names a header that cannot be set", allowed);
        } else if HeaderValue::from_str(&value.value).is_err() {
            table.wrong("headers", &value.at, "cannot stand in a header", "visible characters");
        }
        headers.push((lower, value.value));
    }
    headers
}
