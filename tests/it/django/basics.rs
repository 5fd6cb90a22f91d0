//! The limit itself: who stays, who goes, and who is never touched.

use super::{
    Case, assert_problem, assert_serves, assert_told, names, on_every_engine, sign_in, signed_in,
};
use crate::support::browser::password_of;
use crate::support::http::Request;

on_every_engine! {
    a_second_login_ends_the_first
    three_sessions_are_kept_and_a_fourth_login_ends_the_least_recently_used
    a_logout_frees_its_slot
    wrong_passwords_with_a_victims_name_change_nothing
    other_users_are_never_touched
}

fn a_second_login_ends_the_first(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    assert_told(&mut first, "limit");
    assert_serves(&mut second, &user);
    assert_eq!(proxy.live(&user), 1);

    let ended = proxy.wait_for_event("session_ended", &user);
    assert_eq!((&ended["reason"], &ended["initiator"]), (&"limit".into(), &"policy".into()));
    let created = proxy.has_events("session_created", &user, 2);
    assert_eq!(ended["session"], created[0]["session"]);
    assert_eq!(ended["by_session"], created[1]["session"]);
}

fn three_sessions_are_kept_and_a_fourth_login_ends_the_least_recently_used(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 3"), case.site().user());
    let mut browsers: Vec<_> = (0..3).map(|_| signed_in(&proxy, &user)).collect();
    for browser in browsers.iter_mut().rev() {
        assert_serves(browser, &user);
    }
    assert_eq!(proxy.live(&user), 3);
    let mut fourth = signed_in(&proxy, &user);
    assert_told(&mut browsers[2], "limit");
    for browser in [&mut fourth, &mut browsers.remove(0), &mut browsers.remove(0)] {
        assert_serves(browser, &user);
    }
    assert_eq!(proxy.live(&user), 3);
}

// N4
fn a_logout_frees_its_slot(case: Case) {
    let (proxy, user) = (case.proxy("limit.max_sessions = 2"), case.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    let answer = second.logout();
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert_eq!(second.cookie("sessionid"), None);
    assert_eq!(proxy.live(&user), 1);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "logout");

    let mut third = signed_in(&proxy, &user);
    assert_serves(&mut first, &user);
    assert_serves(&mut third, &user);
    assert_eq!(second.whoami(), None);
}

/// Security case E13, in the site's form and in the admin's.
fn wrong_passwords_with_a_victims_name_change_nothing(case: Case) {
    let (proxy, victim) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut browser = signed_in(&proxy, &victim);
    let before = browser.cookie("sessionid");
    let mut attacker = proxy.browser();
    attacker.get("/accounts/login/");
    let token = attacker.cookie("csrftoken").unwrap();
    for attempt in 0..1000 {
        let path = if attempt % 10 == 0 { "/admin/login/" } else { "/accounts/login/" };
        let password = format!("guess{attempt}");
        let form = [
            ("csrfmiddlewaretoken", token.as_str()),
            ("username", &victim),
            ("password", &password),
        ];
        let answer = attacker.post(path, &form);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(attacker.whoami(), None);
    assert_serves(&mut browser, &victim);
    assert_eq!(browser.cookie("sessionid"), before);
    assert_eq!(proxy.live(&victim), 1);
    proxy.has_events("session_created", &victim, 1);
    for kind in ["session_ended", "session_renewed", "session_denied"] {
        assert!(proxy.events(kind, &victim).is_empty(), "{kind}");
    }
}

// N5
fn other_users_are_never_touched(case: Case) {
    let proxy = case.proxy("limit.max_sessions = 1");
    let (noisy, quiet) = (case.site().user(), case.site().user());
    let mut visitor = proxy.browser();
    assert_eq!(visitor.get("/cart").status, 200);
    let mut browser = signed_in(&proxy, &quiet);
    for _ in 0..5 {
        signed_in(&proxy, &noisy);
    }
    assert_serves(&mut browser, &quiet);
    assert_eq!(visitor.get("/cart").json()["cart"], 2, "a visitor keeps the cart");
    assert!(proxy.events("session_ended", &quiet).is_empty());
    assert_eq!((proxy.live(&noisy), proxy.live(&quiet)), (1, 1));
}

#[test]
fn a_session_is_counted_wherever_its_user_signed_in() {
    let (proxy, staff) = (Case::PLAIN.proxy("limit.max_sessions = 1"), Case::PLAIN.site().staff());
    let mut first = proxy.browser();
    let answer = first.login_at("/admin/login/?next=/admin/", &staff, &password_of(&staff));
    assert_eq!((answer.status, answer.header("location")), (302, Some("/admin/")));
    assert_eq!(first.get("/admin/").status, 200);
    let mut second = proxy.browser();
    second.login_at("/admin/login/?next=/admin/", &staff, &password_of(&staff));
    assert_eq!(second.get("/admin/").status, 200);
    let page = first.get("/admin/");
    assert_eq!(page.status, 401);
    assert!(names(&page.text(), "limit"));

    let mut third = signed_in(&proxy, &staff);
    assert_told(&mut second, "limit");
    assert_eq!(third.get("/admin/").status, 200);
    assert_eq!(proxy.live(&staff), 1);
}

#[test]
fn the_order_of_eviction_is_the_operators_choice() {
    let site = Case::PLAIN.site();
    for (order, survivors) in
        [("least_recently_used", [true, false]), ("oldest_login", [false, true])]
    {
        let toml = format!("limit.max_sessions = 2\nlimit.evict_order = \"{order}\"");
        let (proxy, user) = (Case::PLAIN.proxy(&toml), site.user());
        let mut first = signed_in(&proxy, &user);
        let mut second = signed_in(&proxy, &user);
        assert_serves(&mut first, &user);
        signed_in(&proxy, &user);
        let served = [first.whoami().is_some(), second.whoami().is_some()];
        assert_eq!(served, survivors, "{order}");
    }
    let toml = "limit.max_sessions = 3\nlimit.evict_order = \"all_others\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), site.user());
    let mut browsers: Vec<_> = (0..4).map(|_| signed_in(&proxy, &user)).collect();
    assert_eq!(proxy.live(&user), 1);
    assert_serves(&mut browsers[3], &user);
}

#[test]
fn observing_records_what_enforcing_would_do_and_does_nothing() {
    let toml = "limit.max_sessions = 1\nenforcement.mode = \"observe\"";
    let (proxy, user) = (Case::PLAIN.proxy(toml), Case::PLAIN.site().user());
    let mut first = signed_in(&proxy, &user);
    let mut second = signed_in(&proxy, &user);
    assert_serves(&mut first, &user);
    assert_serves(&mut second, &user);
    let event = proxy.wait_for_event("session_ended", &user);
    assert_eq!((&event["mode"], &event["reason"]), (&"would_have".into(), &"limit".into()));
}

#[test]
fn a_limit_can_be_another_for_some_users() {
    let site = Case::PLAIN.site();
    let (single, double, free) = (site.user(), site.user(), site.user());
    let toml = format!(
        r#"limit.max_sessions = 1
        limit.override = [
            {{ users = ["{double}"], max_sessions = 2 }},
            {{ users = ["nobody", "*{free}"], max_sessions = "unlimited" }},
        ]"#
    );
    let proxy = Case::PLAIN.proxy(&toml);
    for (user, live) in [(&single, 1), (&double, 2), (&free, 4)] {
        for _ in 0..4 {
            signed_in(&proxy, user);
        }
        assert_eq!(proxy.live(user), live, "{user}");
    }
}

#[test]
fn a_script_is_told_in_json() {
    let (proxy, user) = (Case::PLAIN.proxy("limit.max_sessions = 1"), Case::PLAIN.site().user());
    let mut first = signed_in(&proxy, &user);
    signed_in(&proxy, &user);
    let upload = Request::form("/upload", &[("a", "b")]).xhr();
    let dead = first.cookie_line("/upload");
    assert_problem(&first.send(&upload), 401, "limit");
    assert_eq!(first.cookie("sessionid"), None);
    assert_problem(&first.send(&upload.header("Cookie", &dead)), 401, "limit");
    sign_in(&mut first, &user);
}
