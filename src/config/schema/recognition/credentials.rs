//! `[[credential]]` as written: cookies and places of bearer tokens, what they are for, and how a
//! stable id is read from them.

use crate::rules::expression::{Expression, FILTERS, Filter, Place as Source};
use crate::rules::matcher::Glob;
use crate::rules::{Credential, Role};

use super::super::super::reader::{At, Table};
use super::is_cookie_pattern;

const ALLOWED: &str = "\"cookie:NAME\", where NAME may have `*` and `?`, like \"cookie:sessionid\"; \
                       for tokens \"header:authorization | bearer\", \"query:NAME\", \"form:NAME\", \
                       \"json:/POINTER\" or \"basic:\"";

pub(super) fn credentials(root: &mut Table<'_>) -> Vec<Credential> {
    let mut credentials: Vec<Credential> = Vec::new();
    let mut roles = Vec::new();
    let tables = root.tables("credential");
    let first = tables.first().map(|table| table.at.clone());
    for mut table in tables {
        let words =
            [("session", Role::Session), ("remember", Role::Remember), ("refresh", Role::Refresh)];
        let stated = table.has("role");
        let role = table.choice_if_any("role", &words, &[]).map(|at| at.value);
        roles.push(if stated { role } else { Some(Role::Session) });
        let role = role.unwrap_or(Role::Session);
        let (cookies, tokens) = places(&mut table, &credentials);
        let key = key(&mut table);
        table.finish();
        credentials.push(Credential { cookies, tokens, role, key });
    }
    if let Some(first) = first
        && roles.iter().all(|role| matches!(role, Some(Role::Remember | Role::Refresh)))
    {
        root.problems.missing(
            &first,
            "no [[credential]] has the role \"session\"",
            "one [[credential]] for the session itself, beside those to remember or refresh it",
        );
    }
    credentials
}

fn places(table: &mut Table<'_>, before: &[Credential]) -> (Vec<Glob>, Vec<Expression>) {
    if !table.has_some("at") {
        table.missing("at", "is missing: which cookie or token is it?", ALLOWED);
    }
    let (mut cookies, mut tokens): (Vec<Glob>, Vec<Expression>) = (Vec::new(), Vec::new());
    for written in table.texts("at") {
        let At { value, at } = &written;
        if let Some(name) = value.strip_prefix("cookie:") {
            let glob = Glob::name(name.trim());
            let known = before.iter().flat_map(|credential| &credential.cookies).chain(&cookies);
            cookie(table, name.trim(), &written, known.into_iter().any(|known| *known == glob));
            cookies.push(glob);
            continue;
        }
        let Some(expression) = token(table, &written) else { continue };
        let mut known = before.iter().flat_map(|credential| &credential.tokens).chain(&tokens);
        if known.any(|known| known.place == expression.place) {
            table.wrong("at", at, "is given twice", "each place in one [[credential]]");
        }
        tokens.push(expression);
    }
    (cookies, tokens)
}

fn cookie(table: &Table<'_>, name: &str, written: &At<String>, known: bool) {
    let at = &written.at;
    if !is_cookie_pattern(name) {
        table.wrong("at", at, "does not name a cookie", ALLOWED);
    } else if name.chars().all(|character| matches!(character, '*' | '?')) {
        table.wrong("at", at, "would take every cookie for a credential", ALLOWED);
    } else if known {
        table.wrong("at", at, "is given twice", "each cookie in one [[credential]]");
    }
}

fn token(table: &Table<'_>, written: &At<String>) -> Option<Expression> {
    let expression = Expression::parse(&written.value).ok().filter(|expression| {
        matches!(
            expression.place,
            Source::Header(_)
                | Source::Query(_)
                | Source::Form(_)
                | Source::Json(_)
                | Source::Basic
        )
    });
    if expression.is_none() {
        table.wrong("at", &written.at, "is not a place a credential can be", ALLOWED);
    }
    expression
}

/// `key = "urldecode | split('|',2)"`.
fn key(table: &mut Table<'_>) -> Vec<Filter> {
    let Some(At { value, at }) = table.text("key") else { return Vec::new() };
    match Expression::parse_filters(&value) {
        Ok(filters) => filters,
        Err(_) => {
            let allowed = format!("filters, with `|` between them: {FILTERS}");
            table.wrong("key", &at, "does not say how to read an id from the value", &allowed);
            Vec::new()
        }
    }
}
