//! Whose request is it: the credential cookies of a request against stamps, keys and the registry.
//! Reads memory only; decides what each cookie is, not what happens to the request.

use std::sync::Arc;

use crate::cookies::{self, Candidate};
use crate::keyring::Keyring;
use crate::policy::{self, Standing};
use crate::registry::{Entry, Registry};
use crate::session::{EndReason, Ending, KeyUse, Mode, SessionKey, Timestamp};
use crate::settings::{SessionSettings, Untracked};
use crate::stamp::{self, Lineage};

/// A credential cookie as the app issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    pub name: String,
    pub value: Vec<u8>,
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
    /// Cookies for the app: what the standing entitles to.
    pub forward: Vec<Bare>,
    /// Cookies of the ended session: for logging it out at the app.
    pub dead: Vec<Bare>,
    /// Names of cookies that can never be used again: the browser may forget them.
    pub expire: Vec<String>,
    /// Everything presented, one of a name: what observing forwards.
    pub all: Vec<Bare>,
    /// Tokens that nobody issued through us and that are let through.
    pub untracked: Vec<SessionKey>,
}

/// What it takes to judge.
pub struct Judge<'a> {
    pub keyring: &'a Keyring,
    pub registry: &'a Registry,
    pub app: &'a str,
    pub session: &'a SessionSettings,
    pub mode: Mode,
    pub now: Timestamp,
}

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
    /// Judges all credential cookies of a request together.
    pub fn presented(&self, candidates: &[Candidate<'_>]) -> Presented {
        let mut presented = Presented::default();
        if candidates.is_empty() {
            return presented;
        }
        let mut sessions: Vec<(Arc<Entry>, Bare, Option<Lineage>)> = Vec::new();
        let mut anonymous: Vec<(Bare, Option<Lineage>)> = Vec::new();
        for candidate in candidates {
            let verified = stamp::verify(self.keyring, self.app, candidate.name, candidate.value);
            let lineage = verified.as_ref().map(|(_, lineage)| *lineage);
            let value = verified.map_or_else(|| candidate.value.to_vec(), |(value, _)| value);
            let bare = Bare { name: candidate.name.to_owned(), value };
            once(&mut presented.all, &bare);
            match self.held(candidate, lineage) {
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
                Held::Anonymous(lineage) => anonymous.push((bare, Some(lineage))),
                Held::Untracked(key) => {
                    presented.untracked.push(key);
                    if self.session.untracked == Untracked::Pass {
                        anonymous.push((bare, None));
                    }
                }
                Held::Nothing => {}
            }
        }
        combine(&mut presented, sessions, anonymous);
        presented
    }

    fn held(&self, candidate: &Candidate<'_>, lineage: Option<Lineage>) -> Held {
        if let Some(lineage) = lineage {
            return match self.registry.lookup(lineage.key()) {
                Some(found) => self.by_use(found.entry, found.key_use, found.since),
                None if self.registry.is_quarantined(lineage.key()) => Held::Nothing,
                None if lineage.is_authenticated() => Held::Forgotten,
                None => Held::Anonymous(lineage),
            };
        }
        let canonical = cookies::canonical_value(candidate.value);
        // A stamp in any other spelling: some apps would read the value before it.
        if canonical.windows(stamp::MARK.len()).any(|window| window == stamp::MARK) {
            return Held::Nothing;
        }
        let key = self.keyring.token(self.app, candidate.name, &canonical);
        match self.registry.lookup(key) {
            Some(found)
                if found.exact
                    == exact_key(self.keyring, self.app, candidate.name, candidate.value) =>
            {
                self.by_use(found.entry, found.key_use, found.since)
            }
            Some(_) => Held::Nothing,
            None if self.registry.is_quarantined(key) => Held::Nothing,
            None => Held::Untracked(key),
        }
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
        let expiry =
            policy::expiry(&entry.limit, entry.renewed_at(), entry.last_seen_at(), self.now);
        match expiry {
            Some(reason) if self.mode == Mode::Enforce => {
                let ending = Ending { at: self.now, reason, by: None, by_session: None };
                Held::Over(entry, ending, true)
            }
            _ => Held::Session(entry),
        }
    }
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
        | EndReason::App => false,
    }
}

/// Keeps the first cookie of a name.
fn once(list: &mut Vec<Bare>, bare: &Bare) {
    if !list.iter().any(|known| known.name == bare.name) {
        list.push(bare.clone());
    }
}

/// The hash of a value's very bytes; equal to its key when they are its canonical spelling.
pub fn exact_key(keyring: &Keyring, app: &str, name: &str, value: &[u8]) -> SessionKey {
    keyring.token(app, name, value)
}

/// Key and exact hash of a bare value.
pub fn value_keys(keyring: &Keyring, app: &str, bare: &Bare) -> (SessionKey, SessionKey) {
    let canonical = cookies::canonical_value(&bare.value);
    let key = keyring.token(app, &bare.name, &canonical);
    (key, exact_key(keyring, app, &bare.name, &bare.value))
}
