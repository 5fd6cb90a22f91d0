//! Rules in sentences: what proves a session, what a login and a logout are.

use super::words::{request, success, value_of};
use crate::rules::{Role, RuleSet, SuccessMatch};
use crate::settings::{Probe, ProbeFailure};

pub(super) fn credentials(rules: &RuleSet) -> Vec<String> {
    let sentence = |credential: &crate::rules::Credential| {
        let cookies = credential.cookies.iter().map(|name| format!("the cookie `{name}`"));
        let names: Vec<String> = cookies.chain(credential.tokens.iter().map(value_of)).collect();
        let names = names.join(" or ");
        match credential.role {
            Role::Session => format!("A session is proved by {names}."),
            Role::Remember => {
                format!("What signs in by itself is counted with its session: {names}.")
            }
            Role::Refresh => format!("A session's tokens are renewed with {names}."),
        }
    };
    rules.credentials.iter().map(sentence).collect()
}

pub(super) fn logins(rules: &RuleSet) -> Vec<String> {
    let sentence = |rule: &crate::rules::Rule| {
        let users: Vec<String> = rule.user.iter().map(value_of).collect();
        let success = match &rule.success {
            Some(success) => success_text(success),
            None => "the app answers 2xx or 3xx, gives out a session, and does not send the \
                     browser back to the login"
                .to_owned(),
        };
        format!(
            "{} is a login when {success}. The user is {}.",
            request(&rule.request),
            users.join(", else ")
        )
    };
    rules.logins.iter().map(sentence).collect()
}

pub(super) fn logouts(rules: &RuleSet) -> Vec<String> {
    let sentence = |rule: &crate::rules::Rule| {
        let success = match &rule.success {
            Some(success) => success_text(success),
            None => "the app answers 2xx or 3xx".to_owned(),
        };
        format!("{} is a logout when {success}.", request(&rule.request))
    };
    rules.logouts.iter().map(sentence).collect()
}

pub(super) fn probe(probe: &Probe) -> String {
    let users: Vec<String> = probe.user.iter().map(value_of).collect();
    format!(
        "Before a login is let in the app is asked with `{} {}` who has signed in: {}. What it says \
         comes before any name in the request{}.",
        probe.method,
        probe.path,
        users.join(", else "),
        match probe.on_failure {
            ProbeFailure::Refuse => "; when it cannot be asked, nobody new is let in",
            ProbeFailure::Pass => ", which counts when it cannot be asked",
        }
    )
}

pub(super) fn success_text(wanted: &SuccessMatch) -> String {
    success(wanted).unwrap_or_else(|| "the app answers in any way".to_owned())
}
