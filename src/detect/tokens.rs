//! Bearer tokens of a request: found in every place where a credential can stand, and taken off
//! again. What cannot be read in one way only is refused. Pure; what a token is worth is decided
//! elsewhere.

use http::header::{AUTHORIZATION, HeaderMap};

use super::{RequestFacts, request_value};
use crate::cookies::Candidate;
use crate::fields;
use crate::refusal::Refusal;
use crate::rules::expression::Place;
use crate::rules::{BASIC, Role, RuleSet};

/// A token as presented.
#[derive(Clone, Debug, PartialEq)]
pub struct Token<'r> {
    pub role: Role,
    pub value: String,
    pub place: &'r Place,
}

impl Token<'_> {
    /// What credentials of its kind are called.
    pub fn name(&self) -> &'static str {
        if *self.place == Place::Basic { BASIC } else { self.role.token_name() }
    }
}

impl<'t> From<&'t Token<'_>> for Candidate<'t> {
    fn from(token: &'t Token<'_>) -> Self {
        Self { name: token.name(), value: token.value.as_bytes() }
    }
}

/// Every token of the request. `facts.fields` counts as far as the body was read.
pub fn find<'r>(rules: &'r RuleSet, facts: RequestFacts<'_>) -> Result<Vec<Token<'r>>, Refusal> {
    let mut tokens = Vec::new();
    for credential in &rules.credentials {
        for expression in &credential.tokens {
            let place = &expression.place;
            if let Some(name) = header_of(place) {
                single_and_plain(facts.headers, name)?;
            }
            let found = request_value(expression, facts);
            let Some(value) = found.map_err(|_| Refusal::CredentialsAmbiguous)? else { continue };
            if !value.bytes().all(is_token) {
                return Err(Refusal::CredentialsAmbiguous);
            }
            tokens.push(Token { role: credential.role, value, place });
        }
    }
    Ok(tokens)
}

/// The header that a token in this place stands in.
pub fn header_of(place: &Place) -> Option<&str> {
    match place {
        Place::Header(name) => Some(name),
        Place::Basic => Some(AUTHORIZATION.as_str()),
        _ => None,
    }
}

/// Of two lines servers take the first, the last, or both; some take odd bytes for blanks, and CGI
/// makes no difference between `-` and `_`.
fn single_and_plain(headers: &HeaderMap, name: &str) -> Result<(), Refusal> {
    let mut lines = headers.get_all(name).iter();
    let plain = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e);
    let dashed = |name: &str| name.replace('_', "-");
    let twin = |key: &str| key != name && key.len() == name.len() && dashed(key) == dashed(name);
    let odd = lines.next().is_some_and(|line| !line.as_bytes().iter().all(plain))
        || headers.keys().any(|key| twin(key.as_str()));
    if odd || lines.next().is_some() { Err(Refusal::CredentialsAmbiguous) } else { Ok(()) }
}

/// More than RFC 6750 §2.1 allows, since some apps have `|` or `:` in theirs, but nothing at which a
/// lenient server would cut.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'"' | b'\\')
}

/// A query, or an urlencoded body, without the pairs of this name; every other byte as it was.
pub fn without(pairs: &str, name: &str) -> String {
    let named = |pair: &&str| {
        fields::read_form(pair.as_bytes())
            .is_ok_and(|read| read.first().is_some_and(|(found, _)| found == name))
    };
    pairs.split('&').filter(|pair| !named(pair)).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;
    use crate::rules::Credential;
    use crate::rules::expression::Expression;

    fn rules() -> RuleSet {
        let places = ["header:authorization | bearer", "query:access_token", "form:access_token"];
        let tokens = places.iter().map(|place| Expression::parse(place).unwrap()).collect();
        let credential =
            Credential { cookies: vec![], tokens, role: Role::Session, key: Vec::new() };
        RuleSet { credentials: vec![credential], ..RuleSet::default() }
    }

    fn found(lines: &[&[u8]], query: Option<&str>, body: &str) -> Result<Vec<String>, Refusal> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("authorization", http::HeaderValue::from_bytes(line).unwrap());
        }
        let fields = Fields::Form(fields::read_form(body.as_bytes()).unwrap());
        let facts = RequestFacts {
            method: "POST",
            path: "/",
            query,
            headers: &headers,
            fields: &fields,
            step: None,
        };
        let rules = rules();
        find(&rules, facts).map(|tokens| tokens.into_iter().map(|token| token.value).collect())
    }

    #[test]
    fn tokens_are_found_wherever_they_can_stand() {
        for line in [&b"Bearer T.1"[..], b"bearer  T.1", b"BEARER\tT.1 "] {
            assert_eq!(found(&[line], None, "").unwrap(), ["T.1"]);
        }
        assert_eq!(found(&[], Some("a=1&access_token=T%2e1"), "").unwrap(), ["T.1"]);
        assert_eq!(found(&[b"Bearer A"], None, "access_token=B").unwrap(), ["A", "B"]);
        assert_eq!(found(&[b"Basic QTpC"], Some("token=T"), "x=y").unwrap(), [""; 0]);
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        let twice: &[&[u8]] = &[b"Bearer A", b"Bearer B"];
        for lines in [
            twice,
            &[b"Bearer A, Bearer B"],
            &[b"Bearer A B"],
            &[b"Bearer \xa0A"],
            &[b"Bearer\xa0A"],
            &[b"Bearer \"A\""],
        ] {
            assert_eq!(found(lines, None, ""), Err(Refusal::CredentialsAmbiguous), "{lines:?}");
        }
        for query in ["access_token=A&access_token=B", "access_token=A&access.token=B"] {
            assert_eq!(found(&[], Some(query), ""), Err(Refusal::CredentialsAmbiguous), "{query}");
        }
    }

    #[test]
    fn a_header_that_some_servers_take_for_that_of_the_token_is_refused() {
        let mut headers = HeaderMap::new();
        let check = |headers: &HeaderMap, name| single_and_plain(headers, name).is_ok();
        headers.insert("x-auth-token", "A".parse().unwrap());
        headers.insert("x_other_token", "B".parse().unwrap());
        assert!(check(&headers, "x-auth-token") && check(&headers, "authorization"));
        headers.insert("x-auth_token", "C".parse().unwrap());
        for name in ["x-auth-token", "x_auth_token", "x-other-token"] {
            assert!(!check(&headers, name), "{name}");
        }
    }

    #[test]
    fn a_pair_is_taken_off_and_the_rest_stays() {
        assert_eq!(without("a=%31&access%5Ftoken=T&b", "access_token"), "a=%31&b");
        assert_eq!(without("access_token=T", "access_token"), "");
        assert_eq!(without("a&&b=", "access_token"), "a&&b=");
    }
}
