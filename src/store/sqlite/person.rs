//! What is kept of one person, to be told or to be forgotten. A session that must stay for its keys
//! stays without a name and a client.

use sqlx::Row;

use super::rows::{self, Database, select_sessions};
use crate::session::{Session, User};
use crate::store::{Kept, StoreError};

/// Sessions told at once.
const PAGE_ROWS: i64 = 1000;
/// Sessions forgotten in one transaction: logins wait meanwhile.
const ROWS_MAX: i64 = 500;

pub(super) async fn kept_of(
    database: &mut Database,
    user: &User,
    after_login_seq: i64,
) -> Result<Vec<Kept>, StoreError> {
    const KEPT: &str = concat!(
        select_sessions!(
            ", hidden, (SELECT count(*) FROM session_keys WHERE session = sessions.id)",
            "WHERE user_name = $1 AND ended_at IS NULL AND login_seq > $2"
        ),
        " UNION ALL ",
        select_sessions!(
            ", hidden, (SELECT count(*) FROM session_keys WHERE session = sessions.id)",
            "WHERE user_name = $1 AND ended_at IS NOT NULL AND hidden = 0 AND login_seq > $2"
        ),
        " UNION ALL ",
        select_sessions!(
            ", hidden, (SELECT count(*) FROM session_keys WHERE session = sessions.id)",
            "WHERE user_name = $1 AND ended_at IS NOT NULL AND hidden = 1 AND login_seq > $2 \
             ORDER BY login_seq LIMIT $3"
        )
    );
    let kept = sqlx::query(KEPT).bind(user.to_string()).bind(after_login_seq).bind(PAGE_ROWS);
    let kept = database.rows(kept).await?;
    kept.iter()
        .map(|row| {
            let keys: i64 = row.try_get(19)?;
            Ok(Kept {
                session: rows::session_of(row)?,
                hidden: row.try_get::<i64, _>(18)? != 0,
                keys: u32::try_from(keys).unwrap_or(u32::MAX),
            })
        })
        .collect()
}

/// One step under the change `change_seq`: how many sessions it forgot, and those that stay, as they
/// are now.
pub(super) async fn erase(
    database: &mut Database,
    user: &User,
    change_seq: i64,
) -> Result<(u64, Vec<Session>), StoreError> {
    const GO: &str = "DELETE FROM sessions WHERE keyed = 0 AND id IN ( \
        SELECT id FROM sessions WHERE user_name = $1 AND ended_at IS NOT NULL AND hidden = 0 \
        UNION ALL \
        SELECT id FROM sessions WHERE user_name = $1 AND ended_at IS NOT NULL AND hidden = 1 LIMIT $2)";
    const STAY: &str = "UPDATE sessions SET user_name = NULL, client_address = NULL, \
        user_agent = NULL, user_groups = NULL, hidden = 1, change_seq = $3 WHERE id IN ( \
        SELECT id FROM sessions WHERE user_name = $1 AND ended_at IS NOT NULL AND hidden = 0 \
        UNION ALL \
        SELECT id FROM sessions WHERE user_name = $1 AND ended_at IS NOT NULL AND hidden = 1 LIMIT $2) \
        RETURNING id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq, \
        client_address, user_agent, ended_at, end_reason, ended_by, by_session, \
        would_end_at, would_end_reason, would_ended_by, would_by_session, user_groups";
    let go = sqlx::query(GO).bind(user.to_string()).bind(ROWS_MAX);
    let gone = database.execute(go).await?;
    let stay = sqlx::query(STAY).bind(user.to_string()).bind(ROWS_MAX).bind(change_seq);
    let stay = database.rows(stay).await?;
    let stay = stay.iter().map(rows::session_of).collect::<Result<Vec<_>, _>>()?;
    Ok((gone + stay.len() as u64, stay))
}
