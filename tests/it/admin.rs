//! The admin listener from outside: its API, its page, and who may do what; before a scripted app.

mod api;
mod browser;
mod page;

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::http::{self, Request, Response};
use crate::support::legacy::{Arrived, LegacyApp, RULES, Reply};
use crate::support::proxy::{ADMIN_SECRET, Proxy};

const TOKENS: &str = r#"
admin.tokens = [
    { name = "eyes", role = "viewer", secret = "viewer-0123456789abcdef" },
    { name = "desk", role = "operator", secret = "operator-0123456789abcdef" },
    { name = "tests", role = "admin", secret_file = "tests.token" },
]
admin.protected_users = ["root", "*-vip"]
app.name = "shop"
"#;

const VIEWER: &str = "viewer-0123456789abcdef";
const OPERATOR: &str = "operator-0123456789abcdef";
const ADMIN: &str = ADMIN_SECRET;

/// A proxy with three tokens, before an app where everybody can sign in.
struct Office {
    proxy: Proxy,
    _app: LegacyApp,
    /// Who is signed in stays so as long as the browser lives.
    browsers: Mutex<Vec<Browser>>,
}

impl Office {
    #[track_caller]
    fn open(keys: &str) -> Self {
        let numbers = AtomicU32::new(0);
        let app = LegacyApp::start(move |arrived| answer(arrived, &numbers));
        let limit = if keys.contains("limit.max_sessions") { "" } else { "limit.max_sessions = 2" };
        let toml = format!("{limit}\n{TOKENS}\n{keys}\n{RULES}");
        let proxy = Proxy::start(app.address, None, &toml);
        Self { proxy, _app: app, browsers: Mutex::default() }
    }

    /// Signs a user in with a browser of this name; answers the new session's id.
    #[track_caller]
    fn sign_in(&self, user: &str, agent: &str) -> String {
        let mut browser = self.proxy.browser().with_agent(agent);
        assert_eq!(browser.post("/login", &[("user", user)]).status, 302);
        self.browsers.lock().push(browser);
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("user", user), ("limit", "1")])
            .finish();
        let newest = self.call("GET", &format!("/sessions?{query}"), ADMIN).1;
        newest["sessions"][0]["id"].as_str().expect("a session").to_owned()
    }

    fn request(&self, method: &str, path: &str, secret: &str) -> Request {
        Request::new(method, path)
            .header("Host", &self.proxy.admin_address.to_string())
            .header("Authorization", &format!("Bearer {secret}"))
    }

    /// A call of the API.
    #[track_caller]
    fn call(&self, method: &str, path: &str, secret: &str) -> (u16, Value) {
        let answer = self.send(&self.request(method, &format!("/api/v1{path}"), secret));
        (answer.status, answer.json())
    }

    #[track_caller]
    fn put(&self, path: &str, secret: &str, body: &str) -> (u16, Value) {
        let request = self
            .request("PUT", &format!("/api/v1{path}"), secret)
            .header("Content-Type", "application/json")
            .body(body.as_bytes().to_vec());
        let answer = self.send(&request);
        (answer.status, answer.json())
    }

    #[track_caller]
    fn send(&self, request: &Request) -> Response {
        http::send(self.proxy.admin_address, request)
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
        _ => Reply::page("200 OK", &[], "hello"),
    }
}
