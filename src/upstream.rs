//! Sending judged requests to the app, and the connections kept for that. What is sent, and what
//! the answer means, is the business of `proxy.rs`.

mod connect;
mod pool;
mod strict;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::pool::{Link, Pool};
use crate::body::{RequestBody, Upload};
use crate::idle::Alarm;
use crate::policy::Permit;
use crate::refusal::Refusal;
use crate::settings::UpstreamSettings;

/// Why there is no answer from the app.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nothing was sent.
    #[error("cannot connect to the app: {0}")]
    Connect(#[source] io::Error),
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
    #[error("the app sent more than {} interim answers", strict::INTERIM_MAX)]
    Interim,
    #[error("the app did not answer in time")]
    Timeout,
    /// The client's body failed, so the request was broken off.
    #[error("the request body failed: {0}")]
    RequestBody(Refusal),
}

impl UpstreamError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::TimedOut => {
                Refusal::UpstreamTimeout
            }
            Self::Connect(_) => Refusal::UpstreamUnreachable,
            Self::Closed(_) | Self::Invalid(_) | Self::Framing | Self::Interim => {
                Refusal::UpstreamInvalid
            }
            Self::Timeout => Refusal::UpstreamTimeout,
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
    first_byte_timeout: Duration,
}

impl Upstream {
    pub fn new(settings: &UpstreamSettings) -> Self {
        let first_byte_timeout = Duration::from_millis(settings.first_byte_timeout_ms);
        Self { pool: Arc::new(Pool::new(settings)), first_byte_timeout }
    }

    /// Sends a request and waits for the head of the answer. It is sent at most once: only a
    /// request that a closing connection handed back untouched goes out on a fresh one.
    ///
    /// Dropping the future, or the answer's body before its end, closes the connection.
    pub async fn send(
        &self,
        _permit: Permit,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        *request.version_mut() = Version::HTTP_11;
        strict::keep_body(&mut request);
        let upload = request.body().upload().cloned();
        let upload = upload.as_deref();
        let link = match self.pool.take() {
            Some(link) => link,
            None => self.pool.connect().await.map_err(UpstreamError::Connect)?,
        };
        let mut refused = match self.exchange(link, request, upload).await {
            Ok(answer) => return answer,
            Err(refused) => refused,
        };
        let Some(request) = refused.take_message() else {
            return Err(UpstreamError::of(refused.into_error(), upload));
        };
        let link = self.pool.connect().await.map_err(UpstreamError::Connect)?;
        match self.exchange(link, request, upload).await {
            Ok(answer) => answer,
            Err(refused) => Err(UpstreamError::of(refused.into_error(), upload)),
        }
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
        let flooded = strict::limit_interim(&mut request);
        let answer = link.sender().try_send_request(request);
        let answer = tokio::select! {
            biased;
            () = flooded.cancelled() => return Ok(Err(UpstreamError::Interim)),
            answer = in_time(answer, upload, self.first_byte_timeout) => answer,
        };
        let Some(answer) = answer else {
            return Ok(Err(UpstreamError::Timeout));
        };
        let mut response = answer.map_err(Box::new)?;
        if !strict::check_framing(response.headers_mut()) {
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

/// Waits for an answer. The app's time starts when the upload ended, or last moved; a client that
/// makes us wait has a timeout of its own.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    upload: Option<&Upload>,
    timeout: Duration,
) -> Option<T> {
    let mut answer = pin!(answer);
    let mut alarm = Alarm::default();
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
