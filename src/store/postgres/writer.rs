//! The writer: one task that decides for all callers that wait, in one transaction: their users'
//! locks, what is live, the plans, the commit, and what became of it when the connection is lost over
//! that. No statements here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::batch::{Batch, Given, scopes};
use super::link::{Lease, Link, is_passing, pause};
use super::{replica, rows, write};
use crate::session::Session;
use crate::store::{Committed, Decide, Decision, Feed, Scope, StoreError};

/// Decisions committed together.
const BATCH_MAX: usize = 128;

/// One decision that is asked for.
pub(super) struct Wanted {
    pub(super) scope: Scope,
    pub(super) decide: Decide,
    /// Nobody may be waiting any more.
    pub(super) reply: oneshot::Sender<Result<Decision, StoreError>>,
}

impl Wanted {
    /// A decision over a user's sessions that nobody waits for any more is not begun: its caller has
    /// told the client that it failed. What ends single sessions is done all the same.
    fn is_given_up(&self) -> bool {
        self.reply.is_closed() && self.scope.user.is_some()
    }
}

pub(super) struct Writer {
    pub(super) link: Arc<Link>,
    pub(super) feed: Arc<dyn Feed>,
    /// Tells our own notices from the others'.
    pub(super) own: [u8; 8],
    /// Strict: nothing that ends a session is answered before all replicas know, or so long.
    pub(super) lease: Option<Duration>,
    pub(super) queue: mpsc::Receiver<Wanted>,
}

type Outcomes = Vec<Result<(Decision, Committed), StoreError>>;

impl Writer {
    /// Runs until every handle is gone and the queue is empty.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
            batch.retain(|wanted| !wanted.is_given_up());
            self.settle(std::mem::take(&mut batch)).await;
        }
    }

    /// All of them, again if need be; if that fails, each by itself, so that one does not spoil the
    /// others.
    async fn settle(&self, batch: Vec<Wanted>) {
        let deadline = Instant::now() + self.link.timeout;
        let outcome = self.outcome(&batch, deadline).await;
        match outcome {
            Ok(outcomes) => self.answer(batch, outcomes),
            Err(_) if batch.len() > 1 && Instant::now() < deadline => {
                for wanted in batch {
                    let alone = [wanted];
                    let outcome = self.outcome(&alone, deadline).await;
                    let outcomes = outcome.unwrap_or_else(|error| vec![Err(error)]);
                    self.answer(alone.into(), outcomes);
                }
            }
            Err(error) => {
                tracing::error!(%error, decisions = batch.len(), "the store could not commit");
                let why = Arc::new(error);
                for wanted in batch {
                    let _ = wanted.reply.send(Err(shared(&why)));
                }
            }
        }
    }

    /// The feed hears of the whole batch first: an answer may lead to a request that another
    /// decision of this batch is about.
    fn answer(&self, batch: Vec<Wanted>, outcomes: Outcomes) {
        let mut answers = Vec::with_capacity(batch.len());
        let mut newest_end = None;
        for outcome in outcomes {
            answers.push(outcome.map(|(decision, change)| {
                let ended = change.sessions.iter().filter(|session| session.end.is_some());
                newest_end = newest_end.max(ended.map(|session| session.change_seq).max());
                if change.says_something() {
                    self.feed.committed(change);
                }
                decision
            }));
        }
        let answers = batch.into_iter().zip(answers);
        let link = Arc::clone(&self.link);
        let send = move |link: &Link| {
            for (wanted, answer) in answers {
                let _ = wanted.reply.send(answer.map_err(|error| link.explain(error)));
            }
        };
        let (Some(lease), Some(seq)) = (self.lease, newest_end) else { return send(&link) };
        let own = self.own;
        tokio::spawn(async move {
            replica::applied_everywhere(&link, own, seq, lease).await;
            send(&link);
        });
    }

    async fn outcome(&self, batch: &[Wanted], deadline: Instant) -> Result<Outcomes, StoreError> {
        loop {
            match self.attempt(batch).await {
                Err(error) if is_passing(&error) && Instant::now() < deadline => {
                    tracing::debug!(%error, "a transaction is tried again");
                    pause().await;
                }
                outcome => return outcome.map_err(|error| self.link.explain(error)),
            }
        }
    }

    async fn attempt(&self, wanted: &[Wanted]) -> Result<Outcomes, StoreError> {
        let prepared = timeout(self.link.timeout, self.prepare(wanted)).await;
        let (mut lease, batch, written) = prepared.map_err(|_| self.link.late())??;
        let Some((given, xid)) = written else {
            self.link.end(lease).await?;
            return Ok(batch.settle(&Given::default()));
        };
        self.link.count(1);
        let commit = sqlx::raw_sql("COMMIT").execute(lease.get()?);
        let error = match timeout(self.link.timeout, commit).await {
            Ok(Ok(_)) => {
                lease.release();
                return Ok(batch.settle(&given));
            }
            Ok(Err(error)) => StoreError::Database(error),
            Err(_) => self.link.late(),
        };
        drop(lease);
        // Nothing else may be decided before it is known: what follows may depend on it.
        tracing::debug!(%error, xid, "a transaction's outcome has to be asked for");
        if self.link.was_committed(&xid).await {
            return Ok(batch.settle(&given));
        }
        Err(error)
    }

    /// Everything but the commit.
    async fn prepare(
        &self,
        wanted: &[Wanted],
    ) -> Result<(Lease, Batch, Option<(Given, String)>), StoreError> {
        let mut lease = self.link.begin().await?;
        let (users, ids) = scopes(wanted.iter().map(|wanted| &wanted.scope));
        let mut live = Vec::new();
        if !(users.is_empty() && ids.is_empty()) {
            live = rows::lock_live(lease.get()?, &users, &ids).await?;
            self.link.count(1);
        }
        live.iter_mut().for_each(|session| refresh(&*self.feed, session));
        let mut batch = Batch::over(live);
        for Wanted { scope, decide, .. } in wanted {
            batch.run(scope, decide);
        }
        let mut written = None;
        if !batch.is_empty() {
            written = Some(write::batch(lease.get()?, &batch, self.own).await?);
            self.link.count(1);
        }
        Ok((lease, batch, written))
    }
}

/// The store's `last_seen_at` is behind by up to one flush.
pub(super) fn refresh(feed: &dyn Feed, session: &mut Session) {
    if session.end.is_none()
        && let Some(seen) = feed.last_seen_at(session.id)
    {
        session.last_seen_at = session.last_seen_at.max(seen);
    }
}

/// The same failure for each caller of a batch.
fn shared(error: &Arc<StoreError>) -> StoreError {
    match &**error {
        StoreError::Timeout(ms) => StoreError::Timeout(*ms),
        StoreError::Stopped => StoreError::Stopped,
        _ => StoreError::Database(sqlx::Error::Io(std::io::Error::other(Arc::clone(error)))),
    }
}
