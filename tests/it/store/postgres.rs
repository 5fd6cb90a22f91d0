//! What only the PostgreSQL store promises: several replicas on one database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headcount::policy::{Limit, OnLimit};
use headcount::session::{EndReason, Key, KeyUse, Timestamp};
use headcount::store::postgres::{Options, Server};
use headcount::store::{
    Decision, Feed, KeyChecks, LATE_KEYS_MAX, Listing, Retention, Store, StoreError,
};

use super::build::{
    Ear, bearer, end, everything, id, ids, key, limit, limits, login, session, write,
};
use super::conformance::conformance;
use crate::support::link::Link;
use crate::support::postgres::Database;
use crate::support::soak;

pub(super) fn options() -> Options {
    Options {
        app: "tests".to_owned(),
        keys: KeyChecks { used: [7; 16], accepted: None, promoted: false },
        node: "test".to_owned(),
        connections_max: 8,
        timeout_ms: 5_000,
        notify: true,
        poll_interval_ms: 250,
        grace_ms: 5_000,
        lease_ms: None,
    }
}

async fn try_open(
    url: &str,
    options: Options,
    ear: &Arc<Ear>,
) -> Result<Arc<dyn Store>, StoreError> {
    let feed: Arc<dyn Feed> = Arc::<Ear>::clone(ear);
    headcount::store::postgres::open(&Server::parse(url, None).unwrap(), options, feed).await
}

pub(crate) async fn open_for(url: &str, feed: Arc<dyn Feed>) -> Arc<dyn Store> {
    let server = Server::parse(url, None).unwrap();
    headcount::store::postgres::open(&server, options(), feed).await.unwrap()
}

async fn open(url: &str, ear: &Arc<Ear>) -> Arc<dyn Store> {
    try_open(url, options(), ear).await.unwrap()
}

/// Waits until `look` finds it so.
async fn soon(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !look() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms() {
    conformance(|ear| async move { open(&Database::create().url(), &ear).await }).await;
}

/// Fifty at once on three replicas; a thousand rounds for each limit in `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn simultaneous_logins_on_three_replicas_never_exceed_the_limit_soak() {
    const LOGINS: u64 = 50;
    let rounds = if soak() { 1_000 } else { 20 };
    let database = Database::create();
    let ears: [Arc<Ear>; 3] = std::array::from_fn(|_| Ear::new(limits(1)));
    let mut replicas = Vec::new();
    for ear in &ears {
        replicas.push(open(&database.url(), ear).await);
    }
    let mut number = 0;
    for round in 0..rounds {
        for (max, on_limit) in
            [1, 2, 5].into_iter().flat_map(|max| [(max, OnLimit::Evict), (max, OnLimit::Deny)])
        {
            let rule = Arc::new(Limit { on_limit, otherwise: on_limit, ..(*limit(max)).clone() });
            let user = format!("user {round} {max} {on_limit:?}");
            let mut logins = tokio::task::JoinSet::new();
            for turn in 0..LOGINS {
                number += 1;
                let (scope, decide) = login(number, &user, number as i64, &rule);
                let store = Arc::clone(&replicas[turn as usize % 3]);
                logins.spawn(async move { store.transact(scope, decide).await.unwrap() });
            }
            let told = logins.join_all().await;
            let admitted = |told: &&Decision| matches!(told, Decision::Admitted { .. });
            let expected = if on_limit == OnLimit::Deny { u64::from(max) } else { LOGINS };
            assert_eq!(told.iter().filter(admitted).count() as u64, expected, "{user}");
            let live = Listing { live: Some(true), user: Some((*user).into()), ..everything() };
            let mut stored = ids(&*replicas[0], live).await;
            assert_eq!(stored.len(), max as usize, "{user}");
            stored.sort();
            for ear in &ears {
                soon("all replicas agree", || {
                    let live = ear.registry.live_of(&user);
                    let mut known: Vec<_> = live.iter().map(|entry| entry.id).collect();
                    known.sort();
                    known == stored
                })
                .await;
            }
        }
    }
    for replica in replicas {
        replica.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_learns_everything_that_another_did() {
    let database = Database::create();
    let ears = [Ear::new(limits(2)), Ear::new(limits(2))];
    let one = open(&database.url(), &ears[0]).await;
    let other = open(&database.url(), &ears[1]).await;
    let registry = &ears[1].registry;
    write(
        &*one,
        &[session(1, "ann", 1), session(2, "ann", 1)],
        &[bearer(1, 1, 1), bearer(2, 2, 1)],
    )
    .await;
    soon("the sessions", || registry.live_of("ann").len() == 2).await;
    soon("the keys", || registry.lookup(key(2)).is_some()).await;
    let watched = registry.by_id(id(1)).unwrap().cut();
    end(&*one, 1, EndReason::Admin, 2).await;
    soon("the end", || registry.by_id(id(1)).unwrap().ending().is_some()).await;
    assert!(watched.is_cancelled(), "a stream of the ended session goes on");
    one.touch(vec![(id(2), Timestamp(500))], Vec::new()).await.unwrap();
    soon("the use", || registry.last_seen_at(id(2)) == Some(Timestamp(500))).await;
    // The app hands out a value of an ended session again.
    write(&*one, &[session(3, "bob", 3)], &[bearer(1, 3, 3)]).await;
    soon("the moved key", || registry.lookup(key(1)).unwrap().entry.id == id(3)).await;
    let late = |number| Key { key_use: KeyUse::Superseded, ..bearer(number, 2, number as i64) };
    let many = 100 + 3 * u64::from(LATE_KEYS_MAX);
    for first in (100..many).step_by(32) {
        one.touch(Vec::new(), (first..first + 32).map(late).collect()).await.unwrap();
    }
    soon("the last late key", || registry.lookup(key(many - 1)).is_some()).await;
    assert!(registry.counts().keys <= LATE_KEYS_MAX as usize + 2, "{:?}", registry.counts());
    end(&*one, 2, EndReason::Logout, 600).await;
    let none = Retention { history_ms: 0, history_per_user: 0, tombstones_ms: 0 };
    let gone = one.prune(Timestamp(10_000), none).await.unwrap();
    assert!(!gone.is_empty());
    soon("what was pruned", || registry.by_id(id(2)).is_none()).await;
    // Nobody hears of his own changes, nor as an event of the others'.
    assert_eq!(ears[1].heard.lock().len(), 0);
    assert_eq!(registry.live_of("bob").len(), 1);
    for store in [one, other] {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_loads_later_is_all_there() {
    let database = Database::create();
    let ear = Ear::new(limits(3));
    let store = open(&database.url(), &ear).await;
    for number in 1..=5 {
        let (scope, decide) = login(number, "ann", number as i64, &limit(3));
        store.transact(scope, decide).await.unwrap();
    }
    let before = store.list(everything()).await.unwrap();
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Stopped)));
    let ear = Ear::new(limits(3));
    let store = open(&database.url(), &ear).await;
    ear.registry.load(&store.load().await.unwrap());
    assert_eq!(store.list(everything()).await.unwrap(), before);
    assert_eq!(ear.registry.live_of("ann").len(), 3);
    assert_eq!(ear.registry.counts().keys, 5);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_is_there_although_connections_die() {
    let database = Arc::new(Database::create());
    let ear = Ear::new(limits(1_000));
    let store = open(&database.url(), &ear).await;
    let over = Arc::new(AtomicBool::new(false));
    let killed = Arc::new(AtomicUsize::new(0));
    let killer = std::thread::spawn({
        let (database, over, killed) = (Arc::clone(&database), Arc::clone(&over), killed.clone());
        move || {
            while !over.load(Ordering::Relaxed) {
                killed.fetch_add(database.kill_some_backends(60), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(60));
            }
        }
    });
    let rule = limit(1_000);
    let mut acknowledged = Vec::new();
    let mut failed = 0;
    // As long as it takes to kill some: on a busy machine that is the slower part.
    let begun = Instant::now();
    for batch in (0..).take_while(|batch| {
        *batch < 15 || (killed.load(Ordering::Relaxed) <= 10 && begun.elapsed().as_secs() < 30)
    }) {
        let logins = (1..=10).map(|turn| {
            let number = batch * 10 + turn;
            let (scope, decide) = login(number, &format!("u{turn}"), number as i64, &rule);
            let store = Arc::clone(&store);
            tokio::spawn(async move { (number, store.transact(scope, decide).await) })
        });
        for login in logins.collect::<Vec<_>>() {
            match login.await.unwrap() {
                (number, Ok(_)) => acknowledged.push(id(number)),
                (_, Err(_)) => failed += 1,
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    killer.join().unwrap();
    let killed = killed.load(Ordering::Relaxed);
    println!("{} acknowledged, {failed} failed, {killed} connections killed", acknowledged.len());
    assert!(killed > 10 && acknowledged.len() > 30 * failed, "{killed}, {failed} failed");
    for id in &acknowledged {
        assert!(ear.registry.by_id(*id).is_some(), "the feed never heard of {id}");
        assert!(store.find(*id).await.unwrap().is_some(), "{id} is lost");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_looked_up() {
    let database = Database::create();
    let link = Link::to(([127, 0, 0, 1], database.port()).into());
    let ear = Ear::new(limits(1_000));
    let store = open(&database.url_at(link.address.port()), &ear).await;
    let rule = limit(1_000);
    for number in 1..=40 {
        // The server has the COMMIT and nobody hears of it; or it never came.
        link.break_at(b"COMMIT", number % 2 == 0);
        let (scope, decide) = login(number, "ann", number as i64, &rule);
        let decision = store.transact(scope, decide).await.unwrap();
        assert!(!link.is_armed(), "the line did not break");
        assert_eq!(decision, Decision::Admitted { session: id(number) });
        assert!(store.find(id(number)).await.unwrap().is_some(), "login {number}");
    }
    // Each was told once, whatever happened to its connection.
    let heard: Vec<_> = ear.heard_sessions().iter().map(|session| session.id).collect();
    assert_eq!(heard, (1..=40).map(id).collect::<Vec<_>>());
    assert_eq!(ear.registry.live_of("ann").len(), 40);
    store.close().await;
}

/// Three replicas write as fast as they can while a fourth only listens, by polling: numbers that
/// became visible out of order would leave it with something that is not so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_misses_nothing_however_many_write() {
    const USERS: u64 = 12;
    let database = Database::create();
    let ear = Ear::new(limits(2));
    let polling = Options { notify: false, poll_interval_ms: 20, ..options() };
    let listener = try_open(&database.url(), polling, &ear).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..3 {
        let store = open(&database.url(), &Ear::new(limits(2))).await;
        writers.spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            for turn in 0..25 {
                for user in 0..USERS {
                    let number = 1 + writer + 3 * (user + USERS * turn);
                    let (scope, decide) = login(number, &format!("u{user}"), 1, &limit(2));
                    let store = Arc::clone(&store);
                    calls.spawn(async move { store.transact(scope, decide).await.unwrap() });
                }
                if turn % 3 == 0 {
                    while calls.join_next().await.is_some() {}
                }
            }
            calls.join_all().await;
            store.close().await;
        });
    }
    writers.join_all().await;
    let live = listener.list(Listing { live: Some(true), ..everything() }).await.unwrap();
    assert_eq!(live.len() as u64, 2 * USERS);
    soon("it knows what there is", || {
        live.iter().all(|one| ear.registry.by_id(one.id).is_some())
            && ear.registry.counts().live == live.len()
    })
    .await;
    let all = listener.load().await.unwrap();
    assert_eq!(all.sessions.len(), 3 * 25 * USERS as usize);
    for session in &all.sessions {
        let known = ear.registry.by_id(session.id).unwrap();
        assert_eq!(known.ending(), session.end.as_ref());
        assert_eq!(known.change_seq(), session.change_seq);
    }
    assert_eq!(ear.registry.counts().keys, all.keys.len());
    listener.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_nothing_knows_it_and_catches_up() {
    let database = Database::create();
    let link = Link::to(([127, 0, 0, 1], database.port()).into());
    let ears = [Ear::new(limits(2)), Ear::new(limits(2))];
    let one = open(&database.url(), &ears[0]).await;
    let quick = Options { timeout_ms: 1_000, grace_ms: 1_000, ..options() };
    let far = try_open(&database.url_at(link.address.port()), quick, &ears[1]).await.unwrap();
    write(&*one, &[session(1, "ann", 1)], &[bearer(1, 1, 1)]).await;
    soon("the session", || ears[1].registry.by_id(id(1)).is_some()).await;
    for hold in [true, false] {
        assert!(!far.is_stale() && far.lag().unwrap() < Duration::from_secs(1));
        let since = Instant::now();
        if hold {
            link.hold()
        } else {
            link.cut()
        }
        soon("it is stale", || far.is_stale()).await;
        assert!(since.elapsed() < Duration::from_millis(1_200), "{:?}", since.elapsed());
        let (scope, decide) = login(9, "bob", 9, &limit(2));
        assert!(far.transact(scope, decide).await.is_err());
        let number = if hold { 1 } else { 2 };
        end(&*one, number, EndReason::Admin, 2).await;
        write(&*one, &[session(number + 1, "ann", 3)], &[]).await;
        assert!(ears[1].registry.by_id(id(number)).unwrap().ending().is_none());
        link.mend();
        soon("it is not stale", || !far.is_stale()).await;
        assert!(ears[1].registry.by_id(id(number)).unwrap().ending().is_some());
        assert!(ears[1].registry.by_id(id(number + 1)).is_some());
        far.ping().await.unwrap();
    }
    for store in [one, far] {
        store.close().await;
    }
}

#[tokio::test]
async fn the_way_to_the_server_can_be_checked_tls() {
    let database = Database::create();
    let ear = Ear::new(limits(1));
    let checked = |ca: &std::path::Path| {
        let ca = ca.display();
        database.url().replace("sslmode=disable", &format!("sslmode=verify-full&sslrootcert={ca}"))
    };
    let store = open(&checked(&database.ca()), &ear).await;
    store.ping().await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE datname = current_database() AND application_name = 'headcount'";
    assert_eq!(database.sql(encrypted).trim(), "t");
    store.close().await;
    // Another server's certificate.
    let other = tempfile::tempdir().unwrap();
    let stranger = crate::support::postgres::certificate(other.path());
    let Err(StoreError::Open(why)) = try_open(&checked(&stranger), options(), &ear).await else {
        panic!("not refused");
    };
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused() {
    let database = Database::create();
    let ear = Ear::new(limits(1));
    let store = open(&database.url(), &ear).await;
    let refused = async |options: Options| {
        let Err(StoreError::Open(why)) = try_open(&database.url(), options, &ear).await else {
            panic!("not refused");
        };
        assert!(!why.contains("quoted"), "the password is shown: {why}");
        why
    };
    let why = refused(Options { app: "other".to_owned(), ..options() }).await;
    assert!(why.contains("app \"tests\""), "{why}");
    let keys = KeyChecks { used: [8; 16], accepted: None, promoted: false };
    let why = refused(Options { keys, ..options() }).await;
    assert!(why.contains("key_file"), "{why}");
    // A new key that is only staged leaves the old one in charge; once it is promoted, whoever does
    // not know it may not start any more.
    let staged = KeyChecks { used: [7; 16], accepted: Some([8; 16]), promoted: false };
    let promoted = KeyChecks { used: [8; 16], accepted: Some([7; 16]), promoted: true };
    let ear = Ear::new(limits(1));
    let second =
        try_open(&database.url(), Options { keys: staged, ..options() }, &ear).await.unwrap();
    let why = refused(Options { keys, ..options() }).await;
    assert!(why.contains("key_file"), "{why}");
    second.use_key(&staged).await.unwrap();
    second.use_key(&promoted).await.unwrap();
    let why = refused(options()).await;
    assert!(why.contains("key_file"), "{why}");
    for keys in [keys, staged, promoted] {
        let other = try_open(&database.url(), Options { keys, ..options() }, &ear).await.unwrap();
        other.close().await;
    }
    second.close().await;
    store.close().await;
    database.sql(
        "ALTER ROLE headcount IN DATABASE CURRENT_DATABASE SET synchronous_commit = off"
            .replace("CURRENT_DATABASE", &database.sql("SELECT current_database()"))
            .trim(),
    );
    let why = refused(options()).await;
    assert!(why.contains("synchronous_commit"), "{why}");
    let url = format!("{}x", database.url_without_password());
    let Err(StoreError::Open(why)) = try_open(&url, options(), &ear).await else {
        panic!("not refused");
    };
    assert!(why.starts_with("cannot use postgres://127.0.0.1"), "{why}");
    assert!(Server::parse(&database.url_without_password(), Some(Database::password())).is_ok());
}
