//! What a configuration means for a standard, requirement by requirement: what is met, what is not, and
//! what is no business of a proxy. Follows from the settings alone.

use super::words::{duration, sessions};
use crate::policy::OnPasswordChange;
use crate::session::Mode;
use crate::settings::{OnFailure, Settings, StorePlace};

/// The names of those that are known.
pub const STANDARDS: [&str; 4] = ["nist-800-53", "asvs-5", "pci-dss-4", "disa-stig"];

const MINUTE: i64 = 60_000;

/// What is said about one requirement.
pub(super) struct Finding {
    pub(super) requirement: &'static str,
    pub(super) met: Met,
    pub(super) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    Yes,
    No,
    /// Part of it is for others: the app, or people.
    Partly,
}

impl Met {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Yes => "Met",
            Self::No => "Not met",
            Self::Partly => "Met in part",
        }
    }
}

fn met(condition: bool) -> Met {
    if condition { Met::Yes } else { Met::No }
}

/// The full name and what is said; `None`: there is no such standard.
pub(super) fn findings(
    settings: &Settings,
    standard: &str,
) -> Option<(&'static str, Vec<Finding>)> {
    Some(match standard {
        "nist-800-53" => ("NIST SP 800-53 Rev. 5", nist(settings)),
        "asvs-5" => ("OWASP ASVS 5.0", asvs(settings)),
        "pci-dss-4" => ("PCI DSS 4.0", pci(settings)),
        "disa-stig" => ("DISA Application Security and Development STIG", stig(settings)),
        _ => return None,
    })
}

fn finding(requirement: &'static str, met: Met, why: impl Into<String>) -> Finding {
    Finding { requirement, met, why: why.into() }
}

fn enforces(settings: &Settings) -> bool {
    settings.switches.mode == Mode::Enforce
}

/// The cap on concurrent sessions.
fn cap(settings: &Settings) -> (Met, String) {
    let Some(max) = settings.limits.default.max_sessions else {
        return (Met::No, "`limit.max_sessions` is \"unlimited\" for users in general.".to_owned());
    };
    let mut why = format!("Each user of \"{}\" has at most {}", settings.app, sessions(max));
    let exceptions = settings.limits.overrides.iter().chain(settings.limits.groups.iter());
    let unlimited = exceptions.filter(|(_, it)| it.max_sessions.is_none());
    let unlimited: Vec<String> =
        unlimited.flat_map(|(users, _)| users).map(|user| format!("\"{user}\"")).collect();
    if unlimited.is_empty() {
        why.push('.');
    } else {
        why.push_str(&format!(", but {} are not limited.", unlimited.join(", ")));
    }
    if !enforces(settings) {
        why.push_str(" It is only observed: `enforcement.mode` is \"observe\".");
        return (Met::No, why);
    }
    let replicas_may_differ = matches!(settings.store.place, StorePlace::Postgres(_));
    if replicas_may_differ && settings.store.on_failure == OnFailure::Open {
        why.push_str(" While the store cannot be reached no limit is held: `store.on_failure`.");
        return (Met::Partly, why);
    }
    (if unlimited.is_empty() { Met::Yes } else { Met::Partly }, why)
}

/// The longest idle timeout that applies to anybody; `None`: somebody has none.
fn idle_max(settings: &Settings) -> Option<i64> {
    longest(settings, |limit| limit.idle_timeout_ms)
}

fn longest(
    settings: &Settings,
    timeout: impl Fn(&crate::policy::Limit) -> Option<i64>,
) -> Option<i64> {
    let limits = &settings.limits;
    let all = std::iter::once(&limits.default).chain(limits.overrides.iter().map(|(_, it)| it));
    let all = all.chain(limits.groups.iter().map(|(_, it)| it));
    all.map(|limit| timeout(limit)).try_fold(0, |longest, one| Some(longest.max(one?)))
}

fn idle(settings: &Settings, allowed_ms: Option<i64>) -> (Met, String) {
    let Some(longest) = idle_max(settings) else {
        return (Met::No, "`idle_timeout` is \"none\" for some or all users.".to_owned());
    };
    let mut why = format!("Sessions end after {} without use at most.", duration(longest));
    let short = allowed_ms.is_none_or(|allowed| longest <= allowed);
    if !short && let Some(allowed) = allowed_ms {
        why.push_str(&format!(" `session.idle_timeout` must be {} or less.", duration(allowed)));
    }
    if !enforces(settings) {
        why.push_str(" It is only observed.");
    }
    (met(short && enforces(settings)), why)
}

fn absolute(settings: &Settings) -> (Met, String) {
    match longest(settings, |limit| limit.absolute_timeout_ms) {
        None => (Met::No, "`absolute_timeout` is \"none\" for some or all users.".to_owned()),
        Some(longest) => {
            let why = format!("Sessions end {} after sign-in at most.", duration(longest));
            (met(enforces(settings)), why)
        }
    }
}

fn password_change(settings: &Settings) -> (Met, String) {
    let rules = &settings.rules.password_changes;
    match settings.switches.password_change {
        OnPasswordChange::Keep => {
            (Met::No, "`password_change` is \"keep\": other sessions go on.".to_owned())
        }
        OnPasswordChange::EndOthers | OnPasswordChange::EndAll if rules.is_empty() => {
            (Met::No, "No [[password_change]] rule says how a change looks.".to_owned())
        }
        OnPasswordChange::EndOthers | OnPasswordChange::EndAll => (
            met(enforces(settings)),
            "A password change ends the user's other sessions.".to_owned(),
        ),
    }
}

fn revocation(settings: &Settings) -> (Met, String) {
    let tokens = settings.admin.iter().flat_map(|admin| &admin.tokens);
    let can = tokens.into_iter().any(|token| token.role > crate::settings::AdminRole::Viewer);
    let why = if can {
        "The admin page and API end one session, a user's, or everybody's; no request that begins \
         after that reaches the app."
    } else {
        "No token of the role `operator` or `admin` is in `admin.tokens`."
    };
    (met(can && enforces(settings)), why.to_owned())
}

fn audit_trail() -> (Met, String) {
    let why = "Sign-ins, ends, denials, changes of limits and what admins do are written as JSON lines \
               with time (UTC), user, session, address, reason and who caused it. Keep and protect them \
               where logs are collected.";
    (Met::Partly, why.to_owned())
}

fn nist(settings: &Settings) -> Vec<Finding> {
    let (capped, cap) = cap(settings);
    let (idle_met, idle) = idle(settings, None);
    let (trail_met, trail) = audit_trail();
    let has_logout = !settings.rules.logouts.is_empty();
    let logout = if has_logout {
        "The app's own sign-out ends the session here too; its token stays dead."
    } else {
        "No [[logout]] rule says how a sign-out looks."
    };
    let told = "Who comes with an ended session is told why and when it ended.";
    vec![
        finding("AC-10 Concurrent session control", capped, cap),
        finding("AC-12 Session termination", idle_met, idle),
        finding("AC-12(1) User-initiated logouts", met(has_logout), logout),
        finding("AC-12(2) Termination message", met(enforces(settings)), told),
        finding("AU-2, AU-3, AU-12 Audit events and records", trail_met, trail),
        finding(
            "AC-10 Scope",
            Met::Partly,
            "Counted are sessions of one account. One person with several accounts, a copied cookie, and \
             traffic that does not pass Headcount are not covered.",
        ),
    ]
}

fn asvs(settings: &Settings) -> Vec<Finding> {
    let (capped, cap) = cap(settings);
    let (idle_met, idle) = idle(settings, None);
    let (absolute_met, absolute) = absolute(settings);
    let (changed, change) = password_change(settings);
    let (revoked, revocation) = revocation(settings);
    let (trail_met, trail) = audit_trail();
    vec![
        finding(
            "7.1.1 Idle and absolute lifetimes are documented",
            Met::Yes,
            "`headcount explain` prints them from the configuration in force.",
        ),
        finding(
            "7.1.2 Concurrent sessions and the action at the limit are documented",
            capped,
            cap,
        ),
        finding("7.3.1 Inactivity timeout", idle_met, idle),
        finding("7.3.2 Absolute maximum lifetime", absolute_met, absolute),
        finding(
            "7.4.1 A terminated session cannot be used",
            met(enforces(settings)),
            "Tokens of ended sessions stay dead; the app does not see them.",
        ),
        finding(
            "7.4.2 All sessions end when an account is disabled or deleted",
            Met::Partly,
            "Headcount does not see that in the app: whoever disables an account calls \
             DELETE /api/v1/users/NAME/sessions.",
        ),
        finding("7.4.3 Other sessions end when a factor is changed", changed, change),
        finding("7.4.5 Administrators can end sessions", revoked, revocation),
        finding(
            "7.5.2 Users can see and end their sessions",
            Met::No,
            "There is no page for users yet.",
        ),
        finding("16.2, 16.3 Security events are logged", trail_met, trail),
    ]
}

fn pci(settings: &Settings) -> Vec<Finding> {
    let (idle_met, idle) = idle(settings, Some(15 * MINUTE));
    let (trail_met, trail) = audit_trail();
    vec![
        finding("8.2.8 Idle for more than 15 minutes: sign in again", idle_met, idle),
        finding(
            "8.2.2 Shared accounts only by exception",
            Met::Partly,
            "`headcount report` shows accounts that are used from distant networks at the same time, with \
             the evidence. What follows is for people to decide.",
        ),
        finding("10.2 Audit logs", trail_met, trail),
    ]
}

fn stig(settings: &Settings) -> Vec<Finding> {
    let (capped, cap) = cap(settings);
    let (idle_met, users) = idle(settings, Some(15 * MINUTE));
    let (admin_met, admins) = idle(settings, Some(10 * MINUTE));
    vec![
        finding("V-222387 (APSC-DV-000010) Limit sessions for each user", capped, cap),
        finding("V-222389 (APSC-DV-000070) Users: 15 minutes idle", idle_met, users),
        finding(
            "V-222390 (APSC-DV-000080) Administrators: 10 minutes idle",
            if admin_met == Met::Yes { Met::Yes } else { Met::Partly },
            format!(
                "{admins} Give the app's administrators an `idle_timeout` in a [[limit.override]]."
            ),
        ),
    ]
}
