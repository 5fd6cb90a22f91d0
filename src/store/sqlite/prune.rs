//! Forgetting: keys after their tombstone time, history by age and per user. In small steps, since
//! logins wait meanwhile. A row outlives its history while it has keys, hidden and without client.

use sqlx::Row;

use super::rows::{self, Database};
use crate::session::{SessionKey, Timestamp};
use crate::store::{Retention, StoreError};

/// Rows each step changes, and users looked at, per call.
const ROWS_MAX: i64 = 500;

/// Where the walk through the users goes on.
#[derive(Default)]
pub(super) struct Cursor {
    after_user: String,
}

/// One step of everything; returns the keys dropped.
pub(super) async fn prune(
    database: &mut Database,
    cursor: &mut Cursor,
    now: Timestamp,
    retention: Retention,
) -> Result<Vec<SessionKey>, StoreError> {
    let keys_until = now.plus_ms(-retention.tombstones_ms);
    let history_until = now.plus_ms(-retention.history_ms);
    let mut dropped = drop_keys(database, keys_until).await?;
    dropped.extend(drop_would_ended(database, keys_until.min(history_until)).await?);
    hide_old(database, history_until).await?;
    hide_excess(database, cursor, retention.history_per_user).await?;
    drop_spent(database).await?;
    Ok(dropped)
}

async fn drop_keys(
    database: &mut Database,
    until: Timestamp,
) -> Result<Vec<SessionKey>, StoreError> {
    const KEYS: &str = "DELETE FROM session_keys WHERE session IN (SELECT id FROM sessions \
        WHERE ended_at IS NOT NULL AND ended_at <= $1 AND keyed = 1 ORDER BY ended_at, id LIMIT $2) \
        RETURNING key";
    const SESSIONS: &str = "UPDATE sessions SET keyed = 0 WHERE id IN (SELECT id FROM sessions \
        WHERE ended_at IS NOT NULL AND ended_at <= $1 AND keyed = 1 ORDER BY ended_at, id LIMIT $2)";
    let keys = dropped(database, KEYS, until).await?;
    database.execute(sqlx::query(SESSIONS).bind(until.0).bind(ROWS_MAX)).await?;
    Ok(keys)
}

/// What observe mode considers ended goes on being used perhaps; it goes when it is not.
async fn drop_would_ended(
    database: &mut Database,
    until: Timestamp,
) -> Result<Vec<SessionKey>, StoreError> {
    const KEYS: &str = "DELETE FROM session_keys WHERE session IN (SELECT id FROM sessions \
        WHERE ended_at IS NULL AND would_end_at IS NOT NULL AND would_end_at <= $1 \
        AND last_seen_at <= $1 ORDER BY would_end_at, id LIMIT $2) RETURNING key";
    const SESSIONS: &str = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions \
        WHERE ended_at IS NULL AND would_end_at IS NOT NULL AND would_end_at <= $1 \
        AND last_seen_at <= $1 ORDER BY would_end_at, id LIMIT $2)";
    let keys = dropped(database, KEYS, until).await?;
    database.execute(sqlx::query(SESSIONS).bind(until.0).bind(ROWS_MAX)).await?;
    Ok(keys)
}

async fn dropped(
    database: &mut Database,
    statement: &'static str,
    until: Timestamp,
) -> Result<Vec<SessionKey>, StoreError> {
    let rows = database.rows(sqlx::query(statement).bind(until.0).bind(ROWS_MAX)).await?;
    rows.iter().map(|row| rows::bytes(row, 0).map(SessionKey)).collect()
}

async fn hide_old(database: &mut Database, until: Timestamp) -> Result<(), StoreError> {
    const HIDE: &str = "UPDATE sessions SET hidden = 1, client_address = NULL, user_agent = NULL, \
        user_groups = NULL \
        WHERE id IN (SELECT id FROM sessions WHERE ended_at IS NOT NULL AND ended_at <= $1 \
        AND hidden = 0 ORDER BY ended_at LIMIT $2)";
    database.execute(sqlx::query(HIDE).bind(until.0).bind(ROWS_MAX)).await?;
    Ok(())
}

/// Sessions without a user belong to nobody, so only their age counts.
async fn hide_excess(
    database: &mut Database,
    cursor: &mut Cursor,
    kept: u32,
) -> Result<(), StoreError> {
    const USERS: &str = "SELECT user_name, count(*) FROM sessions WHERE ended_at IS NOT NULL \
        AND hidden = 0 AND user_name > $1 GROUP BY user_name ORDER BY user_name LIMIT $2";
    const HIDE: &str = "UPDATE sessions SET hidden = 1, client_address = NULL, user_agent = NULL, \
        user_groups = NULL \
        WHERE id IN (SELECT id FROM sessions WHERE user_name = $1 AND ended_at IS NOT NULL \
        AND hidden = 0 ORDER BY login_seq DESC LIMIT $2 OFFSET $3)";
    let users = sqlx::query(USERS).bind(cursor.after_user.clone()).bind(ROWS_MAX);
    let users = database.rows(users).await?;
    let mut left = ROWS_MAX;
    let mut walked_all = i64::try_from(users.len()).is_ok_and(|users| users < ROWS_MAX);
    for row in users {
        let user: String = row.try_get(0)?;
        let count: i64 = row.try_get(1)?;
        if count > i64::from(kept) {
            let hide = sqlx::query(HIDE).bind(user.clone()).bind(left).bind(i64::from(kept));
            left -= i64::try_from(database.execute(hide).await?).unwrap_or(left);
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

async fn drop_spent(database: &mut Database) -> Result<(), StoreError> {
    const SPENT: &str = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions \
        WHERE hidden = 1 AND keyed = 0 ORDER BY id LIMIT $1)";
    database.execute(sqlx::query(SPENT).bind(ROWS_MAX)).await?;
    Ok(())
}
