//! What people are shown: in their language, under the app's name, or with templates of the operator's.

use std::process::Command;

use super::{Site, configured};
use crate::support::browser::Browser;
use crate::support::http::{Request, Response};
use crate::support::{http, top};

const THEME: &str = r##"
pages.name = "Payroll <3"
pages.logo = "/static/logo.svg"
pages.accent = "#0b5fff"
pages.support = "extension 4711"
pages.language = "nl"
"##;

/// The page of an ended session, for a browser that prefers these languages.
#[track_caller]
fn ended(site: &Site, languages: Option<&str>) -> Response {
    let mut first = site.signed_in("alice");
    site.signed_in("alice");
    asked(&mut first, languages)
}

fn asked(browser: &mut Browser, languages: Option<&str>) -> Response {
    let request = Request::get("/");
    browser.send(&match languages {
        Some(languages) => request.header("Accept-Language", languages),
        None => request.header("Accept-Language", ""),
    })
}

#[test]
fn a_page_is_in_the_language_of_its_reader_and_under_the_name_of_the_app() {
    let site = Site::start(THEME);
    for (languages, tag, title) in [
        (Some("de-AT,de;q=0.9,en;q=0.5"), "de", "Sie wurden abgemeldet"),
        (Some("fr"), "fr", "Vous avez été déconnecté"),
        (Some("es-MX"), "es", "Se ha cerrado su sesión"),
        (Some("en-GB,nl;q=0.9"), "en", "You were signed out"),
        (Some("pl,uk;q=0.8"), "nl", "U bent afgemeld"),
        (None, "nl", "U bent afgemeld"),
    ] {
        let answer = ended(&site, languages);
        let page = answer.text();
        assert_eq!(answer.status, 401, "{page}");
        for part in [
            &*format!("<html lang=\"{tag}\">"),
            &*format!("<h1>{title}</h1>"),
            "Payroll &lt;3",
            "<img src=\"/static/logo.svg\" alt=\"\">",
            "--accent: #0b5fff",
            "extension 4711",
            "href=\"/login\"",
        ] {
            assert!(page.contains(part), "{languages:?}: no {part} in {page}");
        }
        assert!(page.len() < 15_000 && !page.contains("http"), "nothing from elsewhere: {page}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; img-src 'self';"), "{policy}");
    }
}

#[test]
fn a_program_is_told_in_english() {
    let site = Site::start("");
    let mut first = site.signed_in("alice");
    site.signed_in("alice");
    let answer = first.send(&Request::get("/").xhr().header("Accept-Language", "de"));
    assert_eq!(answer.json()["title"], "You were signed out");
    assert_eq!(answer.json()["reason"], "limit");
}

#[test]
fn a_login_that_is_denied_and_a_request_that_is_refused_are_told_so_too() {
    let keys = "limit.on_limit = \"deny\"\nsession.idle_timeout = \"1h\"\nlimit.max_sessions = 2";
    let site = Site::start(keys);
    site.signed_in("alice");
    site.signed_in("alice");
    let form = Request::form("/login", &[("user", "alice")]).header("Accept-Language", "de");
    let denied = site.proxy.browser().send(&form);
    assert_eq!(denied.status, 403);
    assert!(denied.text().contains("schon 2 Sitzungen offen, und mehr als 2"), "{}", denied.text());
    let odd = Request::get("/%2e/login").header("Accept-Language", "fr");
    let refused = http::send(site.proxy.address, &site.proxy.browser().dressed(odd));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("Cette requête ne peut pas être traitée"),
        "{}",
        refused.text()
    );
}

/// Writes a folder of templates, and says how `pages.directory` names it.
fn folder(templates: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (name, text) in templates {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let key = format!("pages.directory = \"{}\"", folder.path().display());
    (folder, key)
}

#[test]
fn templates_of_the_operator_take_the_place_of_ours() {
    let own = "{% extends \"layout.html\" %}{% block title %}Bye{% endblock %}\
        {% block body %}<p class=own>{{ reason }} {{ words.ended.sign_in }}</p>{% endblock %}";
    let (_folder, key) = folder(&[("ended.html", own), ("README.txt", "not a template")]);
    let answer = ended(&Site::start(&key), Some("de"));
    let page = answer.text();
    assert!(page.contains("<p class=own>limit Wieder anmelden</p>"), "{page}");
    assert!(page.contains("<h1>Bye</h1>"), "the layout is ours: {page}");
}

#[test]
fn a_mistake_in_a_template_is_one_of_the_configuration() {
    for (name, text, said) in [
        ("ended.html", "<p>\n{{ reson }}", "ended.html, line 2"),
        ("denied.html", "{% if %}", "denied.html, line 1"),
        ("other.html", "", "a template that no page uses, other.html"),
    ] {
        let (folder, key) = folder(&[(name, text)]);
        let file = folder.path().join("headcount.toml");
        let upstream = "upstream.url = \"http://127.0.0.1:1\"";
        std::fs::write(&file, format!("{upstream}\n{}", configured(&key, super::LOGIN))).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .args(["check", "-c"])
            .arg(&file)
            .current_dir(top())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(said) && told.contains("`pages.directory`"), "{told}");
    }
}

#[test]
fn our_templates_can_be_printed() {
    let printed = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .arg("pages")
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, names) = printed(&[]);
    assert_eq!(
        (code, &*names),
        (
            Some(0),
            "layout.html\nended.html\ndenied.html\nrefused.html\nsessions.html\ndisowned.html\n"
        )
    );
    for name in names.lines() {
        let (code, text) = printed(&[name]);
        let ours = std::fs::read_to_string(top().join("config/pages").join(name)).unwrap();
        assert_eq!((code, text.trim_end()), (Some(0), ours.trim_end()));
    }
    assert_eq!(printed(&["nothing.html"]), (Some(2), String::new()));
}
