//! `headcount learn`: from a recording of one person who signs in and out to a configuration. The
//! way from exchanges to TOML is pure: `recording` → `credentials`, `login`, `logout` → `write`, and
//! `verify` runs the recogniser itself over the recording. Only `record` and `replay` touch the
//! network. Passwords and cookie values stay in memory and are never written.

pub mod credentials;
pub mod har;
pub mod login;
pub mod logout;
pub mod naming;
pub mod presets;
pub mod probe;
pub mod record;
pub mod recording;
pub mod replay;
pub mod verify;
pub mod write;

use crate::learn::credentials::{Credential, Trials};
use crate::learn::login::Login;
use crate::learn::logout::Logout;
use crate::learn::probe::Probe;
use crate::learn::recording::Recording;
use crate::rules::Role;

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    Guess,
    Likely,
    /// Tried out, or seen to differ between success and failure.
    Sure,
}

impl Confidence {
    /// As it stands in comments.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guess => "guess",
            Self::Likely => "likely",
            Self::Sure => "sure",
        }
    }
}

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the proxy is to listen, for the file.
    pub listen: String,
    /// The app, as in `[upstream] url`.
    pub upstream: String,
    /// Whether `upstream` is no more than a guess, as with a HAR file.
    pub upstream_guessed: bool,
    /// The name that was typed.
    pub user: Option<String>,
    /// Whether a preset may stand for the rules.
    pub presets: bool,
}

/// What was found out about the app.
#[derive(Debug, Default)]
pub struct Findings {
    pub credentials: Vec<Credential>,
    pub login: Option<Login>,
    pub logout: Option<Logout>,
    pub probe: Option<Probe>,
    /// Whether every page brought another credential.
    pub rotates: bool,
    /// Why nothing may pass that was not issued through the proxy.
    pub untracked: Option<&'static str>,
    /// What could not be told, in sentences.
    pub open: Vec<String>,
}

/// The result: a configuration, and how far it is to be trusted.
#[derive(Debug)]
pub struct Learned {
    pub toml: String,
    /// What it got wrong about the recording; empty: verified.
    pub faults: Vec<String>,
    pub open: Vec<String>,
    pub preset: Option<&'static str>,
}

/// Works out the configuration of the recorded app.
pub fn learn(request: &Request, recording: &Recording, trials: &Trials) -> Learned {
    let findings = find(request, recording, trials);
    if request.presets
        && let Some(fit) = presets::fitting(request, recording, &findings)
    {
        return fit;
    }
    let draft = write::rules(request, recording, &findings, &[]);
    let faults = verify::check(&draft, recording, request.user.as_deref(), &findings.names());
    let toml = write::rules(request, recording, &findings, &faults);
    Learned { toml, faults, open: findings.open, preset: None }
}

fn find(request: &Request, recording: &Recording, trials: &Trials) -> Findings {
    let user = request.user.as_deref();
    let mut findings = Findings::default();
    let login = login::exchanges(recording, user);
    let proofs = credentials::judge(trials);
    findings.credentials = credentials::find(recording, login.as_ref(), &proofs);
    findings.rotates = credentials::rotates(recording, &findings.names());
    let session = findings.session_names();
    findings.login = login.as_ref().map(|login| login::describe(login, user, &session));
    if let Some(login) = &mut findings.login {
        login.guests_only = trials.guests_only;
    }
    findings.logout = logout::find(recording, &session, findings.login.as_ref());
    findings.probe = probe::find(recording, trials, user);
    findings.untracked = credentials::untracked(login.as_ref(), trials, &findings);
    findings.open = open(request, recording, &findings, trials);
    findings
}

impl Findings {
    /// The cookies of the session itself. Rules speak of these alone: those to remember come only
    /// when asked for.
    fn session_names(&self) -> Vec<String> {
        let session = self.credentials.iter().filter(|credential| credential.role == Role::Session);
        session.flat_map(|credential| credential.names.clone()).collect()
    }

    /// Every cookie that was taken for a credential.
    pub fn names(&self) -> Vec<String> {
        self.credentials.iter().flat_map(|credential| credential.names.clone()).collect()
    }
}

/// What could not be told, and which line of the file hangs on it.
fn open(
    request: &Request,
    recording: &Recording,
    findings: &Findings,
    trials: &Trials,
) -> Vec<String> {
    use crate::learn::recording::Phase;
    let mut open = Vec::new();
    let mut tell = |text: &str| open.push(text.to_owned());
    if recording.is_sanitized() {
        tell(
            "no cookie is in the recording at all: the browser has taken them out. Export the HAR \
             with sensitive data (Chrome: settings of the developer tools, Network, \"Allow to \
             generate HAR with sensitive data\"), or use --upstream",
        );
    }
    match &findings.login {
        None => tell(
            "no login was recorded: [[login]] has to be written by hand, `request`, `success` and \
             `user`",
        ),
        Some(login) => {
            if recording.in_phase(Phase::WrongPassword).next().is_none() {
                tell(
                    "no login with a wrong password was recorded, so `success` of [[login]] may \
                     hold for failures too: anybody could end another's sessions with a name alone",
                );
            } else if !login.failed {
                tell(
                    "the wrong password was not sent to the address that signs in, so `success` of \
                     [[login]] could not be compared with a failure",
                );
            } else if !login.separated {
                tell(
                    "a wrong password is answered as a right one is, in status, Location, cookies \
                     and JSON: `success` of [[login]] does not tell the two apart",
                );
            }
            if login.user.is_empty() {
                tell("the user's name was in no request and no answer: fix `user` of [[login]]");
            } else if request.user.is_none() {
                tell("--user was not given: the name field in `user` of [[login]] is a guess");
            }
            if let Some(path) = &login.followed_by {
                let text = format!(
                    "another form was sent to {path} before the login was through: if it was a \
                     second factor, the first request is a [[step]] and the last one the [[login]], \
                     with user = [\"step:\"]"
                );
                tell(&text);
            }
        }
    }
    if findings.credentials.is_empty() {
        tell("no cookie changed at the login: `at` of [[credential]] has to be written by hand");
    } else if trials.pages.is_empty() {
        tell(
            "which cookie signs in was not tried out (that needs --upstream and pages that look \
             different to strangers), but taken from what changed at the login",
        );
    }
    if findings.logout.is_none() {
        tell("no logout was recorded: without [[logout]] a session ends by its timeouts alone");
    }
    if recording.in_phase(Phase::SecondLogin).next().is_none() {
        tell("no second browser was recorded: whether two devices get one cookie is not known");
    }
    open
}
