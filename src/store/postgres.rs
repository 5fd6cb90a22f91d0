//! The PostgreSQL store, for several replicas: where the server is, opening it, and the handle. What
//! decisions do is in `postgres/{batch,writer}.rs`, what other replicas did comes by
//! `postgres/replica.rs`; statements and row mapping are in `postgres/{rows,write,prune}.rs`.

mod batch;
mod link;
mod person;
mod prune;
mod replica;
mod rows;
mod schema;
mod write;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::keyring;
use crate::session::{Key, Session, SessionId, SessionKey, Timestamp, User};
use crate::store::{
    Backup, Committed, CookieShape, Decide, Decision, Feed, Kept, KeyChecks, Listing, Retention,
    Scope, Store, StoreError, Take,
};
pub(super) use rows::text;

use link::Link;
use replica::Replica;
use writer::{Wanted, Writer};

/// Decisions waiting for the writer; beyond that callers wait, up to their timeout.
const WANTED_MAX: usize = 1024;

/// It has better ways of its own.
pub const NO_BACKUP: &str =
    "a PostgreSQL store is backed up with PostgreSQL's tools, as in pg_dump --schema=headcount";

/// Where the server is and how to get in. Shows no password.
#[derive(Clone)]
pub struct Server(PgConnectOptions);

impl Server {
    /// From `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`; `password` beats the URL's.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Self, sqlx::Error> {
        let options: PgConnectOptions = url.parse()?;
        Ok(Self(match password {
            Some(password) => options.password(password),
            None => options,
        }))
    }

    /// Whether the way to it is not surely private: neither this machine nor checked TLS.
    pub fn is_exposed(&self) -> bool {
        use sqlx::postgres::PgSslMode;
        let local = ["localhost", "127.0.0.1", "::1", "[::1]"].contains(&self.0.get_host());
        let checked = matches!(self.0.get_ssl_mode(), PgSslMode::VerifyFull | PgSslMode::VerifyCa);
        !local && self.0.get_socket().is_none() && !checked
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.0.get_database().unwrap_or(self.0.get_username());
        match self.0.get_socket() {
            Some(folder) => write!(f, "postgres database {database} at {}", folder.display()),
            None => write!(f, "postgres://{}:{}/{database}", self.0.get_host(), self.0.get_port()),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

/// How to use it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The same on all replicas, like the MAC key that is used, but while it is changed.
    pub app: String,
    pub keys: KeyChecks,
    /// Whose this replica is, for people who look into the database.
    pub node: String,
    /// Connections for decisions and questions; one or two more follow the other replicas.
    pub connections_max: u32,
    pub timeout_ms: u64,
    /// Whether to be woken by LISTEN, which a pooler may not carry.
    pub notify: bool,
    /// How often to look for changes that nothing woke us for.
    pub poll_interval_ms: u64,
    /// After so long without news of the other replicas nothing is judged any more.
    pub grace_ms: u64,
    /// Strict: how long the others wait for a replica that does not say that it knows of an end.
    pub lease_ms: Option<u64>,
}

/// Opens the store and follows the other replicas from here on; its work is done on the current
/// runtime. A call waits `timeout_ms` at most; every commit is told to `feed`.
///
/// # Errors
///
/// [`StoreError::Open`] if it cannot be used.
pub async fn open(
    server: &Server,
    options: Options,
    feed: Arc<dyn Feed>,
) -> Result<Arc<dyn Store>, StoreError> {
    let connect = connect_options(server);
    let prepared = schema::prepare(server, &connect, &options).await?;
    prepared.close().await.map_err(|error| schema::unusable(server, &error))?;
    let failed = |error: StoreError| schema::unusable(server, &error);
    let own = keyring::random::<8>().map_err(|error| schema::unusable(server, &error))?;
    let timeout = Duration::from_millis(options.timeout_ms);
    let pool = PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(timeout)
        // A round trip for every use; a connection that has died is replaced when it is noticed.
        .test_before_acquire(false)
        .connect_lazy_with(connect.clone());
    let link = Arc::new(Link::new(pool, timeout));
    let replica = Replica::open(connect, &options, own, &link, Arc::clone(&feed)).await;
    let replica = replica.map_err(failed)?;
    let news = replica.news();
    let gone = CancellationToken::new();
    let [following, writing] = [(); 2].map(|()| gone.clone().drop_guard());
    let following = tokio::spawn(async move {
        let _gone = following;
        replica.run().await;
    })
    .abort_handle();
    let (wanted, queue) = mpsc::channel(WANTED_MAX);
    let lease = options.lease_ms.map(Duration::from_millis);
    let writer = Writer { link: Arc::clone(&link), feed: Arc::clone(&feed), own, lease, queue };
    let writing = Mutex::new(Some(tokio::spawn(async move {
        let _gone = writing;
        writer.run().await;
    })));
    let wanted = parking_lot::Mutex::new(Some(wanted));
    let patience = timeout + lease.unwrap_or_default();
    let cursor = Mutex::default();
    let store =
        PostgresStore { link, feed, wanted, writing, patience, cursor, news, following, gone };
    Ok(Arc::new(store))
}

/// A connection to the database once it is ours and up to date.
pub(super) async fn prepared(
    server: &Server,
    options: &Options,
) -> Result<PgConnection, StoreError> {
    schema::prepare(server, &connect_options(server), options).await
}

fn connect_options(server: &Server) -> PgConnectOptions {
    server.0.clone().application_name("headcount").disable_statement_logging()
}

/// The calls. Dropping one half way changes nothing once the writer has it.
struct PostgresStore {
    link: Arc<Link>,
    feed: Arc<dyn Feed>,
    /// `None` once it is closed.
    wanted: parking_lot::Mutex<Option<mpsc::Sender<Wanted>>>,
    writing: Mutex<Option<tokio::task::JoinHandle<()>>>,
    patience: Duration,
    cursor: Mutex<prune::Cursor>,
    news: Arc<replica::News>,
    following: tokio::task::AbortHandle,
    /// When one of the two tasks has ended.
    gone: CancellationToken,
}

impl PostgresStore {
    /// One call, within its time.
    async fn call<T, Work>(&self, work: impl Fn() -> Work) -> Result<T, StoreError>
    where
        Work: Future<Output = Result<T, StoreError>>,
    {
        if self.news.is_lost() {
            return Err(StoreError::Stopped);
        }
        let outcome = tokio::time::timeout(self.link.timeout, self.link.tried(work)).await;
        outcome.unwrap_or_else(|_| Err(self.link.late())).map_err(|error| self.link.explain(error))
    }

    async fn ask(&self, scope: Scope, decide: Decide) -> Result<Decision, StoreError> {
        let wanted = self.wanted.lock().clone().ok_or(StoreError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let sent = wanted.send(Wanted { scope, decide, reply }).await;
        sent.map_err(|_| StoreError::Stopped)?;
        drop(wanted);
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }
}

#[async_trait]
impl Store for PostgresStore {
    /// Not bounded by the timeout: it runs once, before anybody waits.
    async fn load_pages(&self, take: Take) -> Result<(), StoreError> {
        let mut lease = self.link.lease().await?;
        rows::load(lease.get()?, take).await?;
        lease.release();
        Ok(())
    }

    async fn transact(&self, scope: Scope, decide: Decide) -> Result<Decision, StoreError> {
        if self.news.is_lost() {
            return Err(StoreError::Stopped);
        }
        let answer = tokio::time::timeout(self.patience, self.ask(scope, decide)).await;
        answer.unwrap_or_else(|_| Err(self.link.late()))
    }

    async fn touch(
        &self,
        seen: Vec<(SessionId, Timestamp)>,
        keys: Vec<Key>,
    ) -> Result<(), StoreError> {
        self.call(async || {
            let mut lease = self.link.begin().await?;
            if !seen.is_empty() {
                write::touch_sessions(lease.get()?, &seen).await?;
                self.link.count(1);
            }
            if !keys.is_empty() {
                write::add_late_keys(lease.get()?, &keys).await?;
                self.link.count(2);
            }
            self.link.end(lease).await
        })
        .await
    }

    async fn remember_shape(&self, shape: CookieShape) -> Result<(), StoreError> {
        self.call(async || {
            let mut lease = self.link.begin().await?;
            write::remember_shape(lease.get()?, &shape).await?;
            self.link.count(1);
            self.link.end(lease).await
        })
        .await
    }

    async fn list(&self, listing: Listing) -> Result<Vec<Session>, StoreError> {
        let listed = self.call(async || {
            let mut lease = self.link.begin().await?;
            let listed = rows::list(lease.get()?, &listing).await?;
            self.link.count(1);
            self.link.end(lease).await.map(|()| listed)
        });
        let mut listed = listed.await?;
        listed.iter_mut().for_each(|session| writer::refresh(&*self.feed, session));
        Ok(listed)
    }

    async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let found = self.call(async || {
            let mut lease = self.link.begin().await?;
            let found = rows::find(lease.get()?, id).await?;
            self.link.count(1);
            self.link.end(lease).await.map(|()| found)
        });
        let mut found = found.await?;
        found.iter_mut().for_each(|session| writer::refresh(&*self.feed, session));
        Ok(found)
    }

    async fn prune(
        &self,
        now: Timestamp,
        retention: Retention,
    ) -> Result<Vec<SessionKey>, StoreError> {
        self.call(async || {
            let mut cursor = self.cursor.lock().await;
            let mut lease = self.link.begin().await?;
            let dropped = prune::prune(lease.get()?, &mut cursor, now, retention).await?;
            self.link.end(lease).await.map(|()| dropped)
        })
        .await
    }

    /// A real write, so that a full disk is noticed.
    async fn ping(&self) -> Result<(), StoreError> {
        self.call(async || {
            let mut lease = self.link.begin().await?;
            write::ping(lease.get()?).await?;
            self.link.count(1);
            self.link.end(lease).await
        })
        .await
    }

    async fn kept_of(&self, user: &User, after_login_seq: i64) -> Result<Vec<Kept>, StoreError> {
        let kept = self.call(async || {
            let mut lease = self.link.begin().await?;
            let kept = person::kept_of(lease.get()?, user, after_login_seq).await?;
            self.link.count(1);
            self.link.end(lease).await.map(|()| kept)
        });
        let mut kept = kept.await?;
        kept.iter_mut().for_each(|kept| writer::refresh(&*self.feed, &mut kept.session));
        Ok(kept)
    }

    async fn erase(&self, user: &User) -> Result<u64, StoreError> {
        let erased = self.call(async || {
            let mut lease = self.link.begin().await?;
            let erased = person::erase(lease.get()?, user).await?;
            self.link.count(3);
            self.link.end(lease).await.map(|()| erased)
        });
        let (count, sessions) = erased.await?;
        self.feed.committed(Committed { sessions, ..Committed::default() });
        Ok(count)
    }

    async fn use_key(&self, keys: &KeyChecks) -> Result<(), StoreError> {
        self.call(async || {
            let mut lease = self.link.begin().await?;
            schema::use_key(lease.get()?, keys).await?;
            self.link.count(1);
            self.link.end(lease).await
        })
        .await
    }

    async fn backup(&self) -> Result<Backup, StoreError> {
        Err(StoreError::NoBackup(NO_BACKUP.to_owned()))
    }

    async fn stopped(&self) {
        self.gone.cancelled().await;
    }

    fn lag(&self) -> Option<Duration> {
        Some(self.news.age())
    }

    fn is_stale(&self) -> bool {
        self.news.is_stale()
    }

    fn statements(&self) -> u64 {
        self.link.statements.load(Ordering::Relaxed)
    }

    async fn close(&self) {
        drop(self.wanted.lock().take());
        if let Some(writing) = self.writing.lock().await.take() {
            let stop = writing.abort_handle();
            if tokio::time::timeout(self.patience, writing).await.is_err() {
                stop.abort();
            }
        }
        self.following.abort();
        // Connections in use are closed by whoever uses them.
        let _ = tokio::time::timeout(self.patience, self.link.close()).await;
    }
}
