//! The MAC keys: read or created from `key_file`, one derived key per purpose. Everything that is
//! hashed, signed or compared with a key goes through here; the secret itself never leaves. There may
//! be two: everything is made with the first, and what the other made is still known.

pub mod file;

use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use self::file::KeyFile;
use crate::session::{SessionId, SessionKey, Timestamp};

type HmacSha256 = Hmac<Sha256>;

/// Bytes of the master key.
const MASTER_BYTES: usize = 32;

/// The derived keys, each with its HMAC state already set up.
#[derive(Clone)]
pub struct Keyring {
    stamp: HmacSha256,
    value: HmacSha256,
    address: HmacSha256,
    form: HmacSha256,
    /// Tells this key from others, and says nothing of it.
    fingerprint: [u8; 16],
    other: Option<Box<Self>>,
    /// The other is the next one, not the one before.
    other_is_next: bool,
    since: Timestamp,
}

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read or create the key file {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error(
        "the key file {0} must hold exactly 64 hexadecimal digits, or two such lines; restore it from backup, or delete it to start anew (every stamped cookie becomes invalid)"
    )]
    Malformed(String),
    #[error(
        "the key file {0} does not hold the key that is in use: every session would be lost. Keep it as the second line, or stop and start to give everything up"
    )]
    Foreign(String),
    #[error("{0}")]
    Refused(String),
    #[error("the key file {path} can be read by others (mode {mode:o}); run: chmod 600 {path}")]
    Exposed { path: String, mode: u32 },
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl Keyring {
    /// The keys derived from `master`.
    pub fn new(master: &[u8; MASTER_BYTES]) -> Self {
        let derive = |purpose: &str| {
            let mut mac = keyed(master);
            mac.update(purpose.as_bytes());
            keyed(&mac.finalize().into_bytes())
        };
        Self {
            stamp: derive("headcount stamp 1"),
            value: derive("headcount value 1"),
            address: derive("headcount address 1"),
            form: derive("headcount form 1"),
            fingerprint: truncated(&derive("headcount fingerprint 1"), &[]),
            other: None,
            other_is_next: false,
            since: Timestamp(0),
        }
    }

    /// Reads the key file; creates it with mode 0600 when there is none.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        KeyFile::open(path).map(|file| Self::of(&file))
    }

    /// Reads the key file again. It must still know what this made.
    pub fn again(&self, path: &Path) -> Result<Self, KeyError> {
        let new = Self::of(&KeyFile::read(path)?);
        if new.accepts(self) {
            return Ok(new);
        }
        Err(KeyError::Foreign(path.display().to_string()))
    }

    fn accepts(&self, key: &Self) -> bool {
        self.each().any(|own| own.fingerprint == key.fingerprint)
    }

    /// Whether everything that `before` knew is still known.
    pub fn accepts_all_of(&self, before: &Self) -> bool {
        before.each().all(|key| self.accepts(key))
    }

    fn of(file: &KeyFile) -> Self {
        let other = file.other().map(|master| Box::new(Self::new(master)));
        let other_is_next = file.other_is_next();
        Self { other, other_is_next, since: file.since(), ..Self::new(file.first()) }
    }

    /// The key that is accepted beside this one, if there is any.
    pub fn other(&self) -> Option<&Self> {
        self.other.as_deref()
    }

    /// Whether the other key came before this one.
    pub fn is_promoted(&self) -> bool {
        self.other.is_some() && !self.other_is_next
    }

    fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.other())
    }

    /// Tells this key from others; no secret.
    pub fn fingerprint(&self) -> String {
        hex(&self.fingerprint[..4])
    }

    /// Since when everything is made with this key, as far as the file tells.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The MAC that ties a cookie value to a lineage. Every part is length-prefixed, so no two
    /// different inputs are the same bytes.
    pub fn stamp(&self, parts: &[&[u8]]) -> [u8; 16] {
        truncated(&self.stamp, parts)
    }

    /// The key a token is known by: 128 bits of its keyed hash.
    pub fn token(&self, app: &str, name: &str, token: &[u8]) -> SessionKey {
        SessionKey(truncated(&self.value, &[app.as_bytes(), name.as_bytes(), token]))
    }

    /// What a form of ours carries, so that it is known to be ours; the first part says which form.
    pub fn form(&self, parts: &[&[u8]]) -> String {
        hex(&truncated(&self.form, parts))
    }

    /// Whether a form carries that, made with either key. Takes as long whatever is given.
    pub fn is_form(&self, parts: &[&[u8]], given: &str) -> bool {
        let each = self.each().map(|key| key.form(parts).as_bytes().ct_eq(given.as_bytes()));
        each.fold(false, |found, same| found | bool::from(same))
    }

    /// An address that can be compared but not read.
    pub fn address(&self, address: &str) -> [u8; 16] {
        truncated(&self.address, &[address.as_bytes()])
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    // HMAC takes keys of any length (RFC 2104 §2); the error type is never built.
    HmacSha256::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes any key length"))
}

fn truncated(keyed: &HmacSha256, parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let full = mac.finalize().into_bytes();
    let mut cut = [0; 16];
    cut.copy_from_slice(&full[..16]);
    cut
}

/// `N` random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(bytes)
}

/// A fresh public session id.
pub fn random_session_id() -> Result<SessionId, KeyError> {
    random().map(SessionId)
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifting_bytes_between_parts_changes_the_hash() {
        let keyring = Keyring::new(&[7; 32]);
        assert_ne!(keyring.token("ab", "c", b"d"), keyring.token("a", "bc", b"d"));
    }

    #[test]
    fn a_form_is_known_for_what_it_is_also_after_a_change_of_keys() {
        let [old, new] = [Keyring::new(&[1; 32]), Keyring::new(&[2; 32])];
        let made = old.form(&[b"sessions", b"id"]);
        assert!(old.is_form(&[b"sessions", b"id"], &made));
        assert!(!new.is_form(&[b"sessions", b"id"], &made));
        let both = Keyring { other: Some(Box::new(old.clone())), ..new };
        assert!(both.is_form(&[b"sessions", b"id"], &made));
        for (parts, given) in [
            ([&b"sessions"[..], b"other"], &*made),
            ([b"not me", b"id"], &made),
            ([b"sessions", b"id"], ""),
            ([b"sessions", b"id"], &made[1..]),
            ([b"sessions", b"id"], &made.to_ascii_uppercase()),
        ] {
            assert!(!old.is_form(&parts, given), "{given}");
        }
    }

    #[test]
    fn a_file_read_again_must_know_what_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let first = Keyring::open(&path).unwrap();
        assert!(first.other().is_none() && !first.is_promoted());
        file::stage(&path, false).unwrap();
        let staged = first.again(&path).unwrap();
        assert_eq!(staged.fingerprint(), first.fingerprint());
        assert!(!staged.is_promoted());
        let next = staged.other().unwrap().token("a", "n", b"v");
        file::promote(&path).unwrap();
        let promoted = staged.again(&path).unwrap();
        assert!(promoted.is_promoted());
        assert_eq!(promoted.token("a", "n", b"v"), next);
        assert_eq!(promoted.other().unwrap().fingerprint(), first.fingerprint());
        file::retire(&path).unwrap();
        assert!(promoted.again(&path).is_ok());
        assert!(!promoted.again(&path).unwrap().accepts_all_of(&promoted));
        assert!(promoted.accepts_all_of(&staged));
        assert!(matches!(first.again(&path), Err(KeyError::Foreign(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(first.again(&path), Err(KeyError::Io { .. })));
        assert!(!path.exists(), "it is not made anew");
    }
}
