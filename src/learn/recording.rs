//! A recording: requests and answers in order, each in its phase. Values only; who made it, the
//! recording proxy or a browser's HAR file, is no matter here.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::request::Parts;

use crate::detect::{self, AnswerBody, AnswerFacts, Outcome, RequestFacts};
use crate::fields::{self, Fields};
use crate::inspect::{self, AnswerText};
use crate::path;
use crate::refusal::Refusal;
use crate::rules::RuleSet;
use crate::rules::expression::json_scalars;
use crate::session::Timestamp;
use crate::set_cookie::{self, SetCookie};

/// What the operator was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    WrongPassword,
    Login,
    Pages,
    SecondLogin,
    Logout,
}

impl Phase {
    /// In the order they are asked for.
    pub const ALL: [Self; 5] =
        [Self::WrongPassword, Self::Login, Self::Pages, Self::SecondLogin, Self::Logout];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong password",
            Self::Login => "login",
            Self::Pages => "pages",
            Self::SecondLogin => "second browser",
            Self::Logout => "logout",
        }
    }
}

/// How much of an answer is looked into.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// One request and its answer.
pub struct Exchange {
    pub phase: Phase,
    pub at: Timestamp,
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    pub headers: HeaderMap,
    /// What the form or the JSON says, or why the proxy would refuse it.
    pub fields: Result<Fields, Refusal>,
    pub status: u16,
    pub answer: HeaderMap,
    /// `None`: not readable.
    pub text: Option<AnswerText>,
}

impl Exchange {
    /// From what was on the wire. Bodies are read as the proxy reads them.
    pub async fn read(
        phase: Phase,
        at: Timestamp,
        request: Parts,
        body: &Bytes,
        answer: (u16, HeaderMap, &[u8]),
    ) -> Self {
        let fields = fields::read(&request.headers, body).await;
        let (status, headers, text) = answer;
        let text = inspect::decoded(&headers, text, TEXT_BYTES_MAX).map(AnswerText::new);
        Self {
            phase,
            at,
            method: request.method.as_str().to_owned(),
            target: request.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            headers: request.headers,
            fields,
            status,
            answer: headers,
            text,
        }
    }

    /// The path as rules see it.
    pub fn path(&self) -> String {
        path::canonical(self.target.split('?').next().unwrap_or_default()).text
    }

    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    pub fn is_safe(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    pub fn location(&self) -> Option<&str> {
        self.answer.get(LOCATION)?.to_str().ok()
    }

    /// The cookies sent: name and value.
    pub fn cookies(&self) -> Vec<(String, String)> {
        let lines = self.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        pairs.collect()
    }

    /// Every Set-Cookie line of the answer.
    pub fn set_cookies(&self) -> Vec<SetCookie<'_>> {
        let lines = self.answer.get_all(SET_COOKIE).iter();
        lines.filter_map(|line| set_cookie::parse(line.as_bytes(), self.at)).collect()
    }

    /// What the answer leaves set: name, value, and whether scripts cannot read it.
    pub fn sets(&self) -> Vec<(String, String, bool)> {
        let all = self.set_cookies();
        let set = set_cookie::effective(&all).filter(|cookie| !cookie.deletes).map(|cookie| {
            let hidden = cookie.shape.attributes.to_ascii_lowercase().contains("httponly");
            let value = String::from_utf8_lossy(cookie.value).into_owned();
            (cookie.name.to_owned(), value, hidden)
        });
        set.collect()
    }

    /// The names of the cookies that the answer deletes.
    pub fn clears(&self) -> Vec<String> {
        let all = self.set_cookies();
        let gone = set_cookie::effective(&all).filter(|cookie| cookie.deletes);
        gone.map(|cookie| cookie.name.to_owned()).collect()
    }

    /// The answer as JSON: pointer and value of everything that is neither list nor object.
    pub fn json(&self) -> Vec<(String, String)> {
        self.text.as_ref().map(|text| scalars_of(text.bytes())).unwrap_or_default()
    }

    /// Every field of the request, as the expression that yields it, with its value.
    pub fn named_fields(&self) -> Vec<(String, String)> {
        let mut named = Vec::new();
        match &self.fields {
            Ok(Fields::Form(pairs)) => {
                named.extend(
                    pairs.iter().map(|(name, value)| (format!("form:{name}"), value.clone())),
                );
            }
            Ok(Fields::Json(document)) => {
                let scalars = json_scalars(document);
                named.extend(scalars.into_iter().map(|(at, value)| (format!("json:{at}"), value)));
            }
            Ok(Fields::Opaque) | Err(_) => {}
        }
        let query = fields::read_form(self.query().unwrap_or_default().as_bytes());
        let query = query.unwrap_or_default().into_iter();
        named.extend(query.map(|(name, value)| (format!("query:{name}"), value)));
        named
    }

    /// What the rules make of it.
    pub fn outcome(&self, rules: &RuleSet, step: Option<&str>) -> Result<Outcome, Refusal> {
        let fields = match &self.fields {
            Ok(fields) => fields,
            Err(refusal) if rules.needs_body(&self.method, &self.path(), true) => {
                return Err(*refusal);
            }
            Err(_) => &Fields::Opaque,
        };
        let raw = self.target.split('?').next().unwrap_or_default();
        let path = path::canonical(raw);
        if !path.plain && detect::watches(rules, &path.text) {
            return Err(Refusal::PathSpelling);
        }
        let facts = RequestFacts {
            method: &self.method,
            path: &path.text,
            query: self.query(),
            headers: &self.headers,
            fields,
            step,
        };
        let intent = detect::intent(rules, facts)?;
        let cookies = self.set_cookies();
        let facts = AnswerFacts {
            status: self.status,
            headers: &self.answer,
            cookies: &cookies,
            body: self.text.as_ref().map_or(AnswerBody::Unreadable, AnswerBody::Read),
        };
        Ok(detect::outcome(rules, &intent, facts))
    }
}

fn scalars_of(text: &[u8]) -> Vec<(String, String)> {
    serde_json::from_slice(text).map(|document| json_scalars(&document)).unwrap_or_default()
}

/// What was recorded, in order.
#[derive(Default)]
pub struct Recording {
    pub exchanges: Vec<Exchange>,
}

impl Recording {
    pub fn in_phase(&self, phase: Phase) -> impl Iterator<Item = &Exchange> {
        self.exchanges.iter().filter(move |exchange| exchange.phase == phase)
    }

    /// Whether there is not one cookie in it.
    pub fn is_sanitized(&self) -> bool {
        !self.exchanges.is_empty()
            && self.exchanges.iter().all(|exchange| {
                !exchange.headers.contains_key(COOKIE) && !exchange.answer.contains_key(SET_COOKIE)
            })
    }
}
