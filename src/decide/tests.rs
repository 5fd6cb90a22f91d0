//! Tables over admission: who stays, who goes, what is said about it.

use std::sync::Arc;

use super::*;
use crate::policy::{EvictOrder, OnLimit};

const NOW: Timestamp = Timestamp(1_000_000_000);

fn limit(max: u32, on_limit: OnLimit) -> Limit {
    Limit {
        max_sessions: Some(max),
        on_limit,
        evict_order: EvictOrder::LeastRecentlyUsed,
        evict_if_idle_for_ms: None,
        otherwise: OnLimit::Deny,
        evictions_max: None,
        evictions_window_ms: 600_000,
        idle_timeout_ms: Some(30 * 60_000),
        absolute_timeout_ms: Some(12 * 3_600_000),
    }
}

fn limits(limit: Limit) -> Limits {
    Limits::only(Arc::new(limit))
}

fn switches(mode: Mode) -> Switches {
    Switches { mode, logout_all: false, password_change: OnPasswordChange::EndOthers }
}

/// Session `id` of `user`, logged in `age_ms` ago, last seen `idle_ms` ago.
fn session(id: u8, user: &str, age_ms: i64, idle_ms: i64) -> Session {
    Session {
        id: SessionId([id; 16]),
        user: Some(user.into()),
        created_at: NOW.plus_ms(-age_ms),
        renewed_at: NOW.plus_ms(-age_ms),
        last_seen_at: NOW.plus_ms(-idle_ms),
        login_seq: i64::from(id),
        change_seq: i64::from(id),
        client: Client::default(),
        groups: Groups::default(),
        end: None,
        would_end: None,
    }
}

fn by(user: &str, previous: Option<u8>) -> Login {
    let pair = |byte| (SessionKey([byte; 16]), SessionKey([byte; 16]));
    Login {
        id: SessionId([99; 16]),
        user: Some(user.into()),
        groups: Groups::default(),
        client: Client::default(),
        now: NOW,
        bearer: vec![pair(1)],
        fenced: vec![pair(2)],
        before: vec![pair(3)],
        superseded: vec![],
        previous: previous.map(|id| SessionId([id; 16])),
    }
}

fn ended(plan: &Plan) -> Vec<(u8, EndReason)> {
    let ending = |session: &Session| Some((session.id.0[0], session.end.as_ref()?.reason));
    plan.sessions.iter().filter_map(ending).collect()
}

fn kinds(plan: &Plan) -> Vec<EventKind> {
    plan.events.iter().map(|event| event.event).collect()
}

fn use_of(plan: &Plan, byte: u8) -> KeyUse {
    plan.keys.iter().find(|key| key.key.0[0] == byte).unwrap().key_use
}

#[test]
fn the_least_recently_used_goes_first_and_ties_go_by_login() {
    let live = [session(1, "a", 50, 10), session(2, "a", 40, 20), session(3, "a", 30, 20)];
    let plan =
        login(&limits(limit(3, OnLimit::Evict)), switches(Mode::Enforce), &by("a", None), &live);
    assert_eq!(ended(&plan), [(2, EndReason::Limit)]);
    assert_eq!(plan.decision, Decision::Admitted { session: SessionId([99; 16]) });
    assert_eq!(plan.events[0].by_session, Some(SessionId([99; 16])));
    assert_eq!((plan.events[1].count, plan.events[1].limit), (Some(3), Some(3)));
}

#[test]
fn the_other_orders_pick_other_victims() {
    let live = [session(1, "a", 50, 1), session(2, "a", 40, 20), session(3, "a", 30, 30)];
    let mut oldest = limit(3, OnLimit::Evict);
    oldest.evict_order = EvictOrder::OldestLogin;
    let plan = login(&limits(oldest.clone()), switches(Mode::Enforce), &by("a", None), &live);
    assert_eq!(ended(&plan), [(1, EndReason::Limit)]);
    oldest.evict_order = EvictOrder::AllOthers;
    let plan = login(&limits(oldest), switches(Mode::Enforce), &by("a", None), &live);
    assert_eq!(ended(&plan).len(), 3);
}

#[test]
fn all_excess_goes_at_once_when_the_limit_was_lowered() {
    let live = [1, 2, 3, 4, 5].map(|id| session(id, "a", 50, i64::from(id)));
    let plan =
        login(&limits(limit(1, OnLimit::Evict)), switches(Mode::Enforce), &by("a", None), &live);
    assert_eq!(ended(&plan).len(), 5);
    let plan =
        login(&limits(limit(2, OnLimit::Evict)), switches(Mode::Enforce), &by("a", Some(5)), &live);
    assert_eq!(ended(&plan).len(), 3);
    assert_eq!(plan.decision, Decision::Renewed { session: SessionId([5; 16]) });
}

#[test]
fn a_login_over_a_deny_limit_changes_nothing_for_the_others() {
    let live = [session(1, "a", 50, 10)];
    let plan =
        login(&limits(limit(1, OnLimit::Deny)), switches(Mode::Enforce), &by("a", None), &live);
    let denied = Decision::Denied { session: SessionId([99; 16]), count: 1, limit: 1 };
    assert_eq!(plan.decision, denied);
    assert_eq!(ended(&plan), [(99, EndReason::Limit)]);
    assert_eq!(kinds(&plan), [EventKind::SessionDenied]);
    assert!(plan.keys.iter().all(|key| key.key_use == KeyUse::Fenced));
}

#[test]
fn a_busy_session_is_not_evicted_when_idleness_is_asked_for() {
    let mut hybrid = limit(1, OnLimit::Evict);
    hybrid.evict_if_idle_for_ms = Some(60_000);
    let busy = [session(1, "a", 500_000, 59_999)];
    let plan = login(&limits(hybrid.clone()), switches(Mode::Enforce), &by("a", None), &busy);
    assert!(matches!(plan.decision, Decision::Denied { .. }));
    let idle = [session(1, "a", 500_000, 60_000)];
    let plan = login(&limits(hybrid), switches(Mode::Enforce), &by("a", None), &idle);
    assert_eq!(ended(&plan), [(1, EndReason::Limit)]);
}

#[test]
fn logging_in_again_in_the_same_browser_renews() {
    let live = [session(1, "a", 50, 10)];
    for on_limit in [OnLimit::Evict, OnLimit::Deny] {
        let plan =
            login(&limits(limit(1, on_limit)), switches(Mode::Enforce), &by("a", Some(1)), &live);
        assert_eq!(plan.decision, Decision::Renewed { session: SessionId([1; 16]) });
        assert!(ended(&plan).is_empty());
        assert_eq!(plan.sessions[0].renewed_at, NOW);
        assert_eq!(
            (use_of(&plan, 1), use_of(&plan, 2), use_of(&plan, 3)),
            (KeyUse::Bearer, KeyUse::Fenced, KeyUse::Superseded)
        );
    }
}

#[test]
fn another_user_in_the_same_browser_replaces() {
    let live = [session(1, "a", 50, 10)];
    let plan =
        login(&limits(limit(1, OnLimit::Evict)), switches(Mode::Enforce), &by("b", Some(1)), &live);
    assert_eq!(ended(&plan), [(1, EndReason::Replaced)]);
    assert_eq!(kinds(&plan), [EventKind::SessionEnded, EventKind::SessionCreated]);
    assert_eq!(use_of(&plan, 3), KeyUse::Fenced);
}

#[test]
fn timed_out_sessions_neither_count_nor_are_called_evicted() {
    let live = [session(1, "a", 40 * 60_000, 31 * 60_000), session(2, "a", 13 * 3_600_000, 1)];
    let plan =
        login(&limits(limit(1, OnLimit::Deny)), switches(Mode::Enforce), &by("a", None), &live);
    assert!(matches!(plan.decision, Decision::Admitted { .. }));
    assert_eq!(ended(&plan), [(1, EndReason::IdleTimeout), (2, EndReason::AbsoluteTimeout)]);
}

#[test]
fn logins_without_a_name_share_no_bucket() {
    let mut nameless = session(1, "a", 50, 10);
    nameless.user = None;
    let mut login_without = by("a", None);
    login_without.user = None;
    let plan = login(
        &limits(limit(1, OnLimit::Evict)),
        switches(Mode::Enforce),
        &login_without,
        &[nameless],
    );
    assert!(ended(&plan).is_empty());
    assert!(matches!(plan.decision, Decision::Admitted { .. }));
}

#[test]
fn observing_ends_nobody_and_counts_as_enforcing_would() {
    let rules = limits(limit(1, OnLimit::Evict));
    let mut first = session(1, "a", 50, 10);
    let plan = login(&rules, switches(Mode::Observe), &by("a", None), std::slice::from_ref(&first));
    assert!(ended(&plan).is_empty());
    assert_eq!(plan.events[0].mode, Mode::Observe);
    assert_eq!(plan.events[1].mode, Mode::Enforce);
    first.would_end = plan.sessions[0].would_end.clone();
    assert!(first.would_end.is_some());
    let plan =
        login(&rules, switches(Mode::Observe), &by("a", None), &[first, session(2, "a", 20, 5)]);
    assert_eq!(plan.events.len(), 2, "the first one would be gone already");
    assert_eq!(plan.events[0].session, Some(SessionId([2; 16])));
}

#[test]
fn a_password_change_ends_the_others_and_keeps_its_own() {
    let live = [session(1, "a", 50, 10), session(2, "a", 40, 20)];
    let pair = (SessionKey([7; 16]), SessionKey([7; 16]));
    let rotation = Rotation { now: NOW, bearer: vec![pair], superseded: vec![], fenced: vec![] };
    let plan = password_change(switches(Mode::Enforce), SessionId([2; 16]), &rotation, &live);
    assert_eq!(ended(&plan), [(1, EndReason::PasswordChange)]);
    assert_eq!(plan.keys[0].key_use, KeyUse::Bearer);
}

#[test]
fn a_token_issued_to_an_ended_session_is_born_dead() {
    let pair = (SessionKey([7; 16]), SessionKey([7; 16]));
    let rotation = Rotation { now: NOW, bearer: vec![pair], superseded: vec![], fenced: vec![] };
    let plan = rotate(SessionId([2; 16]), &rotation, &[]);
    assert_eq!(plan.keys[0].key_use, KeyUse::Fenced);
}

#[test]
fn a_user_ends_sessions_of_the_own_and_only_from_a_live_one() {
    let live = [session(1, "ann", 9, 9), session(2, "ann", 8, 8), session(3, "bob", 7, 7)];
    let plan = |user: &str, by: u8, live: &[Session], pick: &dyn Fn(u8) -> bool| {
        let (switches, by) = (switches(Mode::Enforce), SessionId([by; 16]));
        end_own(switches, &user.into(), by, NOW, live, |id| pick(id.0[0]))
    };
    let all = |_| true;
    let others = plan("ann", 1, &live, &|id| id != 1);
    assert_eq!(ended(&others), [(2, EndReason::SelfService)]);
    assert_eq!(others.decision, Decision::Ended { count: 1 });
    assert_eq!(others.events[0].by_session, Some(SessionId([1; 16])));
    assert_eq!(others.events[0].initiator, Initiator::User);
    let own = plan("ann", 1, &live, &|id| id == 1);
    assert_eq!((ended(&own), own.events[0].by_session), (vec![(1, EndReason::SelfService)], None));
    let somebody_elses = plan("ann", 1, &live, &|id| id == 3);
    assert_eq!(somebody_elses.decision, Decision::Ended { count: 0 });
    // It has ended meanwhile, or belongs to somebody else now.
    for over in [plan("ann", 1, &live[1..], &all), plan("ann", 3, &live, &all)] {
        assert_eq!((over.decision, over.sessions.len()), (Decision::Done, 0));
    }
}
