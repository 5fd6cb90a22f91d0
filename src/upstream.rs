//! Sending judged requests to the app, and the connections kept for that. What is sent, and what
//! the answer means, is the business of `proxy.rs`.

mod connect;
mod http2;
mod names;
mod pool;
mod strict;
#[cfg(test)]
mod tests;

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{HOST, UPGRADE};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::connect::Connector;
pub use self::connect::{App, ConnectError};
use self::http2::{Shared, Slot};
use self::pool::{Link, Pool};
use self::strict::Interim;
use crate::body::{AppBody, RequestBody, Upload};
use crate::idle::Alarm;
use crate::policy::Permit;
use crate::refusal::Refusal;
use crate::settings::{AppHttp, Lenience, UpstreamSettings};

/// Why there is no answer from the app.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nothing was sent.
    #[error("cannot connect to the app: {0}")]
    Connect(#[from] ConnectError),
    /// The app closed before it answered. It may have acted on the request.
    #[error("the app closed the connection: {0}")]
    Closed(#[source] hyper::Error),
    /// The answer is not HTTP, or over its limits.
    #[error("the app's answer cannot be read: {0}")]
    Invalid(#[source] hyper::Error),
    /// Where the answer ends is not clear.
    #[error(
        "the app's answer has no clear end: its Content-Length or Transfer-Encoding is ambiguous"
    )]
    Framing,
    #[error("the app sent more than {0} interim answers")]
    Interim(usize),
    #[error("the app's answer has more than {0} header lines")]
    Headers(usize),
    #[error("the app did not answer in time")]
    Timeout,
    /// HTTP/2 could not carry the host.
    #[error("the host cannot be sent")]
    Host,
    /// The client's body failed, so the request was broken off.
    #[error("the request body failed: {0}")]
    RequestBody(Refusal),
}

impl UpstreamError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(ConnectError::Socket(_)) => Refusal::UpstreamUnreachable,
            Self::Connect(ConnectError::Tls(_)) => Refusal::UpstreamTls,
            Self::Connect(ConnectError::Timeout) | Self::Timeout => Refusal::UpstreamTimeout,
            Self::Connect(ConnectError::NotHttp2)
            | Self::Closed(_)
            | Self::Invalid(_)
            | Self::Framing
            | Self::Interim(_)
            | Self::Headers(_) => Refusal::UpstreamInvalid,
            Self::Host => Refusal::HostInvalid,
            Self::RequestBody(refusal) => *refusal,
        }
    }

    fn of(error: hyper::Error, upload: Option<&Upload>) -> Self {
        if let Some(refusal) = upload.and_then(Upload::refusal) {
            Self::RequestBody(refusal)
        } else if error.is_parse() {
            Self::Invalid(error)
        } else {
            Self::Closed(error)
        }
    }
}

/// The app, with connections of its own: one per worker, made within its runtime. Clones share
/// the connections.
#[derive(Clone, Debug)]
pub struct Upstream {
    pool: Arc<Pool>,
    /// Where the app may speak HTTP/2.
    shared: Option<Arc<Shared>>,
    scheme: &'static str,
    headers_max: usize,
    interim_max: usize,
    lenience: Lenience,
    first_byte_timeout: Duration,
}

impl Upstream {
    /// `app` is made of the same settings.
    pub fn new(settings: &UpstreamSettings, app: Arc<App>) -> Self {
        let connector = Connector::new(settings, app);
        let secure = connector.is_secure();
        let pool = Arc::new(Pool::new(settings, connector));
        let may_be_http2 = match settings.http_version {
            AppHttp::Http1 => false,
            AppHttp::Http2 => true,
            // Without TLS there is nothing to choose by.
            AppHttp::Auto => secure,
        };
        Self {
            shared: may_be_http2.then(|| Arc::new(Shared::new(settings, Arc::clone(&pool)))),
            pool,
            scheme: if secure { "https" } else { "http" },
            headers_max: settings.headers_max,
            interim_max: settings.interim_max,
            lenience: settings.lenience,
            first_byte_timeout: Duration::from_millis(settings.first_byte_timeout_ms),
        }
    }

    /// Sends a request and waits for the head of the answer. It is sent at most once: only what a
    /// closing connection handed back untouched, or an app refused as unprocessed, goes out again.
    ///
    /// Dropping the future, or the answer's body before its end, ends the exchange: over HTTP/1.1
    /// the connection, over HTTP/2 the stream.
    pub async fn send(
        &self,
        _permit: Permit,
        request: Request<RequestBody>,
    ) -> Result<Response<AppBody>, UpstreamError> {
        // An upgrade takes a connection of its own.
        let shared = self.shared.as_ref().filter(|_| !request.headers().contains_key(UPGRADE));
        if let Some(shared) = shared
            && let Some(slot) = Box::pin(shared.slot()).await?
        {
            return Box::pin(self.send_http2(shared, slot, request)).await;
        }
        self.send_http1(request).await.map(|response| response.map(AppBody::from))
    }

    async fn send_http1(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        *request.version_mut() = Version::HTTP_11;
        strict::keep_body(&mut request);
        let upload = request.body().upload().cloned();
        let upload = upload.as_deref();
        let link = match self.pool.take() {
            Some(link) => link,
            None => Box::pin(self.pool.connect()).await?,
        };
        let mut refused = match self.exchange(link, request, upload).await {
            Ok(answer) => return answer,
            Err(refused) => refused,
        };
        let Some(request) = refused.take_message() else {
            return Err(UpstreamError::of(refused.into_error(), upload));
        };
        let link = Box::pin(self.pool.connect()).await?;
        match Box::pin(self.exchange(link, request, upload)).await {
            Ok(answer) => answer,
            Err(refused) => Err(UpstreamError::of(refused.into_error(), upload)),
        }
    }

    async fn send_http2(
        &self,
        shared: &Arc<Shared>,
        slot: Slot,
        request: Request<RequestBody>,
    ) -> Result<Response<AppBody>, UpstreamError> {
        let mut request = self.for_http2(request)?;
        let upload = request.body().upload().cloned();
        let upload = upload.as_deref();
        let (mut slot, mut again) = (slot, true);
        loop {
            let spare = again.then(|| spare(&request)).flatten();
            let answer = slot.sender().try_send_request(request);
            let mut alarm = Alarm::default();
            let answer = in_time(answer, upload, self.first_byte_timeout, &mut alarm);
            let Some(answer) = answer.await else {
                return Err(UpstreamError::Timeout);
            };
            let mut error = match answer {
                Ok(response) if response.headers().len() > self.headers_max => {
                    return Err(UpstreamError::Headers(self.headers_max));
                }
                Ok(response) => {
                    let keep = Box::new(slot);
                    return Ok(response.map(|body| AppBody::keeping(body, keep)));
                }
                Err(error) => error,
            };
            let untouched = match error.take_message() {
                Some(untouched) => Some(untouched),
                None => spare.filter(|_| was_not_processed(error.error())),
            };
            request = match untouched {
                Some(untouched) if again => untouched,
                _ => return Err(UpstreamError::of(error.into_error(), upload)),
            };
            again = false;
            slot.retire();
            slot = match shared.slot().await? {
                Some(slot) => slot,
                None => return Err(UpstreamError::of(error.into_error(), upload)),
            };
        }
    }

    /// The authority takes the place of Host.
    fn for_http2(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Request<RequestBody>, UpstreamError> {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(HOST).ok_or(UpstreamError::Host)?;
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = self.scheme.parse().ok();
        target.authority = Some(host.as_bytes().try_into().map_err(|_| UpstreamError::Host)?);
        *request.uri_mut() = Uri::from_parts(target).map_err(|_| UpstreamError::Host)?;
        Ok(request)
    }

    /// One attempt; the outer error is hyper's, perhaps with the request handed back.
    async fn exchange(
        &self,
        mut link: Link,
        mut request: Request<RequestBody>,
        upload: Option<&Upload>,
    ) -> Result<Result<Response<Incoming>, UpstreamError>, Box<TrySendError<Request<RequestBody>>>>
    {
        let mut driver = AbortOnDrop(Some(link.driver()));
        let interim = Interim::of(&mut request, self.interim_max);
        let answer = {
            let answer = link.sender().try_send_request(request);
            let answer = in_time(answer, upload, self.first_byte_timeout, link.alarm());
            let mut answer = pin!(answer);
            poll_fn(|cx| match interim.poll_flooded(cx) {
                true => Poll::Ready(Err(UpstreamError::Interim(self.interim_max))),
                false => {
                    answer.as_mut().poll(cx).map(|answer| answer.ok_or(UpstreamError::Timeout))
                }
            })
            .await
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let mut response = answer.map_err(Box::new)?;
        if !strict::check_framing(response.headers_mut(), self.lenience) {
            return Ok(Err(UpstreamError::Framing));
        }
        driver.0 = None;
        // An answer given before the end of the request: what the app reads next is uncertain.
        let early = upload.is_some_and(|upload| !upload.finished());
        if !early && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.pool.give_back(link);
        }
        Ok(Ok(response))
    }
}

/// The same request, for the case that the app refuses it unprocessed. A body that streams cannot be
/// had twice.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let RequestBody::Full(bytes) = request.body() else {
        return None;
    };
    let mut spare = Request::new(RequestBody::Full(bytes.clone()));
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

/// Whether the app has said that it did nothing with the request: it refused the stream, or said
/// good-bye and named only older ones (RFC 9113 §8.7).
fn was_not_processed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return false;
    };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// Waits for an answer. The app's time starts when the upload ended, or last moved; a client that
/// makes us wait has a timeout of its own.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    upload: Option<&Upload>,
    timeout: Duration,
    alarm: &mut Alarm,
) -> Option<T> {
    let mut answer = pin!(answer);
    let mut deadline = Instant::now() + timeout;
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        while alarm.poll(deadline, cx) {
            let now = Instant::now();
            let since = match upload {
                Some(upload) if upload.waits_for_client() => now,
                Some(upload) => upload.last_progress(),
                None => return Poll::Ready(None),
            };
            deadline = since + timeout;
            if deadline <= now {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await
}

/// hyper would first flush what the app may never read.
struct AbortOnDrop(Option<AbortHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(driver) = &self.0 {
            driver.abort();
        }
    }
}
