//! Keys and defaults of `[identity]`, `[session]` and `[limit]`, and what of them
//! contradicts each other.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity;
use crate::policy::{EvictOrder, GroupLimits, Limit, Limits, OnLimit, OnPasswordChange, Switches};
use crate::rules::matcher::Glob;
use crate::session::Mode;
use crate::settings::{
    Binding, ClientChange, GroupSources, Normalize, Probe, SessionSettings, Unattributed,
    Untracked, UrlIds,
};
use crate::store::Retention;

use super::super::diagnostic::Place;
use super::super::reader::{At, Range, Table};
use super::super::tree::Value;
use super::super::units::duration_text;
use super::clients;
use super::groups;
use super::recognition::paths;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 86_400 * SECOND;
/// What a session timeout may be.
const LIFE: Range = SECOND..=3_650 * DAY;

/// `[identity]`.
pub(super) struct Identity {
    pub(super) normalize: Normalize,
    pub(super) aliases: HashMap<String, String>,
    pub(super) probe: Option<Probe>,
    /// `None`: no source of them is given.
    pub(super) groups: Option<GroupSources>,
}

/// `proxied`: there are trusted proxies, who may say of a client what they know.
pub(super) fn identity(root: &mut Table<'_>, proxied: bool) -> Identity {
    let mut table = root.table("identity");
    let mut normalize = Normalize { trim: true, nfkc: true, casefold: true };
    if table.has("normalize") {
        normalize = Normalize { trim: false, nfkc: false, casefold: false };
        for At { value, at } in table.texts("normalize") {
            match value.as_str() {
                "trim" => normalize.trim = true,
                "nfkc" => normalize.nfkc = true,
                "casefold" => normalize.casefold = true,
                _ => {
                    let allowed = "any of \"trim\", \"nfkc\", \"casefold\"; [] for none";
                    table.wrong("normalize", &at, "is not a step of normalisation", allowed);
                }
            }
        }
    }
    let aliases = aliases(&mut table, normalize);
    let probe = super::probe::probe(&mut table);
    let has_probe = probe.is_some() || root.has_some("scope");
    let groups = groups::sources(&mut table, proxied, has_probe);
    table.finish();
    Identity { normalize, aliases, probe, groups }
}

fn aliases(table: &mut Table<'_>, normalize: Normalize) -> HashMap<String, String> {
    let mut aliases: HashMap<String, String> = HashMap::new();
    let mut targets = Vec::new();
    for (alias, node) in table.pairs("aliases") {
        let Some(target) = table.to_text("aliases", node) else { continue };
        let (from, to) = (
            identity::normalize(&normalize, &alias.value),
            identity::normalize(&normalize, &target.value),
        );
        if from.is_empty() || to.is_empty() {
            table.wrong(
                "aliases",
                &alias.at,
                "has an empty name",
                "\"other name\" = \"user name\"",
            );
        } else if from != to && aliases.insert(from, to.clone()).is_some_and(|before| before != to)
        {
            let what = "gives two users to one name (in its normalised form)";
            table.wrong("aliases", &alias.at, what, "each other name once");
        } else {
            targets.push((to, target.at));
        }
    }
    for (to, at) in targets {
        if aliases.contains_key(&to) {
            let what = "stands for a name that is an alias itself";
            table.wrong("aliases", &at, what, "the user name that both stand for");
        }
    }
    aliases
}

/// With a probe the default is to use it.
fn untracked(table: &mut Table<'_>, has_probe: bool) -> Untracked {
    let words =
        [("pass", Untracked::Pass), ("probe", Untracked::Probe), ("refuse", Untracked::Refuse)];
    let default = if has_probe { Untracked::Probe } else { Untracked::Pass };
    match table.choice_if_any("untracked", &words, &[]) {
        Some(At { value: Untracked::Probe, at }) if !has_probe => {
            let allowed =
                "[identity.probe] with `path`, `user` and `anonymous`, or \"pass\" or \"refuse\"";
            table.wrong("untracked", &at, "= \"probe\" needs a probe: whom to ask?", allowed);
            default
        }
        Some(At { value, .. }) => value,
        None => default,
    }
}

/// `[session]` but for what `[history]` and `[session.client_change]` say.
pub(super) struct Session(SessionSettings);

impl Session {
    pub(super) fn into_settings(
        self,
        retention: Retention,
        client_change: Option<ClientChange>,
    ) -> SessionSettings {
        SessionSettings { retention, client_change, ..self.0 }
    }
}

/// The timeouts of the default limit; they stand in `[session]`.
pub(super) struct Timeouts {
    idle: Option<At<Option<u64>>>,
    absolute: Option<At<Option<u64>>>,
}

pub(super) fn session(
    root: &mut Table<'_>,
    has_probe: bool,
) -> (Session, Timeouts, clients::Written) {
    let mut table = root.table("session");
    let client_change = clients::client_change(&mut table);
    let unattributed = [("pass", Unattributed::Pass), ("refuse", Unattributed::Refuse)];
    let url_ids = [("strip", UrlIds::Strip), ("pass", UrlIds::Pass)];
    let bindings = [("signed", Binding::Signed), ("value", Binding::Value)];
    let settings = SessionSettings {
        binding: table.choice("binding", Binding::Signed, &bindings, &[]),
        untracked: untracked(&mut table, has_probe),
        unattributed: table.choice("unattributed", Unattributed::Refuse, &unattributed, &[]),
        url_ids: table.choice("url_ids", UrlIds::Strip, &url_ids, &[]),
        client_change: None,
        idle_ignore_paths: paths(&mut table, "idle_ignore_paths"),
        rotation_grace_ms: to_i64(table.duration("rotation_grace", 10 * SECOND, 0..=10 * MINUTE)),
        step_timeout_ms: to_i64(table.duration("step_timeout", 10 * MINUTE, 100..=DAY)),
        retention: Retention { history_ms: 0, history_per_user: 0, tombstones_ms: 0 },
        flush_interval_ms: table.duration("flush_interval", 5 * SECOND, 100..=5 * MINUTE),
        sweep_interval_ms: table.duration("sweep_interval", SECOND, 100..=5 * MINUTE),
    };
    let timeouts = Timeouts {
        idle: table.timeout("idle_timeout", LIFE),
        absolute: table.timeout("absolute_timeout", LIFE),
    };
    table.finish();
    (Session(settings), timeouts, client_change)
}

/// A limit as written; what is absent is inherited.
#[derive(Default)]
struct Written {
    max_sessions: Option<Option<u32>>,
    on_limit: Option<At<OnLimit>>,
    evict_order: Option<EvictOrder>,
    evict_if_idle_for: Option<At<u64>>,
    otherwise: Option<At<OnLimit>>,
    max_evictions: Option<Option<u32>>,
    evictions_window: Option<u64>,
    idle_timeout: Option<At<Option<u64>>>,
    absolute_timeout: Option<At<Option<u64>>>,
}

impl Written {
    fn read(table: &mut Table<'_>) -> Self {
        let on_limit = [("evict", OnLimit::Evict), ("deny", OnLimit::Deny)];
        let orders = [
            ("least_recently_used", EvictOrder::LeastRecentlyUsed),
            ("oldest_login", EvictOrder::OldestLogin),
            ("all_others", EvictOrder::AllOthers),
        ];
        Self {
            max_sessions: max_sessions(table),
            max_evictions: max_evictions(table),
            evictions_window: table
                .duration_at("evictions_window", SECOND..=DAY)
                .map(|at| at.value),
            on_limit: table.choice_if_any("on_limit", &on_limit, &["ask"]),
            evict_order: table.choice_if_any("evict_order", &orders, &[]).map(|at| at.value),
            evict_if_idle_for: table.duration_at("evict_if_idle_for", LIFE),
            otherwise: table.choice_if_any("otherwise", &[("deny", OnLimit::Deny)], &["ask"]),
            ..Self::default()
        }
    }

    /// Of what is not for everybody; the timeouts of all stand in `[session]`.
    fn of_some(table: &mut Table<'_>) -> Self {
        let written = Self::read(table);
        Self {
            idle_timeout: table.timeout("idle_timeout", LIFE),
            absolute_timeout: table.timeout("absolute_timeout", LIFE),
            ..written
        }
    }

    fn over(&self, base: &Limit) -> Limit {
        let on_limit = self.on_limit.as_ref().map_or(base.on_limit, |at| at.value);
        let own = self.evict_if_idle_for.as_ref().map(|at| to_i64(at.value));
        let timeout = |own: &Option<At<Option<u64>>>, base: Option<i64>| match own {
            Some(at) => at.value.map(to_i64),
            None => base,
        };
        Limit {
            max_sessions: self.max_sessions.unwrap_or(base.max_sessions),
            on_limit,
            evict_order: self.evict_order.unwrap_or(base.evict_order),
            evict_if_idle_for_ms: own
                .or(base.evict_if_idle_for_ms)
                .filter(|_| on_limit == OnLimit::Evict),
            otherwise: OnLimit::Deny,
            evictions_max: self.max_evictions.unwrap_or(base.evictions_max),
            evictions_window_ms: self.evictions_window.map_or(base.evictions_window_ms, to_i64),
            idle_timeout_ms: timeout(&self.idle_timeout, base.idle_timeout_ms),
            absolute_timeout_ms: timeout(&self.absolute_timeout, base.absolute_timeout_ms),
        }
    }

    /// Complains about what contradicts itself in the limit that comes out.
    fn check(&self, table: &Table<'_>, limit: &Limit) {
        let own = self.evict_if_idle_for.as_ref();
        if let Some(at) = own
            && limit.on_limit == OnLimit::Deny
        {
            let what = "has no effect: with `on_limit = \"deny\"` nobody is evicted";
            table.wrong("evict_if_idle_for", &at.at, what, "one of the two");
        }
        if let Some(at) = &self.otherwise
            && limit.evict_if_idle_for_ms.is_none()
        {
            let what = "has no effect without `evict_if_idle_for`";
            table.wrong("otherwise", &at.at, what, "both, or on_limit = \"deny\"");
        }
        let place = self.place().unwrap_or(&table.at);
        let denies = limit.on_limit == OnLimit::Deny || limit.evict_if_idle_for_ms.is_some();
        match (limit.idle_timeout_ms, limit.evict_if_idle_for_ms) {
            (None, _) if denies && limit.max_sessions.is_some() => table.problems.wrong(
                place,
                "refusing logins needs an idle timeout: who closed the browser without logging \
                 out would be locked out for good",
                "`idle_timeout` as a duration, like \"30m\", or `on_limit = \"evict\"`",
            ),
            (Some(idle), Some(wait)) if wait >= idle => table.problems.wrong(
                place,
                format!(
                    "`evict_if_idle_for` never comes true: a session idle for {} has ended",
                    duration_text(u64::try_from(idle).unwrap_or(0))
                ),
                "`evict_if_idle_for` shorter than `idle_timeout`",
            ),
            _ => {}
        }
    }

    /// The value that a contradiction is best shown at.
    fn place(&self) -> Option<&Place> {
        let idle = self.idle_timeout.as_ref().filter(|at| at.value.is_none());
        idle.map(|at| &at.at)
            .or(self.evict_if_idle_for.as_ref().map(|at| &at.at))
            .or(self.on_limit.as_ref().map(|at| &at.at))
            .or(self.idle_timeout.as_ref().map(|at| &at.at))
    }
}

fn max_sessions(table: &mut Table<'_>) -> Option<Option<u32>> {
    let node = table.take("max_sessions")?;
    let allowed = "a whole number from 1, or \"unlimited\"";
    if matches!(&node.value, Value::Text(text) if text == "unlimited") {
        return Some(None);
    }
    let number = node.value.integer().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(0) => {
            let what = "= 0 would let nobody in, and does not mean unlimited either";
            table.wrong("max_sessions", &node.at, what, allowed);
        }
        Some(number) => return Some(Some(number)),
        None => table.wrong("max_sessions", &node.at, "is not a number of sessions", allowed),
    }
    Some(None)
}

fn max_evictions(table: &mut Table<'_>) -> Option<Option<u32>> {
    let node = table.take("max_evictions")?;
    if matches!(&node.value, Value::Text(text) if text == "unlimited") {
        return Some(None);
    }
    // No more are remembered.
    let number = node.value.integer().and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| (1..=1_000).contains(number));
    if number.is_none() {
        let allowed = "a whole number from 1 to 1000, or \"unlimited\"";
        table.wrong("max_evictions", &node.at, "is not a number of evictions", allowed);
    }
    Some(number)
}

/// `[limit]` but for the mode, which stands in `[enforcement]`.
pub(super) struct LimitSwitches {
    /// An end is answered only when every replica knows.
    pub(super) strict: bool,
    logout_all: bool,
    password_change: OnPasswordChange,
}

impl LimitSwitches {
    pub(super) fn with(self, mode: Mode) -> Switches {
        Switches { mode, logout_all: self.logout_all, password_change: self.password_change }
    }
}

/// `[limit]` and its overrides.
pub(super) fn limit(
    root: &mut Table<'_>,
    identity: &Identity,
    timeouts: &Timeouts,
) -> (Limits, LimitSwitches) {
    let mut table = root.table("limit");
    if !table.has("max_sessions") {
        let what = "is missing: how many sessions a user may have has no default, as any would be \
                    wrong for someone";
        table.missing("max_sessions", what, "[limit] max_sessions = 1, or more, or \"unlimited\"");
    }
    let mut written = Written::read(&mut table);
    written.idle_timeout.clone_from(&timeouts.idle);
    written.absolute_timeout.clone_from(&timeouts.absolute);
    let default = Limit {
        max_sessions: None,
        on_limit: OnLimit::Evict,
        evict_order: EvictOrder::LeastRecentlyUsed,
        evict_if_idle_for_ms: None,
        otherwise: OnLimit::Deny,
        evictions_max: None,
        evictions_window_ms: to_i64(10 * MINUTE),
        idle_timeout_ms: Some(to_i64(30 * MINUTE)),
        absolute_timeout_ms: Some(to_i64(DAY / 2)),
    };
    let default = written.over(&default);
    written.check(&table, &default);
    let mut overrides: Vec<(Vec<Glob>, Arc<Limit>)> = Vec::new();
    for mut table in table.tables("override") {
        let users = users(&mut table, identity, &overrides);
        let written = Written::of_some(&mut table);
        let limit = written.over(&default);
        // What the default gets wrong has been told there.
        if limit != default {
            written.check(&table, &limit);
        }
        table.elsewhere(&["groups"], "[limit.group]");
        table.finish();
        overrides.push((users, Arc::new(limit)));
    }
    let groups = group_limits(&mut table, identity, &default);
    let changes = [
        ("end_others", OnPasswordChange::EndOthers),
        ("end_all", OnPasswordChange::EndAll),
        ("keep", OnPasswordChange::Keep),
    ];
    let switches = LimitSwitches {
        strict: table.choice("consistency", false, &[("bounded", false), ("strict", true)], &[]),
        logout_all: table.flag("logout_all", false),
        password_change: table.choice(
            "password_change",
            OnPasswordChange::EndOthers,
            &changes,
            &[],
        ),
    };
    table.elsewhere(&["groups"], "[limit.group]");
    table.elsewhere(&["idle_timeout", "absolute_timeout"], "session");
    table.elsewhere(&["mode"], "enforcement");
    table.finish();
    (Limits { default: Arc::new(default), overrides, groups: Arc::new(groups) }, switches)
}

/// `[[limit.group]]`.
fn group_limits(table: &mut Table<'_>, identity: &Identity, default: &Limit) -> GroupLimits {
    let mut limits: Vec<(Vec<Glob>, Arc<Limit>)> = Vec::new();
    for mut table in table.tables("group") {
        let patterns = groups::patterns(&mut table, identity, &limits);
        let written = Written::of_some(&mut table);
        let limit = written.over(default);
        if limit != *default {
            written.check(&table, &limit);
        }
        if limits.len() == GroupLimits::MAX {
            let most = format!("at most {} of them", GroupLimits::MAX);
            table.problem("there are too many `[[limit.group]]`", &most);
        }
        table.elsewhere(&["users"], "[limit.override]");
        table.finish();
        limits.push((patterns, Arc::new(limit)));
    }
    GroupLimits::new(limits)
}

/// Whom an override is for, in the form names are counted under.
fn users(
    table: &mut Table<'_>,
    identity: &Identity,
    before: &[(Vec<Glob>, Arc<Limit>)],
) -> Vec<Glob> {
    let allowed = "names, or patterns with `*` and `?`, like [\"admin\", \"*@ops.example.com\"]";
    if !table.has_some("users") {
        table.missing("users", "is missing: whom is it for?", allowed);
    }
    let mut users: Vec<Glob> = Vec::new();
    for At { value, at } in table.texts("users") {
        let name = identity::normalize(&identity.normalize, &value);
        let glob = Glob::name(&name);
        let earlier = before.iter().flat_map(|(users, _)| users).chain(&users);
        if name.is_empty() {
            table.wrong("users", &at, "has an empty name", allowed);
        } else if let Some(user) = identity.aliases.get(&name) {
            let what = "is an alias, and counted under the name it stands for";
            table.wrong("users", &at, what, &format!("the name itself, \"{user}\""));
        } else if earlier.into_iter().any(|known| *known == glob) {
            let what = "is given twice, and the first override that fits wins";
            table.wrong("users", &at, what, "each name or pattern once");
        }
        users.push(glob);
    }
    users
}

/// Durations are bounded far below.
fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
