//! The supports hold what stands on them: tried without the proxy.

use std::io::{Read, Write};

use super::browser::{Browser, password_of};
use super::django::{Django, Engine};
use super::http::{Connection, Request};
use super::legacy::{LegacyApp, Reply};
use super::{eventually, raw};

fn signs_in_directly(engine: Engine) {
    let site = Django::shared(engine);
    let user = site.user();
    let mut browser = site.browser();
    assert_eq!(browser.whoami(), None);
    let refused = browser.login_at("/accounts/login/", &user, "wrong");
    assert_eq!(refused.status, 200);
    assert_eq!(browser.cookie("sessionid"), None);
    let accepted = browser.login(&user);
    assert_eq!((accepted.status, accepted.header("location")), (302, Some("/")));
    assert_eq!(browser.whoami(), Some(user.clone()));
    assert!(browser.get("/").text().contains(&format!("user: {user}")));
    assert!(matches!(site.live_sessions(&user), Some(1) | None));

    let mut moved = browser.moved_to(site.address).with_agent("another");
    assert_eq!(moved.whoami(), Some(user.clone()), "the jar alone signs in");
    let changed = browser.change_password(&password_of(&user), "new-secret");
    assert_eq!(changed.status, 302, "{}", changed.text());
    assert_eq!(browser.whoami(), Some(user));
    assert_eq!(moved.whoami(), None, "Django drops the other sessions");
    assert_eq!(browser.logout().status, 302);
    assert_eq!(browser.cookie("sessionid"), None);
    assert_eq!(browser.whoami(), None);
}

#[test]
fn a_browser_signs_in_at_django_with_sessions_in_db() {
    signs_in_directly(Engine::Db);
}

#[test]
fn a_browser_signs_in_at_django_with_sessions_in_cached_db() {
    signs_in_directly(Engine::CachedDb);
}

#[test]
fn a_browser_signs_in_at_django_with_sessions_in_cache() {
    signs_in_directly(Engine::Cache);
}

#[test]
fn a_browser_signs_in_at_django_with_sessions_in_files() {
    signs_in_directly(Engine::File);
}

#[test]
fn a_browser_signs_in_at_django_with_sessions_in_signed_cookies() {
    signs_in_directly(Engine::SignedCookies);
}

#[test]
fn a_browser_signs_in_at_allauth_by_form_and_by_script() {
    let site = Django::shared_allauth();
    let user = site.user();
    let password = password_of(&user);
    let mut browser = site.browser();
    let fields = [("login", user.as_str()), ("password", password.as_str())];
    assert_eq!(browser.submit("/accounts/login/", &fields).status, 302);
    assert_eq!(browser.whoami(), Some(user.clone()));

    let mut script = site.browser();
    script.get("/accounts/login/");
    let token = script.cookie("csrftoken").unwrap_or_default();
    let request = Request::form("/accounts/login/", &fields).xhr().header("X-CSRFToken", &token);
    let answer = script.send(&request);
    assert_eq!((answer.status, answer.json()["location"].as_str()), (200, Some("/")));
    assert_eq!(script.whoami(), Some(user));
}

#[test]
fn a_superuser_signs_in_at_the_admin() {
    let site = Django::shared(Engine::Db);
    let staff = site.staff();
    let mut browser = site.browser();
    let answer = browser.login_at("/admin/login/?next=/admin/", &staff, &password_of(&staff));
    assert_eq!((answer.status, answer.header("location")), (302, Some("/admin/")));
    assert_eq!(browser.get("/admin/").status, 200);
}

#[test]
fn the_jar_keeps_cookies_by_name_and_path_and_drops_what_has_expired() {
    let app = LegacyApp::start(|request| match request.target() {
        "/deep/set" => Reply::page(
            "200 OK",
            &["Set-Cookie: a=root; Path=/", "Set-Cookie: a=deep", "Set-Cookie: b=1; Path=/deep/"],
            "",
        ),
        "/deep/drop" => Reply::page(
            "200 OK",
            &["Set-Cookie: a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Set-Cookie: b=; Max-Age=0"],
            "",
        ),
        _ => Reply::page("200 OK", &[], request.header("cookie").unwrap_or("none")),
    });
    let mut browser = Browser::new(app.address);
    browser.get("/deep/set");
    assert_eq!(browser.get("/deep/x").text(), "b=1; a=deep; a=root");
    assert_eq!(browser.get("/deeper").text(), "a=root");
    browser.get("/deep/drop");
    assert_eq!(browser.get("/deep/x").text(), "b=1; a=root", "b was set for another path");
    browser.set_cookie("c", "mine");
    assert_eq!(browser.get("/").text(), "a=root; c=mine");
}

#[test]
fn the_scripted_app_gets_and_gives_bytes_as_they_are() {
    let app = LegacyApp::start(|request| match request.target() {
        "/hang" => Reply::Hang,
        "/close" => Reply::Close,
        "/last" => Reply::Last(b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec()),
        "/ticks" => Reply::Stream(Box::new(|stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let _ = stream.write_all(b"4\r\ntick\r\n0\r\n\r\n");
        })),
        _ => Reply::page("200 OK", &["X-Seen: yes"], &request.field("name").unwrap_or_default()),
    });
    let first =
        b"POST /form?q HTTP/1.1\r\nhost: a\r\nCoOkie: k=\"v\"\r\nContent-Length: 8\r\n\r\nname=bob";
    let both = [&first[..], b"GET /close HTTP/1.1\r\n\r\n"].concat();
    let answer = raw::raw(app.address, &both);
    assert_eq!(raw::status(&answer), 200);
    assert!(answer.ends_with(b"\r\n\r\nbob"));
    let arrived = eventually("both requests arrive", || {
        Some(app.arrived()).filter(|arrived| arrived.len() == 2)
    });
    assert_eq!((arrived[0].method(), arrived[0].target()), ("POST", "/form?q"));
    assert_eq!([arrived[0].head.as_bytes(), &arrived[0].body].concat(), first);
    assert_eq!(arrived[0].cookie("k"), Some("\"v\""));

    let mut browser = Browser::new(app.address);
    assert_eq!(browser.get("/last").text(), "to the end");
    assert_eq!(browser.get("/ticks").text(), "tick");
    assert!(browser.try_send(&Request::get("/close")).is_err());
    let mut socket = raw::connect(app.address);
    socket.write_all(b"GET /hang HTTP/1.1\r\n\r\n").unwrap();
    drop(app);
    assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "a hanging request ends with the app");
}

#[test]
fn streams_are_read_line_by_line() {
    let mut connection = Connection::open(Django::shared(Engine::Db).address).unwrap();
    connection.write(b"GET /stream?ticks=3 HTTP/1.1\r\nHost: site\r\n\r\n").unwrap();
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 200);
    assert!(headers.iter().any(|(_, value)| value == "text/event-stream"));
    let mut ticks = 0;
    while ticks < 3 {
        ticks += usize::from(connection.read_line().unwrap().starts_with("data: "));
    }
}
