//! Credential cookies on the way down: stamped, left alone, stripped or expired. Knows Set-Cookie
//! lines and stamps; what a session is worth is decided elsewhere.

use std::collections::HashMap;

use http::header::{HeaderMap, HeaderValue, SET_COOKIE};
use parking_lot::RwLock;

use crate::credentials::Bare;
use crate::detect::Issued;
use crate::keyring::Keyring;
use crate::rules::RuleSet;
use crate::session::Timestamp;
use crate::set_cookie::{self, SetCookie};
use crate::stamp::{self, Lineage};
use crate::store::CookieShape;

/// Names, and shapes of one name, that are remembered: the app can set cookies without end.
const NAMES_MAX: usize = 64;
const SHAPES_MAX: usize = 8;

/// What happens to credential cookies that the app sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Stamped with this lineage.
    Stamp(Lineage),
    /// As the app wrote them.
    Keep,
    /// Taken off: they belong to a session that is over.
    Strip,
}

/// What an answer does to the credential cookies, as browsers will see it.
#[derive(Debug, Default)]
pub struct Changes {
    /// Set, with the app's own values.
    pub issued: Vec<Bare>,
    /// Deleted, by name.
    pub deleted: Vec<String>,
    /// How the cookies set looked.
    pub shapes: Vec<CookieShape>,
}

impl Changes {
    /// Tokens in the answer's body are issued like cookies.
    pub fn add(&mut self, tokens: &[Issued]) {
        let tokens = tokens.iter().map(|token| Bare::token(token.role, &token.value));
        self.issued.extend(tokens);
    }
}

/// Every cookie of an answer; rules may look at any.
pub fn read_all(headers: &HeaderMap, now: Timestamp) -> Vec<SetCookie<'_>> {
    let lines = headers.get_all(SET_COOKIE).iter();
    lines.filter_map(|line| set_cookie::parse(line.as_bytes(), now)).collect()
}

/// The credential cookies of an answer.
pub fn read<'h>(headers: &'h HeaderMap, rules: &RuleSet, now: Timestamp) -> Vec<SetCookie<'h>> {
    let mut cookies = read_all(headers, now);
    cookies.retain(|cookie| rules.credential(cookie.name).is_some());
    cookies
}

/// The net effect of these lines.
pub fn changes(cookies: &[SetCookie<'_>]) -> Changes {
    let mut changes = Changes::default();
    for cookie in set_cookie::effective(cookies) {
        if cookie.deletes {
            changes.deleted.push(cookie.name.to_owned());
        } else {
            let bare = Bare { name: cookie.name.to_owned(), value: cookie.value.to_vec() };
            changes.issued.retain(|other| other.name != bare.name);
            changes.issued.push(bare);
            changes.shapes.push(cookie.shape.clone());
        }
    }
    changes.deleted.retain(|name| changes.issued.iter().all(|issued| issued.name != *name));
    changes
}

/// Writes credential cookies for one app.
pub struct Issuer<'a> {
    pub keyring: &'a Keyring,
    pub scope: Option<&'a str>,
    pub app: &'a str,
    pub rules: &'a RuleSet,
    pub now: Timestamp,
}

impl Issuer<'_> {
    /// Rewrites the credential cookies in `headers`; returns those too large for a stamp, which
    /// pass as they are and have to be known by their value.
    pub fn relabel(&self, headers: &mut HeaderMap, label: Label) -> Vec<Bare> {
        let mut unstamped = Vec::new();
        if label == Label::Keep || !headers.contains_key(SET_COOKIE) {
            return unstamped;
        }
        let lines: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
        headers.remove(SET_COOKIE);
        for line in lines {
            let kept = match set_cookie::parse(line.as_bytes(), self.now) {
                Some(cookie) if self.rules.credential(cookie.name).is_some() => {
                    self.rewritten(&cookie, label, &mut unstamped)
                }
                _ => Some(line.clone()),
            };
            if let Some(kept) = kept {
                headers.append(SET_COOKIE, kept);
            }
        }
        unstamped
    }

    fn rewritten(
        &self,
        cookie: &SetCookie<'_>,
        label: Label,
        unstamped: &mut Vec<Bare>,
    ) -> Option<HeaderValue> {
        let as_is = || HeaderValue::from_bytes(cookie.line).ok();
        match label {
            Label::Strip => None,
            Label::Keep => as_is(),
            Label::Stamp(_) if cookie.deletes => as_is(),
            Label::Stamp(lineage) => {
                let stamped = stamp::issue(
                    self.keyring,
                    self.app,
                    cookie.name,
                    cookie.value,
                    lineage,
                    cookie.line.len(),
                );
                match stamped {
                    Some(value) => HeaderValue::from_bytes(&cookie.with_value(&value)).ok(),
                    None => {
                        unstamped.push(Bare {
                            name: cookie.name.to_owned(),
                            value: cookie.value.to_vec(),
                        });
                        as_is()
                    }
                }
            }
        }
    }

    /// Issues a cookie again that the app left as it was, under a new lineage and with the
    /// attributes it had.
    pub fn reissue(&self, headers: &mut HeaderMap, bare: &Bare, lineage: Lineage, shapes: &Shapes) {
        for shape in shapes.of(self.scope, &bare.name) {
            let plain = set_cookie::write(&shape, &bare.value);
            let line =
                stamp::issue(self.keyring, self.app, &bare.name, &bare.value, lineage, plain.len())
                    .map_or(plain, |value| set_cookie::write(&shape, &value));
            if let Ok(line) = HeaderValue::from_bytes(&line) {
                headers.append(SET_COOKIE, line);
            }
        }
    }
}

/// Expires cookies of these names in every shape they were seen in, except those the answer itself
/// sets or deletes.
pub fn expire(
    headers: &mut HeaderMap,
    scope: Option<&str>,
    names: &[String],
    shapes: &Shapes,
    now: Timestamp,
) {
    let mut lines = Vec::new();
    for shape in names.iter().flat_map(|name| shapes.of(scope, name)) {
        let line = set_cookie::expire(&shape);
        let taken = headers.get_all(SET_COOKIE).iter().any(|other| {
            set_cookie::parse(other.as_bytes(), now).is_some_and(|other| {
                other.name == shape.name
                    && other.shape.domain == shape.domain
                    && other.shape.path == shape.path
            })
        });
        if !taken && !lines.contains(&line) {
            lines.push(line);
        }
    }
    for line in lines {
        if let Ok(line) = HeaderValue::from_bytes(&line) {
            headers.append(SET_COOKIE, line);
        }
    }
}

/// How each credential cookie was last set, by scope and name: memory of what the store keeps, where
/// a cookie of a scope is called `scope/name`.
#[derive(Default)]
pub struct Shapes(RwLock<HashMap<String, Vec<CookieShape>>>);

impl Shapes {
    /// From what the store kept.
    pub fn new(known: Vec<CookieShape>) -> Self {
        let shapes = Self::default();
        for shape in known {
            shapes.put(&shape);
        }
        shapes
    }

    /// Remembers a shape; when it is new, also what the store should keep.
    pub fn learn(&self, scope: Option<&str>, shape: &CookieShape) -> Option<CookieShape> {
        let kept = CookieShape { name: kept_name(scope, &shape.name), ..shape.clone() };
        self.put(&kept).then_some(kept)
    }

    fn put(&self, shape: &CookieShape) -> bool {
        if self.0.read().get(&shape.name).is_some_and(|known| known.contains(shape)) {
            return false;
        }
        let mut names = self.0.write();
        if !names.contains_key(&shape.name) && names.len() >= NAMES_MAX {
            return false;
        }
        let known = names.entry(shape.name.clone()).or_default();
        known.retain(|other| (&other.domain, &other.path) != (&shape.domain, &shape.path));
        if known.len() >= SHAPES_MAX {
            known.remove(0);
        }
        known.push(shape.clone());
        true
    }

    /// The shapes of a name; a cookie never seen set is assumed to be for the whole site.
    pub fn of(&self, scope: Option<&str>, name: &str) -> Vec<CookieShape> {
        let kept = self.0.read().get(&kept_name(scope, name)).cloned();
        let plain = |shape| CookieShape { name: name.to_owned(), ..shape };
        kept.map(|shapes| shapes.into_iter().map(plain).collect()).unwrap_or_else(|| {
            vec![CookieShape {
                name: name.to_owned(),
                domain: String::new(),
                path: "/".to_owned(),
                attributes: String::new(),
            }]
        })
    }
}

/// No name of a cookie has a `/` in it.
fn kept_name(scope: Option<&str>, name: &str) -> String {
    scope.map_or_else(|| name.to_owned(), |scope| format!("{scope}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::matcher::Glob;
    use crate::rules::{Credential, Role};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn rules() -> RuleSet {
        let credential = Credential {
            cookies: vec![Glob::name("sid")],
            tokens: vec![],
            role: Role::Session,
            key: vec![],
        };
        RuleSet { credentials: vec![credential], ..RuleSet::default() }
    }

    fn relabeled(lines: &[&str], label: Label) -> (Vec<String>, Vec<Bare>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SET_COOKIE, line.parse().unwrap());
        }
        let keyring = Keyring::new(&[1; 32]);
        let rules = rules();
        let issuer = Issuer { keyring: &keyring, scope: None, app: "a", rules: &rules, now: NOW };
        let unstamped = issuer.relabel(&mut headers, label);
        (shown(&headers), unstamped)
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let text = |line: &HeaderValue| line.to_str().unwrap().to_owned();
        headers.get_all(SET_COOKIE).iter().map(text).collect()
    }

    #[test]
    fn only_credentials_are_stamped_and_deletions_pass() {
        let lines =
            ["csrftoken=x; Path=/", "sid=T; Path=/; HttpOnly", "sid=; Path=/old; Max-Age=0"];
        let (found, unstamped) = relabeled(&lines, Label::Stamp(Lineage::anonymous().unwrap()));
        assert_eq!(found[0], lines[0]);
        assert!(found[1].starts_with("sid=T.hc1.") && found[1].ends_with("; Path=/; HttpOnly"));
        assert_eq!(found[2], lines[2]);
        assert!(unstamped.is_empty());
        assert_eq!(relabeled(&lines, Label::Keep).0, lines);
        assert_eq!(relabeled(&lines, Label::Strip).0, [lines[0]]);
    }

    #[test]
    fn a_cookie_too_large_for_a_stamp_is_passed_and_reported() {
        let large = format!("sid={}; Path=/", "x".repeat(4060));
        let (found, unstamped) = relabeled(&[&large], Label::Stamp(Lineage::anonymous().unwrap()));
        assert_eq!(found, [large]);
        assert_eq!(unstamped.len(), 1);
    }

    #[test]
    fn dead_cookies_expire_in_every_scope_they_had() {
        let shapes = Shapes::default();
        for line in ["sid=1; Path=/a", "sid=2; Path=/b; Secure", "sid=3; Path=/c"] {
            shapes.learn(None, &set_cookie::parse(line.as_bytes(), NOW).unwrap().shape);
        }
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, "sid=new; Path=/c".parse().unwrap());
        expire(&mut headers, None, &["sid".to_owned(), "other".to_owned()], &shapes, NOW);
        let gone = "Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0";
        assert_eq!(
            shown(&headers),
            [
                "sid=new; Path=/c".to_owned(),
                format!("sid=; Path=/a; {gone}"),
                format!("sid=; Path=/b; Secure; {gone}"),
                format!("other=; Path=/; {gone}"),
            ]
        );
    }

    #[test]
    fn what_the_app_sets_is_remembered_within_bounds() {
        let shapes = Shapes::default();
        for at in 0..100 {
            let line = format!("n{at}=1; Path=/");
            shapes.learn(None, &set_cookie::parse(line.as_bytes(), NOW).unwrap().shape);
            let line = format!("sid=1; Path=/{at}");
            shapes.learn(None, &set_cookie::parse(line.as_bytes(), NOW).unwrap().shape);
        }
        assert_eq!(shapes.of(None, "sid").len(), SHAPES_MAX);
        assert_eq!(shapes.of(Some("wiki"), "sid")[0].path, "/");
        assert_eq!(shapes.0.read().len(), NAMES_MAX);
        assert_eq!(shapes.learn(None, &shapes.of(None, "sid")[0].clone()), None);
    }
}
