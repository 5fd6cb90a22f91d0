//! Who uses a session: device and place by name, what happens when they change, and the groups a user
//! is in. The real program before real Django and Flask sites, behind a balancer that says where
//! clients come from.

mod changes;
mod devices;
mod groups;
mod places;

use std::process::Command;

use crate::support::browser::{Browser, csrf_token, password_of};
use crate::support::django::{Django, Engine};
use crate::support::http::{Request, Response};
use crate::support::proxy::{ADMIN_SECRET, Proxy};
use crate::support::site::{App, Site};

const WINDOWS: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0";
const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 \
    (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1";

/// What the balancer before the proxy needs.
const BALANCED: &str = "server.trusted_proxies = [\"127.0.0.1\"]\n";

/// A browser on a device, at an address.
struct Visitor {
    browser: Browser,
    address: String,
}

impl Visitor {
    fn new(proxy: &Proxy, agent: &str, address: &str) -> Self {
        Self { browser: proxy.browser().with_agent(agent), address: address.to_owned() }
    }

    fn at(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    /// The same cookies in another program.
    fn with_agent(mut self, agent: &str) -> Self {
        self.browser = self.browser.with_agent(agent);
        self
    }

    #[track_caller]
    fn send(&mut self, request: Request) -> Response {
        self.browser.send(&request.header("X-Forwarded-For", &self.address))
    }

    #[track_caller]
    fn get(&mut self, path: &str) -> Response {
        self.send(Request::get(path))
    }

    /// Whom the app takes it for.
    #[track_caller]
    fn whoami(&mut self) -> Option<String> {
        let answer = self.send(Request::get("/whoami").xhr());
        (answer.status == 200).then(|| answer.json()["user"].as_str().map(str::to_owned))?
    }

    #[track_caller]
    fn sign_in_to_django(mut self, user: &str) -> Self {
        let page = self.get("/accounts/login/");
        let token = csrf_token(&page.text());
        let password = password_of(user);
        let form = [("csrfmiddlewaretoken", &*token), ("username", user), ("password", &password)];
        assert_eq!(self.send(Request::form("/accounts/login/", &form)).status, 302);
        assert_eq!(self.whoami().as_deref(), Some(user));
        self
    }

    #[track_caller]
    fn sign_in_to_flask(mut self, user: &str) -> Self {
        let form = [("username", user), ("password", &password_of(user))];
        assert_eq!(self.send(Request::form("/login", &form)).status, 302);
        assert_eq!(self.whoami().as_deref(), Some(user));
        self
    }
}

fn django() -> &'static Django {
    Django::shared(Engine::Db)
}

fn flask() -> &'static Site {
    Site::shared(App::Flask)
}

#[track_caller]
fn before_django(toml: &str) -> Proxy {
    let toml = format!("{BALANCED}{toml}");
    Proxy::start(django().address, Some("django"), &toml)
}

#[track_caller]
fn before_flask(toml: &str) -> Proxy {
    let toml = format!("{BALANCED}{toml}");
    Proxy::start(flask().address, Some("flask-login"), &toml)
}

/// What a command that asks the proxy prints.
#[track_caller]
fn command(proxy: &Proxy, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(words)
        .args(["--admin", &format!("http://{}", proxy.admin_address)])
        .env("HEADCOUNT_TOKEN", ADMIN_SECRET)
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
