//! The statements on sessions, keys and cookie shapes, and how their rows are read.
//! No transactions here: every function runs inside the writer's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Connection, Row, Sqlite};

use super::writer::Sequences;
use crate::session::{
    Ceiling, Client, EndReason, Ending, Groups, Key, KeyUse, Session, SessionId, SessionKey,
    Timestamp, User, UserLimit,
};
use crate::store::{CookieShape, LATE_KEYS_MAX, Listing, Loaded, Scope, StoreError, Take};

/// A listing is one page; nobody reads more.
const LISTED_MAX: u32 = 1000;
/// Rows read at once while loading.
const PAGE_ROWS: i64 = 512;

pub(super) type Statement = Query<'static, Sqlite, SqliteArguments>;

/// The connection, counting what it runs.
pub(super) struct Database {
    connection: SqliteConnection,
    statements: Arc<AtomicU64>,
}

impl Database {
    pub(super) fn new(connection: SqliteConnection, statements: Arc<AtomicU64>) -> Self {
        Self { connection, statements }
    }

    pub(super) async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.execute(sqlx::query(statement)).await.map(drop)
    }

    /// Returns how many rows it changed.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, sqlx::Error> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        Ok(statement.execute(&mut self.connection).await?.rows_affected())
    }

    pub(super) async fn rows(
        &mut self,
        statement: Statement,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        statement.fetch_all(&mut self.connection).await
    }

    /// Merges the log into the file; whether that could not be done, and how many pages are left.
    pub(super) async fn checkpoint(&mut self) -> Result<(bool, i64), sqlx::Error> {
        let rows = self.rows(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok((row.try_get::<i64, _>(0)? != 0, row.try_get(1)?))
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

/// `SELECT` with the columns `session_of` reads, in its order, and perhaps more.
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
            " FROM sessions ",
            $rest
        )
    };
}

pub(super) use select_sessions;

/// In pages: a driver's row takes several times the memory of what is read from it.
pub(super) async fn load(database: &mut Database, mut take: Take) -> Result<(), StoreError> {
    const SESSIONS: &str = select_sessions!(
        "WHERE login_seq > $1 AND (ended_at IS NULL OR keyed = 1) ORDER BY login_seq LIMIT $2"
    );
    const KEYS: &str = "SELECT key, exact, session, key_use, since FROM session_keys \
        WHERE key > $1 ORDER BY key LIMIT $2";
    let mut after = i64::MIN;
    loop {
        let page = database.rows(sqlx::query(SESSIONS).bind(after).bind(PAGE_ROWS)).await?;
        let sessions = page.iter().map(session_of).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = sessions.last() else { break };
        after = last.login_seq;
        take(Loaded { sessions, ..Loaded::default() });
    }
    // Every key is longer, and so greater, than no bytes at all.
    let mut after = Vec::new();
    loop {
        let page = database.rows(sqlx::query(KEYS).bind(after).bind(PAGE_ROWS)).await?;
        let keys = page.iter().map(key_of).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = keys.last() else { break };
        after = last.key.0.to_vec();
        take(Loaded { keys, ..Loaded::default() });
    }
    let shapes = database
        .rows(sqlx::query("SELECT name, domain, path, attributes FROM cookie_shapes"))
        .await?
        .iter()
        .map(shape_of)
        .collect::<Result<Vec<_>, _>>()?;
    let limits = database
        .rows(sqlx::query("SELECT user_name, max_sessions, set_at, set_by FROM user_limits"))
        .await?
        .iter()
        .map(limit_of)
        .collect::<Result<Vec<_>, _>>()?;
    take(Loaded { shapes, limits, ..Loaded::default() });
    Ok(())
}

/// The live sessions in `scope`, by `login_seq`.
pub(super) async fn live(
    database: &mut Database,
    scope: &Scope,
) -> Result<Vec<Session>, StoreError> {
    const OF_USER: &str =
        select_sessions!("WHERE user_name = $1 AND ended_at IS NULL ORDER BY login_seq");
    const BY_ID: &str = select_sessions!("WHERE id = $1 AND ended_at IS NULL");
    let mut live = Vec::new();
    if let Some(user) = &scope.user {
        let rows = database.rows(sqlx::query(OF_USER).bind(user.to_string())).await?;
        live = rows.iter().map(session_of).collect::<Result<_, _>>()?;
    }
    for id in &scope.ids {
        if live.iter().any(|session: &Session| session.id == *id) {
            continue;
        }
        for row in database.rows(sqlx::query(BY_ID).bind(id.0.to_vec())).await? {
            live.push(session_of(&row)?);
        }
    }
    live.sort_by_key(|session| session.login_seq);
    Ok(live)
}

/// Writes the state of a session. `false`: it has ended already and stays as it is.
pub(super) async fn put_session(
    database: &mut Database,
    session: &Session,
) -> Result<bool, sqlx::Error> {
    const PUT: &str = "INSERT INTO sessions (id, user_name, created_at, renewed_at, last_seen_at, \
        login_seq, change_seq, client_address, user_agent, ended_at, end_reason, ended_by, \
        by_session, would_end_at, would_end_reason, would_ended_by, would_by_session, user_groups) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) \
        ON CONFLICT (id) DO UPDATE SET user_name = excluded.user_name, \
        created_at = excluded.created_at, renewed_at = excluded.renewed_at, \
        last_seen_at = excluded.last_seen_at, login_seq = excluded.login_seq, \
        change_seq = excluded.change_seq, client_address = excluded.client_address, \
        user_agent = excluded.user_agent, ended_at = excluded.ended_at, \
        end_reason = excluded.end_reason, ended_by = excluded.ended_by, \
        by_session = excluded.by_session, would_end_at = excluded.would_end_at, \
        would_end_reason = excluded.would_end_reason, would_ended_by = excluded.would_ended_by, \
        would_by_session = excluded.would_by_session, user_groups = excluded.user_groups \
        WHERE sessions.ended_at IS NULL";
    let statement = sqlx::query(PUT)
        .bind(session.id.0.to_vec())
        .bind(session.user.as_deref().map(str::to_owned))
        .bind(session.created_at.0)
        .bind(session.renewed_at.0)
        .bind(session.last_seen_at.0)
        .bind(session.login_seq)
        .bind(session.change_seq)
        .bind(session.client.address.clone())
        .bind(session.client.user_agent.clone());
    let statement = bind_ending(statement, session.end.as_ref());
    let statement = bind_ending(statement, session.would_end.as_ref());
    let statement = statement.bind(session.groups.to_text());
    Ok(database.execute(statement).await? > 0)
}

fn bind_ending(statement: Statement, ending: Option<&Ending>) -> Statement {
    statement
        .bind(ending.map(|ending| ending.at.0))
        .bind(ending.map(|ending| ending.reason.as_str()))
        .bind(ending.and_then(|ending| ending.by.clone()))
        .bind(ending.and_then(|ending| ending.by_session).map(|id| id.0.to_vec()))
}

pub(super) async fn put_key(database: &mut Database, key: &Key) -> Result<(), sqlx::Error> {
    const PUT: &str = "INSERT INTO session_keys (key, exact, session, key_use, since) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO UPDATE SET exact = excluded.exact, \
        session = excluded.session, key_use = excluded.key_use, since = excluded.since, late = 0";
    database.execute(bind_key(sqlx::query(PUT), key)).await.map(drop)
}

pub(super) async fn put_limit(
    database: &mut Database,
    limit: &UserLimit,
) -> Result<(), sqlx::Error> {
    const PUT: &str = "INSERT INTO user_limits (user_name, max_sessions, set_at, set_by) \
        VALUES ($1, $2, $3, $4) ON CONFLICT (user_name) DO UPDATE SET \
        max_sessions = excluded.max_sessions, set_at = excluded.set_at, set_by = excluded.set_by";
    const TAKE_BACK: &str = "DELETE FROM user_limits WHERE user_name = $1";
    let max = match limit.ceiling {
        Ceiling::Configured => None,
        Ceiling::Unlimited => Some(0),
        Ceiling::Sessions(max) => Some(i64::from(max)),
    };
    let statement = sqlx::query(if max.is_some() { PUT } else { TAKE_BACK });
    let mut statement = statement.bind(limit.user.to_string());
    if let Some(max) = max {
        statement = statement.bind(max).bind(limit.set_at.0).bind(limit.set_by.clone());
    }
    database.execute(statement).await.map(drop)
}

fn bind_key(statement: Statement, key: &Key) -> Statement {
    statement
        .bind(key.key.0.to_vec())
        .bind(key.exact.0.to_vec())
        .bind(key.session.0.to_vec())
        .bind(key.key_use.as_str())
        .bind(key.since.0)
}

/// A late key of a session that has ended meanwhile is kept: it must stay dead like the others.
pub(super) async fn touch(
    database: &mut Database,
    seen: &[(SessionId, Timestamp)],
    keys: &[Key],
) -> Result<(), StoreError> {
    const SEEN: &str = "UPDATE sessions SET last_seen_at = $2 \
        WHERE id = $1 AND ended_at IS NULL AND last_seen_at < $2";
    const LATE_KEY: &str = "INSERT INTO session_keys (key, exact, session, key_use, since, late) \
        SELECT $1, $2, $3, $4, $5, 1 WHERE EXISTS (SELECT 1 FROM sessions WHERE id = $3 AND keyed = 1) \
        ON CONFLICT (key) DO NOTHING";
    const OLDEST: &str = "DELETE FROM session_keys WHERE key IN (SELECT key FROM session_keys \
        WHERE session = $1 AND late = 1 ORDER BY since DESC, key LIMIT -1 OFFSET $2)";
    for (id, at) in seen {
        database.execute(sqlx::query(SEEN).bind(id.0.to_vec()).bind(at.0)).await?;
    }
    for key in keys {
        if database.execute(bind_key(sqlx::query(LATE_KEY), key)).await? > 0 {
            let oldest = sqlx::query(OLDEST).bind(key.session.0.to_vec());
            database.execute(oldest.bind(i64::from(LATE_KEYS_MAX))).await?;
        }
    }
    Ok(())
}

pub(super) async fn remember_shape(
    database: &mut Database,
    shape: &CookieShape,
) -> Result<(), StoreError> {
    const PUT: &str = "INSERT INTO cookie_shapes (name, domain, path, attributes) \
        VALUES ($1, $2, $3, $4) \
        ON CONFLICT (name, domain, path) DO UPDATE SET attributes = excluded.attributes";
    let statement = sqlx::query(PUT)
        .bind(shape.name.clone())
        .bind(shape.domain.clone())
        .bind(shape.path.clone())
        .bind(shape.attributes.clone());
    Ok(database.execute(statement).await.map(drop)?)
}

/// Two statements: with a user each half of the union reads one index in order.
pub(super) async fn list(
    database: &mut Database,
    listing: &Listing,
) -> Result<Vec<Session>, StoreError> {
    const ALL: &str = select_sessions!(
        "WHERE hidden = 0 AND ($1 IS NULL OR (ended_at IS NULL) = $1) AND login_seq < $2 \
         ORDER BY login_seq DESC LIMIT $3"
    );
    const OF_USER: &str = concat!(
        select_sessions!(
            "WHERE user_name = $4 AND ended_at IS NULL AND $1 IS NOT 0 AND login_seq < $2"
        ),
        " UNION ALL ",
        select_sessions!(
            "WHERE user_name = $4 AND ended_at IS NOT NULL AND hidden = 0 AND $1 IS NOT 1 \
             AND login_seq < $2 ORDER BY login_seq DESC LIMIT $3"
        )
    );
    let mut statement = sqlx::query(if listing.user.is_some() { OF_USER } else { ALL })
        .bind(listing.live.map(i64::from))
        .bind(listing.before_login_seq.unwrap_or(i64::MAX))
        .bind(i64::from(listing.count_max.min(LISTED_MAX)));
    if let Some(user) = &listing.user {
        statement = statement.bind(user.to_string());
    }
    database.rows(statement).await?.iter().map(session_of).collect()
}

pub(super) async fn find(
    database: &mut Database,
    id: SessionId,
) -> Result<Option<Session>, StoreError> {
    const BY_ID: &str = select_sessions!("WHERE id = $1 AND hidden = 0");
    let rows = database.rows(sqlx::query(BY_ID).bind(id.0.to_vec())).await?;
    rows.first().map(session_of).transpose()
}

/// A real write, so that a full disk is noticed.
pub(super) async fn ping(database: &mut Database) -> Result<(), StoreError> {
    Ok(database.run("UPDATE meta SET value = value + 1 WHERE name = 'pings'").await?)
}

pub(super) async fn sequences(database: &mut Database) -> Result<Sequences, StoreError> {
    const GIVEN: &str = "SELECT (SELECT value FROM meta WHERE name = 'login_seq'), \
        (SELECT value FROM meta WHERE name = 'change_seq')";
    let rows = database.rows(sqlx::query(GIVEN)).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Sequences { login: row.try_get(0)?, change: row.try_get(1)? })
}

pub(super) async fn keep_sequences(
    database: &mut Database,
    given: Sequences,
) -> Result<(), sqlx::Error> {
    const KEEP: &str = "UPDATE meta SET value = CASE name WHEN 'login_seq' THEN $1 ELSE $2 END \
        WHERE name IN ('login_seq', 'change_seq')";
    database.execute(sqlx::query(KEEP).bind(given.login).bind(given.change)).await.map(drop)
}

pub(super) fn session_of(row: &SqliteRow) -> Result<Session, StoreError> {
    let id = SessionId(bytes(row, 0)?);
    Ok(Session {
        id,
        user: row.try_get::<Option<&str>, _>(1)?.map(User::from),
        created_at: Timestamp(row.try_get(2)?),
        renewed_at: Timestamp(row.try_get(3)?),
        last_seen_at: Timestamp(row.try_get(4)?),
        login_seq: row.try_get(5)?,
        change_seq: row.try_get(6)?,
        client: Client { address: row.try_get(7)?, user_agent: row.try_get(8)? },
        groups: groups_of(row)?,
        end: ending_of(row, 9)?,
        would_end: ending_of(row, 13)?,
    })
}

fn groups_of(row: &SqliteRow) -> Result<Groups, sqlx::Error> {
    Ok(Groups::from_text(row.try_get(17)?))
}

/// The four columns of an ending, from `first` on.
fn ending_of(row: &SqliteRow, first: usize) -> Result<Option<Ending>, StoreError> {
    let Some(at) = row.try_get(first)? else { return Ok(None) };
    let name: &str = row.try_get(first + 1)?;
    let reason = EndReason::parse(name)
        .ok_or_else(|| StoreError::Corrupt(format!("unknown end reason {name:?}")))?;
    let by_session = match row.try_get::<Option<&[u8]>, _>(first + 3)? {
        Some(_) => Some(SessionId(bytes(row, first + 3)?)),
        None => None,
    };
    Ok(Some(Ending { at: Timestamp(at), reason, by: row.try_get(first + 2)?, by_session }))
}

fn key_of(row: &SqliteRow) -> Result<Key, StoreError> {
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

fn limit_of(row: &SqliteRow) -> Result<UserLimit, StoreError> {
    let max: i64 = row.try_get(1)?;
    let ceiling = match u32::try_from(max) {
        Ok(0) => Ceiling::Unlimited,
        Ok(max) => Ceiling::Sessions(max),
        Err(_) => return Err(StoreError::Corrupt(format!("a limit of {max} sessions"))),
    };
    Ok(UserLimit {
        user: row.try_get::<&str, _>(0)?.into(),
        ceiling,
        set_at: Timestamp(row.try_get(2)?),
        set_by: row.try_get(3)?,
    })
}

fn shape_of(row: &SqliteRow) -> Result<CookieShape, StoreError> {
    Ok(CookieShape {
        name: row.try_get(0)?,
        domain: row.try_get(1)?,
        path: row.try_get(2)?,
        attributes: row.try_get(3)?,
    })
}

/// Sixteen bytes of an id or key.
pub(super) fn bytes(row: &SqliteRow, column: usize) -> Result<[u8; 16], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| StoreError::Corrupt(format!("an id of {} bytes", bytes.len())))
}
