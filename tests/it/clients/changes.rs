//! A session whose requests come from another client: told once, or the end of it.

use std::sync::Barrier;
use std::thread;

use serde_json::Value;

use super::{BALANCED, PHONE, Visitor, WINDOWS, before_django, before_flask, django, flask};
use crate::support::http::Request;
use crate::support::legacy::{LegacyApp, RULES, Reply};
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;
use crate::support::{eventually, top};

const NEWER: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0";
const STOLEN: &str = "curl/8.5.0 \u{202e}";

fn changing(keys: &str) -> String {
    let keys: String =
        keys.lines().map(|key| format!("session.client_change.{}\n", key.trim())).collect();
    format!("limit.max_sessions = 5\n{keys}")
}

fn places() -> String {
    format!("geo.database = '{}'\n", top().join("tests/geo/places.mmdb").display())
}

fn is(event: &Value, key: &str, value: &str) {
    assert_eq!(event[key], value, "{key}: {event}");
}

#[test]
fn a_change_is_told_once_and_the_session_goes_on() {
    let toml = changing("address = \"prefix\"\nuser_agent = \"browser\"") + &places();
    let (mut proxy, user) = (before_django(&toml), django().user());
    let mut visitor = Visitor::new(&proxy, WINDOWS, "192.0.2.1").sign_in_to_django(&user);
    // Another address of the network, another version of the browser.
    visitor = visitor.at("192.0.2.200").with_agent(NEWER);
    for _ in 0..3 {
        assert_eq!(visitor.whoami().as_ref(), Some(&user));
    }
    visitor = visitor.at("203.0.113.9").with_agent(PHONE);
    for _ in 0..20 {
        assert_eq!(visitor.whoami().as_ref(), Some(&user));
    }
    let event = proxy.wait_for_event("session_client_changed", &user);
    is(&event, "client_address", "203.0.113.9");
    is(&event, "user_agent", PHONE);
    is(&event, "country", "BR");
    is(&event, "previous_address", "192.0.2.1");
    is(&event, "previous_user_agent", WINDOWS);
    is(&event, "previous_country", "DE");
    is(&event, "initiator", "user");
    let session = &proxy.sessions(&user, "live")[0];
    assert_eq!(event["session"], session["id"]);
    assert_eq!(session["client"]["address"], "203.0.113.9", "it goes on with the new client");
    // To and fro: no more than once in a while.
    for turn in 0..20 {
        let (address, agent) =
            if turn % 2 == 0 { ("192.0.2.1", WINDOWS) } else { ("203.0.113.9", PHONE) };
        visitor = visitor.at(address).with_agent(agent);
        assert_eq!(visitor.whoami().as_ref(), Some(&user));
    }
    // Over a restart it is known who was there.
    proxy.restart();
    visitor.browser = visitor.browser.moved_to(proxy.address);
    visitor = visitor.at("203.0.113.77").with_agent(PHONE);
    assert_eq!(visitor.whoami().as_ref(), Some(&user));
    let mut other = Visitor::new(&proxy, WINDOWS, "192.0.2.1");
    other.browser.jar = visitor.browser.jar.clone();
    assert_eq!(other.whoami().as_ref(), Some(&user));
    let events = proxy.has_events("session_client_changed", &user, 2);
    is(&events[1], "client_address", "192.0.2.1");
    is(&events[1], "previous_address", "203.0.113.9");
    assert_eq!(proxy.events("session_ended", &user).len(), 0);
}

#[test]
fn a_stolen_cookie_ends_the_session_before_the_app_sees_it() {
    let toml = changing("user_agent = \"browser\"\non_change = \"end\"");
    let (proxy, user) = (before_flask(&toml), flask().user());
    let mut owner = Visitor::new(&proxy, WINDOWS, "192.0.2.1").sign_in_to_flask(&user);
    owner = owner.at("203.0.113.9").with_agent(NEWER);
    assert_eq!(owner.whoami().as_ref(), Some(&user), "only browser and system count");
    let mut thief = Visitor::new(&proxy, STOLEN, "192.0.2.1");
    thief.browser.jar = owner.browser.jar.clone();
    let told = thief.send(Request::get("/whoami").xhr());
    assert_eq!((told.status, told.json()["reason"].as_str()), (401, Some("client_changed")));
    assert_eq!(owner.whoami(), None);
    let mut page = Visitor::new(&proxy, WINDOWS, "192.0.2.1");
    page.browser.jar = owner.browser.jar.clone();
    let event = proxy.wait_for_event("session_client_changed", &user);
    is(&event, "user_agent", "curl/8.5.0 \\u{202e}");
    is(&event, "previous_user_agent", WINDOWS);
    let ended = proxy.wait_for_event("session_ended", &user);
    is(&ended, "reason", "client_changed");
    is(&ended, "initiator", "policy");
    assert_eq!(ended["session"], event["session"]);
    let session = &proxy.sessions(&user, "ended")[0];
    assert_eq!(session["end"]["reason"], "client_changed");
    assert_eq!(session["client"]["user_agent"], WINDOWS, "whose session it was");
}

/// However many requests come at once, and whatever they ask for.
#[test]
fn nothing_of_a_thief_goes_to_the_app() {
    let app = LegacyApp::start(|arrived| match (arrived.method(), arrived.target()) {
        ("POST", "/login") => {
            Reply::page("302 Found", &["Set-Cookie: sid=one; Path=/", "Location: /"], "")
        }
        _ => {
            let stolen =
                arrived.header("user-agent").is_some_and(|agent| agent.starts_with("curl"));
            assert!(!stolen || arrived.cookie("sid").is_none(), "{}", arrived.head);
            Reply::page("200 OK", &[], "hello")
        }
    });
    let toml = changing("user_agent = \"exact\"\non_change = \"end\"");
    let proxy = Proxy::start(app.address, None, &format!("{BALANCED}{toml}{RULES}"));
    for round in 0..10 {
        let user = format!("user{round}");
        let mut owner = Visitor::new(&proxy, WINDOWS, "192.0.2.1");
        assert_eq!(owner.send(Request::form("/login", &[("user", &user)])).status, 302);
        assert_eq!(owner.get("/").status, 200);
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for number in 0..8 {
                let (jar, proxy, barrier) = (owner.browser.jar.clone(), &proxy, &barrier);
                scope.spawn(move || {
                    let mut thief = Visitor::new(proxy, STOLEN, "192.0.2.1");
                    thief.browser.jar = jar;
                    barrier.wait();
                    let answer = match number % 3 {
                        0 => thief.send(Request::get("/").xhr()),
                        1 => thief.send(Request::get("/.headcount/").xhr()),
                        _ => thief.send(Request::form("/buy", &[("what", "all")]).xhr()),
                    };
                    assert_eq!(answer.status, 401, "{}", answer.text());
                });
            }
        });
        proxy.has_events("session_client_changed", &user, 1);
        proxy.has_events("session_ended", &user, 1);
    }
}

#[test]
fn observing_ends_nothing_and_tells_what_would_end() {
    let keys = changing("address = \"country\"\non_change = \"end\"");
    let toml = format!("enforcement.mode = \"observe\"\n{keys}{}", places());
    let (proxy, user) = (before_flask(&toml), flask().user());
    let mut visitor = Visitor::new(&proxy, WINDOWS, "192.0.2.1").sign_in_to_flask(&user);
    visitor = visitor.at("127.0.0.9");
    assert_eq!(visitor.whoami().as_ref(), Some(&user), "the same country");
    visitor = visitor.at("198.51.100.7");
    for _ in 0..5 {
        assert_eq!(visitor.whoami().as_ref(), Some(&user));
    }
    let events = proxy.has_events("session_ended", &user, 1);
    is(&events[0], "mode", "would_have");
    is(&events[0], "reason", "client_changed");
    let changed = proxy.has_events("session_client_changed", &user, 1);
    is(&changed[0], "country", "JP");
    let session = &proxy.sessions(&user, "live")[0];
    assert_eq!(session["would_end"]["reason"], "client_changed", "{session}");
}

/// What the metrics page says; `name` with its blank.
#[track_caller]
fn number(proxy: &Proxy, name: &str) -> u64 {
    let metrics = proxy.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().parse().unwrap()
}

#[test]
fn two_replicas_tell_a_change_once_and_agree_on_the_end() {
    let database = Database::create();
    let start = |keys: &str, node: &str, first: Option<&Proxy>| {
        let rules = format!(
            "{BALANCED}server.node = \"{node}\"\n{}app.preset = \"flask-login\"\n",
            changing(keys)
        );
        Proxy::start_replica(flask().address, &rules, &database.url(), first)
    };
    let keys = "address = \"exact\"\nuser_agent = \"exact\"";
    let mut one = start(keys, "one", None);
    let two = start(keys, "two", Some(&one));
    let user = flask().user();
    let mut visitor = Visitor::new(&one, WINDOWS, "192.0.2.1").sign_in_to_flask(&user);
    eventually("the other replica knows the session", || {
        (number(&two, "headcount_sessions_live ") == 1).then_some(())
    });
    let before = number(&two, "headcount_store_transaction_seconds_count ");
    // It does not know the client from the login.
    visitor.browser = visitor.browser.moved_to(two.address);
    assert_eq!(visitor.whoami().as_ref(), Some(&user));
    eventually("the other replica has asked the store", || {
        (number(&two, "headcount_store_transaction_seconds_count ") > before).then_some(())
    });
    visitor = visitor.at("192.0.2.2");
    for proxy in [&one, &two, &one, &two] {
        visitor.browser = visitor.browser.moved_to(proxy.address);
        assert_eq!(visitor.whoami().as_ref(), Some(&user));
    }
    let told = |proxy: &Proxy| proxy.events("session_client_changed", &user).len();
    eventually("it is told", || (told(&one) + told(&two) > 0).then_some(()));
    // What is under way when a replica stops is finished first.
    one.terminate();
    assert_eq!(told(&one) + told(&two), 1);
    one.start_again();
    let mut ending = start(&format!("{keys}\non_change = \"end\""), "three", Some(&two));
    visitor.browser = visitor.browser.moved_to(ending.address);
    assert_eq!(visitor.whoami().as_ref(), Some(&user));
    let mut thief = Visitor::new(&ending, WINDOWS, "203.0.113.9");
    thief.browser.jar = visitor.browser.jar.clone();
    assert_eq!(thief.whoami(), None);
    for proxy in [&one, &two] {
        // Not by asking: an answer under way at the end is cut.
        eventually("the others know", || {
            (number(proxy, "headcount_sessions_live ") == 0).then_some(())
        });
        visitor.browser = visitor.browser.moved_to(proxy.address);
        assert_eq!(visitor.whoami(), None);
    }
    assert_eq!(database.sql("SELECT end_reason FROM headcount.sessions").trim(), "client_changed");
    ending.terminate();
}

#[test]
fn without_the_store_a_changed_request_is_refused_and_others_go_on() {
    let database = Database::on_its_own();
    let keys = changing("user_agent = \"exact\"\non_change = \"end\"");
    let toml = format!(
        "{BALANCED}store.grace = \"60s\"\nstore.timeout = \"1s\"\n{keys}app.preset = \"flask-login\"\n"
    );
    let proxy = Proxy::start_replica(flask().address, &toml, &database.url(), None);
    let user = flask().user();
    let mut owner = Visitor::new(&proxy, WINDOWS, "192.0.2.1").sign_in_to_flask(&user);
    let mut thief = Visitor::new(&proxy, STOLEN, "192.0.2.1");
    thief.browser.jar = owner.browser.jar.clone();
    database.crash_server();
    assert_eq!(owner.whoami().as_ref(), Some(&user));
    let refused = thief.send(Request::get("/whoami").xhr());
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(owner.whoami().as_ref(), Some(&user));
}
