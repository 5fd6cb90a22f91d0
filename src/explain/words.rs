//! Rules, values and times in words, for `explain`.

use crate::rules::expression::{Expression, Filter, Place};
use crate::rules::matcher::Patterns;
use crate::rules::{Negatable, RequestMatch, SuccessMatch};

/// A duration in the largest unit that is exact.
pub(super) fn duration(value_ms: i64) -> String {
    let units = [
        (86_400_000, "day"),
        (3_600_000, "hour"),
        (60_000, "minute"),
        (1_000, "second"),
        (1, "millisecond"),
    ];
    let (scale, unit) = units
        .into_iter()
        .find(|(scale, _)| value_ms != 0 && value_ms % scale == 0)
        .unwrap_or((1_000, "second"));
    counted(value_ms / scale, unit)
}

/// `1 session`, `3 sessions`.
pub(super) fn sessions(count: u32) -> String {
    counted(i64::from(count), "session")
}

fn counted(count: i64, noun: &str) -> String {
    if count == 1 { format!("{count} {noun}") } else { format!("{count} {noun}s") }
}

/// Path patterns.
pub(super) fn paths(patterns: &Patterns) -> String {
    quoted(patterns, "any path")
}

fn quoted(patterns: &Patterns, any: &str) -> String {
    let list = |globs: &[_]| {
        let globs: Vec<String> =
            globs.iter().map(|glob: &crate::rules::matcher::Glob| format!("`{glob}`")).collect();
        globs.join(" or ")
    };
    match (patterns.wanted(), patterns.unwanted()) {
        ([], []) => any.to_owned(),
        (wanted, []) => list(wanted),
        ([], unwanted) => format!("{any} but {}", list(unwanted)),
        (wanted, unwanted) => format!("{} but not {}", list(wanted), list(unwanted)),
    }
}

/// `POST to `/login/` with the form field "username"`.
pub(super) fn request(rule: &RequestMatch) -> String {
    let methods = if rule.methods.0.is_empty() {
        "Any request".to_owned()
    } else {
        rule.methods.0.join(" or ")
    };
    let with: Vec<String> = rule.has.iter().map(value_of).chain(conditions(&rule.is)).collect();
    let with =
        if with.is_empty() { String::new() } else { format!(" with {}", with.join(" and ")) };
    format!("{methods} to {}{with}", paths(&rule.path))
}

/// What the answer must look like; nothing when any will do.
pub(super) fn success(rule: &SuccessMatch) -> Option<String> {
    let mut parts = Vec::new();
    let status = rule.status.to_string();
    if !status.is_empty() {
        parts.push(format!("answers {status}"));
    }
    if !rule.location.is_empty() {
        parts.push(format!("redirects to {}", quoted(&rule.location, "anywhere")));
    }
    if rule.leads_elsewhere {
        parts.push("does not redirect back to where the request went".to_owned());
    }
    parts.extend(rule.sets.iter().map(|cookie| does(cookie, "sets", "set")));
    parts.extend(rule.clears.iter().map(|cookie| does(cookie, "deletes", "delete")));
    parts.extend(conditions(&rule.is).map(|condition| format!("answers with {condition}")));
    let last = parts.pop()?;
    let text = if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) };
    Some(format!("the app {text}"))
}

fn does(cookie: &Negatable, verb: &str, infinitive: &str) -> String {
    if cookie.negated {
        format!("does not {infinitive} the cookie `{}`", cookie.name)
    } else {
        format!("{verb} the cookie `{}`", cookie.name)
    }
}

fn conditions(list: &[(Expression, Patterns)]) -> impl Iterator<Item = String> {
    list.iter().map(|(expression, patterns)| {
        format!("{} being {}", value_of(expression), quoted(patterns, "anything"))
    })
}

/// Where a value is, in words.
pub(super) fn value_of(expression: &Expression) -> String {
    let place = match &expression.place {
        Place::Form(name) => format!("the form field `{name}`"),
        Place::Json(pointer) => format!("`{pointer}` of the request's JSON"),
        Place::Query(name) => format!("the query parameter `{name}`"),
        Place::Header(name) => format!("the request header `{name}`"),
        Place::Cookie(name) => format!("the request's cookie `{name}`"),
        Place::Set(name) => format!("the value of the cookie `{name}` that the app sets"),
        Place::ResponseHeader(name) => format!("the response header `{name}`"),
        Place::Location => "the address the app redirects to".to_owned(),
        Place::ResponseJson(pointer) => format!("`{pointer}` of the answer's JSON"),
        Place::ResponseText(regex) => {
            format!("what the group of `{}` finds in the answer", regex.as_str())
        }
        Place::Step => "the user named in an earlier step".to_owned(),
        Place::Path(name) => format!("the segment `{name}` of the path"),
        Place::Basic => "HTTP Basic".to_owned(),
        Place::BasicUser => "the user name of HTTP Basic".to_owned(),
        Place::Probe => "what the app says when asked who it is".to_owned(),
    };
    let read: Vec<String> = expression.filters.iter().filter_map(filter).collect();
    if read.is_empty() { place } else { format!("{place} ({})", read.join(", ")) }
}

fn filter(filter: &Filter) -> Option<String> {
    Some(match filter {
        Filter::UrlDecode => "URL-decoded".to_owned(),
        Filter::Base64 => "base64-decoded".to_owned(),
        Filter::Inflate => "base64-decoded and unpacked".to_owned(),
        Filter::Json(pointer) => format!("`{pointer}` of its JSON"),
        Filter::Split(separator, index) => format!("part {} between `{separator}`", index + 1),
        Filter::Prefix(count) => format!("its first {count} characters"),
        Filter::Bearer => "the bearer token".to_owned(),
        Filter::Jwt(claim) => format!("the claim `{claim}` of its token"),
        // How a name is compared is told elsewhere.
        Filter::Lower | Filter::Trim => return None,
    })
}
