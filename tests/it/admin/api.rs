//! The API: who may do what, filters and pages, limits of single users, events, its description.

use std::process::Command;

use serde_json::Value;

use super::{ADMIN, OPERATOR, Office, VIEWER};
use crate::support::http::{Connection, Request};
use crate::support::{eventually, top};

fn ids(page: &Value) -> Vec<&str> {
    let sessions = page["sessions"].as_array().unwrap().iter();
    sessions.map(|session| session["id"].as_str().unwrap()).collect()
}

#[test]
fn each_role_may_do_what_it_may_and_no_more() {
    let office = Office::open("");
    let [vip, ordinary] = ["root", "alice"].map(|user| office.sign_in(user, "one"));
    let body = r#"{"max_sessions": 3}"#;
    let calls = [
        ("GET", "/sessions".to_owned(), 1),
        ("GET", format!("/sessions/{ordinary}"), 1),
        ("GET", "/users/alice".to_owned(), 1),
        ("GET", "/limits".to_owned(), 1),
        ("GET", "/events".to_owned(), 1),
        ("GET", "/report".to_owned(), 1),
        ("GET", "/openapi.json".to_owned(), 1),
        ("DELETE", format!("/sessions/{ordinary}"), 2),
        ("DELETE", "/users/alice/sessions".to_owned(), 2),
        ("DELETE", format!("/sessions/{vip}"), 3),
        ("DELETE", "/users/root/sessions".to_owned(), 3),
        ("PUT", "/users/alice/limit".to_owned(), 3),
        ("DELETE", "/users/alice/limit".to_owned(), 3),
        ("POST", "/reload".to_owned(), 3),
        ("GET", "/backup".to_owned(), 3),
        ("GET", "/users/nobody/export".to_owned(), 3),
        ("DELETE", "/users/nobody".to_owned(), 3),
        ("DELETE", "/sessions?confirm=shop".to_owned(), 3),
    ];
    for (secret, role) in [("", 0), (VIEWER, 1), (OPERATOR, 2), (ADMIN, 3)] {
        for (method, path, needed) in &calls {
            let mut request = office.request(method, &format!("/api/v1{path}"), secret);
            if role == 0 {
                request.headers.retain(|(name, _)| name != "Authorization");
            }
            if *method == "PUT" {
                let json = request.header("Content-Type", "application/json");
                request = json.body(body.as_bytes().to_vec());
            }
            let answer = office.send(&request);
            let may = match (role, role >= *needed) {
                // The brake comes in after ten.
                (0, _) => matches!(answer.status, 401 | 429),
                (_, true) => answer.status == 200,
                (_, false) => answer.status == 403,
            };
            assert!(may, "role {role}: {method} {path}: {} {}", answer.status, answer.text());
        }
    }
    assert_eq!(office.call("GET", "/sessions", ADMIN).1["sessions"], Value::Array(Vec::new()));
    let (_, trail) = office.call("GET", "/events?initiator=admin", VIEWER);
    let mut done: Vec<(&str, &str)> = trail["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["by"].as_str().unwrap(), event["event"].as_str().unwrap()))
        .collect();
    done.reverse();
    let expected = [
        ("desk", "session_ended"),
        ("tests", "session_ended"),
        ("tests", "limit_changed"),
        ("tests", "limit_changed"),
        ("tests", "config_reloaded"),
        ("tests", "backup_taken"),
        // What was about the user who is forgotten is, too.
        ("tests", "user_erased"),
    ];
    assert_eq!(done, expected, "who did what");
}

#[test]
fn sessions_are_filtered_and_paged_while_they_change() {
    let office = Office::open("limit.max_sessions = \"unlimited\"");
    let first: Vec<String> = (0..5).map(|_| office.sign_in("alice", "one")).collect();
    office.sign_in("bob", "one");
    let (_, page) = office.call("GET", "/sessions?user=ALICE&limit=2", VIEWER);
    assert_eq!(ids(&page), [&*first[4], &*first[3]]);
    // What comes and goes meanwhile neither repeats nor hides what was there.
    office.sign_in("alice", "one");
    assert_eq!(office.call("DELETE", &format!("/sessions/{}", first[4]), OPERATOR).0, 200);
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!("/sessions?user=alice&limit=2&cursor={cursor}");
    let (_, page) = office.call("GET", &path, VIEWER);
    assert_eq!(ids(&page), [&*first[2], &*first[1]]);
    let (_, ended) = office.call("GET", "/sessions?state=ended&reason=admin", VIEWER);
    assert_eq!(ids(&ended), [&*first[4]]);
    let (_, none) = office.call("GET", "/sessions?state=all&reason=logout", VIEWER);
    assert_eq!((ids(&none).len(), &none["next_cursor"]), (0, &Value::Null));
    for (query, expected) in [
        ("address=127.0.0.0/8", 6),
        ("address=127.0.0.1", 6),
        ("address=10.0.0.0/8", 0),
        ("since=2100-01-01T00:00:00Z", 0),
        ("until=2000-01-01T00:00:00Z", 0),
        ("since=2000-01-01T00:00:00Z&until=2100-01-01T00:00:00%2B01:00", 6),
    ] {
        let (status, page) = office.call("GET", &format!("/sessions?{query}"), VIEWER);
        assert_eq!((status, ids(&page).len()), (200, expected), "{query}");
    }
    for query in ["since=yesterday", "reason=boredom", "limit=0", "cursor=x", "colour=red"] {
        let (status, told) = office.call("GET", &format!("/sessions?{query}"), VIEWER);
        assert_eq!(status, 400, "{query}: {told}");
    }
}

#[test]
fn a_limit_of_one_user_holds_at_once_and_after_a_restart() {
    let mut office = Office::open("limit.max_sessions = 1");
    let set = |office: &Office, body| office.put("/users/Alice/limit", ADMIN, body);
    for wrong in ["{}", r#"{"max_sessions": 0}"#, r#"{"max_sessions": "3"}"#, "", r#"{"max": 1}"#] {
        assert_eq!(set(&office, wrong).0, 400, "{wrong}");
    }
    let (status, told) = set(&office, r#"{"max_sessions": 2}"#);
    assert_eq!((status, &told["user"], &told["max_sessions"]), (200, &"alice".into(), &2.into()));
    for _ in 0..3 {
        office.sign_in("alice", "one");
        office.sign_in("bob", "one");
    }
    assert_eq!((office.proxy.live("alice"), office.proxy.live("bob")), (2, 1));
    office.proxy.restart();
    let (_, alice) = office.call("GET", "/users/alice", VIEWER);
    assert_eq!((&alice["limit"], &alice["set"]["set_by"]), (&2.into(), &"tests".into()));
    office.sign_in("alice", "one");
    assert_eq!(office.proxy.live("alice"), 2);
    assert_eq!(set(&office, r#"{"max_sessions": null}"#).0, 200);
    office.sign_in("alice", "one");
    assert_eq!(office.proxy.live("alice"), 3);
    let (_, limits) = office.call("GET", "/limits", VIEWER);
    assert_eq!(limits["limits"][0]["max_sessions"], Value::Null);
    assert_eq!(office.call("DELETE", "/users/alice/limit", ADMIN).1["limit"], 1);
    assert_eq!(office.call("DELETE", "/users/alice/limit", ADMIN).0, 404);
    office.sign_in("alice", "one");
    assert_eq!(office.proxy.live("alice"), 1, "the next sign-in makes it true");
    let changed = office.proxy.wait_for_event("limit_changed", "alice");
    assert_eq!((&changed["by"], &changed["initiator"]), (&"tests".into(), &"admin".into()));
}

#[test]
fn everybody_goes_only_when_it_is_meant() {
    let office = Office::open("");
    for user in ["alice", "bob", "root"] {
        office.sign_in(user, "one");
    }
    assert_eq!(office.call("DELETE", "/sessions", ADMIN).0, 400);
    assert_eq!(office.call("DELETE", "/sessions?confirm=Shop", ADMIN).0, 409);
    assert_eq!(office.call("DELETE", "/sessions?confirm=shop", ADMIN).1["ended"], 3);
    assert_eq!(office.call("DELETE", "/sessions?confirm=shop", ADMIN).1["ended"], 0);
}

#[test]
fn events_are_read_backwards_and_followed() {
    let office = Office::open("limit.max_sessions = 1");
    let request = office
        .request("GET", "/api/v1/events?user=alice", VIEWER)
        .header("Accept", "text/event-stream");
    let mut feed = Connection::open(office.proxy.admin_address).unwrap();
    feed.write(&request.bytes()).unwrap();
    let (status, headers) = feed.read_head().unwrap();
    assert_eq!(status, 200);
    let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    assert!(kind.unwrap().1.starts_with("text/event-stream"), "{headers:?}");
    let mut next = |wanted: &str| loop {
        let line = feed.read_line().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!((&event["event"], &event["user"]), (&wanted.into(), &"alice".into()));
            return event["id"].as_u64().unwrap();
        }
    };
    office.sign_in("bob", "one");
    office.sign_in("alice", "one");
    let first = next("session_created");
    office.sign_in("alice", "two");
    next("session_ended");
    let last = next("session_created");
    let (_, page) = office.call("GET", "/events?user=alice&limit=2", VIEWER);
    let listed: Vec<u64> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_u64().unwrap())
        .collect();
    assert_eq!((listed.len(), listed[0]), (2, last));
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!("/events?user=alice&limit=2&cursor={cursor}");
    let (_, page) = office.call("GET", &path, VIEWER);
    assert_eq!((&page["events"][0]["id"], &page["next_cursor"]), (&first.into(), &Value::Null));
    // Who comes back goes on after the last event it has.
    let again = request.header("Last-Event-ID", &first.to_string());
    let mut feed = Connection::open(office.proxy.admin_address).unwrap();
    feed.write(&again.bytes()).unwrap();
    feed.read_head().unwrap();
    let missed = eventually("what was missed", || {
        let line = feed.read_line().unwrap();
        line.strip_prefix("data: ").map(|data| serde_json::from_str::<Value>(data).unwrap())
    });
    assert_eq!(missed["event"], "session_ended");
}

#[test]
fn a_token_taken_out_of_the_file_is_dead_after_a_reload() {
    let office = Office::open("");
    assert_eq!(office.call("GET", "/sessions", OPERATOR).0, 200);
    office.proxy.write_configuration(
        &office
            .proxy
            .configuration()
            .replace("operator-0123456789abcdef", "another-0123456789abcdef"),
    );
    assert_eq!(office.call("POST", "/reload", ADMIN).0, 200);
    assert_eq!(office.call("GET", "/sessions", OPERATOR).0, 401);
    assert_eq!(office.call("GET", "/sessions", "another-0123456789abcdef").0, 200);
}

#[test]
fn a_report_tells_what_limits_would_have_done() {
    let office = Office::open("limit.max_sessions = 5");
    for _ in 0..3 {
        office.sign_in("alice", "one");
    }
    office.sign_in("bob", "one");
    let (status, report) = office.call("GET", "/report", VIEWER);
    assert_eq!((status, &report["logins"], &report["users"]), (200, &4.into(), &2.into()));
    let evicting: Vec<u64> = report["limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| limit["logins_evicting"].as_u64().unwrap())
        .collect();
    assert_eq!(evicting, [2, 1, 0, 0, 0]);
    let request = office.request("GET", "/api/v1/report?format=html", VIEWER);
    let page = office.send(&request);
    assert_eq!(page.status, 200);
    assert!(page.is("text/html") && page.text().contains("sessions of shop"), "{}", page.text());
    assert!(
        !page.text().contains("http://") && !page.text().contains("https://"),
        "self-contained"
    );
}

/// Every check but one: an ended session is kept as history, on purpose, and so is still found.
#[test]
fn a_fuzzer_of_apis_finds_nothing() {
    let office = Office::open("admin.failures_per_address = 1000000");
    for user in ["alice", "bob", "root"] {
        office.sign_in(user, "one");
    }
    let url = format!("http://{}/api/v1/openapi.json", office.proxy.admin_address);
    let folder = office.proxy.folder();
    let output = Command::new(top().join(".venv/bin/schemathesis"))
        .args(["run", &url, "--header", &format!("Authorization: Bearer {ADMIN}")])
        .args(["--checks", "all", "--exclude-checks", "use_after_free"])
        .args([
            "--max-examples",
            "10",
            "--seed",
            "1",
            "--no-color",
            "--suppress-health-check",
            "all",
        ])
        .current_dir(folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(office.send(&Request::get("/livez").header("Host", "localhost")).status, 200);
}
