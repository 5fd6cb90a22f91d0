//! A simulated browser: one cookie jar, and requests as browsers send them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::Full;

use crate::fetch::{FetchError, fetch};

const TIMEOUT: Duration = Duration::from_secs(10);

/// One browser.
pub(super) struct Browser {
    pub(super) name: &'static str,
    authority: String,
    cookies: BTreeMap<String, String>,
}

/// What came back.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) location: String,
    pub(super) body: String,
}

impl Page {
    /// One line for people: the status, and where it leads or what it is called.
    pub(super) fn summary(&self) -> String {
        if !self.location.is_empty() {
            return format!("{} to {}", self.status, self.location);
        }
        let title = ["h1", "title"].iter().find_map(|element| self.text_of(element));
        format!("{} {}", self.status, title.unwrap_or_default())
    }

    /// The text of the first such element.
    fn text_of(&self, element: &str) -> Option<String> {
        let (_, rest) = self.body.split_once(&format!("<{element}"))?;
        let (_, rest) = rest.split_once('>')?;
        let (text, _) = rest.split_once(&format!("</{element}>"))?;
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl Browser {
    pub(super) fn new(name: &'static str, address: SocketAddr) -> Self {
        Self { name, authority: address.to_string(), cookies: BTreeMap::new() }
    }

    /// Goes to a page.
    pub(super) async fn get(&mut self, path: &str) -> Result<Page, FetchError> {
        self.send(Method::GET, path, String::new()).await
    }

    /// Sends a form.
    pub(super) async fn post(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<Page, FetchError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(Method::POST, path, body).await
    }

    async fn send(&mut self, method: Method, path: &str, body: String) -> Result<Page, FetchError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        for (name, value) in [
            (header::HOST, self.authority.as_str()),
            (header::USER_AGENT, &format!("Browser {}", self.name)),
            (header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8"),
            (header::ACCEPT_LANGUAGE, "en"),
            (header::HeaderName::from_static("sec-fetch-mode"), "navigate"),
            (header::HeaderName::from_static("sec-fetch-dest"), "document"),
        ] {
            headers.extend(value.parse().ok().map(|value| (name, value)));
        }
        if method == Method::POST {
            let form = http::HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
        }
        let jar: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !jar.is_empty() {
            headers.extend(jar.join("; ").parse().ok().map(|value| (header::COOKIE, value)));
        }
        *request.method_mut() = method;
        let response = fetch(&self.authority, request, TIMEOUT).await?;
        self.keep(response.headers());
        let location = response.headers().get(header::LOCATION);
        Ok(Page {
            status: response.status().as_u16(),
            location: location.and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(response.body()).into_owned(),
        })
    }

    /// Cookies by name only: there is one site.
    fn keep(&mut self, headers: &HeaderMap) {
        for line in headers.get_all(header::SET_COOKIE) {
            let Some(set) = line.to_str().ok().and_then(|line| cookie::Cookie::parse(line).ok())
            else {
                continue;
            };
            let past = set.max_age().is_some_and(|age| !age.is_positive())
                || set.expires_datetime().is_some_and(|expires| expires.year() < 2000);
            if past {
                self.cookies.remove(set.name());
            } else {
                self.cookies.insert(set.name().to_owned(), set.value().to_owned());
            }
        }
    }
}
