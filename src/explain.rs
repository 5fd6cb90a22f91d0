//! The policy of a configuration in plain sentences, as auditors want it. Only words: nothing is
//! decided here, and what is said follows from the settings alone.

mod limits;
mod rules;
mod standards;
mod words;

use std::fmt::Write as _;

use crate::policy::OnPasswordChange;
use crate::session::Mode;
use crate::settings::{
    AddressChange, AdminRole, AgentChange, Binding, ClientAddress, OnEnded, OnFailure, Scope,
    Settings, StorePlace, Unattributed, Untracked,
};

use limits::{limit, overrides, timeouts};
use words::{duration, paths, request, success, value_of};

/// Columns of a line.
const WIDTH: usize = 90;

/// A heading and what is said under it.
#[derive(Clone, Debug)]
pub struct Section {
    pub heading: String,
    pub sentences: Vec<String>,
}

/// Everything a reader without the file at hand should know.
pub fn explain(settings: &Settings) -> String {
    let mut page = Page::default();
    page.line(&format!("Policy for concurrent sessions of the app \"{}\"", settings.app));
    for section in sections(settings) {
        page.section(&section);
    }
    page.out
}

/// The same, for whoever shows it in another form. None is empty.
pub fn sections(settings: &Settings) -> Vec<Section> {
    let of = |heading: &str, sentences| Section { heading: heading.to_owned(), sentences };
    let mut sections = vec![
        of("Control statement", control(settings)),
        of("Mode", mode(settings)),
        of("Limit", limit(settings)),
        of("Exceptions", overrides(settings)),
        of("Time limits", timeouts(settings)),
        of("What is a session", credentials(settings)),
        of("What counts as a login", logins(settings)),
        of("What ends a session", endings(settings)),
        of("What an ended session gets", ended(settings)),
    ];
    let others = settings.scopes.iter().map(|scope| {
        of(&format!("Another app behind this proxy: \"{}\"", scope.name), other(scope))
    });
    sections.extend(others);
    sections.push(of("Where this does not apply", gaps(settings)));
    sections.push(of("Records", records(settings)));
    sections.retain(|section| !section.sentences.is_empty());
    sections
}

pub use standards::STANDARDS;

/// What the configuration means for a standard; `None`: there is none of this name.
pub fn statement(settings: &Settings, standard: &str) -> Option<String> {
    let (name, findings) = standards::findings(settings, standard)?;
    let mut page = Page::default();
    page.line(&format!("{name}: concurrent sessions of the app \"{}\"", settings.app));
    page.line(&format!("From the configuration {}", settings.fingerprint));
    for finding in findings {
        let sentence = format!("{}. {}", finding.met.words(), finding.why);
        let heading = finding.requirement.to_owned();
        page.section(&Section { heading, sentences: vec![sentence] });
    }
    let other = "Requirements that are not listed are not about what Headcount does.".to_owned();
    page.section(&Section { heading: "Everything else".to_owned(), sentences: vec![other] });
    Some(page.out)
}

#[derive(Default)]
struct Page {
    out: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Each sentence begins a line.
    fn section(&mut self, section: &Section) {
        let _ = write!(self.out, "\n{}\n", section.heading);
        for sentence in &section.sentences {
            self.wrap(sentence);
        }
    }

    fn wrap(&mut self, sentence: &str) {
        let mut line = "  -".to_owned();
        let mut begun = false;
        for word in sentence.split(' ') {
            if begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = "   ".to_owned();
            }
            line.push(' ');
            line.push_str(word);
            begun = true;
        }
        self.line(&line);
    }
}

fn control(settings: &Settings) -> Vec<String> {
    let to = match settings.limits.default.max_sessions {
        Some(max) => format!("is limited to {max}"),
        None => "is not limited".to_owned(),
    };
    let limits = &settings.limits;
    let same = limits.overrides.is_empty() && limits.groups.is_empty();
    let except = if same { "" } else { ", with the exceptions below" };
    let observed = match settings.switches.mode {
        Mode::Enforce => "",
        Mode::Observe => " This is not in force yet: see the mode.",
    };
    vec![
        format!(
            "NIST SP 800-53 AC-10 (concurrent session control): the number of concurrent sessions \
             for each user account of \"{}\" {to}{except}.{observed}",
            settings.app
        ),
        "AC-12 (session termination): a session is terminated after the times, and for the \
         reasons, given below."
            .to_owned(),
    ]
}

fn other(scope: &Scope) -> Vec<String> {
    let hosts = (!scope.hosts.is_empty()).then(|| format!("to {}", paths(&scope.hosts)));
    let below = (!scope.paths.is_empty()).then(|| format!("for {}", paths(&scope.paths)));
    let whose: Vec<String> = hosts.into_iter().chain(below).collect();
    let mut sentences = vec![format!(
        "Requests {} are for an app with users and rules of its own; its users are called \
         \"{}/NAME\" and counted apart.",
        whose.join(" and "),
        scope.name
    )];
    sentences.extend(rules::credentials(&scope.rules));
    sentences.extend(rules::logins(&scope.rules));
    sentences.extend(scope.probe.as_ref().map(rules::probe));
    sentences.extend(rules::logouts(&scope.rules));
    sentences
}

fn mode(settings: &Settings) -> Vec<String> {
    vec![match settings.switches.mode {
        Mode::Enforce => "The policy is enforced.".to_owned(),
        Mode::Observe => "The policy is only observed: decisions are recorded and logged as what \
                          would have happened. Nobody is refused and no session is ended."
            .to_owned(),
    }]
}

fn credentials(settings: &Settings) -> Vec<String> {
    let mut sentences = rules::credentials(&settings.rules);
    sentences.push(match settings.session.binding {
        Binding::Signed => "Session cookies carry a signature of this proxy, so that only what \
                            the app issued through it counts as one."
            .to_owned(),
        Binding::Value => "Session cookies are left as they are, and known by a keyed hash of \
                           their value."
            .to_owned(),
    });
    sentences
}

fn logins(settings: &Settings) -> Vec<String> {
    let mut sentences = rules::logins(&settings.rules);
    sentences.extend(settings.rules.steps.iter().map(|rule| {
        let users: Vec<String> = rule.user.iter().map(value_of).collect();
        let success = rule.success.as_ref().map(rules::success_text).unwrap_or_default();
        format!(
            "{} is a step before a login when {success}: {} is remembered in that browser for {} \
             as the user. It counts and ends nothing.",
            request(&rule.request),
            users.join(", else "),
            duration(settings.session.step_timeout_ms)
        )
    }));
    sentences.push(
        "Only the app's answer makes a login: a failed password ends and counts nothing."
            .to_owned(),
    );
    sentences.extend(settings.probe.as_ref().map(rules::probe));
    sentences.push(match settings.session.unattributed {
        Unattributed::Pass => {
            "A login that shows no user name is let in, listed as unattributed, and \
                            counted alone."
                .to_owned()
        }
        Unattributed::Refuse => "A login that shows no user name is refused.".to_owned(),
    });
    sentences
}

fn endings(settings: &Settings) -> Vec<String> {
    let mut sentences = rules::logouts(&settings.rules);
    if sentences.is_empty() {
        sentences.push("No logout is recognised: sessions end by time or by the limit.".to_owned());
    }
    if settings.switches.logout_all {
        sentences.push("Logging out anywhere ends all sessions of the user.".to_owned());
    } else if !settings.rules.logouts.is_empty() {
        sentences.push("Logging out ends the session it was done in, and no other.".to_owned());
    }
    for rule in &settings.rules.password_changes {
        let effect = match settings.switches.password_change {
            OnPasswordChange::EndOthers => "ends the user's other sessions",
            OnPasswordChange::EndAll => "ends all of the user's sessions",
            OnPasswordChange::Keep => "ends no session",
        };
        let when = rule.success.as_ref().and_then(success);
        let when = when.map(|success| format!(" when {success}")).unwrap_or_default();
        let request = request(&rule.request);
        sentences.push(format!("{request} is a password change{when}; it {effect}."));
    }
    if let Some(folder) = &settings.self_service {
        sentences.push(format!(
            "Users see sessions of their own at `{folder}` and can end them there; whoever is shown why \
             a session ended can report that it was somebody else's doing."
        ));
    }
    sentences.extend(client_change(settings));
    let tokens = settings.admin.iter().flat_map(|admin| &admin.tokens);
    let may: Vec<&str> = tokens
        .filter(|token| token.role >= AdminRole::Operator)
        .map(|token| token.name.as_str())
        .collect();
    if !may.is_empty() {
        let may = may.join(", ");
        let whose = match settings.admin.as_ref().map(|admin| &*admin.protected_users) {
            None | Some([]) => "any session",
            Some(_) => "any session, but those of protected users only with the role \"admin\"",
        };
        sentences.push(format!("Who holds one of these admin tokens can end {whose}: {may}."));
    }
    sentences
}

/// What another client in a session leads to.
fn client_change(settings: &Settings) -> Option<String> {
    let rule = settings.session.client_change?;
    let address = match rule.address {
        AddressChange::Off => None,
        AddressChange::Exact => Some("another address"),
        AddressChange::Prefix => Some("an address in another network (/24, /48)"),
        AddressChange::Country => Some("an address in another country"),
    };
    let agent = match rule.user_agent {
        AgentChange::Off => None,
        AgentChange::Exact => Some("another User-Agent"),
        AgentChange::Browser => Some("another browser or system"),
    };
    let what: Vec<&str> = address.into_iter().chain(agent).collect();
    let effect = if rule.ends { "ends the session" } else { "is recorded, and ends nothing" };
    Some(format!("A request of a session from {} than before {effect}.", what.join(" or with ")))
}

fn ended(settings: &Settings) -> Vec<String> {
    let login = settings.enforcement.login_url.as_deref();
    let page = match (settings.enforcement.on_ended, login) {
        (OnEnded::Page, Some(login)) => format!(
            "A page navigation is answered with a page that says why and when the session ended, \
             with a link to `{login}`."
        ),
        (OnEnded::Page, None) => {
            "A page navigation is answered with a page that says why and when \
                                  the session ended."
                .to_owned()
        }
        (OnEnded::Redirect, login) => {
            format!("A page navigation is sent to the login page `{}`.", login.unwrap_or("/"))
        }
        (OnEnded::Anonymous, _) => {
            "A page navigation goes to the app without the dead cookies, as \
                                    that of a stranger."
                .to_owned()
        }
    };
    let mut sentences = vec![
        page,
        "Other requests are answered 401 with the reason; open streams are cut.".to_owned(),
    ];
    if let Some(logout) = &settings.enforcement.app_logout {
        sentences.push(format!(
            "When an ended session is used once more, it is also logged out at the app ({} `{}`).",
            logout.method, logout.path
        ));
    }
    sentences
}

fn gaps(settings: &Settings) -> Vec<String> {
    let mut sentences = vec![match settings.session.untracked {
        Untracked::Pass => {
            "Session cookies that no known login produced, such as those older than \
                            this deployment, are let through, listed as unattributed, and not \
                            limited."
                .to_owned()
        }
        Untracked::Probe => {
            "Whose a session is that no known login produced, such as one older than this \
             deployment, the app is asked; it is counted like the others."
                .to_owned()
        }
        Untracked::Refuse => {
            "Session cookies that no known login produced are taken away: the app \
                              sees a stranger."
                .to_owned()
        }
    }];
    let exempt = &settings.enforcement.exempt_paths;
    if !exempt.is_empty() {
        sentences.push(format!(
            "{} is served without a verdict, and without the cookies of ended sessions.",
            paths(exempt)
        ));
    }
    if settings.upstream.method_override {
        sentences.push(
            "Headers that ask the app to take one method for another are let through: a login sent \
             in that way may not be seen."
                .to_owned(),
        );
    }
    let copied = "A session cookie that is copied to another device is the same session there";
    let but =
        if settings.session.client_change.is_some() { ", unless a change is noticed" } else { "" };
    sentences.push(format!("{copied}{but}."));
    sentences.push(
        "The policy holds for what passes through Headcount. The app must not be reachable in \
         another way."
            .to_owned(),
    );
    sentences
}

fn records(settings: &Settings) -> Vec<String> {
    let retention = settings.session.retention;
    let address = match settings.log.client_address {
        ClientAddress::Full => "Client addresses are recorded in full.",
        ClientAddress::Prefix => "Client addresses are recorded by network only (/24, /48).",
        ClientAddress::Hash => "Client addresses are recorded as a keyed hash.",
        ClientAddress::None => "Client addresses are not recorded.",
    };
    let mut sentences = vec![
        format!(
            "Sessions are kept in `{}`. It holds no cookie and no password; cookies are known by a \
             hash with the key in `{}`.",
            settings.store.place,
            settings.store.key_file.display()
        ),
        "A login is let in only after it was recorded; while the store fails, logins are refused."
            .to_owned(),
        format!(
            "Ended sessions are kept for {}, at most {} for each user; their cookies stay known as \
             dead for {}.",
            duration(retention.history_ms),
            retention.history_per_user,
            duration(retention.tombstones_ms)
        ),
        "Every session that is made, refused or ended is written to the audit log with user, time \
         and reason."
            .to_owned(),
        address.to_owned(),
    ];
    if let StorePlace::Postgres(postgres) = &settings.store.place {
        let grace_ms = i64::try_from(postgres.grace_ms).unwrap_or(i64::MAX);
        sentences.push(format!(
            "Several replicas may share the store. One that has not heard of it for {} {}.",
            duration(grace_ms),
            match settings.store.on_failure {
                OnFailure::Closed => "serves no session",
                OnFailure::Open => "goes on by what it knew, and holds no limit meanwhile",
            }
        ));
        if postgres.strict {
            let sentence =
                "A login is answered only when every replica knows which sessions it ended.";
            sentences.push(sentence.to_owned());
        }
    }
    sentences
}
