//! The admin API over a real socket, with sessions in memory behind it.

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::*;
use crate::explain::Section;
use crate::fetch::fetch;
use crate::session::{EndReason, Ending, Groups};
use crate::settings::{AdminRole, AdminToken};
use crate::user_limits::UserLimits;

const VIEWER: &str = "viewer-secret-0123456789";
pub(crate) const OPERATOR: &str = "operator-secret-0123456789";

#[derive(Default)]
pub(crate) struct Memory {
    sessions: Mutex<Vec<Session>>,
    observe: bool,
    broken: bool,
    not_ready: Option<String>,
    user_limits: UserLimits,
    trail: Trail,
}

fn session(number: u8, user: &str) -> Session {
    Session {
        id: SessionId([number; 16]),
        user: Some(user.into()),
        created_at: Timestamp(1_000),
        renewed_at: Timestamp(1_000),
        last_seen_at: Timestamp(2_000),
        login_seq: i64::from(number),
        change_seq: 1,
        client: Client { address: Some("10.0.0.1".into()), user_agent: None },
        groups: Groups::default(),
        end: None,
        would_end: None,
    }
}

impl Memory {
    fn end_where(&self, by: &str, which: impl Fn(&Session) -> bool) -> Result<u32, ControlError> {
        if self.observe {
            return Err(ControlError::ObserveMode);
        }
        let mut ended = 0;
        for session in self.sessions.lock().iter_mut() {
            if session.end.is_none() && which(session) {
                session.end = Some(Ending {
                    at: Timestamp(3_000),
                    reason: EndReason::Admin,
                    by: Some(by.to_owned()),
                    by_session: None,
                });
                ended += 1;
            }
        }
        Ok(ended)
    }
}

#[async_trait]
impl Control for Memory {
    async fn list(&self, listing: Listing) -> Result<Vec<Session>, StoreError> {
        if self.broken {
            return Err(StoreError::Timeout(5));
        }
        let mut found = self.sessions.lock().clone();
        found.retain(|session| {
            listing.user.as_ref().is_none_or(|user| session.user.as_ref() == Some(user))
                && listing.live.is_none_or(|live| live == session.end.is_none())
                && listing.before_login_seq.is_none_or(|before| session.login_seq < before)
        });
        found.sort_by_key(|session| std::cmp::Reverse(session.login_seq));
        found.truncate(listing.count_max as usize);
        Ok(found)
    }

    async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        Ok(self.sessions.lock().iter().find(|session| session.id == id).cloned())
    }

    async fn end(&self, ids: Vec<SessionId>, by: &str) -> Result<u32, ControlError> {
        self.end_where(by, |session| ids.contains(&session.id))
    }

    async fn end_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        by: &str,
    ) -> Result<u32, ControlError> {
        self.end_where(by, |session| {
            session.user.as_deref() == Some(user) && Some(session.id) != except
        })
    }

    async fn end_all(&self, by: &str) -> Result<u32, ControlError> {
        self.end_where(by, |_| true)
    }

    fn limit_of(&self, user: &str) -> Option<u32> {
        self.user_limits.max_of(user).unwrap_or((user != "root").then_some(1))
    }

    fn limit_set(&self, user: &str) -> Option<UserLimit> {
        self.user_limits.of(user)
    }

    fn limits_set(&self) -> Vec<UserLimit> {
        self.user_limits.all()
    }

    async fn set_limit(&self, user: &str, ceiling: Ceiling, by: &str) -> Result<(), ControlError> {
        let (set_at, set_by) = (Timestamp(4_000), by.to_owned());
        self.user_limits.put(&[UserLimit { user: user.into(), ceiling, set_at, set_by }]);
        Ok(())
    }

    fn is_protected(&self, user: &str) -> bool {
        user == "root"
    }

    fn trail(&self) -> &Trail {
        &self.trail
    }

    fn about(&self) -> About {
        About { app: "shop".to_owned(), node: "n1".to_owned(), ..About::default() }
    }

    async fn overview(&self) -> Overview {
        let at_limit = AtLimit { user: "alice".into(), sessions: 2, limit: 1 };
        Overview { sessions: 3, users: 2, users_at_limit: 1, at_limit: vec![at_limit] }
    }

    async fn users_like(&self, _: &str, _: usize) -> Vec<(Arc<str>, u32)> {
        vec![("alice".into(), 2), ("bob".into(), 1)]
    }

    async fn report(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Report, StoreError> {
        let (since, until) = (since.unwrap_or_default(), until.unwrap_or(self.now()));
        Ok(crate::report::report(&self.sessions.lock(), since, until, false))
    }

    fn explained(&self) -> Vec<Section> {
        let sentences = vec!["Decisions are enforced.".to_owned()];
        vec![Section { heading: "Mode".to_owned(), sentences }]
    }

    fn written(&self) -> Arc<str> {
        "[admin]\nsecret = …\n".into()
    }

    fn now(&self) -> Timestamp {
        Timestamp(3_600_000)
    }

    fn normalize(&self, user: &str) -> String {
        user.trim().to_lowercase()
    }

    fn expires_at(&self, session: &Session) -> Option<Timestamp> {
        Some(session.last_seen_at.plus_ms(1_000))
    }

    async fn reload(&self, _: &str) -> Result<String, String> {
        self.not_ready.clone().map_or(Ok("0123456789ab".to_owned()), Err)
    }

    async fn mac_keys(&self) -> MacKeys {
        MacKeys { used: "01234567".to_owned(), ..MacKeys::default() }
    }

    async fn export_user(&self, user: &str, _: &str) -> Result<Vec<Kept>, StoreError> {
        let mut sessions = self.sessions.lock().clone();
        sessions.retain(|session| session.user.as_deref() == Some(user));
        let kept = |session| Kept { session, hidden: false, keys: 2 };
        Ok(sessions.into_iter().map(kept).collect())
    }

    async fn erase_user(&self, user: &str, _: &str) -> Result<(u32, u64), StoreError> {
        let mut sessions = self.sessions.lock();
        let before = sessions.len();
        sessions.retain(|session| session.user.as_deref() != Some(user));
        Ok((0, (before - sessions.len()) as u64))
    }

    async fn backup(&self, _: &str) -> Result<Backup, StoreError> {
        Err(StoreError::NoBackup("there is nothing to copy".to_owned()))
    }

    fn gets_on(&self) -> bool {
        true
    }

    async fn ready(&self) -> Result<Option<String>, String> {
        self.not_ready.clone().map_or(Ok(None), Err)
    }

    fn untracked(&self) -> Vec<UntrackedUse> {
        vec![UntrackedUse::default()]
    }
}

pub(crate) struct Running {
    pub(crate) address: String,
    shutdown: CancellationToken,
}

pub(crate) async fn start(control: Memory) -> Running {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let token = |name: &str, role, secret: &str| AdminToken {
        name: name.to_owned(),
        role,
        digest: Sha256::digest(secret).into(),
    };
    let tokens = [
        token("eyes", AdminRole::Viewer, VIEWER),
        token("ops", AdminRole::Operator, OPERATOR),
        token("short", AdminRole::Admin, "short"),
    ];
    let tokens = Arc::new(Tokens::new(&tokens, 10));
    let shutdown = CancellationToken::new();
    let served = serve(listener, Arc::new(control), Arc::default(), tokens, shutdown.clone());
    tokio::spawn(served);
    Running { address, shutdown }
}

impl Running {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", &self.address);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).unwrap();
        fetch(&self.address, request, Duration::from_secs(5)).await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, secret: &str) -> (u16, Value) {
        let bearer = format!("Bearer {secret}");
        let response = self.send(method, path, &[("authorization", &bearer)]).await;
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
    }
}

pub(crate) fn people() -> Memory {
    let sessions = vec![session(1, "alice"), session(2, "alice"), session(3, "bob")];
    Memory { sessions: Mutex::new(sessions), ..Memory::default() }
}

pub(crate) const ID1: &str = "01010101010101010101010101010101";
const ID2: &str = "02020202020202020202020202020202";

#[tokio::test]
async fn sessions_are_listed_page_by_page() {
    let admin = start(people()).await;
    let (status, page) = admin.call(Method::GET, "/api/v1/sessions?limit=2", VIEWER).await;
    assert_eq!(status, 200);
    let ids = |page: &Value| {
        let sessions = page["sessions"].as_array().unwrap().iter();
        sessions.map(|session| session["id"].as_str().unwrap()[..2].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), ["03", "02"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!("/api/v1/sessions?limit=2&cursor={cursor}");
    let (_, rest) = admin.call(Method::GET, &path, VIEWER).await;
    assert_eq!(ids(&rest), ["01"]);
    assert_eq!(rest["next_cursor"], Value::Null);
    let (_, bobs) = admin.call(Method::GET, "/api/v1/sessions?user=%20BOB&state=all", VIEWER).await;
    assert_eq!(ids(&bobs), ["03"]);
    let (_, ended) = admin.call(Method::GET, "/api/v1/sessions?state=ended", VIEWER).await;
    assert_eq!(ids(&ended), Vec::<String>::new());
    let (_, loose) = admin.call(Method::GET, "/api/v1/sessions?state=untracked", VIEWER).await;
    assert_eq!(loose["sessions"][0]["state"], "untracked");
}

#[tokio::test]
async fn bad_questions_are_told_why() {
    let admin = start(people()).await;
    for (path, reason) in [
        ("sessions?limit=0", "limit_invalid"),
        ("sessions?limit=1001", "limit_invalid"),
        ("sessions?limit=x", "query_invalid"),
        ("sessions?state=dead", "query_invalid"),
        ("sessions?colour=red", "query_invalid"),
        ("sessions?cursor=!!", "cursor_invalid"),
        ("users/%20", "user_invalid"),
        ("users/%ff", "user_invalid"),
    ] {
        let (status, problem) = admin.call(Method::GET, &format!("/api/v1/{path}"), VIEWER).await;
        assert_eq!((status, problem["reason"].as_str().unwrap()), (400, reason), "{path}");
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], 400);
    }
    let (status, problem) = admin.call(Method::GET, "/api/v1/nothing", VIEWER).await;
    assert_eq!((status, problem["reason"].as_str()), (404, Some("path_unknown")));
    let (status, _) = admin.call(Method::POST, "/api/v1/sessions", VIEWER).await;
    assert_eq!(status, 405);
    let (status, _) = admin.call(Method::DELETE, "/metrics", VIEWER).await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn one_session_is_shown_and_ended_once() {
    let admin = start(people()).await;
    let path = format!("/api/v1/sessions/{ID1}");
    let (status, shown) = admin.call(Method::GET, &path, VIEWER).await;
    assert_eq!(status, 200);
    let expected = serde_json::json!({
        "id": ID1, "user": "alice", "state": "live",
        "created_at": "1970-01-01T00:00:01.000Z",
        "last_seen_at": "1970-01-01T00:00:02.000Z",
        "expires_at": "1970-01-01T00:00:03.000Z",
        "client": {
            "address": "10.0.0.1", "user_agent": null, "device": null, "device_class": null,
            "country": null, "city": null,
        },
        "groups": [],
        "end": null,
    });
    assert_eq!(shown, expected);
    for ended in [1, 0] {
        let (status, answer) = admin.call(Method::DELETE, &path, OPERATOR).await;
        assert_eq!((status, answer["ended"].as_u64()), (200, Some(ended)));
    }
    let (_, shown) = admin.call(Method::GET, &path, VIEWER).await;
    let end = serde_json::json!({
        "reason": "admin", "at": "1970-01-01T00:00:03.000Z", "by": "ops", "by_session": null,
    });
    assert_eq!((&shown["state"], &shown["end"]), (&"ended".into(), &end));
    assert_eq!(shown["expires_at"], Value::Null);
    for unknown in ["09090909090909090909090909090909", "not-an-id"] {
        let path = format!("/api/v1/sessions/{unknown}");
        for method in [Method::GET, Method::DELETE] {
            let (status, problem) = admin.call(method, &path, OPERATOR).await;
            assert_eq!((status, problem["reason"].as_str()), (404, Some("session_unknown")));
        }
    }
}

#[tokio::test]
async fn a_user_is_shown_and_signed_out_except_once() {
    let admin = start(people()).await;
    let (status, shown) = admin.call(Method::GET, "/api/v1/users/Alice", VIEWER).await;
    assert_eq!((status, &shown["user"], &shown["limit"]), (200, &"alice".into(), &1.into()));
    assert_eq!((&shown["live"], shown["sessions"].as_array().unwrap().len()), (&2.into(), 2));
    let (_, root) = admin.call(Method::GET, "/api/v1/users/root", VIEWER).await;
    assert_eq!((&root["limit"], &root["live"]), (&Value::Null, &0.into()));
    let path = "/api/v1/users/ALICE/sessions";
    let (status, problem) =
        admin.call(Method::DELETE, &format!("{path}?except=0202"), OPERATOR).await;
    assert_eq!((status, problem["reason"].as_str()), (400, Some("except_invalid")));
    for (query, ended) in [(format!("?except={ID2}"), 1), (String::new(), 1), (String::new(), 0)] {
        let (status, answer) =
            admin.call(Method::DELETE, &format!("{path}{query}"), OPERATOR).await;
        assert_eq!((status, answer["ended"].as_u64()), (200, Some(ended)), "{query}");
    }
    let (_, bob) = admin.call(Method::GET, "/api/v1/users/bob", VIEWER).await;
    assert_eq!(bob["live"], 1);
    let (status, answer) =
        admin.call(Method::DELETE, "/api/v1/users/nobody/sessions", OPERATOR).await;
    assert_eq!((status, answer["ended"].as_u64()), (200, Some(0)));
}

#[tokio::test]
async fn who_may_do_what() {
    let admin = start(people()).await;
    let one = format!("/api/v1/sessions/{ID1}");
    for path in [one.as_str(), "/api/v1/users/alice/sessions"] {
        let (status, problem) = admin.call(Method::DELETE, path, VIEWER).await;
        assert_eq!((status, problem["reason"].as_str()), (403, Some("role_insufficient")));
    }
    let (_, shown) = admin.call(Method::GET, &one, VIEWER).await;
    assert_eq!(shown["state"], "live", "nothing was ended");
    let good = format!("Bearer {OPERATOR}");
    for (headers, path) in [
        (vec![], one.as_str()),
        (vec![("authorization", "Bearer ")], &one),
        (vec![("authorization", "Bearer short")], &one),
        (vec![("authorization", "Bearer operator-secret-012345678")], &one),
        (vec![("authorization", "Basic b3BzOm9wcw==")], &one),
        (vec![("authorization", good.as_str()), ("authorization", good.as_str())], &one),
        (vec![], "/api/v1/sessions?token=operator-secret-0123456789"),
        (vec![("authorization", good.as_str())], "/api/v1/sessions?access_token=x"),
        (vec![], "/api/v1/nothing"),
    ] {
        let response = admin.send(Method::GET, path, &headers).await;
        assert_eq!(response.status(), 401, "{headers:?} {path}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    let wrong = [("authorization", "Bearer wrong-secret-0123456789")];
    admin.send(Method::GET, &one, &wrong).await;
    let response = admin.send(Method::GET, &one, &wrong).await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(admin.call(Method::GET, &one, OPERATOR).await.0, 200, "nobody is locked out");
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let admin = start(people()).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(admin.send(Method::GET, path, &[]).await.status(), 200, "{path}");
    }
    let metrics = admin.send(Method::GET, "/metrics", &[]).await;
    assert_eq!(metrics.headers()["content-type"], metrics::CONTENT_TYPE);
    let sick = start(Memory { not_ready: Some("draining".into()), ..people() }).await;
    assert_eq!(sick.send(Method::GET, "/livez", &[]).await.status(), 200);
    let response = sick.send(Method::GET, "/readyz", &[]).await;
    assert_eq!(response.status(), 503);
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(body["reason"], "draining");
}

#[tokio::test]
async fn foreign_names_are_refused() {
    let admin = start(people()).await;
    let port = admin.address.rsplit_once(':').unwrap().1;
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        ("LOCALHOST".to_owned(), 200),
        ("[::1]:9901".to_owned(), 200),
        ("127.0.0.1".to_owned(), 200),
        ("10.1.2.3".to_owned(), 421),
        (format!("evil.example:{port}"), 421),
        ("localhost.evil.example".to_owned(), 421),
        ("127.0.0.1.evil.example".to_owned(), 421),
        ("evil.example@localhost".to_owned(), 421),
        (String::new(), 421),
    ] {
        let response = admin.send(Method::GET, "/livez", &[("host", &host)]).await;
        assert_eq!(response.status(), status, "{host}");
    }
    let any = "0.0.0.0:1".parse().unwrap();
    assert!(is_own_name("10.1.2.3:80", any) && !is_own_name("evil.example", any));
}

#[tokio::test]
async fn observing_ends_nothing_and_a_broken_store_is_told() {
    let admin = start(Memory { observe: true, ..people() }).await;
    for path in [&format!("/api/v1/sessions/{ID1}"), "/api/v1/users/alice/sessions"] {
        let (status, problem) = admin.call(Method::DELETE, path, OPERATOR).await;
        assert_eq!((status, problem["reason"].as_str()), (409, Some("observe_mode")));
    }
    let admin = start(Memory { broken: true, ..people() }).await;
    let (status, problem) = admin.call(Method::GET, "/api/v1/sessions", OPERATOR).await;
    assert_eq!((status, problem["reason"].as_str()), (503, Some("store_failed")));
}

#[tokio::test]
async fn large_heads_are_refused_and_shutdown_closes() {
    let admin = start(people()).await;
    let big = "x".repeat(20_000);
    assert_eq!(admin.send(Method::GET, "/livez", &[("x-big", &big)]).await.status(), 431);
    admin.shutdown.cancel();
    for _ in 0..50 {
        if tokio::net::TcpStream::connect(&admin.address).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still listening");
}
