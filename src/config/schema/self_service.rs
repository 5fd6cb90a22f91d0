//! Keys and defaults of `[self_service]`: where our own pages are on the app's origin, if anywhere.

use crate::path::{self, CanonicalPath};
use crate::rules::RuleSet;
use crate::rules::matcher::{Glob, Patterns};
use crate::settings::{AppLogout, Probe};

use super::super::reader::{At, Table};

const PATH: &str = "/.headcount/";
const ALLOWED: &str = "a folder that the app does not have, like \"/.headcount/\": `/` at both ends, small \
                       letters, digits and `-`, `_`, `.`";

/// `[self_service]`: the folder of our pages, unless they are switched off.
pub(super) fn self_service(root: &mut Table<'_>) -> Option<String> {
    let mut table = root.table("self_service");
    let enabled = table.flag("enabled", true);
    let path = folder(&mut table, "path");
    table.finish();
    enabled.then(|| path.unwrap_or_else(|| PATH.to_owned()))
}

/// Where they are in one of several apps: where it says, else at the common place if its requests
/// get there.
pub(super) fn of_scope(
    table: &mut Table<'_>,
    paths: &Patterns,
    common: Option<&str>,
) -> Option<String> {
    let key = "self_service_path";
    let at = table.text(key);
    let Some(At { value, at }) = &at else {
        return common.filter(|common| within(common, paths)).map(str::to_owned);
    };
    let Some(_) = common else {
        let what = "has no effect: [self_service] enabled = false";
        table.wrong(key, at, what, "one of the two");
        return None;
    };
    if !is_folder(value) {
        table.wrong(key, at, "cannot be the folder of our pages", ALLOWED);
    } else if !within(value, paths) {
        let allowed = "a folder that `path` of this scope matches, like \"/wiki/.headcount/\"";
        table.wrong(key, at, "is not among the requests of this scope", allowed);
    }
    Some(value.clone())
}

/// Complains about a page of the app that would be out of reach.
pub(super) fn check(
    table: &Table<'_>,
    folder: Option<&str>,
    rules: &RuleSet,
    login_url: Option<&str>,
    app_logout: Option<&AppLogout>,
    probe: Option<&Probe>,
) {
    let Some(folder) = folder else { return };
    let watched = rules.all().flat_map(|rule| rule.request.path.wanted());
    let own = [login_url, app_logout.map(|to| &*to.path), probe.map(|to| &*to.path)];
    let mut all = watched.filter_map(Glob::literal).chain(own.into_iter().flatten());
    if let Some(taken) = all.find(|path| path.starts_with(folder)) {
        let what =
            format!("`self_service.path` is a folder of the app: {taken} would be out of reach");
        table.problem(&what, "another folder, or [self_service] enabled = false");
    }
}

fn folder(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let At { value, at } = table.text(key)?;
    if !is_folder(&value) {
        table.wrong(key, &at, "cannot be the folder of our pages", ALLOWED);
    }
    Some(value)
}

/// Whether it has one spelling, and a browser takes it for what it is.
fn is_folder(path: &str) -> bool {
    let fine = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '/' | '-' | '_' | '.')
    };
    let canonical = CanonicalPath { text: path.to_owned(), plain: true };
    path.len() > 2
        && path.starts_with('/')
        && path.ends_with('/')
        && path.chars().all(fine)
        && path::canonical(path) == canonical
}

fn within(folder: &str, paths: &Patterns) -> bool {
    paths.is_empty() || (paths.matches(folder) && paths.matches(&format!("{folder}end")))
}
