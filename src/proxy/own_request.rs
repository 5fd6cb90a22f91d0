//! Requests of our own to the app: who is this, and: log this session out. They carry a client's
//! credentials and look as if they came from it, since some apps tie a session to both.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};

use super::Worker;
use crate::body::{AppBody, RequestBody};
use crate::client::Caller;
use crate::cookies;
use crate::credentials::{self, Bare};
use crate::policy::Permit;
use crate::refusal::Refusal;
use crate::rules::RuleSet;
use crate::rules::expression::{Filter, Place};

/// What is asked of the app.
pub(super) struct OwnRequest<'a> {
    pub(super) method: &'a str,
    /// Path, and perhaps query.
    pub(super) target: &'a str,
    pub(super) headers: HeaderMap,
    /// Cookies beside the credentials.
    pub(super) cookies: Vec<(&'a str, &'a [u8])>,
    pub(super) credentials: &'a [Bare],
    /// Of the app that is asked.
    pub(super) rules: &'a RuleSet,
}

impl Worker {
    /// Sends it in the name of `caller`.
    pub(super) async fn send_own(
        &self,
        caller: &Caller,
        own: OwnRequest<'_>,
    ) -> Result<Response<AppBody>, Refusal> {
        let internal = |_| Refusal::InternalError;
        let method =
            Method::from_bytes(own.method.as_bytes()).map_err(|_| Refusal::InternalError)?;
        let form = !method.is_safe();
        let request = Request::builder().method(method).uri(own.target);
        let request = request.body(RequestBody::Full(Bytes::new()));
        let (mut parts, body) = request.map_err(|_| Refusal::InternalError)?.into_parts();
        parts.headers = own.headers;
        parts.headers.insert(HOST, HeaderValue::from_str(&caller.host).map_err(internal)?);
        if form {
            let urlencoded = HeaderValue::from_static("application/x-www-form-urlencoded");
            parts.headers.insert(CONTENT_TYPE, urlencoded);
        }
        let (in_cookies, tokens): (Vec<&Bare>, Vec<&Bare>) =
            own.credentials.iter().partition(|bare| bare.is_cookie());
        for token in tokens {
            put(own.rules, token, &mut parts.headers);
        }
        let credentials = in_cookies.iter().map(|bare| (&*bare.name, &*bare.value));
        let line = cookies::join(credentials.chain(own.cookies), &[]);
        self.proxy.prepare(&mut parts, caller, line.as_deref(), false)?;
        self.send(Permit::own(), Request::from_parts(parts, body)).await
    }
}

/// Puts a token where the app looks for it, if that is a header that can be written back.
fn put(rules: &RuleSet, token: &Bare, headers: &mut HeaderMap) {
    let Some(credential) = rules.carried_by(&token.name) else { return };
    for place in &credential.tokens {
        let (name, scheme) = match (&place.place, &*place.filters) {
            (Place::Header(name), [Filter::Bearer]) => (name.as_str(), "Bearer "),
            (Place::Header(name), []) => (name.as_str(), ""),
            (Place::Basic, _) => (AUTHORIZATION.as_str(), "Basic "),
            _ => continue,
        };
        let value = [scheme.as_bytes(), credentials::basic_code(&token.value)].concat();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value))
        {
            headers.insert(name, value);
            return;
        }
    }
}
