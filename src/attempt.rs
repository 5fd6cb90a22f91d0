//! `headcount check --try`: the configured rules against a live app, with a test account: a wrong
//! password, a login, a page, a logout, and what the recogniser sees of each. The app is asked
//! directly; no session is kept or limited.

pub mod form;

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;

use self::form::Form;
use crate::clock::{Clock, SystemClock};
use crate::detect::Outcome;
use crate::fetch::fetch;
use crate::identity;
use crate::learn::recording::{Exchange, Phase};
use crate::learn::{logout, naming};
use crate::rules::Rule;
use crate::rules::expression::Place;
use crate::settings::Settings;

const TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 4;

/// Who signs in.
pub struct Account {
    pub user: String,
    pub password: String,
    pub wrong_password: String,
}

/// One step, and what the rules saw of it.
#[derive(Debug)]
pub struct Step {
    pub what: &'static str,
    pub seen: String,
    pub expected: bool,
}

/// Goes through all steps; ends early where the next would mean nothing. `page` is the address of
/// the login page, or `/` for what the configuration says.
pub async fn run(
    settings: &Settings,
    authority: &str,
    page: &str,
    account: &Account,
) -> Result<Vec<Step>, String> {
    let page = login_page(settings, page)?;
    let mut visitor = Visitor::new(authority);
    let mut steps = Vec::new();
    let tried = visitor.log_in(settings, &page, &account.user, &account.wrong_password).await?;
    steps.push(judge_wrong(settings, &tried)?);
    if !steps[0].expected {
        return Ok(steps);
    }
    let login = visitor.log_in(settings, &page, &account.user, &account.password).await?;
    steps.push(judge_login(settings, &login, account)?);
    if !steps[1].expected {
        return Ok(steps);
    }
    let (page, text) = visitor.page_after(&login).await?;
    steps.push(judge_page(settings, &page)?);
    match visitor.log_out(settings, &page, &text).await? {
        Some(logout) => steps.push(judge_logout(settings, &logout)?),
        None => steps.push(Step {
            what: "logout",
            seen: "not tried: no [[logout]] has a path without wildcards".to_owned(),
            expected: false,
        }),
    }
    Ok(steps)
}

fn login_page(settings: &Settings, given: &str) -> Result<String, String> {
    if given != "/" && !given.is_empty() {
        return Ok(given.to_owned());
    }
    let of_rule = || settings.rules.logins.iter().find_map(literal_path);
    settings.enforcement.login_url.clone().or_else(of_rule).ok_or_else(|| {
        "where is the login page? Give its address with --try, or login_url in [enforcement]"
            .to_owned()
    })
}

fn literal_path(rule: &Rule) -> Option<String> {
    let mut paths = rule.request.path.wanted().iter();
    paths.find_map(|glob| glob.literal().map(str::to_owned))
}

fn outcome(settings: &Settings, exchange: &Exchange) -> Result<Outcome, String> {
    exchange.outcome(&settings.rules, None).map_err(|refusal| {
        format!("Headcount would refuse {}: {}", exchange.path(), refusal.code())
    })
}

fn answered(exchange: &Exchange) -> String {
    match exchange.location() {
        Some(_) => format!("answered {} with a redirect", exchange.status),
        None => format!("answered {}", exchange.status),
    }
}

fn judge_wrong(settings: &Settings, exchange: &Exchange) -> Result<Step, String> {
    let (seen, expected) = match outcome(settings, exchange)? {
        Outcome::LoginFailed { .. } => ("a failed login, nothing else".to_owned(), true),
        Outcome::LoggedIn { .. } => {
            ("A LOGIN. `success` of [[login]] holds for failures too".to_owned(), false)
        }
        _ => {
            let (method, path) = (&exchange.method, exchange.path());
            (format!("nothing: no [[login]] is about {method} {path} with these fields"), false)
        }
    };
    Ok(Step { what: "wrong password", seen, expected })
}

fn judge_login(
    settings: &Settings,
    exchange: &Exchange,
    account: &Account,
) -> Result<Step, String> {
    let names: Vec<String> = exchange
        .sets()
        .into_iter()
        .map(|(name, ..)| name)
        .chain(exchange.cookies().into_iter().map(|(name, _)| name))
        .filter(|name| settings.rules.credential(name).is_some())
        .collect();
    let (seen, expected) = match outcome(settings, exchange)? {
        Outcome::LoggedIn { user: None, .. } => {
            ("a login, but of whom? `user` of [[login]] finds nothing".to_owned(), false)
        }
        Outcome::LoggedIn { user: Some(_), .. } if names.is_empty() => {
            ("a login without any cookie of [[credential]]".to_owned(), false)
        }
        Outcome::LoggedIn { user: Some(user), .. } => {
            let same =
                |name: &str| identity::canonical(&settings.normalize, &settings.aliases, name);
            let known = same(&user) == same(&account.user);
            let note = if known { "" } else { " (not the name that was typed)" };
            (format!("a login of user {user:?}{note}, credential {}", names[0]), true)
        }
        _ => (format!("no login; the app {}", answered(exchange)), false),
    };
    Ok(Step { what: "login", seen, expected })
}

fn judge_page(settings: &Settings, page: &Exchange) -> Result<Step, String> {
    let credential = |name: &String| settings.rules.credential(name).is_some();
    let sent = page.cookies().into_iter().map(|(name, _)| name).any(|name| credential(&name));
    let (seen, expected) = match outcome(settings, page)? {
        Outcome::Nothing if !sent => ("no credential was sent with it".to_owned(), false),
        Outcome::Nothing if page.clears().iter().any(credential) => {
            ("the app took the credential back".to_owned(), false)
        }
        Outcome::Nothing => (format!("the same session; the app {}", answered(page)), true),
        _ => ("something else than a page".to_owned(), false),
    };
    Ok(Step { what: "page", seen, expected })
}

fn judge_logout(settings: &Settings, exchange: &Exchange) -> Result<Step, String> {
    let (seen, expected) = match outcome(settings, exchange)? {
        Outcome::LoggedOut => ("the session's end".to_owned(), true),
        _ => (format!("no logout; the app {}", answered(exchange)), false),
    };
    Ok(Step { what: "logout", seen, expected })
}

/// A browser as far as this needs one.
struct Visitor {
    authority: String,
    jar: Vec<(String, String)>,
    clock: SystemClock,
}

impl Visitor {
    fn new(authority: &str) -> Self {
        let authority = authority.to_owned();
        Self { authority, jar: Vec::new(), clock: SystemClock::new() }
    }

    /// Fetches the login page, fills its form in and sends it.
    async fn log_in(
        &mut self,
        settings: &Settings,
        page: &str,
        user: &str,
        password: &str,
    ) -> Result<Exchange, String> {
        let (shown, text) = self.open(page).await?;
        let forms = form::read(&text);
        let form = forms.iter().find(|form| form.password().is_some());
        let rule = settings.rules.logins.iter().find(|rule| {
            let action = form.map(|form| form.target(&shown.target));
            action.is_some_and(|action| {
                rule.request.is_about(action.split('?').next().unwrap_or_default())
            })
        });
        let rule = rule.or(settings.rules.logins.first());
        let places: Vec<&Place> = rule
            .into_iter()
            .flat_map(|rule| rule.user.iter().chain(&rule.request.has))
            .map(|expression| &expression.place)
            .collect();
        if let Some(form) = form {
            let named = places.iter().find_map(|place| match place {
                Place::Form(name) if form.has(name) && !naming::is_secret(name) => {
                    Some(name.as_str())
                }
                _ => None,
            });
            let name =
                named.or(form.name_field()).ok_or("the login form has no field for a name")?;
            let mut fields = form.filled();
            fields.push((name.to_owned(), user.to_owned()));
            fields.push((form.password().unwrap_or_default().to_owned(), password.to_owned()));
            return self
                .post(&form.target(&shown.target), &fields, &[])
                .await
                .map(|(sent, _)| sent);
        }
        let path = rule.and_then(literal_path).ok_or_else(|| {
            format!(
                "{page} has no form with a password, and no [[login]] has a path to send one to"
            )
        })?;
        let json = places.iter().find_map(|place| match place {
            Place::Json(pointer) => Some(pointer.as_str()),
            _ => None,
        });
        let field = places.iter().find_map(|place| match place {
            Place::Form(name) => Some(name.clone()),
            _ => None,
        });
        match (json, field) {
            (Some(pointer), _) => {
                let name = pointer.trim_start_matches('/').to_owned();
                let body = serde_json::json!({ name: user, "password": password }).to_string();
                let kind = HeaderValue::from_static("application/json");
                let headers = [(header::CONTENT_TYPE, kind)];
                self.send(Method::POST, &path, body, &headers).await.map(|(sent, _)| sent)
            }
            (None, Some(name)) => {
                let password = ("password".to_owned(), password.to_owned());
                let fields = [(name, user.to_owned()), password];
                self.post(&path, &fields, &[]).await.map(|(sent, _)| sent)
            }
            (None, None) => Err(format!("{page} has no form with a password")),
        }
    }

    /// The page that the login leads to.
    async fn page_after(&mut self, login: &Exchange) -> Result<(Exchange, String), String> {
        let target = login.location().map_or("/".to_owned(), |to| form::resolve(&login.target, to));
        self.open(&target).await
    }

    /// Opens a page, and goes where it leads.
    async fn open(&mut self, target: &str) -> Result<(Exchange, String), String> {
        let mut target = target.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let (page, text) = self.get(&target).await?;
            match page.location() {
                Some(to) if (300..400).contains(&page.status) => {
                    target = form::resolve(&page.target, to);
                }
                _ => return Ok((page, text)),
            }
        }
        self.get("/").await
    }

    async fn log_out(
        &mut self,
        settings: &Settings,
        page: &Exchange,
        text: &str,
    ) -> Result<Option<Exchange>, String> {
        let rule = settings.rules.logouts.iter().find_map(|rule| Some((rule, literal_path(rule)?)));
        let at_app = settings.enforcement.app_logout.as_ref();
        if at_app.is_none()
            && let Some(sent) = self.log_out_by_page(settings, page, text).await?
        {
            return Ok(Some(sent));
        }
        let (method, path) = match (at_app, rule) {
            (Some(at_app), _) => (at_app.method.clone(), at_app.path.clone()),
            (None, Some((rule, path))) => {
                let methods = &rule.request.methods.0;
                (methods.first().cloned().unwrap_or_else(|| "GET".to_owned()), path)
            }
            (None, None) => return Ok(None),
        };
        if method == "GET" {
            return self.get(&path).await.map(|(sent, _)| Some(sent));
        }
        let mut headers = Vec::new();
        if let Some(csrf) = at_app.and_then(|at_app| at_app.csrf.as_ref()) {
            let token = self.jar.iter().find(|(name, _)| *name == csrf.cookie);
            let name = HeaderName::from_bytes(csrf.header.as_bytes()).ok();
            let value = token.and_then(|(_, value)| HeaderValue::from_str(value).ok());
            headers.extend(name.zip(value));
        }
        if let Some(token) = form::csrf_meta(text) {
            let value = HeaderValue::from_str(&token).ok();
            headers.extend(value.map(|value| (HeaderName::from_static("x-csrf-token"), value)));
        }
        let forms = form::read(text);
        let form = forms.iter().find(|form| form.target(&page.target) == path);
        let fields = form.map(Form::filled).unwrap_or_default();
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
        let body = encoded(&fields);
        headers.push((header::CONTENT_TYPE, HeaderValue::from_static(FORM)));
        self.send(method, &path, body, &headers).await.map(|(sent, _)| Some(sent))
    }

    /// With the form or the link that the page has for it, which brings the token the app wants.
    async fn log_out_by_page(
        &mut self,
        settings: &Settings,
        page: &Exchange,
        text: &str,
    ) -> Result<Option<Exchange>, String> {
        let is_logout = |target: &String| {
            let path = target.split('?').next().unwrap_or_default();
            // Some rules are also about other ends, such as that of the account.
            logout::is_named(target)
                && settings.rules.logouts.iter().any(|rule| rule.request.is_about(path))
        };
        for form in form::read(text) {
            let target = form.target(&page.target);
            if is_logout(&target) {
                return self.post(&target, &form.filled(), &[]).await.map(|(sent, _)| Some(sent));
            }
        }
        let link = form::links(text, &page.target).into_iter().find(is_logout);
        // A link to a logout that wants another method is made into one by a script.
        let plain = |sent: &Exchange| matches!(outcome(settings, sent), Ok(Outcome::LoggedOut));
        match link {
            Some(link) => self.get(&link).await.map(|(sent, _)| Some(sent).filter(plain)),
            None => Ok(None),
        }
    }

    async fn get(&mut self, target: &str) -> Result<(Exchange, String), String> {
        self.send(Method::GET, target, String::new(), &[]).await
    }

    async fn post(
        &mut self,
        target: &str,
        fields: &[(String, String)],
        more: &[(HeaderName, HeaderValue)],
    ) -> Result<(Exchange, String), String> {
        let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(FORM))];
        headers.extend_from_slice(more);
        self.send(Method::POST, target, encoded(fields), &headers).await
    }

    async fn send(
        &mut self,
        method: Method,
        target: &str,
        body: String,
        more: &[(HeaderName, HeaderValue)],
    ) -> Result<(Exchange, String), String> {
        let body = Bytes::from(body);
        let mut request = Request::new(Full::new(body.clone()));
        *request.uri_mut() = target.parse().map_err(|_| format!("{target:?} is no path"))?;
        let mut headers = HeaderMap::new();
        let origin = format!("http://{}", self.authority);
        let cookies: Vec<String> =
            self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for (name, value) in [
            (header::HOST, self.authority.clone()),
            (header::USER_AGENT, "headcount check --try".to_owned()),
            (header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8".to_owned()),
            (header::COOKIE, cookies.join("; ")),
            (header::ORIGIN, if method == Method::GET { String::new() } else { origin.clone() }),
            (header::REFERER, format!("{origin}{target}")),
        ] {
            let value = HeaderValue::from_str(&value).ok().filter(|value| !value.is_empty());
            headers.extend(value.map(|value| (name, value)));
        }
        headers.extend(more.iter().cloned());
        *request.method_mut() = method;
        request.headers_mut().clone_from(&headers);
        let (parts, _) = request.into_parts();
        let sent = Request::from_parts(parts.clone(), Full::new(body.clone()));
        let answer =
            fetch(&self.authority, sent, TIMEOUT).await.map_err(|error| error.to_string())?;
        let (head, text) = answer.into_parts();
        let seen = (head.status.as_u16(), head.headers, &text[..]);
        let exchange = Exchange::read(Phase::Login, self.clock.now(), parts, &body, seen).await;
        self.keep(&exchange);
        Ok((exchange, String::from_utf8_lossy(&text).into_owned()))
    }

    fn keep(&mut self, exchange: &Exchange) {
        let gone = exchange.clears();
        self.jar.retain(|(name, _)| !gone.contains(name));
        for (name, value, _) in exchange.sets() {
            self.jar.retain(|(known, _)| *known != name);
            self.jar.push((name, value));
        }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn encoded(fields: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}
