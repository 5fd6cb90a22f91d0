//! The page without a browser's help: who gets in, and what another site can make a browser send.

use super::{ADMIN, OPERATOR, Office, VIEWER};
use crate::support::http::{Request, Response};

/// Somebody at the page.
struct Visitor<'a> {
    office: &'a Office,
    cookie: String,
    csrf: String,
}

impl<'a> Visitor<'a> {
    #[track_caller]
    fn enter(office: &'a Office, secret: &str) -> Self {
        let answer = office.send(&sign_in(office, secret));
        assert_eq!(answer.status, 303, "{}", answer.text());
        let set = answer.header("set-cookie").unwrap();
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
            assert!(set.contains(attribute), "{set}");
        }
        let cookie = set.split(';').next().unwrap().to_owned();
        let mut visitor = Self { office, cookie, csrf: String::new() };
        let page = visitor.get("/").text();
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").unwrap();
        visitor.csrf = rest.split('"').next().unwrap().to_owned();
        visitor
    }

    fn get(&self, path: &str) -> Response {
        let request = Request::get(path).header("Accept", "text/html");
        self.office.send(&dressed(self.office, request).header("Cookie", &self.cookie))
    }

    /// A form of the page, with its token and from its origin.
    fn form(&self, path: &str, fields: &[(&str, &str)]) -> Request {
        let fields = [&[("csrf", &*self.csrf)], fields].concat();
        let request = dressed(self.office, Request::form(path, &fields));
        let origin = format!("http://{}", self.office.proxy.admin_address);
        request.header("Cookie", &self.cookie).header("Origin", &origin)
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.office.send(&self.form(path, fields))
    }
}

fn dressed(office: &Office, request: Request) -> Request {
    request.header("Host", &office.proxy.admin_address.to_string())
}

fn sign_in(office: &Office, secret: &str) -> Request {
    let origin = format!("http://{}", office.proxy.admin_address);
    let form = Request::form("/sign-in", &[("token", secret), ("next", "/")]);
    dressed(office, form).header("Origin", &origin)
}

#[test]
fn nobody_sees_a_page_without_a_token() {
    let office = Office::open("");
    let stranger = |path: &str| {
        let request = Request::get(path).header("Accept", "text/html");
        office.send(&dressed(&office, request))
    };
    let answer = stranger("/users/alice?before=1");
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), Some("/sign-in?next=%2Fusers%2Falice%3Fbefore%3D1"));
    let form = stranger("/sign-in?next=//evil.example/");
    assert_eq!(form.status, 200);
    assert!(!form.text().contains("evil.example"), "{}", form.text());
    let policy = form.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(form.header("x-frame-options"), Some("DENY"));
    let feed = dressed(&office, Request::get("/feed"));
    assert_eq!(office.send(&feed).status, 401);
    for cookie in ["headcount_admin=", "headcount_admin=x", "headcount_admin=a; headcount_admin=a"]
    {
        let request = dressed(&office, Request::get("/")).header("Cookie", cookie);
        assert_eq!(office.send(&request).status, 303, "{cookie}");
    }
    // A token is no cookie, and a cookie is no token.
    let visitor = Visitor::enter(&office, ADMIN);
    let value = visitor.cookie.split_once('=').unwrap().1;
    assert_eq!(office.call("GET", "/sessions", value).0, 401);
    let request = dressed(&office, Request::get("/api/v1/sessions"));
    assert_eq!(office.send(&request.header("Cookie", &visitor.cookie)).status, 401);
}

#[test]
fn wrong_tokens_are_braked_and_a_right_one_gets_in() {
    let office = Office::open("");
    let attempt =
        |number| office.send(&sign_in(&office, &format!("wrong-token-{number:08}"))).status;
    assert!((0..10).all(|number| attempt(number) == 403));
    // One in two seconds is answered as before: a slow machine needs some more.
    let braked = (10..200).find(|number| attempt(*number) == 429);
    assert!(braked.is_some(), "nobody is braked");
    Visitor::enter(&office, VIEWER);
}

#[test]
fn only_forms_of_the_page_itself_change_anything() {
    let office = Office::open("");
    let session = office.sign_in("alice", "one");
    let visitor = Visitor::enter(&office, ADMIN);
    let path = format!("/sessions/{session}/end");
    let good = || visitor.form(&path, &[]);
    let without = |name: &str| {
        let mut request = good();
        request.headers.retain(|(known, _)| known != name);
        request
    };
    let foreign = [
        without("Origin"),
        without("Cookie"),
        without("Content-Type"),
        good().header("Origin", "null"),
        good().header("Origin", "https://evil.example"),
        good().header("Origin", "http://127.0.0.1"),
        good().header("Sec-Fetch-Site", "cross-site"),
        good().header("Sec-Fetch-Site", "same-site"),
        good().header("Content-Type", "text/plain"),
        good().header("Content-Type", "application/json"),
        good().body(Vec::new()),
        good().body(b"csrf=".to_vec()),
        good().body(b"csrf=AAAAAAAAAAAAAAAAAAAAAA".to_vec()),
        good().body(format!("csrf={0}&csrf={0}", visitor.csrf).into_bytes()),
        good().header("Host", "evil.example"),
    ];
    for request in foreign {
        let answer = office.send(&request);
        assert!(matches!(answer.status, 401 | 403 | 421), "{request:?}: {}", answer.text());
    }
    // The token of another visit is none for this one.
    let other = Visitor::enter(&office, ADMIN);
    let request = good().body(format!("csrf={}", other.csrf).into_bytes());
    assert_eq!(office.send(&request).status, 403);
    // Looking changes nothing, whatever is asked for.
    for path in [&*path, "/users/alice/end", "/end-all", "/sign-out", "/users/alice/limit"] {
        visitor.get(path);
    }
    let preflight = dressed(&office, Request::new("OPTIONS", &path))
        .header("Origin", "https://evil.example")
        .header("Access-Control-Request-Method", "POST");
    let answer = office.send(&preflight);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(office.proxy.live("alice"), 1);
    assert_eq!(office.send(&good()).status, 303);
    assert_eq!(office.proxy.live("alice"), 0);
}

#[test]
fn the_page_allows_each_role_what_the_api_does() {
    let office = Office::open("");
    let sessions = ["root", "alice"].map(|user| office.sign_in(user, "one"));
    let [vip, ordinary] = sessions.each_ref().map(|id| format!("/sessions/{id}/end"));
    let limit = [("kind", "sessions"), ("max_sessions", "3")];
    for (secret, role) in [(VIEWER, 1), (OPERATOR, 2), (ADMIN, 3)] {
        let visitor = Visitor::enter(&office, secret);
        let checks = [
            (visitor.post(&ordinary, &[]), 2),
            (visitor.post("/users/alice/end", &[("except", "")]), 2),
            (visitor.post(&vip, &[]), 3),
            (visitor.post("/users/root/end", &[]), 3),
            (visitor.post("/users/alice/limit", &limit), 3),
            (visitor.post("/limits", &[("user", "bob"), limit[0], limit[1]]), 3),
        ];
        for (at, (answer, needed)) in checks.into_iter().enumerate() {
            let expected = if role >= needed { 303 } else { 403 };
            assert_eq!(answer.status, expected, "role {role}, {at}: {}", answer.text());
        }
    }
    let visitor = Visitor::enter(&office, ADMIN);
    let unknown = "/sessions/00000000000000000000000000000000/end";
    assert_eq!(visitor.post(unknown, &[]).status, 404);
    assert_eq!(visitor.post("/users/alice/end", &[("except", "x")]).status, 400);
    assert_eq!(visitor.post("/end-all", &[("confirm", "no")]).status, 409);
    assert_eq!(visitor.post("/end-all", &[("confirm", "shop")]).status, 303);
}

#[test]
fn nobody_stays_signed_in_with_a_token_that_is_gone() {
    let office = Office::open("");
    let visitor = Visitor::enter(&office, OPERATOR);
    assert_eq!(visitor.get("/").status, 200);
    let text = office.proxy.configuration();
    office.proxy.write_configuration(&text.replace(OPERATOR, "another-0123456789abcdef"));
    assert_eq!(office.call("POST", "/reload", ADMIN).0, 200);
    assert_eq!(visitor.get("/").status, 303);
    let visitor = Visitor::enter(&office, VIEWER);
    assert_eq!(visitor.post("/sign-out", &[]).status, 303);
    assert_eq!(visitor.get("/").status, 303);
}

#[test]
fn names_and_devices_stay_text() {
    let office = Office::open("");
    let (name, agent) = ("<img src=x onerror=alert(1)>\"'&", "<script>alert(2)</script>'\"");
    let session = office.sign_in(name, agent);
    let visitor = Visitor::enter(&office, ADMIN);
    let segment: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let paths = [
        "/".to_owned(),
        format!("/users?q={segment}"),
        format!("/users/{segment}"),
        format!("/users/{segment}/end"),
        "/sessions".to_owned(),
        format!("/sessions?user={segment}&address={segment}"),
        format!("/sessions/{session}"),
        format!("/sessions/{session}/end"),
        format!("/events?user={segment}"),
        "/report".to_owned(),
        format!("/report?since={segment}"),
        format!("/sign-in?next={segment}"),
    ];
    for path in paths {
        let page = visitor.get(&path);
        assert!(matches!(page.status, 200 | 303 | 400), "{path}: {}", page.status);
        let text = page.text();
        for canary in ["<img", "<script>alert", "onerror=alert(1)>\""] {
            assert!(!text.contains(canary), "{path} has {canary}");
        }
    }
    let written = visitor.get("/configuration").text();
    assert!(written.contains("max_sessions") && !written.contains(OPERATOR), "{written}");
}
