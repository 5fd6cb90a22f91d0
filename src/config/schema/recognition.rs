//! `[[login]]`, `[[step]]`, `[[logout]]`, `[[refresh]]` and `[[password_change]]` as written → the rule
//! set. The rule language itself is in `rules::matcher` and `rules::expression`.

mod credentials;
mod expressions;

use crate::rules::expression::{Expression, Place as Source};
use crate::rules::matcher::{Glob, Methods, Patterns, StatusPatterns};
use crate::rules::template::Template;
use crate::rules::{Credential, Negatable, RequestMatch, Role, Rule, RuleSet, SuccessMatch};

use self::credentials::credentials;
use self::expressions::conditions;
pub(super) use self::expressions::{Side, expressions};
use super::super::reader::{At, Table};
use super::super::tree::Value;
use super::super::wording::alternatives;
use super::Context;

/// What kind of rule it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Login,
    Step,
    Refresh,
    Other,
}

/// All rules.
pub(super) fn rules(root: &mut Table<'_>, context: &Context<'_>, has_probe: bool) -> RuleSet {
    let stated = (root.has_some("credential"), root.has_some("login"));
    let credentials: Vec<Credential> = credentials(root);
    if !stated.0 && context.preset_known {
        let what = "is missing: which cookie or token proves a session?";
        let allowed =
            format!("[[{}]] at = \"cookie:NAME\"{}", root.name("credential"), preset(root));
        root.missing("credential", what, &allowed);
    }
    if !stated.1 && context.preset_known && !has_probe {
        let what = "is missing: without a rule for logins no user is ever known";
        let probe = if root.is_root() { "[identity.probe]" } else { "`probe`" };
        let allowed = format!(
            "[[{}]] with `request` and `user`, or {probe}{}",
            root.name("login"),
            preset(root)
        );
        root.missing("login", what, &allowed);
    }
    let rules = RuleSet {
        logins: rules_of(root, "login", Kind::Login, &credentials),
        steps: rules_of(root, "step", Kind::Step, &credentials),
        logouts: rules_of(root, "logout", Kind::Other, &credentials),
        refreshes: rules_of(root, "refresh", Kind::Refresh, &credentials),
        password_changes: rules_of(root, "password_change", Kind::Other, &credentials),
        credentials,
    };
    if rules.steps.is_empty() && rules.all().any(Rule::reads_step) {
        let what = "is missing: `step:` is whom an earlier step named";
        root.missing("step", what, "[[step]] with `request`, `success` and `user`");
    }
    rules
}

/// Presets are for the whole app.
fn preset(root: &Table<'_>) -> &'static str {
    if root.is_root() { ", or [app] preset" } else { "" }
}

fn rules_of(
    root: &mut Table<'_>,
    key: &'static str,
    kind: Kind,
    credentials: &[Credential],
) -> Vec<Rule> {
    let tables = root.tables(key);
    tables.into_iter().map(|table| rule(table, kind, credentials)).collect()
}

fn rule(mut table: Table<'_>, kind: Kind, credentials: &[Credential]) -> Rule {
    if !table.has("request") {
        let allowed = "request = { methods = \"POST\", path = \"/login/\" }";
        table.missing("request", "is missing: what does the request look like?", allowed);
    }
    let request = table.table_if_any("request").map(request).unwrap_or_default();
    let issues = issues(&mut table, kind, credentials);
    let success =
        table.table_if_any("success").map(|success| success_of(success, kind, credentials));
    if kind == Kind::Step && success.is_none() {
        let allowed = "success = { location = \"*/login/code\" }, or whatever a wrong password \
                       does not get";
        table.missing("success", "is missing: what does the app answer?", allowed);
    }
    let (mut user, mut in_place, mut guests_only) = (Vec::new(), false, false);
    if matches!(kind, Kind::Login | Kind::Step) {
        if !table.has_some("user") {
            let allowed = "user = \"form:username\", or where else the user's name is";
            table.missing("user", "is missing: whose session is it?", allowed);
        }
        user = expressions(&mut table, "user", Side::Either);
        segments_named(&table, &request, &user);
    }
    if kind == Kind::Login {
        in_place = table.flag("in_place", false);
        guests_only = table.flag("guests_only", false);
    }
    table.finish();
    Rule { request, success, user, in_place, guests_only, issues }
}

/// `path:name` is a segment that a path pattern of the same rule names.
fn segments_named(table: &Table<'_>, request: &RequestMatch, user: &[Expression]) {
    for expression in user {
        let Source::Path(name) = &expression.place else { continue };
        if !request.templates.iter().any(|template| template.names(name)) {
            let what = format!("takes `path:{name}`, but no path of the rule has that segment");
            table.missing("user", &what, &format!("path = \"/users/{{{name}}}/login\""));
        }
    }
}

/// `issues = { access = "rjson:/access", refresh = "rjson:/refresh" }`.
fn issues(
    table: &mut Table<'_>,
    kind: Kind,
    credentials: &[Credential],
) -> Vec<(Role, Expression)> {
    if !matches!(kind, Kind::Login | Kind::Refresh) {
        return Vec::new();
    }
    let Some(mut issues) = table.table_if_any("issues") else {
        if kind == Kind::Refresh {
            let allowed = "issues = { access = \"rjson:/access\" }";
            table.missing("issues", "is missing: where does the answer hold the token?", allowed);
        }
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, role) in [("access", Role::Session), ("refresh", Role::Refresh)] {
        let presented = |own: &Credential| own.role == role && !own.tokens.is_empty();
        let stated = issues.has_some(key);
        let expressions = expressions(&mut issues, key, Side::Response);
        if stated && !credentials.is_empty() && !credentials.iter().any(presented) {
            let allowed = format!(
                "a [[credential]] with role = \"{}\" and at = \"{}\"",
                if role == Role::Session { "session" } else { "refresh" },
                if role == Role::Session {
                    "header:authorization | bearer"
                } else {
                    "json:/refresh"
                },
            );
            issues.missing(key, "names a token that no request is searched for", &allowed);
        }
        found.extend(expressions.into_iter().map(|expression| (role, expression)));
    }
    issues.finish();
    found
}

fn request(mut table: Table<'_>) -> RequestMatch {
    let methods = table.texts("methods");
    let methods =
        methods.iter().filter_map(|written| method(&table, "methods", Some(written))).collect();
    let stated = ["path", "has", "is"].into_iter().any(|key| table.has_some(key));
    let (path, templates) = paths_with_names(&mut table, "path");
    let request = RequestMatch {
        methods: Methods(methods),
        path: path.lowered(),
        templates,
        has: expressions(&mut table, "has", Side::Request),
        is: conditions(&mut table, Side::Request),
    };
    if !stated {
        let what = "is missing: the rule would take every request";
        table.missing("path", what, "`path`, or at least `has` or `is`");
    }
    table.finish();
    request
}

/// What an answer that is no rule's looks like.
pub(super) fn conditions_met(table: &mut Table<'_>, key: &'static str) -> SuccessMatch {
    let Some(success) = table.table_if_any(key) else { return SuccessMatch::default() };
    if !["status", "location", "sets", "clears", "is"].iter().any(|key| success.has_some(key)) {
        success.missing("status", "is missing: every answer would fit", "status = [401, 403]");
    }
    success_of(success, Kind::Other, &[])
}

fn success_of(mut table: Table<'_>, kind: Kind, credentials: &[Credential]) -> SuccessMatch {
    let status = status(&mut table);
    let mut location = table.texts("location");
    let written = location.len();
    location.retain(|at| at.value != "!{path}");
    let leads_elsewhere = location.len() < written;
    for At { value, at } in location.iter().filter(|at| at.value.contains("{path}")) {
        let what = format!("knows `{{path}}` by itself only, not in \"{value}\"");
        table.wrong("location", at, &what, "\"!{path}\": not back to the path of the request");
    }
    refuse_contradictions(&table, "location", &location, Glob::name);
    let location = Patterns::new(location.iter().map(|at| at.value.as_str()), Glob::name);
    let written = table.texts("sets");
    let sets = cookie_patterns(&table, "sets", &written);
    let wanted: Vec<&Glob> = sets.iter().filter(|set| !set.negated).map(|set| &set.name).collect();
    if kind == Kind::Login
        && let Some(first) = written.first()
        && !wanted.is_empty()
        && !credentials.is_empty()
        && !wanted.iter().any(|name| is_credential(name, credentials))
    {
        let names = credentials.iter().flat_map(|credential| &credential.cookies);
        let names = alternatives(names.map(|name| format!("\"{name}\"")));
        let what = "names no cookie of a [[credential]], so a login would start no session";
        // The preset's own rule does not fit the operator's cookie.
        let instead =
            if first.at.source == 0 { "another [[credential]]" } else { "a [[login]] of your own" };
        table.wrong("sets", &first.at, what, &format!("{names}, or {instead}"));
    }
    let written = table.texts("clears");
    let success = SuccessMatch {
        status,
        location,
        leads_elsewhere,
        sets,
        clears: cookie_patterns(&table, "clears", &written),
        is: conditions(&mut table, Side::Response),
    };
    table.finish();
    success
}

/// Whether some cookie can fit both the pattern and a credential; of two patterns, whether one
/// covers the other as written.
fn is_credential(name: &Glob, credentials: &[Credential]) -> bool {
    credentials
        .iter()
        .flat_map(|credential| &credential.cookies)
        .any(|cookie| cookie.matches(&name.to_string()) || name.matches(&cookie.to_string()))
}

fn cookie_patterns(table: &Table<'_>, key: &str, written: &[At<String>]) -> Vec<Negatable> {
    let mut patterns = Vec::new();
    for At { value, at } in written {
        let (negated, name) = match value.strip_prefix('!') {
            Some(name) => (true, name),
            None => (false, value.as_str()),
        };
        if !is_cookie_pattern(name) {
            let allowed = "the name of a cookie, with `*`, `?`, or `!` in front for one that must \
                           not be";
            table.wrong(key, at, "does not name a cookie", allowed);
        }
        patterns.push(Negatable { negated, name: Glob::name(name) });
    }
    for (negated, At { at, .. }) in patterns.iter().zip(written).filter(|(it, _)| it.negated) {
        let never = |other: &Negatable| !other.negated && negated.name.covers(&other.name);
        if patterns.iter().any(never) {
            let what = "takes away what another of the list asks for: the rule never fits";
            table.wrong(key, at, what, "a cookie either with `!` or without");
        }
    }
    patterns
}

/// A list in which each pattern is taken back by one with `!` fits nothing.
fn refuse_contradictions(
    table: &Table<'_>,
    key: &str,
    written: &[At<String>],
    make: fn(&str) -> Glob,
) {
    let not: Vec<Glob> =
        written.iter().filter_map(|at| at.value.strip_prefix('!')).map(make).collect();
    let mut wanted = written.iter().filter(|at| !at.value.starts_with('!')).peekable();
    let Some(At { at, .. }) = wanted.peek().copied() else { return };
    if wanted.all(|wanted| not.iter().any(|not| not.covers(&make(&wanted.value)))) {
        let what = "never fits: a pattern with `!` takes it back";
        table.wrong(key, at, what, "patterns of which one is not taken back");
    }
}

fn status(table: &mut Table<'_>) -> StatusPatterns {
    let mut patterns = StatusPatterns::default();
    let Some(node) = table.take("status") else { return patterns };
    for item in table.to_nodes(node) {
        let written = match &item.value {
            Value::Integer(code) => code.to_string(),
            Value::Text(text) => text.clone(),
            Value::Broken => continue,
            Value::Flag(_) | Value::Other | Value::List(_) | Value::Table(_) => String::new(),
        };
        if let Err(allowed) = patterns.push(&written) {
            table.wrong("status", &item.at, "is not a status", &allowed);
        }
    }
    patterns
}

/// Path patterns; those that could never fit the canonical form of a path are refused.
pub(super) fn paths(table: &mut Table<'_>, key: &'static str) -> Patterns {
    let written = checked_paths(table, key);
    Patterns::new(written.iter().map(String::as_str), Glob::path)
}

/// The same, with segments that have names.
fn paths_with_names(table: &mut Table<'_>, key: &'static str) -> (Patterns, Vec<Template>) {
    let written = checked_paths(table, key);
    let globs: Vec<String> = written.iter().map(|path| Template::glob_of(path)).collect();
    let templates = written.iter().filter_map(|path| Template::parse(path)).collect();
    (Patterns::new(globs.iter().map(String::as_str), Glob::path), templates)
}

fn checked_paths(table: &mut Table<'_>, key: &'static str) -> Vec<String> {
    let written = table.texts(key);
    for At { value, at } in &written {
        let path = value.strip_prefix('!').unwrap_or(value);
        if !path.starts_with('/') && !path.starts_with("**") {
            let allowed = "a path that starts with `/`, or with `**` for any folder";
            table.wrong(key, at, "is not a path", allowed);
        } else if path.contains("//")
            || path.contains([';', '#', '\\', '%'])
            || path.split_once('?').is_some_and(|(_, query)| query.contains('='))
            || path.chars().any(|c| c.is_control() || c == ' ')
            || path.split('/').any(|segment| matches!(segment, "." | ".."))
        {
            let allowed = "a plain path: no query, `//`, `.`, `..`, `;`, `#`, `\\`, `%` or blanks";
            table.wrong(key, at, "never fits: paths are compared in their plain form", allowed);
        }
    }
    refuse_contradictions(table, key, &written, Glob::path);
    written.into_iter().map(|at| at.value).collect()
}

/// One method; they are compared byte for byte.
pub(super) fn method(table: &Table<'_>, key: &str, written: Option<&At<String>>) -> Option<String> {
    let At { value, at } = written?;
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_uppercase() || c == '-') {
        return Some(value.clone());
    }
    let allowed = "a method in capitals, like \"POST\"";
    table.wrong(key, at, "is not a method", allowed);
    None
}

/// A cookie name (RFC 6265 token), perhaps with wildcards.
fn is_cookie_pattern(name: &str) -> bool {
    is_header_name(&name.replace('?', "*"))
}

/// RFC 9110 token; `*` is one of its characters.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}
