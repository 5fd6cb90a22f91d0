//! Who gets nothing there: people who are not signed in, other users, other sites, and odd spellings.

use super::{FOLDER, Site, csrf, own_id, press, scripted};
use crate::support::browser::Browser;
use crate::support::http::{self, Request, Response};

#[test]
fn nobody_is_shown_anything_without_a_live_session() {
    let site = Site::start("limit.max_sessions = 1");
    let mut nobody = site.proxy.browser();
    let page = nobody.get(FOLDER);
    assert_eq!((page.status, page.header("location")), (303, Some("/login")));
    let told = nobody.fetch_json(FOLDER);
    assert_eq!(told.status, 401, "{}", told.text());
    assert!(told.is("application/problem+json"));
    for cookie in ["sid=value-0", "sid=", "sid=value-0.hc1.AAAA", "other=1"] {
        let request = Request::get(FOLDER).xhr().header("Cookie", cookie);
        assert_eq!(nobody.send(&request).status, 401, "{cookie}");
        let request = scripted("/.headcount/end-others", "{}").header("Cookie", cookie);
        assert_eq!(nobody.send(&request).status, 401, "{cookie}");
    }
    let mut first = site.sign_in("alice", "Firefox");
    let dead = first.cookie_line("/");
    let mut second = site.sign_in("alice", "Safari");
    let told = first.send(&scripted("/.headcount/end-others", "{}").header("Cookie", &dead));
    assert_eq!((told.status, &told.json()["reason"]), (401, &"limit".into()));
    let page = first.send(&Request::get(FOLDER).header("Cookie", &dead));
    assert!(page.status == 401 && page.text().contains("signed out"), "{}", page.text());
    // A dead and a live one at once are nobody's.
    let both = format!("{dead}; {}", second.cookie_line("/"));
    assert_eq!(first.send(&Request::get(FOLDER).header("Cookie", &both)).status, 400);
    second.get("/");
    assert_eq!(site.proxy.live("alice"), 1);
    assert!(!site.app_saw("headcount"));
}

/// What differs from one refusal to the next is left out.
fn neutral(answer: &Response) -> (u16, String) {
    let mut json = answer.json();
    json["reference"] = "".into();
    (answer.status, json.to_string())
}

#[test]
fn a_session_of_somebody_else_is_as_good_as_none() {
    let site = Site::start("");
    let mut alice = site.sign_in("alice", "Firefox");
    let mut bob = site.sign_in("bob", "Safari");
    let bobs = own_id(&mut bob);
    let mut left = site.sign_in("alice", "Opera");
    let ended = own_id(&mut left);
    assert_eq!(press(&mut alice, &ended).status, 303);
    let end = |id: &str| scripted("/.headcount/end", &format!(r#"{{"session":"{id}"}}"#));
    let never = "00000000000000000000000000000000";
    let unknown = neutral(&alice.send(&end(never)));
    assert_eq!(unknown.0, 404);
    for id in [&bobs, &ended, "", "x", "../x", &bobs.to_uppercase()] {
        assert_eq!(neutral(&alice.send(&end(id))), unknown, "{id}");
    }
    for body in ["{}", r#"{"session":null}"#, r#"{"session":["x"]}"#, "[]"] {
        assert_eq!(neutral(&alice.send(&scripted("/.headcount/end", body))), unknown, "{body}");
    }
    assert_eq!(press(&mut alice, &bobs).status, 404);
    assert_eq!((site.proxy.live("alice"), site.proxy.live("bob")), (1, 1));
    assert_eq!(bob.get("/").text(), "hello");
}

/// A form of alice's page, as it should be.
fn good(csrf: &str, session: &str) -> Request {
    Request::form("/.headcount/end", &[("csrf", csrf), ("session", session)])
}

#[test]
fn only_forms_of_the_own_page_end_anything() {
    let site = Site::start("");
    let mut alice = site.sign_in("alice", "Firefox");
    let mut other = site.sign_in("alice", "Safari");
    let mut bob = site.sign_in("bob", "Opera");
    let (token, target) = (csrf(&mut alice), own_id(&mut other));
    let form = |csrf: &str| good(csrf, &target);
    let twice = format!("csrf={token}&csrf={token}&session={target}");
    let foreign = [
        form(""),
        form("00000000000000000000000000000000"),
        form(&token.to_uppercase()),
        form(&token[1..]),
        form(&csrf(&mut other)),
        form(&csrf(&mut bob)),
        Request::form("/.headcount/end", &[("session", &target)]),
        form(&token).body(twice.into_bytes()),
        form(&token).header("Origin", "null"),
        form(&token).header("Origin", "https://evil.example"),
        form(&token).header("Origin", "http://127.0.0.1"),
        form(&token).header("Sec-Fetch-Site", "cross-site"),
        form(&token).header("Sec-Fetch-Site", "same-site"),
        form(&token).header("Content-Type", "text/plain"),
        form(&token).header("Content-Type", "application/octet-stream"),
        scripted("/.headcount/end", &format!(r#"{{"session":"{target}"}}"#))
            .header("Origin", "https://evil.example"),
        scripted("/.headcount/end", &format!(r#"{{"session":"{target}"}}"#))
            .header("Sec-Fetch-Site", "cross-site"),
    ];
    for request in foreign {
        let answer = alice.send(&request);
        assert_eq!(answer.status, 403, "{request:?}: {}", answer.text());
    }
    let mut plain = scripted("/.headcount/end", &format!(r#"{{"session":"{target}"}}"#));
    plain.headers.retain(|(name, _)| name != "X-Headcount");
    assert_eq!(alice.send(&plain).status, 403, "JSON without leave");
    // From nowhere: no browser sends a form so.
    let mut silent = alice.dressed(form(&token));
    silent.headers.retain(|(name, _)| !["Origin", "Sec-Fetch-Site"].contains(&&**name));
    assert_eq!(http::send(site.proxy.address, &silent).status, 403);
    // Looking and asking for leave change nothing.
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"] {
        for page in ["end", "end-others", "not-me", "", "x"] {
            let path = format!("{FOLDER}{page}?csrf={token}&session={target}");
            let answer = alice.send(&Request::new(method, &path));
            let shown = page.is_empty() && ["GET", "HEAD"].contains(&method);
            assert_eq!(answer.status, if shown { 200 } else { 404 }, "{method} {path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    assert_eq!(site.proxy.live("alice"), 2);
    assert_eq!(alice.send(&form(&token)).status, 303);
    assert_eq!(site.proxy.live("alice"), 1);
}

#[test]
fn other_spellings_neither_act_nor_reach_the_app() {
    let site = Site::start("");
    let mut alice = site.sign_in("alice", "Firefox");
    let mut other = site.sign_in("alice", "Safari");
    let (token, target) = (csrf(&mut alice), own_id(&mut other));
    let send = |browser: &Browser, request: Request| {
        http::send(site.proxy.address, &browser.dressed(request))
    };
    for folder in [
        "//.headcount/",
        "/.HEADCOUNT/",
        "/.Headcount/",
        "/%2eheadcount/",
        "/%252eheadcount/",
        "/./.headcount/",
        "/x/../.headcount/",
        "/x/..%2f.headcount/",
        "/.headcount//",
        "/.headcount/./",
        "/.headcount/%2e/",
        "/.headcount;a=b/",
        "/.headcount%2f",
        "/.headcount%5c",
        "/.headcount%00/",
        "/;x/.headcount/",
    ] {
        let answer = send(&alice, Request::get(folder));
        assert_eq!(answer.status, 400, "{folder}: {}", answer.text());
        let mut request = good(&token, &target);
        request.target = format!("{folder}end");
        let answer = send(&alice, request);
        assert_eq!(answer.status, 400, "{folder}: {}", answer.text());
    }
    for target in ["/.headcount/%2e", "/.headcount/x/..", "/.headcount/end;x=1"] {
        assert_eq!(send(&alice, Request::get(target)).status, 400, "{target}");
    }
    assert!(!site.app_saw("headcount"));
    assert_eq!(site.proxy.live("alice"), 2);
    assert!(site.proxy.events("session_ended", "alice").is_empty());
    // The target may be absolute.
    let absolute = format!("http://{}{FOLDER}", site.proxy.address);
    let cookies = alice.cookie_line("/");
    let shown = send(&alice, Request::get(&absolute).header("Cookie", &cookies));
    assert_eq!(shown.status, 200);
    // What only begins alike is the app's.
    assert_eq!(alice.get("/.headcounts/").text(), "hello");
}
