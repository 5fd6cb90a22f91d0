//! Session ids in URLs (`;jsessionid=`, `?PHPSESSID=`, `/(S(id))/`): found and cut out, so that a
//! session comes in by its cookie or not at all. Everything else stays byte for byte. Pure.

use http::Uri;
use http::uri::InvalidUri;

use crate::cookies::fold;
use crate::rules::RuleSet;
use crate::rules::expression::Place;
use crate::rules::matcher::Glob;

/// What an app may read a session id from, beside its cookies.
#[derive(Debug, Default)]
pub struct Carriers {
    /// Names of parameters, folded; empty: nothing is cut.
    names: Vec<String>,
    /// The same for cookie names with wildcards. Path parameters only: a query may have a field of
    /// nearly any name.
    patterns: Vec<Glob>,
    /// ASP.NET's path segments.
    cookieless: bool,
}

impl Carriers {
    /// The carriers of these credentials, each named as its cookie; and the name that servlet
    /// containers use whatever the cookie is called.
    pub fn of(rules: &[&RuleSet]) -> Self {
        let mut carriers = Self::default();
        let credentials = || rules.iter().flat_map(|rules| &rules.credentials);
        for cookie in credentials().flat_map(|credential| &credential.cookies) {
            match cookie.literal() {
                Some(name) => carriers.names.push(fold(name.as_bytes())),
                None => carriers.patterns.push(cookie.folded(&|text| fold(text.as_bytes()))),
            }
        }
        // Where a token may stand is said by the rules.
        let stated = |name: &String| {
            credentials().flat_map(|credential| &credential.tokens).any(|token| {
                matches!(&token.place, Place::Query(query) if fold(query.as_bytes()) == *name)
            })
        };
        carriers.names.retain(|name| !stated(name));
        carriers.cookieless =
            carriers.names.iter().any(|name| name == "asp_net_sessionid" || name == "_aspxauth");
        if !carriers.names.is_empty() || !carriers.patterns.is_empty() {
            carriers.names.push("jsessionid".to_owned());
        }
        carriers
    }

    /// Takes session ids out of `uri`.
    pub fn cut_from(&self, uri: &mut Uri) -> Result<(), InvalidUri> {
        if self.names.is_empty() {
            return Ok(());
        }
        let (path, query) = (self.path(uri.path()), uri.query().and_then(|raw| self.query(raw)));
        if path.is_none() && query.is_none() {
            return Ok(());
        }
        let mut target = path.unwrap_or_else(|| uri.path().to_owned());
        let query = query.unwrap_or_else(|| uri.query().map(str::to_owned));
        if let Some(query) = query {
            target.push('?');
            target.push_str(&query);
        }
        // The scheme and host of an absolute URI are not sent on; the Host line has been compared.
        *uri = target.parse()?;
        Ok(())
    }

    /// The path without session ids; `None` if there are none.
    fn path(&self, path: &str) -> Option<String> {
        let suspect = |byte| matches!(byte, b';' | b'=') || (self.cookieless && byte == b'(');
        let encoded = path.contains("%3") || (self.cookieless && path.contains("%2"));
        if !encoded && !path.bytes().any(suspect) {
            return None;
        }
        let mut kept = String::with_capacity(path.len());
        for (at, segment) in path.split('/').enumerate() {
            if self.cookieless && is_cookieless(segment) {
                continue;
            }
            let start = kept.len();
            if at > 0 {
                kept.push('/');
            }
            for piece in parameters(segment) {
                if !self.is_path_carrier(name_of(piece)) {
                    kept.push_str(piece);
                }
            }
            // PHP also reads `/PHPSESSID=id/`.
            if kept.len() == start + 1 && segment.contains('=') && !segment.starts_with(';') {
                kept.truncate(start);
            }
        }
        if !kept.starts_with('/') {
            kept.insert(0, '/');
        }
        (kept != path).then_some(kept)
    }

    /// The query without session ids, `Some(None)` if nothing is left of it; `None` if there are
    /// none.
    fn query(&self, query: &str) -> Option<Option<String>> {
        let carries = |piece: &&str| self.is_named(name_of(piece));
        let pieces = query.split_inclusive(['&', ';']);
        if !pieces.clone().any(|piece| carries(&piece)) {
            return None;
        }
        let mut kept: String = pieces.filter(|piece| !carries(piece)).collect();
        if !query.ends_with(['&', ';']) && kept.ends_with(['&', ';']) {
            kept.pop();
        }
        Some((!kept.is_empty()).then_some(kept))
    }

    fn is_path_carrier(&self, name: &str) -> bool {
        self.is_named(name)
            || (!name.is_empty() && {
                let folded = fold(name.as_bytes());
                self.patterns.iter().any(|pattern| pattern.matches(&folded))
            })
    }

    /// Whether any reading of a parameter's name is one of the names. Ordinary names are compared
    /// as they are.
    fn is_named(&self, name: &str) -> bool {
        let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.bytes().all(ordinary) && !name.starts_with("__") {
            return self.names.iter().any(|known| known.eq_ignore_ascii_case(name));
        }
        let spaced = name.replace('+', " ");
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(&spaced).collect();
        // PHP: a NUL ends the name, and `name[x]` is an array called `name`.
        let end = decoded.iter().position(|byte| matches!(byte, 0 | b'[')).unwrap_or(decoded.len());
        let readings = [fold(&decoded), fold(&decoded[..end])];
        self.names.iter().any(|known| readings.contains(known))
    }
}

/// A segment, cut before each `;`, also one that some server has yet to decode.
fn parameters(segment: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(segment);
    std::iter::from_fn(move || {
        let all = rest?;
        let next = all
            .char_indices()
            .skip(1)
            .find(|(at, character)| {
                *character == ';'
                    || all.get(*at..*at + 3).is_some_and(|code| code.eq_ignore_ascii_case("%3b"))
            })
            .map(|(at, _)| at);
        rest = next.map(|at| &all[at..]);
        Some(next.map_or(all, |at| &all[..at]))
    })
}

/// What stands before `=`, without the separators of its list. A piece without `=` is no parameter
/// that could hold anything.
fn name_of(piece: &str) -> &str {
    let piece = match piece.get(..3) {
        Some(code) if code.eq_ignore_ascii_case("%3b") => &piece[3..],
        _ => piece.strip_prefix(';').unwrap_or(piece),
    };
    piece.split_once('=').map_or("", |(name, _)| name)
}

/// `(S(id))`, `(F(ticket))`, `(S(id)F(ticket))`, …: letters with values in brackets.
fn is_cookieless(segment: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
    let inner = decoded.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let Some(mut rest) = inner.filter(|inner| !inner.is_empty()) else {
        return false;
    };
    while !rest.is_empty() {
        let letter = rest.starts_with(|first: char| first.is_ascii_alphabetic());
        let value = rest.get(1..).filter(|_| letter).and_then(|rest| rest.strip_prefix('('));
        let Some((_, after)) = value.and_then(|value| value.split_once(')')) else {
            return false;
        };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Credential, Role};

    fn carriers(names: &[&str]) -> Carriers {
        let cookies = names.iter().map(|name| Glob::name(name)).collect();
        let credentials =
            vec![Credential { cookies, tokens: vec![], role: Role::Session, key: vec![] }];
        Carriers::of(&[&RuleSet { credentials, ..RuleSet::default() }])
    }

    #[track_caller]
    fn check(names: &[&str], target: &str, expected: &str) {
        let mut uri: Uri = target.parse().unwrap();
        carriers(names).cut_from(&mut uri).unwrap();
        assert_eq!(uri.to_string(), expected, "{target}");
    }

    #[test]
    fn path_parameters_of_the_cookies_name_are_cut_out_of_every_segment() {
        for (target, expected) in [
            ("/a;jsessionid=T", "/a"),
            ("/a;JSESSIONID=T/b", "/a/b"),
            ("/a;%6asessionid=T;v=1", "/a;v=1"),
            ("/a;v=1;jsessionid=T;w", "/a;v=1;w"),
            ("/;jsessionid=T", "/"),
            ("/;jsessionid=T/a", "//a"),
            ("/a;jsessionid=T%2Fb", "/a"),
            ("/a%3Bjsessionid=T", "/a"),
            ("/a;%20jsessionid=T", "/a"),
            ("/a;jsessionid%00=T", "/a"),
            ("/a;jsessionid=T;jsessionid=U?x;y", "/a?x;y"),
            ("/a;jsessionid=T?jsessionid=U", "/a"),
            ("/x/..;jsessionid=T/a", "/x/../a"),
        ] {
            check(&["JSESSIONID"], target, expected);
        }
        check(&["JSESSIONID.*"], "/a;jsessionid.node1=T;b=1", "/a;b=1");
        check(&["SHOP"], "/a;shop=T/b;jsessionid=U", "/a/b");
    }

    #[test]
    fn query_fields_of_the_cookies_name_are_cut_out() {
        for (target, expected) in [
            ("/a?PHPSESSID=T", "/a"),
            ("/a?b=1&PHPSESSID=T", "/a?b=1"),
            ("/a?PHPSESSID=T&b=1", "/a?b=1"),
            ("/a?b=1&phpsessid=T&c", "/a?b=1&c"),
            ("/a?b=1;PHPSESSID=T;c=2&d", "/a?b=1;c=2&d"),
            ("/a?PHPSESSID[]=T&%50HPSESSID=U&+PHPSESSID=V&b", "/a?b"),
            ("/a?PHPSESSID%5Bx%5D=T&PHPSESSID%00x=U&b", "/a?b"),
            ("/PHPSESSID=T/a.php", "/a.php"),
            ("/a.php/PHPSESSID=T", "/a.php"),
        ] {
            check(&["PHPSESSID"], target, expected);
        }
        check(&["my.sess"], "/?my_sess=1&my.sess=2&my%20sess=3&my[sess=4&b=5", "/?b=5");
    }

    #[test]
    fn cookieless_segments_are_cut_out_for_asp_net_alone() {
        let names = &["ASP.NET_SessionId", ".ASPXAUTH"];
        check(names, "/shop/(S(id)F(ticket))/login.aspx?x=1", "/shop/login.aspx?x=1");
        check(names, "/(S(a))/(F(b))/", "/");
        check(names, "/(S(a))", "/");
        check(names, "/%28S%28a%29%29/b", "/b");
        check(names, "/(see(this))/()/(x)/a(S(b))", "/(see(this))/()/(x)/a(S(b))");
        check(&["sid"], "/(S(a))/b", "/(S(a))/b");
    }

    #[test]
    fn everything_else_stays_byte_for_byte() {
        let (names, none): (&[&str], &[&str]) = (&["sid", "wordpress_*"], &[]);
        for target in [
            "/",
            "/a;x=sid;y/b%3Bc?d=%41+e&&f;sid&=g&",
            "/%2e%2e/a=b//c?a=sid=1",
            "/a;sid2=1;xsid=2/sid?sids=1&wordpress_x=1&[sid]=1",
            "/a?",
        ] {
            check(names, target, target);
        }
        check(none, "/a;jsessionid=T?sid=1", "/a;jsessionid=T?sid=1");
        check(names, "/a?&&sid=1&&b=&", "/a?&&&b=&");
        check(names, "http://x/a;sid=1?b", "/a?b");
    }

    /// What is cut leaves nothing behind that makes another.
    #[test]
    fn nothing_is_left_to_cut() {
        for target in [
            "/(S((S(a))b))/(S(/x))/c;s;sid=1id=2;sid=;sid=3",
            "/a?s&sid=1&id=2&sidsid=1=2&sid=",
            "/sid=1/sid=2;sid=3/;sid=4",
        ] {
            let carriers = carriers(&["sid", "ASP.NET_SessionId"]);
            let mut uri: Uri = target.parse().unwrap();
            carriers.cut_from(&mut uri).unwrap();
            let once = uri.to_string();
            carriers.cut_from(&mut uri).unwrap();
            assert_eq!(uri.to_string(), once);
        }
    }
}
