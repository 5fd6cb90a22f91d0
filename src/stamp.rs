//! The stamp on a credential cookie: `value.hc1.<base64url(lineage ‖ MAC)>`. Written on the way
//! down, verified and cut off on the way up. Pure but for the keyed hash; knows nothing of sessions.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::keyring::{KeyError, Keyring, random};
use crate::session::SessionKey;

/// What stands between the app's value and the stamp.
pub const MARK: &[u8] = b".hc1.";
const CODE_BYTES: usize = 43;
const STAMP_BYTES: usize = MARK.len() + CODE_BYTES;

/// A stamped cookie must stay within what browsers keep: name, value and attributes in 4,096 bytes
/// (RFC 6265 §6.1).
const COOKIE_BYTES_MAX: usize = 4096;

/// The chain of tokens one client got from the app. Whether it was begun by a login is part of the
/// id: such a lineage is dead when no session knows it, so forgetting one never revives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// A new lineage for a visitor nobody knows.
    pub fn anonymous() -> Result<Self, KeyError> {
        let mut id = random::<16>()?;
        id[0] &= 0x7f;
        Ok(Self(id))
    }

    /// A new lineage for a login.
    pub fn authenticated() -> Result<Self, KeyError> {
        let mut id = random::<16>()?;
        id[0] |= 0x80;
        Ok(Self(id))
    }

    /// Whether a login began it.
    pub fn is_authenticated(self) -> bool {
        self.0[0] & 0x80 != 0
    }

    /// The key sessions know it by.
    pub fn key(self) -> SessionKey {
        SessionKey(self.0)
    }
}

/// Whether a cookie line of so many bytes has room for a stamp.
pub fn fits(line_bytes: usize) -> bool {
    line_bytes + STAMP_BYTES <= COOKIE_BYTES_MAX
}

/// Stamps `value`. `None` when the cookie line would grow past what browsers keep.
/// `line_bytes` is the length of the whole Set-Cookie line so far.
pub fn issue(
    keyring: &Keyring,
    app: &str,
    name: &str,
    value: &[u8],
    lineage: Lineage,
    line_bytes: usize,
) -> Option<Vec<u8>> {
    if !fits(line_bytes) {
        return None;
    }
    let (inner, quote) = unquote(value);
    let mut code = [0; 32];
    code[..16].copy_from_slice(&lineage.0);
    code[16..].copy_from_slice(&mac(keyring, app, name, value, lineage));
    let mut stamped = Vec::with_capacity(value.len() + STAMP_BYTES);
    stamped.extend_from_slice(inner);
    stamped.extend_from_slice(MARK);
    stamped.extend_from_slice(URL_SAFE_NO_PAD.encode(code).as_bytes());
    stamped.extend_from_slice(quote);
    Some(stamped)
}

/// The app's value and its lineage, if `presented` is byte for byte what [`issue`] made.
pub fn verify(
    keyring: &Keyring,
    app: &str,
    name: &str,
    presented: &[u8],
) -> Option<(Vec<u8>, Lineage)> {
    let (value, lineage, found) = read(presented)?;
    let expected = mac(keyring, app, name, &value, lineage);
    bool::from(subtle::ConstantTimeEq::ct_eq(&expected[..], &found[..])).then_some((value, lineage))
}

/// What `presented` says, whoever made it: for bytes that were verified before.
pub fn unverified(presented: &[u8]) -> Option<(Vec<u8>, Lineage)> {
    read(presented).map(|(value, lineage, _)| (value, lineage))
}

fn read(presented: &[u8]) -> Option<(Vec<u8>, Lineage, [u8; 16])> {
    let (inner, quote) = unquote(presented);
    let at = inner.len().checked_sub(STAMP_BYTES)?;
    let (bare, stamp) = inner.split_at(at);
    let code = URL_SAFE_NO_PAD.decode(stamp.strip_prefix(MARK)?).ok()?;
    let (lineage, mac) = code.split_at_checked(16)?;
    let mut value = Vec::with_capacity(presented.len());
    value.extend_from_slice(bare);
    value.extend_from_slice(quote);
    Some((value, Lineage(lineage.try_into().ok()?), mac.try_into().ok()?))
}

fn mac(keyring: &Keyring, app: &str, name: &str, value: &[u8], lineage: Lineage) -> [u8; 16] {
    keyring.stamp(&[app.as_bytes(), name.as_bytes(), value, &lineage.0])
}

/// The value without its closing quote, and that quote: the stamp goes inside (RFC 6265 §4.1.1
/// allows a quoted value only as a whole).
fn unquote(value: &[u8]) -> (&[u8], &[u8]) {
    if value.len() >= 2 && value.starts_with(b"\"") && value.ends_with(b"\"") {
        value.split_at(value.len() - 1)
    } else {
        (value, b"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::new(&[1; 32])
    }

    #[test]
    fn only_the_very_bytes_issued_verify() {
        let lineage = Lineage::authenticated().unwrap();
        for value in [&b"abc"[..], b"", b"\"quoted value\"", b"a.hc1.b", b"\""] {
            let stamped = issue(&keyring(), "app", "sid", value, lineage, 100).unwrap();
            let (bare, found) = verify(&keyring(), "app", "sid", &stamped).unwrap();
            assert_eq!((&*bare, found), (value, lineage));
            for at in 0..stamped.len() {
                let mut changed = stamped.clone();
                changed[at] ^= 1;
                assert_eq!(verify(&keyring(), "app", "sid", &changed), None, "byte {at}");
            }
            assert_eq!(verify(&keyring(), "app", "other", &stamped), None);
            assert_eq!(verify(&keyring(), "other", "sid", &stamped), None);
            assert_eq!(verify(&Keyring::new(&[2; 32]), "app", "sid", &stamped), None);
        }
    }

    #[test]
    fn what_is_not_verified_is_read_all_the_same() {
        let lineage = Lineage::authenticated().unwrap();
        let stamped = issue(&keyring(), "app", "sid", b"\"v\"", lineage, 100).unwrap();
        assert_eq!(unverified(&stamped), Some((b"\"v\"".to_vec(), lineage)));
        assert_eq!(unverified(b"v"), None);
        assert_eq!(unverified(&stamped[1..10]), None);
    }

    #[test]
    fn the_stamp_goes_inside_closing_quotes() {
        let lineage = Lineage::anonymous().unwrap();
        let stamped = issue(&keyring(), "app", "sid", b"\"a\"", lineage, 100).unwrap();
        assert!(stamped.starts_with(b"\"a.hc1.") && stamped.ends_with(b"\""));
    }

    #[test]
    fn a_cookie_that_would_grow_too_large_is_not_stamped() {
        let lineage = Lineage::anonymous().unwrap();
        assert!(issue(&keyring(), "a", "n", b"v", lineage, 4096 - 48).is_some());
        assert!(issue(&keyring(), "a", "n", b"v", lineage, 4096 - 47).is_none());
    }
}
