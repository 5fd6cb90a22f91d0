//! On real sites: Django and Flask, with the small browser and with Chromium.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Site, own_id, press};
use crate::support::browser::{Browser, password_of};
use crate::support::django::{Django, Engine};
use crate::support::proxy::Proxy;
use crate::support::site::{self, App};
use crate::support::{eventually, top};

const TOML: &str = "limit.max_sessions = 5";

#[track_caller]
fn ends_another_device(mut desk: Browser, mut phone: Browser, proxy: &Proxy, user: &str) {
    let id = own_id(&mut phone);
    assert_eq!(press(&mut desk, &id).status, 303);
    let told = phone.fetch_json("/whoami");
    assert_eq!((told.status, &told.json()["reason"]), (401, &"self_service".into()));
    assert_eq!(desk.whoami().as_deref(), Some(user));
    assert_eq!(proxy.live(user), 1);
    let event = proxy.wait_for_event("session_ended", user);
    assert_eq!((&event["reason"], &event["session"]), (&"self_service".into(), &id.into()));
}

#[test]
fn a_user_of_django_ends_another_device() {
    let site = Django::shared(Engine::Db);
    let (proxy, user) = (Proxy::start(site.address, Some("django"), TOML), site.user());
    let [mut desk, mut phone] = [proxy.browser(), proxy.browser()];
    for browser in [&mut desk, &mut phone] {
        assert_eq!(browser.login(&user).status, 302);
    }
    assert_eq!(site.live_sessions(&user), Some(2));
    ends_another_device(desk, phone, &proxy, &user);
    eventually("the app's own session is gone", || {
        (site.live_sessions(&user) == Some(1)).then_some(())
    });
}

#[test]
fn a_user_of_flask_ends_another_device() {
    let site = site::Site::shared(App::Flask);
    let (proxy, user) = (Proxy::start(site.address, Some("flask-login"), TOML), site.user());
    let [mut desk, mut phone] = [proxy.browser(), proxy.browser()];
    for browser in [&mut desk, &mut phone] {
        let form = [("username", &*user), ("password", &password_of(&user))];
        assert_eq!(browser.post("/login", &form).status, 302);
    }
    ends_another_device(desk, phone, &proxy, &user);
}

/// Two people's worth of Chromium: lists, ends, is told, reports; looked at by axe-core in light, dark
/// and on a phone.
#[track_caller]
fn in_chromium(address: SocketAddr, login: &str, user: &str, name: &str) {
    let mut browser = Command::new("node")
        .arg(top().join("tests/clients/self_service.js"))
        .args([&format!("http://{address}"), login, user, name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let said: Vec<Value> =
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(browser.wait().unwrap().success(), "{said:?}");
    let told = |name: &str| said.iter().find_map(|line| line.get(name)).unwrap_or(&Value::Null);
    assert_eq!(told("ended"), "One session was ended.", "{said:?}");
    assert!(told("told").as_str().unwrap().contains("another of your sessions"), "{said:?}");
    assert!(told("reported").as_str().unwrap().contains("was reported"), "{said:?}");
    assert_eq!(told("complaints"), &Value::Array(Vec::new()), "CSP, console and scripts");
    assert_eq!(told("findings"), &Value::Array(Vec::new()), "axe-core");
    assert_eq!(told("led_to"), login, "{said:?}");
    assert_eq!(told("looked_at").as_u64(), Some(10), "{said:?}");
}

#[test]
fn chromium_on_django() {
    let site = Django::shared(Engine::Db);
    let (proxy, user) = (Proxy::start(site.address, Some("django"), TOML), site.user());
    in_chromium(proxy.address, "/accounts/login/", &user, "django");
    proxy.has_events("session_disowned", &user, 1);
}

#[test]
fn chromium_on_flask() {
    let site = site::Site::shared(App::Flask);
    let (proxy, user) = (Proxy::start(site.address, Some("flask-login"), TOML), site.user());
    in_chromium(proxy.address, "/login", &user, "flask");
    proxy.has_events("session_disowned", &user, 1);
}

/// A name and a User-Agent that would do something if they were not only text.
#[test]
fn chromium_with_names_that_are_markup() {
    let site = Site::start("pages.name = \"Payroll\"\npages.accent = \"#0b5fff\"");
    let user = "<img src=x onerror=alert(1)>";
    in_chromium(site.proxy.address, "/login", user, "markup");
    site.proxy.has_events("session_disowned", user, 1);
}
