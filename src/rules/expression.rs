//! Value expressions of the rule language: where a value is, and how it is read from there. A new
//! place or filter is one variant here. Values only.

use super::matcher::Glob;

/// Where a value is, and how it is read from there: `place:selector | filter | …`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub place: Place,
    pub filters: Vec<Filter>,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A field of an urlencoded form in the request.
    Form(String),
    /// A JSON pointer (RFC 6901) into the request body.
    Json(String),
    /// A parameter of the request's query.
    Query(String),
    /// A request header, lower case.
    Header(String),
    /// A request cookie.
    Cookie(Glob),
    /// The value of a cookie the app sets.
    Set(Glob),
    /// A response header, lower case.
    ResponseHeader(String),
    /// The Location of the response.
    Location,
    /// A JSON pointer into the response body.
    ResponseJson(String),
    /// The first group of a regular expression in the response body.
    ResponseText(Regex),
    /// A named segment of the path: `{name}` in the rule's path pattern.
    Path(String),
    /// The user name of HTTP Basic.
    BasicUser,
    /// Name and password of HTTP Basic, as sent.
    Basic,
    /// Whom the app takes the client for when asked.
    Probe,
    /// Whom an earlier step of the login named.
    Step,
}

/// How a value is read further.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    UrlDecode,
    Base64,
    /// Base64 of a zlib stream, as in Flask's session cookie.
    Inflate,
    Json(String),
    Split(char, usize),
    Prefix(usize),
    Bearer,
    Lower,
    Trim,
    /// A claim of a JWT, by name or JSON pointer. The signature is not looked at: only tokens that
    /// the app has just issued may be read.
    Jwt(String),
}

/// A regular expression whose first group is the value. Matching takes time linear in the text.
#[derive(Clone, Debug)]
pub struct Regex(regex::bytes::Regex);

impl Regex {
    /// What a compiled expression may take.
    const BYTES_MAX: usize = 1 << 20;

    fn new(written: &str) -> Result<Self, String> {
        let compiled = regex::bytes::RegexBuilder::new(written)
            .size_limit(Self::BYTES_MAX)
            .dfa_size_limit(Self::BYTES_MAX)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => "a smaller regular expression".to_owned(),
                _ => "a regular expression, without look-around and back-references".to_owned(),
            })?;
        if compiled.captures_len() != 2 {
            return Err("a regular expression with one group, around the value".to_owned());
        }
        Ok(Self(compiled))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What the group matched first; nothing if that is no UTF-8.
    pub fn find(&self, text: &[u8]) -> Option<String> {
        let found = self.0.captures(text)?.get(1)?;
        std::str::from_utf8(found.as_bytes()).ok().map(str::to_owned)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// How large a value may grow when it is unpacked. Cookies are small, bombs are not.
const INFLATED_MAX: usize = 64 * 1024;

/// Every place that can be written, for messages.
pub const PLACES: &str = "form:, json:, query:, header:, cookie:, path:, basic:user, step:, \
    probe:, set:, rheader:, location:, rjson:, rbody:";
/// Every filter that can be written, for messages.
pub const FILTERS: &str =
    "urldecode, b64, inflate, json(/ptr), split(c,n), prefix(n), jwt(claim), bearer, lower, trim";

impl Expression {
    /// From its written form; the error says what is allowed.
    pub fn parse(written: &str) -> Result<Self, String> {
        let (place, filters) = split_filters(written);
        let filters = filters.into_iter().map(parse_filter).collect::<Result<_, _>>()?;
        Ok(Self { place: parse_place(place.trim())?, filters })
    }

    /// Filters alone, as in `urldecode | split('|',2)`.
    pub fn parse_filters(written: &str) -> Result<Vec<Filter>, String> {
        let (first, others) = split_filters(written);
        std::iter::once(first).chain(others).map(parse_filter).collect()
    }

    /// Whether the request's body has to be read for it.
    pub fn reads_request_body(&self) -> bool {
        matches!(self.place, Place::Form(_) | Place::Json(_))
    }

    /// Whether only the app's answer can yield it.
    pub fn is_response(&self) -> bool {
        self.reads_response_body()
            || matches!(self.place, Place::Set(_) | Place::ResponseHeader(_) | Place::Location)
    }

    /// Whether the answer's body has to be read for it.
    pub fn reads_response_body(&self) -> bool {
        matches!(self.place, Place::ResponseJson(_) | Place::ResponseText(_))
    }

    /// Whether it reads the claims of a token.
    pub fn reads_claims(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter, Filter::Jwt(_)))
    }
}

fn parse_place(written: &str) -> Result<Place, String> {
    let (place, selector) = written
        .split_once(':')
        .ok_or_else(|| format!("`place:selector`, the place one of {PLACES}"))?;
    let selector = selector.trim();
    let alone = matches!(place, "location" | "step" | "probe");
    if selector.is_empty() != alone && place != "basic" {
        return Err(match place {
            _ if alone => format!("`{place}:` with nothing after the colon"),
            place => format!("a name after `{place}:`"),
        });
    }
    Ok(match place {
        "form" => Place::Form(selector.to_owned()),
        "json" if selector.starts_with('/') => Place::Json(selector.to_owned()),
        "rjson" if selector.starts_with('/') => Place::ResponseJson(selector.to_owned()),
        "json" | "rjson" => {
            let like = "a JSON pointer that starts with `/`, like";
            return Err(format!("{like} `{place}:/username`"));
        }
        "rbody" => Place::ResponseText(Regex::new(selector)?),
        "path" => Place::Path(selector.to_owned()),
        "basic" if selector.is_empty() => Place::Basic,
        "basic" if selector == "user" => Place::BasicUser,
        "basic" => return Err("`basic:user`, the user name of HTTP Basic".to_owned()),
        "query" => Place::Query(selector.to_owned()),
        "header" => Place::Header(selector.to_ascii_lowercase()),
        "cookie" => Place::Cookie(Glob::name(selector)),
        "set" => Place::Set(Glob::name(selector)),
        "rheader" => Place::ResponseHeader(selector.to_ascii_lowercase()),
        "location" => Place::Location,
        "step" => Place::Step,
        "probe" => Place::Probe,
        _ => return Err(format!("one of the places {PLACES}")),
    })
}

fn parse_filter(written: &str) -> Result<Filter, String> {
    let wrong = || format!("one of the filters {FILTERS}");
    let (name, argument) = match written.trim().split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').ok_or_else(wrong)?)),
        None => (written.trim(), None),
    };
    Ok(match (name, argument) {
        ("urldecode", None) => Filter::UrlDecode,
        ("b64", None) => Filter::Base64,
        ("inflate", None) => Filter::Inflate,
        ("bearer", None) => Filter::Bearer,
        ("lower", None) => Filter::Lower,
        ("trim", None) => Filter::Trim,
        ("json", Some(pointer)) if pointer.starts_with('/') => Filter::Json(pointer.to_owned()),
        ("prefix", Some(count)) => Filter::Prefix(count.trim().parse().map_err(|_| wrong())?),
        ("jwt", Some(claim)) if !claim.trim().is_empty() => Filter::Jwt(claim.trim().to_owned()),
        ("split", Some(argument)) => {
            let (separator, index) = argument.rsplit_once(',').ok_or_else(wrong)?;
            let separator = separator.trim().trim_matches('\'');
            let mut chars = separator.chars();
            match (chars.next(), chars.next(), index.trim().parse()) {
                (Some(separator), None, Ok(index)) => Filter::Split(separator, index),
                _ => return Err(wrong()),
            }
        }
        _ => return Err(wrong()),
    })
}

/// Splits at the `|` between filters, not at one inside `split('|',0)`.
fn split_filters(written: &str) -> (&str, Vec<&str>) {
    // A regular expression has bars of its own: there, only one between blanks begins a filter.
    if written.trim_start().starts_with("rbody:") {
        let mut parts = written.split(" | ");
        return (parts.next().unwrap_or_default(), parts.collect());
    }
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_u32);
    for (at, character) in written.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                parts.push(&written[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&written[start..]);
    let place = parts.remove(0);
    (place, parts)
}

impl Filter {
    /// The value read further, or nothing if it does not have that form.
    pub fn apply(&self, value: &str) -> Option<String> {
        match self {
            Self::UrlDecode => percent_encoding::percent_decode_str(&value.replace('+', " "))
                .decode_utf8()
                .ok()
                .map(std::borrow::Cow::into_owned),
            Self::Base64 => String::from_utf8(base64_bytes(value)?).ok(),
            Self::Inflate => {
                let packed = base64_bytes(value)?;
                let text =
                    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, INFLATED_MAX);
                String::from_utf8(text.ok()?).ok()
            }
            Self::Json(pointer) => json_at(value.as_bytes(), pointer),
            Self::Split(separator, index) => value.split(*separator).nth(*index).map(str::to_owned),
            Self::Prefix(count) => Some(value.chars().take(*count).collect()),
            Self::Bearer => {
                // Servers split at any run of blanks, so a tab must not hide a token.
                let (scheme, token) = value.split_once(|c: char| c.is_ascii_whitespace())?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
            }
            Self::Lower => Some(value.to_lowercase()),
            Self::Trim => Some(value.trim().to_owned()),
            Self::Jwt(claim) => scalar(claim_of(&claims(value)?, claim)?),
        }
    }

    /// As [`Self::apply`], where a list may stand.
    pub fn apply_to_list(&self, value: &str) -> Option<Values> {
        match self {
            Self::Json(pointer) => {
                values_at(&serde_json::from_slice(value.as_bytes()).ok()?, pointer)
            }
            Self::Jwt(claim) => values(claim_of(&claims(value)?, claim)?),
            other => other.apply(value).map(Values::One),
        }
    }
}

/// The claims of a token, whoever signed it.
fn claims(token: &str) -> Option<serde_json::Value> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = base64::Engine::decode(&engine, payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn claim_of<'v>(claims: &'v serde_json::Value, claim: &str) -> Option<&'v serde_json::Value> {
    if claim.starts_with('/') { claims.pointer(claim) } else { claims.get(claim) }
}

/// One value, or those of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    One(String),
    List(Vec<String>),
}

/// As [`scalar_at`], where a list may stand.
pub fn values_at(document: &serde_json::Value, pointer: &str) -> Option<Values> {
    values(document.pointer(pointer)?)
}

fn values(value: &serde_json::Value) -> Option<Values> {
    match value {
        serde_json::Value::Array(items) => {
            Some(Values::List(items.iter().filter_map(scalar).collect()))
        }
        one => scalar(one).map(Values::One),
    }
}

/// The text, number or truth value at a JSON pointer; nothing for null, lists and objects.
pub fn json_at(body: &[u8], pointer: &str) -> Option<String> {
    scalar_at(&serde_json::from_slice(body).ok()?, pointer)
}

/// As [`json_at`], in a document that was read already.
pub fn scalar_at(document: &serde_json::Value, pointer: &str) -> Option<String> {
    scalar(document.pointer(pointer)?)
}

/// Every text, number and truth value of a document, each with its JSON pointer.
pub fn json_scalars(document: &serde_json::Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), document)];
    while let Some((at, value)) = open.pop() {
        match value {
            serde_json::Value::Object(members) => {
                let under =
                    |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                open.extend(members.iter().map(|(key, value)| (under(key), value)));
            }
            serde_json::Value::Array(items) => {
                open.extend(
                    items.iter().enumerate().map(|(n, value)| (format!("{at}/{n}"), value)),
                );
            }
            value => found.extend(scalar(value).map(|text| (at, text))),
        }
    }
    found.sort();
    found
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(truth) => Some(truth.to_string()),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            None
        }
    }
}

fn base64_bytes(value: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let trimmed = value.trim_end_matches('=').replace('-', "+").replace('_', "/");
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(trimmed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_value_is_read_and_a_bomb_is_not() {
        use base64::Engine as _;
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let pack = |text: &[u8]| url.encode(miniz_oxide::deflate::compress_to_vec_zlib(text, 9));
        let text = r#"{"_user_id":"alice"}"#;
        assert_eq!(Filter::Inflate.apply(&pack(text.as_bytes())).as_deref(), Some(text));
        assert_eq!(
            Filter::Inflate.apply("eJyrVoovLU4tis9MUbJSSszJTE5VqgUASzEHAw").as_deref(),
            Some(text)
        );
        assert_eq!(Filter::Inflate.apply(&pack(&vec![b'a'; INFLATED_MAX + 1])), None);
        for other in ["", "eyJhIjoxfQ", "not base64!"] {
            assert_eq!(Filter::Inflate.apply(other), None, "{other}");
        }
    }

    #[test]
    fn expressions_are_read_as_written() {
        let parsed = Expression::parse("set:wp_* | urldecode | split('|',0)").unwrap();
        assert_eq!(parsed.place, Place::Set(Glob::name("wp_*")));
        assert_eq!(parsed.filters, [Filter::UrlDecode, Filter::Split('|', 0)]);
        for wrong in [
            "username",
            "form:",
            "body:x",
            "json:name",
            "form:a | upper",
            "location:x",
            "rjson:user",
            "basic:password",
            "step:user",
            "rbody:no group",
            "rbody:(two)(groups)",
            "rbody:(open",
            r"rbody:(a)\1",
            "rbody:((?:[a-z]{1000}){1000})",
            "rjson:/token | jwt()",
        ] {
            assert!(Expression::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_regular_expression_keeps_its_bars() {
        let parsed = Expression::parse("rbody:(?:user|name)=\"([^\"|]+)\" | lower").unwrap();
        assert_eq!(parsed.filters, [Filter::Lower]);
        let Place::ResponseText(regex) = parsed.place else { panic!("{:?}", parsed.place) };
        assert_eq!(regex.find(b"<p name=\"Al|x\" user=\"\xc3\x84da\">").as_deref(), Some("Äda"));
        assert_eq!(regex.find(b"user=\"\xff\""), None);
    }

    #[test]
    fn claims_are_read_from_whole_tokens() {
        let find = |claim: &str, token: &str| Filter::Jwt(claim.to_owned()).apply(token);
        // {"sub":"alice","id":7,"in":{"name":"Alice"}}
        let token =
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImlkIjo3LCJpbiI6eyJuYW1lIjoiQWxpY2UifX0.sig";
        assert_eq!(find("sub", token).as_deref(), Some("alice"));
        assert_eq!(find("id", token).as_deref(), Some("7"));
        assert_eq!(find("/in/name", token).as_deref(), Some("Alice"));
        assert_eq!((find("in", token), find("none", token)), (None, None));
        let (unsigned, _) = token.rsplit_once('.').unwrap();
        for wrong in [unsigned, "a.b.c", "..", &format!("{token}.x.y"), ""] {
            assert_eq!(find("sub", wrong), None, "{wrong}");
        }
    }
}
