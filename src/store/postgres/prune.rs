//! Forgetting: keys after their tombstone time, history by age and per user. In small steps, one
//! replica at a time. A row outlives its history while it has keys, hidden and without client.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::rows;
use crate::session::{SessionKey, Timestamp};
use crate::store::{Retention, StoreError};

/// Rows each step changes, and users looked at, per call.
const ROWS_MAX: i64 = 500;

const HOUR_MS: i64 = 3_600_000;

/// Where the walk through the users goes on.
#[derive(Default)]
pub(super) struct Cursor {
    after_user: String,
}

/// One step of everything, inside a transaction; returns the keys dropped. None while another
/// replica is at it. Holds the row that all changes wait for, like every change.
pub(super) async fn prune(
    connection: &mut PgConnection,
    cursor: &mut Cursor,
    now: Timestamp,
    retention: Retention,
) -> Result<Vec<SessionKey>, StoreError> {
    const TURN: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('prune', 4865616464))";
    const NUMBER: &str =
        "UPDATE headcount.meta SET change_seq = change_seq + 1 RETURNING change_seq";
    const FORGET_DROPPED: &str =
        "DELETE FROM headcount.dropped_keys WHERE dropped_at < now() - interval '1 hour'";
    const SPENT: &str = "DELETE FROM headcount.sessions WHERE id IN (SELECT id FROM headcount.sessions \
        WHERE hidden AND NOT keyed ORDER BY id LIMIT $1)";
    const HIDE: &str = "UPDATE headcount.sessions SET hidden = true, client_address = NULL, \
        user_agent = NULL, user_groups = NULL WHERE id IN (SELECT id FROM headcount.sessions WHERE ended_at IS NOT NULL \
        AND ended_at <= $1 AND NOT hidden ORDER BY ended_at LIMIT $2)";
    // All replicas have heard of it.
    const FORGET_LIMITS: &str = "DELETE FROM headcount.user_limits WHERE max_sessions IS NULL \
        AND set_at < $1";
    let ours: bool = sqlx::query(TURN).fetch_one(&mut *connection).await?.try_get(0)?;
    if !ours {
        return Ok(Vec::new());
    }
    let seq = sqlx::query(NUMBER).fetch_one(&mut *connection).await?.try_get(0)?;
    let keys_until = now.plus_ms(-retention.tombstones_ms);
    let history_until = now.plus_ms(-retention.history_ms);
    let mut dropped = drop_keys(connection, seq, keys_until).await?;
    dropped.extend(drop_would_ended(connection, seq, keys_until.min(history_until)).await?);
    let hide = sqlx::query(HIDE).bind(history_until.0).bind(ROWS_MAX);
    hide.execute(&mut *connection).await?;
    hide_excess(connection, cursor, retention.history_per_user).await?;
    sqlx::query(SPENT).bind(ROWS_MAX).execute(&mut *connection).await?;
    sqlx::query(FORGET_DROPPED).execute(&mut *connection).await?;
    let hour_ago = now.plus_ms(-HOUR_MS);
    sqlx::query(FORGET_LIMITS).bind(hour_ago.0).execute(&mut *connection).await?;
    Ok(dropped)
}

async fn drop_keys(
    connection: &mut PgConnection,
    seq: i64,
    until: Timestamp,
) -> Result<Vec<SessionKey>, StoreError> {
    const DROP: &str = "WITH gone AS (SELECT id FROM headcount.sessions WHERE ended_at IS NOT NULL \
            AND ended_at <= $1 AND keyed ORDER BY ended_at, id LIMIT $2), \
        unkeyed AS (UPDATE headcount.sessions SET keyed = false WHERE id IN (SELECT id FROM gone)), \
        keys AS (DELETE FROM headcount.session_keys WHERE session IN (SELECT id FROM gone) RETURNING key) \
        INSERT INTO headcount.dropped_keys (key, change_seq) SELECT key, $3 FROM keys RETURNING key";
    dropped(connection, DROP, seq, until).await
}

/// What observe mode considers ended goes on being used perhaps; it goes when it is not.
async fn drop_would_ended(
    connection: &mut PgConnection,
    seq: i64,
    until: Timestamp,
) -> Result<Vec<SessionKey>, StoreError> {
    // The sessions go in a statement of their own: their keys would go with them unnoticed.
    const KEYS: &str = "WITH keys AS (DELETE FROM headcount.session_keys WHERE session IN ( \
            SELECT id FROM headcount.sessions WHERE ended_at IS NULL AND would_end_at IS NOT NULL \
            AND would_end_at <= $1 AND last_seen_at <= $1 ORDER BY would_end_at, id LIMIT $2) \
            RETURNING key) \
        INSERT INTO headcount.dropped_keys (key, change_seq) SELECT key, $3 FROM keys RETURNING key";
    const SESSIONS: &str = "DELETE FROM headcount.sessions WHERE id IN (SELECT id FROM headcount.sessions \
        WHERE ended_at IS NULL AND would_end_at IS NOT NULL AND would_end_at <= $1 \
        AND last_seen_at <= $1 ORDER BY would_end_at, id LIMIT $2) \
        AND NOT EXISTS (SELECT 1 FROM headcount.session_keys WHERE session = sessions.id)";
    let keys = dropped(connection, KEYS, seq, until).await?;
    sqlx::query(SESSIONS).bind(until.0).bind(ROWS_MAX).execute(connection).await?;
    Ok(keys)
}

async fn dropped(
    connection: &mut PgConnection,
    statement: &'static str,
    seq: i64,
    until: Timestamp,
) -> Result<Vec<SessionKey>, StoreError> {
    let rows = sqlx::query(statement).bind(until.0).bind(ROWS_MAX).bind(seq);
    let rows = rows.fetch_all(connection).await?;
    rows.iter().map(|row| rows::bytes(row, 0).map(SessionKey)).collect()
}

/// Sessions without a user belong to nobody, so only their age counts.
async fn hide_excess(
    connection: &mut PgConnection,
    cursor: &mut Cursor,
    kept: u32,
) -> Result<(), StoreError> {
    const USERS: &str = "SELECT user_name, count(*) FROM headcount.sessions WHERE ended_at IS NOT NULL \
        AND NOT hidden AND user_name > $1 GROUP BY user_name ORDER BY user_name LIMIT $2";
    const HIDE: &str = "UPDATE headcount.sessions SET hidden = true, client_address = NULL, \
        user_agent = NULL, user_groups = NULL WHERE id IN (SELECT id FROM headcount.sessions WHERE user_name = $1 \
        AND ended_at IS NOT NULL AND NOT hidden ORDER BY login_seq DESC LIMIT $2 OFFSET $3)";
    let users = sqlx::query(USERS).bind(cursor.after_user.clone()).bind(ROWS_MAX);
    let users = users.fetch_all(&mut *connection).await?;
    let mut left = ROWS_MAX;
    let mut walked_all = i64::try_from(users.len()).is_ok_and(|users| users < ROWS_MAX);
    for row in users {
        let user: String = row.try_get(0)?;
        let count: i64 = row.try_get(1)?;
        if count > i64::from(kept) {
            let hide = sqlx::query(HIDE).bind(user.clone()).bind(left).bind(i64::from(kept));
            let hidden = hide.execute(&mut *connection).await?.rows_affected();
            left -= i64::try_from(hidden).unwrap_or(left);
            if left <= 0 {
                // This user may have more: the next call begins with the one before it.
                walked_all = false;
                break;
            }
        }
        cursor.after_user = user;
    }
    if walked_all {
        cursor.after_user.clear();
    }
    Ok(())
}
