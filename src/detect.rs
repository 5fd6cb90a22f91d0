//! Recognition: request → intent, answer → outcome. Pure; decides nothing about sessions.
//! A request alone proves nothing: only what the app emitted turns an intent into an outcome.

mod answer;
pub mod groups;
pub mod tokens;

use http::HeaderMap;

use crate::cookies;
use crate::fields::{self, Fields};
use crate::refusal::Refusal;
use crate::rules::expression::{Expression, Filter, Place};
use crate::rules::{RequestMatch, Rule, RuleSet};

pub use answer::{
    AnswerBody, AnswerFacts, Issued, Outcome, answer_value, looks_like_login, outcome,
    success_matches, wants_body,
};

/// What rules can see of a request.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a str,
    /// Canonical.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub fields: &'a Fields,
    /// Whom an earlier step in the same browser named.
    pub step: Option<&'a str>,
}

/// The rules this request could fulfil, by index, with what the request says about the user.
#[derive(Debug, Default)]
pub struct Intent {
    logins: Vec<LoginIntent>,
    steps: Vec<LoginIntent>,
    refreshes: Vec<usize>,
    password_changes: Vec<usize>,
    logouts: Vec<usize>,
    path: String,
}

#[derive(Debug)]
struct LoginIntent {
    rule: usize,
    /// One for each expression of the rule's `user`; those about the answer are still open.
    user: Vec<Option<String>>,
}

impl Intent {
    /// Nothing to watch for.
    pub fn is_empty(&self) -> bool {
        self.logins.is_empty()
            && self.steps.is_empty()
            && self.refreshes.is_empty()
            && self.password_changes.is_empty()
            && self.logouts.is_empty()
    }

    /// Whether the answer's body may have to be looked into.
    pub fn may_look_into_answer(&self, rules: &RuleSet) -> bool {
        let of = |list: &[Rule], at: &usize| list[*at].reads_answer_body();
        self.logins.iter().any(|login| of(&rules.logins, &login.rule))
            || self.steps.iter().any(|step| of(&rules.steps, &step.rule))
            || self.refreshes.iter().any(|at| of(&rules.refreshes, at))
            || self.password_changes.iter().any(|at| of(&rules.password_changes, at))
            || self.logouts.iter().any(|at| of(&rules.logouts, at))
    }

    /// Whether this may be a login.
    pub fn may_log_in(&self) -> bool {
        !self.logins.is_empty()
    }
}

/// Whether any rule is about this path, whatever the method.
pub fn watches(rules: &RuleSet, path: &str) -> bool {
    rules.all().any(|rule| !rule.request.path.is_empty() && rule.request.is_about(path))
}

/// Whether any login, or step before one, is sent to this path, whatever the method: the login page
/// has to stay reachable.
pub fn is_login_path(rules: &RuleSet, path: &str) -> bool {
    let mut rules = rules.logins.iter().chain(&rules.steps);
    rules.any(|rule| !rule.request.path.is_empty() && rule.request.is_about(path))
}

/// Whether any rule could match this method and path, before the body is known.
pub fn may_match(rules: &RuleSet, method: &str, path: &str) -> bool {
    rules.all().any(|rule| {
        let methods = &rule.request.methods;
        (methods.contains(method) || methods.may_be_asked_for(method))
            && rule.request.is_about(path)
    })
}

/// The rules whose request part holds.
pub fn intent(rules: &RuleSet, facts: RequestFacts<'_>) -> Result<Intent, Refusal> {
    let mut intent = Intent { path: facts.path.to_owned(), ..Intent::default() };
    intent.logins = naming(&rules.logins, facts)?;
    intent.steps = naming(&rules.steps, facts)?;
    intent.refreshes = matching(&rules.refreshes, facts)?;
    intent.password_changes = matching(&rules.password_changes, facts)?;
    intent.logouts = matching(&rules.logouts, facts)?;
    Ok(intent)
}

/// The rules that hold and know users, with what the request says about them.
fn naming(rules: &[Rule], facts: RequestFacts<'_>) -> Result<Vec<LoginIntent>, Refusal> {
    let found = matching(rules, facts)?.into_iter().map(|rule| {
        let request = &rules[rule].request;
        let user = |expression: &Expression| {
            if expression.is_response() { Ok(None) } else { value(expression, request, facts) }
        };
        let user: Vec<_> = rules[rule].user.iter().map(user).collect::<Result<_, _>>()?;
        one_name(&rules[rule].user, &user)?;
        Ok(LoginIntent { rule, user })
    });
    found.collect()
}

/// Which of two names the app reads hangs on how it takes the body: it could be the other one.
fn one_name(expressions: &[Expression], found: &[Option<String>]) -> Result<(), Refusal> {
    let typed = expressions.iter().zip(found).filter(|(at, _)| at.place != Place::Step);
    let mut names = typed.filter_map(|(_, name)| name.as_deref());
    let first = names.next();
    if names.any(|other| Some(other) != first) { Err(Refusal::LoginAmbiguous) } else { Ok(()) }
}

fn matching(rules: &[Rule], facts: RequestFacts<'_>) -> Result<Vec<usize>, Refusal> {
    let mut found = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        if request_matches(&rule.request, facts)? {
            found.push(at);
        }
    }
    Ok(found)
}

fn request_matches(wanted: &RequestMatch, facts: RequestFacts<'_>) -> Result<bool, Refusal> {
    if !wanted.is_about(facts.path) || !is_by_method(wanted, facts)? {
        return Ok(false);
    }
    for expression in &wanted.has {
        if value(expression, wanted, facts)?.is_none() {
            return Ok(false);
        }
    }
    for (expression, patterns) in &wanted.is {
        if !patterns.matches_option(value(expression, wanted, facts)?.as_deref()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the method fits, as sent or as a form asks for it. Not every app listens to forms, so
/// what was sent counts either way: else `_method` would hide a login.
fn is_by_method(wanted: &RequestMatch, facts: RequestFacts<'_>) -> Result<bool, Refusal> {
    if wanted.methods.contains(facts.method) {
        return Ok(true);
    }
    if !wanted.methods.may_be_asked_for(facts.method) {
        return Ok(false);
    }
    let asked = |fields: &Fields| {
        let asked = fields.form("_method")?.map(str::to_ascii_uppercase);
        Ok(asked.is_some_and(|method| wanted.methods.contains(&method)))
    };
    let query = fields::read_form(facts.query.unwrap_or_default().as_bytes())?;
    Ok(asked(facts.fields)? || asked(&Fields::Form(query))?)
}

/// The value of an expression of this rule; an empty value is none.
fn value(
    expression: &Expression,
    of: &RequestMatch,
    facts: RequestFacts<'_>,
) -> Result<Option<String>, Refusal> {
    let Place::Path(name) = &expression.place else { return request_value(expression, facts) };
    let found = of.templates.iter().find_map(|template| template.find(name, facts.path));
    Ok(filtered(expression, found))
}

/// The value of an expression that is not about a rule's path; an empty value is none.
fn request_value(
    expression: &Expression,
    facts: RequestFacts<'_>,
) -> Result<Option<String>, Refusal> {
    let value = match &expression.place {
        Place::Form(name) => facts.fields.form(name)?.map(str::to_owned),
        Place::Json(pointer) => facts.fields.json(pointer),
        Place::Query(name) => {
            let pairs = fields::read_form(facts.query.unwrap_or_default().as_bytes())?;
            Fields::Form(pairs).form(name)?.map(str::to_owned)
        }
        Place::Header(name) => header(facts.headers, name),
        Place::Cookie(name) => facts
            .headers
            .get_all(http::header::COOKIE)
            .iter()
            .find_map(|line| cookies::value_in(line.as_bytes(), name)),
        Place::Step => facts.step.map(str::to_owned),
        Place::Basic => basic(facts.headers)?,
        Place::BasicUser => basic(facts.headers)?
            .and_then(|code| Some(Filter::Base64.apply(&code)?.split_once(':')?.0.to_owned())),
        Place::Path(_)
        | Place::Probe
        | Place::Set(_)
        | Place::ResponseHeader(_)
        | Place::Location
        | Place::ResponseJson(_)
        | Place::ResponseText(_) => None,
    };
    Ok(filtered(expression, value))
}

/// What follows `Basic ` (RFC 7617). Two of these headers could be read differently.
fn basic(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut lines = headers.get_all(http::header::AUTHORIZATION).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Refusal::LoginAmbiguous);
    }
    Ok(line.and_then(|line| line.to_str().ok()).and_then(|line| {
        let (scheme, code) = line.split_once(|c: char| c.is_ascii_whitespace())?;
        scheme.eq_ignore_ascii_case("basic").then(|| code.trim().to_owned())
    }))
}

fn filtered(expression: &Expression, value: Option<String>) -> Option<String> {
    expression
        .filters
        .iter()
        .try_fold(value?, |value, filter| filter.apply(&value))
        .filter(|value| !value.is_empty())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests;
