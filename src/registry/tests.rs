//! The registry by itself, fed by hand.

use super::*;
use crate::policy::{EvictOrder, Limit, OnLimit};
use crate::session::{Ending, Session, User};

fn registry() -> Registry {
    Registry::new(Limits::only(Arc::new(Limit {
        max_sessions: Some(2),
        on_limit: OnLimit::Evict,
        evict_order: EvictOrder::LeastRecentlyUsed,
        evict_if_idle_for_ms: None,
        otherwise: OnLimit::Evict,
        evictions_max: None,
        evictions_window_ms: 600_000,
        idle_timeout_ms: Some(60_000),
        absolute_timeout_ms: Some(600_000),
    })))
}

fn id(number: u64) -> SessionId {
    SessionId(u128::from(number).to_be_bytes())
}

fn key(number: u64) -> SessionKey {
    SessionKey(u128::from(number).to_be_bytes())
}

fn bearer(number: u64, session: u64) -> Key {
    let (key, session) = (key(number), id(session));
    Key { key, exact: key, session, key_use: KeyUse::Bearer, since: Timestamp(0) }
}

fn live(number: u64, user: Option<&str>, seq: i64) -> Session {
    Session {
        id: id(number),
        user: user.map(User::from),
        created_at: Timestamp(0),
        renewed_at: Timestamp(0),
        last_seen_at: Timestamp(0),
        login_seq: seq,
        change_seq: seq,
        client: Client::default(),
        groups: Groups::default(),
        end: None,
        would_end: None,
    }
}

fn ended(number: u64, user: Option<&str>, seq: i64) -> Session {
    let reason = EndReason::Logout;
    let ending = Ending { at: Timestamp(1), reason, by: None, by_session: None };
    Session { end: Some(ending), ..live(number, user, seq) }
}

fn change(sessions: &[Session], keys: &[Key]) -> Committed {
    Committed { sessions: sessions.to_vec(), keys: keys.to_vec(), ..Committed::default() }
}

#[test]
fn changes_in_any_order_lead_to_the_same_sessions() {
    let ann = Some("ann");
    let changes = [
        change(&[live(1, ann, 1)], &[bearer(1, 1)]),
        // The same value comes back for a second session, and the first ends.
        change(&[ended(1, ann, 2), live(2, ann, 3)], &[bearer(1, 2)]),
        change(&[Session { renewed_at: Timestamp(9), ..live(2, ann, 4) }], &[bearer(2, 2)]),
        change(&[ended(2, ann, 5)], &[]),
        change(&[live(3, ann, 6)], &[bearer(2, 3)]),
    ];
    let mut orders = vec![vec![]];
    for _ in 0..changes.len() {
        orders = orders
            .iter()
            .flat_map(|order| {
                let left = (0..changes.len()).filter(|index| !order.contains(index));
                left.map(|index| [order.as_slice(), &[index]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    assert_eq!(orders.len(), 120);
    for order in orders {
        let registry = registry();
        for index in &order {
            registry.apply(&changes[*index]);
        }
        let of_ann: Vec<SessionId> = registry.live_of("ann").iter().map(|entry| entry.id).collect();
        assert_eq!(registry.count_of("ann"), 1);
        assert_eq!(of_ann, [id(3)], "{order:?}");
        // A key that came before its session is known leads nowhere or to where it belongs.
        for (number, session) in [(1, 2), (2, 3)] {
            let found = registry.lookup(key(number)).map(|found| found.entry.id);
            assert_eq!(found, Some(id(session)), "key {number} {order:?}");
        }
        assert_eq!(registry.by_id(id(2)).unwrap().renewed_at(), Timestamp(0), "{order:?}");
    }
}

#[test]
fn an_end_is_for_good() {
    let registry = registry();
    registry.apply(&change(&[live(1, Some("ann"), 5)], &[bearer(1, 1)]));
    // The end is an older state, and a newer one does not know of it.
    registry.apply(&change(&[ended(1, Some("ann"), 2)], &[]));
    registry.apply(&change(&[live(1, Some("ann"), 9)], &[bearer(2, 1)]));
    assert_eq!(registry.counts(), Counts { live: 0, users: 0, tombstones: 2, keys: 2 });
    for number in [1, 2] {
        let found = registry.lookup(key(number)).unwrap();
        assert_eq!(found.entry.ending().unwrap().reason, EndReason::Logout);
    }
    assert!(!registry.by_id(id(1)).unwrap().touch(Timestamp(5_000)));
}

#[test]
fn an_end_cuts_those_who_watch_and_those_who_come_later() {
    let registry = registry();
    registry.apply(&change(&[live(1, Some("ann"), 1), live(2, Some("ann"), 2)], &[]));
    let [first, second] = [1, 2].map(|number| registry.by_id(id(number)).unwrap().cut());
    registry.apply(&change(&[ended(1, Some("ann"), 3)], &[]));
    assert!(first.is_cancelled() && !second.is_cancelled());
    assert!(registry.by_id(id(1)).unwrap().cut().is_cancelled());
    registry.apply(&change(&[ended(4, Some("ann"), 4)], &[]));
    assert!(registry.by_id(id(4)).unwrap().cut().is_cancelled(), "born ended");
}

#[test]
fn what_another_replica_pruned_goes_unless_it_came_back() {
    let registry = registry();
    registry.apply(&change(&[live(1, Some("ann"), 1)], &[bearer(1, 1)]));
    registry.apply(&change(&[live(2, Some("ann"), 8)], &[bearer(2, 2)]));
    let under_way = registry.by_id(id(1)).unwrap().cut();
    let forgotten = vec![(key(1), 5), (key(2), 5), (key(3), 5)];
    registry.apply(&Committed { forgotten, ..Committed::default() });
    // Its end was pruned before it was heard of.
    assert!(registry.by_id(id(1)).is_none() && under_way.is_cancelled());
    assert!(registry.lookup(key(2)).is_some(), "a later change brought it back");
    assert_eq!(registry.counts(), Counts { live: 1, users: 1, tombstones: 0, keys: 1 });
}

#[test]
fn a_pruned_session_takes_the_late_keys_along_that_only_this_replica_kept() {
    let registry = registry();
    registry.apply(&change(&[live(1, Some("ann"), 1)], &[bearer(1, 1), bearer(2, 1)]));
    let late = Key { key_use: KeyUse::Fenced, ..bearer(9, 1) };
    assert!(registry.add_late_key(late, 2));
    let prune = |keys: &[u64]| {
        let forgotten = keys.iter().map(|number| (key(*number), 5)).collect();
        registry.apply(&Committed { forgotten, ..Committed::default() });
    };
    prune(&[1]);
    assert!(registry.lookup(key(9)).is_some() && registry.by_id(id(1)).is_some());
    prune(&[2]);
    assert_eq!(registry.counts(), Counts { live: 0, users: 0, tombstones: 0, keys: 0 });
}

#[test]
fn what_is_under_way_can_be_cut_without_an_end() {
    let registry = registry();
    registry.apply(&change(&[live(1, Some("ann"), 1)], &[]));
    let before = registry.by_id(id(1)).unwrap().cut();
    registry.cut_streams();
    assert!(before.is_cancelled());
    let after = registry.by_id(id(1)).unwrap().cut();
    assert!(!after.is_cancelled(), "what begins later is cut");
    registry.apply(&change(&[ended(1, Some("ann"), 2)], &[]));
    assert!(after.is_cancelled());
}

#[test]
fn a_session_can_find_its_user_later() {
    let registry = registry();
    registry.apply(&change(&[live(1, None, 1)], &[bearer(1, 1)]));
    let before = registry.lookup(key(1)).unwrap().entry;
    before.touch(Timestamp(4_000));
    let cut = before.cut();
    assert_eq!(registry.counts(), Counts { live: 1, users: 0, tombstones: 0, keys: 1 });
    registry.apply(&change(&[live(1, Some("ann"), 2)], &[]));
    let after = registry.lookup(key(1)).unwrap().entry;
    assert_eq!((after.user.as_deref(), after.last_seen_at()), (Some("ann"), Timestamp(4_000)));
    assert_eq!(registry.live_of("ann").len(), 1);
    registry.apply(&change(&[ended(1, Some("bob"), 3)], &[]));
    assert!(cut.is_cancelled(), "a request that began before is not cut");
    assert_eq!(registry.counts(), Counts { live: 0, users: 0, tombstones: 1, keys: 1 });
}

#[test]
fn a_key_taken_over_since_it_was_pruned_is_not_forgotten() {
    let registry = registry();
    registry.apply(&change(&[ended(1, Some("ann"), 1)], &[bearer(1, 1), bearer(2, 1)]));
    registry.apply(&change(&[live(2, Some("ann"), 2)], &[bearer(1, 2)]));
    registry.forget(&[key(1), key(2), key(77)]);
    assert_eq!(registry.lookup(key(1)).unwrap().entry.id, id(2));
    assert!(registry.lookup(key(2)).is_none() && registry.by_id(id(1)).is_none());
}

#[test]
fn late_keys_are_bounded_and_flushed_once() {
    let registry = registry();
    let fence = Key { key_use: KeyUse::Fenced, ..bearer(9, 1) };
    registry.apply(&change(&[live(1, Some("ann"), 1)], &[bearer(1, 1), fence]));
    let late = |number| Key { key_use: KeyUse::Fenced, ..bearer(number, 1) };
    assert!(!registry.add_late_key(late(1), 2), "a way in becomes none by a late key");
    assert!(!registry.add_late_key(Key { session: id(7), ..late(20) }, 2));
    for number in 20..25 {
        assert!(registry.add_late_key(late(number), 2));
        assert!(!registry.add_late_key(late(number), 2));
    }
    let known = |number| registry.lookup(key(number)).is_some();
    assert!(known(1) && known(9) && !known(22) && known(23) && known(24));
    assert_eq!(registry.take_dirty().1.len(), 5);
    assert_eq!(registry.take_dirty().1, []);
    // A login may claim the value after all.
    registry.apply(&change(&[live(2, Some("ann"), 2)], &[bearer(24, 2)]));
    assert_eq!(registry.lookup(key(24)).unwrap().entry.id, id(2));
}

#[test]
fn use_is_merged_until_it_is_flushed() {
    let registry = registry();
    registry.apply(&change(&[live(1, Some("ann"), 1)], &[]));
    let entry = registry.by_id(id(1)).unwrap();
    assert!(!entry.touch(Timestamp(0)), "no later than before");
    for (at, first) in [(1_000, true), (2_000, false), (3_500, false), (1_200, false)] {
        let dirty = entry.touch(Timestamp(at));
        assert_eq!(dirty, first, "{at}");
        if dirty {
            registry.mark_dirty(&entry);
        }
    }
    let (seen, keys) = registry.take_dirty();
    assert_eq!(seen, [(id(1), Timestamp(3_500))]);
    assert_eq!(registry.take_dirty().0, []);
    registry.return_dirty(&seen, keys);
    registry.return_dirty(&seen, Vec::new());
    assert!(!entry.touch(Timestamp(9_000)), "it waits already");
    assert_eq!(registry.take_dirty().0, [(id(1), Timestamp(9_000))]);
    assert_eq!(registry.last_seen_at(id(1)), Some(Timestamp(9_000)));
}

#[test]
fn a_sweep_finds_every_timed_out_session_piece_by_piece() {
    let registry = registry();
    let all: Vec<Session> = (1..10_000)
        .map(|number| {
            let seq = i64::try_from(number).unwrap();
            let last_seen_at = Timestamp(if number % 100 == 0 { 0 } else { 50_000 });
            let session = Session { last_seen_at, ..live(number, Some("ann"), seq) };
            if number == 200 { ended(number, Some("ann"), seq) } else { session }
        })
        .collect();
    let keyless = vec![ended(200, Some("ann"), 200)];
    registry.load(&Loaded { sessions: all, ..Loaded::default() });
    registry.loaded();
    registry.apply(&change(&keyless, &[]));
    let mut found = Vec::new();
    let mut calls = 0;
    loop {
        let some = registry.expired(Timestamp(60_001), 40);
        calls += 1;
        assert!(some.len() <= 40);
        found.extend(some);
        if registry.sweep_after.lock().is_none() {
            break;
        }
    }
    assert!(calls > 2, "one call looked at everything");
    assert_eq!(found.len(), 98);
    assert!(found.iter().all(|(_, reason)| *reason == EndReason::IdleTimeout));
    assert!(registry.by_id(id(200)).is_none(), "an ended session without keys stays for ever");
    let again = registry.expired(Timestamp(600_000), 1);
    assert_eq!(again, [(id(1), EndReason::AbsoluteTimeout)]);
}

#[test]
fn claims_are_given_once() {
    let registry = registry();
    registry.apply(&change(&[ended(1, Some("ann"), 1)], &[]));
    let entry = registry.by_id(id(1)).unwrap();
    assert!(entry.claim_app_logout() && !entry.claim_app_logout());
    let uses = [0, 59_999, 60_000, 60_001].map(|at| entry.claim_use_after_end(Timestamp(at)));
    assert_eq!(uses, [true, false, true, false]);
}

#[test]
fn a_quarantined_key_is_dead_whatever_it_leads_to() {
    let registry = registry();
    assert!(!registry.is_quarantined(key(1)));
    registry.quarantine(key(1));
    assert!(registry.is_quarantined(key(1)) && !registry.is_quarantined(key(2)));
}

/// Sweeps until everything was looked at.
fn swept(registry: &Registry, now: Timestamp) {
    loop {
        registry.expired(now, 100);
        if registry.sweep_after.lock().is_none() {
            return;
        }
    }
}

#[test]
fn a_session_that_rests_is_buried_and_comes_back_as_dead_as_it_was() {
    let registry = registry();
    let superseded = Key { key_use: KeyUse::Superseded, ..bearer(2, 1) };
    registry.apply(&change(&[live(1, Some("ann"), 1)], &[bearer(1, 1), superseded]));
    registry.apply(&change(&[ended(1, Some("ann"), 2)], &[]));
    let entry = registry.by_id(id(1)).unwrap();
    assert!(entry.claim_app_logout() && entry.claim_use_after_end(Timestamp(1_000)));
    swept(&registry, Timestamp(3_600_000));
    assert!(registry.by_id(id(1)).is_some(), "somebody has it in hand");
    drop(entry);
    swept(&registry, Timestamp(600_999));
    assert!(registry.by_id(id(1)).is_some(), "a client was told of late");
    swept(&registry, Timestamp(601_000));
    assert!(registry.by_id(id(1)).is_none());
    assert_eq!(registry.counts(), Counts { live: 0, users: 0, tombstones: 2, keys: 2 });

    let found = registry.lookup(key(2)).unwrap();
    assert_eq!((found.entry.id, found.entry.user.as_deref()), (id(1), Some("ann")));
    assert_eq!((found.key_use, found.exact), (KeyUse::Superseded, None));
    assert_eq!(found.entry.ending().unwrap().reason, EndReason::Logout);
    assert!(!found.entry.claim_app_logout(), "it was logged out at the app");
    assert!(found.entry.told_of_end().is_some());
    assert!(Arc::ptr_eq(&found.entry, &registry.lookup(key(1)).unwrap().entry), "one session");
    assert_eq!(registry.counts(), Counts { live: 0, users: 0, tombstones: 2, keys: 2 });
}

fn bury_one(registry: &Registry) {
    registry.apply(&change(&[ended(1, Some("ann"), 2)], &[bearer(1, 1), bearer(2, 1)]));
    swept(registry, Timestamp(3_600_000));
    assert!(registry.by_id(id(1)).is_none());
}

#[test]
fn the_keys_of_a_buried_session_go_to_others_or_are_pruned() {
    let registry = registry();
    bury_one(&registry);
    // The app gave the same value to another session; an older word of the first one changes nothing.
    registry.apply(&change(&[live(2, Some("bob"), 3)], &[bearer(1, 2)]));
    assert!(!registry.add_late_key(bearer(2, 2), 5), "a dead key becomes no late one");
    assert_eq!(registry.lookup(key(1)).unwrap().entry.id, id(2));
    let old = Committed { key_seqs: vec![2], ..change(&[], &[bearer(1, 1)]) };
    registry.apply(&old);
    assert_eq!(registry.lookup(key(1)).unwrap().entry.id, id(2));
    registry.forget(&[key(2)]);
    assert!(registry.lookup(key(2)).is_none());
    assert_eq!(registry.counts(), Counts { live: 1, users: 1, tombstones: 0, keys: 1 });
}

#[test]
fn what_another_replica_pruned_is_no_longer_buried_either() {
    let registry = registry();
    bury_one(&registry);
    let pruned = |seq| Committed { forgotten: vec![(key(1), seq)], ..Committed::default() };
    registry.apply(&pruned(2));
    assert_eq!(registry.counts().keys, 2, "it came back since");
    registry.apply(&pruned(3));
    assert_eq!(registry.counts().keys, 1);
    assert!(registry.lookup(key(1)).is_none() && registry.lookup(key(2)).is_some());
}

#[test]
fn a_key_with_other_bytes_than_its_name_keeps_them() {
    let registry = registry();
    let altered = Key { exact: key(70), ..bearer(1, 1) };
    registry.apply(&change(&[live(1, Some("ann"), 1)], &[altered, bearer(2, 1)]));
    assert_eq!(registry.lookup(key(1)).unwrap().exact, Some(key(70)));
    assert_eq!(registry.bearers(id(1)), [(key(1), key(70)), (key(2), key(2))]);
    registry.apply(&change(&[ended(1, Some("ann"), 2)], &[]));
    swept(&registry, Timestamp(3_600_000));
    assert_eq!(registry.lookup(key(1)).unwrap().exact, None);
    registry.forget(&[key(1)]);
    registry.apply(&change(&[live(3, Some("ann"), 3)], &[bearer(3, 3)]));
    assert_eq!(registry.lookup(key(3)).unwrap().exact, Some(key(3)), "its place was another's");
}

#[test]
fn what_the_store_holds_comes_page_by_page() {
    let registry = registry();
    let page = |sessions: &[Session], keys: &[Key]| {
        let loaded =
            Loaded { sessions: sessions.to_vec(), keys: keys.to_vec(), ..Loaded::default() };
        registry.load(&loaded);
    };
    page(&[live(1, Some("ann"), 1), ended(2, Some("ann"), 2)], &[]);
    page(&[ended(3, Some("bob"), 3), ended(4, Some("eve"), 4), ended(5, None, 5)], &[]);
    // A change from elsewhere, before the key is read.
    registry.apply(&change(&[live(6, Some("bob"), 9)], &[bearer(30, 6)]));
    page(&[], &[bearer(10, 1), bearer(20, 2), bearer(21, 2), bearer(30, 3), bearer(50, 5)]);
    registry.loaded();
    assert_eq!(registry.counts(), Counts { live: 2, users: 2, tombstones: 3, keys: 5 });
    let leads_to = |number| registry.lookup(key(number)).map(|found| found.entry.id);
    let expected = [(10, 1), (20, 2), (21, 2), (30, 6), (50, 5)];
    for (number, session) in expected {
        assert_eq!(leads_to(number), Some(id(session)), "{number}");
    }
    let of_ann = registry.lookup(key(21)).unwrap().entry;
    assert_eq!(of_ann.user.as_deref(), Some("ann"));
    assert!(of_ann.claim_app_logout(), "nobody knows whether it was logged out at the app");
    assert_eq!(registry.counts(), Counts { live: 2, users: 2, tombstones: 3, keys: 5 });
}

#[test]
fn a_name_can_be_taken_off_a_grave() {
    let registry = registry();
    bury_one(&registry);
    registry.apply(&change(&[live(2, Some("ann"), 3)], &[bearer(3, 2)]));
    assert_eq!(registry.forget_names(&HashSet::from([id(9)])), HashSet::new());
    assert_eq!(registry.forget_names(&HashSet::from([id(1)])), HashSet::from(["ann".into()]));
    let found = registry.lookup(key(2)).unwrap().entry;
    assert_eq!((found.id, found.user.as_ref()), (id(1), None));
    assert!(found.ending().is_some());
    assert_eq!(registry.count_of("ann"), 1);
}
