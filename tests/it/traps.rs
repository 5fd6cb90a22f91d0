//! The traps that real parsers and routers set: a cookie, a path or a form that the proxy could read
//! in one way and the app in another. Each is sprung before real sites, and what counts is whom the
//! site takes the browser for.

mod apps;
mod cookies;
mod logins;

use std::net::SocketAddr;

use crate::support::browser::{Browser, password_of};
use crate::support::django::{Django, Engine};
use crate::support::http::{Request, Response};
use crate::support::proxy::Proxy;
use crate::support::site::{App, Site};

/// What the site is made with, and so who parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    /// The last cookie of a name counts.
    Django,
    /// Werkzeug: the first counts.
    Flask,
    /// npm `cookie`, body-parser.
    Express,
    /// `$_COOKIE`, `$_POST`.
    Php,
}

impl Stack {
    fn address(self) -> SocketAddr {
        match self {
            Self::Django => Django::shared(Engine::Db).address,
            Self::Flask => Site::shared(App::Flask).address,
            Self::Express => Site::shared(App::Passport).address,
            Self::Php => Site::shared(App::Php).address,
        }
    }

    /// A proxy before the site, for one session each.
    #[track_caller]
    fn proxy(self, toml: &str) -> Proxy {
        let preset = match self {
            Self::Django => "django",
            Self::Flask => "flask-login",
            Self::Express => "express-passport",
            Self::Php => "php",
        };
        Proxy::start(self.address(), Some(preset), &format!("limit.max_sessions = 1\n{toml}"))
    }

    fn user(self) -> String {
        match self {
            Self::Django => Django::shared(Engine::Db).user(),
            Self::Flask => Site::shared(App::Flask).user(),
            Self::Express => Site::shared(App::Passport).user(),
            Self::Php => Site::shared(App::Php).user(),
        }
    }

    fn cookie(self) -> &'static str {
        match self {
            Self::Django => "sessionid",
            Self::Flask => "session",
            Self::Express => "connect.sid",
            Self::Php => "PHPSESSID",
        }
    }

    fn login(self) -> &'static str {
        match self {
            Self::Django => "/accounts/login/",
            Self::Flask | Self::Express => "/login",
            Self::Php => "/login.php",
        }
    }

    fn whoami_path(self) -> &'static str {
        if self == Self::Php { "/whoami.php" } else { "/whoami" }
    }

    /// Whom the site takes the browser for.
    fn whoami(self, browser: &mut Browser) -> Option<String> {
        let answer = browser.fetch_json(self.whoami_path());
        (answer.status == 200).then(|| answer.json()["user"].as_str().map(str::to_owned)).flatten()
    }

    /// The same with a Cookie line as it is.
    #[track_caller]
    fn whoami_with(self, proxy: &Proxy, line: &str) -> Response {
        proxy.browser().send(&Request::get(self.whoami_path()).xhr().header("Cookie", line))
    }

    /// Sends a login as it is, from a browser that has seen the form.
    #[track_caller]
    fn send_login(self, browser: &mut Browser, request: Request) -> Response {
        browser.get(self.login());
        let token = browser.cookie("csrftoken").unwrap_or_default();
        browser.send(&if self == Self::Django {
            request.header("X-CSRFToken", &token)
        } else {
            request
        })
    }

    #[track_caller]
    fn signed_in(self, proxy: &Proxy, user: &str) -> Browser {
        let mut browser = proxy.browser();
        let form = [("username", user), ("password", &*password_of(user))];
        let answer = self.send_login(&mut browser, Request::form(self.login(), &form));
        assert_eq!(answer.status, 302, "{user} signs in: {}", answer.text());
        assert_eq!(self.whoami(&mut browser).as_deref(), Some(user));
        browser
    }
}

/// Makes one test of each check for each parser.
macro_rules! with_every_parser {
    ($($check:ident)*) => {
        $(mod $check {
            use crate::traps::Stack;

            #[test]
            fn of_django() {
                super::$check(Stack::Django);
            }

            #[test]
            fn of_werkzeug() {
                super::$check(Stack::Flask);
            }

            #[test]
            fn of_express() {
                super::$check(Stack::Express);
            }

            #[test]
            fn of_php() {
                super::$check(Stack::Php);
            }
        })*
    };
}
use with_every_parser;
