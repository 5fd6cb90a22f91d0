//! Decisions of several callers over one view of what is live, so that one transaction does for all.
//! Pure: numbers are offsets until the database gives their base. No SQL here.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::session::{Key, Session, SessionId, SessionKey, User, UserLimit};
use crate::store::{Committed, Decide, Decision, Scope, StoreError};

/// A `login_seq` from here on is an offset from what the database gives.
pub(super) const OFFSETS: i64 = 1 << 62;

/// What the database gave a batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// The last numbers before this batch.
    pub(super) login_seq: i64,
    pub(super) change_seq: i64,
    /// Sessions whose state was written; the others have ended already and stay as they are.
    pub(super) written: HashSet<SessionId>,
}

/// What one decision said, in offsets.
struct Said {
    decision: Decision,
    change: Committed,
}

/// Everything that one transaction writes. A row is written once: its last state counts.
#[derive(Default)]
pub(super) struct Batch {
    live: BTreeMap<SessionId, Session>,
    ended: HashSet<SessionId>,
    /// Offsets given so far.
    pub(super) logins: i64,
    pub(super) changes: i64,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// With the offset of the change that writes each.
    pub(super) keys: BTreeMap<SessionKey, (Key, i64)>,
    pub(super) limits: BTreeMap<User, (UserLimit, i64)>,
    said: Vec<Result<Said, StoreError>>,
}

impl Batch {
    /// Over what is live of everything the decisions are about.
    pub(super) fn over(live: Vec<Session>) -> Self {
        let live = live.into_iter().map(|session| (session.id, session)).collect();
        Self { live, ..Self::default() }
    }

    /// Nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.keys.is_empty() && self.limits.is_empty()
    }

    /// Runs one decision; it sees what those before it did.
    pub(super) fn run(&mut self, scope: &Scope, decide: &Decide) {
        let of_scope = |session: &&Session| {
            (scope.user.is_some() && session.user == scope.user) || scope.ids.contains(&session.id)
        };
        let mut seen: Vec<Session> = self.live.values().filter(of_scope).cloned().collect();
        seen.sort_by_key(|session| session.login_seq);
        // A decision that panics fails its caller, not everybody's store.
        let Ok(plan) = catch_unwind(AssertUnwindSafe(|| decide(&seen))) else {
            let error = sqlx::Error::Protocol("the decision panicked".into());
            self.said.push(Err(error.into()));
            return;
        };
        let mut sessions = Vec::with_capacity(plan.sessions.len());
        for mut session in plan.sessions {
            if self.ended.contains(&session.id) {
                continue;
            }
            self.changes += 1;
            session.change_seq = self.changes;
            if session.login_seq == 0 {
                self.logins += 1;
                session.login_seq = OFFSETS + self.logins;
            }
            if session.end.is_some() {
                self.live.remove(&session.id);
                self.ended.insert(session.id);
            } else {
                self.live.insert(session.id, session.clone());
            }
            self.sessions.insert(session.id, session.clone());
            sessions.push(session);
        }
        if sessions.is_empty() && !plan.keys.is_empty() {
            self.changes += 1;
        }
        for key in &plan.keys {
            self.keys.insert(key.key, (key.clone(), self.changes));
        }
        let key_seqs = vec![self.changes; plan.keys.len()];
        for limit in &plan.limits {
            self.changes += 1;
            self.limits.insert(limit.user.clone(), (limit.clone(), self.changes));
        }
        let (keys, limits, events) = (plan.keys, plan.limits, plan.events);
        let change = Committed { sessions, keys, key_seqs, limits, events, ..Committed::default() };
        self.said.push(Ok(Said { decision: plan.decision, change }));
    }

    /// What each decision came to, in their order, with the numbers that the database gave.
    pub(super) fn settle(self, given: &Given) -> Vec<Result<(Decision, Committed), StoreError>> {
        let settle = |said: Said| {
            let Said { decision, mut change } = said;
            change.sessions.retain(|session| given.written.contains(&session.id));
            for session in &mut change.sessions {
                session.change_seq += given.change_seq;
                if session.login_seq >= OFFSETS {
                    session.login_seq = session.login_seq - OFFSETS + given.login_seq;
                }
            }
            for seq in &mut change.key_seqs {
                *seq += given.change_seq;
            }
            (decision, change)
        };
        self.said.into_iter().map(|said| said.map(settle)).collect()
    }
}

/// Whose locks a batch needs: each once.
pub(super) fn scopes<'a>(all: impl Iterator<Item = &'a Scope>) -> (Vec<User>, Vec<SessionId>) {
    let (mut users, mut ids) = (HashSet::new(), HashSet::new());
    for scope in all {
        users.extend(scope.user.clone());
        ids.extend(scope.ids.iter().copied());
    }
    (users.into_iter().collect(), ids.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Client, EndReason, Ending, Groups, Timestamp};
    use crate::store::Plan;

    fn session(number: u8, login_seq: i64) -> Session {
        Session {
            id: SessionId([number; 16]),
            user: Some("ann".into()),
            created_at: Timestamp(1),
            renewed_at: Timestamp(1),
            last_seen_at: Timestamp(1),
            login_seq,
            change_seq: 0,
            client: Client::default(),
            groups: Groups::default(),
            end: None,
            would_end: None,
        }
    }

    /// The newcomer ends everybody else.
    fn login(number: u8) -> (Scope, Decide) {
        let scope = Scope { user: Some("ann".into()), ids: Vec::new() };
        let decide = move |live: &[Session]| {
            let end = Ending {
                at: Timestamp(2),
                reason: EndReason::Limit,
                by: None,
                by_session: Some(SessionId([number; 16])),
            };
            let ended = live.iter().cloned();
            let mut sessions: Vec<Session> =
                ended.map(|other| Session { end: Some(end.clone()), ..other }).collect();
            sessions.push(session(number, 0));
            Plan { sessions, ..Plan::default() }
        };
        (scope, Box::new(decide))
    }

    #[test]
    fn a_decision_sees_what_those_before_it_in_the_batch_did() {
        let mut batch = Batch::over(vec![session(1, 7)]);
        for number in [2, 3] {
            let (scope, decide) = login(number);
            batch.run(&scope, &decide);
        }
        assert_eq!((batch.logins, batch.changes, batch.sessions.len()), (2, 4, 3));
        let written = batch.sessions.keys().copied().collect();
        let given = Given { login_seq: 100, change_seq: 1000, written };
        let settled = batch.settle(&given);
        let told: Vec<Vec<(u8, bool, i64, i64)>> = settled
            .into_iter()
            .map(|outcome| {
                let sessions = outcome.unwrap().1.sessions;
                let told = sessions.iter().map(|session| {
                    let ended = session.end.is_some();
                    (session.id.0[0], ended, session.login_seq, session.change_seq)
                });
                told.collect()
            })
            .collect();
        assert_eq!(told[0], [(1, true, 7, 1001), (2, false, 101, 1002)]);
        assert_eq!(told[1], [(2, true, 101, 1003), (3, false, 102, 1004)]);
    }

    #[test]
    fn nobody_is_in_a_scope_without_a_user_and_what_panics_fails_alone() {
        let nobodys = Session { user: None, ..session(1, 7) };
        let mut batch = Batch::over(vec![nobodys]);
        let nothing: Decide = Box::new(|live| {
            assert!(live.is_empty(), "on purpose when somebody is there");
            Plan::default()
        });
        batch.run(&Scope::default(), &nothing);
        batch.run(&Scope { user: None, ids: vec![SessionId([1; 16])] }, &nothing);
        let settled = batch.settle(&Given::default());
        assert!(settled[0].is_ok() && settled[1].is_err());
    }

    #[test]
    fn each_lock_is_asked_for_once() {
        let scope = Scope { user: Some("ann".into()), ids: vec![SessionId([1; 16])] };
        let (users, ids) = scopes([&scope, &scope, &Scope::default()].into_iter());
        assert_eq!(users, [User::from("ann")]);
        assert_eq!(ids, [SessionId([1; 16])]);
    }
}
