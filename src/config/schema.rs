//! Which tables there are and what belongs to which settings. Each part has its keys and defaults
//! in a file of its own; the contradictions between parts are found here.

mod clients;
mod enforcement;
mod groups;
mod operation;
mod pages;
mod policy;
mod probe;
mod recognition;
mod scope;
mod self_service;
mod server;
mod store;
mod strictness;
mod tls;
mod upstream;

use std::path::Path;

use crate::rules::RuleSet;
use crate::rules::expression::{Expression, Place as Source};
use crate::settings::Settings;

use super::diagnostic::Problems;
use super::reader::{At, Table};
use super::tree::{Entries, Environment};

/// What is known beside the text.
pub(super) struct Context<'c> {
    /// Paths are relative to it.
    pub(super) folder: &'c Path,
    pub(super) env: Environment<'c>,
    /// `false`: the preset that was asked for is missing, and so are its rules.
    pub(super) preset_known: bool,
}

/// Reads everything. Where problems were found the settings are not to be used.
pub(super) fn settings(entries: Entries, problems: &Problems, context: &Context<'_>) -> Settings {
    let mut root = Table::root(entries, problems);
    let server = server::server(&mut root, context);
    let upstream = upstream::upstream(&mut root, &server.listen, context);
    let (app, preset) = app(&mut root);
    let identity = policy::identity(&mut root, !server.trusted_proxies.is_empty());
    let rules = recognition::rules(&mut root, context, identity.probe.is_some());
    let self_service = self_service::self_service(&mut root);
    let scopes = scope::scopes(&mut root, &app, self_service.as_deref(), context);
    probe_named(&root, &rules, identity.probe.is_some(), "identity.probe");
    let has_probe = identity.probe.is_some() || scopes.iter().any(|scope| scope.probe.is_some());
    let (session, timeouts, client_change) = policy::session(&mut root, has_probe);
    let (limits, switches) = policy::limit(&mut root, &identity, &timeouts);
    let (enforcement, mode) = enforcement::enforcement(&mut root);
    let pages = pages::pages(&mut root, context);
    let retention = operation::history(&mut root);
    let store = store::store(&mut root, context, switches.strict);
    let admin = operation::admin(&mut root, context, &server.listen, &identity);
    let log = operation::log(&mut root);
    let (login_url, app_logout) =
        (enforcement.login_url.as_deref(), enforcement.app_logout.as_ref());
    let probe = identity.probe.as_ref();
    self_service::check(&root, self_service.as_deref(), &rules, login_url, app_logout, probe);
    let geo_database = operation::geo(&mut root, context);
    let has_places = geo_database.is_some();
    let client_change = client_change.checked(problems, log.client_address, has_places);
    root.later(&[("notify", "the audit events in the log; webhooks come with a later version")]);
    root.finish();
    let mut settings = Settings {
        fingerprint: String::new(),
        written: "".into(),
        unsafe_keys: Vec::new(),
        server,
        upstream,
        app,
        preset,
        rules,
        scopes,
        self_service,
        session: session.into_settings(retention, client_change),
        normalize: identity.normalize,
        aliases: identity.aliases,
        groups: identity.groups.unwrap_or_default(),
        probe: identity.probe,
        limits,
        switches: switches.with(mode),
        enforcement,
        pages,
        store,
        admin,
        log,
        geo_database,
    };
    settings.unsafe_keys = strictness::unsafe_keys(&settings);
    settings
}

/// `probe:` yields nothing without `[identity.probe]`.
fn probe_named(table: &Table<'_>, rules: &RuleSet, has_probe: bool, key: &str) {
    let asks = |expression: &Expression| expression.place == Source::Probe;
    if !has_probe && rules.all().any(|rule| rule.user.iter().any(asks)) {
        let what = "is missing: `probe:` is whom the app names when asked";
        table.missing(key, what, "a table with `path`, `user` and `anonymous`");
    }
}

/// `[app]`.
fn app(root: &mut Table<'_>) -> (String, Option<String>) {
    let mut app = root.table("app");
    let name = app.text("name");
    if let Some(At { value, at }) = &name
        && !is_plain_name(value)
    {
        let allowed =
            "1 to 64 letters, digits, `-`, `_` or `.`; replicas of one app share the name";
        app.wrong("name", at, "cannot be a name", allowed);
    }
    let preset = app.text("preset").map(|preset| preset.value);
    app.finish();
    (name.map_or_else(|| "default".to_owned(), |name| name.value), preset)
}

/// Whether it can stand in logs, metrics and keys as it is.
fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Complains unless it is a path on the app's origin: exactly one `/` in front, so that no browser
/// takes it for another host.
fn own_path(table: &Table<'_>, key: &'static str, path: Option<At<String>>) -> Option<String> {
    let At { value, at } = path?;
    let fine = value.starts_with('/')
        && !value.starts_with("//")
        && !value.contains('\\')
        && value.chars().all(|c| c.is_ascii_graphic());
    if fine {
        return Some(value);
    }
    let allowed = "a path on the app, like \"/login/\": one `/` in front, no `\\`, no spaces; \
                   what is not ASCII percent-encoded";
    table.wrong(key, &at, "is not a path on the app", allowed);
    None
}
