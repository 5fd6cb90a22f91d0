//! The same promises in front of real sites in Flask, Express, PHP, Rails, Laravel, WordPress and Tomcat,
//! with the presets as they are.
//!
//! A check is a function over a [`Case`] and runs once for each kind of site; what only one of them
//! has is in a file of its own.

mod cookie_session;
mod express;
mod flask;
mod guests;
mod laravel;
mod php;
mod rails;
mod remember;
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
    login: &'static str,
    logout: &'static str,
    /// The paths of other pages end so.
    suffix: &'static str,
    /// How it answers a wrong password.
    wrong: &'static [u16],
    /// What proves a session, the first of them by itself unless the site wants all.
    cookies: &'static [&'static str],
}

const FLASK: Case = Case {
    app: App::Flask,
    preset: "flask-login",
    login: "/login",
    logout: "/logout",
    suffix: "",
    wrong: &[302],
    cookies: &["session"],
};
const FLASK_PERMANENT: Case = Case { app: App::FlaskPermanent, ..FLASK };
const PASSPORT: Case =
    Case { app: App::Passport, preset: "express-passport", cookies: &["connect.sid"], ..FLASK };
const PASSPORT_ROLLING: Case = Case { app: App::PassportRolling, ..PASSPORT };
const COOKIE_SESSION: Case = Case {
    app: App::CookieSession,
    preset: "cookie-session",
    cookies: &["session", "session.sig"],
    ..FLASK
};
const PHP: Case = Case {
    app: App::Php,
    preset: "php",
    login: "/login.php",
    logout: "/logout.php",
    suffix: ".php",
    wrong: &[302],
    cookies: &["PHPSESSID"],
};
const PHP_KEEPS_OLD: Case = Case { app: App::PhpKeepsOld, ..PHP };
const PHP_SAME_ID: Case = Case { app: App::PhpSameId, ..PHP };
const RAILS: Case = Case {
    app: App::Rails,
    preset: "rails-devise",
    login: "/users/sign_in",
    logout: "/users/sign_out",
    suffix: "",
    wrong: &[200],
    cookies: &["_site_session"],
};
const LARAVEL: Case = Case {
    app: App::Laravel,
    preset: "laravel",
    login: "/login",
    logout: "/logout",
    suffix: "",
    wrong: &[302],
    cookies: &["laravel_session"],
};
const PHP_URL_IDS: Case = Case { app: App::PhpUrlIds, ..PHP };
const WORDPRESS: Case = Case {
    app: App::WordPress,
    preset: "wordpress",
    login: "/wp-login.php",
    logout: "/wp-login.php",
    suffix: ".php",
    wrong: &[200],
    // The site is told to give its cookies one ending, whatever the port.
    cookies: &["wordpress_logged_in_b78c8331b8782f0c383819bc0438a42d"],
};
/// There the form does not work for who is signed in already.
const TOMCAT: Case = Case {
    app: App::Tomcat,
    preset: "tomcat-form",
    login: "/members/",
    logout: "/logout.jsp",
    suffix: ".jsp",
    wrong: &[200, 404],
    cookies: &["JSESSIONID"],
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
            (_, "login") => self.login.to_owned(),
            (_, "logout") => self.logout.to_owned(),
            (App::WordPress, "") => "/hello.php".to_owned(),
            (_, "") => "/".to_owned(),
            (_, page) => format!("/{page}{}", self.suffix),
        }
    }

    /// Whether it turns those away from the login who are signed in already.
    fn guests_only(self) -> bool {
        matches!(self.app, App::Rails | App::Laravel)
    }

    #[track_caller]
    fn try_login(self, browser: &mut Browser, user: &str, password: &str) -> Response {
        if self.app == App::Tomcat {
            // It has to be shown first.
            let action = tomcat::action(&browser.get(self.login).text());
            let form = self.login_form(user, password);
            return browser.post(&format!("/members/{action}"), &form);
        }
        self.post(browser, self.login, &self.login_form(user, password))
    }

    fn login_form<'a>(self, user: &'a str, password: &'a str) -> Vec<(&'static str, &'a str)> {
        match self.app {
            App::Rails => vec![("user[email]", user), ("user[password]", password)],
            App::Laravel => vec![("email", user), ("password", password)],
            App::Tomcat => vec![("j_username", user), ("j_password", password)],
            App::WordPress => vec![("log", user), ("pwd", password)],
            _ => vec![("username", user), ("password", password)],
        }
    }

    /// Sends a form, with the token that the site wants in it.
    #[track_caller]
    fn post(self, browser: &mut Browser, path: &str, form: &[(&str, &str)]) -> Response {
        let token = self.csrf(browser);
        let mut form = form.to_vec();
        match self.app {
            App::Rails => form.push(("authenticity_token", &token)),
            App::Laravel => form.push(("_token", &token)),
            _ => {}
        }
        browser.post(path, &form)
    }

    /// The token that the site has in its pages; nothing where it has none.
    fn csrf(self, browser: &mut Browser) -> String {
        if !self.guests_only() {
            return String::new();
        }
        let answer = browser.fetch_json("/csrf");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().to_owned()
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
            App::Passport | App::PassportRolling | App::CookieSession | App::Laravel => {
                self.post(browser, &path, &[])
            }
            App::Rails => self.post(browser, &path, &[("_method", "delete")]),
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

            #[test]
            fn on_rails() {
                super::$check(crate::frameworks::RAILS);
            }

            #[test]
            fn on_laravel() {
                super::$check(crate::frameworks::LARAVEL);
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
