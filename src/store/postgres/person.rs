//! What is kept of one person, to be told or to be forgotten. A session that must stay for its keys
//! stays without a name and a client.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::rows::{self, select_sessions, text};
use crate::session::{Session, User};
use crate::store::{Kept, StoreError};

/// Sessions told at once.
const PAGE_ROWS: i64 = 1000;
/// Sessions forgotten in one transaction: logins wait meanwhile.
const ROWS_MAX: i64 = 500;

pub(super) async fn kept_of(
    connection: &mut PgConnection,
    user: &User,
    after_login_seq: i64,
) -> Result<Vec<Kept>, StoreError> {
    const KEPT: &str = select_sessions!(
        ", hidden, (SELECT count(*) FROM headcount.session_keys WHERE session = sessions.id)",
        "headcount.sessions WHERE login_seq > $2 AND ((user_name = $1 AND ended_at IS NULL) \
         OR (user_name = $1 AND ended_at IS NOT NULL AND NOT hidden) \
         OR (user_name = $1 AND ended_at IS NOT NULL AND hidden)) ORDER BY login_seq LIMIT $3"
    );
    let kept = sqlx::query(KEPT).bind(text(user)).bind(after_login_seq).bind(PAGE_ROWS);
    let kept = kept.fetch_all(connection).await?;
    kept.iter()
        .map(|row| {
            let keys: i64 = row.try_get(19)?;
            Ok(Kept {
                session: rows::session_of(row)?,
                hidden: row.try_get(18)?,
                keys: u32::try_from(keys).unwrap_or(u32::MAX),
            })
        })
        .collect()
}

/// One step, inside a transaction: how many sessions it forgot, and those that stay, as they are now.
/// Holds the row that all changes wait for, like every change.
pub(super) async fn erase(
    connection: &mut PgConnection,
    user: &User,
) -> Result<(u64, Vec<Session>), StoreError> {
    const NUMBER: &str =
        "UPDATE headcount.meta SET change_seq = change_seq + 1 RETURNING change_seq";
    const GO: &str = "DELETE FROM headcount.sessions WHERE NOT keyed AND id IN ( \
        SELECT id FROM headcount.sessions WHERE user_name = $1 AND ended_at IS NOT NULL \
        AND NOT hidden AND NOT keyed LIMIT $2)";
    const STAY: &str = "UPDATE headcount.sessions SET user_name = NULL, client_address = NULL, \
        user_agent = NULL, user_groups = NULL, hidden = true, change_seq = $3 WHERE id IN ( \
        SELECT id FROM headcount.sessions WHERE user_name = $1 AND ended_at IS NOT NULL LIMIT $2) \
        RETURNING id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq, \
        client_address, user_agent, ended_at, end_reason, ended_by, by_session, \
        would_end_at, would_end_reason, would_ended_by, would_by_session, user_groups";
    let seq: i64 = sqlx::query(NUMBER).fetch_one(&mut *connection).await?.try_get(0)?;
    let go = sqlx::query(GO).bind(text(user)).bind(ROWS_MAX);
    let gone = go.execute(&mut *connection).await?.rows_affected();
    let stay = sqlx::query(STAY).bind(text(user)).bind(ROWS_MAX).bind(seq);
    let stay = stay.fetch_all(connection).await?;
    let stay = stay.iter().map(rows::session_of).collect::<Result<Vec<_>, _>>()?;
    Ok((gone + stay.len() as u64, stay))
}
