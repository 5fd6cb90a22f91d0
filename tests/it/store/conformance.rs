//! What every store must do, as one list of cases. Nothing here knows which store it is.

use std::future::Future;
use std::sync::Arc;

use headcount::audit::{AuditEvent, EventKind};
use headcount::session::{
    Ceiling, Client, EndReason, Ending, Groups, Initiator, Key, KeyUse, Mode, Session, Timestamp,
    User, UserLimit,
};
use headcount::store::{
    CookieShape, Decide, Decision, LATE_KEYS_MAX, Listing, Plan, Retention, Scope, Store,
    StoreError,
};
use parking_lot::Mutex;

use super::build::{
    Ear, always, bearer, end, ended, everything, id, ids, key, limit, limits, login, session, write,
};

const FOREVER: Retention =
    Retention { history_ms: 1 << 50, history_per_user: u32::MAX, tombstones_ms: 1 << 50 };

/// Every case, each on an empty store that `open` makes.
pub(crate) async fn conformance<F, Opened>(open: F)
where
    F: Fn(Arc<Ear>) -> Opened,
    Opened: Future<Output = Arc<dyn Store>>,
{
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$({
            eprintln!("conformance: {}", stringify!($case));
            let ear = Ear::new(limits(2));
            let store = open(Arc::clone(&ear)).await;
            $case(&*store, &ear).await;
            store.close().await;
        })*};
    }
    cases![
        what_was_written_is_read_back,
        a_decision_sees_the_live_sessions_of_its_scope_by_login,
        a_decision_sees_fresher_use_than_the_store,
        a_login_over_the_limit_ends_the_least_recently_used,
        an_ended_session_never_comes_back,
        a_key_moves_to_the_session_that_claims_it,
        a_failed_decision_changes_nothing,
        touching_never_goes_back_and_spares_ended_sessions,
        late_keys_are_kept_even_after_the_end_but_only_so_many,
        a_listing_is_newest_first_and_paged,
        a_cookie_shape_is_replaced,
        a_limit_of_a_user_is_kept_replaced_and_taken_back,
        history_goes_by_age_and_count_but_keys_stay_dead,
        what_would_have_ended_goes_when_nobody_uses_it,
        a_person_is_told_and_forgotten_but_the_keys_stay_dead,
    ];
}

async fn what_was_written_is_read_back(store: &dyn Store, ear: &Ear) {
    let ending = |reason| Ending {
        at: Timestamp(77),
        reason,
        by: Some("ops'; DROP TABLE sessions --".to_owned()),
        by_session: Some(id(9)),
    };
    let mut sessions: Vec<Session> = (1..)
        .zip(EndReason::ALL)
        .map(|(number, reason)| {
            let end = Some(ending(reason));
            Session { end, ..session(number, "Zoë \u{0}\u{202e}%_", 5) }
        })
        .collect();
    let (groups, _) = Groups::of(["staff", "Zoë's; --", "a,b"].map(str::to_owned));
    sessions.push(Session { groups, ..session(19, "bob", 6) });
    sessions.push(Session { user: None, client: Client::default(), ..session(20, "", 6) });
    sessions.push(Session { would_end: Some(ending(EndReason::Limit)), ..session(21, "bob", -7) });
    let keys = [KeyUse::Bearer, KeyUse::Superseded, KeyUse::Fenced].map(|key_use| {
        let number = 30 + key_use as u64;
        Key { key_use, exact: key(99), ..bearer(number, 21, i64::MAX) }
    });
    let event =
        AuditEvent::new(EventKind::SessionCreated, Timestamp(1), Initiator::User, Mode::Enforce);
    let plan = Plan {
        sessions: sessions.clone(),
        keys: keys.to_vec(),
        limits: Vec::new(),
        events: vec![event.clone()],
        decision: Decision::Renewed { session: id(21) },
    };
    let (scope, decide) = always(plan);
    let decision = store.transact(scope, decide).await.unwrap();
    assert_eq!(decision, Decision::Renewed { session: id(21) });
    for (seq, session) in (1..).zip(&mut sessions) {
        (session.login_seq, session.change_seq) = (seq, seq);
    }
    assert_eq!(ear.heard_sessions(), sessions);
    assert_eq!(ear.heard.lock()[0].events, [event]);
    let mut loaded = store.load().await.unwrap();
    loaded.sessions.sort_by_key(|session| session.login_seq);
    loaded.keys.sort_by_key(|key| key.key);
    assert_eq!(loaded.sessions, sessions);
    assert_eq!(loaded.keys, keys);
    for session in &sessions {
        assert_eq!(store.find(session.id).await.unwrap().as_ref(), Some(session));
    }
    assert_eq!(store.find(id(999)).await.unwrap(), None);
    store.ping().await.unwrap();
}

async fn a_decision_sees_the_live_sessions_of_its_scope_by_login(store: &dyn Store, _: &Ear) {
    let all = [
        session(5, "ann", 1),
        session(4, "bob", 1),
        session(3, "ann", 1),
        session(2, "ann", 1),
        session(1, "cyd", 1),
    ];
    write(store, &all, &[]).await;
    end(store, 3, EndReason::Logout, 2).await;
    let scope = Scope { user: Some(User::from("ann")), ids: vec![id(4), id(5), id(3), id(77)] };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = Arc::clone(&seen);
    let decide: Decide = Box::new(move |live| {
        *see.lock() = live.iter().map(|session| session.id).collect();
        Plan::default()
    });
    assert_eq!(store.transact(scope, decide).await.unwrap(), Decision::Done);
    assert_eq!(*seen.lock(), [id(5), id(4), id(2)]);
}

async fn a_decision_sees_fresher_use_than_the_store(store: &dyn Store, ear: &Ear) {
    let limit = limit(2);
    for number in 1..=2 {
        let (scope, decide) = login(number, "ann", number as i64, &limit);
        store.transact(scope, decide).await.unwrap();
    }
    // The first is older by login, but was used last; no flush has happened.
    assert!(ear.registry.by_id(id(1)).unwrap().touch(Timestamp(50_000)));
    let (scope, decide) = login(3, "ann", 60_000, &limit);
    store.transact(scope, decide).await.unwrap();
    assert!(ear.registry.by_id(id(2)).unwrap().ending().is_some());
    assert!(ear.registry.by_id(id(1)).unwrap().ending().is_none());
    assert_eq!(store.find(id(1)).await.unwrap().unwrap().last_seen_at, Timestamp(50_000));
}

async fn a_login_over_the_limit_ends_the_least_recently_used(store: &dyn Store, ear: &Ear) {
    let limit = limit(2);
    for number in 1..=3 {
        let (scope, decide) = login(number, "ann", number as i64, &limit);
        let decision = store.transact(scope, decide).await.unwrap();
        assert_eq!(decision, Decision::Admitted { session: id(number) });
    }
    let (scope, decide) = login(4, "bob", 4, &limit);
    store.transact(scope, decide).await.unwrap();
    let live = Listing { live: Some(true), ..everything() };
    assert_eq!(ids(store, live).await, [id(4), id(3), id(2)]);
    let first = store.find(id(1)).await.unwrap().unwrap();
    assert_eq!(first.end.unwrap().reason, EndReason::Limit);
    assert_eq!(ear.registry.live_of("ann").len(), 2);
    assert_eq!(ear.registry.lookup(key(1)).unwrap().entry.id, id(1));
}

async fn an_ended_session_never_comes_back(store: &dyn Store, ear: &Ear) {
    write(store, &[session(1, "ann", 1)], &[bearer(1, 1, 1)]).await;
    end(store, 1, EndReason::Admin, 2).await;
    let heard = ear.heard_sessions().len();
    write(store, &[session(1, "ann", 3)], &[]).await;
    assert_eq!(ear.heard_sessions().len(), heard, "the feed hears of what did not happen");
    let found = store.find(id(1)).await.unwrap().unwrap();
    assert_eq!(found.end.unwrap().reason, EndReason::Admin);
}

async fn a_key_moves_to_the_session_that_claims_it(store: &dyn Store, ear: &Ear) {
    write(store, &[session(1, "ann", 1)], &[bearer(1, 1, 1)]).await;
    end(store, 1, EndReason::Logout, 2).await;
    // The app hands out the same value again.
    write(store, &[session(2, "ann", 3)], &[bearer(1, 2, 3)]).await;
    assert_eq!(store.load().await.unwrap().keys, [bearer(1, 2, 3)]);
    assert!(ear.registry.lookup(key(1)).unwrap().entry.ending().is_none());
}

async fn a_failed_decision_changes_nothing(store: &dyn Store, ear: &Ear) {
    write(store, &[session(1, "ann", 1)], &[bearer(1, 1, 1)]).await;
    let heard = ear.heard_sessions().len();
    // A key of a session that does not exist.
    let plan = Plan {
        sessions: vec![session(2, "ann", 2), ended(&session(1, "ann", 1), EndReason::Limit, 2)],
        keys: vec![bearer(7, 77, 2)],
        ..Plan::default()
    };
    let (scope, decide) = always(plan);
    let (other_scope, other) = login(3, "bob", 2, &limit(1));
    let (failed, succeeded) =
        tokio::join!(store.transact(scope, decide), store.transact(other_scope, other));
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    assert_eq!(succeeded.unwrap(), Decision::Admitted { session: id(3) });
    let panics: Decide = Box::new(|_| panic!("a decision that panics, on purpose"));
    assert!(store.transact(Scope::default(), panics).await.is_err());
    assert_eq!(ids(store, everything()).await, [id(3), id(1)]);
    assert_eq!(ids(store, Listing { live: Some(false), ..everything() }).await, []);
    assert_eq!(ear.heard_sessions().len(), heard + 1);
}

async fn touching_never_goes_back_and_spares_ended_sessions(store: &dyn Store, ear: &Ear) {
    write(store, &[session(1, "ann", 10), session(2, "ann", 10)], &[]).await;
    end(store, 2, EndReason::Logout, 11).await;
    let seen = |at| vec![(id(1), Timestamp(at)), (id(2), Timestamp(at)), (id(3), Timestamp(at))];
    let heard = ear.heard.lock().len();
    store.touch(seen(500), Vec::new()).await.unwrap();
    store.touch(seen(300), Vec::new()).await.unwrap();
    assert_eq!(ear.heard.lock().len(), heard, "nobody needs to hear of a touch");
    assert_eq!(store.find(id(1)).await.unwrap().unwrap().last_seen_at, Timestamp(500));
    assert_eq!(store.find(id(2)).await.unwrap().unwrap().last_seen_at, Timestamp(10));
}

async fn a_limit_of_a_user_is_kept_replaced_and_taken_back(store: &dyn Store, ear: &Ear) {
    let of = |user: &str, ceiling, at| UserLimit {
        user: user.into(),
        ceiling,
        set_at: Timestamp(at),
        set_by: "ops'; --".to_owned(),
    };
    let set = async |limit: UserLimit| {
        let scope = Scope { user: Some(limit.user.clone()), ids: Vec::new() };
        let plan = Plan { limits: vec![limit], ..Plan::default() };
        let decide: Decide = Box::new(move |_| plan.clone());
        store.transact(scope, decide).await.unwrap();
    };
    let odd = "Zoë \u{0}%_";
    set(of(odd, Ceiling::Sessions(3), 1)).await;
    set(of("bob", Ceiling::Sessions(1), 2)).await;
    set(of("bob", Ceiling::Unlimited, 3)).await;
    set(of("cyd", Ceiling::Sessions(u32::MAX), 4)).await;
    set(of("cyd", Ceiling::Configured, 5)).await;
    let heard = ear.heard.lock().iter().map(|change| change.limits.len()).sum::<usize>();
    assert_eq!(heard, 5, "the feed hears of each");
    let mut kept = store.load().await.unwrap().limits;
    kept.retain(|limit| limit.ceiling != Ceiling::Configured);
    kept.sort_by_key(|limit| limit.set_at);
    assert_eq!(kept, [of(odd, Ceiling::Sessions(3), 1), of("bob", Ceiling::Unlimited, 3)]);
}

async fn late_keys_are_kept_even_after_the_end_but_only_so_many(store: &dyn Store, _: &Ear) {
    let first = Key { key_use: KeyUse::Fenced, ..bearer(900, 1, 0) };
    write(store, &[session(1, "ann", 1)], &[bearer(1, 1, 1), first.clone()]).await;
    end(store, 1, EndReason::Logout, 2).await;
    let late = |number| Key { key_use: KeyUse::Fenced, ..bearer(number, 1, number as i64) };
    let unknown = bearer(800, 77, 1);
    let known = Key { key_use: KeyUse::Fenced, ..bearer(1, 1, 9) };
    store.touch(Vec::new(), vec![late(2), unknown, known]).await.unwrap();
    let mut keys = store.load().await.unwrap().keys;
    keys.sort_by_key(|key| key.key);
    assert_eq!(keys, [bearer(1, 1, 1), late(2), first.clone()]);
    let many = u64::from(LATE_KEYS_MAX) + 10;
    store.touch(Vec::new(), (10..10 + many).map(late).collect()).await.unwrap();
    let keys = store.load().await.unwrap().keys;
    assert_eq!(keys.len(), LATE_KEYS_MAX as usize + 2);
    assert!(keys.contains(&first) && keys.contains(&bearer(1, 1, 1)) && !keys.contains(&late(2)));
}

async fn a_listing_is_newest_first_and_paged(store: &dyn Store, _: &Ear) {
    let all: Vec<Session> = (1..=1100)
        .map(|number| session(number, if number % 2 == 0 { "ann" } else { "bob" }, 1))
        .collect();
    write(store, &all, &[]).await;
    for number in 1090..=1095 {
        end(store, number, EndReason::Logout, 2).await;
    }
    assert_eq!(ids(store, everything()).await.len(), 1000);
    let page = |user: Option<&str>, live, before| Listing {
        user: user.map(User::from),
        live,
        count_max: 4,
        before_login_seq: before,
    };
    let numbers = |numbers: [u64; 4]| numbers.map(id);
    assert_eq!(ids(store, page(None, None, None)).await, numbers([1100, 1099, 1098, 1097]));
    assert_eq!(
        ids(store, page(None, Some(true), Some(1097))).await,
        numbers([1096, 1089, 1088, 1087])
    );
    assert_eq!(ids(store, page(None, Some(false), None)).await, numbers([1095, 1094, 1093, 1092]));
    let ann = Some("ann");
    assert_eq!(ids(store, page(ann, None, None)).await, numbers([1100, 1098, 1096, 1094]));
    assert_eq!(
        ids(store, page(ann, Some(true), Some(1097))).await,
        numbers([1096, 1088, 1086, 1084])
    );
    assert_eq!(ids(store, page(ann, Some(false), None)).await, [1094, 1092, 1090].map(id));
    assert_eq!(ids(store, page(Some("nobody"), None, None)).await, []);
}

async fn a_cookie_shape_is_replaced(store: &dyn Store, _: &Ear) {
    let shape = |path: &str, attributes: &str| CookieShape {
        name: "sid".to_owned(),
        domain: String::new(),
        path: path.to_owned(),
        attributes: attributes.to_owned(),
    };
    for shape in [shape("/", ""), shape("/a", "; Secure"), shape("/", "; HttpOnly")] {
        store.remember_shape(shape).await.unwrap();
    }
    let mut shapes = store.load().await.unwrap().shapes;
    shapes.sort_by(|one, other| one.path.cmp(&other.path));
    assert_eq!(shapes, [shape("/", "; HttpOnly"), shape("/a", "; Secure")]);
}

async fn history_goes_by_age_and_count_but_keys_stay_dead(store: &dyn Store, ear: &Ear) {
    let all: Vec<Session> = (1..=6).map(|number| session(number, "ann", 1)).collect();
    let keys: Vec<Key> = (1..=6).map(|number| bearer(number, number, 1)).collect();
    write(store, &all, &keys).await;
    for number in 1..=5 {
        end(store, number, EndReason::Logout, number as i64 * 100).await;
    }
    assert_eq!(store.prune(Timestamp(10_000), FOREVER).await.unwrap(), []);
    assert_eq!(ids(store, everything()).await.len(), 6);
    // Older than 200 by now: 1 and 2. Beyond two: 3.
    let retention = Retention { history_ms: 9_800, history_per_user: 2, tombstones_ms: 20_000 };
    assert_eq!(store.prune(Timestamp(10_000), retention).await.unwrap(), []);
    assert_eq!(ids(store, everything()).await, [id(6), id(5), id(4)]);
    assert_eq!(store.find(id(1)).await.unwrap(), None);
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.keys.len(), 6, "a dead key came back to life");
    let first = loaded.sessions.iter().find(|session| session.id == id(1)).unwrap();
    assert_eq!(first.end.as_ref().unwrap().reason, EndReason::Logout);
    assert_eq!(first.client, Client::default(), "the client outlives the history");
    let retention = Retention { tombstones_ms: 9_700, ..retention };
    let mut dropped = store.prune(Timestamp(10_000), retention).await.unwrap();
    dropped.sort();
    assert_eq!(dropped, [key(1), key(2), key(3)]);
    ear.registry.forget(&dropped);
    assert!(ear.registry.by_id(id(3)).is_none() && ear.registry.by_id(id(4)).is_some());
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.sessions.len(), loaded.keys.len()), (3, 3));
    // History may also outlive the keys.
    let retention = Retention { tombstones_ms: 0, ..FOREVER };
    let dropped = store.prune(Timestamp(10_000), retention).await.unwrap();
    ear.registry.forget(&dropped);
    assert_eq!(ids(store, everything()).await, [id(6), id(5), id(4)]);
    assert_eq!(store.load().await.unwrap().sessions.len(), 1);
    assert_eq!(ear.registry.counts().keys, 1);
}

async fn what_would_have_ended_goes_when_nobody_uses_it(store: &dyn Store, ear: &Ear) {
    let would_end =
        Some(Ending { at: Timestamp(5), reason: EndReason::Limit, by: None, by_session: None });
    let would = |number, at| Session { would_end: would_end.clone(), ..session(number, "ann", at) };
    let all = [would(1, 1), would(2, 900), session(3, "ann", 1)];
    write(store, &all, &[bearer(1, 1, 1), bearer(2, 2, 1), bearer(3, 3, 1)]).await;
    let retention = Retention { history_ms: 500, history_per_user: 1, tombstones_ms: 500 };
    let dropped = store.prune(Timestamp(1_000), retention).await.unwrap();
    assert_eq!(dropped, [key(1)]);
    ear.registry.forget(&dropped);
    assert_eq!(ids(store, everything()).await, [id(3), id(2)]);
    assert_eq!(ear.registry.live_of("ann").len(), 2);
}

async fn a_person_is_told_and_forgotten_but_the_keys_stay_dead(store: &dyn Store, ear: &Ear) {
    let ann = User::from("ann");
    for number in 1..=3 {
        let keys = [bearer(number, number, 1), bearer(number + 10, number, 1)];
        write(store, &[session(number, "ann", number as i64)], &keys).await;
    }
    write(store, &[session(9, "bob", 1)], &[bearer(9, 9, 1)]).await;
    end(store, 1, EndReason::Logout, 10).await;
    end(store, 2, EndReason::Admin, 20).await;
    // The first is no longer history, and stays for its keys.
    let one_each = Retention { history_per_user: 1, ..FOREVER };
    store.prune(Timestamp(30), one_each).await.unwrap();
    let kept = store.kept_of(&ann, 0).await.unwrap();
    let told: Vec<_> = kept.iter().map(|one| (one.session.id, one.hidden, one.keys)).collect();
    assert_eq!(told, [(id(1), true, 2), (id(2), false, 2), (id(3), false, 2)]);
    let last = kept[2].session.login_seq;
    assert_eq!(store.kept_of(&ann, last).await.unwrap(), []);
    let of = async |user: &str| store.kept_of(&user.into(), 0).await.unwrap();
    let before = store.load().await.unwrap();
    assert_eq!(store.erase(&ann).await.unwrap(), 2);
    assert_eq!(store.erase(&ann).await.unwrap(), 0);
    assert_eq!((of("ann").await.len(), of("bob").await.len()), (1, 1), "the live one stays");
    let after = store.load().await.unwrap();
    assert_eq!(after.keys.len(), before.keys.len());
    for number in [1, 2] {
        let nobodys = after.sessions.iter().find(|session| session.id == id(number)).unwrap();
        assert_eq!((&nobodys.user, &nobodys.client), (&None, &Client::default()));
        assert!(nobodys.end.is_some());
        // Memory follows, and knows the keys of the dead.
        let entry = ear.registry.lookup(key(number)).unwrap().entry;
        assert_eq!(entry.user, None);
        assert!(entry.ending().is_some());
        assert_eq!(store.find(id(number)).await.unwrap(), None, "no history");
    }
    // Without keys nothing has to stay.
    end(store, 3, EndReason::Logout, 40).await;
    store.prune(Timestamp(50), Retention { tombstones_ms: 0, ..FOREVER }).await.unwrap();
    assert_eq!(store.erase(&ann).await.unwrap(), 1);
    assert_eq!((of("ann").await.len(), of("bob").await.len()), (0, 1));
    assert_eq!(ear.registry.live_of("bob").len(), 1);
}
