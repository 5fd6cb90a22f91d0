//! The steady request path: memory only. That no lock is held across an await is not tested but
//! checked at compile time: `await_holding_lock` is on for the whole package (`Cargo.toml`), knows
//! the guards of `parking_lot`, and is an error in `make test`; those guards are not `Send` either,
//! so that no future of the data path could hold one and still be spawned.

use std::thread;
use std::time::{Duration, Instant};

use super::site::{self, Site};
use crate::support::eventually;
use crate::support::proxy::Proxy;

const REQUESTS: usize = 2000;
/// Requests between two looks at the counter.
const BATCH: usize = 100;
/// Pruning comes every two seconds, on its own.
const PRUNE_INTERVAL: Duration = Duration::from_secs(2);
/// Its statements: two for the transaction, two for the savepoint, seven of pruning itself.
const PRUNE_STATEMENTS: u64 = 11;

#[test]
fn the_steady_request_path_asks_the_database_nothing() {
    let site = Site::start();
    let toml = site::rules(
        "limit.max_sessions = 1\nsession.flush_interval = \"5m\"\nsession.sweep_interval = \"5m\"",
    );
    let proxy = Proxy::start(site.address(), None, &toml);
    let mut browser = proxy.browser();
    assert_eq!(site::login_as(&mut browser, "alice").status, 302);
    assert_eq!(site::served_as(&mut browser).as_deref(), Some("alice"));
    let mut stranger = proxy.browser();

    let (first, started) = (settled(&proxy), Instant::now());
    let (mut before, mut quiet) = (first, 0);
    for _ in 0..REQUESTS / BATCH {
        for number in 0..BATCH {
            let (who, expected) = if number % 10 == 9 {
                (&mut stranger, None)
            } else {
                (&mut browser, Some("alice"))
            };
            assert_eq!(site::served_as(who).as_deref(), expected);
        }
        let after = settled(&proxy);
        assert_eq!((after - before) % PRUNE_STATEMENTS, 0, "nothing but pruning");
        quiet += usize::from(after == before);
        before = after;
    }
    let rounds = started.elapsed().as_secs() / PRUNE_INTERVAL.as_secs() + 1;
    assert!(before - first <= rounds * PRUNE_STATEMENTS, "{first} to {before}, {rounds} rounds");
    assert!(quiet > 0, "some batches saw no statement at all");
}

/// The count while nothing is under way: pruning may be half done on a busy machine.
fn settled(proxy: &Proxy) -> u64 {
    let mut before = statements(proxy);
    eventually("pruning is done", || {
        thread::sleep(Duration::from_millis(50));
        let after = statements(proxy);
        (std::mem::replace(&mut before, after) == after).then_some(after)
    })
}

fn statements(proxy: &Proxy) -> u64 {
    let page = proxy.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix("headcount_store_statements"));
    let value = line.and_then(|rest| rest.rsplit(' ').next()?.parse().ok());
    assert!(value.is_some(), "{page}");
    value.unwrap_or_default()
}
