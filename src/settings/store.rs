//! Settings of `[store]`. No defaults here, and nothing is opened.

use std::fmt;
use std::path::PathBuf;

use crate::store::postgres;

/// `[store]`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub place: StorePlace,
    pub key_file: PathBuf,
    /// A transaction must finish within.
    pub timeout_ms: u64,
    pub on_failure: OnFailure,
}

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// A file of one process.
    Sqlite(PathBuf),
    /// A server that several replicas share.
    Postgres(Box<PostgresSettings>),
}

impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(settings) => settings.server.fmt(f),
        }
    }
}

/// How a PostgreSQL server is used.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    pub server: postgres::Server,
    pub connections_max: u32,
    /// Whether to be woken by LISTEN.
    pub notify: bool,
    /// How often to look for what other replicas did, when nothing wakes us.
    pub poll_interval_ms: u64,
    /// Without news for so long nothing is judged any more.
    pub grace_ms: u64,
    /// `[limit] consistency`: an end is answered only when every replica knows.
    pub strict: bool,
}

/// What happens to known sessions when the store has not been heard for longer than `grace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing is judged any more.
    Closed,
    /// They go on, by what was known: an end on another replica does not count here.
    Open,
}
