//! What is kept of people: their addresses no finer than asked, everything when they ask for it, and
//! nothing that names them once they are to be forgotten.

use std::process::Command;

use serde_json::Value;

use super::core::COOKIE;
use super::site::{self, Site, login_as, served_as};
use crate::support::browser::{Browser, password_of};
use crate::support::http::Request;
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;
use crate::support::{eventually, raw};

const ADDRESS: &str = "203.0.113.77";
const ADDRESS6: &str = "2001:db8:77:1:2:3:4:5";

/// Every byte in the proxy's folder but its configuration, and every line it logged.
fn everything(proxy: &Proxy) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("log".to_owned(), proxy.log().join("\n").into_bytes())];
    for file in std::fs::read_dir(proxy.folder()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|kind| kind != "toml") {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

/// From behind a proxy that says where the client is.
fn from(address: &str, mut request: Request) -> Request {
    request = request.header("X-Forwarded-For", address);
    request
}

#[test]
fn addresses_are_kept_and_told_no_finer_than_asked() {
    let site = Site::start();
    for (keep, recorded) in [
        ("full", Some(ADDRESS)),
        ("prefix", Some("203.0.113.0/24")),
        ("hash", None),
        ("none", None),
    ] {
        let toml = site::rules(&format!(
            "limit.max_sessions = 1\nserver.trusted_proxies = [\"127.0.0.0/8\"]\n\
             log.client_address = \"{keep}\"\n"
        ));
        let mut proxy = Proxy::start(site.address(), None, &toml);
        let mut loser = proxy.browser();
        for address in [ADDRESS, ADDRESS6] {
            let mut browser = proxy.browser();
            let wrong = Request::form("/login", &[("username", "ann"), ("password", "wrong")]);
            assert_eq!(browser.send(&from(address, wrong)).status, 200);
            assert_eq!(browser.send(&from(address, site::login_request("ann"))).status, 302);
            loser.jar.clear();
            loser.set_cookie(COOKIE, &browser.cookie(COOKIE).unwrap());
        }
        assert_eq!(login_as(&mut proxy.browser(), "ann").status, 302);
        assert_eq!(loser.send(&from(ADDRESS, Request::get("/me").xhr())).status, 401);
        raw::raw(proxy.address, b"GET //login HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("the refusal is logged", || {
            proxy.log().iter().any(|line| line.contains("path_spelling")).then_some(())
        });
        let sessions = proxy.sessions("ann", "ended");
        let first = &sessions.last().unwrap()["client"]["address"];
        match keep {
            "hash" => assert_eq!(first.as_str().unwrap().len(), 32),
            _ => assert_eq!(first.as_str(), recorded),
        }
        let failed = proxy.events("login_failed", "ann");
        assert_eq!(&failed[0]["client_address"], first, "{keep}");
        let mut shown = everything(&proxy);
        for path in ["/api/v1/events", "/api/v1/report", "/api/v1/users/ann/export", "/metrics"] {
            shown.push((path.to_owned(), proxy.admin("GET", path).body));
        }
        assert!(proxy.terminate().success());
        shown.extend(everything(&proxy));
        let told = |text: &str| shown.iter().find(|(_, bytes)| has(bytes, text));
        if keep == "full" {
            assert!(told(ADDRESS).is_some() && told(ADDRESS6).is_some());
            continue;
        }
        for address in [ADDRESS, ADDRESS6, "\"peer\":\"127.0.0.1\""] {
            assert_eq!(told(address).map(|(place, _)| place), None, "{keep}: {address}");
        }
    }
}

fn users(proxy: &Proxy, verb: &str, user: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(["users", verb, user, "-c", "headcount.toml", "--token-file", "tests.token"])
        .current_dir(proxy.folder())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn set_limit(proxy: &Proxy, user: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(["users", "limit", user, "2", "-c", "headcount.toml", "--token-file", "tests.token"])
        .current_dir(proxy.folder())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A name that stands nowhere by chance.
const USER: &str = "erika-mustermann-7";

/// Three sessions, of which one has ended; what their browsers have.
fn live_a_little(proxy: &Proxy) -> Vec<Browser> {
    set_limit(proxy, USER);
    let mut browsers: Vec<Browser> = (0..3)
        .map(|number| proxy.browser().with_agent(&format!("agent-of-{USER}-{number}")))
        .collect();
    for browser in &mut browsers {
        assert_eq!(login_as(browser, USER).status, 302);
    }
    assert_eq!(login_as(&mut proxy.browser(), "bob").status, 302);
    browsers
}

fn is_dead(browsers: &[Browser], address: std::net::SocketAddr) {
    for browser in browsers {
        let mut again = Browser::new(address);
        again.set_cookie(COOKIE, &browser.cookie(COOKIE).unwrap());
        let answer = again.fetch_json("/me");
        assert_eq!((answer.status, answer.header("x-user")), (401, None), "{}", answer.text());
    }
}

/// On a replica, which has to hear of it.
fn is_dead_soon(browsers: &[Browser], replica: &Proxy) {
    eventually("the replica knows that they are dead", || {
        let served = |browser: &Browser| {
            let mut again = Browser::new(replica.address);
            again.set_cookie(COOKIE, &browser.cookie(COOKIE).unwrap());
            served_as(&mut again).is_some()
        };
        (!browsers.iter().any(served)).then_some(())
    });
    is_dead(browsers, replica.address);
}

#[test]
fn a_user_is_exported_and_then_forgotten_but_for_the_dead_tokens() {
    let site = Site::start();
    let mut proxy = Proxy::start(site.address(), None, &site::rules("limit.max_sessions = 1"));
    proxy.restart();
    let browsers = live_a_little(&proxy);
    let told: Value = serde_json::from_str(&users(&proxy, "export", USER)).unwrap();
    assert_eq!((&told["user"], &told["limit"]["max_sessions"]), (&USER.into(), &2.into()));
    let sessions = told["sessions"].as_array().unwrap();
    let states: Vec<_> = sessions.iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["ended", "live", "live"]);
    assert!(sessions.iter().all(|one| one["history"] == true && one["tokens"].as_u64() >= Some(1)));
    assert_eq!(sessions[0]["client"]["user_agent"], format!("agent-of-{USER}-0"));
    assert!(told["events"].as_array().unwrap().len() >= 4, "{told}");
    let exported = told.to_string();
    for browser in &browsers {
        assert!(!exported.contains(&browser.cookie(COOKIE).unwrap()));
    }
    assert!(!exported.contains(&password_of(USER)) && !exported.contains("bob"));

    let files = |proxy: &Proxy| {
        let mut files = everything(proxy);
        files.retain(|(place, _)| place != "log");
        files.iter().any(|(_, bytes)| has(bytes, USER))
    };
    assert!(files(&proxy), "the name is looked for in the right place");
    assert_eq!(users(&proxy, "erase", USER).trim(), format!("{USER}: 2 ended, 3 erased"));
    assert!(!files(&proxy), "the name is still in a file");
    let events = proxy.admin("GET", "/api/v1/events").text();
    assert!(!events.contains(USER) && events.contains("user_erased"), "{events}");
    let line = proxy.wait_for_admin_event("user_erased");
    assert_eq!(
        (&line["user"], &line["by"], &line["count"]),
        (&USER.into(), &"tests".into(), &3.into())
    );
    let nobody: Value = serde_json::from_str(&users(&proxy, "export", USER)).unwrap();
    assert_eq!((&nobody["sessions"], &nobody["limit"]), (&Value::Array(Vec::new()), &Value::Null));
    is_dead(&browsers, proxy.address);
    proxy.restart();
    is_dead(&browsers, proxy.address);
    assert!(!files(&proxy), "the name came back");
    assert_eq!(proxy.live("bob"), 1);
    // Who comes back is a new user.
    assert_eq!(users(&proxy, "erase", USER).trim(), format!("{USER}: 0 ended, 0 erased"));
    let mut back = proxy.browser();
    assert_eq!(login_as(&mut back, USER).status, 302);
    assert_eq!(served_as(&mut back).as_deref(), Some(USER));
}

#[test]
fn a_user_is_forgotten_while_observing_too() {
    let site = Site::start();
    let toml = site::rules("limit.max_sessions = 1\nenforcement.mode = \"observe\"");
    let mut proxy = Proxy::start(site.address(), None, &toml);
    proxy.restart();
    let browsers = live_a_little(&proxy);
    assert_eq!(users(&proxy, "erase", USER).trim(), format!("{USER}: 3 ended, 3 erased"));
    assert_eq!(proxy.live(USER), 0);
    // Nobody is refused while observing.
    let mut again = proxy.browser();
    again.set_cookie(COOKIE, &browsers[0].cookie(COOKIE).unwrap());
    assert_eq!(served_as(&mut again).as_deref(), Some(USER));
    proxy.reconfigure("observe", "enforce");
    is_dead(&browsers, proxy.address);
}

#[test]
fn replicas_forget_a_user_together() {
    let (site, database) = (Site::start(), Database::create());
    let toml = site::rules("server.workers = 1\nlimit.max_sessions = 1");
    let mut one = Proxy::start_replica(site.address(), &toml, &database.url(), None);
    one.restart();
    let mut other = Proxy::start_replica(site.address(), &toml, &database.url(), Some(&one));
    other.restart();
    let browsers = live_a_little(&one);
    is_dead_soon(&browsers[..1], &other);
    let told: Value = serde_json::from_str(&users(&other, "export", USER)).unwrap();
    assert_eq!(told["sessions"].as_array().unwrap().len(), 3);
    assert_eq!(users(&one, "erase", USER).trim(), format!("{USER}: 2 ended, 3 erased"));
    let names = "SELECT count(*) FROM headcount.sessions WHERE user_name = '";
    assert_eq!(database.sql(&format!("{names}{USER}'")).trim(), "0");
    let agents = "SELECT count(*) FROM headcount.sessions WHERE user_agent LIKE '%";
    assert_eq!(database.sql(&format!("{agents}{USER}%'")).trim(), "0");
    eventually("the other has forgotten what it saw", || {
        let events = other.admin("GET", "/api/v1/events").text();
        (!events.contains(USER)).then_some(())
    });
    is_dead(&browsers, one.address);
    is_dead_soon(&browsers, &other);
    // The limit is taken back; its row goes when everybody has heard of that.
    let row = format!("SELECT count(*) FROM headcount.user_limits WHERE user_name = '{USER}'");
    let an_hour_later = "UPDATE headcount.user_limits SET set_at = set_at - 3600001";
    database.sql(an_hour_later);
    eventually("the limit's row is gone", || (database.sql(&row).trim() == "0").then_some(()));
    other.restart();
    is_dead(&browsers, other.address);
}
