//! Durable admissions a second, beside what the engine does with nothing but a row to insert, on the
//! same disk in the same run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headcount::session::{SessionId, Timestamp};
use headcount::store::{Committed, Feed, Store, sqlite};
use sqlx::{ConnectOptions, Connection, Executor};

use super::build::{limit, login};
use super::postgres;
use crate::support::postgres::Database;

const USERS: u64 = 64;
const EACH: u64 = 8;
/// The first opens connections and does not count.
const ROUNDS: u64 = 5;
const BARE: &str = "INSERT INTO bare (text) VALUES ($1)";

/// Costs nothing: the registry checks itself after every change in debug builds.
struct Deaf;

impl Feed for Deaf {
    fn committed(&self, _: Committed) {}

    fn replicated(&self, _: Committed, _: &[Duration]) {}

    fn store_time(&self, _: Timestamp) {}

    fn last_seen_at(&self, _: SessionId) -> Option<Timestamp> {
        None
    }
}

/// Logins and bare inserts take turns, since others use the disk too. Half of the bare rate is what
/// is promised; a store that committed one login after the other would be far below.
async fn measure<Bare>(engine: &str, store: Arc<dyn Store>, insert: impl Fn(u64) -> Bare)
where
    Bare: Future<Output = ()> + Send + 'static,
{
    let (mut admitted, mut inserted) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let start = Instant::now();
        in_parallel(|user| {
            let (store, rule) = (Arc::clone(&store), limit(2));
            async move {
                for turn in 0..EACH {
                    let number = (round * USERS + user) * EACH + turn + 1;
                    let (scope, decide) = login(number, &format!("u{user}"), 1, &rule);
                    store.transact(scope, decide).await.unwrap();
                }
            }
        })
        .await;
        let between = Instant::now();
        in_parallel(&insert).await;
        if round > 0 {
            admitted += between - start;
            inserted += between.elapsed();
        }
    }
    let rate = |took: Duration| ((ROUNDS - 1) * USERS * EACH) as f64 / took.as_secs_f64();
    let (logins, inserts) = (rate(admitted), rate(inserted));
    println!("{engine}: {logins:.0} logins/s beside {inserts:.0} bare inserts/s");
    assert!(logins > inserts / 2.0, "{engine}: {logins:.0}/s beside {inserts:.0}/s");
    store.close().await;
}

async fn in_parallel<Work>(work: impl Fn(u64) -> Work)
where
    Work: Future<Output = ()> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..USERS {
        tasks.spawn(work(number));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_admits_at_half_of_its_bare_rate_or_faster() {
    let database = Database::create();
    let store = postgres::open_for(&database.url(), Arc::new(Deaf)).await;
    database.sql("CREATE TABLE bare (number bigserial PRIMARY KEY, text text)");
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(16).test_before_acquire(false);
    let pool = pool.connect(&database.url()).await.unwrap();
    let insert = |_| {
        let pool = pool.clone();
        async move {
            for _ in 0..EACH {
                sqlx::query(BARE).bind("x".repeat(200)).execute(&pool).await.unwrap();
            }
        }
    };
    measure("PostgreSQL", store, insert).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_admits_at_half_of_its_bare_rate_or_faster() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = sqlite::open(&folder.path().join("a.db"), 20_000, Arc::new(Deaf)).await.unwrap();
    let bare = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.path().join("bare.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    let mut bare = bare.connect().await.unwrap();
    bare.execute("CREATE TABLE bare (number INTEGER PRIMARY KEY, text TEXT)").await.unwrap();
    // One writer at a time is all that this engine can do.
    let bare = Arc::new(tokio::sync::Mutex::new(bare));
    let insert = |_| {
        let bare = Arc::clone(&bare);
        async move {
            for _ in 0..EACH {
                let insert = sqlx::query(BARE).bind("x".repeat(200));
                insert.execute(&mut *bare.lock().await).await.unwrap();
            }
        }
    };
    measure("SQLite", store, insert).await;
    drop(Arc::into_inner(bare).unwrap().into_inner().close().await);
}
