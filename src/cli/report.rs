//! The report over a period, as text, JSON or one page.

use std::fmt::Write as _;

use http::Method;
use serde_json::Value;

use super::remote::{Api, columns, fail, seconds};
use super::{Access, OK, ReportArgs, USAGE};
use crate::audit;
use crate::terminal::{complain, safe, say};

/// Users in each list of the text.
const USERS_MAX: usize = 10;

pub(super) fn run(access: &Access, wanted: &ReportArgs) -> u8 {
    if wanted.json && wanted.html {
        complain("headcount: give --json or --html, not both");
        return USAGE;
    }
    let api = match Api::open(access) {
        Ok(api) => api,
        Err(code) => return code,
    };
    print(&api, wanted).map_or_else(fail, |()| OK)
}

fn print(api: &Api, wanted: &ReportArgs) -> Result<(), String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(wanted.since.as_deref().map(|since| ("since", since)));
    query.extend_pairs(wanted.until.as_deref().map(|until| ("until", until)));
    if wanted.html {
        query.append_pair("format", "html");
    }
    let path = format!("/api/v1/report?{}", query.finish());
    if wanted.html {
        let page = api.fetch(Method::GET, &path, None)?;
        say(String::from_utf8_lossy(&page).trim_end());
        return Ok(());
    }
    let report = api.call(Method::GET, &path)?;
    if wanted.json {
        say(audit::escape_json(&report.to_string()));
    } else {
        say(text(&report).trim_end());
    }
    Ok(())
}

/// The report as people read it in a terminal.
fn text(report: &Value) -> String {
    let get = |value: &Value, name: &str| match &value[name] {
        Value::String(text) => safe(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let list = |name: &str| report[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = String::new();
    let (since, until) = (get(report, "since"), get(report, "until"));
    let _ = writeln!(out, "From {} to {} UTC", seconds(&since), seconds(&until));
    let _ = writeln!(out, "{} sign-ins, {} users", report["logins"], report["users"]);
    if report["truncated"] == true {
        out.push_str("There are too many sessions: the oldest sign-ins are left out.\n");
    }
    out.push_str("\nWhat a limit would have done\n");
    let head = ["LIMIT", "SIGN-INS THAT EVICT", "EVICTED", "STILL IN USE", "OR DENIED", "USERS"];
    let mut rows = vec![head.map(str::to_owned)];
    for tried in list("limits") {
        rows.push(
            [
                "max_sessions",
                "logins_evicting",
                "sessions_evicted",
                "evicted_in_use",
                "logins_denied",
                "users",
            ]
            .map(|name| get(tried, name)),
        );
    }
    out.push_str(&columns(&rows));
    if !list("top_users").is_empty() {
        out.push_str("\nMost sessions at once\n");
        let head = ["USER", "AT ONCE", "DEVICES", "NETWORKS", "SIGN-INS", "WHEN"];
        let mut rows = vec![head.map(str::to_owned)];
        for busy in list("top_users").iter().take(USERS_MAX) {
            let at = seconds(&get(busy, "at"));
            let [user, at_once, devices, networks, logins] =
                ["user", "at_once", "devices", "networks", "logins"].map(|name| get(busy, name));
            rows.push([user, at_once, devices, networks, logins, at]);
        }
        out.push_str(&columns(&rows));
    }
    out.push_str("\nLikely shared accounts: in use at the same time from distant networks\n");
    if list("likely_shared").is_empty() {
        out.push_str("None.\n");
    }
    for account in list("likely_shared").iter().take(USERS_MAX) {
        let minutes = account["overlap_s"].as_i64().unwrap_or_default() / 60;
        let _ = writeln!(out, "{}: {minutes} minutes", get(account, "user"));
        for pair in account["evidence"].as_array().into_iter().flatten() {
            let times = ["from", "until"].map(|name| seconds(&get(pair, name)));
            let whence = ["one", "other"].map(|side| get(&pair[side], "address"));
            let _ =
                writeln!(out, "  {} to {}: {} and {}", times[0], times[1], whence[0], whence[1]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_all_of_it_and_is_safe() {
        let report = serde_json::json!({
            "since": "2026-03-01T00:00:00.000Z", "until": "2026-03-31T00:00:00.000Z",
            "truncated": false, "logins": 12, "users": 3,
            "limits": [{"max_sessions": 1, "logins_evicting": 7, "sessions_evicted": 8,
                "evicted_in_use": 2, "logins_denied": 6, "users": 2}],
            "top_users": [{"user": "al\u{1b}[31m", "logins": 9, "at_once": 4, "devices": 3,
                "networks": 2, "at": "2026-03-02T10:00:00.000Z"}],
            "likely_shared": [{"user": "al", "pairs": 1, "overlap_s": 600, "evidence": [{
                "from": "2026-03-02T10:00:00.000Z", "until": "2026-03-02T10:10:00.000Z",
                "one": {"session": "01", "address": "192.0.2.1", "user_agent": null},
                "other": {"session": "02", "address": "198.51.100.1", "user_agent": null},
            }]}],
        });
        let text = text(&report);
        assert!(text.contains("12 sign-ins, 3 users"), "{text}");
        assert!(text.contains("al\\u{1b}[31m  4 "), "{text}");
        let evidence = "2026-03-02 10:00:00 to 2026-03-02 10:10:00: 192.0.2.1 and 198.51.100.1";
        assert!(text.contains("al: 10 minutes") && text.contains(evidence), "{text}");
    }
}
