//! The statements that change sessions, keys and cookie shapes. Each change of sessions or keys takes
//! the row of `meta` before any other, so that no two wait for each other. No transactions here.

use std::collections::{BTreeMap, HashSet};

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use super::batch::{Batch, Given, OFFSETS};
use super::rows::text;
use crate::keyring;
use crate::session::{Ceiling, Ending, Key, Session, SessionId, Timestamp, UserLimit};
use crate::store::{CookieShape, LATE_KEYS_MAX, StoreError};

/// Takes the row that every change waits for first: the other parts read what it returns.
const WRITE: &str = "WITH given AS ( \
        UPDATE headcount.meta SET login_seq = login_seq + $1, change_seq = change_seq + $2 \
        RETURNING login_seq - $1 AS logins, change_seq - $2 AS changes, \
            (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now \
    ), put AS ( \
        INSERT INTO headcount.sessions AS old (id, user_name, created_at, renewed_at, \
            last_seen_at, login_seq, change_seq, client_address, user_agent, ended_at, end_reason, \
            ended_by, by_session, would_end_at, would_end_reason, would_ended_by, \
            would_by_session, user_groups, changed_at) \
        SELECT id, user_name, created_at, renewed_at, last_seen_at, \
            CASE WHEN login_seq >= $26 THEN given.logins + (login_seq - $26) ELSE login_seq END, \
            given.changes + change_seq, client_address, user_agent, ended_at, end_reason, \
            ended_by, by_session, would_end_at, would_end_reason, would_ended_by, \
            would_by_session, user_groups, given.now \
        FROM given, unnest($3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], \
            $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[], $13::text[], \
            $14::text[], $15::bytea[], $16::bigint[], $17::text[], $18::text[], $19::bytea[], \
            $34::text[]) \
            AS t(id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq, \
            client_address, user_agent, ended_at, end_reason, ended_by, by_session, \
            would_end_at, would_end_reason, would_ended_by, would_by_session, user_groups) \
        ON CONFLICT (id) DO UPDATE SET user_name = excluded.user_name, \
            created_at = excluded.created_at, renewed_at = excluded.renewed_at, \
            last_seen_at = greatest(old.last_seen_at, excluded.last_seen_at), \
            login_seq = excluded.login_seq, change_seq = excluded.change_seq, \
            client_address = excluded.client_address, user_agent = excluded.user_agent, \
            ended_at = excluded.ended_at, end_reason = excluded.end_reason, \
            ended_by = excluded.ended_by, by_session = excluded.by_session, \
            would_end_at = excluded.would_end_at, would_end_reason = excluded.would_end_reason, \
            would_ended_by = excluded.would_ended_by, \
            would_by_session = excluded.would_by_session, \
            user_groups = excluded.user_groups, changed_at = excluded.changed_at \
            WHERE old.ended_at IS NULL \
        RETURNING id \
    ), put_keys AS ( \
        INSERT INTO headcount.session_keys (key, exact, session, key_use, since, change_seq) \
        SELECT key, exact, session, key_use, since, given.changes + change_seq FROM given, \
            unnest($20::bytea[], $21::bytea[], $22::bytea[], $23::text[], $24::bigint[], \
            $25::bigint[]) AS t(key, exact, session, key_use, since, change_seq) \
        ON CONFLICT (key) DO UPDATE SET exact = excluded.exact, session = excluded.session, \
            key_use = excluded.key_use, since = excluded.since, late = false, \
            change_seq = excluded.change_seq \
    ), put_limits AS ( \
        INSERT INTO headcount.user_limits (user_name, max_sessions, set_at, set_by, change_seq) \
        SELECT user_name, max_sessions, set_at, set_by, given.changes + change_seq FROM given, \
            unnest($29::text[], $30::bigint[], $31::bigint[], $32::text[], $33::bigint[]) \
            AS t(user_name, max_sessions, set_at, set_by, change_seq) \
        ON CONFLICT (user_name) DO UPDATE SET max_sessions = excluded.max_sessions, \
            set_at = excluded.set_at, set_by = excluded.set_by, change_seq = excluded.change_seq \
    ) SELECT logins, changes, pg_current_xact_id()::text, \
        (SELECT coalesce(array_agg(id), ARRAY[]::bytea[]) FROM put), pg_notify($27, $28) \
    FROM given";

/// Who is woken by a change, in the same database.
pub(super) const CHANNEL: &str = "headcount";

/// What a notice of ours says.
pub(super) fn notice(own: [u8; 8]) -> String {
    keyring::hex(&own)
}

/// Writes a batch in one statement. Returns what the database gave, and the transaction's id to ask
/// for its outcome. `own` tells our own notices from the others'.
pub(super) async fn batch(
    connection: &mut PgConnection,
    batch: &Batch,
    own: [u8; 8],
) -> Result<(Given, String), StoreError> {
    let sessions: Vec<&Session> = batch.sessions.values().collect();
    let keys: Vec<&(Key, i64)> = batch.keys.values().collect();
    let statement =
        statement(batch, &sessions, &keys).bind(OFFSETS).bind(CHANNEL).bind(notice(own));
    let groups: Vec<_> = sessions.iter().map(|session| session.groups.to_text()).collect();
    let groups: Vec<_> = groups.iter().map(|lines| lines.as_deref().map(text)).collect();
    let statement = bind_limits(statement, batch.limits.values()).bind(groups);
    let row = statement.fetch_one(connection).await?;
    let written: Vec<Vec<u8>> = row.try_get(3)?;
    let written = written.iter().filter_map(|id| SessionId::try_from(&**id).ok()).collect();
    let given = Given { login_seq: row.try_get(0)?, change_seq: row.try_get(1)?, written };
    Ok((given, row.try_get(2)?))
}

/// Everything as arrays.
fn statement<'q>(
    batch: &Batch,
    sessions: &[&Session],
    keys: &[&(Key, i64)],
) -> Query<'q, Postgres, PgArguments> {
    let each = Columns::of(sessions);
    sqlx::query(WRITE)
        .bind(batch.logins)
        .bind(batch.changes)
        .bind(each.ids)
        .bind(each.users)
        .bind(numbers(sessions, |session| session.created_at.0))
        .bind(numbers(sessions, |session| session.renewed_at.0))
        .bind(numbers(sessions, |session| session.last_seen_at.0))
        .bind(numbers(sessions, |session| session.login_seq))
        .bind(numbers(sessions, |session| session.change_seq))
        .bind(each.addresses)
        .bind(each.agents)
        .bind(each.end.at)
        .bind(each.end.reason)
        .bind(each.end.by)
        .bind(each.end.by_session)
        .bind(each.would_end.at)
        .bind(each.would_end.reason)
        .bind(each.would_end.by)
        .bind(each.would_end.by_session)
        .bind(keys.iter().map(|(key, _)| key.key.0.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(key, _)| key.exact.0.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(key, _)| key.session.0.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(key, _)| key.key_use.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(key, _)| key.since.0).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, seq)| *seq).collect::<Vec<_>>())
}

fn bind_limits<'q, 'a>(
    statement: Query<'q, Postgres, PgArguments>,
    limits: impl Iterator<Item = &'a (UserLimit, i64)> + Clone,
) -> Query<'q, Postgres, PgArguments> {
    let max = |limit: &UserLimit| match limit.ceiling {
        Ceiling::Configured => None,
        Ceiling::Unlimited => Some(0),
        Ceiling::Sessions(max) => Some(i64::from(max)),
    };
    statement
        .bind(limits.clone().map(|(limit, _)| text(&limit.user)).collect::<Vec<_>>())
        .bind(limits.clone().map(|(limit, _)| max(limit)).collect::<Vec<_>>())
        .bind(limits.clone().map(|(limit, _)| limit.set_at.0).collect::<Vec<_>>())
        .bind(limits.clone().map(|(limit, _)| text(&limit.set_by)).collect::<Vec<_>>())
        .bind(limits.map(|(_, seq)| *seq).collect::<Vec<_>>())
}

fn numbers(sessions: &[&Session], number: impl Fn(&Session) -> i64) -> Vec<i64> {
    sessions.iter().map(|session| number(session)).collect()
}

/// The columns of sessions, as arrays.
struct Columns {
    ids: Vec<Vec<u8>>,
    users: Vec<Option<String>>,
    addresses: Vec<Option<String>>,
    agents: Vec<Option<String>>,
    end: Endings,
    would_end: Endings,
}

#[derive(Default)]
struct Endings {
    at: Vec<Option<i64>>,
    reason: Vec<Option<&'static str>>,
    by: Vec<Option<String>>,
    by_session: Vec<Option<Vec<u8>>>,
}

impl Columns {
    fn of(sessions: &[&Session]) -> Self {
        let texts = |of: fn(&Session) -> Option<&str>| {
            sessions.iter().map(|session| of(session).map(text)).collect::<Vec<_>>()
        };
        Self {
            ids: sessions.iter().map(|session| session.id.0.to_vec()).collect(),
            users: texts(|session| session.user.as_deref()),
            addresses: texts(|session| session.client.address.as_deref()),
            agents: texts(|session| session.client.user_agent.as_deref()),
            end: Endings::of(sessions.iter().map(|session| session.end.as_ref())),
            would_end: Endings::of(sessions.iter().map(|session| session.would_end.as_ref())),
        }
    }
}

impl Endings {
    fn of<'a>(all: impl Iterator<Item = Option<&'a Ending>>) -> Self {
        let mut columns = Self::default();
        for ending in all {
            columns.at.push(ending.map(|ending| ending.at.0));
            columns.reason.push(ending.map(|ending| ending.reason.as_str()));
            columns.by.push(ending.and_then(|ending| ending.by.as_deref()).map(text));
            let by_session = ending.and_then(|ending| ending.by_session);
            columns.by_session.push(by_session.map(|id| id.0.to_vec()));
        }
        columns
    }
}

/// Last-seen times. Replicas learn of them too: they judge idle sessions by themselves.
pub(super) async fn touch_sessions(
    connection: &mut PgConnection,
    seen: &[(SessionId, Timestamp)],
) -> Result<(), StoreError> {
    const SEEN: &str = "WITH given AS (UPDATE headcount.meta SET change_seq = change_seq + 1 \
            RETURNING change_seq) \
        UPDATE headcount.sessions AS old SET last_seen_at = t.at, change_seq = given.change_seq \
        FROM given, unnest($1::bytea[], $2::bigint[]) AS t(id, at) \
        WHERE old.id = t.id AND old.ended_at IS NULL AND old.last_seen_at < t.at";
    // One row is changed once: of two times for it the later counts.
    let mut latest = BTreeMap::new();
    for (id, at) in seen {
        let known = latest.entry(*id).or_insert(*at);
        *known = (*known).max(*at);
    }
    let statement = sqlx::query(SEEN)
        .bind(latest.keys().map(|id| id.0.to_vec()).collect::<Vec<_>>())
        .bind(latest.values().map(|at| at.0).collect::<Vec<_>>());
    Ok(statement.execute(connection).await.map(drop)?)
}

/// A late key of a session that has ended meanwhile is kept: it must stay dead like the others.
pub(super) async fn add_late_keys(
    connection: &mut PgConnection,
    keys: &[Key],
) -> Result<(), StoreError> {
    const LATE_KEYS: &str = "WITH given AS (UPDATE headcount.meta SET change_seq = change_seq + 1 \
            RETURNING change_seq) \
        INSERT INTO headcount.session_keys \
            (key, exact, session, key_use, since, late, change_seq) \
        SELECT t.key, t.exact, t.session, t.key_use, t.since, true, given.change_seq \
        FROM given, unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[]) \
            AS t(key, exact, session, key_use, since) \
        JOIN headcount.sessions s ON s.id = t.session AND s.keyed ON CONFLICT (key) DO NOTHING";
    const OLDEST: &str = "DELETE FROM headcount.session_keys WHERE key IN (SELECT key FROM ( \
            SELECT key, row_number() OVER (PARTITION BY session ORDER BY since DESC, key) AS place \
            FROM headcount.session_keys WHERE session = ANY ($1::bytea[]) AND late \
        ) ranked WHERE place > $2)";
    let statement = sqlx::query(LATE_KEYS)
        .bind(keys.iter().map(|key| key.key.0.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.exact.0.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.session.0.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.key_use.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.since.0).collect::<Vec<_>>());
    statement.execute(&mut *connection).await?;
    let sessions: HashSet<Vec<u8>> = keys.iter().map(|key| key.session.0.to_vec()).collect();
    let oldest = sqlx::query(OLDEST).bind(sessions.into_iter().collect::<Vec<_>>());
    oldest.bind(i64::from(LATE_KEYS_MAX)).execute(connection).await?;
    Ok(())
}

pub(super) async fn remember_shape(
    connection: &mut PgConnection,
    shape: &CookieShape,
) -> Result<(), StoreError> {
    const PUT: &str = "INSERT INTO headcount.cookie_shapes (name, domain, path, attributes) \
        VALUES ($1, $2, $3, $4) \
        ON CONFLICT (name, domain, path) DO UPDATE SET attributes = excluded.attributes";
    let statement = sqlx::query(PUT)
        .bind(text(&shape.name))
        .bind(text(&shape.domain))
        .bind(text(&shape.path))
        .bind(text(&shape.attributes));
    Ok(statement.execute(connection).await.map(drop)?)
}

pub(super) async fn ping(connection: &mut PgConnection) -> Result<(), StoreError> {
    const PING: &str = "UPDATE headcount.pings SET pings = pings + 1";
    Ok(sqlx::query(PING).execute(connection).await.map(drop)?)
}
