//! `[[scope]]` as written: several apps behind one proxy, told apart by host and path, each with
//! rules and users of its own.

use crate::rules::matcher::{Glob, Patterns};
use crate::settings::Scope;

use super::super::reader::{At, Table};
use super::{Context, enforcement, own_path, probe, recognition, self_service};

/// Every scope; `app` is the name of the whole.
pub(super) fn scopes(
    root: &mut Table<'_>,
    app: &str,
    own_pages: Option<&str>,
    context: &Context<'_>,
) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = Vec::new();
    for mut table in root.tables("scope") {
        let name = name(&mut table, &scopes);
        let stated = table.has_some("host") || table.has_some("path");
        let hosts = hosts(&mut table, "host");
        let paths = recognition::paths(&mut table, "path").lowered();
        if !stated {
            let what = "is missing: which requests are for this app?";
            table.missing("path", what, "path = [\"/wiki/**\"], or host = [\"wiki.example.com\"]");
        }
        let login_url = table.text("login_url");
        let login_url = own_path(&table, "login_url", login_url);
        let app_logout = enforcement::app_logout(&mut table);
        let probe = probe::probe(&mut table);
        let rules = recognition::rules(&mut table, context, probe.is_some());
        super::probe_named(&table, &rules, probe.is_some(), "probe");
        let folder = self_service::of_scope(&mut table, &paths, own_pages);
        let (own, logout) = (folder.as_deref(), app_logout.as_ref());
        self_service::check(&table, own, &rules, login_url.as_deref(), logout, probe.as_ref());
        table.finish();
        scopes.push(Scope {
            app: format!("{app}/{name}"),
            name,
            hosts,
            paths,
            rules,
            login_url,
            app_logout,
            probe,
            self_service: folder,
        });
    }
    scopes
}

fn name(table: &mut Table<'_>, before: &[Scope]) -> String {
    let Some(At { value, at }) = table.text("name") else {
        let what = "is missing: what are its users called by?";
        table.missing("name", what, "name = \"wiki\": its users are then \"wiki/alice\"");
        return String::new();
    };
    if !super::is_plain_name(&value) {
        let allowed = "1 to 64 letters, digits, `-`, `_` or `.`";
        table.wrong("name", &at, "cannot be a name", allowed);
    } else if before.iter().any(|scope| scope.name == value) {
        table.wrong("name", &at, "is given twice", "a name of its own for each scope");
    }
    value
}

pub(super) fn hosts(table: &mut Table<'_>, key: &'static str) -> Patterns {
    let written = table.texts(key);
    for At { value, at } in &written {
        let plain = value.strip_prefix('!').unwrap_or(value);
        let fine = |c: char| c.is_ascii_alphanumeric() || "-._*?[]:".contains(c);
        let port = plain.rsplit_once(':').is_some_and(|(_, port)| {
            !plain.ends_with(']') && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        if plain.is_empty() || !plain.chars().all(fine) || port {
            let allowed = "the name of a host without a port, like \"wiki.example.com\" or \
                           \"*.example.com\"";
            table.wrong(key, at, "does not name a host", allowed);
        }
    }
    Patterns::new(written.iter().map(|at| at.value.as_str()), Glob::name).lowered()
}
