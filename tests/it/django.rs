//! The main job: a session limit in front of a real, unmodified Django, on every session engine.
//!
//! A check is a function over a [`Case`] and runs once for each engine and binding; what does not
//! depend on those runs on [`Case::PLAIN`] alone. Each test has a proxy and users of its own, the
//! sites are shared. Ids like S1 or N4 name the cases that other limiters' tests or bugs gave us.

mod allauth;
mod api;
mod basics;
mod deny;
mod endings;
mod identity;
mod lifetime;
mod race;
mod replay;
mod secrets;
mod seeds;

use crate::support::browser::Browser;
use crate::support::django::{Django, Engine};
use crate::support::http::Response;
use crate::support::proxy::Proxy;

/// A session engine, and how its cookie is tied to sessions.
#[derive(Clone, Copy, Debug)]
struct Case {
    engine: Engine,
    binding: &'static str,
}

impl Case {
    const PLAIN: Self = Self { engine: Engine::Db, binding: "signed" };

    fn site(self) -> &'static Django {
        Django::shared(self.engine)
    }

    /// A proxy before the site.
    #[track_caller]
    fn proxy(self, toml: &str) -> Proxy {
        let toml = format!("session.binding = \"{}\"\n{toml}", self.binding);
        Proxy::start(self.site().address, Some("django"), &toml)
    }
}

/// Makes one test of each check for each engine. The value of a `signed_cookies` session changes
/// with every write and says nothing about its lineage, so that engine has no sound `value`
/// binding.
macro_rules! on_every_engine {
    ($($check:ident)*) => {
        $(mod $check {
            use crate::django::Case;
            use crate::support::django::Engine;

            #[test]
            fn on_db() {
                super::$check(Case { engine: Engine::Db, binding: "signed" });
            }

            #[test]
            fn on_cached_db() {
                super::$check(Case { engine: Engine::CachedDb, binding: "signed" });
            }

            #[test]
            fn on_cache() {
                super::$check(Case { engine: Engine::Cache, binding: "signed" });
            }

            #[test]
            fn on_files() {
                super::$check(Case { engine: Engine::File, binding: "signed" });
            }

            #[test]
            fn on_signed_cookies() {
                super::$check(Case { engine: Engine::SignedCookies, binding: "signed" });
            }

            #[test]
            fn on_db_by_value() {
                super::$check(Case { engine: Engine::Db, binding: "value" });
            }

            #[test]
            fn on_files_by_value() {
                super::$check(Case { engine: Engine::File, binding: "value" });
            }
        })*
    };
}
use on_every_engine;

/// A fresh browser in which the user has just signed in and is served.
#[track_caller]
fn signed_in(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    sign_in(&mut browser, user);
    browser
}

/// Signs in, and is then served as that user.
#[track_caller]
fn sign_in(browser: &mut Browser, user: &str) {
    let answer = browser.login(user);
    assert_eq!(answer.status, 302, "{user} signs in: {}", answer.text());
    assert_eq!(answer.header("location"), Some("/"));
    assert_serves(browser, user);
}

/// The app takes the browser for this user.
#[track_caller]
fn assert_serves(browser: &mut Browser, user: &str) {
    let answer = browser.fetch_json("/whoami");
    assert_eq!(answer.status, 200, "{user} is served: {}", answer.text());
    assert_eq!(answer.json()["user"], user);
}

/// The next page is ours: it tells why the session is over, and takes the dead cookie back. After
/// it the browser is an anonymous visitor.
#[track_caller]
fn assert_told(browser: &mut Browser, reason: &str) {
    assert!(browser.cookie("sessionid").is_some(), "the browser still has its cookie");
    let answer = browser.get("/");
    assert_page(&answer, 401, reason);
    assert!(answer.text().contains("/accounts/login/"), "the page links to the login page");
    assert_eq!(browser.cookie("sessionid"), None, "the page takes the dead cookie back");
    let again = browser.get("/");
    assert_eq!((again.status, again.text().contains("anonymous")), (200, true), "{}", again.text());
}

/// A page of ours that names a reason.
#[track_caller]
fn assert_page(answer: &Response, status: u16, reason: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert!(answer.is("text/html"), "{:?}", answer.headers);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(names(&text, reason), "names {reason:?}: {text}");
}

/// Whether a page names a reason, as its code or in words.
fn names(page: &str, reason: &str) -> bool {
    let page = page.to_lowercase();
    page.contains(reason) || page.contains(&reason.replace('_', " "))
}

/// What a script gets in place of a page.
#[track_caller]
fn assert_problem(answer: &Response, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.is("application/problem+json"), "{:?}", answer.headers);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["reason"], reason, "{}", answer.text());
}
