//! The cases that the test suites of existing limiters for Django hold, through the proxy. S: single
//! session; E: expire; A: allauth's user sessions; N: what none of them tests. Those that other
//! files hold: N1 race, N2 N3 identity, N4 basics and lifetime, N5 basics, N6 endings, N7 every
//! check of every file, N8 allauth, N9 lifetime.

use super::{Case, assert_serves, assert_told, on_every_engine, sign_in, signed_in};
use crate::support::browser::password_of;
use crate::support::eventually;

on_every_engine! {
    a_user_on_three_browsers_holds_one_session_at_a_time
    joe_and_jane_do_not_affect_each_other
    of_three_clients_the_last_two_stay
    two_browsers_are_listed_and_the_one_can_end_the_other
}

// S1
fn a_user_on_three_browsers_holds_one_session_at_a_time(case: Case) {
    let proxy = case.proxy("limit.max_sessions = 1");
    let (foo, bar) = (case.site().user(), case.site().user());
    let total = || proxy.live(&foo) + proxy.live(&bar);
    let mut first = signed_in(&proxy, &foo);
    let mut second = signed_in(&proxy, &foo);
    assert_eq!(total(), 1);
    assert_told(&mut first, "limit");
    let mut third = signed_in(&proxy, &bar);
    assert_eq!(total(), 2);
    sign_in(&mut first, &foo);
    assert_eq!(total(), 2);
    assert_told(&mut second, "limit");
    first.logout();
    assert_eq!(total(), 1);
    third.logout();
    assert_eq!(total(), 0);
}

// E1
fn joe_and_jane_do_not_affect_each_other(case: Case) {
    let proxy = case.proxy("limit.max_sessions = 1");
    let (joe, jane) = (case.site().user(), case.site().user());
    let mut joes = signed_in(&proxy, &joe);
    let mut janes = signed_in(&proxy, &jane);
    assert_serves(&mut joes, &joe);
    let mut joes_other = signed_in(&proxy, &joe);
    assert_eq!(joes.whoami(), None);
    assert_serves(&mut joes_other, &joe);
    assert_serves(&mut janes, &jane);
}

// E2
fn of_three_clients_the_last_two_stay(case: Case) {
    let (proxy, joe) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut clients: Vec<_> = (0..3).map(|_| signed_in(&proxy, &joe)).collect();
    let served: Vec<_> = clients.iter_mut().map(|client| client.whoami()).collect();
    assert_eq!(served, [None, Some(joe.clone()), Some(joe)]);
}

// A1
fn two_browsers_are_listed_and_the_one_can_end_the_other(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 5"), case.site().user());
    let mut first = proxy.browser().with_agent("first/1.0");
    let mut second = proxy.browser().with_agent("second/1.0");
    sign_in(&mut first, &user);
    sign_in(&mut second, &user);
    let sessions = proxy.sessions(&user, "live");
    let mut agents: Vec<_> = sessions
        .iter()
        .map(|session| session["client"]["user_agent"].as_str().unwrap_or_default())
        .collect();
    agents.sort_unstable();
    assert_eq!(agents, ["first/1.0", "second/1.0"]);
    let kept = sessions.iter().find(|one| one["client"]["user_agent"] == "first/1.0").unwrap();
    let id = kept["id"].as_str().unwrap();
    let answer = proxy.admin("DELETE", &format!("/api/v1/users/{user}/sessions?except={id}"));
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
    assert_eq!(proxy.live(&user), 1);
    assert_told(&mut second, "admin");
    assert_serves(&mut first, &user);
}

// S2
#[test]
fn a_limit_for_foo_leaves_bar_alone() {
    let site = Case::PLAIN.site();
    let (foo, bar) = (site.user(), site.user());
    let toml = format!(
        r#"limit.max_sessions = "unlimited"
        limit.override = [{{ users = ["{foo}"], max_sessions = 1 }}]"#
    );
    let proxy = Case::PLAIN.proxy(&toml);
    for user in [&foo, &bar] {
        signed_in(&proxy, user);
        signed_in(&proxy, user);
    }
    assert_eq!((proxy.live(&foo), proxy.live(&bar)), (1, 2));
}

// S3
#[test]
fn one_logout_ends_all_sessions_when_told_so() {
    let toml = "limit.max_sessions = \"unlimited\"\nlimit.logout_all = true";
    let (proxy, site) = (Case::PLAIN.proxy(toml), Case::PLAIN.site());
    let (foo, bar) = (site.user(), site.user());
    let mut foos: Vec<_> = (0..3).map(|_| signed_in(&proxy, &foo)).collect();
    let mut bars = signed_in(&proxy, &bar);
    assert_eq!(foos[0].logout().status, 302);
    assert_eq!((proxy.live(&foo), proxy.live(&bar)), (0, 1));
    assert_told(&mut foos[1], "logout");
    assert_told(&mut foos[2], "logout");
    assert_serves(&mut bars, &bar);
}

// S4
#[test]
fn one_logout_ends_one_session_otherwise() {
    let toml = "limit.max_sessions = \"unlimited\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut browsers: Vec<_> = (0..3).map(|_| signed_in(&proxy, &user)).collect();
    assert_eq!(browsers[0].logout().status, 302);
    assert_eq!(proxy.live(&user), 2);
    assert_serves(&mut browsers[1], &user);
    assert_serves(&mut browsers[2], &user);
}

// E3; in another limiter the bound also deletes other users' rows.
#[test]
fn the_history_of_each_user_is_as_long_as_told_and_no_longer() {
    for (key, ended) in [("", 9), ("history.keep_per_user = 2", 2)] {
        let proxy = Case::PLAIN.proxy(&format!("limit.max_sessions = 1\n{key}"));
        let (noisy, quiet) = (Case::PLAIN.site().user(), Case::PLAIN.site().user());
        let mut earlier = signed_in(&proxy, &quiet);
        let mut later = signed_in(&proxy, &quiet);
        let mut oldest = signed_in(&proxy, &noisy);
        for _ in 0..9 {
            signed_in(&proxy, &noisy);
        }
        eventually("the history has its length", || {
            (proxy.sessions(&noisy, "ended").len() == ended).then_some(())
        });
        assert_eq!(proxy.sessions(&quiet, "ended").len(), 1);
        assert_eq!((proxy.live(&noisy), proxy.live(&quiet)), (1, 1));
        assert_eq!(oldest.whoami(), None, "what the history forgot stays dead");
        assert_eq!(earlier.whoami(), None);
        assert_serves(&mut later, &quiet);
    }
}

// A2
#[test]
fn a_password_change_ends_the_others_or_all() {
    for (what, left) in [("end_others", 1), ("end_all", 0)] {
        let toml = format!("limit.max_sessions = 3\nlimit.password_change = \"{what}\"");
        let (proxy, user) = (Case::PLAIN.proxy(&toml), Case::PLAIN.site().user());
        let mut changing = signed_in(&proxy, &user);
        let mut other = signed_in(&proxy, &user);
        changing.change_password(&password_of(&user), "a-new-secret");
        assert_eq!(proxy.live(&user), left, "{what}");
        assert_eq!(changing.whoami().is_some(), left == 1, "{what}");
        assert_told(&mut other, "password_change");
    }
}
