//! A browser's HAR file as a recording. One file holds one browser and no phases: those are told by
//! the login requests. What browsers do differently is read here: Firefox joins Set-Cookie lines
//! with line ends, Chrome may leave them to the list of cookies or take them out altogether.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Method, Request};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::session::Timestamp;

use super::logout;
use super::naming;
use super::recording::{Exchange, Phase, Recording};

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
pub enum HarError {
    #[error("it is not a HAR file: {0}")]
    Format(#[from] serde_json::Error),
    #[error("no request in it can be read")]
    Empty,
}

#[derive(Deserialize)]
struct Har {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    started_date_time: String,
    request: Sent,
    response: Answer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    cookies: Vec<Cookie>,
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    #[serde(default)]
    mime_type: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    params: Vec<Pair>,
}

#[derive(Deserialize)]
struct Answer {
    status: u16,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    cookies: Vec<Cookie>,
    #[serde(default)]
    content: Content,
    #[serde(default, rename = "redirectURL")]
    redirect_url: String,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    text: String,
    #[serde(default)]
    encoding: String,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cookie {
    name: String,
    #[serde(default)]
    value: String,
    path: Option<String>,
    domain: Option<String>,
    expires: Option<String>,
    #[serde(default)]
    http_only: bool,
}

/// The recording, and the origin of the app as the browser saw it.
pub async fn read(text: &[u8], user: Option<&str>) -> Result<(Recording, String), HarError> {
    // Some tools write a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let har: Har = serde_json::from_slice(text)?;
    let mut read = Vec::new();
    for entry in har.log.entries {
        read.extend(exchange(entry).await);
    }
    let login = |exchange: &Exchange| !exchange.is_safe() && password_of(exchange).is_some();
    let main = read.iter().find(|(_, exchange)| login(exchange)).or(read.first());
    let origin = main.map(|(origin, _)| origin.clone()).ok_or(HarError::Empty)?;
    // Pages bring pictures and scripts from elsewhere.
    read.retain(|(from, _)| *from == origin);
    let mut exchanges: Vec<Exchange> = read.into_iter().map(|(_, exchange)| exchange).collect();
    exchanges.sort_by_key(|exchange| exchange.at);
    divide(&mut exchanges, user);
    Ok((Recording { exchanges }, origin))
}

/// One entry with its origin; `None`: nothing that went over HTTP.
async fn exchange(entry: Entry) -> Option<(String, Exchange)> {
    let url: http::Uri = entry.request.url.split('#').next()?.parse().ok()?;
    let origin = format!("{}://{}", url.scheme_str()?, url.authority()?);
    if !origin.starts_with("http") || entry.response.status == 0 {
        return None;
    }
    let target: http::Uri = url.path_and_query()?.as_str().parse().ok()?;
    let mut request = Request::builder()
        .method(Method::from_bytes(entry.request.method.as_bytes()).ok()?)
        .uri(target)
        .body(())
        .ok()?;
    let mut headers = headers(&entry.request.headers);
    if !headers.contains_key(http::header::COOKIE) && !entry.request.cookies.is_empty() {
        let pairs = entry.request.cookies.iter().map(|it| format!("{}={}", it.name, it.value));
        let line = pairs.collect::<Vec<_>>().join("; ");
        headers.extend(HeaderValue::from_str(&line).ok().map(|it| (http::header::COOKIE, it)));
    }
    let body = entry.request.post_data.map(|data| body_of(data, &mut headers)).unwrap_or_default();
    *request.headers_mut() = headers;
    let (parts, ()) = request.into_parts();
    let at = OffsetDateTime::parse(&entry.started_date_time, &Rfc3339);
    let at = at.map_or(0, |at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0));
    let (head, text) = answer(&entry.response);
    let seen = (entry.response.status, head, &text[..]);
    let exchange = Exchange::read(Phase::Pages, Timestamp(at), parts, &body, seen).await;
    Some((origin, exchange))
}

/// Browsers write headers of HTTP/2 with pseudo-headers, and several of a name in one.
fn headers(pairs: &[Pair]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for pair in pairs {
        let Ok(name) = HeaderName::from_bytes(pair.name.to_ascii_lowercase().as_bytes()) else {
            continue;
        };
        for line in pair.value.split('\n') {
            let value = HeaderValue::from_bytes(line.trim().as_bytes());
            headers.extend(value.ok().map(|value| (name.clone(), value)));
        }
    }
    headers
}

fn body_of(data: PostData, headers: &mut HeaderMap) -> Bytes {
    if !headers.contains_key(http::header::CONTENT_TYPE) {
        let kind = HeaderValue::from_str(&data.mime_type).ok();
        headers.extend(kind.map(|kind| (http::header::CONTENT_TYPE, kind)));
    }
    if !data.text.is_empty() {
        return Bytes::from(data.text);
    }
    // As the file has them: some browsers leave them encoded, and decoding twice would spoil names.
    let pairs = data.params.iter().map(|pair| {
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        (decoded(&pair.name), decoded(&pair.value))
    });
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if !body.is_empty() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(http::header::CONTENT_TYPE, form);
    }
    Bytes::from(body)
}

fn answer(answer: &Answer) -> (HeaderMap, Vec<u8>) {
    use base64::Engine as _;
    let mut head = headers(&answer.headers);
    // The text in the file is unpacked already.
    head.remove(http::header::CONTENT_ENCODING);
    if !head.contains_key(SET_COOKIE) {
        for cookie in &answer.cookies {
            let line = HeaderValue::from_str(&cookie.line()).ok();
            head.extend(line.map(|line| (SET_COOKIE, line)));
        }
    }
    if !head.contains_key(http::header::LOCATION) && !answer.redirect_url.is_empty() {
        let to = HeaderValue::from_str(&answer.redirect_url).ok();
        head.extend(to.map(|to| (http::header::LOCATION, to)));
    }
    let content = &answer.content;
    let text = if content.encoding.eq_ignore_ascii_case("base64") {
        base64::engine::general_purpose::STANDARD.decode(&content.text).unwrap_or_default()
    } else {
        content.text.clone().into_bytes()
    };
    (head, text)
}

impl Cookie {
    fn line(&self) -> String {
        let mut line = format!("{}={}", self.name, self.value);
        for (key, value) in [("Path", &self.path), ("Domain", &self.domain)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                line.push_str(&format!("; {key}={value}"));
            }
        }
        let expires =
            self.expires.as_deref().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        if let Some(date) =
            expires.and_then(|at| at.format(&time::format_description::well_known::Rfc2822).ok())
        {
            line.push_str(&format!("; Expires={}", date.replace("+0000", "GMT")));
        }
        if self.http_only {
            line.push_str("; HttpOnly");
        }
        line
    }
}

fn password_of(exchange: &Exchange) -> Option<String> {
    let fields = exchange.named_fields();
    let secret = fields.into_iter().find(|(field, value)| {
        naming::is_secret(field) && !value.is_empty() && !field.starts_with("query:")
    });
    secret.map(|(_, value)| value)
}

/// Tells the phases apart: the last login before anything else has the right password, those with
/// another password were wrong.
fn divide(exchanges: &mut [Exchange], user: Option<&str>) {
    let logins: Vec<usize> = (0..exchanges.len())
        .filter(|at| {
            let sent = &exchanges[*at];
            let named = user.is_none() || naming::in_request(sent, user).is_some();
            !sent.is_safe() && named && password_of(sent).is_some()
        })
        .collect();
    let Some(last) = logins.last() else { return };
    let right = password_of(&exchanges[*last]);
    let first_right =
        logins.iter().copied().find(|at| password_of(&exchanges[*at]) == right).unwrap_or(*last);
    let wrong_until = logins.iter().copied().rfind(|at| *at < first_right);
    let set: Vec<String> =
        exchanges[first_right].sets().into_iter().map(|(name, ..)| name).collect();
    let logout = (first_right + 1..exchanges.len()).find(|at| {
        let sent = &exchanges[*at];
        let fields = sent.named_fields();
        logout::is_named(&sent.target)
            || fields.iter().any(|(_, value)| logout::is_named(value))
            || (!sent.is_safe() && sent.clears().iter().any(|name| set.contains(name)))
    });
    for (at, exchange) in exchanges.iter_mut().enumerate() {
        exchange.phase = if wrong_until.is_some_and(|until| at <= until) {
            Phase::WrongPassword
        } else if at <= first_right {
            Phase::Login
        } else if logout.is_none_or(|logout| at < logout) {
            Phase::Pages
        } else if logins.iter().any(|login| *login > first_right && *login <= at) {
            Phase::SecondLogin
        } else {
            Phase::Logout
        };
    }
    // Pages that the failed login leads to are still part of it.
    if let Some(until) = wrong_until {
        for exchange in &mut exchanges[until + 1..first_right] {
            exchange.phase = Phase::WrongPassword;
        }
    }
}
