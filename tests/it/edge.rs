//! How clients come in and how the app is reached: TLS, HTTP/2, unix sockets, the PROXY protocol,
//! names. The clients are curl, openssl and Python's h2; the proxy is the real one, before a scripted
//! app that sets Secure cookies, or one of `tests/apps`.

mod app_http2;
mod app_names;
mod app_tls;
mod http2;
mod proxy_protocol;
mod scan;
mod tls;
mod unix;
mod windows;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha1::{Digest as _, Sha1};
use tempfile::TempDir;

use crate::support::legacy::{Arrived, LegacyApp, RULES, Reply};
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::{eventually, top};

/// An app that says what it was told about the client.
fn app() -> LegacyApp {
    LegacyApp::start(answer)
}

fn answer(request: &Arrived) -> Reply {
    match request.target() {
        "/login" => {
            let user = request.field("user").unwrap_or_default();
            let https = request.header("x-forwarded-proto") == Some("https");
            let secure = if https { "; Secure" } else { "" };
            let cookie = format!("Set-Cookie: sid=S-{user}-{}; Path=/; HttpOnly{secure}", unique());
            Reply::page("302 Found", &["Location: /", &cookie], "")
        }
        "/hang" => Reply::Hang,
        "/bytes" => Reply::page("200 OK", &[], &numbers(100_000)),
        "/many" => Reply::page("200 OK", &[], &numbers(250_000)),
        "/few" => Reply::page("200 OK", &[], &numbers(5_000)),
        "/events" => Reply::Stream(Box::new(|stream| {
            use std::io::Write as _;
            let _ = stream.write_all(EVENTS_HEAD);
            for number in 0..300 {
                let event = format!("data: {number}\n\n");
                let _ = write!(stream, "{:x}\r\n{event}\r\n", event.len());
            }
            let _ = stream.write_all(b"0\r\n\r\n");
        })),
        "/pour" => Reply::Stream(Box::new(|stream| {
            use std::io::Write as _;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
            while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
        })),
        "/ws/flood" if request.header("upgrade") == Some("websocket") => {
            let key = request.header("sec-websocket-key").unwrap_or_default().to_owned();
            Reply::Stream(Box::new(move |stream| pour(stream, &key)))
        }
        "/slow" => {
            std::thread::sleep(Duration::from_millis(700));
            Reply::page("200 OK", &[], "slow")
        }
        "/ws" | "/ws/half" if request.header("upgrade") == Some("websocket") => {
            let key = request.header("sec-websocket-key").unwrap_or_default().to_owned();
            Reply::Stream(Box::new(move |stream| echo(stream, &key)))
        }
        "/stream" => Reply::Stream(Box::new(|stream| {
            use std::io::Write as _;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            while stream.write_all(&[b'x'; 1024]).is_ok() {
                std::thread::sleep(Duration::from_millis(2));
            }
        })),
        _ => {
            let of = |name: &str| request.headers(name).collect::<Vec<_>>().join(" + ");
            let said = serde_json::json!({
                "cookie": of("cookie"),
                "host": of("host"),
                "proto": of("x-forwarded-proto"),
                "for": of("x-forwarded-for"),
                "forwarded": of("forwarded"),
                "length": request.body.len().to_string(),
            });
            Reply::page("200 OK", &["Content-Type: application/json"], &said.to_string())
        }
    }
}

const EVENTS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

/// So many characters, of which none can be missing or twice without being noticed.
fn numbers(length: usize) -> String {
    let mut text: String = (0..length).map(|number| format!("{number},")).collect();
    text.truncate(length);
    text
}

/// Opens a WebSocket; `key` is answered as RFC 6455 §4.2.2 wants it.
fn accept(stream: &mut std::net::TcpStream, key: &str) {
    use std::io::Write as _;
    let hash = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = STANDARD.encode(hash);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-From: app\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
}

/// Says something without end.
fn pour(stream: &mut std::net::TcpStream, key: &str) {
    use std::io::Write as _;
    accept(stream, key);
    while stream.write_all(b"\x82\x02ok").is_ok() {}
}

/// Says what it hears, and bye at the end.
fn echo(stream: &mut std::net::TcpStream, key: &str) {
    use std::io::{Read as _, Write as _};
    accept(stream, key);
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) if stream.write_all(&piece[..count]).is_ok() => {}
            _ => return,
        }
    }
    let _ = stream.write_all(b"bye");
}

fn unique() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The proxy before the app; `keys` are dotted keys.
#[track_caller]
fn proxy(app: &LegacyApp, keys: &str) -> Proxy {
    let toml = format!("limit.max_sessions = 1\nenforcement.login_url = \"/login\"\n{keys}{RULES}");
    Proxy::start(app.address, None, &toml)
}

/// The key for a certificate of the authority.
fn tls(name: &str) -> String {
    format!("server.tls = {{ {} }}\n", files(name))
}

fn files(name: &str) -> String {
    let at = |suffix: &str| pki(&format!("{name}.{suffix}"));
    format!("certificate = {:?}, key = {:?}", at("pem"), at("key"))
}

/// A file of the certificates that all tests share; they are made once, by openssl.
fn pki(file: &str) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::Builder::new()
            .prefix("pki-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        for ca in ["ca", "stranger-ca"] {
            openssl(folder.path(), &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {ca}.key -out {ca}.pem -days 30 -subj /CN={ca}"
            ));
        }
        issue(folder.path(), "shop", "ca", "30", "DNS:shop.test,DNS:*.shop.test");
        issue(folder.path(), "other", "ca", "30", "DNS:other.test");
        issue(folder.path(), "renewed", "ca", "30", "DNS:shop.test");
        issue(folder.path(), "expired", "ca", "0", "DNS:shop.test");
        issue(folder.path(), "client", "ca", "30", "DNS:client.test");
        issue(folder.path(), "stranger", "stranger-ca", "30", "DNS:client.test");
        folder
    });
    folder.path().join(file)
}

fn issue(folder: &Path, name: &str, ca: &str, days: &str, names: &str) {
    openssl(
        folder,
        &format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} -addext subjectAltName={names}"
        ),
    );
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days {days} -copy_extensions copy -out {name}.pem"
        ),
    );
}

fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let made = made.expect("openssl is installed by tests/setup");
    assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// One of `tests/apps`, as a process of its own.
struct OtherApp {
    process: Process,
    /// Its port, or its socket.
    place: String,
}

impl OtherApp {
    #[track_caller]
    fn start(program: &mut Command) -> Self {
        let process = Process::start("app", program);
        let place = eventually("the app listens", || {
            let listening = process.lines().iter().find_map(|line| listening(line));
            listening.map(|place| place.to_string().trim_matches('"').to_owned())
        });
        Self { process, place }
    }

    /// Node's server; `options` are the kind, the place and the certificates.
    #[track_caller]
    fn node(options: &[&str]) -> Self {
        Self::start(Command::new("node").arg(top().join("tests/apps/app.js")).args(options))
    }

    /// Node's server with a certificate.
    #[track_caller]
    fn secure(kind: &str, name: &str) -> Self {
        let (pem, key) = (pki(&format!("{name}.pem")), pki(&format!("{name}.key")));
        Self::node(&[kind, "0", pem.to_str().unwrap(), key.to_str().unwrap()])
    }

    /// Frames that no decent app sends.
    #[track_caller]
    fn frames(case: &str) -> Self {
        let python = top().join(".venv/bin/python");
        Self::start(Command::new(python).arg(top().join("tests/apps/frames.py")).arg(case))
    }

    /// The JSON lines that have this key.
    fn said(&self, key: &str) -> Vec<Value> {
        let lines = self.process.lines();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| !line[key].is_null()).collect()
    }
}

fn listening(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    line.get("listening").cloned()
}

/// The proxy before an app that is elsewhere than in the network without TLS; `keys` say where.
#[track_caller]
fn proxy_to(keys: &str) -> Proxy {
    let toml = format!("limit.max_sessions = 1\nenforcement.login_url = \"/login\"\n{keys}{RULES}");
    Proxy::start_within(&[], &toml)
}

/// What curl got.
#[derive(Debug)]
struct Answer {
    /// Such as `HTTP/2`.
    version: String,
    status: u16,
    /// As they came.
    head: String,
    body: String,
}

impl Answer {
    /// What the app was told.
    #[track_caller]
    fn said(&self, key: &str) -> String {
        let said: Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert!(said[key].is_string(), "{self:?}");
        said[key].as_str().unwrap().to_owned()
    }
}

/// A curl with a cookie jar, which finds every `.test` host at the proxy.
struct Curl {
    jar: TempDir,
    port: u16,
    options: Vec<String>,
}

impl Curl {
    fn new(proxy: &Proxy, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { jar: TempDir::new().unwrap(), port: proxy.address.port(), options }
    }

    fn run(&self, url: &str, more: &[&str]) -> Output {
        let jar = self.jar.path().join("jar");
        let jar = jar.to_str().unwrap();
        let here = format!("::127.0.0.1:{}", self.port);
        Command::new("curl")
            .args(["-sSi", "--max-time", "20", "--connect-to", &here, "-b", jar, "-c", jar])
            .arg("--cacert")
            .arg(pki("ca.pem"))
            .args(&self.options)
            .args(more)
            .arg(url)
            .output()
            .expect("curl is installed by tests/setup")
    }

    #[track_caller]
    fn get(&self, url: &str, more: &[&str]) -> Answer {
        let output = self.run(url, more);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{url}: {errors}{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut words = head.split(' ');
        let version = words.next().unwrap().to_owned();
        let status = words.next().unwrap().trim().parse().unwrap();
        Answer { version, status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The error with which it fails.
    #[track_caller]
    fn fails(&self, url: &str, more: &[&str]) -> String {
        let output = self.run(url, more);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[track_caller]
    fn sign_in(&self, url: &str, user: &str) -> Answer {
        let answer = self.get(&format!("{url}/login"), &["-d", &format!("user={user}")]);
        assert_eq!(answer.status, 302, "{answer:?}");
        answer
    }
}

/// One user, two clients, one session: the first client is told.
#[track_caller]
fn check_the_limit(proxy: &Proxy, url: &str, options: &[&str], version: &str) {
    let (first, second) = (Curl::new(proxy, options), Curl::new(proxy, options));
    let answer = first.sign_in(url, "alice");
    assert_eq!(answer.version, version);
    let set = answer.head.lines().find(|line| line.to_lowercase().starts_with("set-cookie: sid="));
    let set = set.unwrap();
    assert!(set.contains(".hc1.") && set.contains("; Secure") == url.starts_with("https"), "{set}");
    assert!(first.get(url, &[]).said("cookie").starts_with("sid=S-alice-"));
    second.sign_in(url, "alice");
    assert!(second.get(url, &[]).said("cookie").starts_with("sid=S-alice-"));
    let told = first.get(url, &["-H", "Accept: text/html", "-H", "Sec-Fetch-Mode: navigate"]);
    assert_eq!((told.status, &*told.version), (401, version), "{told:?}");
    let expired =
        told.head.lines().find(|line| line.to_lowercase().starts_with("set-cookie: sid="));
    let secure = expired.map(|line| line.contains("; Secure"));
    assert_eq!(secure, Some(url.starts_with("https")), "{}", told.head);
    assert_eq!(proxy.live("alice"), 1);
}

/// Waits until the proxy has logged a refusal for this reason, and counted it.
#[track_caller]
fn wait_for_refusal(proxy: &Proxy, reason: &str) {
    eventually(&format!("{reason} is logged"), || {
        let log = proxy.log();
        let mut lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["target"] == "headcount::refused" && line["reason"] == reason)
    });
    assert!(count(proxy, &format!("headcount_refusals_total{{reason=\"{reason}\"}}")) > 0);
}

/// The value of a metric.
#[track_caller]
fn count(proxy: &Proxy, metric: &str) -> u64 {
    let metrics = proxy.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric));
    line.unwrap_or_else(|| panic!("no {metric}")).trim().parse().unwrap()
}

/// Runs a client written in Python, with the tests' own interpreter; what it prints.
#[track_caller]
fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(top().join(".venv/bin/python"))
        .arg(top().join("tests/clients").join(script))
        .args(arguments)
        .output()
        .expect("python is installed by tests/setup");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
