//! Two replicas on one PostgreSQL: an end at one is an end at the other.

use std::sync::atomic::AtomicU32;

use super::{answer, csrf, listed, own_id, press};
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::legacy::{LegacyApp, RULES};
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;

#[test]
fn a_session_at_another_replica_is_seen_and_ended() {
    let numbers = AtomicU32::new(0);
    let app = LegacyApp::start(move |arrived| answer(arrived, &numbers));
    let database = Database::create();
    let toml =
        |number| format!("server.node = \"replica-{number}\"\nlimit.max_sessions = 5\n{RULES}");
    let one = Proxy::start_replica(app.address, &toml(1), &database.url(), None);
    let two = Proxy::start_replica(app.address, &toml(2), &database.url(), Some(&one));
    let sign_in = |proxy: &Proxy| {
        let mut browser = proxy.browser();
        assert_eq!(browser.post("/login", &[("user", "alice")]).status, 302);
        browser
    };
    let (mut here, mut there) = (sign_in(&one), sign_in(&two));
    // Known by the store at once, whoever has heard of it.
    assert_eq!(listed(&mut here)["sessions"].as_array().unwrap().len(), 2);
    let id = own_id(&mut there);
    assert_eq!(press(&mut here, &id).status, 303);
    eventually("it has ended at its own replica", || {
        (there.fetch_json("/").status == 401).then_some(())
    });
    assert_eq!(there.send(&super::scripted("/.headcount/end-others", "{}")).status, 401);

    // Who has been ended elsewhere ends nobody, not even in the moment before it is known here.
    let mut third = sign_in(&two);
    let token = csrf(&mut third);
    eventually("it is known at the first", || {
        (third.moved_to(one.address).fetch_json("/.headcount/").status == 200).then_some(())
    });
    let mut third_at_one: Browser = third.moved_to(one.address);
    let id = own_id(&mut third);
    let mut at_two = here.moved_to(two.address);
    eventually("the first is known at the second", || {
        (at_two.fetch_json("/.headcount/").status == 200).then_some(())
    });
    assert_eq!(press(&mut at_two, &id).status, 303);
    let late = third_at_one.post("/.headcount/end-others", &[("csrf", &token)]);
    assert_eq!(late.status, 401, "{}", late.text());
    assert_eq!(here.get("/").text(), "hello");
    assert_eq!(one.live("alice"), 1);
}
