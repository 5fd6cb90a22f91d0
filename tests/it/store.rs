//! What only the SQLite store promises; what every store does is in `store/conformance.rs`, what
//! only PostgreSQL does in `store/postgres.rs`.

pub(crate) mod build;
mod conformance;
mod migrate;
mod postgres;
mod throughput;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headcount::policy::{Limit, OnLimit};
use headcount::session::{EndReason, SessionId, Timestamp};
use headcount::store::{
    Committed, Decide, Decision, Feed, Listing, Loaded, Plan, Retention, Scope, Store, StoreError,
    sqlite,
};

use sqlx::{ConnectOptions, Connection};

use build::{Ear, end, everything, id, ids, limit, limits, login, session, write};
use conformance::conformance;

const TIMEOUT_MS: u64 = 20_000;

pub(crate) async fn open(path: &Path, ear: &Arc<Ear>) -> Arc<dyn Store> {
    let feed: Arc<dyn Feed> = Arc::<Ear>::clone(ear);
    sqlite::open(path, TIMEOUT_MS, feed).await.unwrap()
}

async fn try_open(path: &Path) -> Result<Arc<dyn Store>, StoreError> {
    sqlite::open(path, TIMEOUT_MS, Ear::new(limits(1))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    conformance(|ear| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = folder.path().join(format!("{number}.db"));
        async move { open(&path, &ear).await }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn simultaneous_logins_never_exceed_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    for (round, max) in [1, 2, 5, 1, 2, 5].into_iter().enumerate() {
        for on_limit in [OnLimit::Evict, OnLimit::Deny] {
            let rule = Arc::new(Limit { on_limit, otherwise: on_limit, ..(*limit(max)).clone() });
            let ear = Ear::new(limits(max));
            let store = open(&folder.path().join(format!("{round}{on_limit:?}.db")), &ear).await;
            let logins = (1..=64).map(|number| {
                let (scope, decide) = login(number, "ann", number as i64, &rule);
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.transact(scope, decide).await.unwrap() })
            });
            let mut admitted = 0;
            for login in logins.collect::<Vec<_>>() {
                let decision = login.await.unwrap();
                admitted += usize::from(matches!(decision, Decision::Admitted { .. }));
            }
            assert_eq!(admitted, if on_limit == OnLimit::Deny { max as usize } else { 64 });
            let live = Listing { live: Some(true), ..everything() };
            assert_eq!(ids(&*store, live).await.len(), max as usize);
            assert_eq!(ear.registry.live_of("ann").len(), max as usize);
            let mut live = 0_i64;
            for change in ear.heard.lock().iter() {
                for session in &change.sessions {
                    let denied = session.id == change.keys[0].session && session.end.is_some();
                    live += if session.end.is_none() { 1 } else { -i64::from(!denied) };
                }
                assert!(live <= i64::from(max), "{live} live at once");
            }
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_closes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headcount.db");
    let store = open(&path, &Ear::new(limits(1))).await;
    let Err(StoreError::Locked(named)) = try_open(&path).await else { panic!("not refused") };
    assert_eq!(named, path.display().to_string());
    store.ping().await.unwrap();
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Stopped)));
    store.close().await;
    try_open(&path).await.unwrap().close().await;
}

/// A feed with a defect.
struct Panics;

impl Feed for Panics {
    fn committed(&self, _: Committed) {
        panic!("injected");
    }

    fn replicated(&self, _: Committed, _: &[Duration]) {}

    fn store_time(&self, _: Timestamp) {}

    fn last_seen_at(&self, _: SessionId) -> Option<Timestamp> {
        None
    }
}

/// Whoever waits for the end of the store is told at once, so that the process can leave.
#[tokio::test]
async fn a_writer_that_panics_ends_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headcount.db");
    let store = sqlite::open(&path, TIMEOUT_MS, Arc::new(Panics)).await.unwrap();
    let soon = Duration::from_millis(300);
    assert!(tokio::time::timeout(soon, store.stopped()).await.is_err(), "not yet");
    let (scope, decide) = login(1, "ann", 1, &limit(1));
    assert!(store.transact(scope, decide).await.is_err());
    tokio::time::timeout(soon, store.stopped()).await.unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Stopped)));
}

/// Not a test by itself: the process that the next one kills.
#[tokio::test]
async fn holds_a_store_for_another_test() {
    let Some(path) = std::env::var_os("HEADCOUNT_TEST_STORE") else { return };
    let store = open(Path::new(&path), &Ear::new(limits(1))).await;
    for number in 1.. {
        let (scope, decide) = login(number, "ann", number as i64, &limit(1));
        store.transact(scope, decide).await.unwrap();
        println!("\ncommitted {number}");
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_acknowledged_and_frees_the_file() {
    use std::io::BufRead;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headcount.db");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::holds_a_store_for_another_test", "--nocapture"])
        .env("HEADCOUNT_TEST_STORE", &path)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut number_of_next =
        || lines.by_ref().find_map(|line| line.unwrap().strip_prefix("committed ")?.parse().ok());
    while number_of_next() < Some(20) {}
    assert!(matches!(try_open(&path).await, Err(StoreError::Locked(_))));
    child.kill().unwrap();
    let mut acknowledged: u64 = 20;
    while let Some(number) = number_of_next() {
        acknowledged = number;
    }
    child.wait().unwrap();
    let ear = Ear::new(limits(1));
    let store = open(&path, &ear).await;
    let live = store.list(Listing { live: Some(true), ..everything() }).await.unwrap();
    assert_eq!(live.len(), 1);
    assert!(live[0].id >= id(acknowledged), "an acknowledged login is gone");
    store.close().await;
}

#[tokio::test]
async fn reopening_keeps_everything_and_the_counters_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headcount.db");
    let ear = Ear::new(limits(3));
    let store = open(&path, &ear).await;
    for number in 1..=5 {
        let (scope, decide) = login(number, "ann", number as i64, &limit(3));
        store.transact(scope, decide).await.unwrap();
    }
    let before = store.list(everything()).await.unwrap();
    store.close().await;

    let ear = Ear::new(limits(3));
    let store = open(&path, &ear).await;
    assert_eq!(store.list(everything()).await.unwrap(), before);
    ear.registry.load(&store.load().await.unwrap());
    for number in 1..=5 {
        end(&*store, number, EndReason::Admin, 9).await;
    }
    let none = Retention { history_ms: 0, history_per_user: 0, tombstones_ms: 0 };
    ear.registry.forget(&store.prune(Timestamp(10_000), none).await.unwrap());
    assert_eq!(store.list(everything()).await.unwrap(), []);
    assert_eq!(ear.registry.counts(), Default::default());
    store.close().await;

    let ear = Ear::new(limits(3));
    let store = open(&path, &ear).await;
    write(&*store, &[session(9, "ann", 1)], &[]).await;
    let heard = &ear.heard_sessions()[0];
    assert_eq!((heard.login_seq, heard.change_seq), (6, 8 + 3));
    store.close().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ear = Ear::new(limits(1));
    let store = open(&folder.path().join("headcount.db"), &ear).await;
    let (scope, decide) = login(1, "ann", 1, &limit(1));
    let mut call = store.transact(scope, decide);
    // Polled once the command is on its way; then the caller is gone.
    let poll = std::future::poll_fn(|context| {
        std::task::Poll::Ready(call.as_mut().poll(context).is_pending())
    });
    assert!(poll.await);
    drop(call);
    store.ping().await.unwrap();
    assert_eq!(ear.heard_sessions()[0].id, id(1));
    assert!(store.find(id(1)).await.unwrap().is_some());
    store.close().await;
}

#[tokio::test]
async fn a_call_waits_no_longer_than_its_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let ear = Ear::new(limits(1));
    let path = folder.path().join("headcount.db");
    let store = sqlite::open(&path, 20, Arc::<Ear>::clone(&ear) as Arc<dyn Feed>).await.unwrap();
    let hold = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&hold);
    let plan = Plan { sessions: vec![session(1, "ann", 1)], ..Plan::default() };
    // This decision takes as long as the test wants; real ones only compute.
    let decide: Decide = Box::new(move |_| {
        while held.available_permits() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        plan.clone()
    });
    let slow = std::thread::spawn({
        let (store, hold) = (Arc::clone(&store), Arc::clone(&hold));
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let outcome = runtime.unwrap().block_on(store.transact(Scope::default(), decide));
            hold.add_permits(1);
            outcome
        }
    });
    while !slow.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(matches!(slow.join().unwrap(), Err(StoreError::Timeout(20))));
    let deadline = Instant::now() + Duration::from_secs(5);
    while ear.heard_sessions().is_empty() {
        assert!(Instant::now() < deadline, "the feed never heard of it");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.close().await;
}

#[tokio::test]
async fn the_file_is_for_its_owner_only_and_a_foreign_file_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headcount.db");
    std::fs::write(&path, b"").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&path, &Ear::new(limits(1))).await;
    write(&*store, &[session(1, "ann", 1)], &[]).await;
    for name in ["headcount.db", "headcount.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert!(matches!(try_open(&path).await, Err(StoreError::Corrupt(_))));
    let missing = folder.path().join("missing/headcount.db");
    let Err(StoreError::Open(why)) = try_open(&missing).await else { panic!("not refused") };
    assert!(why.contains("missing/headcount.db"), "{why}");
}

/// Half of the sessions have ended; behind the store's back, since it takes seconds through it.
async fn fill(path: &Path, count: i64) {
    const NUMBERS: &str = "CREATE TEMP TABLE numbers AS WITH RECURSIVE counted(n) AS \
        (VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < $1) SELECT n FROM counted";
    const SESSIONS: &str = "INSERT INTO sessions (id, user_name, created_at, renewed_at, \
        last_seen_at, login_seq, change_seq, client_address, user_agent, ended_at, end_reason) \
        SELECT randomblob(16), \
        'user' || (n / 2) || '@example.com', 1, 1, 1, n, n, '192.0.2.1', \
        'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/' || (n % 50), \
        iif(n % 2, 2, NULL), iif(n % 2, 'limit', NULL) FROM numbers";
    const KEYS: &str = "INSERT INTO session_keys (key, exact, session, key_use, since) \
        SELECT randomblob(16), randomblob(16), id, 'bearer', 1 FROM sessions";
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    sqlx::query(NUMBERS).bind(count).execute(&mut connection).await.unwrap();
    for statement in [SESSIONS, KEYS] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_sessions_are_ready_in_two_seconds() {
    const COUNT: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headcount.db");
    open(&path, &Ear::new(limits(2))).await.close().await;
    fill(&path, COUNT as i64).await;
    let ear = Ear::new(limits(2));
    let start = Instant::now();
    let store = open(&path, &ear).await;
    let opened = start.elapsed();
    let loaded: Loaded = store.load().await.unwrap();
    let read = start.elapsed();
    ear.registry.load(&loaded);
    let ready = start.elapsed();
    println!("opened after {opened:?}, read after {read:?}, ready after {ready:?}");
    assert_eq!(ear.registry.counts().keys, COUNT as usize);
    assert!(ready < Duration::from_secs(if cfg!(debug_assertions) { 6 } else { 2 }), "{ready:?}");
    store.close().await;
}
