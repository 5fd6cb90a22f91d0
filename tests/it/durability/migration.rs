//! A site moves from SQLite to PostgreSQL: who was signed in stays so, and what was dead stays dead.

use std::process::{Command, Output};

use super::site::{self, Site, login_as, served_as};
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;

fn migrate(proxy: &Proxy) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(["migrate", "-c", "headcount.toml", "--from", "headcount.db"])
        .current_dir(proxy.folder())
        .output()
        .unwrap()
}

#[test]
fn sessions_and_tombstones_move_to_postgresql() {
    let (site, database) = (Site::start(), Database::create());
    let mut proxy = Proxy::start(site.address(), None, &site::rules("limit.max_sessions = 2"));
    let mut browsers = Vec::new();
    for user in ["ann", "ann", "ann", "bob"] {
        let mut browser = proxy.browser();
        login_as(&mut browser, user);
        browsers.push(browser);
    }
    let said = String::from_utf8(migrate(&proxy).stderr).unwrap();
    assert!(said.contains("must name the new store"), "{said}");
    proxy.change_store(&database.url());
    let in_use = migrate(&proxy);
    assert_eq!(in_use.status.code(), Some(1));
    let said = String::from_utf8(in_use.stderr).unwrap();
    assert!(said.contains("in use by another process"), "{said}");
    proxy.terminate();
    let moved = migrate(&proxy);
    let said = String::from_utf8(moved.stdout).unwrap();
    assert!(moved.status.success() && said.contains(": 4 sessions, "), "{said}");
    proxy.start_again();
    let now: Vec<_> = browsers.iter_mut().map(served_as).collect();
    let expected = [None, Some("ann"), Some("ann"), Some("bob")];
    assert_eq!(now, expected.map(|user| user.map(str::to_owned)));
    assert_eq!(proxy.sessions("ann", "ended")[0]["end"]["reason"], "limit");
    // The limit counts those that came along.
    login_as(&mut proxy.browser(), "ann");
    assert_eq!(browsers[1..3].iter_mut().filter_map(served_as).count(), 1);
    let again = migrate(&proxy);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(!again.status.success() && said.contains("holds sessions already"), "{said}");
}
