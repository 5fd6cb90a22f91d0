//! Clients without cookies before a real Django REST framework: SimpleJWT's tokens, and HTTP Basic.

use base64::Engine as _;

use crate::support::browser::{Browser, password_of};
use crate::support::django::{Django, Engine};
use crate::support::http::{Request, Response, send};
use crate::support::proxy::Proxy;

/// Tokens as a program keeps them.
#[derive(Clone)]
struct Tokens {
    access: String,
    refresh: String,
}

fn proxy(toml: &str) -> (Proxy, String) {
    let site = Django::shared(Engine::Db);
    (Proxy::start(site.address, Some("drf-simplejwt"), toml), site.user())
}

fn json(path: &str, body: &serde_json::Value) -> Request {
    Request::new("POST", path)
        .xhr()
        .header("Host", "shop.example")
        .header("Content-Type", "application/json")
        .body(body.to_string().into_bytes())
}

fn ask_for_tokens(proxy: &Proxy, user: &str, password: &str) -> Response {
    let body = serde_json::json!({"username": user, "password": password});
    send(proxy.address, &json("/api/token/", &body))
}

fn tokens_in(answer: &Response) -> Tokens {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    Tokens { access: text("access"), refresh: text("refresh") }
}

#[track_caller]
fn sign_in(proxy: &Proxy, user: &str) -> Tokens {
    tokens_in(&ask_for_tokens(proxy, user, &password_of(user)))
}

fn refresh(proxy: &Proxy, token: &str) -> Response {
    send(proxy.address, &json("/api/token/refresh/", &serde_json::json!({"refresh": token})))
}

fn me(address: std::net::SocketAddr, authorization: &str) -> Response {
    let me = Request::get("/api/me/").xhr().header("Host", "shop.example");
    send(address, &me.header("Authorization", authorization))
}

fn user_of(proxy: &Proxy, access: &str) -> Option<String> {
    let answer = me(proxy.address, &format!("Bearer {access}"));
    (answer.status == 200).then(|| answer.json()["user"].as_str().unwrap().to_owned())
}

/// The app would go on taking the token for as long as it is signed for.
#[test]
fn a_second_login_ends_the_first_while_its_token_is_still_good() {
    let (proxy, user) = proxy("limit.max_sessions = 1");
    let first = sign_in(&proxy, &user);
    assert_eq!(user_of(&proxy, &first.access).as_deref(), Some(&*user));
    let second = sign_in(&proxy, &user);
    let answer = me(proxy.address, &format!("Bearer {}", first.access));
    assert_eq!((answer.status, &answer.json()["reason"]), (401, &"limit".into()));
    assert_eq!(refresh(&proxy, &first.refresh).status, 401);
    assert_eq!(user_of(&proxy, &second.access).as_deref(), Some(&*user));
    let site = Django::shared(Engine::Db).address;
    assert_eq!(me(site, &format!("Bearer {}", first.access)).status, 200, "the app itself");
    assert_eq!(proxy.live(&user), 1);
}

/// What Django's parser, or PyJWT's, takes for the same token.
#[test]
fn an_ended_token_is_anonymous_in_every_spelling() {
    for untracked in ["refuse", "pass"] {
        let (proxy, user) =
            proxy(&format!("limit.max_sessions = 1\nsession.untracked = \"{untracked}\""));
        let dead = sign_in(&proxy, &user).access;
        sign_in(&proxy, &user);
        let (site, mut taken) = (Django::shared(Engine::Db).address, 0);
        let last = dead.pop_spelling();
        for token in [dead.clone(), last, format!("{dead}="), format!("{dead}==")] {
            for line in
                [format!("Bearer {token}"), format!("Bearer  {token} "), format!("Bearer\t{token}")]
            {
                taken += usize::from(me(site, &line).status == 200);
                let answer = me(proxy.address, &line);
                assert!(matches!(answer.status, 400 | 401), "{line:?}: {}", answer.text());
            }
        }
        assert!(taken > 3, "the app itself takes {taken} of them");
    }
}

trait Spelling {
    fn pop_spelling(&self) -> String;
}

impl Spelling for String {
    /// The last digit of a signature of 32 bytes has two bits that mean nothing.
    fn pop_spelling(&self) -> String {
        const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (rest, last) = self.split_at(self.len() - 1);
        let at = DIGITS.find(last).unwrap();
        format!("{rest}{}", &DIGITS[at ^ 1..=at ^ 1])
    }
}

#[test]
fn refreshed_tokens_are_one_session_until_it_ends() {
    let (proxy, user) = proxy("limit.max_sessions = 2");
    let (first, other) = (sign_in(&proxy, &user), sign_in(&proxy, &user));
    let next = tokens_in(&refresh(&proxy, &first.refresh));
    let last = tokens_in(&refresh(&proxy, &next.refresh));
    assert_eq!(proxy.live(&user), 2);
    for token in [&first.access, &next.access, &last.access, &other.access] {
        assert_eq!(user_of(&proxy, token).as_deref(), Some(&*user));
    }
    let give_back = serde_json::json!({"refresh": last.refresh});
    assert_eq!(send(proxy.address, &json("/api/token/blacklist/", &give_back)).status, 200);
    for token in [&first.access, &next.access, &last.access] {
        assert_eq!(user_of(&proxy, token), None);
    }
    assert_eq!(user_of(&proxy, &other.access).as_deref(), Some(&*user));
    assert_eq!(proxy.live(&user), 1);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "logout");
}

#[test]
fn wrong_passwords_and_forged_tokens_end_nobody() {
    let (proxy, user) = proxy("limit.max_sessions = 1");
    let tokens = sign_in(&proxy, &user);
    for _ in 0..20 {
        assert_eq!(ask_for_tokens(&proxy, &user, "guess").status, 401);
    }
    let (head, _) = tokens.access.rsplit_once('.').unwrap();
    assert_eq!(user_of(&proxy, &format!("{head}.AAAA")), None);
    assert_eq!(user_of(&proxy, &tokens.access).as_deref(), Some(&*user));
    proxy.has_events("session_created", &user, 1);
}

#[test]
fn a_login_over_the_limit_gets_no_token() {
    let toml = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"1h\"";
    let (proxy, user) = proxy(toml);
    let first = sign_in(&proxy, &user);
    let answer = ask_for_tokens(&proxy, &user, &password_of(&user));
    assert_eq!((answer.status, &answer.json()["reason"]), (403, &"limit".into()));
    assert!(answer.json()["access"].is_null());
    assert_eq!(user_of(&proxy, &first.access).as_deref(), Some(&*user));
}

/// A token that was not issued through the proxy, and one that the app is asked about.
#[test]
fn a_token_from_before_the_proxy_is_refused_or_counted() {
    let site = Django::shared(Engine::Db);
    let older = |user: &str| {
        let body = serde_json::json!({"username": user, "password": password_of(user)});
        tokens_in(&send(site.address, &json("/api/token/", &body)))
    };
    let (proxy, user) = proxy("limit.max_sessions = 1");
    assert_eq!(user_of(&proxy, &older(&user).access), None);

    let toml = "limit.max_sessions = 1\nsession.untracked = \"probe\"\n[identity.probe]\npath = \
        \"/api/me/\"\nuser = \"rjson:/user\"\nanonymous = { status = 401 }";
    let proxy = Proxy::start(site.address, Some("drf-simplejwt"), toml);
    let user = site.user();
    let old = older(&user);
    assert_eq!(user_of(&proxy, &old.access).as_deref(), Some(&*user));
    assert_eq!(proxy.live(&user), 1);
    let new = sign_in(&proxy, &user);
    assert_eq!(user_of(&proxy, &old.access), None);
    assert_eq!(user_of(&proxy, &new.access).as_deref(), Some(&*user));
}

#[test]
fn http_basic_is_a_session_for_each_device() {
    let site = Django::shared(Engine::Db);
    let toml = "limit.max_sessions = 1\nidentity.probe.path = \"/basic/me/\"";
    let proxy = Proxy::start(site.address, Some("basic-auth"), toml);
    let user = site.user();
    let page = |browser: &mut Browser, password: &str| {
        let code = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        browser.send(&Request::get("/basic/me/").header("Authorization", &format!("Basic {code}")))
    };
    let (mut first, mut second) =
        (proxy.browser().with_agent("Firefox"), proxy.browser().with_agent("Safari"));
    assert_eq!(page(&mut first, &password_of(&user)).status, 200);
    assert_eq!(page(&mut second, "wrong").status, 401);
    assert_eq!(page(&mut first, &password_of(&user)).status, 200);
    assert_eq!(page(&mut second, &password_of(&user)).status, 200);
    let told = page(&mut first, &password_of(&user));
    assert_eq!(told.status, 401);
    assert!(told.text().to_lowercase().contains("limit"), "{}", told.text());
    assert_eq!(proxy.live(&user), 1);
}
