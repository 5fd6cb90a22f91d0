//! The compiled rule set of one app: what proves a session, what a login, a logout and a password
//! change look like. Built by `config.rs` from TOML, used by `detect.rs`. Values only.

pub mod expression;
pub mod matcher;
pub mod preset;
pub mod template;

use std::borrow::Cow;

use expression::{Expression, Filter, Place};
use matcher::{Glob, Methods, Patterns, StatusPatterns};
use template::Template;

/// Everything recognition needs to know about one app.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    pub credentials: Vec<Credential>,
    pub logins: Vec<Rule>,
    /// What comes before a login that takes several steps.
    pub steps: Vec<Rule>,
    pub logouts: Vec<Rule>,
    /// What gives a session new bearer tokens.
    pub refreshes: Vec<Rule>,
    pub password_changes: Vec<Rule>,
}

/// What proves a session on a request (`[[credential]]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// Cookie names, as globs.
    pub cookies: Vec<Glob>,
    /// Where a bearer token stands: headers, queries, forms, JSON.
    pub tokens: Vec<Expression>,
    pub role: Role,
    /// How to read what stays the same in a value that changes; empty: the whole value counts.
    pub key: Vec<Filter>,
}

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The session itself.
    Session,
    /// A remember-me cookie that logs in by itself.
    Remember,
    /// What new bearer tokens are got with.
    Refresh,
}

impl Role {
    /// What tokens of this role are called where cookies go by their names. No cookie's name
    /// begins so (RFC 6265 §4.1.1).
    pub fn token_name(self) -> &'static str {
        match self {
            Self::Session => ":session",
            Self::Remember => ":remember",
            Self::Refresh => ":refresh",
        }
    }
}

/// What HTTP Basic is called in the same way. Its value is the same on every device of a user, and
/// after every end: neither a device nor a login can be told by it alone.
pub const BASIC: &str = ":basic";

/// Whether this is the name of a bearer token, not of a cookie; see [`Role::token_name`].
pub fn is_token_name(name: &str) -> bool {
    name.starts_with(':')
}

/// One `[[login]]`, `[[step]]`, `[[logout]]`, `[[refresh]]` or `[[password_change]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    pub request: RequestMatch,
    /// `None`: for a login 2xx or 3xx, a credential set and no way back to the login path; else 2xx
    /// or 3xx.
    pub success: Option<SuccessMatch>,
    /// Where the user's name is; the first that yields. Logins and steps only.
    pub user: Vec<Expression>,
    /// A success without a credential set counts although a session is live (apps that change the
    /// user behind an unchanged cookie). Logins only.
    pub in_place: bool,
    /// Where the answer holds bearer tokens, and what they are for. Logins and refreshes only.
    pub issues: Vec<(Role, Expression)>,
    /// The app lets only those sign in who are not yet: over a live session it redirects unasked, so
    /// that a success there proves nothing. Logins only.
    pub guests_only: bool,
}

/// What the request looks like; all that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct RequestMatch {
    /// Any of; empty: any method.
    pub methods: Methods,
    /// Any of, on the canonical path, in lower case; empty: any path.
    pub path: Patterns,
    /// Those of the path patterns in which segments have names.
    pub templates: Vec<Template>,
    /// All of these yield a value.
    pub has: Vec<Expression>,
    /// All of these yield a value that matches.
    pub is: Vec<(Expression, Patterns)>,
}

/// What the app's answer looks like on success; all that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct SuccessMatch {
    /// Any of; empty: any status.
    pub status: StatusPatterns,
    /// Any of, on the Location header; empty: any or none.
    pub location: Patterns,
    /// `!{path}`: the Location does not lead back to the path of the request.
    pub leads_elsewhere: bool,
    /// All of: cookies set (`!name`: not set).
    pub sets: Vec<Negatable>,
    /// All of: cookies deleted (`!name`: not deleted).
    pub clears: Vec<Negatable>,
    /// All of these hold.
    pub is: Vec<(Expression, Patterns)>,
}

/// A cookie-name pattern, with `!` in front: must not be.
#[derive(Clone, Debug, PartialEq)]
pub struct Negatable {
    pub negated: bool,
    pub name: Glob,
}

impl RequestMatch {
    /// Whether the path is wanted. Neither the case of letters nor a slash at the end makes a
    /// difference: many apps (Express, ASP.NET) serve every form, and a login behind another one
    /// would not be counted.
    pub fn is_about(&self, path: &str) -> bool {
        let path = &*if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(path.to_ascii_lowercase())
        } else {
            Cow::Borrowed(path)
        };
        let other = match path.strip_suffix('/') {
            Some("") => path.to_owned(),
            Some(without) => without.to_owned(),
            None => format!("{path}/"),
        };
        self.path.matches(path) || self.path.matches(&other)
    }
}

impl RuleSet {
    /// The credential a cookie of this exact name belongs to.
    pub fn credential(&self, cookie: &str) -> Option<&Credential> {
        self.credentials
            .iter()
            .find(|credential| credential.cookies.iter().any(|name| name.matches(cookie)))
    }

    /// What a cookie or token of this name proves.
    pub fn role_of(&self, name: &str) -> Option<Role> {
        self.carried_by(name).map(|credential| credential.role)
    }

    /// The credential that a cookie or token of this name belongs to.
    pub fn carried_by(&self, name: &str) -> Option<&Credential> {
        if !is_token_name(name) {
            return self.credential(name);
        }
        self.credentials.iter().find(|credential| {
            let mut places = credential.tokens.iter().map(|token| &token.place);
            match name {
                BASIC => places.any(|place| *place == Place::Basic),
                name => {
                    credential.role.token_name() == name
                        && places.any(|place| *place != Place::Basic)
                }
            }
        })
    }

    /// Whether any credential stands outside cookies.
    pub fn has_tokens(&self) -> bool {
        self.credentials.iter().any(|credential| !credential.tokens.is_empty())
    }

    /// Whether a token may stand in the body of a request to this path. Sessions' tokens are looked
    /// for on every path, those to refresh with only where a rule says that is done.
    pub fn needs_body_for_tokens(&self, path: &str) -> bool {
        let reads =
            |credential: &&Credential| credential.tokens.iter().any(Expression::reads_request_body);
        self.credentials.iter().filter(reads).any(|credential| {
            credential.role != Role::Refresh
                || self
                    .refreshes
                    .iter()
                    .chain(&self.logouts)
                    .any(|rule| rule.request.is_about(path))
        })
    }

    /// Every rule.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        [&self.logins, &self.steps, &self.logouts, &self.refreshes, &self.password_changes]
            .into_iter()
            .flatten()
    }

    /// Whether any rule looks into request bodies sent to this method and path. `form`: it is an
    /// urlencoded form, in which the method can stand.
    pub fn needs_body(&self, method: &str, path: &str, form: bool) -> bool {
        self.all().any(|rule| {
            let methods = &rule.request.methods;
            let reads = methods.contains(method) && rule.reads_body();
            (reads || (form && methods.may_be_asked_for(method))) && rule.request.is_about(path)
        })
    }
}

impl Rule {
    /// Whether the answer's body is looked into, to tell success or to find the user.
    pub fn reads_answer_body(&self) -> bool {
        let success = self.success.iter().flat_map(|success| &success.is);
        let issued = self.issues.iter().map(|(_, expression)| expression);
        let mut all = self.user.iter().chain(success.map(|(expression, _)| expression));
        all.any(Expression::reads_response_body) || { issued }.any(Expression::reads_response_body)
    }

    /// Whether it looks for whom an earlier step named.
    pub fn reads_step(&self) -> bool {
        self.about_request().any(|expression| expression.place == Place::Step)
    }

    fn reads_body(&self) -> bool {
        self.about_request().any(Expression::reads_request_body)
    }

    /// Every expression that may look into the request.
    fn about_request(&self) -> impl Iterator<Item = &Expression> {
        let request = &self.request;
        let conditions = request.is.iter().map(|(expression, _)| expression);
        self.user.iter().chain(&request.has).chain(conditions)
    }
}
