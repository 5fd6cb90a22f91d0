//! The login: which request it is, and what its answer has that a wrong password's has not.

use crate::rules::matcher::{Glob, Patterns};

use super::Confidence;
use super::naming;
use super::recording::{Exchange, Phase, Recording};

/// The login requests that worked, and those that did not.
pub struct LoginExchanges<'a> {
    pub good: Vec<&'a Exchange>,
    pub bad: Vec<&'a Exchange>,
    /// Another form that followed within the login.
    pub followed_by: Option<String>,
}

/// `[[login]]` as found.
#[derive(Debug)]
pub struct Login {
    pub method: String,
    pub path: String,
    /// The page with the form.
    pub page: Option<String>,
    /// The name field.
    pub field: Option<String>,
    pub user: Vec<String>,
    pub user_sure: Confidence,
    pub success: Success,
    /// A failure was recorded.
    pub failed: bool,
    /// No recorded failure passes for a success.
    pub separated: bool,
    pub followed_by: Option<String>,
    /// Failures are led back to the page that the request names, which can be any.
    pub leads_back: bool,
    /// Who is signed in already is led away from the page with the form.
    pub guests_only: bool,
}

/// `success` as found.
#[derive(Debug, Default)]
pub struct Success {
    pub status: Vec<u16>,
    pub location: Vec<String>,
    /// The same for Location without its query.
    pub landing: Vec<String>,
    pub sets: Vec<String>,
    /// Expression and pattern.
    pub is: Vec<(String, String)>,
}

/// Finds them: requests that carry the name or a password. Of several in a phase the last counts,
/// since the operator may have mistyped.
pub fn exchanges<'a>(recording: &'a Recording, user: Option<&str>) -> Option<LoginExchanges<'a>> {
    let last = |phase| recording.in_phase(phase).filter(|sent| is_login(sent, user)).last();
    let login = last(Phase::Login)?;
    let same = |other: &&Exchange| {
        other.method == login.method && other.path() == login.path() && is_login(other, user)
    };
    let mut good = vec![login];
    good.extend(recording.in_phase(Phase::SecondLogin).filter(same).last());
    let bad = recording.in_phase(Phase::WrongPassword).filter(same).collect();
    let after = recording.in_phase(Phase::Login).skip_while(|other| !std::ptr::eq(*other, login));
    let followed_by = after.skip(1).find(|next| next.method == "POST" && second_factor(next));
    Some(LoginExchanges { good, bad, followed_by: followed_by.map(Exchange::path) })
}

fn is_login(sent: &Exchange, user: Option<&str>) -> bool {
    let fields = sent.named_fields();
    let secret = fields.iter().any(|(field, value)| naming::is_secret(field) && !value.is_empty());
    if sent.is_safe() {
        return false;
    }
    secret || (user.is_some() && naming::in_request(sent, user).is_some())
}

fn second_factor(sent: &Exchange) -> bool {
    let words = ["code", "otp", "factor", "2fa", "mfa", "challenge"];
    let has = |text: &str| words.iter().any(|word| text.to_ascii_lowercase().contains(word));
    has(&sent.path()) || sent.named_fields().iter().any(|(field, _)| has(field))
}

/// Describes the login as a rule.
pub fn describe(login: &LoginExchanges<'_>, user: Option<&str>, credentials: &[String]) -> Login {
    let first = login.good[0];
    let field = naming::in_request(first, user);
    let answers = user.map(|user| from_answers(login, user, credentials)).unwrap_or_default();
    let mut success = Success {
        status: statuses(&login.good),
        sets: common_sets(&login.good, credentials),
        ..Success::default()
    };
    let (user_sure, mut from) = match (&answers[..], &field) {
        ([first, ..], _) => (Confidence::Sure, vec![first.clone()]),
        ([], Some(field)) if user.is_some() => (Confidence::Sure, vec![field.clone()]),
        ([], Some(field)) => (Confidence::Guess, vec![field.clone()]),
        ([], None) => (Confidence::Guess, Vec::new()),
    };
    if let Some(named) = answers.first() {
        // Only a success names somebody.
        success.is.push((named.clone(), "?*".to_owned()));
        from.truncate(1);
    }
    if success.is.is_empty() && login.bad.iter().any(|bad| success.status.contains(&bad.status)) {
        success.is.extend(json_difference(login));
    }
    (success.location, success.landing) = locations(login);
    let separated = login.bad.iter().all(|bad| !passes(&success, bad));
    Login {
        method: first.method.clone(),
        path: first.path(),
        page: page(first),
        field,
        user: from,
        user_sure,
        success,
        failed: !login.bad.is_empty(),
        separated,
        followed_by: login.followed_by.clone(),
        leads_back: page(first).is_some() && login.bad.iter().any(|bad| leads_back(bad)),
        guests_only: false,
    }
}

/// Whether the answer leads to where the request says that it comes from.
fn leads_back(sent: &Exchange) -> bool {
    let referer = sent.headers.get(http::header::REFERER).and_then(|from| from.to_str().ok());
    sent.location().is_some_and(|to| to.starts_with("http") && Some(to) == referer)
}

/// The page the form was on: its address, if the browser named it.
fn page(login: &Exchange) -> Option<String> {
    let referer = login.headers.get(http::header::REFERER)?.to_str().ok()?;
    let path = referer.parse::<http::Uri>().ok()?.path().to_owned();
    (path.starts_with('/') && path.len() > 1).then_some(path)
}

/// Expressions that yield the name in every good answer and in no bad one.
fn from_answers(login: &LoginExchanges<'_>, user: &str, credentials: &[String]) -> Vec<String> {
    let of = |answer: &&Exchange| naming::in_answer(answer, user, credentials);
    let mut common = of(&login.good[0]);
    for answer in &login.good[1..] {
        let other = of(answer);
        common.retain(|expression| other.contains(expression));
    }
    for answer in &login.bad {
        let other = of(answer);
        common.retain(|expression| !other.contains(expression));
    }
    common
}

fn statuses(good: &[&Exchange]) -> Vec<u16> {
    let mut statuses: Vec<u16> = good.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// Credentials that every good answer sets.
fn common_sets(good: &[&Exchange], credentials: &[String]) -> Vec<String> {
    let sets = |answer: &Exchange, name: &str| answer.sets().iter().any(|(set, ..)| set == name);
    let common = credentials.iter().filter(|name| good.iter().all(|answer| sets(answer, name)));
    common.cloned().collect()
}

/// What Location must not be, with its query and without: where failures lead to. Without a failure
/// to compare with, the login page itself.
fn locations(login: &LoginExchanges<'_>) -> (Vec<String>, Vec<String>) {
    let good: Vec<String> = login.good.iter().filter_map(|answer| landing(answer)).collect();
    let (mut whole, mut paths) = (Vec::new(), Vec::new());
    if good.len() < login.good.len() {
        return (whole, paths);
    }
    let bad: Vec<String> = match &login.bad[..] {
        [] => vec![login.good[0].path()],
        bad => bad.iter().filter_map(|answer| landing(answer)).collect(),
    };
    let raw = login.good.iter().filter_map(|answer| answer.location()).map(path_of);
    let reached: Vec<&str> = good.iter().map(|good| path_of(good)).chain(raw).collect();
    for bad in &bad {
        let (path, query) = (path_of(bad), bad.split_once('?').map_or("", |(_, query)| query));
        if good.iter().any(|good| path_of(good) == path) {
            // The same page says which it was in its query.
            let key = query.split('&').filter_map(|pair| pair.split('=').next()).find(|key| {
                !key.is_empty() && good.iter().all(|good| !good.contains(&format!("{key}=")))
            });
            whole.extend(key.map(|key| format!("!*{key}=*")));
            continue;
        }
        paths.push(format!("!{path}"));
        if path.starts_with('/') && path != "/" {
            // Whatever name the app is reached by.
            paths.push(format!("!http*://*{path}"));
        }
    }
    let fits = |pattern: &str| {
        let glob = Glob::name(&pattern[1..]);
        reached.iter().any(|good| glob.matches(good))
    };
    paths.retain(|pattern| !fits(pattern));
    for patterns in [&mut whole, &mut paths] {
        patterns.sort_unstable();
        patterns.dedup();
    }
    (whole, paths)
}

/// Location, from the root if it leads to the app itself: apps that name themselves in full name
/// whatever they were reached by.
fn landing(answer: &Exchange) -> Option<String> {
    let location = answer.location()?;
    let host = answer.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let rest = location.strip_prefix("http://").or_else(|| location.strip_prefix("https://"));
    match rest.zip(host).and_then(|(rest, host)| rest.strip_prefix(host)) {
        Some("") => Some("/".to_owned()),
        Some(rest) if rest.starts_with(['/', '?', '#']) => Some(rest.to_owned()),
        _ => Some(location.to_owned()),
    }
}

fn path_of(location: &str) -> &str {
    location.split(['?', '#']).next().unwrap_or_default()
}

/// What a success's JSON has that a failure's has not: a member, or another truth value or number.
fn json_difference(login: &LoginExchanges<'_>) -> Option<(String, String)> {
    let good: Vec<_> = login.good.iter().map(|answer| answer.json()).collect();
    let bad: Vec<_> = login.bad.iter().map(|answer| answer.json()).collect();
    let value = |members: &[(String, String)], at: &str| {
        members.iter().find(|(known, _)| known == at).map(|(_, value)| value.clone())
    };
    let first = good.first()?;
    // A value is written down only if it can be no secret.
    let plain = |value: &str| matches!(value, "true" | "false" | "0" | "1" | "ok" | "success");
    let same = first.iter().find(|(at, wanted)| {
        plain(wanted)
            && good.iter().all(|members| value(members, at).as_deref() == Some(wanted))
            && bad.iter().all(|members| value(members, at).as_deref() != Some(wanted))
    });
    if let Some((at, wanted)) = same {
        return Some((format!("rjson:{at}"), wanted.clone()));
    }
    let only = first.iter().find(|(at, wanted)| {
        !wanted.is_empty()
            && good.iter().all(|members| value(members, at).is_some_and(|it| !it.is_empty()))
            && bad.iter().all(|members| value(members, at).is_none_or(|it| it.is_empty()))
    });
    only.map(|(at, _)| (format!("rjson:{at}"), "?*".to_owned()))
}

/// Whether a failure would pass for a success.
fn passes(success: &Success, bad: &Exchange) -> bool {
    let patterns = |list: &[String]| Patterns::new(list.iter().map(String::as_str), Glob::name);
    let (location, landing) = (patterns(&success.location), patterns(&success.landing));
    let sets = bad.sets();
    // `is` holds only what no failure has.
    success.is.is_empty()
        && success.status.contains(&bad.status)
        && (success.location.is_empty() || location.matches_option(bad.location()))
        && (success.landing.is_empty() || landing.matches_option(bad.location().map(path_of)))
        && success.sets.iter().all(|name| sets.iter().any(|(set, ..)| set == name))
}
