//! Answer → outcome: what the app made of the request.

use http::HeaderMap;

use super::{Intent, LoginIntent, filtered, header};
use crate::inspect::AnswerText;
use crate::rules::expression::{Expression, Place};
use crate::rules::matcher::Patterns;
use crate::rules::{Negatable, Role, Rule, RuleSet, SuccessMatch};
use crate::set_cookie::{self, SetCookie};

/// What rules can see of an answer.
#[derive(Clone, Copy)]
pub struct AnswerFacts<'a> {
    pub status: u16,
    pub headers: &'a HeaderMap,
    pub cookies: &'a [SetCookie<'a>],
    pub body: AnswerBody<'a>,
}

/// As much of the answer's body as is known.
#[derive(Clone, Copy)]
pub enum AnswerBody<'a> {
    /// No rule needed it.
    Unread,
    /// Too large, or in an encoding nobody here reads: nothing is found in it, and nothing can be
    /// said to be missing from it.
    Unreadable,
    Read(&'a AnswerText),
}

impl<'a> AnswerBody<'a> {
    fn text(self) -> Option<&'a AnswerText> {
        match self {
            Self::Read(text) => Some(text),
            Self::Unread | Self::Unreadable => None,
        }
    }
}

impl<'a> AnswerFacts<'a> {
    pub(super) fn body_text(self) -> Option<&'a AnswerText> {
        self.body.text()
    }
}

/// What the answer turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    /// A login was tried and the app did not accept it. `user` as typed.
    LoginFailed {
        user: Option<String>,
    },
    /// `user` as found, not yet normalised; `None`: not found.
    LoggedIn {
        user: Option<String>,
        in_place: bool,
        tokens: Vec<Issued>,
        guests_only: bool,
    },
    /// A login was begun, but is not done. `user` as found.
    Stepped {
        user: Option<String>,
    },
    /// The session got new bearer tokens.
    Refreshed {
        tokens: Vec<Issued>,
    },
    PasswordChanged,
    LoggedOut,
}

/// A bearer token in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub role: Role,
    pub value: String,
}

/// Whether the body has to be read to tell the outcome: the rest of the answer leaves open whether
/// a rule that looks into it holds.
pub fn wants_body(rules: &RuleSet, intent: &Intent, facts: AnswerFacts<'_>) -> bool {
    for login in &intent.logins {
        let rule = &rules.logins[login.rule];
        if login_succeeded(rules, rule, intent, facts, Look::Past) {
            // Without a look into the body this is the outcome.
            return rule.reads_answer_body();
        }
    }
    let step = |step: &LoginIntent| &rules.steps[step.rule];
    if let Some(rule) =
        intent.steps.iter().map(step).find(|rule| other_succeeded(rule, intent, facts, Look::Past))
    {
        return rule.reads_answer_body();
    }
    let open = |rules: &[Rule], indices: &[usize]| {
        let rules = indices.iter().map(|at| &rules[*at]);
        let mut open = rules.filter(|rule| rule.reads_answer_body());
        open.any(|rule| other_succeeded(rule, intent, facts, Look::Past))
    };
    open(&rules.refreshes, &intent.refreshes)
        || open(&rules.password_changes, &intent.password_changes)
        || open(&rules.logouts, &intent.logouts)
}

/// Whether the rest of the answer looks like a login's, whatever stands in its body.
pub fn looks_like_login(rules: &RuleSet, intent: &Intent, facts: AnswerFacts<'_>) -> bool {
    intent
        .logins
        .iter()
        .any(|login| login_succeeded(rules, &rules.logins[login.rule], intent, facts, Look::Past))
}

/// What the answer to a watched request is: the first rule of a kind whose request and success both
/// hold; a login before a step before a refresh before a password change before a logout.
pub fn outcome(rules: &RuleSet, intent: &Intent, facts: AnswerFacts<'_>) -> Outcome {
    for login in &intent.logins {
        let rule = &rules.logins[login.rule];
        if login_succeeded(rules, rule, intent, facts, Look::Into) {
            return Outcome::LoggedIn {
                user: user_of(rule, login, facts),
                in_place: rule.in_place,
                tokens: issued(rule, facts),
                guests_only: rule.guests_only,
            };
        }
    }
    for step in &intent.steps {
        let rule = &rules.steps[step.rule];
        if other_succeeded(rule, intent, facts, Look::Into) {
            return Outcome::Stepped { user: user_of(rule, step, facts) };
        }
    }
    let mut refreshes = intent.refreshes.iter().map(|at| &rules.refreshes[*at]);
    if let Some(rule) = refreshes.find(|rule| other_succeeded(rule, intent, facts, Look::Into)) {
        return Outcome::Refreshed { tokens: issued(rule, facts) };
    }
    let succeeded = |rules: &[Rule], indices: &[usize]| {
        indices.iter().any(|at| other_succeeded(&rules[*at], intent, facts, Look::Into))
    };
    if succeeded(&rules.password_changes, &intent.password_changes) {
        return Outcome::PasswordChanged;
    }
    if succeeded(&rules.logouts, &intent.logouts) {
        return Outcome::LoggedOut;
    }
    match intent.logins.first().or(intent.steps.first()) {
        Some(login) => Outcome::LoginFailed { user: login.user.iter().flatten().next().cloned() },
        None => Outcome::Nothing,
    }
}

/// What is done about conditions on the body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// They are judged.
    Into,
    /// They are taken to hold.
    Past,
}

fn login_succeeded(
    rules: &RuleSet,
    rule: &Rule,
    intent: &Intent,
    facts: AnswerFacts<'_>,
    look: Look,
) -> bool {
    match &rule.success {
        Some(success) => matches(success, &intent.path, facts, look),
        None => login_by_default(rules, rule, &intent.path, facts, look),
    }
}

fn other_succeeded(rule: &Rule, intent: &Intent, facts: AnswerFacts<'_>, look: Look) -> bool {
    match &rule.success {
        Some(success) => matches(success, &intent.path, facts, look),
        None => (200..400).contains(&facts.status),
    }
}

fn user_of(rule: &Rule, login: &LoginIntent, facts: AnswerFacts<'_>) -> Option<String> {
    // `probe:` yields nothing here: nobody has asked yet.
    rule.user.iter().zip(&login.user).find_map(|(expression, from_request)| {
        if expression.is_response() {
            answer_value(expression, facts)
        } else {
            from_request.clone()
        }
    })
}

/// Whether the answer to a request for `path` is as described.
pub fn success_matches(wanted: &SuccessMatch, path: &str, facts: AnswerFacts<'_>) -> bool {
    matches(wanted, path, facts, Look::Into)
}

fn matches(wanted: &SuccessMatch, path: &str, facts: AnswerFacts<'_>, look: Look) -> bool {
    let location = header(facts.headers, "location");
    let leads_back = || location.as_deref().is_some_and(|location| leads_to(location, path));
    wanted.status.matches(facts.status)
        && (wanted.location.is_empty() || wanted.location.matches_option(location.as_deref()))
        && !(wanted.leads_elsewhere && leads_back())
        && all_hold(&wanted.sets, facts, false)
        && all_hold(&wanted.clears, facts, true)
        && wanted.is.iter().all(|(expression, patterns): &(Expression, Patterns)| {
            if expression.reads_response_body() && look == Look::Past {
                return true;
            }
            is_readable(expression, facts)
                && patterns.matches_option(answer_value(expression, facts).as_deref())
        })
}

/// Whether a value that is not found is truly absent. Of a body that could not be read, or is no
/// JSON, even "there is no error in it" cannot be said.
fn is_readable(expression: &Expression, facts: AnswerFacts<'_>) -> bool {
    match (&expression.place, facts.body) {
        (Place::ResponseJson(_), AnswerBody::Read(text)) => text.is_json(),
        (Place::ResponseText(_), AnswerBody::Read(_)) => true,
        _ => !expression.reads_response_body(),
    }
}

fn all_hold(wanted: &[Negatable], facts: AnswerFacts<'_>, deletes: bool) -> bool {
    wanted.iter().all(|cookie| {
        let found = set_cookie::effective(facts.cookies)
            .any(|set| set.deletes == deletes && cookie.name.matches(set.name));
        found != cookie.negated
    })
}

/// The bearer tokens that the answer holds where the rule says they stand.
fn issued(rule: &Rule, facts: AnswerFacts<'_>) -> Vec<Issued> {
    let found = |(role, expression): &(Role, Expression)| {
        Some(Issued { role: *role, value: answer_value(expression, facts)? })
    };
    rule.issues.iter().filter_map(found).collect()
}

/// 2xx or 3xx, a credential set, and a Location that is not the login path.
fn login_by_default(
    rules: &RuleSet,
    rule: &Rule,
    path: &str,
    facts: AnswerFacts<'_>,
    look: Look,
) -> bool {
    let issues = || match look {
        Look::Into => !issued(rule, facts).is_empty(),
        Look::Past => !rule.issues.is_empty(),
    };
    let sets_credential = set_cookie::effective(facts.cookies)
        .any(|cookie| !cookie.deletes && rules.credential(cookie.name).is_some())
        || issues();
    let back_to_login =
        header(facts.headers, "location").is_some_and(|location| leads_to(&location, path));
    (200..400).contains(&facts.status) && sets_credential && !back_to_login
}

/// Whether a Location leads to this path: as in `RequestMatch::is_about`, neither the case of
/// letters nor a slash at the end makes a difference.
fn leads_to(location: &str, path: &str) -> bool {
    let end = location.find([';', '?', '#']).unwrap_or(location.len());
    let to = location[..end].trim_end_matches('/');
    let path = path.trim_end_matches('/');
    let page = path.rsplit('/').next().unwrap_or_default();
    let host = to.split_once("://").map(|(_, rest)| rest).or_else(|| to.strip_prefix("//"));
    match host {
        Some(rest) => rest.find('/').map_or("", |at| &rest[at..]).eq_ignore_ascii_case(path),
        None if location.starts_with('/') => to.eq_ignore_ascii_case(path),
        // From the page itself.
        None => to.is_empty() || to.trim_start_matches("./").eq_ignore_ascii_case(page),
    }
}

/// The value of an expression about the answer; an empty value is none.
pub fn answer_value(expression: &Expression, facts: AnswerFacts<'_>) -> Option<String> {
    filtered(expression, placed(&expression.place, facts))
}

/// What stands in a place of the answer.
pub(super) fn placed(place: &Place, facts: AnswerFacts<'_>) -> Option<String> {
    match place {
        Place::Set(name) => set_cookie::effective(facts.cookies)
            .find(|cookie| !cookie.deletes && name.matches(cookie.name))
            .and_then(|cookie| String::from_utf8(cookie.value.to_vec()).ok()),
        Place::ResponseHeader(name) => header(facts.headers, name),
        Place::Location => header(facts.headers, "location"),
        Place::ResponseJson(pointer) => facts.body.text().and_then(|text| text.json(pointer)),
        Place::ResponseText(regex) => facts.body.text().and_then(|text| regex.find(text.bytes())),
        Place::Form(_)
        | Place::Json(_)
        | Place::Query(_)
        | Place::Header(_)
        | Place::Cookie(_)
        | Place::Path(_)
        | Place::Step
        | Place::Probe
        | Place::Basic
        | Place::BasicUser => None,
    }
}
