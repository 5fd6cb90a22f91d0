//! The one place that makes our own answers: refusals, the page of an ended session, the denied
//! login. What a verdict is, is decided elsewhere; here it becomes HTTP.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue,
    LOCATION, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::refusal::Refusal;
use crate::session::{EndReason, Ending};

/// Our pages load nothing and run nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What kind of answer the client can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A page load: HTML.
    Page,
    /// fetch, XMLHttpRequest, an API client, an image: problem+json (RFC 9457).
    Program,
}

impl Audience {
    /// Told by what browsers say about themselves (Fetch Metadata), else by Accept.
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let scripted =
            text("x-requested-with").is_some_and(|by| by.eq_ignore_ascii_case("xmlhttprequest"));
        let page = match text("sec-fetch-mode") {
            _ if scripted || *method == Method::OPTIONS => false,
            Some(mode) => mode == "navigate",
            None => text("accept").is_some_and(|accept| accept.contains("text/html")),
        };
        if page { Self::Page } else { Self::Program }
    }
}

/// A request that goes no further. The page is neutral; the reason is in the log.
pub fn refuse(refusal: Refusal, audience: Audience, request_id: &str) -> Response<Body> {
    let (title, advice) = match refusal {
        Refusal::LoginOverSession => (
            "You are already signed in",
            "This browser is signed in as another user. Sign out first, then sign in again.",
        ),
        refusal => (refusal_title(refusal.status()), refusal_advice(refusal.status())),
    };
    let mut response = match audience {
        Audience::Page => page(
            refusal.status(),
            title,
            &format!("<p>{}</p><p><small>Reference {request_id}</small></p>", advice),
        ),
        Audience::Program => {
            problem(refusal.status(), title, advice, json!({ "reference": request_id }))
        }
    };
    let headers = response.headers_mut();
    if refusal.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    if refusal.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        headers.insert(http::header::ALLOW, allowed);
    }
    if refusal.side() == crate::refusal::Side::Downstream || refusal == Refusal::UpstreamInvalid {
        // After an anomaly the connection is not used again.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A whole HTTP/1.1 refusal, for connections on which no request was understood.
pub fn refuse_raw(refusal: Refusal) -> Bytes {
    let status = refusal.status();
    let body = render(refusal_title(status), &format!("<p>{}</p>", refusal_advice(status)));
    let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
    Bytes::from(format!(
        "HTTP/1.1 {} {}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\ncontent-security-policy: {POLICY}\r\nx-content-type-options: nosniff\r\n{retry}connection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    ))
}

/// Tells a client that its session has ended: why, when, and what to do.
pub fn ended(
    ending: Option<&Ending>,
    audience: Audience,
    login_url: Option<&str>,
) -> Response<Body> {
    let reason = ending.map_or(EndReason::App, |ending| ending.reason);
    let at = ending.map(|ending| ending.at.to_string());
    match audience {
        Audience::Page => {
            let when = at.map_or_else(String::new, |at| {
                format!("<p><small>It ended at <time datetime=\"{at}\">{}</time>. Reason: {}</small></p>", human(&at), reason.as_str())
            });
            let sign_in = login_url.map_or_else(String::new, |url| {
                format!("<p><a href=\"{}\">Sign in again</a></p>", escape_html(url))
            });
            let body =
                format!("<p>{}</p>{}{sign_in}{when}", ended_text(reason), ended_advice(reason));
            page(StatusCode::UNAUTHORIZED, "You were signed out", &body)
        }
        Audience::Program => problem(
            StatusCode::UNAUTHORIZED,
            "Session ended",
            ended_text(reason),
            json!({ "reason": reason.as_str(), "ended_at": at, "login_url": login_url }),
        ),
    }
}

/// Sends a page load to the login page.
pub fn redirect(login_url: &str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::from_str(login_url) {
        response.headers_mut().insert(LOCATION, location);
    }
    own_headers(response.headers_mut());
    response
}

/// Tells a client that the password was right but the limit is reached.
pub fn denied(count: u32, limit: u32, audience: Audience) -> Response<Body> {
    let sessions = if count == 1 { "session is" } else { "sessions are" };
    let text = format!(
        "Your password was accepted, but {count} {sessions} already open for this account and no more than {limit} may be."
    );
    match audience {
        Audience::Page => {
            let advice = "<p>Sign out in another browser or on another device, or wait until a session there has timed out, and try again.</p><p>If you did not open these sessions, change your password and tell your support desk.</p>";
            page(
                StatusCode::FORBIDDEN,
                "You are signed in elsewhere",
                &format!("<p>{text}</p>{advice}<p><small>Reason: limit</small></p>"),
            )
        }
        Audience::Program => problem(
            StatusCode::FORBIDDEN,
            "Too many sessions",
            &text,
            json!({ "reason": "limit", "count": count, "limit": limit }),
        ),
    }
}

fn ended_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Limit => {
            "Your account was used to sign in on another browser or device, and the number of sessions it may have at once is limited. This session was ended to make room."
        }
        EndReason::Logout => "You signed out.",
        EndReason::IdleTimeout => "You were away for a while, so this session was ended.",
        EndReason::AbsoluteTimeout => "This session reached the longest time a session may last.",
        EndReason::Admin => "An administrator ended this session.",
        EndReason::SelfService => "This session was ended from another of your sessions.",
        EndReason::PasswordChange => {
            "The password of your account was changed, so its other sessions were ended."
        }
        EndReason::Replaced => "Another user signed in with this browser.",
        EndReason::App => "This session is no longer valid.",
    }
}

fn ended_advice(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Limit | EndReason::PasswordChange | EndReason::SelfService => {
            "<p>If that was not you, sign in, change your password, and tell your support desk.</p>"
        }
        EndReason::Logout
        | EndReason::IdleTimeout
        | EndReason::AbsoluteTimeout
        | EndReason::Admin
        | EndReason::Replaced
        | EndReason::App => "",
    }
}

fn refusal_title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "This request cannot be processed",
        StatusCode::METHOD_NOT_ALLOWED => "This method is not allowed",
        StatusCode::REQUEST_TIMEOUT => "The request took too long to arrive",
        StatusCode::PAYLOAD_TOO_LARGE => "The request is too large",
        StatusCode::URI_TOO_LONG => "The address is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The request's headers are too large",
        StatusCode::BAD_GATEWAY => "The application cannot be reached",
        StatusCode::GATEWAY_TIMEOUT => "The application did not answer in time",
        StatusCode::SERVICE_UNAVAILABLE => "The service is not available at the moment",
        StatusCode::FORBIDDEN => "This is not allowed",
        StatusCode::UNAUTHORIZED => "You are not signed in",
        status => status.canonical_reason().unwrap_or("Error"),
    }
}

fn refusal_advice(status: StatusCode) -> &'static str {
    if status.is_server_error() {
        "Please try again in a moment."
    } else if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
        "Clearing this site's cookies may help."
    } else {
        "Please check the request and try again."
    }
}

fn page(status: StatusCode, title: &str, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(render(title, body))));
    *response.status_mut() = status;
    own_headers(response.headers_mut());
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, html);
    response
}

fn render(title: &str, body: &str) -> String {
    include_str!("enforce/page.html").replace("{title}", title).replace("{body}", body)
}

fn problem(
    status: StatusCode,
    title: &str,
    detail: &str,
    more: serde_json::Value,
) -> Response<Body> {
    let mut document = json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail,
    });
    if let (Some(document), serde_json::Value::Object(more)) = (document.as_object_mut(), more) {
        document.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let mut response = Response::new(Body::from(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    own_headers(response.headers_mut());
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn own_headers(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// `2026-01-02T03:04:05.678Z` → `2026-01-02 03:04 UTC`.
fn human(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..16)) {
        (Some(date), Some(time)) => format!("{date} {time} UTC"),
        _ => rfc3339.to_owned(),
    }
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Timestamp;
    use http_body_util::BodyExt as _;

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec())
            .unwrap()
    }

    fn ending(reason: EndReason) -> Ending {
        Ending { at: Timestamp(1_800_000_000_000), reason, by: None, by_session: None }
    }

    #[tokio::test]
    async fn the_page_says_why_when_and_what_to_do() {
        let response = ended(Some(&ending(EndReason::Limit)), Audience::Page, Some("/login?a=\"b"));
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let html = text(response).await;
        for part in
            ["another browser or device", "2027-01-15 08:00 UTC", "not you", "/login?a=&quot;b"]
        {
            assert!(html.contains(part), "{part}");
        }
    }

    #[tokio::test]
    async fn a_program_gets_the_reason_as_json() {
        let response = ended(Some(&ending(EndReason::Admin)), Audience::Program, None);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let json: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(json["reason"], "admin");
        assert_eq!(json["status"], 401);
    }

    #[test]
    fn the_audience_is_told_by_what_the_client_says() {
        let of = |headers: &[(&str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(
                    http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            Audience::of(&Method::GET, &map)
        };
        assert_eq!(of(&[("sec-fetch-mode", "navigate")]), Audience::Page);
        assert_eq!(of(&[("accept", "text/html,*/*")]), Audience::Page);
        assert_eq!(of(&[("accept", "text/html"), ("sec-fetch-mode", "cors")]), Audience::Program);
        assert_eq!(
            of(&[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")]),
            Audience::Program
        );
        assert_eq!(of(&[("accept", "*/*")]), Audience::Program);
    }

    #[test]
    fn a_raw_refusal_is_a_whole_answer() {
        for refusal in Refusal::ALL {
            let raw = String::from_utf8(refuse_raw(*refusal).to_vec()).unwrap();
            let (head, body) = raw.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {}", refusal.status().as_u16())));
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
            assert!(!raw.contains(refusal.code()), "the reason is for the log");
        }
    }
}
