//! What was learned is put before the app as it is, and has to hold the limit.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::{DJANGO, FLASK, LARAVEL, Learned, PHP, RAILS, Subject, learn, on_every_app};
use crate::support::browser::{Browser, password_of};
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::process::Process;

on_every_app! {
    the_rules_it_writes_hold_the_limit
    the_preset_it_finds_holds_the_limit
}

const ALL: &[usize] = &[1, 2, 3, 4, 5];

fn the_rules_it_writes_hold_the_limit(subject: Subject) {
    let user = (subject.site)().1;
    let learned = learn(subject, &user, ALL, &["--user", &user, "--no-preset"]);
    learned.assert_verified();
    for cookie in subject.cookies {
        assert!(learned.toml.contains(&format!("\"cookie:{cookie}\"")), "{}", learned.toml);
    }
    assert!(!learned.toml.contains("csrftoken\""), "{}", learned.toml);
    assert_no_secrets(&learned, &user);
    hold_the_limit(subject, &learned);
}

fn the_preset_it_finds_holds_the_limit(subject: Subject) {
    let user = (subject.site)().1;
    let learned = learn(subject, &user, ALL, &["--user", &user]);
    learned.assert_verified();
    let preset = format!("preset = \"{}\"", subject.preset);
    assert!(learned.toml.contains(&preset), "{}", learned.toml);
    assert!(!learned.toml.contains("[[login]]"), "only what differs: {}", learned.toml);
    hold_the_limit(subject, &learned);
}

#[track_caller]
fn assert_no_secrets(learned: &Learned, user: &str) {
    let written = format!("{}\n{}", learned.toml, learned.told.join("\n"));
    assert!(!written.contains(&password_of(user)), "{written}");
    let told = learned.told.join("\n").replace(&format!("as {user}"), "");
    assert!(!learned.toml.contains(user) && !told.contains(user), "{written}");
}

/// Headcount with the file as it was written.
struct Served {
    address: SocketAddr,
    process: Process,
}

impl Served {
    #[track_caller]
    fn start(learned: &Learned) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headcount"));
        command.current_dir(learned.folder.path()).arg("serve").arg("-c").arg(learned.file());
        let mut process = Process::start("headcount", &mut command);
        let address = eventually("headcount is ready", || {
            let ended = process.ended();
            assert!(ended.is_none(), "{:?} with\n{}", process.lines(), learned.toml);
            process.lines().iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "ready").then(|| line["listen"].as_str()?.parse().ok())?
            })
        });
        Self { address, process }
    }

    fn browser(&self) -> Browser {
        Browser::new(self.address)
    }

    fn events(&self, kind: &str, user: &str) -> Vec<Value> {
        let lines = self.process.lines();
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|line| line["event"] == kind && line["user"] == user).collect()
    }

    #[track_caller]
    fn wait_for(&self, kind: &str, reason: &str, user: &str) {
        eventually(&format!("{kind} {reason}"), || {
            let events = self.events(kind, user);
            events.iter().any(|event| event["reason"] == reason).then_some(())
        });
    }
}

fn hold_the_limit(subject: Subject, learned: &Learned) {
    let served = Served::start(learned);
    let user = (subject.site)().1;
    let signed_in = || {
        let mut browser = served.browser();
        subject.sign_in(&mut browser, &user, &password_of(&user));
        assert_eq!(subject.whoami(&mut browser).as_ref(), Some(&user), "{}", learned.toml);
        browser
    };
    let mut first = signed_in();
    let mut second = signed_in();
    let told = first.get("/");
    assert_eq!(told.status, 401, "{}", told.text());
    assert!(told.text().contains(subject.page), "links to the login page: {}", told.text());
    assert_eq!(subject.whoami(&mut first), None);
    served.wait_for("session_ended", "limit", &user);

    let created = || served.events("session_created", &user).len();
    eventually("both logins are told", || (created() == 2).then_some(()));
    for attempt in 0..5 {
        let mut attacker = served.browser();
        subject.sign_in(&mut attacker, &user, &format!("guess{attempt}"));
        assert_eq!(subject.whoami(&mut attacker), None);
    }
    assert_eq!(subject.whoami(&mut second).as_ref(), Some(&user), "{}", learned.toml);
    assert_eq!(created(), 2);

    let kept = second.jar.clone();
    (subject.logout)(&mut second);
    served.wait_for("session_ended", "logout", &user);
    let mut thief = served.browser();
    thief.jar = kept;
    assert_eq!(subject.whoami(&mut thief), None);
    signed_in();
}

/// The operator presses Enter without having done anything.
#[test]
fn what_was_not_done_is_said() {
    for (phases, verified, said) in [
        (&[1, 2, 3, 4][..], true, "no logout was recorded"),
        (&[2, 3, 4, 5], true, "no login with a wrong password was recorded"),
        (&[1, 2, 3, 5], true, "no second browser was recorded"),
        (&[1], false, "no login was recorded"),
        (&[], false, "no login was recorded"),
    ] {
        let user = (PHP.site)().1;
        let learned = learn(PHP, &user, phases, &["--user", &user, "--no-preset"]);
        assert_eq!(learned.status.success(), verified, "{phases:?}\n{}", learned.toml);
        if !verified {
            assert_eq!(learned.status.code(), Some(1));
            assert!(learned.toml.contains("NOT VERIFIED"), "{}", learned.toml);
        }
        let told = learned.told.join("\n");
        assert!(told.contains(said), "{phases:?}: {told}");
        let text = learned.toml.replace("\n#  ", "").replace("\n# ", " ");
        assert!(text.contains(said), "{phases:?}: {}", learned.toml);
    }
}

/// What an app names itself, and where it leads a wrong password, is up to the request.
#[test]
fn a_wrong_password_ends_nobody_under_any_name_of_the_app() {
    let (user, victim) = ((LARAVEL.site)().1, (LARAVEL.site)().1);
    let learned = learn(LARAVEL, &user, ALL, &["--user", &user, "--no-preset"]);
    learned.assert_verified();
    assert!(learned.toml.contains("header:referer | "), "{}", learned.toml);
    let served = Served::start(&learned);
    let mut browser = served.browser();
    LARAVEL.sign_in(&mut browser, &victim, &password_of(&victim));
    for (page, refused) in [
        ("http://site.example/login", false),
        ("https://site.example/login?a=/x", false),
        ("http://site.example/account", true),
        ("http://site.example/x?/login", true),
        ("", true),
    ] {
        let mut attacker = served.browser();
        let token = super::csrf_of(&mut attacker);
        let form = [("email", &*victim), ("password", "wrong"), ("_token", &token)];
        let request = Request::form("/login", &form).header("Host", "site.example");
        let status = attacker.send(&request.header("Referer", page)).status;
        assert_eq!(status, if refused { 403 } else { 302 }, "{page}: {}", learned.toml);
        assert_eq!(LARAVEL.whoami(&mut browser).as_ref(), Some(&victim), "{page}");
    }
    assert_eq!(served.events("session_created", &victim).len(), 1);
}

/// They answer who is signed in with the redirect of a success, whatever the password.
#[test]
fn the_form_is_for_guests_where_the_app_leads_others_away() {
    for subject in [RAILS, LARAVEL] {
        let (user, victim) = ((subject.site)().1, (subject.site)().1);
        let learned = learn(subject, &user, ALL, &["--user", &user, "--no-preset"]);
        learned.assert_verified();
        assert!(learned.toml.contains("guests_only = true"), "{}", learned.toml);
        let served = Served::start(&learned);
        let (mut browser, mut attacker) = (served.browser(), served.browser());
        subject.sign_in(&mut browser, &victim, &password_of(&victim));
        subject.sign_in(&mut attacker, &user, &password_of(&user));
        let token = super::csrf_of(&mut attacker);
        let (field, csrf) = match subject.page {
            "/login" => ("email", "_token"),
            _ => ("user[email]", "authenticity_token"),
        };
        let form = [(field, &*victim), ("password", "wrong"), (csrf, &token)];
        assert_eq!(attacker.post(subject.page, &form).status, 403, "{}", learned.toml);
        assert_eq!(subject.whoami(&mut browser), Some(victim), "{}", learned.toml);
    }
}

/// Without the name, the field is guessed by what it is called, and that is said.
#[test]
fn without_the_name_the_field_is_a_guess() {
    let user = (DJANGO.site)().1;
    let learned = learn(DJANGO, &user, ALL, &["--no-preset"]);
    learned.assert_verified();
    assert!(learned.toml.contains("user = [\"form:username\"]"), "{}", learned.toml);
    assert!(learned.toml.contains("user is a guess"), "{}", learned.toml);
    assert!(learned.told.iter().any(|line| line.contains("--user was not given")));
    hold_the_limit(DJANGO, &learned);
}

#[test]
fn a_cookie_that_signs_in_again_is_there_to_remember() {
    let user = (FLASK.site)().1;
    let learned = learn(FLASK, &user, ALL, &["--user", &user, "--no-preset"]);
    learned.assert_verified();
    let after = learned.toml.split("\"cookie:remember_token\"").nth(1).unwrap();
    assert!(after.lines().nth(1).unwrap().contains("\"remember\""), "{}", learned.toml);
    assert!(learned.toml.contains("set:session"), "the name is in it: {}", learned.toml);
    assert!(learned.toml.contains("untracked = \"refuse\""), "{}", learned.toml);
}

#[test]
fn a_file_that_is_there_is_left_alone() {
    let folder = super::folder();
    std::fs::write(folder.path().join("headcount.toml"), "mine").unwrap();
    let process = Process::start("learn", &mut super::command(&folder, &["--har", "x.har"]));
    let learned = super::finished(folder, process);
    assert_eq!((learned.status.code(), &*learned.toml), (Some(2), "mine"));
}
