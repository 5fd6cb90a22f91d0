//! The one place that makes our own answers: refusals, the page of an ended session, the denied
//! login. What a verdict is, is decided elsewhere; here it becomes HTTP.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    HeaderMap, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::pages::{Language, NotMe, Page, Pages, Sessions};
use crate::refusal::Refusal;
use crate::session::{EndReason, Ending};

static X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Our pages run nothing, and load nothing but the app's logo.
const POLICY: &str = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Those with forms send them to us, and say where they are from.
const POLICY_WITH_FORMS: &str = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What kind of answer the client can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A page load: HTML, in the language the browser prefers.
    Page(Language),
    /// fetch, XMLHttpRequest, an API client, an image: problem+json (RFC 9457).
    Program,
}

impl Audience {
    /// Told by what browsers say about themselves (Fetch Metadata), else by Accept. `otherwise` is
    /// for browsers that prefer no language there are words for.
    pub fn of(method: &Method, headers: &HeaderMap, otherwise: Language) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let scripted =
            text(&X_REQUESTED_WITH).is_some_and(|by| by.eq_ignore_ascii_case("xmlhttprequest"));
        let page = match text(&SEC_FETCH_MODE) {
            _ if scripted || *method == Method::OPTIONS => false,
            Some(mode) => mode == "navigate",
            None => text(&ACCEPT).is_some_and(|accept| accept.contains("text/html")),
        };
        if page {
            Self::Page(Language::preferred(text(&ACCEPT_LANGUAGE), otherwise))
        } else {
            Self::Program
        }
    }

    /// Somebody is looking.
    pub fn is_page(self) -> bool {
        self != Self::Program
    }
}

/// A request that goes no further. The page is neutral; the reason is in the log.
pub fn refuse(
    pages: &Pages,
    refusal: Refusal,
    audience: Audience,
    reference: &str,
) -> Response<Body> {
    let status = refusal.status();
    let facts = Page::Refused { refusal, reference };
    let more = json!({ "reference": reference });
    let mut response = answer(pages, status, audience, facts, more);
    let headers = response.headers_mut();
    if refusal.may_come_again() {
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
pub fn refuse_raw(pages: &Pages, refusal: Refusal) -> Bytes {
    let status = refusal.status();
    let body = pages.html(Page::Refused { refusal, reference: "-" }, pages.language);
    let retry = if refusal.may_come_again() { "retry-after: 1\r\n" } else { "" };
    Bytes::from(format!(
        "HTTP/1.1 {} {}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\ncontent-security-policy: {POLICY}\r\nx-content-type-options: nosniff\r\n{retry}connection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    ))
}

/// Tells a client that its session has ended: why, when, and what to do.
pub fn ended(
    pages: &Pages,
    ending: Option<&Ending>,
    audience: Audience,
    login_url: Option<&str>,
    not_me: Option<NotMe<'_>>,
) -> Response<Body> {
    let reason = ending.map_or(EndReason::App, |ending| ending.reason);
    let at = ending.map(|ending| ending.at);
    let more = json!({ "reason": reason.as_str(), "ended_at": at, "login_url": login_url });
    let facts = Page::Ended { reason, at, login_url, not_me };
    let response = answer(pages, StatusCode::UNAUTHORIZED, audience, facts, more);
    if not_me.is_some() { with_forms(response) } else { response }
}

/// A user's own sessions.
pub fn sessions(pages: &Pages, sessions: &Sessions, audience: Audience) -> Response<Body> {
    if let Audience::Page(language) = audience {
        let html = pages.html(Page::Sessions(sessions), language);
        return with_forms(with_body(StatusCode::OK, html_type(), html));
    }
    let Sessions { user, csrf, can_end, limit, more, list, .. } = sessions;
    document(&json!({
        "user": user, "limit": limit, "can_end": can_end, "csrf": csrf, "sessions": list, "more": more,
    }))
}

/// So many sessions have been ended.
pub fn sessions_ended(count: u32) -> Response<Body> {
    document(&json!({ "ended": count }))
}

/// A user's word that an end was somebody else's doing has been taken.
pub fn disowned(pages: &Pages, audience: Audience, login_url: Option<&str>) -> Response<Body> {
    match audience {
        Audience::Page(language) => {
            let html = pages.html(Page::Disowned { login_url }, language);
            with_body(StatusCode::OK, html_type(), html)
        }
        Audience::Program => document(&json!({ "reported": true })),
    }
}

fn html_type() -> HeaderValue {
    HeaderValue::from_static("text/html; charset=utf-8")
}

fn document(json: &serde_json::Value) -> Response<Body> {
    with_body(StatusCode::OK, HeaderValue::from_static("application/json"), json.to_string())
}

/// A form tells where it comes from only if its page may say so.
fn with_forms(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY_WITH_FORMS));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
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
pub fn denied(pages: &Pages, count: u32, limit: u32, audience: Audience) -> Response<Body> {
    let more = json!({ "reason": "limit", "count": count, "limit": limit });
    answer(pages, StatusCode::FORBIDDEN, audience, Page::Denied { count, limit }, more)
}

/// The page, or, for a program, its words in English as problem+json with `more` in it.
fn answer(
    pages: &Pages,
    status: StatusCode,
    audience: Audience,
    page: Page<'_>,
    more: serde_json::Value,
) -> Response<Body> {
    if let Audience::Page(language) = audience {
        return with_body(status, html_type(), pages.html(page, language));
    }
    let [title, detail] = pages.text(page, Language::English);
    let mut document = json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail,
    });
    if let (Some(document), serde_json::Value::Object(more)) = (document.as_object_mut(), more) {
        document.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    with_body(status, HeaderValue::from_static("application/problem+json"), document.to_string())
}

fn with_body(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(body)));
    *response.status_mut() = status;
    own_headers(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn own_headers(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::Theme;
    use crate::session::Timestamp;
    use http_body_util::BodyExt as _;

    fn pages() -> Pages {
        Pages::new(Vec::new(), Theme::default(), Language::English).unwrap()
    }

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec())
            .unwrap()
    }

    fn ending(reason: EndReason) -> Ending {
        Ending { at: Timestamp(1_800_000_000_000), reason, by: None, by_session: None }
    }

    #[tokio::test]
    async fn the_page_says_why_when_and_what_to_do() {
        let audience = Audience::Page(Language::English);
        let over = ending(EndReason::Limit);
        let response = ended(&pages(), Some(&over), audience, Some("/login?a=\"b"), None);
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
        let response =
            ended(&pages(), Some(&ending(EndReason::Admin)), Audience::Program, None, None);
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
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            Audience::of(&Method::GET, &map, Language::French)
        };
        assert_eq!(of(&[("sec-fetch-mode", "navigate")]), Audience::Page(Language::French));
        assert_eq!(of(&[("accept", "text/html,*/*")]), Audience::Page(Language::French));
        let german = of(&[("accept", "text/html"), ("accept-language", "de-CH,en;q=0.5")]);
        assert_eq!(german, Audience::Page(Language::German));
        assert_eq!(of(&[("accept", "text/html"), ("sec-fetch-mode", "cors")]), Audience::Program);
        assert_eq!(
            of(&[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")]),
            Audience::Program
        );
        assert_eq!(of(&[("accept", "*/*")]), Audience::Program);
    }

    #[test]
    fn a_raw_refusal_is_a_whole_answer() {
        let pages = pages();
        for refusal in Refusal::ALL {
            let raw = String::from_utf8(refuse_raw(&pages, *refusal).to_vec()).unwrap();
            let (head, body) = raw.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {}", refusal.status().as_u16())));
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
            assert!(!raw.contains(refusal.code()), "the reason is for the log");
        }
    }
}
