//! What a client sends after the head: streamed on, or read first where a credential or a rule
//! stands in it.

use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use hyper::body::Incoming;

use super::Proxy;
use crate::body::{self, RequestBody};
use crate::credentials::{self, Bare};
use crate::detect::RequestFacts;
use crate::detect::tokens::{self, Token};
use crate::fields::{self, Fields};
use crate::refusal::Refusal;
use crate::rules::BASIC;
use crate::rules::expression::Place;
use crate::settings::Site;

/// A request's body.
pub(super) enum Payload {
    Streaming(Incoming),
    Read(Bytes, Fields),
}

impl Payload {
    /// What rules can see of it.
    pub(super) fn fields(&self) -> &Fields {
        match self {
            Self::Streaming(_) => &Fields::Opaque,
            Self::Read(_, fields) => fields,
        }
    }
}

impl Proxy {
    /// Reads the body whole, within the limit for logins.
    pub(super) async fn read(&self, parts: &Parts, payload: Payload) -> Result<Payload, Refusal> {
        let Payload::Streaming(body) = payload else { return Ok(payload) };
        let limits = &self.settings.server.limits;
        let idle = Duration::from_millis(limits.body_idle_timeout_ms);
        let bytes = body::read_limited(body, limits.login_body_bytes_max, idle).await?;
        let fields = fields::read(&parts.headers, &bytes).await?;
        Ok(Payload::Read(bytes, fields))
    }

    /// The bearer tokens of a request; its body is read if one may stand there.
    pub(super) async fn tokens<'s>(
        &self,
        site: Site<'s>,
        parts: &Parts,
        path: &str,
        mut payload: Payload,
    ) -> Result<(Vec<Token<'s>>, Payload), Refusal> {
        let rules = site.rules;
        if !rules.has_tokens() {
            return Ok((Vec::new(), payload));
        }
        if rules.needs_body_for_tokens(path) && fields::is_readable(&parts.headers) {
            payload = Box::pin(self.read(parts, payload)).await?;
        }
        let facts = RequestFacts {
            method: parts.method.as_str(),
            path,
            query: parts.uri.query(),
            headers: &parts.headers,
            fields: payload.fields(),
            step: None,
        };
        Ok((tokens::find(rules, facts)?, payload))
    }

    /// The body as the app gets it.
    pub(super) fn client_body(&self, payload: Payload) -> Result<RequestBody, Refusal> {
        let body = match payload {
            Payload::Read(bytes, _) => return Ok(RequestBody::Full(bytes)),
            Payload::Streaming(body) => body,
        };
        let limits = &self.settings.server.limits;
        let idle = Duration::from_millis(limits.body_idle_timeout_ms);
        RequestBody::client(body, limits.body_bytes_max, idle)
    }
}

/// Takes off every token that does not go to the app. One in JSON cannot be taken off: such a
/// request is refused.
pub(super) fn take_off(
    presented: &[Token<'_>],
    sent: &[Bare],
    parts: &mut Parts,
    payload: &mut Payload,
) -> Result<(), Refusal> {
    for token in presented {
        let goes = |bare: &Bare| {
            let value = if token.name() == BASIC {
                credentials::basic_code(&bare.value)
            } else {
                &*bare.value
            };
            bare.name == token.name() && value == token.value.as_bytes()
        };
        if sent.iter().any(goes) {
            continue;
        }
        match token.place {
            Place::Query(name) => {
                let query = parts.uri.query().unwrap_or_default();
                let target = match tokens::without(query, name) {
                    rest if rest.is_empty() => parts.uri.path().to_owned(),
                    rest => format!("{}?{rest}", parts.uri.path()),
                };
                let target: PathAndQuery = target.parse().map_err(|_| Refusal::TargetInvalid)?;
                let mut uri = std::mem::take(&mut parts.uri).into_parts();
                uri.path_and_query = Some(target);
                parts.uri = uri.try_into().map_err(|_| Refusal::TargetInvalid)?;
            }
            Place::Form(name) => {
                let Payload::Read(bytes, _) = payload else { continue };
                if !fields::is_form(&parts.headers) {
                    return Err(Refusal::TokenUnknown);
                }
                let text = std::str::from_utf8(bytes).map_err(|_| Refusal::LoginAmbiguous)?;
                *bytes = tokens::without(text, name).into();
                parts.headers.remove(http::header::CONTENT_LENGTH);
            }
            Place::Json(_) => return Err(Refusal::TokenUnknown),
            place => {
                if let Some(name) = tokens::header_of(place) {
                    parts.headers.remove(name);
                }
            }
        }
    }
    Ok(())
}
