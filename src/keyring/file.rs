//! The key file: one key, or two. `A` alone; `A` and `next B`, when B has to be known everywhere before
//! it is used; `B` and `A`, when A was used before. Changed as a whole or not at all.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{KeyError, MASTER_BYTES, hex, random};
use crate::private_file::Draft;
use crate::session::Timestamp;

/// Before a key that is not used yet.
const NEXT: &str = "next ";

type Master = [u8; MASTER_BYTES];

/// What is in it. Says nothing of that by itself.
pub struct KeyFile {
    first: Master,
    other: Option<Master>,
    other_is_next: bool,
    since: Timestamp,
}

impl KeyFile {
    /// Reads the file; creates it when there is none.
    pub(super) fn open(path: &Path) -> Result<Self, KeyError> {
        match Self::read(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Self::one(random()?).write(path, false)?;
                Self::read(path)
            }
            read => read,
        }
    }

    /// Reads a file that is there.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let shown = path.display().to_string();
        let io = |source| KeyError::Io { path: shown.clone(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        let metadata = std::fs::metadata(path).map_err(io)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: shown, mode });
        }
        let changed = metadata.modified().map_err(io)?.duration_since(UNIX_EPOCH);
        let changed = changed.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
        let parsed = Self::parse(&text).ok_or(KeyError::Malformed(shown))?;
        Ok(Self { since: Timestamp(changed), ..parsed })
    }

    fn one(first: Master) -> Self {
        Self { first, other: None, other_is_next: false, since: Timestamp(0) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.trim().lines().map(str::trim);
        let first = unhex(lines.next()?)?;
        let Some(line) = lines.next() else { return Some(Self::one(first)) };
        if lines.next().is_some() {
            return None;
        }
        let other = unhex(line.strip_prefix(NEXT).unwrap_or(line)).filter(|key| *key != first)?;
        let other_is_next = line.starts_with(NEXT);
        Some(Self { other: Some(other), other_is_next, ..Self::one(first) })
    }

    fn write(&self, path: &Path, replace: bool) -> Result<(), KeyError> {
        let mut text = format!("{}\n", hex(&self.first));
        if let Some(other) = &self.other {
            let next = if self.other_is_next { NEXT } else { "" };
            text.push_str(&format!("{next}{}\n", hex(other)));
        }
        let written = Draft::beside(path).and_then(|(draft, mut file)| {
            file.write_all(text.as_bytes())?;
            draft.put(replace)
        });
        let shown = path.display().to_string();
        written.map_err(|source| KeyError::Io { path: shown, source })
    }

    pub(super) fn first(&self) -> &Master {
        &self.first
    }

    pub(super) fn other(&self) -> Option<&Master> {
        self.other.as_ref()
    }

    pub(super) fn other_is_next(&self) -> bool {
        self.other_is_next
    }

    /// When it was last changed.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// Whether a new key would take the place of one that is still accepted.
    pub fn has_earlier(&self) -> bool {
        self.other.is_some() && !self.other_is_next
    }

    fn must_not_wait(&self) -> Result<(), KeyError> {
        match self.other_is_next {
            true => Err(refused("a key is staged already: promote it first")),
            false => Ok(()),
        }
    }

    /// The second line is taken only when that is meant.
    fn with(&self, first: Master, other: Master, next: bool, drop: bool) -> Result<Self, KeyError> {
        self.must_not_wait()?;
        if self.has_earlier() && !drop {
            return Err(refused("the earlier key would be dropped"));
        }
        Ok(Self { other: Some(other), other_is_next: next, ..Self::one(first) })
    }
}

/// A new key, used from the next reload on; the one before is accepted. With `drop_earlier` a key
/// before that goes.
pub fn rotate(path: &Path, drop_earlier: bool) -> Result<(), KeyError> {
    let file = KeyFile::read(path)?;
    file.with(random()?, file.first, false, drop_earlier)?.write(path, true)
}

/// A new key that is accepted from the next reload on, and not used yet.
pub fn stage(path: &Path, drop_earlier: bool) -> Result<(), KeyError> {
    let file = KeyFile::read(path)?;
    file.with(file.first, random()?, true, drop_earlier)?.write(path, true)
}

/// The staged key is used from the next reload on; the one before is accepted.
pub fn promote(path: &Path) -> Result<(), KeyError> {
    let file = KeyFile::read(path)?;
    match file.other.filter(|_| file.other_is_next) {
        Some(next) => KeyFile { other: Some(file.first), ..KeyFile::one(next) }.write(path, true),
        None => Err(refused("no key is staged")),
    }
}

/// The earlier key is accepted no longer.
pub fn retire(path: &Path) -> Result<(), KeyError> {
    let file = KeyFile::read(path)?;
    file.must_not_wait()?;
    if !file.has_earlier() {
        return Err(refused("there is no earlier key"));
    }
    KeyFile::one(file.first).write(path, true)
}

fn refused(why: &str) -> KeyError {
    KeyError::Refused(why.to_owned())
}

fn unhex(text: &str) -> Option<Master> {
    let bytes = text.as_bytes();
    if bytes.len() != MASTER_BYTES * 2 || !bytes.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut master = [0; MASTER_BYTES];
    for (slot, pair) in master.iter_mut().zip(bytes.chunks(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(master)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Keyring;

    #[test]
    fn the_key_file_is_private_and_stable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let first = Keyring::open(&path).unwrap();
        let second = Keyring::open(&path).unwrap();
        assert_eq!(first.token("a", "n", b"v"), second.token("a", "n", b"v"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        rotate(&path, false).unwrap();
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keyring::open(&path), Err(KeyError::Exposed { .. })));
        assert!(matches!(rotate(&path, false), Err(KeyError::Exposed { .. })));
    }

    #[test]
    fn a_damaged_key_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let key = "0123456789abcdef".repeat(4);
        let other = "fedcba9876543210".repeat(4);
        for text in [
            "abc".to_owned(),
            String::new(),
            format!("{key}\nabc"),
            format!("{key}\n{key}"),
            format!("next {key}\n{other}"),
            format!("{key}\n{other}\n{key}"),
        ] {
            std::fs::write(&path, &text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            for tried in [Keyring::open(&path).map(drop), rotate(&path, true), promote(&path)] {
                assert!(matches!(tried, Err(KeyError::Malformed(_))), "{text}");
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_key_goes_only_when_that_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        Keyring::open(&path).unwrap();
        let lines = || -> Vec<String> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(str::to_owned).collect()
        };
        let a = lines()[0].clone();
        assert!(promote(&path).is_err() && retire(&path).is_err());
        stage(&path, false).unwrap();
        let [first, next] = &lines()[..] else { panic!() };
        let b = next.strip_prefix(NEXT).unwrap().to_owned();
        assert_eq!(*first, a);
        for tried in [rotate(&path, true), stage(&path, true), retire(&path)] {
            assert!(matches!(tried, Err(KeyError::Refused(_))));
        }
        promote(&path).unwrap();
        assert_eq!(lines(), [b.clone(), a]);
        for tried in [rotate(&path, false), stage(&path, false)] {
            assert!(matches!(tried, Err(KeyError::Refused(_))));
        }
        rotate(&path, true).unwrap();
        assert_eq!(lines()[1], b);
        retire(&path).unwrap();
        assert_eq!(lines().len(), 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
