//! The same promises in front of real sites in Flask, Express, PHP, WordPress and Tomcat, with the presets as they are.
//!
//! A check is a function over a [`Case`] and runs once for each kind of site; what only one of them
//! has is in a file of its own.

mod cookie_session;
mod express;
mod flask;
mod php;
mod replay;
mod story;
mod tomcat;
mod wordpress;

use crate::support::browser::{Browser, password_of};
use crate::support::http::Response;
use crate::support::proxy::Proxy;
use crate::support::site::{App, Site};

/// A kind of site, and how its preset sees it.
#[derive(Clone, Copy, Debug)]
struct Case {
    app: App,
    preset: &'static str,
    /// The login and logout paths end so.
    suffix: &'static str,
    /// What proves a session, the first of them by itself unless the site wants all.
    cookies: &'static [&'static str],
    /// What a failed login is answered with.
    fails: &'static [u16],
}

const FLASK: Case = Case {
    app: App::Flask,
    preset: "flask-login",
    suffix: "",
    cookies: &["session"],
    fails: &[302],
};
const FLASK_PERMANENT: Case = Case { app: App::FlaskPermanent, ..FLASK };
const PASSPORT: Case = Case {
    app: App::Passport,
    preset: "express-passport",
    suffix: "",
    cookies: &["connect.sid"],
    fails: &[302],
};
const PASSPORT_ROLLING: Case = Case { app: App::PassportRolling, ..PASSPORT };
const COOKIE_SESSION: Case = Case {
    app: App::CookieSession,
    preset: "cookie-session",
    suffix: "",
    cookies: &["session", "session.sig"],
    fails: &[302],
};
const PHP: Case =
    Case { app: App::Php, preset: "php", suffix: ".php", cookies: &["PHPSESSID"], fails: &[302] };
const PHP_KEEPS_OLD: Case = Case { app: App::PhpKeepsOld, ..PHP };
const PHP_SAME_ID: Case = Case { app: App::PhpSameId, ..PHP };
const PHP_URL_IDS: Case = Case { app: App::PhpUrlIds, ..PHP };
const WORDPRESS: Case = Case {
    app: App::WordPress,
    preset: "wordpress",
    suffix: ".php",
    // The site is told to give its cookies one ending, whatever the port.
    cookies: &["wordpress_logged_in_b78c8331b8782f0c383819bc0438a42d"],
    fails: &[200],
};
/// There the form does not work for who is signed in already.
const TOMCAT: Case = Case {
    app: App::Tomcat,
    preset: "tomcat-form",
    suffix: ".jsp",
    cookies: &["JSESSIONID"],
    fails: &[200, 404],
};

impl Case {
    fn site(self) -> &'static Site {
        Site::shared(self.app)
    }

    /// A proxy before the site.
    #[track_caller]
    fn proxy(self, toml: &str) -> Proxy {
        let toml = match self.app {
            App::Tomcat => format!("enforcement.login_url = \"/members/\"\n{toml}"),
            _ => toml.to_owned(),
        };
        Proxy::start(self.site().address, Some(self.preset), &toml)
    }

    fn path(self, page: &str) -> String {
        match (self.app, page) {
            (App::Tomcat, "login") => "/members/".to_owned(),
            (App::WordPress, "login") => "/wp-login.php".to_owned(),
            (App::WordPress, "") => "/hello.php".to_owned(),
            (_, "") => "/".to_owned(),
            (_, page) => format!("/{page}{}", self.suffix),
        }
    }

    #[track_caller]
    fn try_login(self, browser: &mut Browser, user: &str, password: &str) -> Response {
        let (login, fields) = match self.app {
            App::Tomcat => {
                // It has to be shown first.
                let action = tomcat::action(&browser.get("/members/").text());
                (format!("/members/{action}"), ["j_username", "j_password"])
            }
            App::WordPress => (self.path("login"), ["log", "pwd"]),
            _ => (self.path("login"), ["username", "password"]),
        };
        browser.post(&login, &[(fields[0], user), (fields[1], password)])
    }

    /// Signs in, and is then served as that user.
    #[track_caller]
    fn sign_in(self, browser: &mut Browser, user: &str) {
        let answer = self.try_login(browser, user, &password_of(user));
        let redirected = matches!(answer.status, 302 | 303);
        assert!(redirected, "{user} signs in: {} {}", answer.status, answer.text());
        self.assert_serves(browser, user);
    }

    /// A fresh browser, which has seen the login page, and in which the user has just signed in.
    #[track_caller]
    fn signed_in(self, proxy: &Proxy, user: &str) -> Browser {
        let mut browser = proxy.browser();
        assert_eq!(browser.get(&self.path("login")).status, 200);
        self.sign_in(&mut browser, user);
        browser
    }

    #[track_caller]
    fn log_out(self, browser: &mut Browser) {
        let path = self.path("logout");
        let answer = match self.app {
            App::Passport | App::PassportRolling | App::CookieSession => browser.post(&path, &[]),
            App::WordPress => {
                let link = wordpress::logout_link(browser);
                browser.get(&link)
            }
            _ => browser.get(&path),
        };
        assert_eq!(answer.status, 302, "{}", answer.text());
    }

    /// Whom the site takes the browser for.
    fn whoami(self, browser: &mut Browser) -> Option<String> {
        let answer = browser.fetch_json(&self.path("whoami"));
        (answer.status == 200).then(|| answer.json()["user"].as_str().map(str::to_owned)).flatten()
    }

    #[track_caller]
    fn assert_serves(self, browser: &mut Browser, user: &str) {
        let answer = browser.fetch_json(&self.path("whoami"));
        assert_eq!(answer.status, 200, "{user} is served: {}", answer.text());
        assert_eq!(answer.json()["user"], user);
    }

    /// The next page is ours and takes the dead cookies back; then the site's own login works.
    #[track_caller]
    fn assert_told(self, browser: &mut Browser) {
        let answer = browser.get(&self.path(""));
        let text = answer.text().to_lowercase();
        assert_eq!(answer.status, 401, "{text}");
        assert!(answer.is("text/html") && text.contains("limit"), "{text}");
        assert!(text.contains(&self.path("login")), "the page links to the login page: {text}");
        for name in self.cookies {
            assert_eq!(browser.cookie(name), None, "the page takes {name} back");
        }
        let again = browser.get(&self.path(""));
        assert_eq!(
            (again.status, again.text().trim().to_owned()),
            (200, "hello anonymous".to_owned())
        );
    }

    /// The first cookie, as the browser has it.
    #[track_caller]
    fn cookie(self, browser: &Browser) -> String {
        browser.cookie(self.cookies[0]).unwrap()
    }
}

/// What the site itself has issued: the value without the stamp.
fn app_value(value: &str) -> &str {
    value.split(".hc1.").next().unwrap_or(value)
}

/// Makes one test of each check for each kind of site.
macro_rules! on_every_site {
    ($($check:ident)*) => {
        $(mod $check {
            #[test]
            fn on_flask() {
                super::$check(crate::frameworks::FLASK);
            }

            #[test]
            fn on_express_with_passport() {
                super::$check(crate::frameworks::PASSPORT);
            }

            #[test]
            fn on_cookie_session() {
                super::$check(crate::frameworks::COOKIE_SESSION);
            }

            #[test]
            fn on_php() {
                super::$check(crate::frameworks::PHP);
            }

            #[test]
            fn on_php_that_keeps_the_old_session() {
                super::$check(crate::frameworks::PHP_KEEPS_OLD);
            }

            #[test]
            fn on_php_with_one_id() {
                super::$check(crate::frameworks::PHP_SAME_ID);
            }
        })*
    };
}
use on_every_site;

/// Makes one test of each check, for one kind of site that cannot do everything.
macro_rules! on_site {
    ($name:ident $case:ident: $($check:ident)*) => {
        mod $name {
            $(#[test]
            fn $check() {
                super::$check(crate::frameworks::$case);
            })*
        }
    };
}
use on_site;
