//! What happens when SQLite itself refuses, which needs a hand on the connection.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::*;
use crate::session::{Client, Groups};
use crate::store::{Committed, Plan};

#[derive(Default)]
struct Ear(Mutex<BTreeSet<SessionId>>);

impl Feed for Ear {
    fn committed(&self, change: Committed) {
        self.0.lock().extend(change.sessions.iter().map(|session| session.id));
    }

    fn replicated(&self, _: Committed, _: &[Duration]) {}

    fn store_time(&self, _: Timestamp) {}

    fn last_seen_at(&self, _: SessionId) -> Option<Timestamp> {
        None
    }
}

/// A store that may grow to 60 pages of 4 KiB; the schema alone takes about 20.
async fn open_almost_full(path: &Path, feed: Arc<Ear>) -> SqliteStore {
    create_private(path).unwrap();
    let mut connection = connect(path).await.unwrap();
    migrate(&mut connection).await.unwrap();
    sqlx::query("PRAGMA max_page_count = 60").execute(&mut connection).await.unwrap();
    start(connection, path, 5_000, feed).await.unwrap()
}

fn login(number: u8) -> (Scope, Decide) {
    let session = Session {
        id: SessionId([number; 16]),
        user: Some("ann".into()),
        created_at: Timestamp(1),
        renewed_at: Timestamp(1),
        last_seen_at: Timestamp(1),
        login_seq: 0,
        change_seq: 0,
        client: Client { address: None, user_agent: Some("x".repeat(3_000)) },
        groups: Groups::default(),
        end: None,
        would_end: None,
    };
    let decide = move |_: &[Session]| Plan { sessions: vec![session.clone()], ..Plan::default() };
    (Scope::default(), Box::new(decide))
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_that_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headcount.db");
    let ear = Arc::new(Ear::default());
    let store = Arc::new(open_almost_full(&path, Arc::clone(&ear)).await);
    let (mut acknowledged, mut refused) = (BTreeSet::new(), 0);
    for batch in 0..10 {
        let calls = (0..10).map(|call| {
            let (number, store) = (batch * 10 + call, Arc::clone(&store));
            tokio::spawn(async move {
                let (scope, decide) = login(number);
                (number, store.transact(scope, decide).await)
            })
        });
        for call in calls.collect::<Vec<_>>() {
            match call.await.unwrap() {
                (number, Ok(_)) => drop(acknowledged.insert(SessionId([number; 16]))),
                (_, Err(StoreError::Database(_))) => refused += 1,
                (_, Err(other)) => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 0 && !acknowledged.is_empty(), "{refused} refused");
    assert_eq!(*ear.0.lock(), acknowledged, "the feed heard something else");
    // What needs no room goes on: ending a session, reading.
    let first = *acknowledged.first().unwrap();
    store.touch(vec![(first, Timestamp(7))], Vec::new()).await.unwrap();
    assert_eq!(store.find(first).await.unwrap().unwrap().last_seen_at, Timestamp(7));
    store.close().await;
    let store = open(&path, 5_000, ear).await.unwrap();
    let listing = Listing { count_max: 1_000, ..Listing::default() };
    let stored = store.list(listing).await.unwrap().into_iter().map(|session| session.id);
    assert_eq!(stored.collect::<BTreeSet<_>>(), acknowledged);
    let (scope, decide) = login(200);
    store.transact(scope, decide).await.unwrap();
    store.close().await;
}
