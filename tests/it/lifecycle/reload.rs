//! Another configuration while it runs: all of it or nothing of it, and no request that notices.

use std::os::unix::fs::symlink;
use std::thread;
use std::time::Instant;

use super::load::Load;
use super::*;
use crate::support::http::{self, Response};
use crate::support::{eventually, soak};

const DONE: &str = "headcount_reloads_total{outcome=\"done\"}";
const FAILED: &str = "headcount_reloads_total{outcome=\"failed\"}";
const GOOD: &str = "headcount_config_last_reload_successful";

#[track_caller]
fn reload(proxy: &Proxy) -> Response {
    proxy.admin("POST", "/api/v1/reload")
}

#[track_caller]
fn reloaded(proxy: &Proxy) {
    let answer = reload(proxy);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hash = answer.json()["hash"].as_str().unwrap().to_owned();
    assert_eq!(count(proxy, &format!("headcount_config_info{{hash=\"{hash}\"}}")), 1);
}

/// What the answer of a reload that was refused says.
#[track_caller]
fn refused(proxy: &Proxy) -> String {
    let (before, hash) = (count(proxy, FAILED), config_hash(proxy));
    let answer = reload(proxy);
    assert_eq!((answer.status, &answer.json()["reason"]), (422, &"reload_refused".into()));
    assert_eq!((count(proxy, FAILED), count(proxy, GOOD)), (before + 1, 0));
    assert_eq!(config_hash(proxy), hash, "the old one is in force");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    let escaped = serde_json::to_string(detail.lines().next().unwrap()).unwrap();
    let escaped = escaped.trim_matches('"');
    eventually(&format!("the log says {escaped}"), || {
        let said =
            |line: &String| line.contains("configuration not reloaded") && line.contains(escaped);
        proxy.log().iter().any(said).then_some(())
    });
    detail
}

fn config_hash(proxy: &Proxy) -> String {
    let metrics = proxy.metrics();
    let mut lines = metrics.lines().filter(|line| line.starts_with("headcount_config_info{"));
    let line = lines.next().unwrap().to_owned();
    assert_eq!(lines.next(), None, "one is in force");
    line
}

#[test]
fn a_lowered_limit_holds_from_the_next_login_on() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 3");
    let mut browsers: Vec<_> = (0..3).map(|_| signed_in(&proxy, "alice")).collect();
    assert_eq!(proxy.live("alice"), 3);
    proxy.edit("max_sessions = 3", "max_sessions = 2");
    assert_eq!(signed_in(&proxy, "bob").get("/").status, 200);
    reloaded(&proxy);
    assert_eq!(proxy.live("alice"), 3, "nobody is thrown out by a reload");
    assert!(browsers.iter_mut().all(|browser| browser.get("/").status == 200));
    let mut fourth = signed_in(&proxy, "alice");
    assert_eq!((proxy.live("alice"), fourth.get("/").status), (2, 200));
    let ended = browsers.iter_mut().filter_map(|browser| match browser.get("/").status {
        401 => Some(()),
        200 => None,
        other => panic!("{other}"),
    });
    assert_eq!(ended.count(), 2);
    let limit = proxy.admin("GET", "/api/v1/users/alice").json()["limit"].clone();
    assert_eq!(limit, 2);
}

#[test]
fn timeouts_hold_for_sessions_that_are_there() {
    let app = app("app");
    let keys = "limit.max_sessions = 1\nsession.idle_timeout = \"1h\"";
    let mut proxy = proxy(&app, keys);
    let mut browser = signed_in(&proxy, "alice");
    proxy.edit("idle_timeout = \"1h\"", "idle_timeout = \"1s\"");
    reloaded(&proxy);
    let ended = proxy.wait_for_event("session_ended", "alice");
    assert_eq!(ended["reason"], "idle_timeout");
    assert_eq!(browser.get("/").status, 401);
}

#[test]
fn rules_app_pages_and_tokens_change() {
    let (first, second) = (app("first"), app("second"));
    let mut proxy = proxy(&first, "limit.max_sessions = 1");
    let mut alice = signed_in(&proxy, "alice");
    assert!(alice.get("/").text().starts_with("first sid=S"));
    // A login that no rule describes yet.
    let mut bob = proxy.browser();
    assert_eq!(bob.post("/enter", &[("user", "bob")]).status, 302);
    assert_eq!(proxy.live("bob"), 0);
    proxy.edit("path = \"/login\"", "path = [\"/login\", \"/enter\"]");
    let (old, new) = (first.address.to_string(), second.address.to_string());
    proxy.edit(&old, &new);
    reloaded(&proxy);
    assert_eq!(bob.post("/enter", &[("user", "bob")]).status, 302);
    assert_eq!(proxy.live("bob"), 1);
    assert!(alice.get("/").text().starts_with("second sid=S"), "the session goes on");
    // One more credential, then the first no more: the app gets it as it is, nobody is counted.
    proxy.edit("at = \"cookie:sid\"", "at = [\"cookie:sid\", \"cookie:other\"]");
    reloaded(&proxy);
    assert!(alice.get("/").text().starts_with("second sid=S"));
    proxy.edit("at = [\"cookie:sid\", \"cookie:other\"]", "at = \"cookie:other\"");
    proxy.edit("s = \"sid\"", "s = \"other\"");
    reloaded(&proxy);
    let page = alice.get("/");
    assert_eq!((page.status, page.text().contains(".hc1.")), (200, true), "{}", page.text());
    proxy.edit("at = \"cookie:other\"", "at = \"cookie:sid\"");
    proxy.edit("s = \"other\"", "s = \"sid\"");
    reloaded(&proxy);
    assert!(!alice.get("/").text().contains(".hc1."), "known again");
    assert_eq!(proxy.live("alice"), 1);
    // The token that orders it is not one any more when it is done.
    std::fs::write(proxy.folder().join("tests.token"), "another-0123456789abcdef").unwrap();
    assert_eq!(reload(&proxy).status, 200);
    assert_eq!(reload(&proxy).status, 401);
}

#[test]
fn enforcing_begins_and_ends() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1\nenforcement.mode = \"observe\"");
    let (mut first, mut second) = (signed_in(&proxy, "alice"), signed_in(&proxy, "alice"));
    assert_eq!(proxy.wait_for_event("session_ended", "alice")["mode"], "would_have");
    proxy.edit("\"observe\"", "\"enforce\"");
    reloaded(&proxy);
    assert_eq!(count(&proxy, "headcount_mode{mode=\"enforce\"}"), 1);
    // What was only observed is held against nobody; both count from here on.
    eventually("what would have ended is forgotten", || {
        proxy.sessions("alice", "live").iter().all(|one| one["would_end"].is_null()).then_some(())
    });
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let mut third = signed_in(&proxy, "alice");
    assert_eq!(
        (first.get("/").status, second.get("/").status, third.get("/").status),
        (401, 401, 200)
    );
    proxy.edit("\"enforce\"", "\"observe\"");
    reloaded(&proxy);
    signed_in(&proxy, "alice");
    assert_eq!(third.get("/").status, 200);
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 2\nserver.shutdown_grace = \"1s\"");
    let good = proxy.configuration();
    assert_eq!((count(&proxy, GOOD), count(&proxy, DONE)), (1, 0));
    // Half right: the limit is fine, the other key does not exist.
    proxy.edit("max_sessions = 2", "max_sessions = 1\nlimit.maximum = 3");
    let why = refused(&proxy);
    assert!(why.contains("limit.maximum") || why.contains("maximum"), "{why}");
    let (mut first, _second) = (signed_in(&proxy, "alice"), signed_in(&proxy, "alice"));
    assert_eq!((first.get("/").status, proxy.live("alice")), (200, 2));
    // What cannot change without a restart is named with both values.
    for (from, to, why) in [
        (
            "listen = \"127.0.0.1:0\"",
            "listen = \"127.0.0.1:9\"",
            "server.listen is [\"127.0.0.1:0\"] and cannot become [\"127.0.0.1:9\"] without a restart",
        ),
        (
            "sqlite://headcount.db",
            "sqlite://other.db",
            "store.url is \"sqlite://headcount.db\" and cannot become \"sqlite://other.db\"",
        ),
        ("key_file = \"headcount.key\"", "key_file = \"other.key\"", "store.key_file is"),
        (
            "limit.max_sessions = 2",
            "limit.max_sessions = 1\nserver.workers = 7\napp.name = \"x\"",
            "cannot become 7 without a restart; app.name is \"default\" and cannot become \"x\"",
        ),
    ] {
        proxy.write_configuration(&good.replacen(from, to, 1));
        let said = refused(&proxy);
        assert!(said.contains(why), "{said}\nhas not {why}");
    }
    proxy.write_configuration("");
    refused(&proxy);
    std::fs::remove_file(proxy.folder().join("headcount.toml")).unwrap();
    assert!(refused(&proxy).contains("cannot read"));
    proxy.write_configuration(&good);
    reloaded(&proxy);
    assert_eq!((count(&proxy, GOOD), count(&proxy, DONE)), (1, 1));
}

#[test]
fn only_an_admin_may_reload() {
    let app = app("app");
    let more = "{ name = \"ops\", role = \"operator\", secret = \"operator-0123456789\" }";
    let proxy = proxy(&app, "limit.max_sessions = 1");
    let text = proxy.configuration().replace(
        "secret_file = \"tests.token\" }",
        &format!("secret_file = \"tests.token\" }}, {more}"),
    );
    proxy.write_configuration(&text);
    reloaded(&proxy);
    let request = Request::new("POST", "/api/v1/reload")
        .header("Host", &proxy.admin_address.to_string())
        .header("Authorization", "Bearer operator-0123456789");
    let answer = http::send(proxy.admin_address, &request);
    assert_eq!((answer.status, &answer.json()["reason"]), (403, &"role_insufficient".into()));
    assert_eq!(count(&proxy, DONE), 1);
}

/// As the volumes of Kubernetes are updated: the folder behind a link changes.
#[test]
fn a_link_to_another_folder_is_followed() {
    let app = app("app");
    let proxy = proxy(&app, "limit.max_sessions = 1");
    let folder = proxy.folder();
    let text = proxy.configuration();
    for (name, max) in [("one", 1), ("two", 2)] {
        std::fs::create_dir(folder.join(name)).unwrap();
        let text = text.replace("max_sessions = 1", &format!("max_sessions = {max}"));
        std::fs::write(folder.join(name).join("headcount.toml"), text).unwrap();
    }
    std::fs::remove_file(folder.join("headcount.toml")).unwrap();
    symlink("one", folder.join("data")).unwrap();
    symlink("data/headcount.toml", folder.join("headcount.toml")).unwrap();
    reloaded(&proxy);
    symlink("two", folder.join("data.new")).unwrap();
    std::fs::rename(folder.join("data.new"), folder.join("data")).unwrap();
    reloaded(&proxy);
    let (mut first, mut second) = (signed_in(&proxy, "alice"), signed_in(&proxy, "alice"));
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
}

/// Somebody's editor writes the file in place, piece by piece; half of it would be fine too.
#[test]
fn a_file_that_is_being_written_is_waited_for() {
    let app = app("app");
    let proxy = proxy(&app, "limit.max_sessions = 1");
    let text = proxy.configuration().replace("max_sessions = 1", "max_sessions = 2");
    let path = proxy.folder().join("headcount.toml");
    let half = text.find("[[logout]]").unwrap();
    let attempt = || {
        std::fs::write(&path, &text[..half]).unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut longest = Duration::ZERO;
                for end in half..half + 40 {
                    let started = Instant::now();
                    std::fs::write(&path, &text[..end]).unwrap();
                    thread::sleep(Duration::from_millis(10));
                    longest = longest.max(started.elapsed());
                }
                std::fs::write(&path, &text).unwrap();
                longest
            });
            let status = reload(&proxy).status;
            (status, writer.join().unwrap())
        })
    };
    // Who stops in the middle for so long has finished, for all that anybody can see.
    let waited_for = (0..100).any(|_| {
        let (status, longest) = attempt();
        assert!(status == 200 || longest > Duration::from_millis(30), "{status} {longest:?}");
        status == 200
    });
    assert!(waited_for);
    assert!(proxy.live("alice") == 0);
    let mut alice = signed_in(&proxy, "alice");
    assert_eq!(alice.post("/logout", &[]).status, 200);
    reloaded(&proxy);
    assert_eq!(count(&proxy, DONE), 2);
}

/// Reloads while requests and logins go on: each request has one configuration from its beginning to
/// its end, and none fails.
fn reloads(rounds: u64) {
    let app = app("app");
    let proxy = proxy(&app, "limit.max_sessions = 1000\nserver.limits.headers = 99");
    let text = proxy.configuration();
    let served = Load::during(proxy.address, |load| {
        for number in 0..rounds {
            let max = 1000 + number % 7;
            proxy.write_configuration(&text.replace("= 1000", &format!("= {max}")));
            let before = count(&proxy, DONE);
            match number % 2 {
                0 => assert_eq!(reload(&proxy).status, 200),
                _ => {
                    proxy.signal("HUP");
                    eventually("it is reloaded", || (count(&proxy, DONE) > before).then_some(()));
                }
            }
            let mut browser = signed_in(&proxy, &format!("user{number}"));
            assert_eq!(browser.get("/").status, 200);
            load.wait_for(5);
        }
    });
    assert!(served > rounds * 5, "{served}");
    assert_eq!((count(&proxy, FAILED), count(&proxy, GOOD), count(&proxy, DONE)), (0, 1, rounds));
    // Signals that come during a reload count as one, the last is obeyed.
    for max in 1100..1120 {
        proxy.write_configuration(&text.replace("= 1000", &format!("= {max}")));
        proxy.signal("HUP");
    }
    proxy.write_configuration(&text.replace("= 1000", "= 1234"));
    reloaded(&proxy);
    assert_eq!(proxy.admin("GET", "/api/v1/users/alice").json()["limit"], 1234);
    assert_eq!((count(&proxy, FAILED), count(&proxy, GOOD)), (0, 1));
}

#[test]
fn soak_reloads_cost_no_request() {
    reloads(if soak() { 500 } else { 100 });
}
