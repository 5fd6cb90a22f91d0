//! The configuration as text, each table with how sure it is and why. No password, no cookie value
//! and no user's name is ever written.

use std::fmt::Write as _;

use crate::rules::Role;

use super::login::Login;
use super::logout::{AtApp, Logout};
use super::recording::{Phase, Recording};
use super::{Confidence, Findings, Request};

/// Columns of a comment.
const WIDTH: usize = 98;

/// The whole file with rules of its own.
pub fn rules(
    request: &Request,
    recording: &Recording,
    findings: &Findings,
    faults: &[String],
) -> String {
    let mut out = String::new();
    head(&mut out, request, recording, &findings.open, faults);
    places(&mut out, request);
    limit(&mut out);
    session(&mut out, findings);
    probe(&mut out, findings);
    enforcement(&mut out, findings);
    credentials(&mut out, findings);
    if let Some(login) = &findings.login {
        write_login(&mut out, login);
    }
    if let Some(logout) = &findings.logout {
        write_logout(&mut out, logout);
    }
    out
}

/// The file with a preset, and what differs from it.
pub fn preset(
    request: &Request,
    recording: &Recording,
    findings: &Findings,
    name: &str,
    overrides: &Overrides<'_>,
) -> String {
    let mut out = String::new();
    head(&mut out, request, recording, &findings.open, &[]);
    places(&mut out, request);
    out.push_str("\n[app]\n");
    let why = format!(
        "sure: the rules of this preset see the whole recording as it was; headcount presets \
         {name} shows them"
    );
    comment(&mut out, &why);
    let _ = writeln!(out, "preset = {}", quoted(name));
    limit(&mut out);
    probe(&mut out, findings);
    if overrides.login_url.is_some() || overrides.logout.is_some() {
        out.push_str("\n[enforcement]\n");
        if let Some(url) = overrides.login_url {
            comment(&mut out, "likely: the page with the login form; the preset has another");
            let _ = writeln!(out, "login_url = {}", quoted(url));
        }
        if let Some(logout) = overrides.logout {
            at_app(&mut out, Some(logout), true);
        }
    }
    if let Some(logout) = overrides.logout {
        write_logout(&mut out, logout);
    }
    out
}

/// What a preset does not know about the app.
#[derive(Default)]
pub struct Overrides<'a> {
    pub login_url: Option<&'a str>,
    pub logout: Option<&'a Logout>,
}

fn head(
    out: &mut String,
    request: &Request,
    recording: &Recording,
    open: &[String],
    faults: &[String],
) {
    let count = |phase: Phase| recording.in_phase(phase).count();
    let counts: Vec<String> =
        Phase::ALL.iter().map(|phase| format!("{} {}", phase.as_str(), count(*phase))).collect();
    comment(
        out,
        &format!(
            "Written by headcount learn from a recording of {} requests ({}). Each table says how \
             sure it is: sure, likely or guess.",
            recording.exchanges.len(),
            counts.join(", ")
        ),
    );
    let verdict = if faults.is_empty() {
        "Verified: these rules see in the recording what was done, no more and no less."
    } else {
        "NOT VERIFIED. These rules see something else in the recording than was done:"
    };
    comment(out, verdict);
    for fault in faults {
        item(out, fault);
    }
    if !open.is_empty() {
        comment(out, "What could not be told:");
        for text in open {
            item(out, text);
        }
    }
    comment(
        out,
        "Before it enforces anything, let it run for some days with mode = \"observe\" in \
         [enforcement], and compare session_created, login_failed and session_ended in the log with \
         what people do.",
    );
    if request.user.is_some() {
        comment(out, "Headcount keeps and writes no password and no cookie.");
    }
}

fn places(out: &mut String, request: &Request) {
    let _ = writeln!(out, "\n[server]\nlisten = {}", quoted(&request.listen));
    out.push_str("\n[upstream]\n");
    if request.upstream_guessed {
        comment(out, "guess: a HAR file does not say where the app itself listens; fix this line");
    }
    let _ = writeln!(out, "url = {}", quoted(&request.upstream));
}

fn limit(out: &mut String) {
    out.push_str("\n[limit]\n");
    comment(out, "guess: how many sessions a user may have is for you to say");
    out.push_str("max_sessions = 1\n");
}

fn session(out: &mut String, findings: &Findings) {
    if findings.untracked.is_none() && !findings.rotates {
        return;
    }
    out.push_str("\n[session]\n");
    if findings.rotates {
        comment(
            out,
            "The cookie changes with every answer: keep binding = \"signed\", the default.",
        );
    }
    if let Some(why) = findings.untracked {
        let text = format!(
            "likely: {why}. So only what was issued through Headcount may pass; who was signed in \
             before it was there signs in once more"
        );
        comment(out, &text);
        out.push_str("untracked = \"refuse\"\n");
    }
}

fn probe(out: &mut String, findings: &Findings) {
    let Some(probe) = &findings.probe else { return };
    let name = probe.user.clone();
    let text = format!(
        "likely: {} tells who is signed in ({name}). With these lines the app is asked at each login, so \
         that all names of a person are one user:",
        probe.path
    );
    out.push('\n');
    comment(out, &text);
    let anonymous = probe.anonymous_status.map_or_else(
        || "anonymous: what strangers get there, has to be filled in".to_owned(),
        |status| format!("anonymous = {{ status = [{status}] }}"),
    );
    let _ = writeln!(out, "# [identity.probe]");
    let _ = writeln!(out, "# path = {}", quoted(&probe.path));
    let _ = writeln!(out, "# user = {}", quoted(&name));
    let _ = writeln!(out, "# {anonymous}");
}

fn enforcement(out: &mut String, findings: &Findings) {
    let Some(login) = &findings.login else { return };
    out.push_str("\n[enforcement]\n");
    comment(out, "likely: the page with the login form");
    let page = login.page.as_deref().unwrap_or(&login.path);
    let _ = writeln!(out, "login_url = {}", quoted(page));
    at_app(out, findings.logout.as_ref(), false);
}

/// How Headcount logs an ended session out at the app.
fn at_app(out: &mut String, logout: Option<&Logout>, over_preset: bool) {
    let Some(logout) = logout else { return };
    let plain = logout.at_app == AtApp::Plain && logout.is.is_none();
    if !plain && logout.at_app != AtApp::Django {
        let text = "Logging an ended session out at the app itself is left out: its logout needs a \
                    token that only its own pages have. Ended sessions stay in the app's store \
                    until they expire there; nobody can use them through Headcount.";
        comment(out, text);
        if over_preset {
            out.push_str("app_logout = \"none\"\n");
        }
        return;
    }
    comment(out, "likely: the logout as it was recorded, for ended sessions");
    let csrf = if logout.at_app == AtApp::Django { ", csrf = \"django\"" } else { "" };
    let (method, path) = (quoted(&logout.method), quoted(&logout.path));
    let _ = writeln!(out, "app_logout = {{ method = {method}, path = {path}{csrf} }}");
}

fn credentials(out: &mut String, findings: &Findings) {
    for credential in &findings.credentials {
        out.push('\n');
        comment(out, &format!("{}: {}", credential.confidence.as_str(), credential.why));
        let at = credential.names.iter().map(|name| quoted(&format!("cookie:{name}")));
        let role = if credential.role == Role::Remember { "remember" } else { "session" };
        let _ = writeln!(out, "[[credential]]\nat = {}", list(at));
        let _ = writeln!(out, "role = \"{role}\"");
    }
}

fn write_login(out: &mut String, login: &Login) {
    out.push('\n');
    let request = if login.failed { Confidence::Sure } else { Confidence::Likely };
    let text = format!("request is {}: it was sent at the login", request.as_str());
    let success = if login.failed && login.separated {
        "success is sure: it holds for the login and for no wrong password recorded"
    } else {
        "success is a guess: there was no failure that it could be held against"
    };
    let from_answer = login.user.iter().any(|from| is_answer(from));
    let user = match (login.user_sure, from_answer) {
        (Confidence::Sure, true) => "user is sure: the app itself answers with the name",
        (Confidence::Sure, false) => "user is likely: the field in which the name was typed",
        _ => "user is a guess: the field is named so",
    };
    comment(out, &format!("{text}. {success}. {user}"));
    if login.guests_only {
        comment(out, "guests_only is sure: who is signed in already is led away from the form");
    }
    let has = login.field.as_ref().map(|field| format!(", has = [{}]", quoted(field)));
    let has = has.unwrap_or_default();
    let user = list(login.user.iter().map(|from| quoted(from)));
    let page = login.page.as_deref().filter(|_| login.leads_back);
    let from = |not: &str| {
        let page = page.map(|page| quoted(&format!("{not}http*://*{page}")));
        page.map_or(String::new(), |page| {
            format!(", is = {{ \"header:referer | split('?',0)\" = {page} }}")
        })
    };
    login_rule(out, login, &format!("{has}{}", from("")), &user);
    if page.is_some() {
        out.push('\n');
        let text = "likely: a wrong password is led back to the page that the request names in \
                    Referer, so only what comes from the page with the form can be told. It is not \
                    asked who signs in from elsewhere: that is refused. Is the form on other pages \
                    too? Add them to both";
        comment(out, text);
        login_rule(out, login, &from("!"), "[\"rjson:/user\"]");
    }
}

fn login_rule(out: &mut String, login: &Login, more: &str, user: &str) {
    let _ = writeln!(
        out,
        "[[login]]\nrequest = {{ methods = [{}], path = [{}]{more} }}",
        quoted(&login.method),
        quoted(&login.path),
    );
    let success = &login.success;
    let mut keys = Vec::new();
    if !success.status.is_empty() {
        keys.push(format!("status = {}", list(success.status.iter().map(u16::to_string))));
    }
    for (key, values) in [("location", &success.location), ("sets", &success.sets)] {
        if !values.is_empty() {
            keys.push(format!("{key} = {}", list(values.iter().map(|value| quoted(value)))));
        }
    }
    let is = success.is.iter().map(|(at, value)| format!("{} = {}", quoted(at), quoted(value)));
    let mut is: Vec<String> = is.collect();
    if !success.landing.is_empty() {
        let unwanted = list(success.landing.iter().map(|pattern| quoted(pattern)));
        is.push(format!("\"location: | split('?',0)\" = {unwanted}"));
    }
    if !is.is_empty() {
        keys.push(format!("is = {{ {} }}", is.join(", ")));
    }
    let _ = writeln!(out, "success = {{ {} }}", keys.join(", "));
    let _ = writeln!(out, "user = {user}");
    if login.guests_only {
        out.push_str("guests_only = true\n");
    }
}

fn write_logout(out: &mut String, logout: &Logout) {
    out.push('\n');
    comment(out, &format!("{}: {}", logout.confidence.as_str(), logout.why));
    let is = logout
        .is
        .as_ref()
        .map(|(at, value)| format!(", is = {{ {} = {} }}", quoted(at), quoted(value)));
    let _ = writeln!(
        out,
        "[[logout]]\nrequest = {{ methods = [{}], path = [{}]{} }}",
        quoted(&logout.method),
        quoted(&logout.path),
        is.unwrap_or_default()
    );
    if logout.clears.is_empty() {
        let _ = writeln!(out, "success = {{ status = [{}] }}", logout.status);
    } else {
        let clears = list(logout.clears.iter().map(|name| quoted(name)));
        let _ = writeln!(out, "success = {{ clears = {clears} }}");
    }
}

fn is_answer(expression: &str) -> bool {
    ["rjson:", "set:", "rheader:", "location:", "rbody:"]
        .iter()
        .any(|place| expression.starts_with(place))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A TOML string. `${` would be an environment variable.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            character if character.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
    out.replace("${", "$${")
}

fn comment(out: &mut String, text: &str) {
    wrapped(out, text, "# ", "# ");
}

fn item(out: &mut String, text: &str) {
    for line in text.lines() {
        wrapped(out, line, "# - ", "#   ");
    }
}

fn wrapped(out: &mut String, text: &str, first: &str, next: &str) {
    let mut line = first.to_owned();
    for word in text.split_whitespace() {
        let safe: String = word.chars().filter(|c| !c.is_control()).collect();
        if line.len() + safe.len() > WIDTH && line.len() > next.len() {
            out.push_str(line.trim_end());
            out.push('\n');
            next.clone_into(&mut line);
        }
        line.push_str(&safe);
        line.push(' ');
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
