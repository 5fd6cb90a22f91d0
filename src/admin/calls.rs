//! What the API and the page do alike: searching, ending, setting limits, each with what the caller's
//! role allows. How it is asked for and shown is their business.

use http::StatusCode;
use ipnet::IpNet;

use super::auth::Caller;
use super::problem::Problem;
use super::{Admin, Control};
use crate::session::{Ceiling, EndReason, Session, SessionId, Timestamp, User};
use crate::settings::AdminRole;
use crate::store::{Listing, StoreError};

/// Sessions on one page of a listing.
pub(super) const PAGE_MAX: u32 = 1000;
/// Pages read for one call that filters; the cursor goes on from there.
const PAGES_PER_CALL: usize = 10;
/// Longest name of a user that is asked for, in characters.
pub(super) const USER_CHARS_MAX: usize = 1000;

/// Which sessions are wanted. All that is given must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    pub(super) user: Option<User>,
    /// `Some(true)`: live only; `Some(false)`: ended only.
    pub(super) live: Option<bool>,
    pub(super) reason: Option<EndReason>,
    /// An address as recorded, or a network.
    pub(super) address: Option<String>,
    /// In use at this time or later.
    pub(super) since: Option<Timestamp>,
    /// Begun before this time.
    pub(super) until: Option<Timestamp>,
    pub(super) count_max: u32,
    pub(super) before_login_seq: Option<i64>,
}

/// A page of them, newest login first.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sessions: Vec<Session>,
    /// Where the next page begins; `None`: that was all. A page can be short, or empty, and not be
    /// the last: so much was looked through for it.
    pub(super) next: Option<i64>,
}

impl Search {
    fn filters(&self) -> bool {
        self.reason.is_some()
            || self.address.is_some()
            || self.since.is_some()
            || self.until.is_some()
    }

    fn wants(&self, session: &Session) -> bool {
        let ending = session.end.as_ref().or(session.would_end.as_ref());
        let used_at = session.end.as_ref().map_or(session.last_seen_at, |end| end.at);
        self.reason.is_none_or(|reason| ending.is_some_and(|end| end.reason == reason))
            && self.since.is_none_or(|since| used_at >= since)
            && self.until.is_none_or(|until| session.created_at < until)
            && self.address.as_deref().is_none_or(|wanted| {
                session.client.address.as_deref().is_some_and(|address| within(address, wanted))
            })
    }
}

/// Whether `address` is `wanted`, or lies in that network.
pub(super) fn within(address: &str, wanted: &str) -> bool {
    if address == wanted {
        return true;
    }
    let (Ok(network), Ok(ip)) = (wanted.parse::<IpNet>(), address.parse::<std::net::IpAddr>())
    else {
        return false;
    };
    network.contains(&ip)
}

pub(super) async fn search(control: &dyn Control, search: &Search) -> Result<Found, StoreError> {
    let page_size = if search.filters() { PAGE_MAX } else { search.count_max };
    let mut found = Found { sessions: Vec::new(), next: search.before_login_seq };
    for _ in 0..PAGES_PER_CALL {
        let listing = Listing {
            user: search.user.clone(),
            live: search.live,
            count_max: page_size,
            before_login_seq: found.next,
        };
        let page = control.list(listing).await?;
        let last_page = page.len() < page_size as usize;
        for session in page {
            found.next = Some(session.login_seq);
            if search.wants(&session) {
                found.sessions.push(session);
            }
            if found.sessions.len() >= search.count_max as usize {
                return Ok(found);
            }
        }
        if last_page {
            found.next = None;
            break;
        }
    }
    Ok(found)
}

/// One session, or 404.
pub(super) async fn find(admin: &Admin, id: &str) -> Result<Session, Problem> {
    let id: SessionId = id.parse().map_err(|()| session_unknown())?;
    admin.control.find(id).await?.ok_or_else(session_unknown)
}

/// Refuses whoever may not end the sessions of this user.
pub(super) fn may_end(admin: &Admin, caller: &Caller, user: Option<&str>) -> Result<(), Problem> {
    caller.require(AdminRole::Operator)?;
    if caller.role < AdminRole::Admin && user.is_some_and(|user| admin.control.is_protected(user)) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "user_protected",
            "This user is one of admin.protected_users: that needs a token of the role admin.",
        ));
    }
    Ok(())
}

pub(super) async fn end_one(admin: &Admin, caller: &Caller, id: &str) -> Result<u32, Problem> {
    caller.require(AdminRole::Operator)?;
    let session = find(admin, id).await?;
    may_end(admin, caller, session.user.as_deref())?;
    Ok(admin.control.end(vec![session.id], &caller.name).await?)
}

pub(super) async fn end_user(
    admin: &Admin,
    caller: &Caller,
    user: &str,
    except: Option<SessionId>,
) -> Result<u32, Problem> {
    may_end(admin, caller, Some(user))?;
    Ok(admin.control.end_user(user, except, &caller.name).await?)
}

/// Ends everybody's sessions; `confirm` must be the app's name, so that nobody does it by mistake.
pub(super) async fn end_all(admin: &Admin, caller: &Caller, confirm: &str) -> Result<u32, Problem> {
    caller.require(AdminRole::Admin)?;
    if confirm != admin.control.about().app {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "confirm_wrong",
            "This ends every session of the app: confirm must be the app's name.",
        ));
    }
    tracing::warn!(target: "headcount::admin", by = &*caller.name, "every session is ended");
    Ok(admin.control.end_all(&caller.name).await?)
}

/// Sets the limit of a user, or takes it back.
pub(super) async fn set_limit(
    admin: &Admin,
    caller: &Caller,
    user: &str,
    ceiling: Ceiling,
) -> Result<(), Problem> {
    caller.require(AdminRole::Admin)?;
    Ok(admin.control.set_limit(user, ceiling, &caller.name).await?)
}

/// Forgets a user.
pub(super) async fn erase_user(
    admin: &Admin,
    caller: &Caller,
    user: &str,
) -> Result<(u32, u64), Problem> {
    caller.require(AdminRole::Admin)?;
    tracing::warn!(target: "headcount::admin", by = &*caller.name, "a user is forgotten");
    Ok(admin.control.erase_user(user, &caller.name).await?)
}

/// The one spelling of a user's name, as it is counted.
pub(super) fn user_name(control: &dyn Control, user: &str) -> Result<String, Problem> {
    let long = user.chars().nth(USER_CHARS_MAX).is_some();
    let user = control.normalize(user);
    if long || user.is_empty() {
        let what = if long { "too long" } else { "empty" };
        return Err(bad_request("user_invalid", format!("the user's name is {what}")));
    }
    Ok(user)
}

pub(super) fn bad_request(reason: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, reason, detail)
}

pub(super) fn session_unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "session_unknown", "There is no session with this id.")
}

/// RFC 3339.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    use time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_by_themselves_and_by_their_network() {
        assert!(within("10.0.0.7", "10.0.0.7") && within("10.0.0.7", "10.0.0.0/24"));
        assert!(!within("10.0.1.7", "10.0.0.0/24") && !within("10.0.0.70", "10.0.0.7"));
        assert!(within("2001:db8::1", "2001:db8::/32") && within("9f2c", "9f2c"));
    }

    #[test]
    fn times_are_read_with_their_offset() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Some(Timestamp(1_000)));
        assert_eq!(time("1970-01-01T01:00:01.5+01:00"), Some(Timestamp(1_500)));
        assert_eq!(time("yesterday"), None);
    }
}
