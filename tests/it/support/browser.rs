//! A small browser: cookie jar, kept-alive connection, the headers a real one sends. It follows no
//! redirects, so that every answer can be looked at.

use std::io::{self, ErrorKind::InvalidData, ErrorKind::TimedOut, ErrorKind::WouldBlock};
use std::net::SocketAddr;

use super::http::{Connection, Request, Response};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// One cookie in the jar. The browser talks to one host, so the domain only tells cookies apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) value: String,
    /// As given in Domain=; empty for a host-only cookie.
    pub(crate) domain: String,
    pub(crate) path: String,
}

/// One person's browser, on one site.
pub(crate) struct Browser {
    address: SocketAddr,
    agent: String,
    pub(crate) jar: Vec<Cookie>,
    connection: Option<Connection>,
    /// What was sent and answered, as the developer tools list it; kept only if asked for.
    pub(crate) tape: Option<Vec<(Request, Response)>>,
}

/// The password of a user of the test site.
pub(crate) fn password_of(user: &str) -> String {
    format!("secret-{user}")
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, agent: AGENT.into(), jar: Vec::new(), connection: None, tape: None }
    }

    /// With another User-Agent.
    pub(crate) fn with_agent(mut self, agent: &str) -> Self {
        self.agent = agent.into();
        self
    }

    /// The same jar in front of another address: the site has moved behind a proxy.
    pub(crate) fn moved_to(&self, address: SocketAddr) -> Self {
        Self {
            address,
            agent: self.agent.clone(),
            jar: self.jar.clone(),
            connection: None,
            tape: None,
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(&Request::get(path))
    }

    pub(crate) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Response {
        self.send(&Request::form(path, form))
    }

    /// A GET as a script sends it.
    pub(crate) fn fetch_json(&mut self, path: &str) -> Response {
        self.send(&Request::get(path).xhr())
    }

    /// Sends with the browser's headers (those the request does not have yet) and cookies, and
    /// keeps the cookies of the answer.
    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        match self.try_send(request) {
            Ok(response) => response,
            Err(error) => panic!("{} {}: {error}", request.method, request.target),
        }
    }

    /// [`Self::send`] where the connection may fail.
    pub(crate) fn try_send(&mut self, request: &Request) -> io::Result<Response> {
        let request = self.dressed(request.clone());
        let (response, reusable) = self.exchange(&request)?;
        if !reusable {
            self.connection = None;
        }
        for line in response.all("set-cookie") {
            store_cookie(&mut self.jar, line, &request.target);
        }
        if let Some(tape) = &mut self.tape {
            tape.push((request, response.clone()));
        }
        Ok(response)
    }

    /// The server may close a kept-alive connection at any time; then, as browsers do, once more
    /// on a new one.
    fn exchange(&mut self, request: &Request) -> io::Result<(Response, bool)> {
        if let Some(mut connection) = self.connection.take() {
            match connection.exchange(request) {
                Ok(answer) => {
                    self.connection = Some(connection);
                    return Ok(answer);
                }
                Err(error) if matches!(error.kind(), WouldBlock | TimedOut | InvalidData) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        let mut connection = Connection::open(self.address)?;
        let answer = connection.exchange(request)?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// The request with what a browser adds.
    pub(crate) fn dressed(&self, mut request: Request) -> Request {
        let origin = format!("http://{}", self.address);
        let mut add = |name: &str, value: &str| {
            if !request.has(name) {
                request.headers.push((name.into(), value.into()));
            }
        };
        add("Host", &self.address.to_string());
        add("User-Agent", &self.agent);
        add("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        add("Accept-Language", "en-US,en;q=0.5");
        add("Sec-Fetch-Dest", "document");
        add("Sec-Fetch-Mode", "navigate");
        add("Sec-Fetch-Site", "same-origin");
        let cookies = self.cookie_line(&request.target);
        if !request.has("cookie") && !cookies.is_empty() {
            request.headers.push(("Cookie".into(), cookies));
        }
        if request.method == "POST" {
            let page = format!("{origin}{}", request.target);
            for (name, value) in [("Origin", &origin), ("Referer", &page)] {
                if !request.has(name) {
                    request = request.header(name, value);
                }
            }
        }
        request
    }

    /// The Cookie line for a target: longer paths first.
    pub(crate) fn cookie_line(&self, target: &str) -> String {
        let path = target.split(['?', '#']).next().unwrap_or("/");
        let mut sent: Vec<&Cookie> =
            self.jar.iter().filter(|cookie| path_matches(&cookie.path, path)).collect();
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> =
            sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        pairs.join("; ")
    }

    /// The value of a cookie, as it was sent to the browser.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.jar.iter().find(|cookie| cookie.name == name).map(|cookie| cookie.value.clone())
    }

    /// Puts a cookie for the whole site into the jar.
    pub(crate) fn set_cookie(&mut self, name: &str, value: &str) {
        store_cookie(&mut self.jar, &format!("{name}={value}; Path=/"), "/");
    }

    /// Fetches a page with a Django form, fills it in and sends it.
    #[track_caller]
    pub(crate) fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let page = self.get(path);
        assert_eq!(page.status, 200, "{path} shows its form: {}", page.text());
        let token = csrf_token(&page.text());
        let mut form = vec![("csrfmiddlewaretoken", token.as_str())];
        form.extend_from_slice(fields);
        self.post(path, &form)
    }

    /// Signs in at the site's own login page.
    #[track_caller]
    pub(crate) fn login(&mut self, user: &str) -> Response {
        self.login_at("/accounts/login/", user, &password_of(user))
    }

    #[track_caller]
    pub(crate) fn login_at(&mut self, path: &str, user: &str, password: &str) -> Response {
        self.submit(path, &[("username", user), ("password", password)])
    }

    /// Signs out with the token the jar holds, as the logout button does.
    pub(crate) fn logout(&mut self) -> Response {
        let token = self.cookie("csrftoken").unwrap_or_default();
        self.post("/accounts/logout/", &[("csrfmiddlewaretoken", &token)])
    }

    /// Changes the password at the site's own page.
    #[track_caller]
    pub(crate) fn change_password(&mut self, old: &str, new: &str) -> Response {
        let fields = [("old_password", old), ("new_password1", new), ("new_password2", new)];
        self.submit("/accounts/password_change/", &fields)
    }

    /// Whom the app takes this browser for; `None` when it says anonymous or was not reached.
    pub(crate) fn whoami(&mut self) -> Option<String> {
        let answer = self.fetch_json("/whoami");
        (answer.status == 200).then(|| answer.json()["user"].as_str().map(str::to_owned)).flatten()
    }
}

/// The hidden field of a Django form.
#[track_caller]
pub(crate) fn csrf_token(page: &str) -> String {
    let field = page.split("name=\"csrfmiddlewaretoken\"").nth(1);
    let value = field.and_then(|rest| rest.split("value=\"").nth(1)?.split('"').next());
    assert!(value.is_some(), "no token in {page}");
    value.unwrap_or_default().to_owned()
}

/// RFC 6265 section 5.1.4.
fn path_matches(cookie_path: &str, path: &str) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| rest.is_empty() || cookie_path.ends_with('/') || rest.starts_with('/'))
}

/// Keeps, replaces or drops a cookie as a Set-Cookie line says. Past dates are told by their year:
/// everybody deletes with the beginning of the epoch.
fn store_cookie(jar: &mut Vec<Cookie>, line: &str, target: &str) {
    let mut parts = line.split(';');
    let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
        return;
    };
    let page = target.split(['?', '#']).next().unwrap_or("/");
    let mut cookie = Cookie {
        name: name.trim().into(),
        value: value.trim().into(),
        domain: String::new(),
        path: page.rsplit_once('/').map_or("/", |(folder, _)| folder).into(),
    };
    let (mut past, mut max_age) = (false, None);
    for attribute in parts {
        let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "path" if value.starts_with('/') => cookie.path = value.into(),
            "domain" => cookie.domain = value.trim_start_matches('.').to_ascii_lowercase(),
            "max-age" => max_age = value.parse::<i64>().ok(),
            "expires" => past = value.contains("1970"),
            _ => {}
        }
    }
    if cookie.path.is_empty() {
        cookie.path = "/".into();
    }
    jar.retain(|known| {
        (&known.name, &known.domain, &known.path) != (&cookie.name, &cookie.domain, &cookie.path)
    });
    if !max_age.map_or(past, |seconds| seconds <= 0) {
        jar.push(cookie);
    }
}
