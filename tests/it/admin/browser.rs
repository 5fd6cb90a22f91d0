//! The page in a real browser: somebody signs in, finds a user and ends a session, and the feed of
//! somebody else shows it; each page is looked at by axe-core.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{ADMIN, Office};
use crate::support::top;

#[test]
fn a_real_browser_finds_a_user_and_ends_a_session() {
    let office = Office::open("");
    for (user, agent) in [("alice", "Mozilla/5.0 (X11; Linux) Firefox/140.0"), ("alice", "curl/8")]
    {
        office.sign_in(user, agent);
    }
    office.sign_in("<img src=x onerror=alert(1)>", "<script>alert(2)</script>");
    let mut browser = Command::new("node")
        .arg(top().join("tests/clients/admin.js"))
        .args([&format!("http://{}", office.proxy.admin_address), ADMIN, "alice"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let said: Vec<Value> =
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(browser.wait().unwrap().success(), "{said:?}");
    let told = |name: &str| said.iter().find_map(|line| line.get(name)).unwrap_or(&Value::Null);
    assert_eq!(told("ended"), "1 session ended.", "{said:?}");
    let delay_ms = told("feed_ms").as_u64().unwrap();
    assert!(delay_ms < 5_000, "the feed showed it after {delay_ms} ms");
    assert_eq!(told("complaints"), &Value::Array(Vec::new()), "CSP, console and scripts");
    assert_eq!(told("findings"), &Value::Array(Vec::new()), "axe-core");
    assert_eq!(told("pages").as_u64(), Some(40), "{said:?}");
    assert_eq!(office.proxy.live("alice"), 1);
}
