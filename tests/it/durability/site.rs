//! The app of these tests: it believes every cookie it ever gave out, for ever, and so shows at
//! once when a dead one gets through. Its state outlives every proxy before it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::core::COOKIE;
use crate::support::browser::{Browser, password_of};
use crate::support::http::{Request, Response};
use crate::support::legacy::{Arrived, LegacyApp, Reply};

/// Where dead sessions are logged out at the app.
pub(super) const APP_LOGOUT: &str = "/app-logout";

/// The rules for this app, after more dotted keys.
pub(super) fn rules(toml: &str) -> String {
    format!(
        r#"{toml}
[[credential]]
at = ["cookie:{COOKIE}"]
[[login]]
request = {{ methods = ["POST"], path = ["/login"], has = ["form:username"] }}
success = {{ status = [302], sets = "{COOKIE}" }}
user = ["form:username"]
[[login]]
request = {{ methods = ["POST"], path = ["/login.json"], has = ["json:/username"] }}
success = {{ status = [200], sets = "{COOKIE}" }}
user = ["json:/username"]
[[logout]]
request = {{ methods = ["POST"], path = ["/logout"] }}
success = {{ clears = "{COOKIE}" }}
"#
    )
}

#[derive(Default)]
struct State {
    given: AtomicU64,
    /// How often a credential of each user came in, but for logouts.
    seen: Mutex<HashMap<String, u64>>,
}

pub(super) struct Site {
    app: LegacyApp,
    state: Arc<State>,
}

impl Site {
    pub(super) fn start() -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        Self { app: LegacyApp::start(move |request| answer(&shared, request)), state }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.app.address
    }

    /// How many requests came in with a credential of this user.
    pub(super) fn seen_of(&self, user: &str) -> u64 {
        self.state.seen.lock().get(user).copied().unwrap_or(0)
    }
}

fn answer(state: &State, request: &Arrived) -> Reply {
    let user =
        request.cookie(COOKIE).and_then(|cookie| cookie.split_once('.')).map(|(user, _)| user);
    match request.target() {
        "/login" => {
            let name = request.field("username").unwrap_or_default();
            let right = request.field("password") == Some(password_of(&name));
            login(state, &name, right, "302 Found")
        }
        "/login.json" => {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let name = body["username"].as_str().unwrap_or_default();
            login(state, name, body["password"] == password_of(name).as_str(), "200 OK")
        }
        "/logout" => {
            let cookie = format!("Set-Cookie: {COOKIE}=; Path=/; Max-Age=0");
            Reply::page("302 Found", &[&cookie, "Location: /"], "")
        }
        APP_LOGOUT => Reply::page("200 OK", &[], ""),
        _ => {
            let Some(user) = user else { return Reply::page("200 OK", &[], "anonymous") };
            *state.seen.lock().entry(user.to_owned()).or_default() += 1;
            Reply::page("200 OK", &[&format!("X-User: {user}")], "hello")
        }
    }
}

fn login(state: &State, name: &str, right: bool, status: &str) -> Reply {
    if !right {
        return Reply::page("200 OK", &["Content-Type: text/html"], "wrong password");
    }
    let number = state.given.fetch_add(1, Ordering::Relaxed);
    let cookie = format!("Set-Cookie: {COOKIE}={name}.{number:08x}; Path=/; HttpOnly");
    Reply::page(status, &[&cookie, "Location: /"], "")
}

/// Signs in with the right password.
pub(super) fn login_request(user: &str) -> Request {
    Request::form("/login", &[("username", user), ("password", &password_of(user))])
}

pub(super) fn login_as(browser: &mut Browser, user: &str) -> Response {
    browser.send(&login_request(user))
}

/// Whom the app takes the browser for.
pub(super) fn served_as(browser: &mut Browser) -> Option<String> {
    let answer = browser.fetch_json("/me");
    answer.header("x-user").map(str::to_owned)
}
