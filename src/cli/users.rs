//! The commands on users: what one may have and has, and limits of single users.

use http::Method;
use serde_json::{Value, json};

use super::remote::{Api, columns, encoded, fail, seconds, table};
use super::{Access, OK, USAGE, UserAction};
use crate::audit;
use crate::terminal::{complain, safe, say};

pub(super) fn run(access: &Access, action: &UserAction) -> u8 {
    if let UserAction::Limit { max, .. } = action
        && wanted(max).is_none()
    {
        complain("headcount: a limit is a number from 1 to 1000000, unlimited or configured");
        return USAGE;
    }
    let api = match Api::open(access) {
        Ok(api) => api,
        Err(code) => return code,
    };
    let done = match action {
        UserAction::Show { user, json } => show(&api, user, *json),
        UserAction::Limit { user, max } => limit(&api, user, max),
        UserAction::Limits { json } => limits(&api, *json),
        UserAction::Export { user } => export(&api, user),
        UserAction::Erase { user } => erase(&api, user),
    };
    done.map_or_else(fail, |()| OK)
}

/// What to send for a limit as people write it; `Some(None)`: take it back.
fn wanted(max: &str) -> Option<Option<Value>> {
    match max {
        "configured" => Some(None),
        "unlimited" => Some(Some(Value::Null)),
        number => match number.parse::<u32>() {
            Ok(number @ 1..=1_000_000) => Some(Some(number.into())),
            _ => None,
        },
    }
}

fn show(api: &Api, user: &str, json: bool) -> Result<(), String> {
    let shown = api.call(Method::GET, &format!("/api/v1/users/{}", encoded(user)))?;
    if json {
        say(audit::escape_json(&shown.to_string()));
        return Ok(());
    }
    let name = shown["user"].as_str().unwrap_or(user);
    let by = shown.pointer("/set/set_by").and_then(Value::as_str);
    let by = by.map_or("as configured".to_owned(), |by| format!("set by {}", safe(by)));
    say(format!("{}: {} of {} sessions, {by}", safe(name), shown["live"], many(&shown["limit"])));
    let sessions = shown["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !sessions.is_empty() {
        say(table(sessions).trim_end());
    }
    Ok(())
}

fn limit(api: &Api, user: &str, max: &str) -> Result<(), String> {
    let path = format!("/api/v1/users/{}/limit", encoded(user));
    let told = match wanted(max).flatten() {
        Some(max) => api.send(Method::PUT, &path, Some(&json!({ "max_sessions": max })))?,
        None => api.call(Method::DELETE, &path)?,
    };
    let now = told.get("max_sessions").or_else(|| told.get("limit")).unwrap_or(&Value::Null);
    let name = told["user"].as_str().unwrap_or(user);
    say(format!("{}: {} from the next sign-in on", safe(name), many(now)));
    Ok(())
}

fn limits(api: &Api, json: bool) -> Result<(), String> {
    let told = api.call(Method::GET, "/api/v1/limits")?;
    if json {
        say(audit::escape_json(&told.to_string()));
        return Ok(());
    }
    let mut rows = vec![["USER", "SESSIONS", "SET AT", "BY"].map(str::to_owned)];
    for limit in told["limits"].as_array().into_iter().flatten() {
        let text = |name: &str| limit[name].as_str().map(safe).unwrap_or_default();
        let at = seconds(&text("set_at"));
        rows.push([text("user"), many(&limit["max_sessions"]), at, text("set_by")]);
    }
    say(columns(&rows).trim_end());
    Ok(())
}

fn export(api: &Api, user: &str) -> Result<(), String> {
    let told = api.call(Method::GET, &format!("/api/v1/users/{}/export", encoded(user)))?;
    say(audit::escape_json(&told.to_string()));
    Ok(())
}

fn erase(api: &Api, user: &str) -> Result<(), String> {
    let told = api.call(Method::DELETE, &format!("/api/v1/users/{}", encoded(user)))?;
    say(format!("{}: {} ended, {} erased", safe(user), told["ended"], told["erased"]));
    Ok(())
}

fn many(limit: &Value) -> String {
    if limit.is_null() { "unlimited".to_owned() } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        assert_eq!(wanted("3"), Some(Some(3.into())));
        assert_eq!(wanted("unlimited"), Some(Some(Value::Null)));
        assert_eq!(wanted("configured"), Some(None));
        for wrong in ["0", "-1", "none", "", "1000001"] {
            assert_eq!(wanted(wrong), None, "{wrong}");
        }
    }
}
