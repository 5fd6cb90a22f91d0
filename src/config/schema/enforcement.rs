//! Keys and defaults of `[enforcement]`: what an ended session gets, and how it is logged out at the
//! app.

use crate::session::Mode;
use crate::settings::{AppLogout, Csrf, EnforcementSettings, OnEnded};

use super::super::reader::{At, Table};
use super::super::tree::{Node, Value};
use super::recognition::{is_header_name, method, paths};

/// `[enforcement]`.
pub(super) fn enforcement(root: &mut Table<'_>) -> (EnforcementSettings, Mode) {
    let mut table = root.table("enforcement");
    let mode = table.choice(
        "mode",
        Mode::Enforce,
        &[("enforce", Mode::Enforce), ("observe", Mode::Observe)],
        &[],
    );
    let answers = [
        ("page", OnEnded::Page),
        ("redirect", OnEnded::Redirect),
        ("anonymous", OnEnded::Anonymous),
    ];
    let on_ended = table.choice_if_any("on_ended", &answers, &[]);
    let stated = table.has("login_url");
    let login_url = table.text("login_url");
    let login_url = super::own_path(&table, "login_url", login_url);
    if let Some(At { value: OnEnded::Redirect, at }) = &on_ended
        && !stated
    {
        let what = "= \"redirect\" needs `login_url`: where to?";
        table.wrong("on_ended", at, what, "`login_url = \"/login/\"` beside it, or \"page\"");
    }
    let settings = EnforcementSettings {
        on_ended: on_ended.map_or(OnEnded::Page, |at| at.value),
        login_url,
        app_logout: app_logout(&mut table),
        exempt_paths: paths(&mut table, "exempt_paths"),
    };
    table.finish();
    (settings, mode)
}

pub(super) fn app_logout(table: &mut Table<'_>) -> Option<AppLogout> {
    let node = table.take("app_logout")?;
    if matches!(&node.value, Value::Text(text) if text == "none") {
        return None;
    }
    let allowed = "{ method = \"POST\", path = \"/logout/\", csrf = \"django\" }, or \"none\"";
    let mut logout = table.open("app_logout", node, allowed)?;
    let written = logout.text("method");
    let method = method(&logout, "method", written.as_ref());
    if !logout.has("path") {
        logout.missing("path", "is missing", allowed);
    }
    let path = logout.text("path");
    let path = super::own_path(&logout, "path", path);
    let csrf = logout.take("csrf").and_then(|node| csrf(&logout, node));
    logout.finish();
    Some(AppLogout { method: method.unwrap_or_else(|| "POST".to_owned()), path: path?, csrf })
}

fn csrf(logout: &Table<'_>, node: Node) -> Option<Csrf> {
    let allowed = "\"django\", \"none\", or { cookie = \"NAME\", header = \"NAME\" }";
    match &node.value {
        Value::Text(text) if text == "django" => {
            return Some(Csrf { cookie: "csrftoken".to_owned(), header: "X-CSRFToken".to_owned() });
        }
        Value::Text(text) if text == "none" => return None,
        _ => {}
    }
    let mut table = logout.open("csrf", node, allowed)?;
    let mut name = |key| {
        if !table.has(key) {
            table.missing(key, "is missing", allowed);
        }
        let At { value, at } = table.text(key)?;
        if !is_header_name(&value) {
            table.wrong(key, &at, "cannot be a name", "letters, digits and `-`, `_`, `.`");
        }
        Some(value)
    };
    let (cookie, header) = (name("cookie"), name("header"));
    table.finish();
    Some(Csrf { cookie: cookie?, header: header? })
}
