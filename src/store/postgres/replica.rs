//! What other replicas changed: everything after the last change seen, woken by NOTIFY or by a timer.
//! Changes become visible in the order of their numbers (see `meta` in the schema), so nothing is
//! ever missed between two that were seen.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Row};
use tokio::time::{sleep, timeout};

use super::link::{Link, jitter};
use super::{Options, rows, write};
use crate::session::Timestamp;
use crate::store::{Feed, StoreError};

/// Between two looks, however often it is woken.
const PAUSE: Duration = Duration::from_millis(2);
/// An answer that came later does not tell the time.
const PROMPT: Duration = Duration::from_millis(40);
/// Before the next try after a failure, at most.
const RETRY_MS: u64 = 400;
/// Half of what the keys of pruned sessions are told for.
const AWAY_MAX: Duration = Duration::from_secs(30 * 60);
/// Rows of replicas that are no more.
const FORGET_REPLICAS: &str =
    "DELETE FROM headcount.replicas WHERE lease_until < clock_timestamp() - interval '1 hour'";

/// When this replica last knew everything.
pub(super) struct News {
    started: Instant,
    /// Milliseconds after `started`.
    heard_at_ms: AtomicU64,
    /// Applied up to here.
    seq: AtomicI64,
    grace: Duration,
    /// The store has gone back behind what was seen: it is another one.
    lost: AtomicBool,
}

impl News {
    /// Everything that was committed so long ago is known.
    pub(super) fn age(&self) -> Duration {
        let heard_at = Duration::from_millis(self.heard_at_ms.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(heard_at)
    }

    pub(super) fn is_stale(&self) -> bool {
        self.age() > self.grace || self.is_lost()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn heard(&self, asked_at: Instant, seq: i64) {
        let at = asked_at.saturating_duration_since(self.started).as_millis();
        self.heard_at_ms.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Release);
        self.seq.store(seq, Ordering::Release);
    }
}

pub(super) struct Replica {
    connect: PgConnectOptions,
    listeners: Option<PgPool>,
    link: Arc<Link>,
    feed: Arc<dyn Feed>,
    news: Arc<News>,
    node: String,
    /// Tells our own notices from the others'.
    own: [u8; 8],
    poll_interval: Duration,
    /// How long one look may take.
    patience: Duration,
    /// Strict: the others wait for us so long.
    lease: Option<Duration>,
}

impl Replica {
    /// From here on nothing is missed: what is loaded later is at least as new.
    pub(super) async fn open(
        connect: PgConnectOptions,
        options: &Options,
        own: [u8; 8],
        link: &Arc<Link>,
        feed: Arc<dyn Feed>,
    ) -> Result<Self, StoreError> {
        let lease = options.lease_ms.map(Duration::from_millis);
        let grace = Duration::from_millis(options.grace_ms);
        let grace = lease.map_or(grace, |lease| lease.min(grace));
        let patience = Duration::from_millis(options.timeout_ms).min(grace / 2);
        let listeners = options.notify.then(|| {
            let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(patience);
            pool.connect_lazy_with(connect.clone())
        });
        let asked_at = Instant::now();
        let mut connection = connect.connect().await?;
        let (seq, now) = rows::state(&mut connection).await?;
        let way_back = i64::try_from(asked_at.elapsed().as_millis() / 2).unwrap_or_default();
        feed.store_time(now.plus_ms(way_back));
        let news = News {
            started: asked_at,
            heard_at_ms: AtomicU64::new(0),
            seq: AtomicI64::new(seq),
            grace,
            lost: AtomicBool::new(false),
        };
        let replica = Self {
            connect,
            listeners,
            link: Arc::clone(link),
            feed,
            news: Arc::new(news),
            node: options.node.clone(),
            own,
            poll_interval: Duration::from_millis(options.poll_interval_ms).min(grace / 4),
            patience,
            lease,
        };
        replica.hold_lease(&mut connection, seq, now).await?;
        sqlx::query(FORGET_REPLICAS).execute(&mut connection).await?;
        Ok(replica)
    }

    pub(super) fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    /// Ends only when the store has become another one.
    pub(super) async fn run(self) {
        let mut failing = false;
        while !self.news.is_lost() {
            let Err(error) = self.follow(&mut failing).await;
            if !failing {
                tracing::warn!(%error, "the other replicas cannot be followed");
                failing = true;
            }
            sleep(jitter(RETRY_MS)).await;
        }
    }

    async fn follow(&self, failing: &mut bool) -> Result<Infallible, StoreError> {
        let late = |_| self.link.late();
        let mut connection =
            timeout(self.patience, self.connect.connect()).await.map_err(late)??;
        let mut listener = None;
        if let Some(pool) = &self.listeners {
            match timeout(self.patience, listen(pool)).await.map_err(late)? {
                Ok(listening) => listener = Some(listening),
                // The server will not have it; the timer has to do.
                Err(sqlx::Error::Database(error)) => {
                    tracing::warn!(%error, "no LISTEN here: changes are looked for by polling");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let own = write::notice(self.own);
        loop {
            timeout(self.patience, self.look(&mut connection)).await.map_err(late)??;
            if std::mem::take(failing) {
                tracing::info!("the other replicas are followed again");
            }
            sleep(PAUSE).await;
            if let Ok(lost) = timeout(self.poll_interval, wait(&mut listener, &own)).await {
                lost?;
            }
        }
    }

    /// Takes over what has been committed since the last look. What a statement reads beyond `seq`
    /// comes once more the next time.
    async fn look(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.news.age() > AWAY_MAX {
            tracing::error!("away for so long that what was pruned meanwhile cannot be known");
            self.news.lost.store(true, Ordering::Release);
            return Err(StoreError::Stopped);
        }
        let asked_at = Instant::now();
        let seen = self.news.seq.load(Ordering::Acquire);
        let (seq, now) = rows::state(connection).await?;
        let heard_at = Instant::now();
        if heard_at - asked_at < PROMPT {
            self.feed.store_time(now);
        }
        self.link.count(1);
        if seq < seen {
            tracing::error!(seen, seq, "the store has gone back behind what was seen of it");
            self.news.lost.store(true, Ordering::Release);
            return Err(StoreError::Stopped);
        }
        if seq > seen {
            let (change, changed_at) = rows::changes_since(connection, seen).await?;
            self.link.count(4);
            let since_asked = heard_at.elapsed();
            let age = |at: Timestamp| {
                let before = u64::try_from(now.since_ms(at)).unwrap_or_default();
                Duration::from_millis(before) + since_asked
            };
            let ages: Vec<Duration> = changed_at.into_iter().map(age).collect();
            if change.says_something() {
                self.feed.replicated(change, &ages);
            }
        }
        // First: nobody may serve for longer than the others can see.
        self.hold_lease(connection, seq, now).await?;
        self.news.heard(asked_at, seq);
        Ok(())
    }

    /// Strict: tells the others how far we are. From what was known at `now`, not from this moment.
    async fn hold_lease(
        &self,
        connection: &mut PgConnection,
        seq: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        const HOLD: &str = "INSERT INTO headcount.replicas (id, node, applied_seq, lease_until) \
            VALUES ($1, $2, $3, to_timestamp($4::double precision / 1000)) \
            ON CONFLICT (id) DO UPDATE SET applied_seq = excluded.applied_seq, \
            lease_until = excluded.lease_until";
        let Some(lease) = self.lease else { return Ok(()) };
        let until = now.plus_ms(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
        let hold = sqlx::query(HOLD).bind(self.own.to_vec()).bind(&self.node).bind(seq);
        hold.bind(until.0).execute(connection).await?;
        self.link.count(1);
        Ok(())
    }
}

/// Strict: waits until every replica that may be serving has applied the change `seq`. Whoever does
/// not say so may serve no longer once its lease has run out, which counts from the commit.
pub(super) async fn applied_everywhere(link: &Link, own: [u8; 8], seq: i64, lease: Duration) {
    const BEHIND: &str = "SELECT EXISTS (SELECT FROM headcount.replicas WHERE id <> $1 \
        AND applied_seq < $2 AND lease_until > clock_timestamp())";
    let everywhere = async {
        loop {
            let behind = async {
                let mut lease = link.lease().await?;
                let row = sqlx::query(BEHIND).bind(own.to_vec()).bind(seq);
                let row = row.fetch_one(lease.get()?).await?;
                link.count(1);
                lease.release();
                Ok::<bool, StoreError>(row.try_get(0)?)
            };
            if matches!(behind.await, Ok(false)) {
                return;
            }
            sleep(PAUSE).await;
        }
    };
    // Out of time: their leases have run out.
    let _ = timeout(lease, everywhere).await;
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(write::CHANNEL).await?;
    Ok(listener)
}

/// Until another replica has something to tell.
async fn wait(listener: &mut Option<PgListener>, own: &str) -> Result<(), StoreError> {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        let Some(first) = listener.try_recv().await? else {
            return Err(StoreError::Database(sqlx::Error::WorkerCrashed));
        };
        let mut foreign = first.payload() != own;
        while let Some(other) = listener.next_buffered() {
            foreign |= other.payload() != own;
        }
        if foreign {
            return Ok(());
        }
    }
}
