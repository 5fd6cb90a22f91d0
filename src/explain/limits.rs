//! The limits, the exceptions from them and the timeouts, in sentences.

use std::fmt::Write as _;

use crate::policy::{EvictOrder, Limit, OnLimit};
use crate::rules::matcher::Glob;
use crate::settings::{GroupSources, Settings};

use super::words::{duration, paths, sessions, value_of};

/// What applies to everyone.
pub(super) fn limit(settings: &Settings) -> Vec<String> {
    let limit = &settings.limits.default;
    let mut sentences = vec![match limit.max_sessions {
        Some(max) => format!("A user has at most {} at once.", sessions(max)),
        None => "A user may have any number of sessions.".to_owned(),
    }];
    if limit.max_sessions.is_some() {
        sentences.push(over_limit(limit));
        sentences.extend(war(limit));
    }
    sentences.push(
        "Signing in again in the same browser as the same user does not add a session; signing in \
         there as somebody else ends the session that was there."
            .to_owned(),
    );
    sentences.push(names(settings));
    sentences
}

/// What a login over the limit leads to.
fn over_limit(limit: &Limit) -> String {
    if limit.on_limit == OnLimit::Deny {
        return "A login beyond that is refused, and the sessions before it stay.".to_owned();
    }
    let evicts = match limit.evict_order {
        EvictOrder::LeastRecentlyUsed => "ends the session that was used least recently",
        EvictOrder::OldestLogin => "ends the session with the oldest login",
        EvictOrder::AllOthers => "ends all other sessions of the user",
    };
    match limit.evict_if_idle_for_ms {
        None => format!("A login beyond that is let in and {evicts}."),
        Some(idle_ms) => format!(
            "A login beyond that {evicts}, but only what has been idle for {}; else the login is \
             refused.",
            duration(idle_ms)
        ),
    }
}

/// What ends a war of logins.
fn war(limit: &Limit) -> Option<String> {
    let max = limit.evictions_max.filter(|_| limit.on_limit == OnLimit::Evict)?;
    let window = duration(limit.evictions_window_ms);
    Some(format!(
        "After {max} evictions within {window} such logins are refused until fewer are left in that time."
    ))
}

fn names(settings: &Settings) -> String {
    let how = settings.normalize;
    let steps: Vec<&str> = [
        (how.trim, "blanks around it"),
        (how.nfkc, "the Unicode form (NFKC)"),
        (how.casefold, "upper and lower case"),
    ]
    .into_iter()
    .filter_map(|(on, what)| on.then_some(what))
    .collect();
    let mut sentence = match steps.split_last() {
        None => "User names are compared exactly as typed.".to_owned(),
        Some((last, [])) => format!("In a user name {last} makes no difference."),
        Some((last, rest)) => {
            format!("In a user name {} and {last} make no difference.", rest.join(", "))
        }
    };
    if !settings.aliases.is_empty() {
        let _ = write!(
            sentence,
            " {} other name{} counted under the user's own.",
            settings.aliases.len(),
            if settings.aliases.len() == 1 { " is" } else { "s are" }
        );
    }
    sentence
}

/// What applies to some instead.
pub(super) fn overrides(settings: &Settings) -> Vec<String> {
    let limits = &settings.limits;
    let named = limits
        .overrides
        .iter()
        .map(|(users, limit)| format!("{}: {}", quoted(users), exception(limit, &limits.default)));
    let mut sentences: Vec<String> = named.collect();
    if sentences.len() > 1 {
        sentences.push("The first of these that fits a user applies.".to_owned());
    }
    let groups = limits.groups.iter().map(|(groups, limit)| {
        format!("Who is in {}: {}", quoted(groups), exception(limit, &limits.default))
    });
    let groups: Vec<String> = groups.collect();
    let order = match (sentences.is_empty(), groups.len()) {
        (_, 0) | (true, 1) => None,
        (true, _) => Some("Who is in several of these groups has the strictest of their limits."),
        (false, _) => Some(
            "A limit by name goes before those of groups; who is in several of these groups has \
             the strictest of their limits.",
        ),
    };
    sentences.extend(groups);
    sentences.extend(order.map(str::to_owned));
    if !limits.groups.is_empty() {
        sentences.push(sources(settings));
    }
    sentences
}

fn quoted(patterns: &[Glob]) -> String {
    patterns.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ")
}

fn exception(limit: &Limit, default: &Limit) -> String {
    let mut sentence = match limit.max_sessions {
        Some(max) => format!("at most {}.", sessions(max)),
        None => "any number of sessions.".to_owned(),
    };
    let differs = limit.on_limit != default.on_limit
        || limit.evict_order != default.evict_order
        || limit.evict_if_idle_for_ms != default.evict_if_idle_for_ms
        || default.max_sessions.is_none();
    if limit.max_sessions.is_some() && differs {
        sentence.push(' ');
        sentence.push_str(&over_limit(limit));
    }
    if limit.idle_timeout_ms != default.idle_timeout_ms {
        sentence.push(' ');
        sentence.push_str(&idle(limit));
    }
    if limit.absolute_timeout_ms != default.absolute_timeout_ms {
        sentence.push(' ');
        sentence.push_str(&absolute(limit));
    }
    sentence
}

/// Who says which groups somebody is in.
fn sources(settings: &Settings) -> String {
    let GroupSources { login, probe, .. } = &settings.groups;
    let login = login.iter().map(value_of);
    let probe = probe.iter().map(|source| format!("{} of the probe", value_of(source)));
    let all: Vec<String> = login.chain(probe).collect();
    format!("The groups of a user are what each login finds in {}.", all.join(" and "))
}

fn idle(limit: &Limit) -> String {
    match limit.idle_timeout_ms {
        Some(idle_ms) => {
            format!("A session ends after {} without a request.", duration(idle_ms))
        }
        None => "A session does not end for being idle.".to_owned(),
    }
}

fn absolute(limit: &Limit) -> String {
    match limit.absolute_timeout_ms {
        Some(life_ms) => {
            format!("A session ends {} after login, however busy it is.", duration(life_ms))
        }
        None => "A session that is used may last without end.".to_owned(),
    }
}

/// When a session ends by itself.
pub(super) fn timeouts(settings: &Settings) -> Vec<String> {
    let limit = &settings.limits.default;
    let mut sentences = vec![idle(limit), absolute(limit)];
    let ignored = &settings.session.idle_ignore_paths;
    if !ignored.is_empty() {
        sentences
            .push(format!("Requests to {ignored} do not count as use.", ignored = paths(ignored)));
    }
    sentences
}
