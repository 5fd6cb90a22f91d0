//! The latest events of this process, in memory, for whoever watches: a list that is read backwards,
//! a feed, and how many sessions ended of late. The log has them for good.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use super::{AuditEvent, EventKind};
use crate::session::{EndReason, Initiator, Mode, Timestamp};

/// Events remembered.
const EVENTS_MAX: usize = 4096;
/// Events that admins caused, which a flood of others does not push out.
const ADMIN_EVENTS_MAX: usize = 1024;
/// Events a slow reader of the feed may lag behind.
const FEED_EVENTS: usize = 1024;
/// Ends are counted by half hours, for two days.
pub const SLOT_MS: i64 = 30 * 60 * 1000;
pub const SLOTS: usize = 96;

/// An event with its place in the trail.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct Noted {
    /// Strictly increasing, also over restarts as long as the clock is not set back.
    pub id: u64,
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// Ends by reason, in the order of [`EndReason::ALL`], within [`SLOT_MS`] from `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndsSlot {
    pub from: Timestamp,
    pub ends: [u32; EndReason::ALL.len()],
}

/// The latest events.
pub struct Trail {
    kept: Mutex<Kept>,
    feed: broadcast::Sender<Arc<Noted>>,
}

#[derive(Default)]
struct Kept {
    last_id: u64,
    events: VecDeque<Arc<Noted>>,
    by_admins: VecDeque<Arc<Noted>>,
    /// The last is the newest.
    slots: VecDeque<EndsSlot>,
}

impl Default for Trail {
    fn default() -> Self {
        Self { kept: Mutex::default(), feed: broadcast::channel(FEED_EVENTS).0 }
    }
}

impl Trail {
    /// Takes an event up and tells it to whoever listens.
    pub fn note(&self, event: &AuditEvent) {
        let mut kept = self.kept.lock();
        let by_time = u64::try_from(event.time.0).unwrap_or_default().saturating_mul(1000);
        let id = by_time.max(kept.last_id + 1);
        kept.last_id = id;
        kept.count(event);
        let noted = Arc::new(Noted { id, event: event.clone() });
        if event.initiator == Initiator::Admin {
            push(&mut kept.by_admins, Arc::clone(&noted), ADMIN_EVENTS_MAX);
        }
        push(&mut kept.events, Arc::clone(&noted), EVENTS_MAX);
        // Under the lock, so that the feed has the order of the list. Nobody listening is no error.
        let _ = self.feed.send(noted);
    }

    /// Events before the one with the id `before`, newest first. Those of admins go back further.
    pub fn before(&self, before: Option<u64>, by_admins: bool) -> Vec<Arc<Noted>> {
        let kept = self.kept.lock();
        let events = if by_admins { &kept.by_admins } else { &kept.events };
        let before = before.unwrap_or(u64::MAX);
        events.iter().rev().filter(|noted| noted.id < before).cloned().collect()
    }

    /// Events after the one with the id `after`, oldest first, and all that are to come.
    pub fn follow(&self, after: Option<u64>) -> (Vec<Arc<Noted>>, broadcast::Receiver<Arc<Noted>>) {
        let kept = self.kept.lock();
        let feed = self.feed.subscribe();
        let Some(after) = after else { return (Vec::new(), feed) };
        let missed = kept.events.iter().filter(|noted| noted.id > after).cloned().collect();
        (missed, feed)
    }

    /// Forgets every event about a user, by the name that events have.
    pub fn forget(&self, user: &str) {
        let mut kept = self.kept.lock();
        let others = |noted: &Arc<Noted>| noted.event.user.as_deref() != Some(user);
        kept.events.retain(others);
        kept.by_admins.retain(others);
    }

    /// Ends within the last two days, oldest first; what was before the start is not known.
    pub fn ends(&self) -> Vec<EndsSlot> {
        self.kept.lock().slots.iter().copied().collect()
    }
}

impl Kept {
    fn count(&mut self, event: &AuditEvent) {
        let (EventKind::SessionEnded, Some(reason)) = (event.event, event.reason) else { return };
        if event.mode != Mode::Enforce {
            return;
        }
        let from = Timestamp(event.time.0.div_euclid(SLOT_MS) * SLOT_MS);
        let late = self.slots.back().is_some_and(|newest| newest.from > from);
        if !late && self.slots.back().is_none_or(|newest| newest.from < from) {
            push(&mut self.slots, EndsSlot { from, ends: [0; EndReason::ALL.len()] }, SLOTS);
        }
        let slot = self.slots.iter_mut().rev().find(|slot| slot.from <= from);
        let at = EndReason::ALL.iter().position(|other| *other == reason);
        if let (Some(slot), Some(at)) = (slot, at) {
            slot.ends[at] = slot.ends[at].saturating_add(1);
        }
    }
}

fn push<T>(kept: &mut VecDeque<T>, item: T, max: usize) {
    if kept.len() >= max {
        kept.pop_front();
    }
    kept.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(at: i64, initiator: Initiator) -> AuditEvent {
        AuditEvent::new(EventKind::SessionEnded, Timestamp(at), initiator, Mode::Enforce)
            .reason(EndReason::Limit)
    }

    #[test]
    fn events_are_read_backwards_and_followed_from_where_one_was() {
        let trail = Trail::default();
        for at in 0..3 {
            trail.note(&ended(at, Initiator::Policy));
        }
        let all = trail.before(None, false);
        assert_eq!(all.len(), 3);
        assert!(all[0].id > all[1].id && all[1].id > all[2].id);
        assert_eq!(trail.before(Some(all[0].id), false).len(), 2);
        let (missed, mut feed) = trail.follow(Some(all[1].id));
        assert_eq!(missed.iter().map(|noted| noted.id).collect::<Vec<_>>(), [all[0].id]);
        trail.note(&ended(9, Initiator::Policy));
        assert_eq!(feed.try_recv().unwrap().event.time, Timestamp(9));
    }

    #[test]
    fn what_was_about_a_user_is_forgotten() {
        let trail = Trail::default();
        for user in ["ann", "bob"] {
            let mut event = ended(1, Initiator::Admin);
            event.user = Some(user.to_owned());
            trail.note(&event);
        }
        trail.forget("ann");
        for by_admins in [false, true] {
            let left = trail.before(None, by_admins);
            assert_eq!(left.len(), 1);
            assert_eq!(left[0].event.user.as_deref(), Some("bob"));
        }
    }

    #[test]
    fn a_flood_leaves_what_admins_did_and_memory_is_bounded() {
        let trail = Trail::default();
        trail.note(&ended(1, Initiator::Admin));
        for at in 0..2 * EVENTS_MAX as i64 {
            trail.note(&ended(at * SLOT_MS, Initiator::Policy));
        }
        assert_eq!(trail.before(None, false).len(), EVENTS_MAX);
        assert_eq!(trail.before(None, true).len(), 1);
        assert_eq!(trail.ends().len(), SLOTS);
    }

    #[test]
    fn ends_are_counted_by_their_half_hour() {
        let trail = Trail::default();
        for at in [1, 2, SLOT_MS, 3] {
            trail.note(&ended(at, Initiator::Policy));
        }
        let ends = trail.ends();
        let counts: Vec<_> = ends.iter().map(|slot| (slot.from.0, slot.ends[0])).collect();
        assert_eq!(counts, [(0, 3), (SLOT_MS, 1)]);
    }
}
