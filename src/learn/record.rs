//! The recording proxy: every request goes to the app and back, both are kept in memory. It knows no
//! sessions and no rules; it is there for one operator and some minutes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::clock::{Clock, SystemClock};
use crate::fetch::fetch;

use super::recording::{Exchange, Phase, Recording};

const TIMEOUT: Duration = Duration::from_secs(120);
/// After an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A recording is some minutes of one person.
const EXCHANGES_MAX: usize = 5000;

/// What concerns one connection only, or would bring answers that cannot be read.
const LEFT_OUT: [HeaderName; 11] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::ACCEPT_ENCODING,
    // A page that has not changed would come without its text.
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::RANGE,
];

/// A running recording proxy.
pub struct Recorder {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    authority: String,
    clock: SystemClock,
    recorded: Mutex<(Phase, Recording)>,
    under_way: AtomicUsize,
}

impl Recorder {
    /// Starts to listen; the app is at `authority`.
    pub async fn start(listen: SocketAddr, authority: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            authority: authority.to_owned(),
            clock: SystemClock::new(),
            recorded: Mutex::new((Phase::WrongPassword, Recording::default())),
            under_way: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                // A connection that breaks is the browser's business.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, state })
    }

    /// From now on requests belong to this phase.
    pub fn enter(&self, phase: Phase) {
        self.state.recorded.lock().0 = phase;
    }

    /// Waits until no request is under way, but not for streams that never end.
    pub async fn settle(&self) {
        for _ in 0..100 {
            if self.state.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Looks at what was recorded so far.
    pub fn look<T>(&self, at: impl FnOnce(&Recording) -> T) -> T {
        at(&self.state.recorded.lock().1)
    }

    /// What was recorded so far; later requests begin a new recording.
    pub fn take(&self) -> Recording {
        std::mem::take(&mut self.state.recorded.lock().1)
    }

    /// Puts a recording back in front of what came since.
    pub fn put_back(&self, mut recording: Recording) {
        let mut recorded = self.state.recorded.lock();
        recording.exchanges.append(&mut recorded.1.exchanges);
        recorded.1 = recording;
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    state.under_way.fetch_add(1, Ordering::SeqCst);
    let response = pass(&state, request).await.unwrap_or_else(|what| {
        let mut response =
            Response::new(Full::new(Bytes::from(format!("headcount learn: {what}\n"))));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    });
    state.under_way.fetch_sub(1, Ordering::SeqCst);
    Ok(response)
}

async fn pass(state: &State, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, String> {
    let phase = state.recorded.lock().0;
    let (mut parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| "the request broke off or is larger than 16 MiB".to_owned())?
        .to_bytes();
    leave_out(&mut parts.headers);
    let mut sent = Request::new(Full::new(body.clone()));
    *sent.method_mut() = parts.method.clone();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    *sent.uri_mut() = target.parse().map_err(|_| "the address cannot be read".to_owned())?;
    *sent.headers_mut() = parts.headers.clone();
    let answer = fetch(&state.authority, sent, TIMEOUT).await.map_err(|error| error.to_string())?;
    let (mut head, text) = answer.into_parts();
    let at = state.clock.now();
    let seen = (head.status.as_u16(), head.headers.clone(), &text[..]);
    let exchange = Exchange::read(phase, at, parts, &body, seen).await;
    {
        let mut recorded = state.recorded.lock();
        if recorded.1.exchanges.len() < EXCHANGES_MAX {
            recorded.1.exchanges.push(exchange);
        }
    }
    leave_out(&mut head.headers);
    Ok(Response::from_parts(head, Full::new(text)))
}

fn leave_out(headers: &mut HeaderMap) {
    for name in &LEFT_OUT {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}
