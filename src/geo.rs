//! Where an address is, as far as a database that the operator gives knows. What is looked up is an
//! address as it is recorded: where none is, or a hash of it, there is no place either, and of a
//! prefix no more is told than of the network. Knows no settings; nothing is decided by it here.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use maxminddb::{PathElement, Reader, path};
use parking_lot::Mutex;

/// A place, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Two letters (ISO 3166-1).
    pub country: Option<String>,
    /// In English.
    pub city: Option<String>,
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    #[error("cannot read the database of places {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is no database of places in MaxMind's format (.mmdb): {what}", path.display())]
    Format { path: PathBuf, what: String },
    #[error("{} is a database of type {found:?}; one of countries or cities is needed", path.display())]
    Kind { path: PathBuf, found: String },
}

/// A database in memory: a file that is replaced while it is read harms nobody.
pub struct Database {
    reader: Reader<Vec<u8>>,
    path: PathBuf,
    state: State,
}

/// What tells one state of a file from another.
type State = Option<(SystemTime, u64)>;

impl Database {
    /// Reads it whole.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be; says which.
    pub fn open(file: &Path) -> Result<Self, GeoError> {
        let path = file.to_owned();
        // Before the content: what changes in between is read once more.
        let state = state_of(file);
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) => return Err(GeoError::Read { path, error }),
        };
        let reader = match Reader::from_source(bytes) {
            Ok(reader) => reader,
            Err(error) => return Err(GeoError::Format { path, what: error.to_string() }),
        };
        let found = &reader.metadata().database_type;
        let kind = found.to_ascii_lowercase();
        if !["city", "country", "enterprise"].iter().any(|known| kind.contains(known)) {
            return Err(GeoError::Kind { path, found: found.clone() });
        }
        Ok(Self { reader, path, state })
    }
}

fn state_of(path: &Path) -> State {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}

/// The database in use, if there is one.
#[derive(Default)]
pub struct Places {
    database: ArcSwapOption<Database>,
    /// The file as it was when it was read last, whatever came of it.
    tried: Mutex<State>,
}

impl Places {
    /// From now on this one answers.
    pub fn replace(&self, database: Option<Database>) {
        *self.tried.lock() = database.as_ref().and_then(|database| database.state);
        self.database.store(database.map(Arc::new));
    }

    /// Whether there is one.
    pub fn is_known(&self) -> bool {
        self.database.load().is_some()
    }

    /// Where a recorded address, or network, is.
    pub fn of(&self, recorded: &str) -> Option<Place> {
        let address: IpAddr = match recorded.parse() {
            Ok(address) => address,
            Err(_) => recorded.parse::<IpNet>().ok()?.network(),
        };
        let database = self.database.load();
        let found = database.as_ref()?.reader.lookup(address).ok()?;
        let text = |steps: &[PathElement<'_>]| {
            let text = found.decode_path::<String>(steps).ok().flatten();
            text.filter(|text| !text.is_empty())
        };
        let country = text(&path!["country", "iso_code"]);
        let city = text(&path!["city", "names", "en"]);
        (country.is_some() || city.is_some()).then_some(Place { country, city })
    }

    /// Reads the file again if it is another by now. `None`: it is not.
    pub fn follow(&self) -> Option<Result<(), GeoError>> {
        let path = self.database.load().as_ref()?.path.clone();
        // Gone for a moment while somebody replaces it, or for good: what is in memory stays.
        let now = Some(state_of(&path)?);
        if std::mem::replace(&mut *self.tried.lock(), now) == now {
            return None;
        }
        Some(Database::open(&path).map(|database| self.replace(Some(database))))
    }
}
