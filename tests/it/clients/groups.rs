//! Limits by the groups that the app, or a proxy that is believed, says a user is in.

use super::{BALANCED, Visitor, WINDOWS, before_flask, flask};
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::legacy::{Arrived, LegacyApp, Reply};
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;

const LIMITS: &str = r#"
[[limit.group]]
groups = ["staff", "team-*"]
max_sessions = 2
[[limit.group]]
groups = "contractors"
max_sessions = 1
[[limit.group]]
groups = "roots"
max_sessions = "unlimited"
idle_timeout = "20m"
"#;

const RULES: &str = r#"
[[credential]]
at = "cookie:sid"
[[login]]
request = { methods = ["POST"], path = "/login" }
success = { status = [200] , sets = "sid" }
user = ["form:user"]
"#;

/// The app says which groups somebody is in, in the answer to the login and to whoever asks: those that
/// are named beside the user.
fn answer(arrived: &Arrived, number: usize) -> Reply {
    let [user, groups] = ["user", "groups"].map(|name| arrived.field(name).unwrap_or_default());
    let json = "Content-Type: application/json";
    match (arrived.method(), arrived.target()) {
        ("POST", "/login") => {
            let list: Vec<&str> = groups.split('+').collect();
            let body = serde_json::json!({ "user": { "name": user, "groups": list } });
            let plain = groups.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            let cookie = format!("Set-Cookie: sid={number}.{plain}; Path=/");
            Reply::page("200 OK", &[&cookie, json], &body.to_string())
        }
        ("GET", "/me") => match arrived.cookie("sid").and_then(|sid| sid.split_once('.')) {
            Some((_, groups)) => {
                let body = serde_json::json!({ "name": "carol", "in": groups.replace('_', ";") });
                Reply::page("200 OK", &[json], &body.to_string())
            }
            None => Reply::page("401 Unauthorized", &[json], "{}"),
        },
        _ => Reply::page("200 OK", &[], "hello"),
    }
}

fn app() -> LegacyApp {
    let numbers = std::sync::atomic::AtomicUsize::new(0);
    LegacyApp::start(move |arrived| {
        answer(arrived, numbers.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    })
}

/// The whole configuration but for the addresses.
fn configured(keys: &str, source: &str) -> String {
    format!(
        "limit.max_sessions = 4\n{BALANCED}{keys}\n[identity.groups]\n{source}\n{LIMITS}{RULES}"
    )
}

const IN_ANSWER: &str = "from = \"rjson:/user/groups\"";

/// `alice+staff+a,b` is alice in two groups.
#[track_caller]
fn sign_in(proxy: &Proxy, typed: &str) -> Visitor {
    let (user, groups) = typed.split_once('+').unwrap_or((typed, ""));
    let mut visitor = Visitor::new(proxy, WINDOWS, "192.0.2.1");
    let answer = visitor.send(Request::form("/login", &[("user", user), ("groups", groups)]));
    assert_eq!(answer.status, 200, "{typed}: {}", answer.text());
    assert!(answer.text().contains("groups"), "the answer goes on as it was: {}", answer.text());
    visitor
}

/// Signs in so often and tells how many sessions are left.
#[track_caller]
fn left(proxy: &Proxy, typed: &str, times: usize) -> usize {
    for _ in 0..times {
        sign_in(proxy, typed);
    }
    proxy.live(typed.split('+').next().unwrap())
}

#[test]
fn the_strictest_of_a_users_groups_is_the_limit() {
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured("", IN_ANSWER));
    for (typed, expected) in [
        ("anna", 4),
        ("bert+visitors", 4),
        ("cleo+STAFF", 2),
        ("dora+team-7+visitors", 2),
        ("emil+staff+contractors", 1),
        ("fritz+roots", 6),
        ("gina+roots+staff", 2),
        ("hugo+roots,contractors", 4),
    ] {
        assert_eq!(left(&proxy, typed, 6), expected, "{typed}");
    }
    let session = &proxy.sessions("dora", "live")[0];
    assert_eq!(session["groups"], serde_json::json!(["team-7", "visitors"]));
    let user = proxy.admin("GET", "/api/v1/users/emil").json();
    assert_eq!((&user["limit"], &user["live"]), (&1.into(), &1.into()));
    let event = &proxy.events("session_created", "cleo")[5];
    assert_eq!((&event["count"], &event["limit"]), (&2.into(), &2.into()));
    // What an admin sets for one user goes before; taken back, the groups count again.
    let command = |words: &[&str]| super::command(&proxy, words);
    command(&["users", "limit", "cleo", "3"]);
    assert_eq!(left(&proxy, "cleo+staff", 5), 3);
    let told = command(&["users", "limit", "cleo", "configured"]);
    assert!(told.contains("2 from the next"), "{told}");
    assert_eq!(left(&proxy, "cleo+staff", 1), 2);
    let shown = command(&["sessions", "show", session["id"].as_str().unwrap()]);
    assert!(shown.contains("group       team-7"), "{shown}");
    // Somebody who left a group has the limit of those that are left.
    assert_eq!(left(&proxy, "emil", 3), 4);
}

/// The client may write what it likes.
#[test]
fn a_header_counts_only_from_a_trusted_proxy() {
    let app = app();
    let source = "from = \"header:x-groups\"";
    let proxy = Proxy::start(app.address, None, &configured("", source));
    let send = |user: &str| {
        let mut visitor = Visitor::new(&proxy, WINDOWS, "192.0.2.1");
        let request = Request::form("/login", &[("user", user)]);
        assert_eq!(visitor.send(request.header("X-Groups", "visitors , contractors")).status, 200);
    };
    (0..3).for_each(|_| send("alice"));
    assert_eq!(proxy.live("alice"), 1);
    let toml = configured("", source).replace("127.0.0.1", "10.9.9.9");
    let proxy = Proxy::start(app.address, None, &toml);
    for _ in 0..5 {
        let mut browser = proxy.browser();
        let request = Request::form("/login", &[("user", "alice")]).header("X-Groups", "roots");
        assert_eq!(browser.send(&request).status, 200);
    }
    assert_eq!(proxy.live("alice"), 4, "the client is no proxy");
}

#[test]
fn the_probe_tells_groups_of_logins_and_of_sessions_that_are_older() {
    let app = app();
    let source = "probe = \"rjson:/in\"\nseparator = \";\"\n[identity.probe]\npath = \"/me\"\n\
        user = \"rjson:/name\"\nanonymous = { status = 401 }";
    let proxy = Proxy::start(app.address, None, &configured("", source));
    for _ in 0..3 {
        sign_in(&proxy, "carol+visitors+staff");
    }
    assert_eq!(proxy.live("carol"), 2);
    let mut older = Visitor::new(&proxy, WINDOWS, "192.0.2.1");
    older.browser.set_cookie("sid", "77.contractors");
    assert_eq!(older.get("/").status, 200);
    assert_eq!(proxy.live("carol"), 1);
    let groups = &proxy.sessions("carol", "live")[0]["groups"];
    assert_eq!(groups, &serde_json::json!(["contractors"]));
}

/// Groups are with the session: after a restart and on another replica, and a reload looks again.
#[test]
fn groups_outlive_restarts_reloads_and_cross_replicas() {
    let (app, database) = (app(), Database::create());
    let toml = configured("", IN_ANSWER);
    let mut one = Proxy::start_replica(app.address, &toml, &database.url(), None);
    let two = Proxy::start_replica(app.address, &toml, &database.url(), Some(&one));
    let (user, typed) = ("alice", "alice+roots");
    let mut visitor = sign_in(&one, typed);
    let expires = |proxy: &Proxy, minutes: i64| {
        eventually("the timeout is known", || {
            let session = proxy.sessions(user, "live").into_iter().next()?;
            let time = |key: &str| {
                let text = session[key].as_str()?.replace('T', " ");
                let clock = text.get(11..19)?;
                let numbers: Vec<i64> =
                    clock.split(':').map(|part| part.parse().unwrap()).collect();
                Some(numbers[0] * 3600 + numbers[1] * 60 + numbers[2])
            };
            let span = (time("expires_at")? - time("last_seen_at")?).rem_euclid(86_400);
            ((span - minutes * 60).abs() <= 1).then_some(())
        });
    };
    for proxy in [&one, &two] {
        expires(proxy, 20);
    }
    one.restart();
    expires(&one, 20);
    visitor.browser = visitor.browser.moved_to(one.address);
    assert_eq!(visitor.get("/").status, 200);
    for _ in 0..5 {
        sign_in(&two, typed);
    }
    let limit = &one.admin("GET", "/api/v1/users/alice").json()["limit"];
    assert_eq!(*limit, serde_json::Value::Null);
    one.edit("idle_timeout = \"20m\"", "idle_timeout = \"7m\"");
    assert_eq!(one.admin("POST", "/api/v1/reload").status, 200);
    expires(&one, 7);
    one.edit("groups = \"roots\"", "groups = \"branches\"");
    assert_eq!(one.admin("POST", "/api/v1/reload").status, 200);
    expires(&one, 30);
    assert_eq!(one.live(user), 6, "as to their number from the next login on");
    sign_in(&one, typed);
    assert_eq!(one.live(user), 4);
}

#[test]
fn too_many_groups_are_cut_and_those_with_a_limit_stay() {
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured("", IN_ANSWER));
    let many: Vec<String> = (0..500).map(|number| format!("g{number}")).collect();
    let typed = format!("alice+{}+contractors", many.join("+"));
    sign_in(&proxy, &typed);
    let groups = proxy.sessions("alice", "live")[0]["groups"].as_array().unwrap().clone();
    assert_eq!(groups.len(), 64);
    assert!(groups.contains(&"contractors".into()), "{groups:?}");
    // A real app that says nothing of groups.
    let flask_proxy = before_flask(&format!(
        "limit.max_sessions = 3\n[identity.groups]\nfrom = \"rheader:x-groups\"\n{LIMITS}"
    ));
    let user = flask().user();
    let _visitor = Visitor::new(&flask_proxy, WINDOWS, "192.0.2.1").sign_in_to_flask(&user);
    assert_eq!(flask_proxy.sessions(&user, "live")[0]["groups"], serde_json::json!([]));
}
