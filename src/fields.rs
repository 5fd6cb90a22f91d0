//! Fields of a request: the login form, its JSON, its query. Read once, strictly: what two parsers
//! could read differently is an error, not a guess. Nothing is kept.

mod part;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::refusal::Refusal;

/// PHP leaves out what comes after a thousand fields, Django refuses it (`max_input_vars`,
/// `DATA_UPLOAD_MAX_NUMBER_FIELDS`): no login has as many.
const FIELDS_MAX: usize = 1_000;

/// A buffered request body, as far as rules can look into it.
pub enum Fields {
    /// No body, or one no rule can read.
    Opaque,
    /// Name and value in order.
    Form(Vec<(String, String)>),
    Json(serde_json::Value),
}

/// Reads a login body. Errors are answered to the client.
pub async fn read(headers: &HeaderMap, body: &Bytes) -> Result<Fields, Refusal> {
    if headers.get_all(CONTENT_TYPE).iter().count() > 1 {
        return Err(Refusal::LoginAmbiguous);
    }
    let encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(Refusal::EncodingUnsupported);
    }
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        // Rack takes it for a form.
        return read_form(body).map(Fields::Form);
    };
    let content_type = content_type.to_str().map_err(|_| Refusal::LoginAmbiguous)?;
    let mut parts = content_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let multipart = kind == "multipart/form-data";
    if !multipart && kind != "application/x-www-form-urlencoded" && !is_json(&kind) {
        return Ok(Fields::Opaque);
    }
    charset(parts)?;
    // Laravel looks for this anywhere in the line, and then reads no form.
    let lower = content_type.to_ascii_lowercase();
    if !is_json(&kind) && ["/json", "+json"].iter().any(|mark| lower.contains(mark)) {
        return Err(Refusal::LoginAmbiguous);
    }
    match kind.as_str() {
        "multipart/form-data" => read_multipart(content_type, body).await.map(Fields::Form),
        "application/x-www-form-urlencoded" => read_form(body).map(Fields::Form),
        _ => read_json(body).map(Fields::Json),
    }
}

/// Whether the body is said to be a form as browsers send it by default, or nothing is said.
pub fn is_form(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let kind = kind.as_bytes().split(|b| *b == b';').next();
    kind.is_some_and(|kind| {
        kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    })
}

/// Whether the body is said to be of a kind that fields can be read from.
pub fn is_readable(headers: &HeaderMap) -> bool {
    // Without a kind Rack takes it for a form.
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    !headers.contains_key(CONTENT_TYPE)
        || kinds.any(|kind| {
            let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
            let kind = String::from_utf8_lossy(kind.trim_ascii()).to_ascii_lowercase();
            kind == "multipart/form-data"
                || kind == "application/x-www-form-urlencoded"
                || is_json(&kind)
        })
}

fn is_json(kind: &str) -> bool {
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Some frameworks decode the form by the charset given: only UTF-8 reads the same everywhere.
fn charset<'a>(parameters: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    for parameter in parameters {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        if key.trim().eq_ignore_ascii_case("charset")
            && !["utf-8", "utf8"].iter().any(|known| value.eq_ignore_ascii_case(known))
        {
            return Err(Refusal::EncodingUnsupported);
        }
    }
    Ok(())
}

/// `name=value&…`, decoded once.
pub fn read_form(body: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    few(body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).count())?;
    let decode = |part: &[u8]| {
        let spaced: Vec<u8> =
            part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        let bytes: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
        String::from_utf8(bytes).map_err(|_| Refusal::LoginAmbiguous)
    };
    body.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(at + 1..).unwrap_or_default();
            Ok((decode(&pair[..at])?, decode(value)?))
        })
        .collect()
}

fn few(fields: usize) -> Result<(), Refusal> {
    if fields > FIELDS_MAX { Err(Refusal::LoginAmbiguous) } else { Ok(()) }
}

async fn read_multipart(
    content_type: &str,
    body: &Bytes,
) -> Result<Vec<(String, String)>, Refusal> {
    if content_type.to_ascii_lowercase().matches("boundary").count() != 1 {
        return Err(Refusal::LoginAmbiguous);
    }
    let boundary = multer::parse_boundary(content_type).map_err(|_| Refusal::LoginAmbiguous)?;
    let whole = body.clone();
    let stream = http_body_util::BodyStream::new(http_body_util::Full::new(whole));
    let data = tokio_stream::StreamExt::filter_map(stream, |frame| {
        frame.map(|frame| frame.into_data().ok()).transpose()
    });
    let mut form = multer::Multipart::new(data, boundary);
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|_| Refusal::LoginAmbiguous)? {
        part::check(field.headers())?;
        let name = field.name().unwrap_or_default().to_owned();
        let value = field.bytes().await.map_err(|_| Refusal::LoginAmbiguous)?;
        let value = String::from_utf8(value.to_vec()).unwrap_or_default();
        fields.push((name, value));
        few(fields.len())?;
    }
    Ok(fields)
}

fn read_json(body: &[u8]) -> Result<serde_json::Value, Refusal> {
    let strict: StrictJson = serde_json::from_slice(body).map_err(|_| Refusal::LoginAmbiguous)?;
    Ok(strict.0)
}

impl Fields {
    /// The one value of a form field: `Ok(None)` when absent, an error when it occurs twice, as an
    /// array (`name[]`) or in a spelling that some parser reads as this name, as ASP.NET does in any
    /// letter case.
    pub fn form(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let Self::Form(fields) = self else {
            return Ok(None);
        };
        let wanted = as_php_reads(name).to_ascii_lowercase();
        let keys = as_rack_reads(name);
        let same = |field: &&(String, String)| {
            let read = as_php_reads(&field.0).to_ascii_lowercase();
            read.strip_prefix(&*wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
                || as_rack_reads(&field.0).starts_with(&keys)
        };
        let mut found = fields.iter().filter(same);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some((field, value)), None) if field == name => Ok(Some(value)),
            _ => Err(Refusal::LoginAmbiguous),
        }
    }

    /// The text at a JSON pointer.
    pub fn json(&self, pointer: &str) -> Option<String> {
        let Self::Json(document) = self else {
            return None;
        };
        match document.pointer(pointer)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            serde_json::Value::Bool(truth) => Some(truth.to_string()),
            serde_json::Value::Null
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => None,
        }
    }
}

/// The variable that PHP makes of a field: blanks in front are skipped, a NUL ends the name, and
/// ` `, `.` and a `[` that is never closed become `_`; an index stays as it is.
fn as_php_reads(name: &str) -> String {
    let name = name.split('\0').next().unwrap_or_default().trim_start_matches(' ');
    let index = name.find('[').filter(|at| *at > 0 && name[*at..].contains(']'));
    let (base, index) = name.split_at(index.unwrap_or(name.len()));
    format!("{}{index}", base.replace([' ', '.', '['], "_"))
}

/// The keys that Rack makes of a field: wherever the brackets stand, they only separate.
fn as_rack_reads(name: &str) -> Vec<&str> {
    let name = name.trim_start_matches(' ');
    name.split(['[', ']']).filter(|key| !key.is_empty()).collect()
}

/// JSON in which no object has a key twice, in whatever letter case (.NET and Go take it in any):
/// parsers disagree on which one counts.
struct StrictJson(serde_json::Value);

impl<'de> serde::Deserialize<'de> for StrictJson {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> serde::de::Visitor<'de> for StrictVisitor {
    type Value = serde_json::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without repeated keys")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(serde_json::Value::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(StrictJson(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = serde_json::Map::new();
        let mut folded = std::collections::HashSet::new();
        while let Some((key, StrictJson(value))) = map.next_entry::<String, _>()? {
            let repeated = !folded.insert(key.to_lowercase());
            if object.insert(key, value).is_some() || repeated {
                return Err(serde::de::Error::custom("a key occurs twice"));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(content_type: &str, body: &str) -> Result<Fields, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        read(&headers, &Bytes::copy_from_slice(body.as_bytes())).await
    }

    const FORM: &str = "application/x-www-form-urlencoded";

    #[tokio::test]
    async fn a_form_field_is_decoded_once() {
        let fields = parse(FORM, "%75ser=al+ice%2Bx&pw=1&empty").await.unwrap();
        assert_eq!(fields.form("user").unwrap(), Some("al ice+x"));
        assert_eq!(fields.form("empty").unwrap(), Some(""));
        assert_eq!(fields.form("none").unwrap(), None);
    }

    #[tokio::test]
    async fn a_repeated_name_is_refused() {
        for body in [
            "user=a&user=b",
            "user=a&user=a",
            "user=a&%75ser=b",
            "user=a&user[]=b",
            "user[]=b",
            // PHP reads these as `user` too, and takes the last
            "user=a&+user=b",
            "user=a&user%00x=b",
            "%20user[0]=a",
            // ASP.NET reads these as `user` too, and takes the first
            "User=a&user=b",
            "USER=a",
        ] {
            let fields = parse(FORM, body).await.unwrap();
            assert_eq!(fields.form("user"), Err(Refusal::LoginAmbiguous), "{body}");
        }
        for body in [r#"{"user":"a","us\u0065r":"b"}"#, r#"{"user":"a","User":"b"}"#] {
            let json = parse("application/json", body).await;
            assert_eq!(json.err(), Some(Refusal::LoginAmbiguous), "{body}");
        }
    }

    #[tokio::test]
    async fn an_indexed_field_has_neighbours() {
        let fields = parse(FORM, "user[email]=a&user[password]=b&user.name=c").await.unwrap();
        assert_eq!(fields.form("user[email]").unwrap(), Some("a"));
        assert_eq!(fields.form("user_name"), Err(Refusal::LoginAmbiguous));
        assert_eq!(fields.form("user.name").unwrap(), Some("c"));
        // Rack reads all of these as `user[email]`.
        for other in
            ["[user][email]", "user[[email]", "user]email", "user[email]]", "user[email][]"]
        {
            let fields = parse(FORM, &format!("user[email]=a&{other}=b")).await.unwrap();
            assert_eq!(fields.form("user[email]"), Err(Refusal::LoginAmbiguous), "{other}");
        }
    }

    #[tokio::test]
    async fn a_body_of_no_type_is_a_form_and_one_of_two_types_is_refused() {
        let body = Bytes::from_static(b"user=a");
        let fields = read(&HeaderMap::new(), &body).await.unwrap();
        assert_eq!(fields.form("user").unwrap(), Some("a"));
        let two = parse(&format!("{FORM}; x=/json"), "user=a").await;
        assert_eq!(two.err(), Some(Refusal::LoginAmbiguous));
    }

    #[tokio::test]
    async fn what_cannot_be_read_the_same_everywhere_is_refused() {
        assert_eq!(
            parse("application/x-www-form-urlencoded; charset=utf-16", "user=a").await.err(),
            Some(Refusal::EncodingUnsupported)
        );
        assert_eq!(parse(FORM, "user=%ff").await.err(), Some(Refusal::LoginAmbiguous));
        assert_eq!(parse("application/json", "{").await.err(), Some(Refusal::LoginAmbiguous));
        assert!(parse(FORM, &format!("{}user=a&", "b&".repeat(999))).await.is_ok());
        let many = parse(FORM, &format!("{}user=a", "b&".repeat(1_000))).await;
        assert_eq!(many.err(), Some(Refusal::LoginAmbiguous));
        let deep = "[".repeat(10_000);
        assert_eq!(parse("application/json", &deep).await.err(), Some(Refusal::LoginAmbiguous));
        assert!(matches!(parse("text/plain", "user=a").await, Ok(Fields::Opaque)));
    }

    #[tokio::test]
    async fn a_multipart_login_is_read_too() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nalice\r\n--b--\r\n";
        let fields = parse("multipart/form-data; boundary=b", body).await.unwrap();
        assert_eq!(fields.form("user").unwrap(), Some("alice"));
        let two = parse("multipart/form-data; boundary=b; boundary=c", body).await;
        assert_eq!(two.err(), Some(Refusal::LoginAmbiguous));
        let broken = parse("multipart/form-data; boundary=b", "--b\nuser").await;
        assert_eq!(broken.err(), Some(Refusal::LoginAmbiguous));
    }
}
