//! The limit itself, from login to logout.

use std::thread;

use super::{Case, on_every_site, on_site};
use crate::support::browser::password_of;

on_every_site! {
    a_second_login_ends_the_first
    three_sessions_are_kept
    a_login_can_be_denied_instead
    wrong_passwords_with_a_victims_name_change_nothing
    a_second_login_in_one_browser_keeps_one_session
    another_user_in_one_browser_replaces_the_first
    a_logout_frees_its_slot
    other_users_are_never_touched
    one_device_is_ended_and_the_other_lives
    requests_side_by_side_are_no_logout
}

on_site! {
    on_wordpress WORDPRESS:
    a_second_login_ends_the_first
    three_sessions_are_kept
    a_login_can_be_denied_instead
    wrong_passwords_with_a_victims_name_change_nothing
    a_second_login_in_one_browser_keeps_one_session
    another_user_in_one_browser_replaces_the_first
    a_logout_frees_its_slot
    other_users_are_never_touched
    one_device_is_ended_and_the_other_lives
}

on_site! {
    on_tomcat TOMCAT:
    a_second_login_ends_the_first
    three_sessions_are_kept
    a_login_can_be_denied_instead
    wrong_passwords_with_a_victims_name_change_nothing
    a_logout_frees_its_slot
    other_users_are_never_touched
    one_device_is_ended_and_the_other_lives
}

fn a_second_login_ends_the_first(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut first = case.signed_in(&proxy, &user);
    let mut second = case.signed_in(&proxy, &user);
    case.assert_told(&mut first);
    case.assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "limit");
    case.sign_in(&mut first, &user);
    case.assert_told(&mut second);
}

fn three_sessions_are_kept(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 3"), case.site().user());
    let mut browsers: Vec<_> = (0..4).map(|_| case.signed_in(&proxy, &user)).collect();
    case.assert_told(&mut browsers[0]);
    for browser in &mut browsers[1..] {
        case.assert_serves(browser, &user);
    }
    assert_eq!(proxy.live(&user), 3);
}

fn a_login_can_be_denied_instead(case: Case) {
    let toml = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"1h\"";
    let (proxy, user) = (case.proxy(toml), case.site().user());
    let mut first = case.signed_in(&proxy, &user);
    let mut second = proxy.browser();
    second.get(&case.path("login"));
    let answer = case.try_login(&mut second, &user, &password_of(&user));
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(case.whoami(&mut second), None);
    case.assert_serves(&mut first, &user);
    case.log_out(&mut first);
    case.sign_in(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);
}

/// From a fresh browser and from another user's session.
fn wrong_passwords_with_a_victims_name_change_nothing(case: Case) {
    let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
    let (victim, other) = (site.user(), site.user());
    let mut browser = case.signed_in(&proxy, &victim);
    let mut signed_in = case.signed_in(&proxy, &other);
    let attempts = if case.preset == "wordpress" { 40 } else { 200 };
    for attempt in 0..attempts {
        let mut fresh = proxy.browser();
        let again = attempt % 4 == 0;
        let attacker = if again { &mut signed_in } else { &mut fresh };
        let answer = case.try_login(attacker, &victim, &format!("guess{attempt}"));
        let expected: &[u16] = if again && case.guests_only() { &[403] } else { case.wrong };
        assert!(expected.contains(&answer.status), "{} {}", answer.status, answer.text());
        assert_ne!(case.whoami(attacker).as_deref(), Some(victim.as_str()));
    }
    case.assert_serves(&mut browser, &victim);
    case.assert_serves(&mut signed_in, &other);
    assert_eq!((proxy.live(&victim), proxy.live(&other)), (1, 1));
    proxy.has_events("session_created", &victim, 1);
    for kind in ["session_ended", "session_renewed", "session_denied"] {
        assert!(proxy.events(kind, &victim).is_empty(), "{kind}");
    }
}

fn a_second_login_in_one_browser_keeps_one_session(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut other = case.signed_in(&proxy, &user);
    let mut browser = case.signed_in(&proxy, &user);
    for _ in 0..3 {
        case.sign_in(&mut browser, &user);
    }
    assert_eq!(proxy.live(&user), 2);
    case.assert_serves(&mut other, &user);
    assert!(proxy.events("session_ended", &user).is_empty());
}

/// Where the cookie stays as it is, the operator has to say that this means something.
fn another_user_in_one_browser_replaces_the_first(case: Case) {
    if case.guests_only() {
        return another_user_in_one_browser_has_to_wait_for_the_logout(case);
    }
    let toml = format!("limit.max_sessions = 1\n{}", in_place(case));
    let (proxy, site) = (case.proxy(&toml), case.site());
    let (before, after) = (site.user(), site.user());
    let mut elsewhere = case.signed_in(&proxy, &after);
    let mut browser = case.signed_in(&proxy, &before);
    let dead = browser.cookie_line("/");
    case.sign_in(&mut browser, &after);
    assert_eq!((proxy.live(&before), proxy.live(&after)), (0, 1));
    assert_eq!(proxy.wait_for_event("session_ended", &before)["reason"], "replaced");
    case.assert_told(&mut elsewhere);
    let mut thief = proxy.browser();
    for pair in dead.split("; ") {
        let (name, value) = pair.split_once('=').unwrap();
        thief.set_cookie(name, value);
    }
    assert_eq!(case.whoami(&mut thief), None);
    case.assert_serves(&mut browser, &after);
}

/// The app turns the second user away without a look at the password, and answers as if it had.
fn another_user_in_one_browser_has_to_wait_for_the_logout(case: Case) {
    let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
    let (before, after) = (site.user(), site.user());
    let mut elsewhere = case.signed_in(&proxy, &after);
    let mut browser = case.signed_in(&proxy, &before);
    let answer = case.try_login(&mut browser, &after, &password_of(&after));
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("Sign out first"), "{}", answer.text());
    case.assert_serves(&mut browser, &before);
    case.assert_serves(&mut elsewhere, &after);
    case.log_out(&mut browser);
    case.sign_in(&mut browser, &after);
    case.assert_told(&mut elsewhere);
    assert_eq!((proxy.live(&before), proxy.live(&after)), (0, 1));
}

fn in_place(case: Case) -> &'static str {
    if case.app == super::PHP_SAME_ID.app { IN_PLACE } else { "" }
}

/// The preset's rule with one word more.
const IN_PLACE: &str = r#"
[[login]]
request = { methods = ["POST"], path = ["/login.php"] }
success = { status = ["302"], location = ["!/login.php*"] }
user = ["form:username"]
in_place = true
"#;

fn a_logout_frees_its_slot(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut first = case.signed_in(&proxy, &user);
    let mut second = case.signed_in(&proxy, &user);
    case.log_out(&mut second);
    assert_eq!(proxy.live(&user), 1);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "logout");
    assert_eq!(case.whoami(&mut second), None);
    // At once, with whatever cookies the logout left, and after another page.
    for page in ["login", "whoami"] {
        case.sign_in(&mut second, &user);
        assert_eq!(proxy.live(&user), 2);
        case.log_out(&mut second);
        second.get(&case.path(page));
    }
    let mut third = case.signed_in(&proxy, &user);
    case.assert_serves(&mut first, &user);
    case.assert_serves(&mut third, &user);
}

fn other_users_are_never_touched(case: Case) {
    let (proxy, site) = (case.proxy("limit.max_sessions = 1"), case.site());
    let (noisy, quiet) = (site.user(), site.user());
    let mut browser = case.signed_in(&proxy, &quiet);
    for _ in 0..5 {
        case.signed_in(&proxy, &noisy);
    }
    case.assert_serves(&mut browser, &quiet);
    assert!(proxy.events("session_ended", &quiet).is_empty());
    assert_eq!((proxy.live(&noisy), proxy.live(&quiet)), (1, 1));
}

/// Whether the app gave both the same value or not.
fn one_device_is_ended_and_the_other_lives(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let (mut first, mut second) = (proxy.browser(), proxy.browser());
    case.sign_in(&mut first, &user);
    case.sign_in(&mut second, &user);
    let sessions = proxy.sessions(&user, "live");
    assert_eq!(sessions.len(), 2);
    let oldest = sessions.iter().min_by_key(|session| session["created_at"].to_string());
    let id = oldest.unwrap()["id"].as_str().unwrap().to_owned();
    let answer = proxy.admin("DELETE", &format!("/api/v1/sessions/{id}"));
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
    let served = [case.whoami(&mut first), case.whoami(&mut second)];
    assert_eq!(served.iter().flatten().count(), 1, "{served:?}");
    let mut left = if served[0].is_some() { first } else { second };
    // Nor does logging the ended one out at the app reach it.
    case.assert_serves(&mut left, &user);
    assert_eq!(proxy.live(&user), 1);
}

/// Every answer brings another cookie.
fn requests_side_by_side_are_no_logout(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut browser = case.signed_in(&proxy, &user);
    let before = case.cookie(&browser);
    let answers: Vec<_> = thread::scope(|scope| {
        let sent: Vec<_> = (0..20)
            .map(|_| {
                let mut tab = browser.moved_to(proxy.address);
                scope.spawn(move || {
                    let answer = tab.fetch_json(&case.path("touch"));
                    (answer, tab)
                })
            })
            .collect();
        sent.into_iter().map(|tab| tab.join().unwrap()).collect()
    });
    for (answer, mut tab) in answers {
        assert_eq!((answer.status, &answer.json()["user"]), (200, &user.as_str().into()));
        case.assert_serves(&mut tab, &user);
        browser = tab;
    }
    let changes = case.preset != "express-passport";
    assert_eq!(case.cookie(&browser) != before, changes);
    assert_eq!(proxy.live(&user), 1);
    assert!(proxy.events("session_ended", &user).is_empty());
}
