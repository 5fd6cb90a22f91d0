//! The store that the settings name: opening it, and filling a new one from an old one. What a store
//! does is in `store.rs`.

use std::path::Path;
use std::sync::Arc;

use crate::keyring::Keyring;
use crate::recorder::RegistryFeed;
use crate::settings::{PostgresSettings, Settings, StorePlace};
use crate::store::migrate::Moved;
use crate::store::{self, Store, StoreError};

/// In strict mode a dead replica delays logins by so long at most.
const LEASE_MS: u64 = 2_000;

pub(super) async fn open(
    settings: &Settings,
    keyring: &Keyring,
    feed: Arc<RegistryFeed>,
) -> Result<Arc<dyn Store>, StoreError> {
    let timeout_ms = settings.store.timeout_ms;
    match &settings.store.place {
        StorePlace::Sqlite(path) => store::sqlite::open(path, timeout_ms, feed).await,
        StorePlace::Postgres(postgres) => {
            if postgres.server.is_exposed() {
                tracing::warn!("the way to PostgreSQL is not surely private: sslmode=verify-full");
            }
            let options = replica_options(settings, postgres, keyring);
            store::postgres::open(&postgres.server, options, feed).await
        }
    }
}

/// What tells the keys of this replica from others.
pub(super) fn key_checks(keyring: &Keyring) -> store::KeyChecks {
    let check = |keyring: &Keyring| keyring.stamp(&[b"is this the same key?"]);
    store::KeyChecks {
        used: check(keyring),
        accepted: keyring.other().map(check),
        promoted: keyring.is_promoted(),
    }
}

fn replica_options(
    settings: &Settings,
    postgres: &PostgresSettings,
    keyring: &Keyring,
) -> store::postgres::Options {
    store::postgres::Options {
        app: settings.app.clone(),
        keys: key_checks(keyring),
        node: settings.server.node.clone(),
        connections_max: postgres.connections_max,
        timeout_ms: settings.store.timeout_ms,
        notify: postgres.notify,
        poll_interval_ms: postgres.poll_interval_ms,
        grace_ms: postgres.grace_ms,
        lease_ms: postgres.strict.then_some(LEASE_MS),
    }
}

/// Copies the SQLite file `from` into the PostgreSQL database that `settings` name.
///
/// # Errors
///
/// If `settings` name no such database, or as of [`store::migrate::to_postgres`].
pub async fn migrate(settings: &Settings, from: &Path) -> anyhow::Result<Moved> {
    let StorePlace::Postgres(postgres) = &settings.store.place else {
        anyhow::bail!("`store.url` must name the new store, postgres://USER@HOST/DATABASE");
    };
    // A new one would know none of the cookies that the sessions were made for.
    let key_file = &settings.store.key_file;
    anyhow::ensure!(key_file.exists(), "{} is missing: the sessions need it", key_file.display());
    let options = replica_options(settings, postgres, &Keyring::open(key_file)?);
    Ok(store::migrate::to_postgres(from, &postgres.server, &options).await?)
}
