//! Many sessions: what they take in memory and how long the start takes. The store is filled behind
//! the proxy's back, since it would take minutes through it.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions as _, Connection as _};

use super::site::{self, Site};
use crate::support::proxy::Proxy;
use crate::support::soak;

/// A live session of a user with three of them on average, and its key, in bytes.
const LIVE_BYTES: u64 = 300;
/// An ended session that nobody uses, and its key.
const TOMBSTONE_BYTES: u64 = 64;

/// What the start itself leaves: SQLite's cache of pages, the rows of a page.
const START_BYTES: u64 = 4 << 20;

struct Size {
    live: u64,
    users: u64,
    tombstones: u64,
    ready_within: Duration,
}

const SMALL: Size = Size {
    live: 100_000,
    users: 30_000,
    tombstones: 200_000,
    // Without optimisation, beside other tests.
    ready_within: Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 3 }),
};
const FULL: Size = Size {
    live: 1_000_000,
    users: 300_000,
    tombstones: 2_000_000,
    ready_within: Duration::from_secs(5),
};

async fn fill(path: &Path, size: &Size) {
    const SESSIONS: &str = "WITH RECURSIVE counted(n) AS \
        (VALUES (0) UNION ALL SELECT n + 1 FROM counted WHERE n < $1 - 1) \
        INSERT INTO sessions (id, user_name, created_at, renewed_at, last_seen_at, login_seq, \
        change_seq, client_address, user_agent, ended_at, end_reason) SELECT randomblob(16), \
        'user' || (n % $2) || '@example.com', $3, $3, $3, n + 10, n + 10, '192.0.2.' || (n % 250), \
        'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/' || (n % 50), \
        iif(n >= $4, $3, NULL), iif(n >= $4, 'limit', NULL) FROM counted";
    const KEYS: &str = "INSERT INTO session_keys (key, exact, session, key_use, since) \
        SELECT id, id, id, 'bearer', created_at FROM sessions WHERE login_seq >= 10 ORDER BY id";
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let sessions = sqlx::query(SESSIONS)
        .bind(i64::try_from(size.live + size.tombstones).unwrap())
        .bind(i64::try_from(size.users).unwrap())
        .bind(i64::try_from(now).unwrap())
        .bind(i64::try_from(size.live).unwrap());
    sessions.execute(&mut connection).await.unwrap();
    sqlx::query(KEYS).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn hold(size: &Size) {
    let site = Site::start();
    let mut proxy = Proxy::start(site.address(), None, &site::rules("limit.max_sessions = 10"));
    assert_eq!(site::login_as(&mut proxy.browser(), "early").status, 302);
    let empty = proxy.memory();
    assert!(proxy.terminate().success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fill(&proxy.folder().join("headcount.db"), size));
    let started = Instant::now();
    proxy.start_again();
    let took = started.elapsed();
    assert_eq!(site::login_as(&mut proxy.browser(), "late").status, 302);
    let grown = proxy.memory().saturating_sub(empty);
    let allowed = size.live * LIVE_BYTES + size.tombstones * TOMBSTONE_BYTES + START_BYTES;
    println!(
        "{} live, {} tombstones: ready after {took:?}, {} MiB more, allowed {} MiB",
        size.live,
        size.tombstones,
        grown >> 20,
        allowed >> 20,
    );
    let page = proxy.metrics();
    for (name, count) in [("sessions_live", size.live + 2), ("tombstones", size.tombstones)] {
        assert!(page.contains(&format!("headcount_{name} {count}\n")), "{name}: {page}");
    }
    assert!(grown <= allowed, "{grown} bytes, allowed {allowed}");
    assert!(took < size.ready_within, "{took:?}");
}

#[test]
fn a_live_session_takes_300_bytes_and_a_tombstone_64_soak() {
    hold(if soak() { &FULL } else { &SMALL });
}
