//! `headcount check --try` before real apps: what the rules see of a wrong password, a login, a page
//! and a logout.

use std::io::Write;
use std::process::Stdio;

use super::{ALLAUTH, COOKIE_SESSION, DJANGO, Subject, on_every_app};
use crate::support::browser::password_of;

on_every_app! {
    the_presets_rules_see_every_step
}

/// The exit code, and what was printed.
fn attempt(subject: Subject, toml: &str, input: &str) -> (Option<i32>, String) {
    let folder = super::folder();
    let address = (subject.site)().0;
    let config = format!("upstream.url = \"http://{address}\"\nlimit.max_sessions = 1\n{toml}");
    let file = folder.path().join("headcount.toml");
    std::fs::write(&file, config).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(["check", "--try", &format!("http://{address}{}", subject.members), "-c"])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn the_presets_rules_see_every_step(subject: Subject) {
    let user = (subject.site)().1;
    let input = format!("user={user}\npassword={}\n", password_of(&user));
    let preset = format!("app.preset = \"{}\"\n{}", subject.preset, subject.set);
    let (code, text) = attempt(subject, &preset, &input);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains(&password_of(&user)), "{text}");
    for line in [
        "ok     wrong password  a failed login",
        &format!("ok     login           a login of user \"{user}\", credential "),
        // WordPress has three, whose names end in the same way.
        subject.cookies[0].trim_start_matches("wordpress_logged_in_"),
        "ok     page            the same session",
        "ok     logout          the session's end",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn what_the_rules_do_not_see_fails() {
    let user = (DJANGO.site)().1;
    let input = format!("user={user}\npassword={}\n", password_of(&user));
    let credential = "[[credential]]\nat = \"cookie:sessionid\"\n";
    let rule = |request: &str, success: &str| {
        format!(
            "enforcement.login_url = \"/accounts/login/\"\n{credential}[[login]]\nrequest = {{ {request} }}\n{success}\
             user = \"form:username\"\n[[logout]]\nrequest = {{ path = \"/nowhere/\" }}\n"
        )
    };
    for (request, success, said) in [
        ("path = \"/login/\"", "", "FAILED wrong password  nothing"),
        ("path = \"/accounts/login/\"", "success = { status = [200, 302] }\n", "A LOGIN"),
        (
            "path = \"/accounts/login/\"",
            "success = { status = 303 }\n",
            "FAILED login           no login",
        ),
        ("path = \"/accounts/login/\"", "", "FAILED logout          no logout"),
    ] {
        let (code, text) = attempt(DJANGO, &rule(request, success), &input);
        assert_eq!(code, Some(1), "{said}\n{text}");
        assert!(text.contains(said), "{said}\n{text}");
    }
    let wrong = format!("user={user}\npassword=not-hers\n");
    let (code, text) = attempt(DJANGO, "app.preset = \"django\"", &wrong);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAILED login"), "{text}");
}

#[test]
fn another_apps_preset_fails() {
    for (subject, preset) in [(ALLAUTH, "php"), (COOKIE_SESSION, "django")] {
        let user = (subject.site)().1;
        let input = format!("user={user}\npassword={}\n", password_of(&user));
        let (code, text) = attempt(subject, &format!("app.preset = \"{preset}\""), &input);
        assert_eq!(code, Some(1), "{preset}: {text}");
    }
}

#[test]
fn an_account_is_needed() {
    let (code, text) = attempt(DJANGO, "app.preset = \"django\"", "alice\n");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("user=NAME"), "{text}");
}
