//! What limits would do, told from the sessions there were: logins that would have evicted or been
//! denied, who uses how many devices at once, and which accounts look shared. Pure counting; what is
//! counted, and how it is shown, others decide.

mod shared;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use utoipa::ToSchema;

use crate::session::{EndReason, Session, SessionId, Timestamp};

pub use shared::{Evidence, Seen, SharedAccount, network};

/// The limits that are tried: 1 to this.
const LIMITS: u32 = 5;
/// Users in each list.
const USERS_MAX: usize = 50;

/// What limits would have done in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Report {
    pub since: Timestamp,
    pub until: Timestamp,
    /// There were more sessions than were looked through: those of the oldest logins are missing.
    pub truncated: bool,
    /// Logins within the period.
    pub logins: u32,
    /// Users with sessions in the period.
    pub users: u32,
    pub limits: Vec<Tried>,
    /// By how many sessions they used at once.
    pub top_users: Vec<BusyUser>,
    /// By how long they were used from distant networks at once.
    pub likely_shared: Vec<SharedAccount>,
}

/// What one limit would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Tried {
    pub max_sessions: u32,
    /// With `on_limit = "evict"`: logins that would have ended sessions,
    pub logins_evicting: u32,
    /// the sessions that would have been ended,
    pub sessions_evicted: u32,
    /// and those among them that were used after that: somebody would have noticed.
    pub evicted_in_use: u32,
    /// With `on_limit = "deny"`: logins that would have been denied.
    pub logins_denied: u32,
    /// Users concerned.
    pub users: u32,
}

/// How much one user does at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BusyUser {
    pub user: String,
    pub logins: u32,
    /// Sessions in use at the same time, at most.
    pub at_once: u32,
    /// When that was.
    pub at: Timestamp,
    /// Different User-Agents and networks among those.
    pub devices: u32,
    pub networks: u32,
}

/// One session, as the counting sees it.
#[derive(Clone, Debug)]
struct Stay<'a> {
    session: &'a Session,
    from: Timestamp,
    /// Its last request.
    last: Timestamp,
    /// When it was over without any limit; `None`: it is not.
    over: Option<Timestamp>,
}

impl<'a> Stay<'a> {
    fn new(session: &'a Session) -> Self {
        let from = session.created_at;
        let natural = |reason: EndReason| reason != EndReason::Limit;
        let would = session.would_end.as_ref().filter(|end| natural(end.reason)).map(|end| end.at);
        // What a limit has ended was there until the newcomer was in.
        let ended = session.end.as_ref().map(|end| match natural(end.reason) {
            true => end.at,
            false => end.at.plus_ms(1),
        });
        let over = match (ended, would) {
            (Some(ended), Some(would)) => Some(ended.min(would)),
            (ended, would) => ended.or(would),
        };
        let last = session.last_seen_at.max(from);
        Self { session, from, last: over.map_or(last, |over| last.min(over).max(from)), over }
    }
}

/// Counts over `sessions`, in any order: all that were there between `since` and `until`.
pub fn report(sessions: &[Session], since: Timestamp, until: Timestamp, truncated: bool) -> Report {
    let mut by_user: BTreeMap<&str, Vec<Stay<'_>>> = BTreeMap::new();
    for session in sessions {
        let stay = Stay::new(session);
        let there = stay.from < until && stay.over.is_none_or(|over| over >= since);
        if let (Some(user), true) = (session.user.as_deref(), there) {
            by_user.entry(user).or_default().push(stay);
        }
    }
    let mut limits: Vec<Tried> =
        (1..=LIMITS).map(|max_sessions| Tried { max_sessions, ..Tried::default() }).collect();
    let (mut top_users, mut likely_shared, mut logins) = (Vec::new(), Vec::new(), 0);
    let within = |at: Timestamp| (since..until).contains(&at);
    for (user, stays) in &mut by_user {
        stays.sort_by_key(|stay| (stay.from, stay.session.login_seq));
        let own = count(stays.iter().filter(|stay| within(stay.from)).count());
        logins += own;
        for tried in &mut limits {
            tried.add(stays, &within);
        }
        let busy = busiest(user, stays, own);
        if busy.at_once > 1 {
            top_users.push(busy);
        }
        likely_shared.extend(shared::shared(user, stays));
    }
    top_users.sort_by_key(|busy| std::cmp::Reverse((busy.at_once, busy.networks, busy.devices)));
    top_users.truncate(USERS_MAX);
    likely_shared.sort_by_key(|account| std::cmp::Reverse(account.overlap_s));
    likely_shared.truncate(USERS_MAX);
    let users = count(by_user.len());
    Report { since, until, truncated, logins, users, limits, top_users, likely_shared }
}

impl Tried {
    /// Plays one user's logins under this limit.
    fn add(&mut self, stays: &[Stay<'_>], within: &impl Fn(Timestamp) -> bool) {
        let max = self.max_sessions as usize;
        let (mut evicting, mut denying) = (Vec::<&Stay<'_>>::new(), Vec::<&Stay<'_>>::new());
        let mut concerned = false;
        for stay in stays {
            let there = |other: &&Stay<'_>| other.over.is_none_or(|over| over > stay.from);
            evicting.retain(there);
            denying.retain(there);
            if evicting.len() >= max {
                // The oldest login goes: when each was used last before this is not known any more.
                let over: Vec<_> = evicting.drain(..=evicting.len() - max).collect();
                if within(stay.from) {
                    concerned = true;
                    self.logins_evicting += 1;
                    self.sessions_evicted += count(over.len());
                    let in_use = over.iter().filter(|other| other.last > stay.from).count();
                    self.evicted_in_use += count(in_use);
                }
            }
            evicting.push(stay);
            if denying.len() < max {
                denying.push(stay);
            } else if within(stay.from) {
                concerned = true;
                self.logins_denied += 1;
            }
        }
        self.users += u32::from(concerned);
    }
}

/// When most of a user's sessions were in use. Between a login and the last request a session is.
fn busiest(user: &str, stays: &[Stay<'_>], logins: u32) -> BusyUser {
    let mut ends: Vec<Timestamp> = stays.iter().map(|stay| stay.last).collect();
    ends.sort();
    let (mut at_once, mut at, mut ended) = (0, Timestamp(0), 0);
    for (begun, stay) in stays.iter().enumerate() {
        while ends[ended] < stay.from {
            ended += 1;
        }
        let now = begun + 1 - ended;
        if now > at_once {
            (at_once, at) = (now, stay.from);
        }
    }
    let then = || stays.iter().filter(|stay| stay.from <= at && stay.last >= at);
    let devices: HashSet<_> = then().map(|stay| &stay.session.client.user_agent).collect();
    let networks: HashSet<_> =
        then().filter_map(|stay| network(stay.session.client.address.as_deref()?)).collect();
    BusyUser {
        user: user.to_owned(),
        logins,
        at_once: count(at_once),
        at,
        devices: count(devices.len()),
        networks: count(networks.len()),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Names a session in the evidence.
fn seen(session: &Session) -> Seen {
    let id: SessionId = session.id;
    Seen {
        session: id,
        address: session.client.address.clone(),
        user_agent: session.client.user_agent.clone(),
    }
}

#[cfg(test)]
mod tests;
