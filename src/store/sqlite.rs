//! The SQLite store: opening the file, and the handle whose calls travel to the writer.
//! The writer is in `sqlite/writer.rs`, statements and row mapping in `sqlite/{rows,prune}.rs`.

pub mod backup;
mod person;
mod place;
mod prune;
mod rows;
mod writer;

use std::borrow::Cow;
use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions, SqlSafeStr};
use tokio::sync::{mpsc, oneshot};

use crate::session::{Key, Session, SessionId, SessionKey, Timestamp, User};
use crate::store::{
    Backup, CookieShape, Decide, Decision, Feed, Kept, KeyChecks, Listing, Retention, Scope, Store,
    StoreError, Take,
};
use backup::Freezer;
use place::Place;
use rows::Database;
use writer::{Command, Reply, Writer};

/// Calls waiting for the writer; beyond that callers wait, up to their timeout.
const COMMANDS_MAX: usize = 1024;
/// Files up to so many pages (32 MiB) are checked at start; it takes about a second per GiB.
const CHECKED_PAGES_MAX: i64 = 8192;

const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "create sessions", include_str!("../../migrations/sqlite/0001_create_sessions.sql")),
    (2, "create user limits", include_str!("../../migrations/sqlite/0002_create_user_limits.sql")),
    (
        3,
        "find hidden of user",
        include_str!("../../migrations/sqlite/0003_find_hidden_of_user.sql"),
    ),
    (
        4,
        "end for changed clients",
        include_str!("../../migrations/sqlite/0004_end_for_changed_clients.sql"),
    ),
    (5, "add groups", include_str!("../../migrations/sqlite/0005_add_groups.sql")),
];

/// Opens or creates the store at `path` and starts its writer on the current runtime. A call waits
/// `timeout_ms` at most; every commit is told to `feed`.
///
/// # Errors
///
/// [`StoreError::Locked`] if another process has the file, [`StoreError::Open`] if it cannot be
/// opened, [`StoreError::Corrupt`] if it is damaged.
pub async fn open(
    path: &Path,
    timeout_ms: u64,
    feed: Arc<dyn Feed>,
) -> Result<Arc<dyn Store>, StoreError> {
    create_private(path).map_err(|error| unusable(path, &error))?;
    Ok(Arc::new(start(take(path).await?, path, timeout_ms, feed).await?))
}

/// The file, ours alone, whole and up to date.
pub(super) async fn take(path: &Path) -> Result<SqliteConnection, StoreError> {
    let mut connection = connect(path).await.map_err(|error| opening(path, &error))?;
    take_lock(&mut connection).await.map_err(|error| opening(path, &error))?;
    migrate(&mut connection).await.map_err(|error| unusable(path, &error))?;
    check_integrity(&mut connection).await?;
    Ok(connection)
}

async fn start(
    connection: SqliteConnection,
    path: &Path,
    timeout_ms: u64,
    feed: Arc<dyn Feed>,
) -> Result<SqliteStore, StoreError> {
    let statements = Arc::new(AtomicU64::new(0));
    let database = Database::new(connection, Arc::clone(&statements));
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    let place = Place::of(path).map_err(|error| unusable(path, &error))?;
    let writer = Writer::new(database, place, feed, queue, Freezer::new(path)).await?;
    tokio::spawn(writer.run());
    Ok(SqliteStore { commands, timeout_ms, statements })
}

/// Creates the file readable by its owner only; its WAL inherits that. The file is never opened
/// for this when it exists: closing it again would drop the locks this process holds on it.
fn create_private(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .locking_mode(SqliteLockingMode::Exclusive)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What is pruned is overwritten, not only unlinked.
        .pragma("secure_delete", "ON")
        // Nobody else may have the file, so there is nobody to wait for.
        .busy_timeout(Duration::ZERO)
        // The load reads everything; small buffers would switch threads for every few rows.
        .row_buffer_size(2048)
        .disable_statement_logging()
        .connect()
        .await
}

/// In exclusive mode the first transaction takes the lock and it stays until the file is closed.
async fn take_lock(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    for statement in ["BEGIN IMMEDIATE", "COMMIT"] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), sqlx::migrate::MigrateError> {
    let migrations = MIGRATIONS.map(|(version, description, sql)| {
        let description = Cow::Borrowed(description);
        Migration::new(version, description, MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.into()).run(connection).await
}

async fn check_integrity(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await?;
    if pages > CHECKED_PAGES_MAX {
        return Ok(());
    }
    let found: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Corrupt(found)) }
}

fn opening(path: &Path, error: &sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    // SQLITE_BUSY, SQLITE_LOCKED; SQLITE_CORRUPT, SQLITE_NOTADB.
    match code {
        Some(5 | 6) => StoreError::Locked(path.display().to_string()),
        Some(11 | 26) => StoreError::Corrupt(error.to_string()),
        _ => unusable(path, error),
    }
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> StoreError {
    StoreError::Open(format!("cannot use the store {}: {error}", path.display()))
}

/// The calls. Dropping one half way changes nothing once the writer has it.
struct SqliteStore {
    commands: mpsc::Sender<Command>,
    timeout_ms: u64,
    statements: Arc<AtomicU64>,
}

impl SqliteStore {
    /// On [`StoreError::Timeout`] the command may still complete; the feed hears of it then.
    async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let answer = self.ask(command);
        tokio::time::timeout(Duration::from_millis(self.timeout_ms), answer)
            .await
            .unwrap_or(Err(StoreError::Timeout(self.timeout_ms)))
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Stopped)?;
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }
}

#[async_trait]
impl Store for SqliteStore {
    /// Not bounded by the timeout: it runs once, before anybody waits.
    async fn load_pages(&self, take: Take) -> Result<(), StoreError> {
        self.ask(|reply| Command::Load(take, reply)).await
    }

    async fn transact(&self, scope: Scope, decide: Decide) -> Result<Decision, StoreError> {
        self.call(|reply| Command::Transact(scope, decide, reply)).await
    }

    async fn touch(
        &self,
        seen: Vec<(SessionId, Timestamp)>,
        keys: Vec<Key>,
    ) -> Result<(), StoreError> {
        self.call(|reply| Command::Touch(seen, keys, reply)).await
    }

    async fn remember_shape(&self, shape: CookieShape) -> Result<(), StoreError> {
        self.call(|reply| Command::RememberShape(shape, reply)).await
    }

    async fn list(&self, listing: Listing) -> Result<Vec<Session>, StoreError> {
        self.call(|reply| Command::List(listing, reply)).await
    }

    async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.call(|reply| Command::Find(id, reply)).await
    }

    async fn prune(
        &self,
        now: Timestamp,
        retention: Retention,
    ) -> Result<Vec<SessionKey>, StoreError> {
        self.call(|reply| Command::Prune(now, retention, reply)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.call(Command::Ping).await
    }

    async fn kept_of(&self, user: &User, after_login_seq: i64) -> Result<Vec<Kept>, StoreError> {
        self.call(|reply| Command::KeptOf(user.clone(), after_login_seq, reply)).await
    }

    async fn erase(&self, user: &User) -> Result<u64, StoreError> {
        self.call(|reply| Command::Erase(user.clone(), reply)).await
    }

    /// There are no others who could have another one.
    async fn use_key(&self, _: &KeyChecks) -> Result<(), StoreError> {
        Ok(())
    }

    async fn backup(&self) -> Result<Backup, StoreError> {
        Ok(backup::read(self.call(Command::Freeze).await?))
    }

    async fn stopped(&self) {
        self.commands.closed().await;
    }

    fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    async fn close(&self) {
        // `Stopped` means that it is closed already.
        let _ = self.ask(Command::Close).await;
    }
}

#[cfg(test)]
mod tests;
