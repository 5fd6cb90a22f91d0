//! Reports over a few sessions that can be followed on paper.

use super::*;
use crate::session::{Client, Ending, Groups};

const MINUTE: i64 = 60_000;

fn session(number: u8, user: &str, from: i64, last: i64, address: &str) -> Session {
    Session {
        id: SessionId([number; 16]),
        user: Some(user.into()),
        created_at: Timestamp(from * MINUTE),
        renewed_at: Timestamp(from * MINUTE),
        last_seen_at: Timestamp(last * MINUTE),
        login_seq: i64::from(number),
        change_seq: 1,
        client: Client {
            address: Some(address.to_owned()),
            user_agent: Some(format!("agent {number}")),
        },
        groups: Groups::default(),
        end: None,
        would_end: None,
    }
}

fn ended(mut session: Session, at: i64, reason: EndReason) -> Session {
    let at = Timestamp(at * MINUTE);
    session.end = Some(Ending { at, reason, by: None, by_session: None });
    session
}

fn over(sessions: &[Session]) -> Report {
    report(sessions, Timestamp(0), Timestamp(1_000 * MINUTE), false)
}

#[test]
fn each_limit_is_played_through() {
    let sessions = [
        session(1, "alice", 0, 50, "10.0.0.1"),
        session(2, "alice", 10, 20, "10.0.0.2"),
        session(3, "alice", 30, 40, "10.0.0.3"),
        ended(session(4, "bob", 0, 5, "10.0.0.4"), 6, EndReason::Logout),
        session(5, "bob", 7, 9, "10.0.0.4"),
    ];
    let report = over(&sessions);
    assert_eq!((report.logins, report.users), (5, 2));
    let one = &report.limits[0];
    // At minute 10 the first goes, which was still used; at minute 30 the second, which was not.
    let expected = Tried {
        max_sessions: 1,
        logins_evicting: 2,
        sessions_evicted: 2,
        evicted_in_use: 1,
        logins_denied: 2,
        users: 1,
    };
    assert_eq!(*one, expected);
    let two = &report.limits[1];
    assert_eq!((two.logins_evicting, two.evicted_in_use, two.logins_denied), (1, 1, 1));
    assert_eq!(report.limits[2].users, 0);
    assert_eq!(report.limits.len(), 5);
}

#[test]
fn what_a_limit_has_ended_counts_as_it_did() {
    let sessions = [
        ended(session(1, "alice", 0, 5, "10.0.0.1"), 10, EndReason::Limit),
        session(2, "alice", 10, 20, "10.0.0.2"),
    ];
    assert_eq!(over(&sessions).limits[0].logins_evicting, 1);
    let expired = [
        ended(session(1, "alice", 0, 5, "10.0.0.1"), 10, EndReason::IdleTimeout),
        session(2, "alice", 10, 20, "10.0.0.2"),
    ];
    assert_eq!(over(&expired).limits[0].logins_evicting, 0);
}

#[test]
fn only_logins_of_the_period_count() {
    let sessions = [
        session(1, "alice", 0, 50, "10.0.0.1"),
        session(2, "alice", 10, 50, "10.0.0.1"),
        session(3, "alice", 30, 50, "10.0.0.1"),
    ];
    let report = report(&sessions, Timestamp(20 * MINUTE), Timestamp(60 * MINUTE), false);
    assert_eq!((report.logins, report.limits[0].logins_evicting), (1, 1));
}

#[test]
fn distant_use_at_the_same_time_is_evidence() {
    let sessions = [
        session(1, "alice", 0, 30, "192.0.2.7"),
        session(2, "alice", 10, 40, "198.51.100.7"),
        session(3, "bob", 0, 30, "192.0.2.8"),
        session(4, "bob", 10, 40, "192.0.77.8"),
        session(5, "eve", 0, 10, "192.0.2.8"),
        session(6, "eve", 11, 20, "198.51.100.8"),
    ];
    let report = over(&sessions);
    let shared: Vec<_> = report.likely_shared.iter().map(|it| (&*it.user, it.overlap_s)).collect();
    assert_eq!(shared, [("alice", 20 * 60)]);
    let evidence = &report.likely_shared[0].evidence[0];
    assert_eq!(evidence.from, Timestamp(10 * MINUTE));
    assert_eq!(evidence.one.address.as_deref(), Some("192.0.2.7"));
    let top: Vec<_> =
        report.top_users.iter().map(|busy| (&*busy.user, busy.at_once, busy.networks)).collect();
    assert_eq!(top, [("alice", 2, 2), ("bob", 2, 1)]);
    assert_eq!(network("2001:db8::1").as_deref(), Some("2001:db8::/32"));
    assert_eq!(network("203.0.113.0/24").as_deref(), Some("203.0.0.0/16"));
}
