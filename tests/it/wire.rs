//! Bytes on the wire, before a scripted app: what is refused, what passes untouched, and what
//! happens to a login when either side fails.

mod answers;
mod app_framing;
mod bad_input;
mod basic;
mod chunks;
mod cookies;
mod login;
mod methods;
mod pages;
mod pipelines;
mod probe;
mod remember;
mod scopes;
mod set_cookies;
mod sockets;
mod steps;
mod streams;
mod strictness;
mod tokens;
mod urls;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::http::{Request, Response};
use crate::support::legacy::{Arrived, LegacyApp, Reply};
use crate::support::proxy::Proxy;

/// The login rule of most tests.
const LOGIN: &str = r#"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302], sets = "sid" }
user = ["form:user"]
"#;

/// An app that may leave its cookie as it is when somebody signs in.
const LOGIN_WITHOUT_COOKIE: &str = r#"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [302] }
user = ["form:user"]
"#;

/// The whole configuration but for the addresses: `keys` first, then the app's rules.
fn configured(keys: &str, login: &str) -> String {
    let limit = if keys.contains("limit.max_sessions") { "" } else { "limit.max_sessions = 1" };
    format!(
        r#"{limit}
enforcement.login_url = "/login"
enforcement.app_logout = {{ method = "POST", path = "/logout" }}
{keys}
[[credential]]
at = "cookie:sid"
[[logout]]
request = {{ methods = ["POST"], path = "/logout" }}
success = {{ clears = "sid" }}
{login}"#
    )
}

/// A small shop: signs in whoever gives a name, under a new cookie, and knows who has which.
#[derive(Default)]
struct Shop {
    users: Mutex<HashMap<String, String>>,
    issued: Mutex<u32>,
}

impl Shop {
    /// A cookie value that was never there before.
    fn issue(&self, user: &str) -> String {
        let mut issued = self.issued.lock();
        *issued += 1;
        let value = format!("S{issued}-{user}");
        self.users.lock().insert(value.clone(), user.into());
        value
    }

    fn user(&self, request: &Arrived) -> String {
        let known = request.cookie("sid").and_then(|sid| self.users.lock().get(sid).cloned());
        known.unwrap_or_else(|| "nobody".into())
    }

    /// What the shop answers if the test does not.
    fn answer(&self, request: &Arrived) -> Reply {
        let path = request.target().split(['?', ';']).next().unwrap_or("");
        match (request.method(), path) {
            ("POST", "/login") => {
                let sid = self.issue(&request.field("user").unwrap_or_default());
                signed_in_with(&sid)
            }
            ("POST", "/logout") => {
                if let Some(sid) = request.cookie("sid") {
                    self.users.lock().remove(sid);
                }
                let cleared = "Set-Cookie: sid=; Path=/; Max-Age=0";
                Reply::page("302 Found", &["Location: /login", cleared], "")
            }
            ("GET", "/login") => Reply::page("200 OK", &[HTML], "the form"),
            ("GET", "/visit") => {
                let sid = self.issue("nobody");
                Reply::page("200 OK", &[&set(&sid), HTML], "welcome")
            }
            _ => Reply::page("200 OK", &[HTML], &self.user(request)),
        }
    }
}

const HTML: &str = "Content-Type: text/html";

/// The line that gives a browser its session.
fn set(sid: &str) -> String {
    format!("Set-Cookie: sid={sid}; Path=/; HttpOnly")
}

/// What the shop answers to a login.
fn signed_in_with(sid: &str) -> Reply {
    Reply::page("302 Found", &["Location: /", &set(sid)], "")
}

/// The shop with a proxy before it.
struct Site {
    app: LegacyApp,
    proxy: Proxy,
}

impl Site {
    /// A site that does what shops do.
    #[track_caller]
    fn start(keys: &str) -> Self {
        Self::scripted(&configured(keys, LOGIN), |_, _| None)
    }

    /// A site where `script` has the first say.
    #[track_caller]
    fn scripted(
        toml: &str,
        script: impl Fn(&Arrived, &Shop) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let shop = Shop::default();
        let app = LegacyApp::start(move |request| {
            script(request, &shop).unwrap_or_else(|| shop.answer(request))
        });
        let proxy = Proxy::start(app.address, None, toml);
        Self { app, proxy }
    }

    /// Requests the app has seen for a target.
    fn seen(&self, target: &str) -> Vec<Arrived> {
        let mut arrived = self.app.arrived();
        arrived.retain(|request| request.target() == target);
        arrived
    }

    /// Waits until the app has seen a request for a target.
    #[track_caller]
    fn wait_for(&self, target: &str) -> Arrived {
        eventually(&format!("the app sees {target}"), || self.seen(target).into_iter().next())
    }

    /// A browser in which this user has signed in.
    #[track_caller]
    fn signed_in(&self, user: &str) -> Browser {
        let mut browser = self.proxy.browser();
        sign_in(&mut browser, user);
        browser
    }

    /// The log lines about refusals.
    fn refusals(&self) -> Vec<String> {
        refusals(&self.proxy)
    }

    /// Waits until a refusal for this reason is in the log.
    #[track_caller]
    fn wait_for_refusal(&self, reason: &str) {
        eventually(&format!("{reason} is logged"), || {
            self.refusals().iter().any(|known| known == reason).then_some(())
        });
    }

    /// Waits until the app was asked to log out this value.
    #[track_caller]
    fn wait_for_logout_of(&self, sid: &str) {
        eventually(&format!("{sid} is logged out at the app"), || {
            let logouts = self.seen("/logout");
            logouts.iter().any(|request| request.cookie("sid") == Some(sid)).then_some(())
        });
    }
}

/// The reasons of all refusals logged so far, in order.
fn refusals(proxy: &Proxy) -> Vec<String> {
    proxy
        .log()
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["target"] == "headcount::refused")
        .filter_map(|line| line["reason"].as_str().map(str::to_owned))
        .collect()
}

#[track_caller]
fn sign_in(browser: &mut Browser, user: &str) -> Response {
    let answer = browser.post("/login", &[("user", user)]);
    assert_eq!(answer.status, 302, "{user} signs in: {}", answer.text());
    assert!(browser.cookie("sid").is_some_and(|sid| sid.contains(".hc1.")), "{:?}", answer.headers);
    answer
}

/// The app takes the browser for this user.
#[track_caller]
fn assert_serves(browser: &mut Browser, user: &str) {
    let answer = browser.get("/");
    assert_eq!((answer.status, answer.text()), (200, user.to_owned()));
}

/// The next page tells why the session is over.
#[track_caller]
fn assert_told(browser: &mut Browser, reason: &str) {
    let answer = browser.send(&Request::get("/").xhr());
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.json()["reason"], reason);
}

/// Held back until it is opened; opening is for good.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Waits at most as long as tests do.
    fn wait(&self) {
        eventually("the gate opens", || self.0.load(Ordering::SeqCst).then_some(()));
    }
}
