//! Whole applications that examples are for, each with a trap of its own: a wiki whose answer to "who
//! am I" names a visitor's address, a wiki that takes cookies back from everybody, and an editor whose
//! token may stand in the URL, of a WebSocket too.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::browser::{Browser, password_of};
use crate::support::http::{Request, Response};
use crate::support::proxy::Proxy;
use crate::support::raw;
use crate::support::site::{App, Site};

const MEDIAWIKI: &str = include_str!("../../../config/examples/mediawiki.toml");

#[track_caller]
fn before(site: &Site, max_sessions: u32, example: &str) -> Proxy {
    let toml = format!("limit.max_sessions = {max_sessions}\n{example}");
    Proxy::start(site.address, None, &toml)
}

/// Whom the wiki takes the browser for, in its own words: an address is nobody.
#[track_caller]
fn wikipedian(browser: &mut Browser) -> Option<String> {
    let answer = browser.fetch_json("/api.php?action=query&meta=userinfo&format=json");
    if answer.status != 200 {
        return None;
    }
    let info = answer.json()["query"]["userinfo"].clone();
    let name = info["name"].as_str().unwrap().to_lowercase();
    (info["id"] != 0).then_some(name)
}

#[track_caller]
fn try_wiki(browser: &mut Browser, user: &str, password: &str) -> Response {
    let path = "/index.php?title=Special:UserLogin";
    let page = browser.get(path).text();
    let token = page.split("name=\"wpLoginToken\"").nth(1);
    let token = token.and_then(|rest| rest.split("value=\"").nth(1)?.split('"').next());
    let form = [
        ("wpLoginToken", token.expect("a token in the form")),
        ("wpName", user),
        ("wpPassword", password),
        ("authAction", "login"),
    ];
    browser.post(path, &form)
}

#[track_caller]
fn on_wiki(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    let answer = try_wiki(&mut browser, user, &password_of(user));
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert_eq!(wikipedian(&mut browser).as_deref(), Some(user));
    browser
}

#[test]
fn an_address_that_the_wiki_gives_for_a_name_is_nobody() {
    let site = Site::shared(App::MediaWiki);
    let proxy = before(site, 1, MEDIAWIKI);
    // With a cookie of the wiki's, stamped, and with one that comes from nowhere.
    for made_up in [false, true] {
        let mut visitor = proxy.browser();
        visitor.get("/index.php?title=Special:UserLogin");
        assert!(visitor.cookie("wiki_session").is_some());
        if made_up {
            visitor.set_cookie("wiki_session", "0123456789abcdefghijklmnopqrstuv");
        }
        let path = "/api.php?action=query&meta=userinfo&format=json";
        let info = visitor.fetch_json(path).json()["query"]["userinfo"].clone();
        assert_eq!((info["id"].clone(), &info["name"]), (0.into(), &"127.0.0.1".into()));
    }
    for state in ["live", "ended"] {
        let listed = proxy.admin("GET", &format!("/api/v1/sessions?state={state}")).json();
        assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(0), "{listed}");
    }
}

/// The wiki answers a login through its API with 200, whatever comes of it.
#[test]
fn a_200_for_a_failed_login_is_no_login() {
    let site = Site::shared(App::MediaWiki);
    let proxy = before(site, 1, MEDIAWIKI);
    let user = site.user();
    let mut first = on_wiki(&proxy, &user);
    let try_api = |browser: &mut Browser, password: &str| {
        let answer = browser.get("/api.php?action=query&meta=tokens&type=login&format=json");
        let token = answer.json()["query"]["tokens"]["logintoken"].as_str().unwrap().to_owned();
        let form = [("lgname", &*user), ("lgpassword", password), ("lgtoken", &token)];
        let answer = browser.post("/api.php?action=login&format=json", &form);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["login"]["result"].as_str().unwrap().to_owned()
    };
    let mut second = proxy.browser();
    for _ in 0..3 {
        assert_eq!(try_api(&mut second, "guess"), "Failed");
        assert_eq!(try_wiki(&mut second, &user, "guess").status, 200);
    }
    assert_eq!(wikipedian(&mut first).as_deref(), Some(&*user));
    assert_eq!(try_api(&mut second, &password_of(&user)), "Success");
    assert_eq!(wikipedian(&mut second).as_deref(), Some(&*user));
    assert_eq!(wikipedian(&mut first), None);
    assert_eq!(proxy.live(&user), 1);
}

/// Neither half of the pair does anything without the other, or with the other of somebody else: not
/// at the wiki, and not for us. The number of a user is the same on all devices. The wiki takes back
/// what comes alone, as from a browser that was closed in between: that session is over.
#[test]
fn the_halves_of_a_pair_count_together_only() {
    const PAIR: [&str; 2] = ["wiki_session", "wikiUserID"];
    let site = Site::shared(App::MediaWiki);
    let proxy = before(site, 2, MEDIAWIKI);
    let (user, other) = (site.user(), site.user());
    let mut browsers = [&user, &user, &other].map(|user| on_wiki(&proxy, user));
    let bare = |browser: &Browser, name| {
        browser.cookie(name).unwrap().split(".hc1.").next().unwrap().to_owned()
    };
    assert_eq!(bare(&browsers[0], "wikiUserID"), bare(&browsers[1], "wikiUserID"));
    for (one, two) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        let mut mixed = proxy.browser();
        mixed.set_cookie(PAIR[0], &browsers[one].cookie(PAIR[0]).unwrap());
        mixed.set_cookie(PAIR[1], &browsers[two].cookie(PAIR[1]).unwrap());
        assert_eq!(wikipedian(&mut mixed), None, "{one} with {two}");
    }
    let served = browsers.each_mut().map(|browser| wikipedian(browser));
    assert_eq!(served, [&user, &user, &other].map(|user| Some(user.clone())));

    for (at, name) in PAIR.into_iter().enumerate() {
        let mut half = proxy.browser();
        half.set_cookie(name, &browsers[at].cookie(name).unwrap());
        let page = half.get("/index.php/Main_Page");
        assert!(page.status == 200 && page.text().contains("</html>"), "the page comes whole");
        assert_eq!(half.cookie(name), None, "{:?}", page.headers);
        assert_eq!(wikipedian(&mut browsers[at]), None);
        assert_eq!(proxy.live(&user), 1 - at, "{name} alone");
    }
    let ended = proxy.has_events("session_ended", &user, 2);
    assert!(ended.iter().all(|event| event["reason"] == "app"), "{ended:?}");
    assert_eq!(wikipedian(&mut browsers[2]), Some(other));
}

const DOKUWIKI: &str = include_str!("../../../config/examples/dokuwiki.toml");

#[track_caller]
fn editor(browser: &mut Browser) -> Option<String> {
    let answer = browser.fetch_json("/whoami.php");
    (answer.status == 200).then(|| answer.json()["user"].as_str().map(str::to_owned)).flatten()
}

fn try_dokuwiki(browser: &mut Browser, path: &str, user: &str, password: &str) -> Response {
    browser.post(path, &[("u", user), ("p", password)])
}

#[track_caller]
fn on_dokuwiki(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    try_dokuwiki(&mut browser, "/doku.php?id=start&do=login", user, &password_of(user));
    assert_eq!(editor(&mut browser).as_deref(), Some(user));
    browser
}

fn takes_back(answer: &Response) -> bool {
    let mut lines = answer.all("set-cookie");
    lines.any(|line| line.starts_with("DW") && line.contains("Max-Age=0"))
}

/// It takes the cookie back from everybody who is not signed in, and at each failed login.
#[test]
fn a_cookie_that_is_taken_back_from_strangers_is_no_logout() {
    let site = Site::shared(App::DokuWiki);
    let (proxy, user) = (before(site, 1, DOKUWIKI), site.user());
    let mut browser = on_dokuwiki(&proxy, &user);
    let mut visitor = proxy.browser();
    assert!(takes_back(&visitor.get("/doku.php?id=start")));
    let failed = try_dokuwiki(&mut visitor, "/doku.php?id=start", &user, "guess");
    assert!(failed.status == 403 && takes_back(&failed), "{}", failed.status);
    // Half of the session: for the wiki that is a stranger.
    let mut half = proxy.browser();
    half.set_cookie("DokuWiki", &browser.cookie("DokuWiki").unwrap());
    let answer = half.get("/doku.php?id=start");
    assert!(takes_back(&answer), "{:?}", answer.headers);
    assert_eq!(editor(&mut browser).as_deref(), Some(&*user));
    assert_eq!(proxy.live(&user), 1);
    assert!(proxy.events("session_ended", &user).is_empty());
}

/// Any page signs in.
#[test]
fn a_login_on_any_page_is_counted() {
    let site = Site::shared(App::DokuWiki);
    let (proxy, user) = (before(site, 1, DOKUWIKI), site.user());
    let mut first = on_dokuwiki(&proxy, &user);
    let kept = first.jar.clone();
    let mut second = proxy.browser();
    let password = password_of(&user);
    let ways: [&dyn Fn(&mut Browser) -> Response; 3] = [
        &|browser| try_dokuwiki(browser, "/doku.php?id=wiki:syntax", &user, &password),
        &|browser| try_dokuwiki(browser, "/whoami.php", &user, &password),
        &|browser| browser.get(&format!("/doku.php?id=start&u={user}&p={password}")),
    ];
    for (at, way) in ways.iter().enumerate() {
        way(&mut second);
        assert_eq!(editor(&mut second).as_deref(), Some(&*user), "way {at}");
        assert_eq!(editor(&mut first), None, "way {at}");
        assert_eq!(proxy.live(&user), 1, "way {at}");
        std::mem::swap(&mut first, &mut second);
        second = proxy.browser();
    }
    // The wiki itself would still take the first one's.
    let mut direct = site.browser();
    direct.jar = kept;
    for cookie in &mut direct.jar {
        cookie.value = cookie.value.split(".hc1.").next().unwrap().to_owned();
    }
    assert_eq!(editor(&mut direct).as_deref(), Some(&*user));
}

const NODE_RED: &str = include_str!("../../../config/examples/node-red.toml");

#[track_caller]
fn node_red_token(proxy: &Proxy, user: &str) -> String {
    let form = [
        ("client_id", "node-red-editor"),
        ("grant_type", "password"),
        ("scope", "*"),
        ("username", user),
        ("password", &password_of(user)),
    ];
    let answer = proxy.browser().post("/auth/token", &form);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// A text frame, masked with nothing, and short.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let mut frame = vec![0x81];
    if length < 126 {
        frame.push(0x80 | length);
    } else {
        frame.extend([0x80 | 126, 0, length]);
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// The socket that the editor listens on, signed in as the editor does it.
#[track_caller]
fn open_comms(proxy: &Proxy, token: &str) -> TcpStream {
    let query: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let mut socket = raw::connect(proxy.address);
    let head = format!(
        "GET /comms?access_token={query} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&frame(&serde_json::json!({ "auth": token }).to_string())).unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("\"auth\":\"ok\"") {
        let mut piece = [0; 1024];
        let length = socket.read(&mut piece).unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&read));
        read.extend(&piece[..length]);
    }
    assert_eq!(raw::status(&read), 101);
    socket
}

#[test]
fn a_token_in_the_url_dies_with_its_session_and_so_does_its_socket() {
    let site = Site::shared(App::NodeRed);
    let (proxy, user) = (before(site, 1, NODE_RED), site.user());
    let token = node_red_token(&proxy, &user);
    let ask = |token: &str, in_query: bool| {
        let query: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let request = match in_query {
            true => Request::get(&format!("/settings?access_token={query}")),
            false => Request::get("/settings").header("Authorization", &format!("Bearer {token}")),
        };
        proxy.browser().send(&request.xhr())
    };
    for in_query in [true, false] {
        assert_eq!(ask(&token, in_query).json()["user"]["username"], *user);
    }
    let mut socket = open_comms(&proxy, &token);
    let later = node_red_token(&proxy, &user);
    let ended = Instant::now();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert!(ended.elapsed() < Duration::from_secs(1), "cut after {:?}", ended.elapsed());
    for in_query in [true, false] {
        assert_eq!(ask(&token, in_query).status, 401, "in the query: {in_query}");
        assert_eq!(ask(&later, in_query).json()["user"]["username"], *user);
    }
    let direct = Request::get("/settings").header("Authorization", &format!("Bearer {token}"));
    assert_eq!(site.browser().send(&direct).status, 200, "Node-RED itself would take it");
    assert_eq!(proxy.live(&user), 1);
}
