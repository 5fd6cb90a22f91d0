//! N1: simultaneous logins of one user, over HTTP, against a Django with several processes. However
//! they fall, exactly as many are served as the limit allows, and every other one is told.

use std::sync::Barrier;
use std::thread;

use super::Case;
use crate::support::browser::{Browser, csrf_token, password_of};
use crate::support::http::Response;
use crate::support::proxy::Proxy;
use crate::support::soak;

const LOGINS: usize = 8;

/// 204 rounds in `make test`, 2,040 in `make soak`.
fn rounds() -> usize {
    if soak() { 340 } else { 34 }
}

#[test]
fn simultaneous_logins_never_exceed_the_limit_when_evicting_soak() {
    race("evict");
}

#[test]
fn simultaneous_logins_never_exceed_the_limit_when_denying_soak() {
    race("deny");
}

fn race(on_limit: &str) {
    for max in [1, 2, 5] {
        let proxy = Case::PLAIN
            .proxy(&format!("limit.max_sessions = {max}\nlimit.on_limit = \"{on_limit}\""));
        for round in 0..rounds() {
            let user = format!("user{}", 1000 + round);
            let mut runners = run_together(&proxy, &user);
            let mut served = 0;
            for (browser, login) in &mut runners {
                served += usize::from(is_served(browser, login, &user, on_limit));
            }
            assert_eq!(served, max, "round {round}, limit {max}, {on_limit}");
            assert_eq!(proxy.live(&user), max, "round {round}, limit {max}, {on_limit}");
        }
    }
}

/// Eight browsers with the login form open send it at the same moment.
fn run_together(proxy: &Proxy, user: &str) -> Vec<(Browser, Response)> {
    let (start, password) = (Barrier::new(LOGINS), password_of(user));
    let run = || {
        let mut browser = proxy.browser();
        let token = csrf_token(&browser.get("/accounts/login/").text());
        let form =
            [("csrfmiddlewaretoken", token.as_str()), ("username", user), ("password", &password)];
        start.wait();
        let answer = browser.post("/accounts/login/", &form);
        (browser, answer)
    };
    thread::scope(|scope| {
        let runners: Vec<_> = (0..LOGINS).map(|_| scope.spawn(run)).collect();
        runners.into_iter().map(|runner| runner.join().unwrap()).collect()
    })
}

/// Whether this one is served as the user; if not, it must have been told why.
fn is_served(browser: &mut Browser, login: &Response, user: &str, on_limit: &str) -> bool {
    if on_limit == "deny" && login.status == 403 {
        super::assert_page(login, 403, "limit");
        assert_eq!(browser.whoami(), None);
        return false;
    }
    assert!(login.status == 302 || login.status == 401, "{}: {}", login.status, login.text());
    let answer = browser.fetch_json("/whoami");
    if answer.status == 200 && answer.json()["user"] == user {
        return true;
    }
    if login.status == 302 {
        super::assert_problem(&answer, 401, "limit");
    } else {
        super::assert_page(login, 401, "limit");
    }
    false
}
