//! Whether the names by which the next start finds the store still mean the files that are open: what
//! goes into a file that has lost its name is lost with the process.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Device and number: no other file has them as long as this one is open.
type Identity = (u64, u64);

/// The store's file and its write-ahead log. SQLite makes neither anew while it has them open.
pub(super) struct Place {
    database: (PathBuf, Identity),
    log: Option<(PathBuf, Identity)>,
}

impl Place {
    /// To be called when both are open.
    pub(super) fn of(database: &Path) -> io::Result<Self> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        Ok(Self {
            database: (database.to_owned(), identity(database)?),
            log: identity(&log).ok().map(|identity| (log, identity)),
        })
    }

    /// The name under which something else is now, or nothing.
    pub(super) fn lost(&self) -> Option<&Path> {
        let mut files = [Some(&self.database), self.log.as_ref()].into_iter().flatten();
        files.find(|(path, was)| is_other(path, *was)).map(|(path, _)| path.as_path())
    }

    /// Where another database is under this one's name, SQLite would write this one's log into it at the
    /// next start: it gets another name. To be called when both are closed.
    pub(super) fn set_log_aside(&self) -> io::Result<()> {
        let Some((log, was)) = &self.log else { return Ok(()) };
        if !is_other(&self.database.0, self.database.1) || is_other(log, *was) {
            return Ok(());
        }
        let mut aside = log.as_os_str().to_owned();
        aside.push(".stale");
        fs::rename(log, aside)
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Not if it cannot be told.
fn is_other(path: &Path, was: Identity) -> bool {
    match identity(path) {
        Ok(is) => is != was,
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}
