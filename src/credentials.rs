//! Whose request is it: the credentials of a request, cookies and tokens, against stamps, keys and
//! the registry. Reads memory only; decides what each of them is, not what happens to the request.

use std::sync::Arc;

use crate::cookies::{self, Candidate};
use crate::decide::KeyPair;
use crate::keyring::Keyring;
use crate::policy::Standing;
use crate::registry::{Entry, Found, Registry};
use crate::rules::expression::Filter;
use crate::rules::{self, BASIC, Role, RuleSet};
use crate::session::{EndReason, Ending, Key, KeyUse, Mode, SessionKey, Timestamp};
use crate::settings::{SessionSettings, Untracked};
use crate::stamp::{self, Lineage};

/// A credential as the app issued it: a cookie, or a token under the name of its role.
#[derive(Clone, PartialEq, Eq)]
pub struct Bare {
    pub name: String,
    pub value: Vec<u8>,
}

impl Bare {
    /// A bearer token.
    pub fn token(role: Role, value: &str) -> Self {
        Self { name: role.token_name().to_owned(), value: value.as_bytes().to_vec() }
    }

    pub fn is_cookie(&self) -> bool {
        !rules::is_token_name(&self.name)
    }

    /// The head of a cookie in chunks (ASP.NET Core's `chunks-2`): it says how many there are, which
    /// is the same for many users, and is worth nothing without them.
    pub fn is_chunk_head(&self) -> bool {
        let count = self.value.strip_prefix(b"chunks-").unwrap_or_default();
        !count.is_empty() && count.iter().all(u8::is_ascii_digit)
    }
}

/// Without the value, which is a secret.
impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the credentials of one request amount to.
#[derive(Default)]
pub struct Presented {
    pub standing: Standing,
    /// The session the request belongs to, or belonged to.
    pub entry: Option<Arc<Entry>>,
    /// How it ended, if it has; `None` too if that was longer ago than anyone remembers.
    pub ending: Option<Ending>,
    /// It has timed out, but nobody has recorded that yet.
    pub expired_now: bool,
    /// Answers inherit it. `None`: cookies set in the answer begin a new one.
    pub lineage: Option<Lineage>,
    /// Credentials for the app: what the standing entitles to.
    pub forward: Vec<Bare>,
    /// Cookies of the ended session: for logging it out at the app.
    pub dead: Vec<Bare>,
    /// Names of cookies that can never be used again: the browser may forget them.
    pub expire: Vec<String>,
    /// Everything presented, one of a name: what observing forwards.
    pub all: Vec<Bare>,
    /// Credentials that nobody issued through us, or that nobody has signed in with as far as we
    /// know: whom the app takes them for only a probe can tell.
    pub unproven: Vec<Bare>,
    /// Tokens that nobody issued through us.
    pub untracked: Vec<SessionKey>,
    /// Keys of credentials that only the other MAC key knew: with these they are known by the first.
    pub rekeyed: Vec<Key>,
}

/// What it takes to judge.
pub struct Judge<'a> {
    pub keyring: &'a Keyring,
    pub registry: &'a Registry,
    pub app: &'a str,
    pub rules: &'a RuleSet,
    pub session: &'a SessionSettings,
    pub mode: Mode,
    pub now: Timestamp,
    /// Whoever sends HTTP Basic: address and kind of client. All devices of a user send the same.
    pub client: &'a str,
    /// A page load, which somebody is looking at.
    pub navigation: bool,
}

/// HTTP Basic counts anew so long after the client was told: a page, and what pages ask for by
/// themselves, so that two open pages do not end each other for ever.
const ANEW_PAGE_MS: i64 = 1_000;
const ANEW_MS: i64 = 60_000;

/// What one cookie is.
enum Held {
    Session(Arc<Entry>),
    Over(Arc<Entry>, Ending, bool),
    /// Begun by a login that no session remembers.
    Forgotten,
    Anonymous(Lineage),
    Untracked(SessionKey),
    /// Never a way in.
    Nothing,
}

impl Judge<'_> {
    /// Judges all credentials of a request together.
    pub fn presented(&self, candidates: &[Candidate<'_>]) -> Presented {
        let mut presented = Presented::default();
        if candidates.is_empty() {
            return presented;
        }
        let mut sessions: Vec<(Arc<Entry>, Bare, Option<Lineage>)> = Vec::new();
        let mut anonymous: Vec<(Bare, Option<Lineage>)> = Vec::new();
        let mut heads: Vec<Bare> = Vec::new();
        for candidate in candidates {
            let of_device;
            let candidate = if candidate.name == BASIC {
                of_device = basic_of(candidate.value, self.client);
                &Candidate { name: BASIC, value: &of_device }
            } else {
                candidate
            };
            let verified = self.verified(candidate, &mut presented.rekeyed);
            let lineage = verified.as_ref().map(|(_, lineage)| *lineage);
            let value = verified.map_or_else(|| candidate.value.to_vec(), |(value, _)| value);
            let bare = Bare { name: candidate.name.to_owned(), value };
            once(&mut presented.all, &bare);
            if lineage.is_none() && bare.is_chunk_head() {
                heads.push(bare);
                continue;
            }
            match self.held(candidate, lineage, &mut presented.rekeyed) {
                Held::Session(entry) => sessions.push((entry, bare, lineage)),
                Held::Over(entry, ending, expired_now) => {
                    presented.expire.push(bare.name.clone());
                    presented.dead.push(bare);
                    presented.entry.get_or_insert(entry);
                    presented.ending.get_or_insert(ending);
                    presented.expired_now |= expired_now;
                    presented.standing = standing_of(presented.ending.as_ref());
                }
                Held::Forgotten => {
                    presented.expire.push(bare.name);
                    if presented.standing == Standing::Anonymous {
                        presented.standing = Standing::Left;
                    }
                }
                Held::Anonymous(lineage) => {
                    presented.unproven.push(bare.clone());
                    anonymous.push((bare, Some(lineage)));
                }
                Held::Untracked(key) => {
                    presented.untracked.push(key);
                    presented.unproven.push(bare.clone());
                    if self.session.untracked != Untracked::Refuse {
                        anonymous.push((bare, None));
                    }
                }
                Held::Nothing => {}
            }
        }
        combine(&mut presented, sessions, anonymous);
        if !presented.forward.is_empty() {
            heads.iter().for_each(|head| once(&mut presented.forward, head));
        }
        presented
    }

    fn keys(&self) -> Keys<'_> {
        Keys { keyring: self.keyring, app: self.app, rules: self.rules }
    }

    /// The value behind a stamp and its lineage, if we made it: by the first key, by the other, or by
    /// one that is gone, when it was seen while that was still there.
    fn verified(
        &self,
        candidate: &Candidate<'_>,
        rekeyed: &mut Vec<Key>,
    ) -> Option<(Vec<u8>, Lineage)> {
        let Candidate { name, value } = *candidate;
        let by = |keyring| stamp::verify(keyring, self.app, name, value);
        if let Some(verified) = by(self.keyring) {
            return Some(verified);
        }
        // Not a stamp, for the most part.
        let (bare, lineage) = stamp::unverified(value)?;
        let seen = |keyring: &Keyring| keyring.token(self.app, &stamped(name), value);
        let key = seen(self.keyring);
        if self.registry.lookup(key).is_some() {
            return Some((bare, lineage));
        }
        let other = self.keyring.other()?;
        if by(other).is_none() && self.registry.lookup(seen(other)).is_none() {
            return None;
        }
        // It is known by all its bytes from now on, since the key may go.
        let found = self.registry.lookup(lineage.key());
        let known = found.filter(|found| found.key_use == KeyUse::Bearer);
        if let Some(found) = known.filter(|_| self.keyring.is_promoted()) {
            let (session, key_use) = (found.entry.id, found.key_use);
            rekeyed.push(Key { key, exact: key, session, key_use, since: found.since });
        }
        Some((bare, lineage))
    }

    /// What a value is known by: the key by which it will be, and what the registry has of it, by
    /// that or by the other MAC key's; with whether they are the very bytes.
    fn by_value(
        &self,
        name: &str,
        value: &[u8],
        rekeyed: &mut Vec<Key>,
    ) -> (SessionKey, Option<(Found, bool)>, bool) {
        let (key, exact) = self.keys().of(name, value);
        if let Some(found) = self.registry.lookup(key) {
            let same = found.exact.is_none_or(|issued| issued == exact);
            return (key, Some((found, same)), false);
        }
        let mut quarantined = self.registry.is_quarantined(key);
        let Some(other) = self.keyring.other() else { return (key, None, quarantined) };
        let (other_key, other_exact) = Keys { keyring: other, ..self.keys() }.of(name, value);
        quarantined |= self.registry.is_quarantined(other_key);
        let Some(found) = self.registry.lookup(other_key) else { return (key, None, quarantined) };
        let same = found.exact.is_none_or(|issued| issued == other_exact);
        if same && self.keyring.is_promoted() {
            let (session, key_use, since) = (found.entry.id, found.key_use, found.since);
            rekeyed.push(Key { key, exact, session, key_use, since });
        }
        (key, Some((found, same)), quarantined)
    }

    fn held(
        &self,
        candidate: &Candidate<'_>,
        lineage: Option<Lineage>,
        rekeyed: &mut Vec<Key>,
    ) -> Held {
        if let Some(lineage) = lineage {
            return match self.registry.lookup(lineage.key()) {
                Some(found) => self.by_use(found.entry, found.key_use, found.since),
                None if self.registry.is_quarantined(lineage.key()) => Held::Nothing,
                None if lineage.is_authenticated() => Held::Forgotten,
                None => Held::Anonymous(lineage),
            };
        }
        let cookie = !rules::is_token_name(candidate.name);
        let unescaped = cookies::unescaped(candidate.value);
        // A stamp in any other spelling: some apps would read the value before it.
        let mut windows = unescaped.windows(stamp::MARK.len());
        if windows.any(|window| window.eq_ignore_ascii_case(stamp::MARK)) {
            return Held::Nothing;
        }
        let (key, found, quarantined) = self.by_value(candidate.name, candidate.value, rekeyed);
        match found {
            Some((found, true)) => {
                if candidate.name == BASIC && self.starts_anew(&found.entry, found.key_use) {
                    return Held::Untracked(key);
                }
                self.by_use(found.entry, found.key_use, found.since)
            }
            Some((_, false)) => Held::Nothing,
            None if quarantined => Held::Nothing,
            // Some app would read another value: perhaps an ended session's.
            None if cookie && !cookies::reads_alike(candidate.value) => Held::Nothing,
            None => Held::Untracked(key),
        }
    }

    /// Who signs in again with HTTP Basic sends what was sent before. It counts as a new login once
    /// the client was told that its session is over, and may have asked for the password.
    fn starts_anew(&self, entry: &Entry, key_use: KeyUse) -> bool {
        let wait_ms = if self.navigation { ANEW_PAGE_MS } else { ANEW_MS };
        key_use != KeyUse::Bearer
            || (entry.ending().is_some()
                && entry.told_of_end().is_some_and(|at| self.now.since_ms(at) >= wait_ms))
    }

    fn by_use(&self, entry: Arc<Entry>, key_use: KeyUse, since: Timestamp) -> Held {
        let in_grace = self.now.since_ms(since) < self.session.rotation_grace_ms;
        match key_use {
            KeyUse::Fenced => return Held::Nothing,
            KeyUse::Superseded if !in_grace => return Held::Nothing,
            KeyUse::Superseded if entry.ending().is_some() => return Held::Nothing,
            KeyUse::Superseded | KeyUse::Bearer => {}
        }
        if let Some(ending) = entry.ending().cloned() {
            return Held::Over(entry, ending, false);
        }
        match entry.expiry(self.now) {
            Some(reason) if self.mode == Mode::Enforce => {
                let ending = Ending { at: self.now, reason, by: None, by_session: None };
                Held::Over(entry, ending, true)
            }
            _ => Held::Session(entry),
        }
    }
}

/// Under which name a stamped value is hashed as a whole. No cookie is called so.
fn stamped(name: &str) -> String {
    format!(":stamped {name}")
}

/// HTTP Basic as one device sends it; see [`basic_code`].
fn basic_of(code: &[u8], client: &str) -> Vec<u8> {
    [code, b"\0", client.as_bytes()].concat()
}

/// The part that goes to the app.
pub fn basic_code(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or(value)
}

fn combine(
    presented: &mut Presented,
    sessions: Vec<(Arc<Entry>, Bare, Option<Lineage>)>,
    anonymous: Vec<(Bare, Option<Lineage>)>,
) {
    let Some((first, _, _)) = sessions.first() else {
        if presented.standing == Standing::Anonymous {
            for (bare, lineage) in anonymous {
                once(&mut presented.forward, &bare);
                presented.lineage = presented.lineage.or(lineage);
            }
        }
        return;
    };
    let first = Arc::clone(first);
    if presented.ending.is_some() || sessions.iter().any(|(entry, _, _)| entry.id != first.id) {
        presented.standing = Standing::Ambiguous;
        return;
    }
    for (_, bare, lineage) in sessions {
        once(&mut presented.forward, &bare);
        presented.lineage = presented.lineage.or(lineage);
    }
    presented.standing = Standing::Live;
    presented.entry = Some(first);
    presented.ending = None;
}

fn standing_of(ending: Option<&Ending>) -> Standing {
    match ending {
        Some(ending) if !left_here(ending) => Standing::Over(ending.reason),
        _ => Standing::Left,
    }
}

/// Whether the user ended it in the browser that had it.
fn left_here(ending: &Ending) -> bool {
    match ending.reason {
        EndReason::Logout => ending.by_session.is_none(),
        EndReason::Replaced => true,
        EndReason::Limit
        | EndReason::IdleTimeout
        | EndReason::AbsoluteTimeout
        | EndReason::Admin
        | EndReason::SelfService
        | EndReason::PasswordChange
        | EndReason::ClientChanged
        | EndReason::App => false,
    }
}

/// Keeps the first cookie of a name.
fn once(list: &mut Vec<Bare>, bare: &Bare) {
    if !list.iter().any(|known| known.name == bare.name) {
        list.push(bare.clone());
    }
}

/// What values are known by.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    pub keyring: &'a Keyring,
    pub app: &'a str,
    pub rules: &'a RuleSet,
}

impl Keys<'_> {
    /// Key and exact hash of a bare value: of its canonical spelling, and of its very bytes. Where
    /// the rules read a stable id from it, both are of that id.
    pub fn of(&self, name: &str, value: &[u8]) -> KeyPair {
        let pair = |name: &str, value: &[u8]| {
            let canonical = cookies::canonical_value(value);
            let of = |bytes: &[u8]| self.keyring.token(self.app, name, bytes);
            (of(&canonical), of(value))
        };
        let credential = self.rules.carried_by(name).filter(|own| !own.key.is_empty());
        let Some(credential) = credential else { return pair(name, value) };
        match inner(&credential.key, value) {
            // Several cookies may share the id.
            Some(id) => pair(credential.role.token_name(), id.as_bytes()),
            None => pair(name, value),
        }
    }

    /// The same of a credential.
    pub fn of_bare(&self, bare: &Bare) -> KeyPair {
        self.of(&bare.name, &bare.value)
    }
}

fn inner(key: &[Filter], value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.to_owned();
    let id = key.iter().try_fold(text, |text, filter| filter.apply(&text))?;
    (!id.is_empty()).then_some(id)
}
