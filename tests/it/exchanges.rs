//! What frameworks say on the wire, and what the rules make of it. Each preset has a file of
//! recorded exchanges, `tests/exchanges/NAME.toml`. A framework without a preset needs a folder
//! `tests/exchanges/extra/NAME` with a configuration (`rules.toml`) and its `exchanges.toml`.
//!
//! An exchange is a request and the app's answer as they stood on the wire, without a stamp and with
//! the secrets replaced by similar random text. Here alice signs in, and a failed login names bob:
//!
//! ```toml
//! [[exchange]]
//! about = "a sentence"
//! step = "alice"                 # whom an earlier step in this browser named, if there was one
//! request = '''
//! POST /login HTTP/1.1
//! Content-Type: application/x-www-form-urlencoded
//!
//! username=alice&password=secret'''
//! response = '''
//! HTTP/1.1 302 Found
//! Location: /
//! Set-Cookie: sid=0123456789abcdef; Path=/; HttpOnly
//!
//! '''
//! expect = "login"               # see `Expect`
//! user = "alice"                 # whom a login, a step or a failed login names; leave it out for nobody
//! sets = ["sid"]                 # the credentials that the answer sets, all of them
//! deletes = []                   # and those that it deletes
//! ```
//!
//! A file has at least one login, one failed login, one logout and one rotation, or says why not:
//! `[none]` with `logout = "the reason"`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use headcount::config;
use headcount::detect::{self, AnswerBody, AnswerFacts, Intent, Outcome, RequestFacts};
use headcount::fields::{self, Fields};
use headcount::inspect::AnswerText;
use headcount::rules::RuleSet;
use headcount::rules::preset::PRESETS;
use headcount::session::Timestamp;
use headcount::{cookies, issue, path};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use crate::support::top;

/// When all of this was said: 2026-11-21, 12:00 UTC.
const NOW: Timestamp = Timestamp(1_795_262_400_000);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// Kinds of exchange that the framework does not have, with the reason.
    #[serde(default)]
    none: BTreeMap<Expect, String>,
    exchange: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    about: String,
    step: Option<String>,
    request: String,
    response: String,
    expect: Expect,
    user: Option<String>,
    #[serde(default)]
    sets: Vec<String>,
    #[serde(default)]
    deletes: Vec<String>,
    /// The bearer tokens that the answer brings, by role.
    #[serde(default)]
    tokens: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Login,
    LoginFailed,
    Step,
    Logout,
    PasswordChange,
    /// A session's cookie is set anew, without any rule having to do with it.
    Rotation,
    Nothing,
}

/// What every file has to hold.
const WANTED: [Expect; 4] = [Expect::Login, Expect::LoginFailed, Expect::Logout, Expect::Rotation];

/// A request or an answer: the first line, the header, the body.
struct Message {
    start: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What recognition made of an exchange.
struct Seen {
    outcome: Outcome,
    /// Whether the request presented a credential.
    presented: bool,
    sets: Vec<String>,
    deletes: Vec<String>,
    tokens: Vec<String>,
}

#[tokio::test]
async fn every_preset_understands_its_framework() {
    let mut faults = Vec::new();
    for preset in PRESETS {
        let name = preset.name;
        let file = format!("tests/exchanges/{name}.toml");
        let minimal = format!(
            "[app]\npreset = \"{name}\"\n[upstream]\nurl = \"http://127.0.0.1:8000\"\n\
             [limit]\nmax_sessions = 1\n"
        );
        faults.extend(check(&rules("headcount.toml", &minimal), &file).await);
    }
    for name in names(&top().join("tests/exchanges")) {
        let known = PRESETS.iter().any(|preset| name == format!("{}.toml", preset.name));
        if !known && name != "extra" {
            faults.push(format!("tests/exchanges/{name} belongs to no preset"));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[tokio::test]
async fn a_framework_without_a_preset_needs_only_files() {
    let mut faults = Vec::new();
    let folders = names(&top().join("tests/exchanges/extra"));
    assert!(!folders.is_empty());
    for name in folders {
        let folder = format!("tests/exchanges/extra/{name}");
        let file = format!("{folder}/rules.toml");
        let text = fs::read_to_string(top().join(&file)).expect(&file);
        faults.extend(check(&rules(&file, &text), &format!("{folder}/exchanges.toml")).await);
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The check itself is worth nothing if it cannot fail.
#[tokio::test]
async fn what_does_not_fit_is_a_fault() {
    let file = "tests/exchanges/django.toml";
    let text = fs::read_to_string(top().join(file)).expect(file);
    let rules = rules(
        "headcount.toml",
        "[app]\npreset = \"django\"\n[upstream]\nurl = \"http://127.0.0.1:8000\"\n\
         [limit]\nmax_sessions = 1\n",
    );
    assert_eq!(faults_in(&rules, &text).await, Vec::<String>::new());
    for (right, wrong, words) in [
        ("user = \"alice\"", "user = \"carol\"", "LoggedIn"),
        ("sets = [\"sessionid\"]", "sets = []", "sets"),
        ("deletes = [\"sessionid\"]", "deletes = []", "deletes"),
        ("expect = \"logout\"", "expect = \"nothing\"", "LoggedOut"),
        ("expect = \"login_failed\"", "expect = \"nothing\"", "LoginFailed"),
        ("expect = \"rotation\"", "expect = \"password_change\"", "Nothing"),
        ("POST /accounts/login/", "POST //accounts/login/", "spelling"),
        ("bob", "zoe", "no failed login names bob"),
        ("username=alice", "username=alice&username=bob", "LoginAmbiguous"),
    ] {
        assert!(text.contains(right), "{right}");
        let faults = faults_in(&rules, &text.replace(right, wrong)).await.join("\n");
        assert!(faults.contains(words), "{wrong}: {faults}");
    }
    let unfounded = format!("none.login = \"a reason\"\n{text}");
    assert!(faults_in(&rules, &unfounded).await.join("\n").contains("is said to have none"));
}

#[track_caller]
fn rules(name: &str, text: &str) -> RuleSet {
    match config::parse(name, text, &|_| None) {
        Ok(settings) => settings.rules,
        Err(report) => panic!("{report}"),
    }
}

/// The names of what is in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Replays a file; returns what is wrong.
async fn check(rules: &RuleSet, file: &str) -> Vec<String> {
    let faults = match fs::read_to_string(top().join(file)) {
        Ok(text) => faults_in(rules, &text).await,
        Err(error) => vec![error.to_string()],
    };
    faults.into_iter().map(|fault| format!("{file}: {fault}")).collect()
}

async fn faults_in(rules: &RuleSet, text: &str) -> Vec<String> {
    let fixture: Fixture = match toml::from_str(text) {
        Ok(fixture) => fixture,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    for exchange in &fixture.exchange {
        let mut fault = |words: String| faults.push(format!("{}: {words}", exchange.about));
        match replay(rules, exchange).await {
            Ok(seen) => misfits(exchange, &seen).into_iter().for_each(fault),
            Err(words) => fault(words),
        }
    }
    for kind in WANTED {
        let there = fixture.exchange.iter().any(|exchange| exchange.expect == kind);
        match (there, fixture.none.get(&kind)) {
            (false, None) => faults.push(format!("no exchange is a {kind:?}, and no reason why")),
            (false, Some(reason)) if reason.is_empty() => {
                faults.push(format!("no reason why there is no {kind:?}"));
            }
            (true, Some(_)) => faults.push(format!("a {kind:?}, of which it is said to have none")),
            (false, Some(_)) | (true, None) => {}
        }
    }
    let mut failed = fixture.exchange.iter().filter(|one| one.expect == Expect::LoginFailed);
    let names_bob = |one: &Exchange| {
        one.request.contains("bob") || one.user.iter().any(|user| user.contains("bob"))
    };
    if !fixture.none.contains_key(&Expect::LoginFailed) && !failed.any(names_bob) {
        faults.push("no failed login names bob".to_owned());
    }
    faults
}

/// What is not as the exchange says.
fn misfits(exchange: &Exchange, seen: &Seen) -> Vec<String> {
    let mut misfits = Vec::new();
    let user = exchange.user.clone();
    let fits = match (exchange.expect, &seen.outcome) {
        (Expect::Login, Outcome::LoggedIn { user: found, .. })
        | (Expect::LoginFailed, Outcome::LoginFailed { user: found })
        | (Expect::Step, Outcome::Stepped { user: found }) => *found == user,
        (Expect::Logout, Outcome::LoggedOut)
        | (Expect::PasswordChange, Outcome::PasswordChanged)
        | (Expect::Rotation, Outcome::Nothing | Outcome::Refreshed { .. })
        | (Expect::Nothing, Outcome::Nothing) => user.is_none(),
        _ => false,
    };
    if !fits {
        let expected = (exchange.expect, user);
        misfits.push(format!("{:?}, and not {expected:?}", seen.outcome));
    }
    for (what, expected, found) in [
        ("sets", &exchange.sets, &seen.sets),
        ("deletes", &exchange.deletes, &seen.deletes),
        ("tokens", &exchange.tokens, &seen.tokens),
    ] {
        let mut expected = expected.clone();
        expected.sort();
        if expected != *found {
            misfits.push(format!("{what} {found:?}, and not {expected:?}"));
        }
    }
    // A login counts if the app hands out a credential, or leaves the one that was sent.
    let brings = !seen.sets.is_empty() || !seen.tokens.is_empty();
    if exchange.expect == Expect::Login && !brings && !seen.presented {
        misfits.push("no credential is sent or set, so nothing would be counted".to_owned());
    }
    let rotates = seen.tokens.is_empty() && (seen.sets.is_empty() || !seen.presented);
    if exchange.expect == Expect::Rotation && rotates {
        misfits.push("a rotation has one credential in the request, one in the answer".to_owned());
    }
    misfits
}

/// What the proxy does with a request and its answer, without the connections.
async fn replay(rules: &RuleSet, exchange: &Exchange) -> Result<Seen, String> {
    let request = message(&exchange.request)?;
    let response = message(&exchange.response)?;
    let mut start = request.start.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) =
        (start.next(), start.next(), start.next(), start.next())
    else {
        return Err(format!("{:?} is not the first line of a request", request.start));
    };
    let target: Uri = target.parse().map_err(|_| format!("{target} is no target"))?;
    let path = path::canonical(target.path());
    if !path.plain && detect::watches(rules, &path.text) {
        return Err("refused for the spelling of its path".to_owned());
    }
    let path = path.text;
    let mut intent = Intent::default();
    if detect::may_match(rules, method, &path) {
        let form = fields::is_form(&request.headers);
        let fields = match rules.needs_body(method, &path, form) {
            true => fields::read(&request.headers, &request.body).await.map_err(refused)?,
            false => Fields::Opaque,
        };
        let (query, step) = (target.query(), exchange.step.as_deref());
        let headers = &request.headers;
        let facts = RequestFacts { method, path: &path, query, headers, fields: &fields, step };
        intent = detect::intent(rules, facts).map_err(refused)?;
    }
    let status = response.start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse().ok());
    let status =
        status.ok_or_else(|| format!("{:?} is not the first line of an answer", response.start))?;
    let set = issue::read_all(&response.headers, NOW);
    let mut facts =
        AnswerFacts { status, headers: &response.headers, cookies: &set, body: AnswerBody::Unread };
    let text =
        detect::wants_body(rules, &intent, facts).then(|| AnswerText::new(response.body.to_vec()));
    facts.body = text.as_ref().map_or(AnswerBody::Unreadable, AnswerBody::Read);
    let outcome = detect::outcome(rules, &intent, facts);
    let changes = issue::changes(&issue::read(&response.headers, rules, NOW));
    let mut sets: Vec<String> = changes.issued.into_iter().map(|bare| bare.name).collect();
    let mut deletes = changes.deleted;
    sets.sort();
    deletes.sort();
    // Deleted on several paths, it is one cookie all the same.
    deletes.dedup();
    let lines = request.headers.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes);
    let presented = !cookies::scan(lines, rules).candidates.is_empty();
    let mut tokens: Vec<String> = match &outcome {
        Outcome::LoggedIn { tokens, .. } | Outcome::Refreshed { tokens } => {
            tokens.iter().map(|issued| format!("{:?}", issued.role).to_lowercase()).collect()
        }
        _ => Vec::new(),
    };
    tokens.sort();
    Ok(Seen { outcome, presented, sets, deletes, tokens })
}

fn refused(refusal: headcount::refusal::Refusal) -> String {
    format!("refused: {refusal:?}")
}

/// Reads a message as it is written in a file: lines end as they do there, and the line end before
/// the closing quotes is no part of the body.
fn message(text: &str) -> Result<Message, String> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.trim_end().lines();
    let start = lines.next().unwrap_or_default().to_owned();
    let mut headers = HeaderMap::new();
    for line in lines {
        let field = line.split_once(": ").and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        });
        let (name, value) = field.ok_or_else(|| format!("{line:?} is not a header line"))?;
        headers.append(name, value);
    }
    let body = body.strip_suffix('\n').unwrap_or(body).to_owned();
    Ok(Message { start, headers, body: Bytes::from(body) })
}
