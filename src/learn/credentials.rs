//! Which cookies prove a session: by trying pages with some of the cookies left out (`Trials`, made
//! by `replay`), or, without that, by what changed at the login. Pure.

use std::collections::BTreeSet;

use crate::path;
use crate::rules::Role;

use super::login::LoginExchanges;
use super::recording::{Exchange, Phase, Recording};
use super::{Confidence, Findings};

/// One `[[credential]]` as found.
#[derive(Debug)]
pub struct Credential {
    pub names: Vec<String>,
    pub role: Role,
    pub confidence: Confidence,
    pub why: String,
}

/// What came of sending recorded pages again.
#[derive(Default)]
pub struct Trials {
    pub pages: Vec<PageTrial>,
    /// Whether the cookies of before still signed in after the logout; `None`: not tried.
    pub alive_after_logout: Option<bool>,
    /// Whether the page with the form leads away who is signed in.
    pub guests_only: bool,
}

/// One page, sent again with other cookies.
pub struct PageTrial {
    pub target: String,
    pub cookies: Vec<String>,
    /// Twice with all cookies.
    pub whole: [Page; 2],
    /// Without any.
    pub anonymous: Page,
    /// With all but the named one.
    pub without: Vec<(String, Page)>,
    /// With the named one alone.
    pub alone: Vec<(String, Page)>,
}

/// What a page looked like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    pub location: String,
    pub words: BTreeSet<String>,
    /// The names of cookies it set.
    pub sets: Vec<String>,
    /// The members of a JSON answer.
    pub json: Vec<(String, String)>,
}

impl Page {
    /// The words of a text, for comparing: tokens that change with every answer drop out later.
    pub fn words_of(text: &[u8]) -> BTreeSet<String> {
        let text = String::from_utf8_lossy(text);
        let words = text.split(|c: char| c.is_whitespace() || "<>\"'=,:;{}()[]/&".contains(c));
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}

impl PageTrial {
    /// How the page shows that somebody is signed in: words that are always there then, and never
    /// for strangers. `None`: it looks the same to both, or never twice the same.
    fn tells(&self) -> Option<Tell<'_>> {
        let [one, two] = &self.whole;
        if (one.status, &one.location) != (two.status, &two.location) {
            return None;
        }
        let marks: Vec<&String> = one
            .words
            .intersection(&two.words)
            .filter(|word| !self.anonymous.words.contains(*word))
            .collect();
        let differs =
            (one.status, &one.location) != (self.anonymous.status, &self.anonymous.location);
        (differs || !marks.is_empty()).then_some(Tell { like: one, marks })
    }

    /// Whether strangers get another page than who is signed in.
    pub fn is_telling(&self) -> bool {
        self.tells().is_some()
    }

    /// Whether another answer shows somebody signed in; `None`: this page cannot tell.
    pub fn looks_signed_in(&self, page: &Page) -> Option<bool> {
        self.tells().map(|tell| tell.signed_in(page))
    }
}

struct Tell<'a> {
    like: &'a Page,
    marks: Vec<&'a String>,
}

impl Tell<'_> {
    fn signed_in(&self, page: &Page) -> bool {
        let found = self.marks.iter().filter(|mark| page.words.contains(**mark)).count();
        (page.status, &page.location) == (self.like.status, &self.like.location)
            && found * 2 >= self.marks.len()
    }
}

/// What was found out about one cookie by trying.
#[derive(Debug, PartialEq, Eq)]
pub struct Proof {
    pub name: String,
    /// Without it the page is a stranger's.
    pub needed: bool,
    /// It signs in alone.
    pub sufficient: bool,
    /// Alone it gets another credential: it is there to sign in again.
    pub renews: bool,
    /// The cookies that it gets alone.
    gets: Vec<String>,
    pub page: String,
}

/// What the trials say about each cookie that matters.
pub fn judge(trials: &Trials) -> Vec<Proof> {
    let mut proofs: Vec<Proof> = Vec::new();
    for page in &trials.pages {
        let Some(tell) = page.tells() else { continue };
        for name in &page.cookies {
            let with = |list: &[(String, Page)]| {
                list.iter().find(|(tried, _)| tried == name).map(|(_, page)| page.clone())
            };
            let needed = with(&page.without).is_some_and(|page| !tell.signed_in(&page));
            let alone = with(&page.alone);
            let sufficient = alone.as_ref().is_some_and(|page| tell.signed_in(page));
            if !needed && !sufficient {
                continue;
            }
            let sets = alone.map(|page| page.sets).unwrap_or_default();
            let renews = sufficient && !needed;
            match proofs.iter_mut().find(|proof| proof.name == *name) {
                Some(proof) => {
                    proof.needed |= needed;
                    proof.sufficient |= sufficient;
                    proof.renews &= renews || !sufficient;
                    proof.gets.extend(sets);
                }
                None => {
                    // The query, and what follows a `;`, may hold secrets.
                    let raw = page.target.split('?').next().unwrap_or_default();
                    let (name, page) = (name.clone(), path::canonical(raw).text);
                    let gets = sets;
                    proofs.push(Proof { name, needed, sufficient, renews, gets, page });
                }
            }
        }
    }
    // It must be another credential that it gets, not any cookie that comes with every page.
    let names: Vec<String> = proofs.iter().map(|proof| proof.name.clone()).collect();
    for proof in &mut proofs {
        proof.renews &= proof.gets.iter().any(|got| *got != proof.name && names.contains(got));
    }
    proofs
}

/// The credentials: those tried out; else those that changed at the login.
pub fn find(
    recording: &Recording,
    login: Option<&LoginExchanges<'_>>,
    proofs: &[Proof],
) -> Vec<Credential> {
    let mut found = if proofs.is_empty() { by_change(recording, login) } else { tried(proofs) };
    for credential in &mut found {
        credential.names = with_siblings(recording, std::mem::take(&mut credential.names));
    }
    found
}

fn tried(proofs: &[Proof]) -> Vec<Credential> {
    let mut found = Vec::new();
    let remember: Vec<&Proof> = proofs.iter().filter(|proof| proof.renews).collect();
    let session: Vec<&Proof> = proofs.iter().filter(|proof| !proof.renews).collect();
    if !session.is_empty() {
        let page = &session[0].page;
        let why = match &session[..] {
            [one] if one.sufficient && one.needed => {
                format!("it alone signs in at {page}, and nothing else does")
            }
            [one] if one.needed => format!("without it {page} is a stranger's"),
            [_] => format!("it alone signs in at {page}"),
            _ if session.iter().any(|one| one.sufficient) => {
                format!("each was needed or enough at {page} or another page")
            }
            _ => format!("without any one of them {page} is a stranger's"),
        };
        let names = session.iter().map(|proof| proof.name.clone()).collect();
        found.push(Credential { names, role: Role::Session, confidence: Confidence::Sure, why });
    }
    for proof in remember {
        let why = format!("alone it signs in at {}, and brings a new session cookie", proof.page);
        let names = vec![proof.name.clone()];
        found.push(Credential { names, role: Role::Remember, confidence: Confidence::Likely, why });
    }
    found
}

/// Without trials: cookies that the login set anew, or else those it was sent with.
fn by_change(recording: &Recording, login: Option<&LoginExchanges<'_>>) -> Vec<Credential> {
    let Some(login) = login.and_then(|login| login.good.first()) else { return Vec::new() };
    let before = login.cookies();
    let later: BTreeSet<String> = recording
        .in_phase(Phase::Pages)
        .flat_map(Exchange::cookies)
        .map(|(name, _)| name)
        .collect();
    let used = |name: &str| later.is_empty() || later.contains(name);
    let changed = |name: &str, value: &str| {
        !before.iter().any(|(known, earlier)| known == name && earlier == value)
    };
    let set: Vec<(String, bool)> = login
        .sets()
        .into_iter()
        .filter(|(name, value, _)| changed(name, value) && used(name))
        .filter(|(name, value, _)| !is_forgery_token(recording, name, value))
        .filter(|(name, ..)| !is_passing(recording, name))
        .map(|(name, _, hidden)| (name, hidden))
        .collect();
    let (remember, session): (Vec<_>, Vec<_>) =
        set.into_iter().partition(|(name, _)| name.to_ascii_lowercase().contains("remember"));
    let mut found = Vec::new();
    if !session.is_empty() {
        // Scripts have no business with a session cookie; where some are hidden, those are meant.
        let hidden: Vec<String> =
            session.iter().filter(|(_, hidden)| *hidden).map(|(name, _)| name.clone()).collect();
        let (names, confidence) = if hidden.is_empty() {
            (session.into_iter().map(|(name, _)| name).collect(), Confidence::Guess)
        } else {
            (hidden, Confidence::Likely)
        };
        let why = "set anew by the login, and sent with every page after it".to_owned();
        found.push(Credential { names, role: Role::Session, confidence, why });
    } else {
        let kept = before.into_iter().filter(|(name, value)| {
            used(name) && !is_forgery_token(recording, name, value) && sounds_like_session(name)
        });
        let names: Vec<String> = kept.map(|(name, _)| name).collect();
        if !names.is_empty() {
            let why = "the login left the cookie as it was; this one is named like a session";
            let (role, confidence) = (Role::Session, Confidence::Guess);
            found.push(Credential { names, role, confidence, why: why.to_owned() });
        }
    }
    for (name, _) in remember {
        let why = "set anew by the login, and named so".to_owned();
        let (role, confidence) = (Role::Remember, Confidence::Likely);
        found.push(Credential { names: vec![name], role, confidence, why });
    }
    found
}

fn sounds_like_session(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["sess", "sid", "auth", "token", "login"].iter().any(|word| name.contains(word))
}

/// A message for the next page, or a preference: named so, or taken back by a page of somebody who
/// stays signed in.
fn is_passing(recording: &Recording, name: &str) -> bool {
    let low = name.to_ascii_lowercase();
    ["message", "flash", "notice", "lang", "locale", "theme"].iter().any(|word| low.contains(word))
        || recording.in_phase(Phase::Pages).any(|page| page.clears().iter().any(|it| it == name))
}

/// A cookie against forged requests: named so, or its value comes back in a header or a form.
fn is_forgery_token(recording: &Recording, name: &str, value: &str) -> bool {
    let low = name.to_ascii_lowercase();
    if low.contains("csrf") || low.contains("xsrf") || low.contains("forgery") {
        return true;
    }
    value.len() >= 16
        && recording.exchanges.iter().any(|sent| {
            let headers = sent.headers.iter().filter(|(name, _)| *name != http::header::COOKIE);
            headers.into_iter().any(|(_, text)| text.as_bytes() == value.as_bytes())
                || sent.named_fields().iter().any(|(_, field)| field == value)
        })
}

/// Signatures and further pieces of a cookie belong to it.
fn with_siblings(recording: &Recording, names: Vec<String>) -> Vec<String> {
    let set = recording.exchanges.iter().flat_map(Exchange::sets).map(|(name, ..)| name);
    let known: BTreeSet<String> = set.collect();
    let mut all: Vec<String> = Vec::new();
    for name in names {
        let head = name.rsplit_once('.').filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()));
        // Pieces are as many as the content needs.
        let name = head.map_or(name.clone(), |(head, _)| format!("{head}.*"));
        let signature = format!("{name}.sig");
        for name in [Some(name), known.contains(&signature).then_some(signature)] {
            all.extend(name.filter(|name| !all.contains(name)));
        }
    }
    all
}

/// Whether pages bring other values than they were sent.
pub fn rotates(recording: &Recording, credentials: &[String]) -> bool {
    let pages: Vec<&Exchange> =
        recording.in_phase(Phase::Pages).filter(|page| !page.cookies().is_empty()).collect();
    let fresh = |page: &&&Exchange| {
        let sent = page.cookies();
        page.sets().iter().any(|(name, value, _)| {
            credentials.contains(name) && sent.iter().any(|(n, v)| n == name && v != value)
        })
    };
    !pages.is_empty() && pages.iter().filter(fresh).count() * 2 > pages.len()
}

/// Why cookies that were not issued through the proxy must not pass, if there is a reason.
pub fn untracked(
    login: Option<&LoginExchanges<'_>>,
    trials: &Trials,
    findings: &Findings,
) -> Option<&'static str> {
    if trials.alive_after_logout == Some(true) {
        return Some("the app took the cookies of before the logout after it too");
    }
    let named =
        |login: &super::login::Login| login.user.iter().any(|from| from.starts_with("set:"));
    if findings.login.as_ref().is_some_and(named) {
        return Some("the cookie holds the session itself, so that no logout can undo it");
    }
    let [first, second] = login?.good[..] else { return None };
    let names = findings.names();
    let others = second.sets();
    let mut same = first.sets().into_iter().filter(|(name, ..)| names.contains(name));
    same.any(|(name, value, _)| others.iter().any(|(n, v, _)| *n == name && *v == value))
        .then_some("two browsers got the same cookie")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str, sets: &[&str]) -> Page {
        Page {
            status: 200,
            words: Page::words_of(text.as_bytes()),
            sets: sets.iter().map(|name| (*name).to_owned()).collect(),
            ..Page::default()
        }
    }

    fn trial(cookies: &[&str], sees: impl Fn(&[&str]) -> Page) -> Trials {
        let name = |name: &&str| (*name).to_owned();
        let without = |skip: &str| -> Vec<&str> {
            cookies.iter().copied().filter(|name| *name != skip).collect()
        };
        let trial = PageTrial {
            target: "/".to_owned(),
            cookies: cookies.iter().map(name).collect(),
            whole: [sees(cookies), sees(cookies)],
            anonymous: sees(&[]),
            without: cookies.iter().map(|it| (name(it), sees(&without(it)))).collect(),
            alone: cookies.iter().map(|it| (name(it), sees(&[it]))).collect(),
        };
        Trials { pages: vec![trial], ..Trials::default() }
    }

    fn names(trials: &Trials) -> Vec<(Vec<String>, Role)> {
        let found = find(&Recording::default(), None, &judge(trials));
        found.into_iter().map(|credential| (credential.names, credential.role)).collect()
    }

    #[test]
    fn the_cookie_without_which_a_page_is_a_strangers_is_found() {
        let trials = trial(&["sid", "theme", "csrf"], |sent| {
            page(if sent.contains(&"sid") { "hello alice" } else { "hello stranger" }, &[])
        });
        assert_eq!(names(&trials), [(vec!["sid".to_owned()], Role::Session)]);
    }

    #[test]
    fn a_pair_belongs_together() {
        let trials = trial(&["s", "s.sig"], |sent| {
            page(if sent.len() == 2 { "alice" } else { "nobody" }, &[])
        });
        assert_eq!(names(&trials), [(vec!["s".to_owned(), "s.sig".to_owned()], Role::Session)]);
    }

    #[test]
    fn what_brings_a_session_is_there_to_remember() {
        let trials = trial(&["sid", "again"], |sent| match sent {
            [] => page("nobody", &[]),
            ["again"] => page("alice", &["sid"]),
            _ => page("alice", &[]),
        });
        let expected =
            [(vec!["sid".to_owned()], Role::Session), (vec!["again".to_owned()], Role::Remember)];
        assert_eq!(names(&trials), expected);
    }

    #[test]
    fn a_page_for_everybody_tells_nothing() {
        let trials = trial(&["sid"], |_| page("the weather", &[]));
        assert_eq!(judge(&trials), []);
        assert!(!trials.pages[0].is_telling());
    }
}
