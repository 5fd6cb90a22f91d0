//! `headcount backup`: a copy of the store in a file of its own, looked through before it gets there.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::remote::{Api, fail};
use super::{Access, OK, local};
use crate::private_file::Draft;
use crate::settings::StorePlace;
use crate::store::sqlite::backup::{Held, copy_stopped, verify};
use crate::store::{StoreError, postgres};
use crate::terminal::{complain, say};

pub(super) fn run(access: &Access, to: &Path, overwrite: bool) -> u8 {
    if to.exists() && !overwrite {
        return fail(format!("{} is there already; --overwrite replaces it", to.display()));
    }
    let store = match &access.config {
        None => None,
        Some(config) => match local::load(config) {
            Ok(settings) => Some(settings.store.place),
            Err(code) => return code,
        },
    };
    let store = match &store {
        Some(StorePlace::Postgres(_)) => return fail(postgres::NO_BACKUP),
        Some(StorePlace::Sqlite(path)) => Some(path.as_path()),
        None => None,
    };
    let (draft, file) = match Draft::beside(to) {
        Ok(drafted) => drafted,
        Err(error) => return fail(format!("cannot write {}: {error}", to.display())),
    };
    if let Err(code) = copy(access, store, &draft, file) {
        return code;
    }
    let held = match local::run(async { Ok(verify(draft.path()).await?) }) {
        Ok(held) => held,
        Err(code) => return code,
    };
    if let Err(error) = draft.put(overwrite) {
        return fail(format!("cannot write {}: {error}", to.display()));
    }
    let Held { live, ended, keys, limits } = held;
    let to = to.display();
    say(format!(
        "{to}: {live} live sessions, {ended} ended, {keys} keys, {limits} limits of users; looked through, no faults"
    ));
    complain("The key file is not in it: keep a copy of it in another place.");
    OK
}

/// From whoever has the file.
fn copy(access: &Access, store: Option<&Path>, draft: &Draft, mut file: File) -> Result<(), u8> {
    let stopped = match store {
        None => None,
        Some(from) => {
            let to = draft.path();
            match local::run(async { Ok(copy_stopped(from, to).await) })? {
                Ok(()) => return Ok(()),
                Err(StoreError::Locked(_)) => None,
                // Perhaps the admin API knows better: not every user may read the file.
                Err(error) => Some(error),
            }
        }
    };
    let streamed = Api::open(access)
        .and_then(|api| api.stream("/api/v1/backup", |piece| file.write_all(piece)).map_err(fail));
    streamed.inspect_err(|_| {
        if let Some(error) = stopped {
            complain(format!("headcount: {error}"));
        }
    })
}
