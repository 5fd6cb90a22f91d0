//! What users see there, and what they can do.

use super::{FOLDER, Site, csrf, hidden, listed, own_id, press, scripted};
use crate::support::eventually;
use crate::support::http::Request;

#[test]
fn a_user_sees_the_own_sessions_and_ends_one_and_all_others() {
    let site = Site::start("");
    let [mut desk, mut phone, mut lost] =
        ["Firefox", "Safari", "Chrome"].map(|agent| site.sign_in("alice", agent));
    let mut bob = site.sign_in("bob", "Opera");
    let list = listed(&mut desk);
    assert_eq!((&list["user"], &list["limit"]), (&"alice".into(), &50.into()));
    assert_eq!((&list["can_end"], &list["more"]), (&true.into(), &0.into()));
    let sessions = list["sessions"].as_array().unwrap();
    let agents: Vec<_> = sessions.iter().map(|one| &one["client"]["user_agent"]).collect();
    assert_eq!(agents.len(), 3);
    assert_eq!((agents[0], &sessions[0]["current"]), (&"Firefox".into(), &true.into()));
    assert!(sessions[1..].iter().all(|one| one["current"] == false));
    for session in sessions {
        assert_eq!(session["client"]["address"], "127.0.0.1");
        for time in ["created_at", "last_seen_at", "expires_at"] {
            assert!(session[time].as_str().unwrap().ends_with('Z'), "{session}");
        }
    }
    let page = desk.get(FOLDER);
    let text = page.text();
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self'"));
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
    for part in ["<h1>Where you are signed in</h1>", "alice", "Safari", "Chrome", "this one"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!text.contains("Opera") && !text.contains("value-") && !text.contains(".hc1."));
    assert_eq!(hidden(&text, "csrf"), vec![csrf(&mut desk); 2]);

    let lost_id = own_id(&mut lost);
    let done = press(&mut desk, &lost_id);
    assert_eq!((done.status, done.header("location")), (303, Some("/.headcount/?ended=1")));
    assert!(desk.get("/.headcount/?ended=1").text().contains("One session was ended."));
    let told = lost.fetch_json("/");
    assert_eq!((told.status, &told.json()["reason"]), (401, &"self_service".into()));
    let event = site.proxy.wait_for_event("session_ended", "alice");
    assert_eq!((&event["reason"], &event["initiator"]), (&"self_service".into(), &"user".into()));
    let desk_id = own_id(&mut desk);
    assert_eq!((&event["session"], &event["by_session"]), (&lost_id.into(), &desk_id.into()));
    eventually("the app has logged it out", || site.app_saw("/logout").then_some(()));

    let token = csrf(&mut desk);
    let done = desk.post("/.headcount/end-others", &[("csrf", &token)]);
    assert_eq!((done.status, done.header("location")), (303, Some("/.headcount/?ended=1")));
    assert_eq!(phone.fetch_json("/").status, 401);
    assert_eq!((site.proxy.live("alice"), site.proxy.live("bob")), (1, 1));
    assert_eq!((desk.get("/").text(), bob.get("/").text()), ("hello".into(), "hello".into()));
    assert!(desk.get(FOLDER).text().contains("signed in nowhere else"));
    assert!(!site.app_saw("headcount"), "our pages are not the app's");
}

#[test]
fn a_script_of_the_app_can_do_the_same() {
    let site = Site::start("");
    let [mut desk, mut phone, mut lost] =
        ["Firefox", "Safari", "Chrome"].map(|agent| site.sign_in("alice", agent));
    let lost_id = own_id(&mut lost);
    let done = desk.send(&scripted("/.headcount/end", &format!(r#"{{"session":"{lost_id}"}}"#)));
    assert_eq!((done.status, &done.json()["ended"]), (200, &1.into()), "{}", done.text());
    assert_eq!(lost.fetch_json("/").json()["reason"], "self_service");
    // By the token in place of the header.
    let body = format!(r#"{{"csrf":"{}"}}"#, csrf(&mut desk));
    let mut request = scripted("/.headcount/end-others", &body);
    request.headers.retain(|(name, _)| name != "X-Headcount");
    assert_eq!(desk.send(&request).json()["ended"], 1);
    assert_eq!(phone.fetch_json("/").status, 401);
    assert_eq!(desk.send(&scripted("/.headcount/end-others", "{}")).json()["ended"], 0);
    assert_eq!(site.proxy.live("alice"), 1);
}

/// Nobody has to be told why: the user has just pressed the button.
#[test]
fn signing_out_here_is_like_a_logout() {
    let site = Site::start("");
    let mut desk = site.sign_in("alice", "Firefox");
    let id = own_id(&mut desk);
    let done = press(&mut desk, &id);
    assert_eq!((done.status, done.header("location")), (303, Some("/login")));
    assert_eq!(site.proxy.live("alice"), 0);
    assert_eq!(desk.cookie("sid"), None, "the browser forgets it");
    assert_eq!(desk.get("/").status, 200, "an anonymous visitor");
    eventually("the app has logged it out", || site.app_saw("/logout").then_some(()));
    let event = site.proxy.wait_for_event("session_ended", "alice");
    assert_eq!((&event["reason"], &event["by_session"]), (&"self_service".into(), &().into()));
}

#[test]
fn what_clients_say_of_themselves_stays_text_and_pages_stay_small() {
    let site = Site::start("");
    let name = "<img src=x onerror=alert(1)>\"'&";
    let agent = "<script>alert(2)</script>'\" {device} {{ words }}".repeat(4);
    let mut browsers: Vec<_> = (0..30).map(|_| site.sign_in(name, &agent)).collect();
    for (language, title) in [
        ("en", "Where you are signed in"),
        ("de", "Wo Sie angemeldet sind"),
        ("fr", "Où vous êtes connecté"),
        ("es", "Dónde ha iniciado sesión"),
        ("nl", "Waar u bent aangemeld"),
    ] {
        let answer = browsers[0].send(&Request::get(FOLDER).header("Accept-Language", language));
        let page = answer.text();
        for part in [title, &format!("<html lang=\"{language}\">"), "&lt;img"] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        for canary in ["<img", "<script", "onerror=alert(1)>\""] {
            assert!(!page.contains(canary), "{canary} in {page}");
        }
        assert!(page.len() < 32_000, "{}: {page}", page.len());
    }
    assert_eq!(listed(&mut browsers[0])["sessions"].as_array().unwrap().len(), 30);
    // What people have is far smaller.
    let mut few: Vec<_> = (0..8)
        .map(|_| {
            site.sign_in(
                "bob",
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            )
        })
        .collect();
    let page = few[0].get(FOLDER).text();
    assert!(page.len() < 15_000 && !page.contains("http"), "{}", page.len());
}

#[test]
fn observing_lists_and_ends_nothing() {
    let site = Site::start("enforcement.mode = \"observe\"\nlimit.max_sessions = 1");
    let [mut one, mut two] = ["Firefox", "Safari"].map(|agent| site.sign_in("alice", agent));
    let list = listed(&mut one);
    assert_eq!((list["sessions"].as_array().unwrap().len(), &list["can_end"]), (2, &false.into()));
    let page = one.get(FOLDER).text();
    assert!(page.contains("cannot be ended here") && !page.contains("<button"), "{page}");
    let id = own_id(&mut two);
    assert_eq!(press(&mut one, &id).status, 409);
    let token = csrf(&mut one);
    assert_eq!(one.post("/.headcount/end-others", &[("csrf", &token)]).status, 409);
    assert_eq!(site.proxy.live("alice"), 2);
}

#[test]
fn it_can_be_elsewhere_or_not_at_all() {
    let site = Site::start("self_service.path = \"/.mine/\"\nlimit.max_sessions = 1");
    let mut first = site.sign_in("alice", "Firefox");
    assert_eq!(first.get("/.mine").header("location"), Some("/.mine/"));
    assert!(first.get("/.mine/").text().contains("action=\"/.mine/end\""));
    assert_eq!(first.get(FOLDER).text(), "hello", "that is the app's then");
    site.sign_in("alice", "Safari");
    assert!(first.get("/").text().contains("action=\"/.mine/not-me\""));

    let site = Site::start("self_service.enabled = false\nlimit.max_sessions = 1");
    let mut first = site.sign_in("alice", "Firefox");
    assert_eq!(first.get(FOLDER).text(), "hello");
    site.sign_in("alice", "Safari");
    let told = first.get("/");
    assert!(!told.text().contains("<form"), "{}", told.text());
    assert!(told.header("content-security-policy").unwrap().contains("form-action 'none'"));
}

/// The list is read from the store, which nobody may keep busy.
#[test]
fn who_asks_too_often_has_to_wait() {
    let site = Site::start("");
    let mut alice = site.sign_in("alice", "Firefox");
    let refused = (0..200).map(|_| alice.fetch_json(FOLDER)).find(|answer| answer.status != 200);
    let refused = refused.expect("nobody is braked");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("5")));
    assert_eq!(alice.get("/").text(), "hello", "the app is not concerned");
    assert_eq!(site.sign_in("alice", "Safari").get(FOLDER).status, 200, "nor another session");
}
