//! Connections to the server: how one is borrowed, how a transaction begins, and which failures pass
//! by themselves. No statements on sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres, Row};
use tokio::time::{Instant, sleep, timeout};

use crate::keyring;
use crate::store::StoreError;

/// Between two tries, at most.
const PAUSE_MS: u64 = 40;

/// The way to the server.
pub(super) struct Link {
    pool: PgPool,
    pub(super) timeout: Duration,
    begin: String,
    pub(super) statements: AtomicU64,
}

/// A connection that goes back to the others only when it was left in order. Else it is closed, and
/// what it had begun is rolled back.
pub(super) struct Lease(Option<PoolConnection<Postgres>>);

impl Lease {
    pub(super) fn get(&mut self) -> Result<&mut PgConnection, StoreError> {
        self.0.as_deref_mut().ok_or(StoreError::Stopped)
    }

    pub(super) fn release(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl Link {
    pub(super) fn new(pool: PgPool, timeout: Duration) -> Self {
        // Set for each transaction, since a pooler may give each another connection. A replica that
        // hangs must not keep the others waiting.
        let ms = timeout.as_millis();
        let idle_ms = ms / 2;
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {ms}; \
             SET LOCAL lock_timeout = {ms}; \
             SET LOCAL idle_in_transaction_session_timeout = {idle_ms}"
        );
        Self { pool, timeout, begin, statements: AtomicU64::new(0) }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) fn count(&self, statements: u64) {
        self.statements.fetch_add(statements, Ordering::Relaxed);
    }

    pub(super) fn late(&self) -> StoreError {
        StoreError::Timeout(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX))
    }

    /// In the words of every store.
    pub(super) fn explain(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Database(sqlx::Error::PoolClosed) => StoreError::Stopped,
            StoreError::Database(sqlx::Error::PoolTimedOut) => self.late(),
            // Cancelled by statement_timeout or lock_timeout.
            error if matches!(&*code(&error), "57014" | "55P03") => self.late(),
            error => error,
        }
    }

    pub(super) async fn lease(&self) -> Result<Lease, StoreError> {
        let acquired = self.pool.acquire().await.map_err(|error| match error {
            // What the driver makes of a server that hangs up at once.
            sqlx::Error::Protocol(why) => sqlx::Error::Io(std::io::Error::other(why)),
            error => error,
        });
        Ok(Lease(Some(acquired?)))
    }

    pub(super) async fn begin(&self) -> Result<Lease, StoreError> {
        let mut lease = self.lease().await?;
        sqlx::raw_sql(AssertSqlSafe(self.begin.clone())).execute(lease.get()?).await?;
        self.count(1);
        Ok(lease)
    }

    /// Commits what may be done twice.
    pub(super) async fn end(&self, mut lease: Lease) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(lease.get()?).await?;
        self.count(1);
        lease.release();
        Ok(())
    }

    /// Runs `work`, again while it comes to nothing through no fault of its own, for as long as a
    /// call may take: connections die unnoticed.
    pub(super) async fn tried<T, Work>(&self, work: impl Fn() -> Work) -> Result<T, StoreError>
    where
        Work: Future<Output = Result<T, StoreError>>,
    {
        let deadline = Instant::now() + self.timeout;
        loop {
            match timeout(self.timeout, work()).await.unwrap_or_else(|_| Err(self.late())) {
                Err(error) if is_passing(&error) && Instant::now() < deadline => {
                    tracing::debug!(%error, "a transaction is tried again");
                    pause().await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether this transaction was committed, its connection having been lost over that. Asks until
    /// there is an answer.
    pub(super) async fn was_committed(&self, xid: &str) -> bool {
        loop {
            match timeout(self.timeout, self.status(xid)).await {
                Ok(Ok(Some(status))) if status == "committed" => return true,
                Ok(Ok(Some(status))) if status == "aborted" => return false,
                // So old that the server has forgotten it, which takes millions of others.
                Ok(Ok(None)) | Ok(Err(StoreError::Stopped)) => return false,
                Ok(Ok(Some(_)) | Err(_)) | Err(_) => pause().await,
            }
        }
    }

    async fn status(&self, xid: &str) -> Result<Option<String>, StoreError> {
        const STATUS: &str = "SELECT pg_xact_status($1::text::xid8)";
        let mut lease = self.lease().await.map_err(|error| self.explain(error))?;
        let row = sqlx::query(STATUS).bind(xid).fetch_one(lease.get()?).await?;
        self.count(1);
        lease.release();
        Ok(row.try_get(0)?)
    }
}

/// The server's code for an error, or nothing.
fn code(error: &StoreError) -> String {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return String::new() };
    error.code().map(|code| code.into_owned()).unwrap_or_default()
}

/// Whether another try may fare better, nothing having been committed: the connection was lost, the
/// server is going down or coming up, or two transactions were in each other's way.
pub(super) fn is_passing(error: &StoreError) -> bool {
    match error {
        StoreError::Database(sqlx::Error::Io(_)) => true,
        error => {
            let code = code(error);
            code.starts_with("08")
                || ["40001", "40P01", "57P01", "57P02", "57P03", "25P03"].contains(&&*code)
        }
    }
}

pub(super) async fn pause() {
    sleep(jitter(PAUSE_MS)).await;
}

/// From nothing to so long; without it all replicas come back in the same moment.
pub(super) fn jitter(most_ms: u64) -> Duration {
    let random = keyring::random::<8>().map_or(0, u64::from_ne_bytes);
    Duration::from_millis(random % most_ms.max(1))
}
