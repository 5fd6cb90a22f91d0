//! `headcount learn` before real apps: a browser does what the operator is asked to do, and what was
//! written holds the limit before that app, unedited. Adding an app is one [`Subject`] and one line
//! in `on_every_app!`.

mod attempt;
mod har;
mod story;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use crate::support::browser::{Browser, password_of};
use crate::support::django::{Django, Engine};
use crate::support::eventually;
use crate::support::http::Response;
use crate::support::process::Process;
use crate::support::site::{App, Site};

/// A real app, and how a person signs in and out there.
#[derive(Clone, Copy)]
struct Subject {
    /// Its address, and a user that no other test has.
    site: fn() -> (SocketAddr, String),
    /// What proves a session there.
    cookies: &'static [&'static str],
    /// The preset that should be found to fit.
    preset: &'static str,
    login: fn(&mut Browser, &str, &str) -> Response,
    logout: fn(&mut Browser) -> Response,
    /// The page that answers with the user's name as JSON.
    whoami: &'static str,
    /// Where people sign in.
    page: &'static str,
    /// What its preset says is to be set.
    set: &'static str,
    /// A page that leads to the login and, after it, has what signs out.
    members: &'static str,
}

const DJANGO: Subject = Subject {
    site: || (Django::shared(Engine::Db).address, Django::shared(Engine::Db).user()),
    cookies: &["sessionid"],
    preset: "django",
    login: |browser, user, password| browser.login_at("/accounts/login/", user, password),
    logout: Browser::logout,
    whoami: "/whoami",
    page: "/accounts/login/",
    set: "",
    members: "",
};
const DJANGO_SIGNED: Subject = Subject {
    site: || {
        let site = Django::shared(Engine::SignedCookies);
        (site.address, site.user())
    },
    ..DJANGO
};
const ALLAUTH: Subject = Subject {
    site: || (Django::shared_allauth().address, Django::shared_allauth().user()),
    preset: "django-allauth",
    login: |browser, user, password| {
        browser.submit("/accounts/login/", &[("login", user), ("password", password)])
    },
    logout: |browser| browser.submit("/accounts/logout/", &[]),
    ..DJANGO
};
const FLASK: Subject = Subject {
    site: || shared(App::Flask),
    cookies: &["session", "remember_token"],
    preset: "flask-login",
    login: |browser, user, password| {
        by_form(browser, "/login", &[("username", user), ("password", password), ("remember", "1")])
    },
    logout: |browser| browser.get("/logout"),
    whoami: "/whoami",
    page: "/login",
    set: "",
    members: "",
};
const PASSPORT: Subject = Subject {
    site: || shared(App::Passport),
    cookies: &["connect.sid"],
    preset: "express-passport",
    login: |browser, user, password| {
        by_form(browser, "/login", &[("username", user), ("password", password)])
    },
    logout: |browser| browser.post("/logout", &[]),
    whoami: "/whoami",
    page: "/login",
    set: "",
    members: "",
};
const ROLLING: Subject = Subject { site: || shared(App::PassportRolling), ..PASSPORT };
const COOKIE_SESSION: Subject = Subject {
    site: || shared(App::CookieSession),
    cookies: &["session", "session.sig"],
    preset: "cookie-session",
    ..PASSPORT
};
const PHP: Subject = Subject {
    site: || shared(App::Php),
    cookies: &["PHPSESSID"],
    preset: "php",
    login: |browser, user, password| {
        by_form(browser, "/login.php", &[("username", user), ("password", password)])
    },
    logout: |browser| browser.get("/logout.php"),
    whoami: "/whoami.php",
    page: "/login.php",
    set: "",
    members: "",
};
const PHP_KEEPS_OLD: Subject = Subject { site: || shared(App::PhpKeepsOld), ..PHP };
const PHP_SAME_ID: Subject = Subject { site: || shared(App::PhpSameId), ..PHP };

const RAILS: Subject = Subject {
    site: || shared(App::Rails),
    cookies: &["_site_session"],
    preset: "rails-devise",
    login: |browser, user, password| {
        let fields = [("user[email]", user), ("user[password]", password)];
        by_form(browser, "/users/sign_in", &fields)
    },
    logout: |browser| {
        let token = csrf_of(browser);
        let form = [("_method", "delete"), ("authenticity_token", &token)];
        browser.post("/users/sign_out", &form)
    },
    whoami: "/whoami",
    page: "/users/sign_in",
    set: "",
    members: "/account",
};
const LARAVEL: Subject = Subject {
    site: || shared(App::Laravel),
    cookies: &["laravel_session"],
    preset: "laravel",
    login: |browser, user, password| {
        by_form(browser, "/login", &[("email", user), ("password", password)])
    },
    logout: |browser| {
        let token = csrf_of(browser);
        browser.post("/logout", &[("_token", &token)])
    },
    whoami: "/whoami",
    page: "/login",
    set: "",
    members: "/account",
};
const WORDPRESS: Subject = Subject {
    site: || shared(App::WordPress),
    // The site is told to give its cookies one ending, whatever the port.
    cookies: &["wordpress_logged_in_b78c8331b8782f0c383819bc0438a42d"],
    preset: "wordpress",
    login: |browser, user, password| {
        by_form(browser, "/wp-login.php", &[("log", user), ("pwd", password)])
    },
    logout: |browser| {
        // Without the nonce it is a page that asks, with a link that has it.
        let page = browser.get("/wp-login.php?action=logout").text().replace("&amp;", "&");
        let link = page.split('"').find(|part| part.contains("action=logout&"));
        let link = link.and_then(|link| link.find("/wp-login.php").map(|at| &link[at..]));
        browser.get(link.unwrap_or("/wp-login.php?action=logout"))
    },
    whoami: "/whoami.php",
    page: "/wp-login.php",
    set: "",
    members: "",
};
const TOMCAT: Subject = Subject {
    site: || shared(App::Tomcat),
    cookies: &["JSESSIONID"],
    preset: "tomcat-form",
    login: |browser, user, password| {
        by_form(browser, "/members/", &[("j_username", user), ("j_password", password)])
    },
    logout: |browser| browser.get("/logout.jsp"),
    whoami: "/whoami.jsp",
    page: "/members/",
    set: concat!(
        "enforcement.login_url = \"/members/\"\n",
        "enforcement.app_logout = { method = \"GET\", path = \"/logout.jsp\" }\n"
    ),
    members: "/members/",
};

fn shared(app: App) -> (SocketAddr, String) {
    let site = Site::shared(app);
    (site.address, site.user())
}

/// Opens the page with the form, and sends it with what is hidden in it.
fn by_form(browser: &mut Browser, path: &str, fields: &[(&str, &str)]) -> Response {
    let page = browser.get(path);
    assert_eq!(page.status, 200);
    let text = page.text();
    let attribute = |tag: &str, name: &str| -> Option<String> {
        let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    let inputs = text.split("<input").skip(1).filter_map(|rest| rest.split('>').next());
    let hidden = inputs.filter(|tag| tag.contains("type=\"hidden\""));
    let hidden: Vec<_> = hidden
        .filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?)))
        .collect();
    let mut sent: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (&**name, &**value)).collect();
    sent.extend_from_slice(fields);
    let form = text.split("<form").nth(1).and_then(|rest| rest.split('>').next());
    let action = form.and_then(|tag| attribute(tag, "action")).unwrap_or_default();
    match page_of(&action) {
        "" => browser.post(path, &sent),
        page if page.starts_with('/') => browser.post(page, &sent),
        page => browser.post(&format!("{}/{page}", path.rsplit_once('/').unwrap().0), &sent),
    }
}

/// The path of an address: apps name themselves in full, or not.
fn page_of(address: &str) -> &str {
    let rest =
        address.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    rest.unwrap_or(address)
}

/// The token that pages of the site have in their forms.
fn csrf_of(browser: &mut Browser) -> String {
    let answer = browser.fetch_json("/csrf");
    answer.json()["token"].as_str().unwrap_or_default().to_owned()
}

impl Subject {
    /// Signs in or tries to, and goes where the app leads, as browsers do.
    fn sign_in(&self, browser: &mut Browser, user: &str, password: &str) {
        let answer = (self.login)(browser, user, password);
        if let Some(to) = answer.header("location").map(page_of).filter(|to| to.starts_with('/')) {
            browser.get(to);
        }
    }

    /// What the operator does in each phase.
    fn act(&self, phase: usize, first: &mut Browser, second: &mut Browser, user: &str) {
        match phase {
            1 => self.sign_in(first, user, "wrong"),
            2 => self.sign_in(first, user, &password_of(user)),
            3 => {
                first.get("/");
                first.fetch_json(self.whoami);
            }
            4 => self.sign_in(second, user, &password_of(user)),
            _ => {
                (self.logout)(first);
            }
        }
    }

    fn whoami(&self, browser: &mut Browser) -> Option<String> {
        let answer = browser.fetch_json(self.whoami);
        let user =
            (answer.status == 200).then(|| answer.json()["user"].as_str().map(str::to_owned));
        user.flatten()
    }
}

/// What a run of `learn` has left.
struct Learned {
    folder: TempDir,
    toml: String,
    told: Vec<String>,
    status: ExitStatus,
}

impl Learned {
    fn file(&self) -> PathBuf {
        self.folder.path().join("headcount.toml")
    }

    #[track_caller]
    fn assert_verified(&self) {
        assert!(self.status.success(), "{}\n{}", self.told.join("\n"), self.toml);
        assert!(self.told.iter().any(|line| line.starts_with("Verified")), "{:?}", self.told);
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("learn-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// `headcount learn …`, with its files in `folder`.
fn command(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headcount"));
    command.current_dir(folder.path()).arg("learn").args(args).args(["--out", "headcount.toml"]);
    command
}

/// Lets an operator go through the phases before a real app; those not in `phases` are skipped.
#[track_caller]
fn learn(subject: Subject, user: &str, phases: &[usize], args: &[&str]) -> Learned {
    let folder = folder();
    let upstream = format!("http://{}", (subject.site)().0);
    // An address of its own: connections that others open never take its port.
    let mut command = command(&folder, args);
    command.args(["--upstream", &upstream, "--listen", "127.0.7.1:0"]);
    let mut process = Process::start("learn", &mut command);
    let address = eventually("the recording proxy listens", || {
        let lines = process.lines();
        let line = lines.iter().find(|line| line.starts_with("Recording http://"))?;
        line["Recording http://".len()..].split(' ').next()?.parse::<SocketAddr>().ok()
    });
    let (mut first, mut second) = (Browser::new(address), Browser::new(address));
    for phase in 1..=5 {
        let asked = format!("{phase} of 5");
        eventually(&asked, || {
            process.lines().iter().any(|line| line.contains(&asked)).then_some(())
        });
        if phases.contains(&phase) {
            subject.act(phase, &mut first, &mut second, user);
        }
        process.type_line("");
    }
    finished(folder, process)
}

#[track_caller]
fn finished(folder: TempDir, mut process: Process) -> Learned {
    let status = eventually("learn is done", || process.ended());
    process.kill();
    let toml = std::fs::read_to_string(folder.path().join("headcount.toml")).unwrap_or_default();
    Learned { folder, toml, told: process.lines(), status }
}

/// Makes one test of each check for each app.
macro_rules! on_every_app {
    ($($check:ident)*) => {
        $(mod $check {
            use crate::learn;

            #[test]
            fn on_django() {
                super::$check(learn::DJANGO);
            }

            #[test]
            fn on_django_with_signed_cookies() {
                super::$check(learn::DJANGO_SIGNED);
            }

            #[test]
            fn on_django_allauth() {
                super::$check(learn::ALLAUTH);
            }

            #[test]
            fn on_flask() {
                super::$check(learn::FLASK);
            }

            #[test]
            fn on_express_with_passport() {
                super::$check(learn::PASSPORT);
            }

            #[test]
            fn on_express_that_rolls() {
                super::$check(learn::ROLLING);
            }

            #[test]
            fn on_cookie_session() {
                super::$check(learn::COOKIE_SESSION);
            }

            #[test]
            fn on_php() {
                super::$check(learn::PHP);
            }

            #[test]
            fn on_php_that_keeps_the_old_session() {
                super::$check(learn::PHP_KEEPS_OLD);
            }

            #[test]
            fn on_php_with_one_id() {
                super::$check(learn::PHP_SAME_ID);
            }

            #[test]
            fn on_rails() {
                super::$check(learn::RAILS);
            }

            #[test]
            fn on_laravel() {
                super::$check(learn::LARAVEL);
            }

            #[test]
            fn on_wordpress() {
                super::$check(learn::WORDPRESS);
            }

            #[test]
            fn on_tomcat() {
                super::$check(learn::TOMCAT);
            }
        })*
    };
}
use on_every_app;
