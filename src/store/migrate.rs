//! From one engine to the other: every row of an SQLite file into an empty PostgreSQL database, in one
//! transaction. Runs while no proxy does. Knows columns, not what they mean.

use std::fmt::Write as _;
use std::path::Path;

use sqlx::postgres::{PgConnection, PgCopyIn};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Row as _, TypeInfo as _, ValueRef as _};
use tokio_stream::StreamExt as _;

use super::postgres::{self, Options, Server};
use super::{StoreError, sqlite};

/// Bytes that travel to the server at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What is read of a table here, and written there: the columns of one in the order of the other.
struct Table {
    read: &'static str,
    write: &'static str,
    /// Both engines understand it; the answers are compared before the commit.
    compare: [&'static str; 2],
}

const TABLES: [Table; 4] = [
    Table {
        read: "SELECT id, user_name, created_at, renewed_at, last_seen_at, login_seq, change_seq, \
            client_address, user_agent, ended_at, end_reason, ended_by, by_session, would_end_at, \
            would_end_reason, would_ended_by, would_by_session, user_groups, keyed, hidden, \
            coalesce(ended_at, renewed_at) FROM sessions ORDER BY login_seq",
        write: "COPY headcount.sessions (id, user_name, created_at, renewed_at, last_seen_at, \
            login_seq, change_seq, client_address, user_agent, ended_at, end_reason, ended_by, \
            by_session, would_end_at, would_end_reason, would_ended_by, would_by_session, \
            user_groups, keyed, hidden, changed_at) FROM STDIN",
        compare: [
            "SELECT count(*), count(ended_at), coalesce(sum(login_seq % 1000003), 0) FROM sessions",
            "SELECT count(*), count(ended_at), coalesce(sum(login_seq % 1000003), 0)::bigint \
             FROM headcount.sessions",
        ],
    },
    Table {
        read: "SELECT key, exact, session, key_use, since, late, \
            (SELECT change_seq FROM sessions WHERE id = session) FROM session_keys",
        write: "COPY headcount.session_keys (key, exact, session, key_use, since, late, change_seq) \
            FROM STDIN",
        compare: [
            "SELECT count(*), count(DISTINCT session), coalesce(sum(since % 1000003), 0) \
             FROM session_keys",
            "SELECT count(*), count(DISTINCT session), coalesce(sum(since % 1000003), 0)::bigint \
             FROM headcount.session_keys",
        ],
    },
    Table {
        read: "SELECT name, domain, path, attributes FROM cookie_shapes",
        write: "COPY headcount.cookie_shapes (name, domain, path, attributes) FROM STDIN",
        compare: [
            "SELECT count(*), count(DISTINCT name), 0 FROM cookie_shapes",
            "SELECT count(*), count(DISTINCT name), 0::bigint FROM headcount.cookie_shapes",
        ],
    },
    Table {
        read: "SELECT user_name, max_sessions, set_at, set_by, \
            (SELECT value FROM meta WHERE name = 'change_seq') FROM user_limits",
        write: "COPY headcount.user_limits (user_name, max_sessions, set_at, set_by, change_seq) \
            FROM STDIN",
        compare: [
            "SELECT count(*), coalesce(sum(max_sessions), 0), coalesce(sum(set_at % 1000003), 0) \
             FROM user_limits",
            "SELECT count(*), coalesce(sum(max_sessions), 0)::bigint, \
             coalesce(sum(set_at % 1000003), 0)::bigint FROM headcount.user_limits",
        ],
    },
];

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub sessions: u64,
    pub keys: u64,
}

/// Copies the file `from` into the database, which must hold no session yet. The file stays as it is.
///
/// # Errors
///
/// As of opening either; [`StoreError::Open`] if the database is not empty or what arrived is not
/// what was sent. Nothing of it is in the database then.
pub async fn to_postgres(
    from: &Path,
    server: &Server,
    options: &Options,
) -> Result<Moved, StoreError> {
    let mut file = sqlite::take(from).await?;
    let mut database = postgres::prepared(server, options).await?;
    let moved = copy(&mut file, &mut database, server).await?;
    database.close().await?;
    file.close().await?;
    Ok(moved)
}

async fn copy(
    file: &mut SqliteConnection,
    database: &mut PgConnection,
    server: &Server,
) -> Result<Moved, StoreError> {
    const TAKE: &str = "UPDATE headcount.meta SET login_seq = $1, change_seq = $2 \
        WHERE NOT EXISTS (SELECT FROM headcount.sessions)";
    let refused = |why: &str| StoreError::Open(format!("cannot copy to {server}: {why}"));
    let mut change = database.begin().await?;
    let [logins, changes] = [counter(file, "login_seq").await?, counter(file, "change_seq").await?];
    let taken = sqlx::query(TAKE).bind(logins).bind(changes).execute(&mut *change).await?;
    if taken.rows_affected() == 0 {
        return Err(refused("it holds sessions already; an empty database is needed"));
    }
    let mut counts = [0; TABLES.len()];
    for (table, count) in TABLES.iter().zip(&mut counts) {
        *count = copy_table(table, file, &mut change).await?;
        let sent = sqlx::query(table.compare[0]).fetch_one(&mut *file).await?;
        let come = sqlx::query(table.compare[1]).fetch_one(&mut *change).await?;
        for column in 0..3 {
            if sent.try_get::<i64, _>(column)? != come.try_get::<i64, _>(column)? {
                return Err(refused("what arrived is not what was sent"));
            }
        }
    }
    change.commit().await?;
    Ok(Moved { sessions: counts[0], keys: counts[1] })
}

async fn counter(file: &mut SqliteConnection, name: &str) -> Result<i64, StoreError> {
    const VALUE: &str = "SELECT value FROM meta WHERE name = $1";
    Ok(sqlx::query_scalar(VALUE).bind(name).fetch_one(file).await?)
}

async fn copy_table(
    table: &Table,
    file: &mut SqliteConnection,
    database: &mut PgConnection,
) -> Result<u64, StoreError> {
    let mut there: PgCopyIn<&mut PgConnection> = database.copy_in_raw(table.write).await?;
    let mut piece = String::new();
    let sent = async {
        let mut rows = sqlx::query(table.read).fetch(file);
        while let Some(row) = rows.next().await {
            write_row(&mut piece, &row?)?;
            if piece.len() >= PIECE_BYTES {
                there.send(std::mem::take(&mut piece).into_bytes()).await?;
            }
        }
        there.send(piece.into_bytes()).await?;
        Ok::<(), StoreError>(())
    };
    if let Err(error) = sent.await {
        there.abort("the file cannot be read").await?;
        return Err(error);
    }
    Ok(there.finish().await?)
}

/// A line of COPY's text format, whatever the columns are.
fn write_row(line: &mut String, row: &SqliteRow) -> Result<(), StoreError> {
    for column in 0..row.len() {
        if column > 0 {
            line.push('\t');
        }
        let value = row.try_get_raw(column)?;
        if value.is_null() {
            line.push_str("\\N");
            continue;
        }
        // Writing to a string cannot fail.
        match value.type_info().name() {
            "INTEGER" => drop(write!(line, "{}", row.try_get::<i64, _>(column)?)),
            "BLOB" => {
                line.push_str("\\\\x");
                for byte in row.try_get::<&[u8], _>(column)? {
                    let _ = write!(line, "{byte:02x}");
                }
            }
            _ => escape(line, &postgres::text(row.try_get(column)?)),
        }
    }
    line.push('\n');
    Ok(())
}

fn escape(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            other => line.push(other),
        }
    }
}
