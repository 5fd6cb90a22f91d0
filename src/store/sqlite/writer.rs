//! The writer: one task that owns the only connection and commits waiting commands together.
//! No statement texts here, except those that begin, end and nest transactions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::backup::{Freezer, Frozen};
use super::person;
use super::place::Place;
use super::prune::{self, Cursor};
use super::rows::{self, Database};
use crate::session::{Key, Session, SessionId, SessionKey, Timestamp, User};
use crate::store::{
    Committed, CookieShape, Decide, Decision, Feed, Kept, Listing, Plan, Retention, Scope,
    StoreError, Take,
};

/// Commands committed with one fsync.
const BATCH_MAX: usize = 128;
/// How often a look is taken at whether the files are still there, when nothing is written.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Where the answer goes. Nobody may be waiting any more; the command completes all the same.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One call of the store.
pub(super) enum Command {
    Load(Take, Reply<()>),
    Transact(Scope, Decide, Reply<Decision>),
    Touch(Vec<(SessionId, Timestamp)>, Vec<Key>, Reply<()>),
    RememberShape(CookieShape, Reply<()>),
    List(Listing, Reply<Vec<Session>>),
    Find(SessionId, Reply<Option<Session>>),
    Prune(Timestamp, Retention, Reply<Vec<SessionKey>>),
    KeptOf(User, i64, Reply<Vec<Kept>>),
    Erase(User, Reply<u64>),
    Ping(Reply<()>),
    Freeze(Reply<Arc<Frozen>>),
    Close(Reply<()>),
}

/// A command that ran and waits for its commit.
struct Finished {
    change: Option<Committed>,
    answer: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

/// The last sequence numbers given. They never go back, not even when a transaction does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequences {
    pub(super) login: i64,
    pub(super) change: i64,
}

pub(super) struct Writer {
    database: Database,
    feed: Arc<dyn Feed>,
    queue: mpsc::Receiver<Command>,
    given: Sequences,
    /// What `meta` holds.
    stored: Sequences,
    cursor: Cursor,
    freezer: Freezer,
    /// Something was forgotten that the write-ahead log still has.
    log_remembers: bool,
    /// A savepoint could not be opened or closed: nothing more may run, nor may the batch commit.
    /// SQLite has then perhaps rolled back by itself (disk full), and what runs now would commit.
    broken: Option<Arc<sqlx::Error>>,
    place: Place,
    /// The thread behind the connection has ended: no statement runs any more.
    crashed: bool,
}

impl Writer {
    pub(super) async fn new(
        mut database: Database,
        place: Place,
        feed: Arc<dyn Feed>,
        queue: mpsc::Receiver<Command>,
        freezer: Freezer,
    ) -> Result<Self, StoreError> {
        let given = rows::sequences(&mut database).await?;
        Ok(Self {
            database,
            feed,
            queue,
            given,
            stored: given,
            cursor: Cursor::default(),
            freezer,
            log_remembers: false,
            broken: None,
            place,
            crashed: false,
        })
    }

    /// Runs until closed, until every handle is gone, or until nothing can be stored for good: whoever
    /// waits then is told that the store has stopped.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH_MAX);
        let (mut copiers, mut closers) = (Vec::new(), Vec::new());
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_lost() {
            let taken = tokio::select! {
                taken = self.queue.recv_many(&mut waiting, BATCH_MAX) => taken,
                _ = looks.tick() => continue,
            };
            if taken == 0 || self.is_lost() {
                break;
            }
            let mut batch = Vec::with_capacity(waiting.len());
            for command in waiting.drain(..) {
                match command {
                    // What was accepted before is still in the queue and is finished first.
                    Command::Close(reply) => {
                        self.queue.close();
                        closers.push(reply);
                    }
                    Command::Freeze(reply) => copiers.push(reply),
                    command => batch.push(command),
                }
            }
            if !batch.is_empty() {
                self.run_batch(batch).await;
            }
            self.freezer.thaw(&mut self.database).await;
            self.forget_log().await;
            // With everything that was asked for before.
            for reply in copiers.drain(..) {
                let _ = reply.send(self.freezer.freeze(&mut self.database).await);
            }
        }
        self.freezer.break_off();
        if let Err(error) = self.database.close().await {
            tracing::error!(%error, "the store did not close cleanly");
        }
        if let Err(error) = self.place.set_log_aside() {
            tracing::error!(%error, "the log of the old store is in the way of the new one");
        }
        for reply in closers {
            let _ = reply.send(Ok(()));
        }
    }

    /// Whether what is stored now would not be there at the next start.
    fn is_lost(&self) -> bool {
        if let Some(path) = self.place.lost() {
            tracing::error!(path = %path.display(), "the store was removed or replaced");
            return true;
        }
        if self.crashed {
            tracing::error!("the connection to the store has ended");
        }
        self.crashed
    }

    /// One transaction for all of `batch`; the feed and the callers hear of it after the commit.
    async fn run_batch(&mut self, batch: Vec<Command>) {
        if let Err(error) = self.database.run("BEGIN IMMEDIATE").await {
            self.roll_back().await;
            self.crashed = matches!(error, sqlx::Error::WorkerCrashed);
            let error = Arc::new(error);
            batch.into_iter().for_each(|command| command.fail(&error));
            return;
        }
        let mut finished = Vec::with_capacity(batch.len());
        for command in batch {
            finished.push(self.run_command(command).await);
        }
        match self.commit().await {
            Ok(()) => {
                self.stored = self.given;
                // The feed hears of the whole batch first: an answer may lead to a request that
                // another change of this batch already decided.
                for change in finished.iter_mut().filter_map(|finished| finished.change.take()) {
                    self.feed.committed(change);
                }
                finished.into_iter().for_each(|finished| (finished.answer)(Ok(())));
            }
            Err(error) => {
                self.roll_back().await;
                tracing::error!(%error, commands = finished.len(), "the store could not commit");
                finished.into_iter().for_each(|finished| (finished.answer)(Err(shared(&error))));
            }
        }
    }

    /// Merges the log into the file and empties it, unless a copy is being read.
    async fn forget_log(&mut self) {
        if !self.log_remembers || self.freezer.holds() {
            return;
        }
        match self.database.checkpoint().await {
            Ok((busy, _)) => self.log_remembers = busy,
            Err(error) => tracing::warn!(%error, "the write-ahead log is not emptied yet"),
        }
    }

    async fn commit(&mut self) -> Result<(), Arc<sqlx::Error>> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if self.given != self.stored {
            rows::keep_sequences(&mut self.database, self.given).await?;
        }
        Ok(self.database.run("COMMIT").await?)
    }

    /// Fails when SQLite has rolled back by itself, which is as good.
    async fn roll_back(&mut self) {
        let _ = self.database.run("ROLLBACK").await;
    }

    /// Each command has its own savepoint, so that one failure does not spoil the others.
    async fn run_command(&mut self, command: Command) -> Finished {
        if self.broken.is_none() {
            self.broken = self.database.run("SAVEPOINT command").await.err().map(Arc::new);
        }
        if let Some(error) = self.broken.clone() {
            let answer = Box::new(move |_| command.fail(&error));
            return Finished { change: None, answer };
        }
        let database = &mut self.database;
        match command {
            Command::Load(take, reply) => {
                let outcome = rows::load(database, take).await;
                self.finish(reply, outcome).await
            }
            Command::Transact(scope, decide, reply) => {
                let outcome = self.transact(&scope, &decide).await;
                self.finish_change(reply, outcome).await
            }
            Command::Touch(seen, keys, reply) => {
                let outcome = rows::touch(database, &seen, &keys).await;
                self.finish(reply, outcome).await
            }
            Command::RememberShape(shape, reply) => {
                let outcome = rows::remember_shape(database, &shape).await;
                self.finish(reply, outcome).await
            }
            Command::List(listing, reply) => {
                let mut outcome = rows::list(database, &listing).await;
                outcome.iter_mut().flatten().for_each(|session| self.refresh(session));
                self.finish(reply, outcome).await
            }
            Command::Find(id, reply) => {
                let mut outcome = rows::find(database, id).await;
                outcome.iter_mut().flatten().for_each(|session| self.refresh(session));
                self.finish(reply, outcome).await
            }
            Command::Prune(now, retention, reply) => {
                let outcome = prune::prune(database, &mut self.cursor, now, retention).await;
                self.finish(reply, outcome).await
            }
            Command::KeptOf(user, after_login_seq, reply) => {
                let mut outcome = person::kept_of(database, &user, after_login_seq).await;
                outcome.iter_mut().flatten().for_each(|kept| self.refresh(&mut kept.session));
                self.finish(reply, outcome).await
            }
            Command::Erase(user, reply) => {
                self.given.change += 1;
                self.log_remembers = true;
                let outcome = person::erase(database, &user, self.given.change).await;
                let outcome = outcome.map(|(count, sessions)| {
                    (count, Committed { sessions, ..Committed::default() })
                });
                self.finish_change(reply, outcome).await
            }
            // Neither of these gets here.
            Command::Freeze(reply) => {
                let outcome = self.freezer.freeze(database).await;
                self.finish(reply, outcome).await
            }
            // It would mean the same: everything before it is done.
            Command::Ping(reply) | Command::Close(reply) => {
                let outcome = rows::ping(database).await;
                self.finish(reply, outcome).await
            }
        }
    }

    async fn transact(
        &mut self,
        scope: &Scope,
        decide: &Decide,
    ) -> Result<(Decision, Committed), StoreError> {
        let mut live = rows::live(&mut self.database, scope).await?;
        live.iter_mut().for_each(|session| self.refresh(session));
        // A decision that panics fails its caller, not everybody's store.
        let plan = catch_unwind(AssertUnwindSafe(|| decide(&live)))
            .map_err(|_| sqlx::Error::Protocol("the decision panicked".into()))?;
        let Plan { sessions, keys, limits, events, decision } = plan;
        let mut change = Committed { keys, limits, events, ..Committed::default() };
        for mut session in sessions {
            self.given.change += 1;
            session.change_seq = self.given.change;
            if session.login_seq == 0 {
                self.given.login += 1;
                session.login_seq = self.given.login;
            }
            if rows::put_session(&mut self.database, &session).await? {
                change.sessions.push(session);
            }
        }
        for key in &change.keys {
            rows::put_key(&mut self.database, key).await?;
        }
        for limit in &change.limits {
            rows::put_limit(&mut self.database, limit).await?;
        }
        Ok((decision, change))
    }

    /// The store's `last_seen_at` is behind by up to one flush.
    fn refresh(&self, session: &mut Session) {
        if session.end.is_none()
            && let Some(seen) = self.feed.last_seen_at(session.id)
        {
            session.last_seen_at = session.last_seen_at.max(seen);
        }
    }

    async fn finish<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        outcome: Result<T, StoreError>,
    ) -> Finished {
        let closing: &[&'static str] = match outcome {
            Ok(_) => &["RELEASE command"],
            Err(_) => &["ROLLBACK TO command", "RELEASE command"],
        };
        for statement in closing {
            if self.broken.is_none() {
                self.broken = self.database.run(statement).await.err().map(Arc::new);
            }
        }
        let answer = Box::new(move |committed: Result<(), StoreError>| {
            // The caller may have gone; a failure of its own tells it more than the batch's.
            let _ = reply.send(outcome.and_then(|value| committed.map(|()| value)));
        });
        Finished { change: None, answer }
    }

    async fn finish_change<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        outcome: Result<(T, Committed), StoreError>,
    ) -> Finished {
        let (outcome, change) = match outcome {
            Ok((told, change)) => (Ok(told), Some(change).filter(Committed::says_something)),
            Err(error) => (Err(error), None),
        };
        Finished { change, ..self.finish(reply, outcome).await }
    }
}

impl Command {
    fn fail(self, error: &Arc<sqlx::Error>) {
        fn fail<T>(reply: Reply<T>, error: &Arc<sqlx::Error>) {
            let _ = reply.send(Err(shared(error)));
        }
        match self {
            Self::Load(_, reply) => fail(reply, error),
            Self::Transact(_, _, reply) => fail(reply, error),
            Self::List(_, reply) => fail(reply, error),
            Self::Find(_, reply) => fail(reply, error),
            Self::Prune(_, _, reply) => fail(reply, error),
            Self::KeptOf(_, _, reply) => fail(reply, error),
            Self::Erase(_, reply) => fail(reply, error),
            Self::Freeze(reply) => fail(reply, error),
            Self::Touch(_, _, reply)
            | Self::RememberShape(_, reply)
            | Self::Ping(reply)
            | Self::Close(reply) => fail(reply, error),
        }
    }
}

/// The same failure for each caller of a batch.
fn shared(error: &Arc<sqlx::Error>) -> StoreError {
    StoreError::Database(sqlx::Error::Io(std::io::Error::other(Arc::clone(error))))
}
