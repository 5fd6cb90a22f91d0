//! The whole proxy: what a client sends on one connection, what the app gets of it, and what comes
//! back, held against a second, strict reader. The proxy runs in this process, as `serve` runs it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headcount::lifecycle::Lifecycle;
use headcount::listener::Inherited;
use headcount::{config, server};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::strict::{self, Read, Seen};

/// Longer than any deadline below.
const PATIENCE: Duration = Duration::from_secs(8);

struct Harness {
    runtime: Runtime,
    folder: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    _running: server::Running,
}

/// The first byte tells in how large pieces the others are sent.
pub fn proxy(data: &[u8]) {
    static HARNESS: OnceLock<Mutex<Harness>> = OnceLock::new();
    let Some((first, bytes)) = data.split_first() else { return };
    // Of its answers nobody can tell where they end without the question.
    if bytes.windows(5).any(|window| window == b"HEAD ") {
        return;
    }
    let harness = HARNESS.get_or_init(|| Mutex::new(Harness::start()));
    // One at a time: what the app sees is this input's.
    let harness = harness.lock();
    let piece = if *first == 0 { bytes.len().max(1) } else { usize::from(*first) };
    harness.seen.lock().clear();
    let expected = expected(bytes);
    let answers = harness.runtime.block_on(harness.exchange(bytes, piece, &expected));
    let seen = std::mem::take(&mut *harness.seen.lock());
    judge(bytes, &answers, &seen, &expected);
}

impl Harness {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // The path of a socket is short.
        let tests = option_env!("CARGO_TARGET_TMPDIR").filter(|path| path.len() < 64);
        let base = tests.map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = base.join(format!("headcount-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let app = runtime.block_on(start_app(Arc::clone(&seen)));
        let settings = config::parse("fuzz.toml", &configuration(&folder, app), &|_: &str| None);
        let settings = settings.unwrap_or_else(|report| panic!("{report}"));
        let running =
            runtime.block_on(server::start(settings, None, Inherited::default(), Lifecycle::new()));
        let running = running.unwrap();
        Self { runtime, folder, seen, _running: running }
    }

    /// Sends the input, waits for the answers that are due, and says good-bye.
    async fn exchange(&self, bytes: &[u8], piece: usize, expected: &[Seen]) -> Vec<u8> {
        let socket = UnixStream::connect(self.folder.join("socket")).await.unwrap();
        let (mut read, mut write) = socket.into_split();
        let writing = async {
            for piece in bytes.chunks(piece) {
                // It may have been refused by now.
                if write.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            write
        };
        let mut answers = Vec::new();
        let reading = async {
            while served(&answers) < expected.len() {
                match timeout(PATIENCE, read.read_buf(&mut answers)).await {
                    Ok(Ok(1..)) => {}
                    Ok(Ok(0) | Err(_)) => break,
                    Err(_) => panic!("no answer: {}", bytes.escape_ascii()),
                }
            }
        };
        let (write, ()) = tokio::join!(writing, reading);
        // Of what is not whole, no more comes.
        drop(write);
        let rest = timeout(PATIENCE, read.read_to_end(&mut answers)).await;
        assert!(rest.is_ok(), "left open: {}", bytes.escape_ascii());
        answers
    }
}

fn configuration(folder: &Path, app: std::net::SocketAddr) -> String {
    let folder = folder.display();
    format!(
        r#"
server.listen = "unix:{folder}/socket"
server.workers = 1
server.limits.head_timeout = "2s"
server.limits.body_idle_timeout = "2s"
server.limits.login_body = "1KiB"
server.limits.body = "4KiB"
upstream.url = "http://{app}"
store.url = "sqlite://{folder}/fuzz.db"
store.key_file = "{folder}/fuzz.key"
limit.max_sessions = 1
[[credential]]
at = "cookie:sid"
[[login]]
request = {{ methods = ["POST"], path = "/login" }}
success = {{ status = [302], sets = "sid" }}
user = ["form:user"]
"#
    )
}

async fn start_app(seen: Arc<Mutex<Vec<Seen>>>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(app(stream, Arc::clone(&seen)));
        }
    });
    address
}

/// Answers with an account of each request.
async fn app(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut buffer = Vec::new();
    loop {
        match strict::read(&buffer) {
            Read::Request(length, request) => {
                buffer.drain(..length);
                let account = request.account();
                seen.lock().push(request);
                let length = account.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{account}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Read::More => match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            Read::Bad(why) => {
                // A panic in a task would be lost.
                eprintln!("the app got {why}: {}", buffer.escape_ascii());
                std::process::abort();
            }
        }
    }
}

fn served(mut answers: &[u8]) -> usize {
    let mut count = 0;
    while let Some((status, _)) = read_answer(&mut answers) {
        count += usize::from(status == 200);
    }
    count
}

/// The app saw what was answered, which is what a strict reader finds, as far as it was not refused.
fn judge(bytes: &[u8], answers: &[u8], seen: &[Seen], expected: &[Seen]) {
    let input = bytes.escape_ascii();
    let (mut rest, mut accounts, mut refused) = (answers, Vec::new(), None);
    while !rest.is_empty() {
        let answer = read_answer(&mut rest);
        let Some((status, body)) = answer else { panic!("{input}: {}", answers.escape_ascii()) };
        assert_eq!(refused, None, "{input}: an answer after a refusal: {}", answers.escape_ascii());
        match status {
            100..200 => {}
            200 => accounts.push(body),
            status => refused = Some(status),
        }
    }
    let seen: Vec<String> = seen.iter().map(Seen::account).collect();
    let expected: Vec<String> = expected.iter().map(Seen::account).collect();
    assert_eq!(accounts, seen, "{input}: what was answered, and what the app saw");
    assert!(
        expected.starts_with(&seen),
        "{input}: {seen:?}, but a strict reader finds {expected:?}"
    );
    assert!(
        seen.len() == expected.len() || refused.is_some(),
        "{input}: {seen:?} of {expected:?}, and no refusal"
    );
    let known = [400, 404, 405, 408, 413, 414, 415, 417, 431, 501, 505];
    assert!(refused.is_none_or(|status| known.contains(&status)), "{input}: {refused:?}");
}

/// One answer, with a length or in chunks; in HTTP/1.0 for who asked in it.
pub fn read_answer(bytes: &mut &[u8]) -> Option<(u16, String)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
    let status = head.strip_prefix("http/1.")?.get(2..5)?.parse().ok()?;
    let mut rest = &bytes[end..];
    let body = if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        strict::chunks(&mut rest).ok()?
    } else {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(Some(0), |length| length.parse().ok())?;
        let body = rest.get(..length)?.to_vec();
        rest = &rest[length..];
        body
    };
    *bytes = rest;
    Some((status, strict::text(&body)))
}

/// What a strict reader finds in the input, as the app gets it: the most that may be served.
pub fn expected(bytes: &[u8]) -> Vec<Seen> {
    let mut found = strict::requests(bytes);
    for seen in &mut found {
        // The app gets the path of an absolute target.
        let lower = seen.target.to_ascii_lowercase();
        let rest = lower.strip_prefix("http://shop").or_else(|| lower.strip_prefix("https://shop"));
        if let Some(rest) = rest {
            let path = seen.target[seen.target.len() - rest.len()..].to_owned();
            seen.target = if path.starts_with('/') { path } else { format!("/{path}") };
        }
    }
    found
}
