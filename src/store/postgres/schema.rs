//! The schema: making it, bringing it up to date, and finding out whether a database can be used.
//! Runs once, before anything else; no statements on sessions.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Row, SqlSafeStr};

use super::{Options, Server};
use crate::store::{KeyChecks, StoreError};

/// Before it `xid8` does not exist.
const VERSION_MIN: i32 = 130_000;

const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "create sessions", include_str!("../../../migrations/postgres/0001_create_sessions.sql")),
    (
        2,
        "create user limits",
        include_str!("../../../migrations/postgres/0002_create_user_limits.sql"),
    ),
    (
        3,
        "find hidden of user",
        include_str!("../../../migrations/postgres/0003_find_hidden_of_user.sql"),
    ),
    (
        4,
        "end for changed clients",
        include_str!("../../../migrations/postgres/0004_end_for_changed_clients.sql"),
    ),
    (5, "add groups", include_str!("../../../migrations/postgres/0005_add_groups.sql")),
];

/// Makes the schema or brings it up to date, and finds out whether it is ours. Returns the connection
/// that did it.
pub(super) async fn prepare(
    server: &Server,
    connect: &PgConnectOptions,
    options: &Options,
) -> Result<PgConnection, StoreError> {
    const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('prepare', 4865616464))";
    const UNLOCK: &str = "SELECT pg_advisory_unlock(hashtextextended('prepare', 4865616464))";
    let failed = |error: sqlx::Error| unusable(server, &error);
    let patience = Duration::from_millis(options.timeout_ms.max(5_000));
    let connected = tokio::time::timeout(patience, connect.connect()).await;
    let mut connection = connected
        .map_err(|_| StoreError::Open(format!("{server} does not answer within {patience:?}")))?
        .map_err(failed)?;
    check_server(server, &mut connection).await?;
    sqlx::query(LOCK).execute(&mut connection).await.map_err(failed)?;
    create_schema(&mut connection).await.map_err(failed)?;
    migrate(&mut connection).await.map_err(|error| unusable(server, &error))?;
    check_deployment(server, &mut connection, options).await?;
    sqlx::query(UNLOCK).execute(&mut connection).await.map_err(failed)?;
    Ok(connection)
}

async fn check_server(server: &Server, connection: &mut PgConnection) -> Result<(), StoreError> {
    const SETTINGS: &str = "SELECT current_setting('server_version_num')::int, \
        current_setting('server_encoding'), current_setting('synchronous_commit')";
    let row = sqlx::query(SETTINGS).fetch_one(connection).await;
    let row = row.map_err(|error| unusable(server, &error))?;
    let (encoding, commit): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    let why = if row.try_get::<i32, _>(0)? < VERSION_MIN {
        "it is older than PostgreSQL 13"
    } else if encoding != "UTF8" {
        "the database's encoding is not UTF8"
    } else if commit == "off" {
        "synchronous_commit is off: it would forget logins that were acknowledged"
    } else {
        return Ok(());
    };
    Err(StoreError::Open(format!("cannot use {server}: {why}")))
}

/// Asks first: whoever may not create one may still use it.
async fn create_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let known = "SELECT to_regnamespace('headcount') IS NOT NULL";
    let known: bool = sqlx::query_scalar(known).fetch_one(&mut *connection).await?;
    if !known {
        sqlx::query("CREATE SCHEMA headcount").execute(&mut *connection).await?;
    }
    // The first is where the migrations are noted; everything else is named in full. The second is
    // for what `IF NOT EXISTS` has to say.
    for setting in ["SET search_path = headcount", "SET client_min_messages = warning"] {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::migrate::MigrateError> {
    let migrations = MIGRATIONS.map(|(version, description, sql)| {
        let description = Cow::Borrowed(description);
        Migration::new(version, description, MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.into()).run(connection).await
}

async fn check_deployment(
    server: &Server,
    connection: &mut PgConnection,
    options: &Options,
) -> Result<(), StoreError> {
    const CLAIM: &str =
        "INSERT INTO headcount.meta (app, key_check) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let claim = sqlx::query(CLAIM).bind(&options.app).bind(options.keys.used.to_vec());
    claim.execute(&mut *connection).await?;
    let row = sqlx::query("SELECT app, key_check FROM headcount.meta")
        .fetch_one(&mut *connection)
        .await?;
    let (app, key_check): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
    let why = if app != options.app {
        format!("it belongs to the app {app:?}: one database for each")
    } else if !options.keys.know(&key_check) {
        "it was made with another key: every replica needs the same `store.key_file`".to_owned()
    } else {
        return use_key(connection, &options.keys).await;
    };
    Err(StoreError::Open(format!("cannot use {server}: {why}")))
}

/// Whoever starts from now on must know the key that is used, once that is a new one.
pub(super) async fn use_key(
    connection: &mut PgConnection,
    keys: &KeyChecks,
) -> Result<(), StoreError> {
    const USE: &str = "UPDATE headcount.meta SET key_check = $1 WHERE key_check = $2";
    let Some(before) = keys.accepted.filter(|_| keys.promoted) else { return Ok(()) };
    let used = sqlx::query(USE).bind(keys.used.to_vec()).bind(before.to_vec());
    Ok(used.execute(connection).await.map(drop)?)
}

pub(super) fn unusable(server: &Server, error: &dyn std::error::Error) -> StoreError {
    StoreError::Open(format!("cannot use {server}: {error}"))
}
