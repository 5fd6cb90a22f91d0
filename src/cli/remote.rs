//! The commands that ask a running Headcount through its admin API.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{Access, Action, FAILED, OK, USAGE, local};
use crate::audit;
use crate::fetch::{FetchError, fetch, fetch_into};
use crate::terminal::{complain, safe, say};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a `sessions` command.
pub(super) fn sessions(access: &Access, action: &Action) -> u8 {
    let api = match Api::open(access) {
        Ok(api) => api,
        Err(code) => return code,
    };
    let done = match action {
        Action::List { user, state, limit, json } => {
            list(&api, user.as_deref(), state.as_deref(), *limit, *json)
        }
        Action::Show { id, json } => show(&api, id, *json),
        Action::End { ids } => end(&api, ids),
        Action::EndUser { user, except } => end_user(&api, user, except.as_deref()),
    };
    done.map_or_else(fail, |()| OK)
}

/// Runs `health`.
pub(super) fn health(access: &Access) -> u8 {
    let authority = match authority(access) {
        Ok(authority) => authority,
        Err(code) => return code,
    };
    match (Api { authority, token: None }).call(Method::GET, "/readyz") {
        Ok(_) => {
            say("ready");
            OK
        }
        Err(message) => fail(format!("not ready: {message}")),
    }
}

pub(super) fn fail(message: impl AsRef<str>) -> u8 {
    complain(format!("headcount: {}", safe(message.as_ref())));
    FAILED
}

/// `host:port` of the admin API.
fn authority(access: &Access) -> Result<String, u8> {
    if let Some(url) = &access.admin {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let parsed = rest.parse::<http::uri::Authority>();
        return match parsed {
            Ok(authority) if authority.port().is_some() && !rest.contains('@') => {
                Ok(authority.to_string())
            }
            _ => {
                complain("headcount: --admin takes an address like http://127.0.0.1:9901");
                Err(USAGE)
            }
        };
    }
    let Some(config) = &access.config else { return Err(USAGE) };
    let mut address = local::admin_of(config)?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address.to_string())
}

fn token(access: &Access) -> Result<String, u8> {
    let token = match &access.token_file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display())),
        None => std::env::var("HEADCOUNT_TOKEN").map_err(|_| {
            "no admin token: give --token-file FILE or set HEADCOUNT_TOKEN".to_owned()
        }),
    };
    token.map(|token| token.trim().to_owned()).map_err(|message| {
        complain(format!("headcount: {message}"));
        USAGE
    })
}

pub(super) struct Api {
    authority: String,
    token: Option<String>,
}

impl Api {
    /// With the token that the options or the environment give.
    pub(super) fn open(access: &Access) -> Result<Self, u8> {
        Ok(Self { authority: authority(access)?, token: Some(token(access)?) })
    }

    /// The JSON answer, or what to tell the user.
    pub(super) fn call(&self, method: Method, path: &str) -> Result<Value, String> {
        self.send(method, path, None)
    }

    /// The same with JSON to send.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        json: Option<&Value>,
    ) -> Result<Value, String> {
        let answer = self.fetch(method, path, json)?;
        serde_json::from_slice(&answer).map_err(|_| format!("{} is no admin API", self.authority))
    }

    /// The answer as it is, if it is a good one.
    pub(super) fn fetch(
        &self,
        method: Method,
        path: &str,
        json: Option<&Value>,
    ) -> Result<Bytes, String> {
        let request = self.request(method, path, json)?;
        let fetched = block_on(fetch(&self.authority, request, TIMEOUT))?;
        good(fetched.map_err(|error| chain(&error))?)
    }

    /// An answer of any size, in pieces.
    pub(super) fn stream(
        &self,
        path: &str,
        keep: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), String> {
        let request = self.request(Method::GET, path, None)?;
        let fetched = block_on(fetch_into(&self.authority, request, TIMEOUT, keep))?;
        good(fetched.map_err(|error| chain(&error))?).map(drop)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        json: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, &self.authority);
        if json.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request
            .body(Full::from(json.map(Value::to_string).unwrap_or_default()))
            .map_err(|_| "this token cannot be sent in a header".to_owned())
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(work))
}

/// What went wrong, with its cause.
fn chain(error: &FetchError) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The body of a good answer, or what the other one says.
fn good(response: Response<Bytes>) -> Result<Bytes, String> {
    if response.status() == StatusCode::OK {
        return Ok(response.into_body());
    }
    let body = serde_json::from_slice::<Value>(response.body()).ok();
    let told = |name: &str| body.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let detail = told("detail").or_else(|| told("reason")).unwrap_or_default();
    Err(format!("{} {detail}", response.status()).trim_end().to_owned())
}

fn list(
    api: &Api,
    user: Option<&str>,
    state: Option<&str>,
    limit: Option<u32>,
    json: bool,
) -> Result<(), String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(user.map(|user| ("user", user)));
    query.extend_pairs(state.map(|state| ("state", state)));
    query.extend_pairs(limit.map(|limit| ("limit", limit.to_string())));
    let page = api.call(Method::GET, &format!("/api/v1/sessions?{}", query.finish()))?;
    if json {
        say(audit::escape_json(&page.to_string()));
        return Ok(());
    }
    let sessions = page["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    say(table(sessions).trim_end());
    if !page["next_cursor"].is_null() {
        complain("There are more: raise --limit (at most 1000) or use the API with its cursor.");
    }
    Ok(())
}

fn show(api: &Api, id: &str, json: bool) -> Result<(), String> {
    let session = api.call(Method::GET, &session_path(id))?;
    if json {
        say(audit::escape_json(&session.to_string()));
        return Ok(());
    }
    let groups = session["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    for group in groups.iter().filter_map(Value::as_str) {
        say(format!("{:<11} {}", "group", safe(group)));
    }
    for (label, pointer) in [
        ("session", "/id"),
        ("user", "/user"),
        ("state", "/state"),
        ("created", "/created_at"),
        ("last seen", "/last_seen_at"),
        ("expires", "/expires_at"),
        ("address", "/client/address"),
        ("country", "/client/country"),
        ("city", "/client/city"),
        ("device", "/client/device"),
        ("kind", "/client/device_class"),
        ("user agent", "/client/user_agent"),
        ("ended", "/end/at"),
        ("reason", "/end/reason"),
        ("by", "/end/by"),
        ("by session", "/end/by_session"),
    ] {
        if let Some(text) = session.pointer(pointer).and_then(Value::as_str) {
            say(format!("{label:<11} {}", safe(text)));
        }
    }
    Ok(())
}

fn end(api: &Api, ids: &[String]) -> Result<(), String> {
    for id in ids {
        let answer = api.call(Method::DELETE, &session_path(id))?;
        let ended = answer["ended"].as_u64() == Some(1);
        say(format!("{} {}", safe(id), if ended { "ended" } else { "had ended before" }));
    }
    Ok(())
}

fn end_user(api: &Api, user: &str, except: Option<&str>) -> Result<(), String> {
    let mut path = format!("/api/v1/users/{}/sessions", encoded(user));
    if let Some(except) = except {
        let _ = write!(path, "?except={}", encoded(except));
    }
    let answer = api.call(Method::DELETE, &path)?;
    say(format!("{}: {} ended", safe(user), answer["ended"]));
    Ok(())
}

fn session_path(id: &str) -> String {
    format!("/api/v1/sessions/{}", encoded(id))
}

pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Sessions as aligned columns.
pub(super) fn table(sessions: &[Value]) -> String {
    let mut rows = vec![
        [
            "USER",
            "STATE",
            "CREATED",
            "LAST SEEN",
            "EXPIRES OR ENDED",
            "ADDRESS",
            "DEVICE",
            "SESSION",
        ]
        .map(str::to_owned),
    ];
    let text =
        |session: &Value, pointer: &str| session.pointer(pointer).and_then(Value::as_str).map(safe);
    for session in sessions {
        let get = |pointer| text(session, pointer).unwrap_or_else(|| "-".to_owned());
        let time = |pointer| seconds(&get(pointer));
        let last = match text(session, "/end/at") {
            Some(at) => format!("{} {}", seconds(&at), get("/end/reason")),
            None => time("/expires_at"),
        };
        rows.push([
            get("/user"),
            get("/state"),
            time("/created_at"),
            time("/last_seen_at"),
            last,
            match text(session, "/client/country") {
                Some(country) => format!("{} {country}", get("/client/address")),
                None => get("/client/address"),
            },
            get("/client/device"),
            get("/id"),
        ]);
    }
    columns(&rows)
}

/// Cells in aligned columns, a row each line.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `2026-03-01 12:00:01` of an RFC 3339 time in UTC.
pub(super) fn seconds(time: &str) -> String {
    time.get(..19).map_or_else(|| time.to_owned(), |time| time.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_safe() {
        let sessions = serde_json::json!([
            {"id": "01", "user": "alice\u{1b}[31m", "state": "live",
             "created_at": "2026-03-01T12:00:01.000Z", "last_seen_at": "2026-03-01T12:00:02.000Z",
             "expires_at": null, "client": {"address": "10.0.0.1", "country": "DE", "device": "Firefox on Windows"},
             "end": null},
            {"id": "02", "user": null, "state": "ended",
             "created_at": "2026-03-01T12:00:01.000Z", "last_seen_at": "2026-03-01T12:00:02.000Z",
             "client": {"address": null}, "end": {"at": "2026-03-01T12:00:03.000Z", "reason": "limit"}},
        ]);
        let table = table(sessions.as_array().unwrap());
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("alice\\u{1b}[31m  live   2026-03-01 12:00:01  "), "{table}");
        assert!(lines[1].ends_with("  10.0.0.1 DE  Firefox on Windows  01"), "{table}");
        assert!(lines[2].contains("2026-03-01 12:00:03 limit  -            -"), "{table}");
        let columns: Vec<_> = lines.iter().map(|line| line.rfind("  ")).collect();
        assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read =
            |url: &str| authority(&Access { admin: Some(url.to_owned()), ..Access::default() });
        assert_eq!(read("http://127.0.0.1:9901/"), Ok("127.0.0.1:9901".to_owned()));
        assert_eq!(read("localhost:9901"), Ok("localhost:9901".to_owned()));
        for wrong in ["https://h:1", "h", "http://u@h:1", "http://h:1/path", ""] {
            assert_eq!(read(wrong), Err(USAGE), "{wrong}");
        }
    }

    #[test]
    fn commands_work_on_a_real_listener() {
        use crate::admin::tests::{ID1, OPERATOR, people, start};
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let admin = runtime.block_on(start(people()));
        let api = Api { authority: admin.address.clone(), token: Some(OPERATOR.to_owned()) };
        list(&api, Some("alice"), Some("live"), Some(1), false).unwrap();
        list(&api, None, None, None, true).unwrap();
        show(&api, ID1, false).unwrap();
        end(&api, &[ID1.to_owned(), ID1.to_owned()]).unwrap();
        end_user(&api, "alice", Some(ID1)).unwrap();
        let shown = api.call(Method::GET, "/api/v1/users/alice").unwrap();
        assert_eq!(shown["live"], 0);
        let told = list(&api, None, Some("dead"), None, false).unwrap_err();
        assert!(told.starts_with("400 Bad Request "), "{told}");
        let told = show(&api, "../../metrics", true).unwrap_err();
        assert!(told.starts_with("404 Not Found There is no session"), "{told}");
        let nobody = Api { authority: admin.address.clone(), token: None };
        let told = list(&nobody, None, None, None, false).unwrap_err();
        assert!(told.starts_with("401 Unauthorized Send an admin token"), "{told}");
        let access = Access { admin: Some(admin.address), ..Access::default() };
        assert_eq!(health(&access), OK);
    }
}
