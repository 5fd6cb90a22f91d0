//! A small HTTP/1.1 client for our own calls (the command line, the demo): one connection, one
//! request, one answer of bounded size in bounded time, no TLS. The data path never uses it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("{0} did not answer as HTTP")]
    Http(String, #[source] hyper::Error),
    #[error("the answer of {0} broke off or is too large")]
    Body(String),
    #[error("what {0} answered cannot be kept")]
    Keep(String, #[source] std::io::Error),
    #[error("{0} did not answer within {1:?}")]
    Timeout(String, Duration),
}

/// Sends `request` to `authority` (`host:port`) and reads the whole answer within `timeout`.
/// The request needs its Host header and a path as its target.
pub async fn fetch(
    authority: &str,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> Result<Response<Bytes>, FetchError> {
    tokio::time::timeout(timeout, exchange(authority, request))
        .await
        .unwrap_or_else(|_| Err(FetchError::Timeout(authority.to_owned(), timeout)))
}

/// The same for an answer of any size: if it is a good one, `keep` gets it in pieces, each within
/// `timeout`, and the body returned is empty.
pub async fn fetch_into(
    authority: &str,
    request: Request<Full<Bytes>>,
    timeout: Duration,
    mut keep: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Response<Bytes>, FetchError> {
    let late = |_| FetchError::Timeout(authority.to_owned(), timeout);
    let broken = || FetchError::Body(authority.to_owned());
    let begun = tokio::time::timeout(timeout, begin(authority, request)).await.map_err(late)?;
    let (_sender, response) = begun?;
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        let rest = Limited::new(body, BODY_BYTES_MAX).collect();
        let rest = tokio::time::timeout(timeout, rest).await.map_err(late)?;
        return Ok(Response::from_parts(head, rest.map_err(|_| broken())?.to_bytes()));
    }
    while let Some(frame) = tokio::time::timeout(timeout, body.frame()).await.map_err(late)? {
        if let Some(piece) = frame.map_err(|_| broken())?.data_ref() {
            keep(piece).map_err(|error| FetchError::Keep(authority.to_owned(), error))?;
        }
    }
    Ok(Response::from_parts(head, Bytes::new()))
}

async fn exchange(
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, FetchError> {
    let (_sender, response) = begin(authority, request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| FetchError::Body(authority.to_owned()))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// The connection lasts as long as its sender.
async fn begin(
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), FetchError> {
    let http = |error| FetchError::Http(authority.to_owned(), error);
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| FetchError::Connect(authority.to_owned(), error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    // Ends with the sender; what goes wrong shows at the request.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(http)?;
    Ok((sender, response))
}
