//! The compiled rule set of one app: what proves a session, what a login, a logout and a password
//! change look like. Built by `config.rs` from TOML, used by `detect.rs`. Values only.

pub mod expression;
pub mod matcher;
pub mod preset;

use std::borrow::Cow;

use expression::{Expression, Place};
use matcher::{Glob, Methods, Patterns, StatusPatterns};

/// Everything recognition needs to know about one app.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    pub credentials: Vec<Credential>,
    pub logins: Vec<Rule>,
    /// What comes before a login that takes several steps.
    pub steps: Vec<Rule>,
    pub logouts: Vec<Rule>,
    pub password_changes: Vec<Rule>,
}

/// A cookie that proves a session (`[[credential]] at = ["cookie:…"]`).
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// Cookie names, as globs.
    pub cookies: Vec<Glob>,
    pub role: Role,
}

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The session itself.
    Session,
    /// A remember-me cookie that logs in by itself.
    Remember,
}

/// One `[[login]]`, `[[step]]`, `[[logout]]` or `[[password_change]]`.
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

    /// Every rule.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        [&self.logins, &self.steps, &self.logouts, &self.password_changes].into_iter().flatten()
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
        let mut all = self.user.iter().chain(success.map(|(expression, _)| expression));
        all.any(Expression::reads_response_body)
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
