//! The statements that read sessions, keys and cookie shapes, and how their rows are read. What
//! changes them is in `write.rs` and `prune.rs`; nothing here begins or ends a transaction.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::session::{
    Ceiling, Client, EndReason, Ending, Groups, Key, KeyUse, Session, SessionId, SessionKey,
    Timestamp, User, UserLimit,
};
use crate::store::{Committed, CookieShape, Listing, Loaded, StoreError, Take};

/// A listing is one page; nobody reads more.
const LISTED_MAX: u32 = 1000;
/// Rows read at once while loading.
const PAGE_ROWS: i64 = 4096;

/// The columns `session_of` reads, in its order, perhaps more, and the rest of the statement.
macro_rules! select_sessions {
    ($rest:literal) => {
        select_sessions!("", $rest)
    };
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq, ",
            "client_address, user_agent, ended_at, end_reason, ended_by, by_session, ",
            "would_end_at, would_end_reason, would_ended_by, would_by_session, user_groups",
            $more,
            " FROM ",
            $rest
        )
    };
}

pub(super) use select_sessions;

/// PostgreSQL's text cannot hold NUL: it becomes U+0001 `0`, and U+0001 itself U+0001 `1`.
pub(in crate::store) fn text(value: &str) -> String {
    if value.contains(['\0', '\u{1}']) {
        value.replace('\u{1}', "\u{1}1").replace('\0', "\u{1}0")
    } else {
        value.to_owned()
    }
}

fn untext(value: String) -> String {
    if value.contains('\u{1}') {
        value.replace("\u{1}0", "\0").replace("\u{1}1", "\u{1}")
    } else {
        value
    }
}

/// In pages: a driver's row takes several times the memory of what is read from it.
pub(super) async fn load(connection: &mut PgConnection, mut take: Take) -> Result<(), StoreError> {
    const SESSIONS: &str = select_sessions!(
        "headcount.sessions WHERE login_seq > $1 AND (ended_at IS NULL OR keyed) ORDER BY login_seq LIMIT $2"
    );
    const KEYS: &str = "SELECT key, exact, session, key_use, since, change_seq FROM headcount.session_keys \
        WHERE key > $1 ORDER BY key LIMIT $2";
    let mut after = i64::MIN;
    loop {
        let page = sqlx::query(SESSIONS).bind(after).bind(PAGE_ROWS).fetch_all(&mut *connection);
        let sessions = page.await?.iter().map(session_of).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = sessions.last() else { break };
        after = last.login_seq;
        take(Loaded { sessions, ..Loaded::default() });
    }
    // A key of a session that came since is brought by the changes, which are followed already.
    let mut after = Vec::new();
    loop {
        let page =
            sqlx::query(KEYS).bind(after).bind(PAGE_ROWS).fetch_all(&mut *connection).await?;
        let keys = page.iter().map(key_of).collect::<Result<Vec<_>, _>>()?;
        let key_seqs = page.iter().map(|row| row.try_get(5)).collect::<Result<_, _>>()?;
        let Some(last) = keys.last() else { break };
        after = last.key.0.to_vec();
        take(Loaded { keys, key_seqs, ..Loaded::default() });
    }
    let shapes = sqlx::query("SELECT name, domain, path, attributes FROM headcount.cookie_shapes")
        .fetch_all(&mut *connection)
        .await?;
    let shapes = shapes.iter().map(shape_of).collect::<Result<_, _>>()?;
    let limits = limits_since(connection, 0).await?;
    take(Loaded { shapes, limits, ..Loaded::default() });
    Ok(())
}

/// Locks what a batch of decisions is about and reads what of it is live.
pub(super) async fn lock_live(
    connection: &mut PgConnection,
    users: &[User],
    ids: &[SessionId],
) -> Result<Vec<Session>, StoreError> {
    const LIVE: &str = select_sessions!("headcount.lock_live($1, $2)");
    let statement = sqlx::query(LIVE)
        .bind(users.iter().map(|user| text(user)).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| id.0.to_vec()).collect::<Vec<_>>());
    statement.fetch_all(connection).await?.iter().map(session_of).collect()
}

/// With a user each half of the union reads one index in order.
pub(super) async fn list(
    connection: &mut PgConnection,
    listing: &Listing,
) -> Result<Vec<Session>, StoreError> {
    const ALL: &str = select_sessions!(
        "headcount.sessions WHERE NOT hidden AND ($1::boolean IS NULL OR (ended_at IS NULL) = $1) \
         AND login_seq < $2 ORDER BY login_seq DESC LIMIT $3"
    );
    const OF_USER: &str = concat!(
        select_sessions!(
            "headcount.sessions WHERE user_name = $4 AND ended_at IS NULL AND $1::boolean IS NOT FALSE \
             AND login_seq < $2"
        ),
        " UNION ALL ",
        select_sessions!(
            "headcount.sessions WHERE user_name = $4 AND ended_at IS NOT NULL AND NOT hidden \
             AND $1::boolean IS NOT TRUE AND login_seq < $2 ORDER BY login_seq DESC LIMIT $3"
        )
    );
    let mut statement = sqlx::query(if listing.user.is_some() { OF_USER } else { ALL })
        .bind(listing.live)
        .bind(listing.before_login_seq.unwrap_or(i64::MAX))
        .bind(i64::from(listing.count_max.min(LISTED_MAX)));
    if let Some(user) = &listing.user {
        statement = statement.bind(text(user));
    }
    statement.fetch_all(connection).await?.iter().map(session_of).collect()
}

pub(super) async fn find(
    connection: &mut PgConnection,
    id: SessionId,
) -> Result<Option<Session>, StoreError> {
    const BY_ID: &str = select_sessions!("headcount.sessions WHERE id = $1 AND NOT hidden");
    let row = sqlx::query(BY_ID).bind(id.0.to_vec()).fetch_optional(connection).await?;
    row.as_ref().map(session_of).transpose()
}

/// How far the changes go, and what time it is, as the server says.
pub(super) async fn state(connection: &mut PgConnection) -> Result<(i64, Timestamp), StoreError> {
    const STATE: &str = "SELECT change_seq, \
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM headcount.meta";
    let row = sqlx::query(STATE).fetch_one(connection).await?;
    Ok((row.try_get(0)?, Timestamp(row.try_get(1)?)))
}

/// What changed after the change `$1`, whoever did it. Each session with when that was.
pub(super) async fn changes_since(
    connection: &mut PgConnection,
    seq: i64,
) -> Result<(Committed, Vec<Timestamp>), StoreError> {
    const KEYS: &str = "SELECT key, exact, session, key_use, since, change_seq, late \
        FROM headcount.session_keys WHERE change_seq > $1 ORDER BY since, key DESC";
    const DROPPED: &str =
        "SELECT key, change_seq FROM headcount.dropped_keys WHERE change_seq > $1";
    const SESSIONS: &str = concat!(
        "SELECT id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq, ",
        "client_address, user_agent, ended_at, end_reason, ended_by, by_session, ",
        "would_end_at, would_end_reason, would_ended_by, would_by_session, user_groups, ",
        "changed_at ",
        "FROM headcount.sessions WHERE change_seq > $1 ORDER BY change_seq"
    );
    let mut change = Committed::default();
    // Keys first: the session that a key leads to is then sure to be read as well. Of late keys the
    // registry keeps the last it is given, and the store the last by this order.
    for row in sqlx::query(KEYS).bind(seq).fetch_all(&mut *connection).await? {
        if row.try_get(6)? {
            change.late_keys.push(key_of(&row)?);
        } else {
            change.keys.push(key_of(&row)?);
            change.key_seqs.push(row.try_get(5)?);
        }
    }
    for row in sqlx::query(DROPPED).bind(seq).fetch_all(&mut *connection).await? {
        change.forgotten.push((SessionKey(bytes(&row, 0)?), row.try_get(1)?));
    }
    let mut changed_at = Vec::new();
    change.limits = limits_since(&mut *connection, seq).await?;
    for row in sqlx::query(SESSIONS).bind(seq).fetch_all(connection).await? {
        change.sessions.push(session_of(&row)?);
        changed_at.push(Timestamp(row.try_get(18)?));
    }
    Ok((change, changed_at))
}

pub(super) fn session_of(row: &PgRow) -> Result<Session, StoreError> {
    Ok(Session {
        id: SessionId(bytes(row, 0)?),
        user: optional_text(row, 1)?.map(|user| User::from(&*user)),
        created_at: Timestamp(row.try_get(2)?),
        renewed_at: Timestamp(row.try_get(3)?),
        last_seen_at: Timestamp(row.try_get(4)?),
        login_seq: row.try_get(5)?,
        change_seq: row.try_get(6)?,
        client: Client { address: optional_text(row, 7)?, user_agent: optional_text(row, 8)? },
        groups: groups_of(row)?,
        end: ending_of(row, 9)?,
        would_end: ending_of(row, 13)?,
    })
}

fn groups_of(row: &PgRow) -> Result<Groups, sqlx::Error> {
    Ok(Groups::from_text(optional_text(row, 17)?.as_deref()))
}

/// The four columns of an ending, from `first` on.
fn ending_of(row: &PgRow, first: usize) -> Result<Option<Ending>, StoreError> {
    let Some(at) = row.try_get(first)? else { return Ok(None) };
    let name: &str = row.try_get(first + 1)?;
    let reason = EndReason::parse(name)
        .ok_or_else(|| StoreError::Corrupt(format!("unknown end reason {name:?}")))?;
    let by_session = match row.try_get::<Option<&[u8]>, _>(first + 3)? {
        Some(_) => Some(SessionId(bytes(row, first + 3)?)),
        None => None,
    };
    Ok(Some(Ending { at: Timestamp(at), reason, by: optional_text(row, first + 2)?, by_session }))
}

fn key_of(row: &PgRow) -> Result<Key, StoreError> {
    let name: &str = row.try_get(3)?;
    Ok(Key {
        key: SessionKey(bytes(row, 0)?),
        exact: SessionKey(bytes(row, 1)?),
        session: SessionId(bytes(row, 2)?),
        key_use: KeyUse::parse(name)
            .ok_or_else(|| StoreError::Corrupt(format!("unknown key use {name:?}")))?,
        since: Timestamp(row.try_get(4)?),
    })
}

/// Limits of single users set or taken back after the change `seq`.
async fn limits_since(
    connection: &mut PgConnection,
    seq: i64,
) -> Result<Vec<UserLimit>, StoreError> {
    const LIMITS: &str = "SELECT user_name, max_sessions, set_at, set_by \
        FROM headcount.user_limits WHERE change_seq > $1 ORDER BY change_seq";
    let rows = sqlx::query(LIMITS).bind(seq).fetch_all(connection).await?;
    rows.iter().map(limit_of).collect()
}

fn limit_of(row: &PgRow) -> Result<UserLimit, StoreError> {
    let ceiling = match row.try_get::<Option<i64>, _>(1)? {
        None => Ceiling::Configured,
        Some(0) => Ceiling::Unlimited,
        Some(max) => Ceiling::Sessions(
            u32::try_from(max)
                .map_err(|_| StoreError::Corrupt(format!("a limit of {max} sessions")))?,
        ),
    };
    Ok(UserLimit {
        user: untext(row.try_get(0)?).into(),
        ceiling,
        set_at: Timestamp(row.try_get(2)?),
        set_by: untext(row.try_get(3)?),
    })
}

fn shape_of(row: &PgRow) -> Result<CookieShape, StoreError> {
    Ok(CookieShape {
        name: untext(row.try_get(0)?),
        domain: untext(row.try_get(1)?),
        path: untext(row.try_get(2)?),
        attributes: untext(row.try_get(3)?),
    })
}

fn optional_text(row: &PgRow, column: usize) -> Result<Option<String>, sqlx::Error> {
    Ok(row.try_get::<Option<String>, _>(column)?.map(untext))
}

/// Sixteen bytes of an id or key.
pub(super) fn bytes(row: &PgRow, column: usize) -> Result<[u8; 16], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| StoreError::Corrupt(format!("an id of {} bytes", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_no_two_are_the_same() {
        let all = ["", "a", "\0", "\u{1}", "\u{1}0", "\u{1}1", "\u{1}\0", "\0\u{1}01", "0\u{1}10"];
        let mut stored: Vec<String> = all.iter().map(|value| text(value)).collect();
        for (value, stored) in all.iter().zip(&stored) {
            assert!(!stored.contains('\0'));
            assert_eq!(untext(stored.clone()), *value);
        }
        stored.sort();
        stored.dedup();
        assert_eq!(stored.len(), all.len());
    }
}
