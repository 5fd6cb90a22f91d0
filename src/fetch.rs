//! A small HTTP/1.1 client for our own calls (the command line, the demo): one connection, one
//! request, one answer of bounded size in bounded time, no TLS. The data path never uses it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
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

async fn exchange(
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, FetchError> {
    let http = |error| FetchError::Http(authority.to_owned(), error);
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| FetchError::Connect(authority.to_owned(), error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    // Ends with the sender; what goes wrong shows at the request.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(http)?.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| FetchError::Body(authority.to_owned()))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}
