//! Keys and defaults of `[identity.groups]`, and whom a `[[limit.group]]` is for.

use std::sync::Arc;

use crate::identity;
use crate::policy::Limit;
use crate::rules::expression::Place;
use crate::rules::matcher::Glob;
use crate::settings::GroupSources;

use super::super::reader::{At, Table};
use super::policy::Identity;
use super::recognition::{Side, expressions};

/// `[identity.groups]`. What only the client says of itself is no source: anybody would be in the group
/// with the highest limit.
pub(super) fn sources(
    identity: &mut Table<'_>,
    proxied: bool,
    has_probe: bool,
) -> Option<GroupSources> {
    let mut table = identity.table_if_any("groups")?;
    let written = table.positions("from");
    let login = expressions(&mut table, "from", Side::Either);
    for (expression, at) in login.iter().zip(&written) {
        let by_proxy = matches!(expression.place, Place::Header(_));
        if by_proxy && !proxied {
            let what = "is a header of the request, which anybody can send";
            let allowed = "server.trusted_proxies, whose headers are believed; or what the app \
                           answers: rjson:, rheader:, set:, rbody:";
            table.wrong("from", at, what, allowed);
        } else if !by_proxy && !expression.is_response() {
            let what = "is what the client says of itself";
            let allowed = "what the app answers (rjson:, rheader:, set:, rbody:), or a header: of \
                           a trusted proxy";
            table.wrong("from", at, what, allowed);
        }
    }
    let asked = table.has_some("probe");
    let probe = expressions(&mut table, "probe", Side::Asked);
    if asked && !has_probe {
        let what = "is about the answer to a probe, and there is none";
        table.missing("probe", what, "[identity.probe], or `from` alone");
    }
    if written.is_empty() && !asked {
        let allowed = "`from` (at logins), `probe` (in its answer), or both";
        table.problem("`identity.groups` says nothing of where the groups are", allowed);
    }
    let separator = table.text("separator");
    let character = separator.as_ref().map(|text| {
        let mut characters = text.value.chars();
        (characters.next(), characters.next())
    });
    let character = match character {
        None => ',',
        Some((Some(one), None)) => one,
        Some(_) => {
            if let Some(At { at, .. }) = &separator {
                table.wrong("separator", at, "is not one character", "one character, like \",\"");
            }
            ','
        }
    };
    table.finish();
    Some(GroupSources { login, probe, separator: character })
}

/// Whom a limit is for, in the form groups are compared in.
pub(super) fn patterns(
    table: &mut Table<'_>,
    identity: &Identity,
    before: &[(Vec<Glob>, Arc<Limit>)],
) -> Vec<Glob> {
    let allowed = "names, or patterns with `*` and `?`, like [\"staff\", \"contractors-*\"]";
    if !table.has_some("groups") {
        table.missing("groups", "is missing: whom is it for?", allowed);
    }
    let mut patterns: Vec<Glob> = Vec::new();
    for At { value, at } in table.texts("groups") {
        let glob = Glob::name(&identity::normalize(&identity.normalize, &value));
        let mut known = before.iter().flat_map(|(patterns, _)| patterns).chain(&patterns);
        if value.trim().is_empty() {
            table.wrong("groups", &at, "has an empty name", allowed);
        } else if identity.groups.is_none() {
            let what = "are known to nobody: no source of them is given";
            table.wrong("groups", &at, what, "[identity.groups]");
        } else if known.any(|known| *known == glob) {
            table.wrong("groups", &at, "is given twice", "each name or pattern once");
        }
        patterns.push(glob);
    }
    patterns
}
