//! A store that is no longer there: what is written to a file without a name would be gone at the next
//! start, so the process leaves, and says why.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::support::{eventually, raw};

fn file(proxy: &Proxy, name: &str) -> PathBuf {
    proxy.folder().join(name)
}

/// It ends within a second of `done`, as something that failed, although somebody would hold up a
/// drain; nobody is left to answer.
#[track_caller]
fn assert_leaves(proxy: &mut Proxy, name: &str, done: impl FnOnce(&Proxy)) {
    let mut stream = raw::connect(proxy.address);
    write!(stream, "GET /stream HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 500]).unwrap();
    done(proxy);
    let started = Instant::now();
    let status = eventually("it leaves", || proxy.ended());
    let took = started.elapsed();
    println!("left {took:?} after {name} was lost");
    assert_eq!(status.code(), Some(1), "{name}");
    assert!(took < Duration::from_secs(1), "{name}: {took:?}");
    let says = |text: &str| {
        eventually(text, || proxy.log().iter().any(|line| line.contains(text)).then_some(()));
    };
    says("the store was removed or replaced");
    says(&format!("{name}\""));
    says("the store has stopped; leaving");
}

#[test]
fn a_store_that_was_removed_ends_the_process_within_a_second() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1\nserver.shutdown_grace = \"5m\"");
    let alice = signed_in(&proxy, "alice");
    assert_leaves(&mut proxy, "headcount.db", |proxy| {
        fs::remove_file(file(proxy, "headcount.db")).unwrap();
    });
    // The next begins with nothing, and does not take the old one's log for its own.
    proxy.start_again();
    assert_eq!(proxy.sessions("alice", "all").len(), 0);
    drop(alice);
    let mut bob = signed_in(&proxy, "bob");
    proxy.restart();
    assert_eq!((bob.get("/").status, proxy.live("bob")), (200, 1));
}

#[test]
fn a_write_ahead_log_that_was_removed_ends_it_too() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1");
    let _alice = signed_in(&proxy, "alice");
    assert_leaves(&mut proxy, "headcount.db-wal", |proxy| {
        fs::remove_file(file(proxy, "headcount.db-wal")).unwrap();
    });
    // What was in it is in the store: it was written back on the way out.
    proxy.start_again();
    assert_eq!(proxy.live("alice"), 1);
}

#[test]
fn a_backup_put_in_its_place_is_what_the_next_start_finds() {
    let app = app("app");
    let mut proxy = proxy(&app, "limit.max_sessions = 1");
    let mut alice = signed_in(&proxy, "alice");
    assert!(proxy.terminate().success());
    fs::copy(file(&proxy, "headcount.db"), file(&proxy, "backup.db")).unwrap();
    proxy.start_again();
    // So much that the log of the old store would not fit the new one.
    let users: Vec<Browser> =
        (0..40).map(|number| signed_in(&proxy, &format!("user-{number}"))).collect();
    assert_leaves(&mut proxy, "headcount.db", |proxy| {
        fs::rename(file(proxy, "backup.db"), file(proxy, "headcount.db")).unwrap();
    });
    assert!(file(&proxy, "headcount.db-wal.stale").exists());
    proxy.start_again();
    assert_eq!((alice.get("/").status, proxy.live("alice")), (200, 1));
    assert_eq!(proxy.sessions("user-0", "all").len(), 0);
    drop(users);
    proxy.restart();
    assert_eq!(proxy.live("alice"), 1);
}
