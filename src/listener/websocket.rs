//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT takes the form that it would have had over
//! HTTP/1.1, so that it is judged and forwarded like every other, and its answer the form that HTTP/2
//! has for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::ext::Protocol;

use crate::keyring;

/// Whether the request opens a WebSocket; then it is an upgrade now. Other CONNECTs stay what they
/// are, and are refused.
pub(super) fn as_upgrade<B>(request: &mut Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    if request.method() != Method::CONNECT
        || protocol.is_none_or(|protocol| protocol.as_str() != "websocket")
    {
        return false;
    }
    // Over HTTP/2 there is none (RFC 8441 §5), but the app needs one.
    let Some(key) = keyring::random::<16>()
        .ok()
        .and_then(|key| HeaderValue::from_str(&STANDARD.encode(key)).ok())
    else {
        return false;
    };
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, key);
    true
}

/// Whether the answer can be that to a CONNECT: any success would open the tunnel, but only a switch
/// of protocols is meant to.
pub(super) fn answers_connect<B>(response: &mut Response<B>) -> bool {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return !response.status().is_success();
    }
    *response.status_mut() = StatusCode::OK;
    for name in [UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_switch_opens_a_tunnel() {
        let answers = |status: u16| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            answers_connect(&mut response).then(|| response.status().as_u16())
        };
        assert_eq!(answers(101), Some(200));
        for status in [302, 401, 404, 503] {
            assert_eq!(answers(status), Some(status));
        }
        for status in [200, 204, 299] {
            assert_eq!(answers(status), None, "{status}");
        }
    }

    #[test]
    fn other_connects_stay_what_they_are() {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        assert!(!as_upgrade(&mut request));
        request.extensions_mut().insert(Protocol::from_static("connect-udp"));
        assert!(!as_upgrade(&mut request) && request.method() == Method::CONNECT);
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        assert!(as_upgrade(&mut request) && request.method() == Method::GET);
        assert_eq!(request.headers()[SEC_WEBSOCKET_KEY].len(), 24);
    }
}
