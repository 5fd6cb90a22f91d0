//! A copy of the file while it is in use, and one of a file that nobody has. In WAL mode nothing but a
//! checkpoint writes into the database file: between two of them it stays as the first has left it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::mpsc;

use super::rows::Database;
use crate::store::{Backup, StoreError};

/// Bytes read at a time, and how many such pieces wait for a slow reader.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_WAITING: usize = 4;

/// The file as the last checkpoint left it, for as long as somebody holds this.
pub(super) struct Frozen {
    file: Arc<File>,
    bytes: u64,
    /// It is written into again.
    thawed: AtomicBool,
}

/// The writer's side: one copy at a time.
pub(super) struct Freezer {
    path: PathBuf,
    /// Opened for the first copy and kept until SQLite has let go of the file: closing any of its
    /// descriptors would take away every lock this process has on it.
    file: Option<Arc<File>>,
    frozen: Weak<Frozen>,
    holds: bool,
}

impl Freezer {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, frozen: Weak::new(), holds: false }
    }

    /// Merges what was committed into the file and leaves it alone from then on. Not to be called
    /// within a transaction.
    pub(super) async fn freeze(
        &mut self,
        database: &mut Database,
    ) -> Result<Arc<Frozen>, StoreError> {
        if self.frozen.strong_count() > 0 {
            return Err(StoreError::NoBackup("another backup is under way".to_owned()));
        }
        database.run("PRAGMA wal_autocheckpoint = 0").await?;
        self.holds = true;
        let (busy, left) = database.checkpoint().await?;
        if busy || left > 0 {
            return Err(StoreError::NoBackup(
                "the file could not be brought up to date".to_owned(),
            ));
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let opened = File::open(&self.path).map_err(sqlx::Error::Io)?;
                Arc::clone(self.file.insert(Arc::new(opened)))
            }
        };
        let bytes = file.metadata().map_err(sqlx::Error::Io)?.len();
        let frozen = Arc::new(Frozen { file, bytes, thawed: AtomicBool::new(false) });
        self.frozen = Arc::downgrade(&frozen);
        Ok(frozen)
    }

    /// Whether the file must be left alone.
    pub(super) fn holds(&self) -> bool {
        self.frozen.strong_count() > 0
    }

    /// Lets checkpoints come again once the copy is done or given up.
    pub(super) async fn thaw(&mut self, database: &mut Database) {
        if !self.holds || self.frozen.strong_count() > 0 {
            return;
        }
        match database.run("PRAGMA wal_autocheckpoint = 1000").await {
            Ok(()) => self.holds = false,
            Err(error) => tracing::warn!(%error, "the write-ahead log is not merged yet"),
        }
    }

    /// Before the file is closed, which merges the log into it.
    pub(super) fn break_off(&self) {
        if let Some(frozen) = self.frozen.upgrade() {
            frozen.thawed.store(true, Ordering::Release);
        }
    }
}

/// Reads a frozen file on a thread of its own, as fast as it is taken.
pub(super) fn read(frozen: Arc<Frozen>) -> Backup {
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    let bytes = frozen.bytes;
    tokio::task::spawn_blocking(move || {
        let mut at = 0;
        while at < frozen.bytes {
            let piece = frozen.piece(at);
            at += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            let failed = piece.is_err();
            // Nobody takes it any more, or it is over.
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    Backup { bytes, pieces }
}

impl Frozen {
    fn piece(&self, at: u64) -> io::Result<Bytes> {
        let left = usize::try_from(self.bytes - at).unwrap_or(PIECE_BYTES);
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        self.file.read_exact_at(&mut piece, at)?;
        if self.thawed.load(Ordering::Acquire) {
            return Err(io::Error::other("the store was closed meanwhile"));
        }
        Ok(piece.into())
    }
}

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub live: u64,
    pub ended: u64,
    pub keys: u64,
    pub limits: u64,
}

/// Copies the file of a Headcount that does not run to `to`, an empty file.
///
/// # Errors
///
/// [`StoreError::Locked`] if it runs, [`StoreError::Open`] if there is no such file.
pub async fn copy_stopped(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut connection =
        super::connect(from).await.map_err(|error| super::opening(from, &error))?;
    super::take_lock(&mut connection).await.map_err(|error| super::opening(from, &error))?;
    let to = to.to_string_lossy().into_owned();
    let copied = sqlx::query("VACUUM INTO $1").bind(to).execute(&mut connection).await;
    connection.close().await?;
    Ok(copied.map(drop)?)
}

/// Looks through every page of a copy that nobody has open, and counts what is in it.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if it is damaged or no store.
pub async fn verify(copy: &Path) -> Result<Held, StoreError> {
    const COUNTS: [&str; 4] = [
        "SELECT count(*) FROM sessions WHERE ended_at IS NULL",
        "SELECT count(*) FROM sessions WHERE ended_at IS NOT NULL",
        "SELECT count(*) FROM session_keys",
        "SELECT count(*) FROM user_limits",
    ];
    let options = SqliteConnectOptions::new().filename(copy).read_only(true).immutable(true);
    let mut connection = options
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|error| super::opening(copy, &error))?;
    let verified = look_through(&mut connection).await;
    verified?;
    let mut counts = [0_u64; 4];
    for (count, statement) in counts.iter_mut().zip(COUNTS) {
        let found: i64 = sqlx::query_scalar(statement).fetch_one(&mut connection).await?;
        *count = u64::try_from(found).unwrap_or_default();
    }
    connection.close().await?;
    let [live, ended, keys, limits] = counts;
    Ok(Held { live, ended, keys, limits })
}

async fn look_through(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let corrupt = |error: sqlx::Error| StoreError::Corrupt(error.to_string());
    let found: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(corrupt)?;
    if found != "ok" {
        return Err(StoreError::Corrupt(found));
    }
    let orphans = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut *connection).await;
    match orphans.map_err(corrupt)? {
        None => Ok(()),
        Some(_) => Err(StoreError::Corrupt("a key leads to no session".to_owned())),
    }
}
