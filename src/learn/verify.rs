//! A configuration against a recording: the recogniser itself runs over every exchange, and must see
//! in each phase what the operator did, no more and no less. Pure.

use crate::config;
use crate::detect::Outcome;
use crate::rules::RuleSet;

use super::recording::{Exchange, Phase, Recording};

/// What the configuration gets wrong, in sentences. `credentials` are the cookies it must know.
pub fn check(
    toml: &str,
    recording: &Recording,
    user: Option<&str>,
    credentials: &[String],
) -> Vec<String> {
    let settings = match config::parse("learned.toml", toml, &|_| None) {
        Ok(settings) => settings,
        Err(report) => return vec![format!("the configuration has mistakes:\n{report}")],
    };
    let rules = &settings.rules;
    let mut faults = Vec::new();
    for name in credentials.iter().filter(|name| rules.credential(name).is_none()) {
        faults.push(format!("credential: the cookie {name} is not covered"));
    }
    for phase in Phase::ALL {
        faults.extend(check_phase(rules, recording, phase, user));
    }
    faults
}

fn check_phase(
    rules: &RuleSet,
    recording: &Recording,
    phase: Phase,
    user: Option<&str>,
) -> Vec<String> {
    let seen = match outcomes(rules, recording, phase) {
        Ok(seen) => seen,
        Err(fault) => return vec![fault],
    };
    let logins: Vec<&Option<String>> = seen
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::LoggedIn { user, .. } => Some(user),
            _ => None,
        })
        .collect();
    let failed = seen.iter().any(|outcome| matches!(outcome, Outcome::LoginFailed { .. }));
    let logouts = seen.iter().filter(|outcome| **outcome == Outcome::LoggedOut).count();
    let recorded = recording.in_phase(phase).any(|sent| !sent.is_safe() || phase == Phase::Logout);
    let mut faults = Vec::new();
    let mut fault = |text: &str| faults.push(format!("{}: {text}", phase.as_str()));
    match phase {
        Phase::WrongPassword => {
            if !logins.is_empty() {
                fault("a wrong password was taken for a login; fix `success` of [[login]]");
            } else if recorded && !failed {
                fault("the failed login was not noticed; fix `request` of [[login]]");
            }
        }
        Phase::Login | Phase::SecondLogin => {
            if logins.is_empty() && (recorded || phase == Phase::Login) {
                fault("no login was noticed; fix `request` and `success` of [[login]]");
            }
            for found in &logins {
                match (found, user) {
                    (None, _) => fault("the login names nobody; fix `user` of [[login]]"),
                    (Some(found), Some(user)) if !same(found, user) => {
                        fault(
                            "the login names another user than was typed; fix `user` of [[login]]",
                        );
                    }
                    _ => {}
                }
            }
        }
        Phase::Pages | Phase::Logout => {
            if !logins.is_empty() {
                fault("something else was taken for a login; fix `request` of [[login]]");
            }
        }
    }
    if phase == Phase::Logout {
        if recorded && logouts == 0 {
            fault("no logout was noticed; fix `request` and `success` of [[logout]]");
        }
    } else if logouts > 0 {
        fault("something else was taken for a logout; fix `request` of [[logout]]");
    }
    faults
}

fn same(one: &str, two: &str) -> bool {
    one.trim().to_lowercase() == two.trim().to_lowercase()
}

/// What the recogniser sees in a phase; a refusal is told as a fault.
fn outcomes(rules: &RuleSet, recording: &Recording, phase: Phase) -> Result<Vec<Outcome>, String> {
    let mut step: Option<String> = None;
    let mut seen = Vec::new();
    for exchange in recording.in_phase(phase) {
        let outcome = exchange.outcome(rules, step.as_deref()).map_err(|refusal| {
            let (phase, place) = (phase.as_str(), place(exchange));
            format!("{phase}: {place} would be refused ({})", refusal.code())
        })?;
        if let Outcome::Stepped { user } = &outcome {
            step.clone_from(user);
        }
        seen.push(outcome);
    }
    Ok(seen)
}

fn place(exchange: &Exchange) -> String {
    format!("{} {}", exchange.method, exchange.path())
}
