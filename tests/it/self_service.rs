//! The pages of ours on the app's origin: users see and end sessions of their own, and nobody else's;
//! and say that an end was not their doing.

mod not_me;
mod pages;
mod replicas;
mod scopes;
mod sites;
mod strangers;

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::http::{Request, Response};
use crate::support::legacy::{Arrived, LegacyApp, RULES, Reply};
use crate::support::proxy::Proxy;

const FOLDER: &str = "/.headcount/";
const HTML: &str = "Content-Type: text/html";

/// An app where everybody can sign in, behind a proxy.
struct Site {
    app: LegacyApp,
    proxy: Proxy,
}

impl Site {
    #[track_caller]
    fn start(keys: &str) -> Self {
        let numbers = AtomicU32::new(0);
        let app = LegacyApp::start(move |arrived| answer(arrived, &numbers));
        let limit = if keys.contains("max_sessions") { "" } else { "limit.max_sessions = 50" };
        let toml = format!(
            "{limit}\nenforcement.login_url = \"/login\"\n\
             enforcement.app_logout = {{ method = \"POST\", path = \"/logout\" }}\n{keys}\n{RULES}"
        );
        let proxy = Proxy::start(app.address, None, &toml);
        Self { app, proxy }
    }

    #[track_caller]
    fn sign_in(&self, user: &str, agent: &str) -> Browser {
        let mut browser = self.proxy.browser().with_agent(agent);
        assert_eq!(browser.post("/login", &[("user", user)]).status, 302);
        browser
    }

    /// Whether anything of ours has come to the app.
    fn app_saw(&self, part: &str) -> bool {
        let part = part.to_ascii_lowercase();
        self.app.arrived().iter().any(|one| one.target().to_ascii_lowercase().contains(&part))
    }
}

fn answer(arrived: &Arrived, numbers: &AtomicU32) -> Reply {
    match (arrived.method(), arrived.target()) {
        ("POST", "/login") => {
            let number = numbers.fetch_add(1, Ordering::SeqCst);
            let cookie = format!("Set-Cookie: sid=value-{number}; Path=/");
            Reply::page("302 Found", &[&cookie, "Location: /"], "")
        }
        ("POST", "/logout") => {
            let cookie = "Set-Cookie: sid=; Path=/; Max-Age=0";
            Reply::page("302 Found", &[cookie, "Location: /login"], "")
        }
        ("GET", "/login") => {
            let form = "<!doctype html><html lang=en><title>Sign in</title>\
                <form method=post action=/login><input name=user></form>";
            Reply::page("200 OK", &[HTML], form)
        }
        _ => Reply::page("200 OK", &[HTML], "hello"),
    }
}

/// What a program is told of the browser's user.
#[track_caller]
fn listed(browser: &mut Browser) -> Value {
    let answer = browser.fetch_json(FOLDER);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

/// The id of the session that the browser is in.
#[track_caller]
fn own_id(browser: &mut Browser) -> String {
    let list = listed(browser);
    let own = list["sessions"].as_array().unwrap().iter().find(|one| one["current"] == true);
    own.unwrap()["id"].as_str().unwrap().to_owned()
}

/// The token that the forms of the browser's page carry.
#[track_caller]
fn csrf(browser: &mut Browser) -> String {
    listed(browser)["csrf"].as_str().unwrap().to_owned()
}

/// Presses the button of a session on the page.
#[track_caller]
fn press(browser: &mut Browser, session: &str) -> Response {
    let token = csrf(browser);
    browser.post(&format!("{FOLDER}end"), &[("csrf", &token), ("session", session)])
}

/// The values of a hidden field on a page, in order.
fn hidden(page: &str, name: &str) -> Vec<String> {
    let mark = format!("name=\"{name}\" value=\"");
    let values = page.split(&mark).skip(1);
    values.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

/// As a script of the app's own pages sends it.
fn scripted(path: &str, json: &str) -> Request {
    Request::new("POST", path)
        .xhr()
        .header("Content-Type", "application/json")
        .header("X-Headcount", "1")
        .body(json.as_bytes().to_vec())
}
