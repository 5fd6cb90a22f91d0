//! The MAC keys: read or created from `key_file`, one derived key per purpose. Everything that is
//! hashed, signed or compared with a key goes through here; the secret itself never leaves.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::session::{SessionId, SessionKey};

type HmacSha256 = Hmac<Sha256>;

/// Bytes of the master key.
const MASTER_BYTES: usize = 32;

/// The derived keys, each with its HMAC state already set up.
#[derive(Clone)]
pub struct Keyring {
    stamp: HmacSha256,
    value: HmacSha256,
    address: HmacSha256,
}

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read or create the key file {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error(
        "the key file {0} must hold exactly 64 hexadecimal digits; restore it from backup, or delete it to start anew (every stamped cookie becomes invalid)"
    )]
    Malformed(String),
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
        }
    }

    /// Reads the key file; creates it with mode 0600 when there is none.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let shown = path.display().to_string();
        let io = |source| KeyError::Io { path: shown.clone(), source };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => {
                let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(KeyError::Exposed { path: shown, mode });
                }
                text
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("{}\n", hex(&random::<MASTER_BYTES>()?));
                create_private(path, &text).map_err(io)?;
                text
            }
            Err(error) => return Err(io(error)),
        };
        let master = unhex(text.trim()).ok_or(KeyError::Malformed(shown))?;
        Ok(Self::new(&master))
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

fn create_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; MASTER_BYTES]> {
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

    #[test]
    fn the_key_file_is_private_and_stable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let first = Keyring::open(&path).unwrap();
        let second = Keyring::open(&path).unwrap();
        assert_eq!(first.token("a", "n", b"v"), second.token("a", "n", b"v"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keyring::open(&path), Err(KeyError::Exposed { .. })));
    }

    #[test]
    fn a_damaged_key_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        create_private(&path, "abc").unwrap();
        assert!(matches!(Keyring::open(&path), Err(KeyError::Malformed(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
    }

    #[test]
    fn shifting_bytes_between_parts_changes_the_hash() {
        let keyring = Keyring::new(&[7; 32]);
        assert_ne!(keyring.token("ab", "c", b"d"), keyring.token("a", "bc", b"d"));
    }
}
