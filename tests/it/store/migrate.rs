//! From SQLite to PostgreSQL: nothing is lost on the way, and nothing half done is left behind.

use headcount::session::{EndReason, Key, KeyUse, Session, Timestamp};
use headcount::store::migrate::{Moved, to_postgres};
use headcount::store::postgres::Server;
use headcount::store::{CookieShape, Loaded, Plan, Retention};

use super::build::{always, bearer, end, ended, everything, session, write};
use super::postgres::{open_for, options};
use super::*;
use crate::support::postgres::Database;

/// Names that a line of text would not survive.
const USERS: [&str; 6] = ["ann", "a\tb\\n", "c\nd\r", "\\N", "nul\0one\u{1}", "zoë 雪"];

/// Live, ended and forgotten sessions, keys of every use, a cookie's shape.
async fn fill(store: &dyn Store) {
    for (number, user) in (1..).zip(USERS) {
        let sessions = [session(number, user, 10), session(number + 100, user, 20)];
        let fenced = Key { key_use: KeyUse::Fenced, ..bearer(number + 300, number, 10) };
        let keys = [bearer(number, number, 10), bearer(number + 100, number + 100, 20), fenced];
        write(store, &sessions, &keys).await;
        end(store, number, EndReason::Logout, 30).await;
    }
    let mut noted = session(200, "observed", 40);
    noted.would_end = session_end(50);
    let nobody = Session { user: None, ..session(201, "", 41) };
    let (scope, decide) = always(Plan { sessions: vec![noted, nobody], ..Plan::default() });
    store.transact(scope, decide).await.unwrap();
    let late = Key { key_use: KeyUse::Superseded, ..bearer(400, 101, 60) };
    store.touch(Vec::new(), vec![late]).await.unwrap();
    let shape = CookieShape {
        name: "sid".to_owned(),
        domain: String::new(),
        path: "/a\\b".to_owned(),
        attributes: "; HttpOnly".to_owned(),
    };
    store.remember_shape(shape).await.unwrap();
    // One that is no longer history and not yet forgotten.
    let keep = Retention { history_ms: 0, history_per_user: 1, tombstones_ms: i64::MAX / 2 };
    end(store, 101, EndReason::Admin, 70).await;
    store.prune(Timestamp(71), keep).await.unwrap();
}

fn session_end(at: i64) -> Option<headcount::session::Ending> {
    ended(&session(1, "", 0), EndReason::Limit, at).end
}

/// In an order of their own.
fn sorted(mut loaded: Loaded) -> (Vec<Session>, Vec<Key>, Vec<CookieShape>) {
    loaded.sessions.sort_by_key(|session| session.id);
    loaded.keys.sort_by_key(|key| key.key.0);
    (loaded.sessions, loaded.keys, loaded.shapes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_and_the_counters_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    let old = open(&path, &Ear::new(limits(3))).await;
    fill(&*old).await;
    let before = (sorted(old.load().await.unwrap()), old.list(everything()).await.unwrap());
    assert_eq!(before.1.len(), 7, "five live, one observed, one nobody's; the rest is hidden");
    let database = Database::create();
    let server = Server::parse(&database.url(), None).unwrap();
    // While a proxy has the file it is not copied.
    let refused = to_postgres(&path, &server, &options()).await;
    assert!(matches!(refused, Err(StoreError::Locked(_))), "{refused:?}");
    old.close().await;
    let moved = to_postgres(&path, &server, &options()).await.unwrap();
    assert_eq!(moved, Moved { sessions: 14, keys: 19 });
    let ear = Ear::new(limits(3));
    let feed: Arc<dyn Feed> = Arc::<Ear>::clone(&ear);
    let new = open_for(&database.url(), feed).await;
    let after = (sorted(new.load().await.unwrap()), new.list(everything()).await.unwrap());
    assert_eq!(after, before);
    // Later logins come after those that were copied.
    let newest = before.0.0.iter().map(|session| session.login_seq).max().unwrap();
    write(&*new, &[session(500, "ann", 80)], &[]).await;
    assert_eq!(new.find(id(500)).await.unwrap().unwrap().login_seq, newest + 1);
    new.close().await;
    // Not twice; and the file is as it was.
    let Err(StoreError::Open(why)) = to_postgres(&path, &server, &options()).await else {
        panic!("copied over what is there");
    };
    assert!(why.contains("holds sessions already"), "{why}");
    let old = open(&path, &Ear::new(limits(3))).await;
    assert_eq!(sorted(old.load().await.unwrap()), before.0);
    old.close().await;
}

#[tokio::test]
async fn a_copy_that_breaks_off_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    let old = open(&path, &Ear::new(limits(3))).await;
    for number in 1..=2_000 {
        write(&*old, &[session(number, "ann", 10)], &[bearer(number, number, 10)]).await;
    }
    old.close().await;
    let database = Database::create();
    let link = crate::support::link::Link::to(([127, 0, 0, 1], database.port()).into());
    let far = Server::parse(&database.url_at(link.address.port()), None).unwrap();
    link.break_at(b"COPY headcount.session_keys", true);
    let broken = to_postgres(&path, &far, &options()).await;
    assert!(broken.is_err() && !link.is_armed(), "{broken:?}");
    eventually_empty(&database);
    let server = Server::parse(&database.url(), None).unwrap();
    let moved = to_postgres(&path, &server, &options()).await.unwrap();
    assert_eq!(moved, Moved { sessions: 2_000, keys: 2_000 });
    let missing = to_postgres(&folder.path().join("none.db"), &server, &options()).await;
    let why = missing.unwrap_err().to_string();
    assert!(why.contains("none.db") && !folder.path().join("none.db").exists(), "{why}");
}

/// The server notices a lost connection when it next uses it.
fn eventually_empty(database: &Database) {
    crate::support::eventually("the transaction is gone", || {
        (database.sql("SELECT count(*) FROM headcount.sessions").trim() == "0").then_some(())
    });
}
