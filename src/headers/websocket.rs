//! The opening handshake of a WebSocket over HTTP/1.1 (RFC 6455 §4): what asks for one, and which
//! answer opens it. Whatever is not quite a handshake stays HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    self, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
};
use http::{Method, Request, Version};
use sha1::{Digest as _, Sha1};

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The header's only value.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn is_websocket(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// Whether the client wants to switch, in the version that everybody speaks and with a key.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let key = only(headers, &SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key).ok());
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && only(headers, &header::UPGRADE).is_some_and(is_websocket)
        && super::is_named(headers, &["upgrade"])
        && only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
        && key.is_some_and(|key| key.len() == 16)
}

/// Whether an answer with status 101 opens the WebSocket that was asked for with `key`.
pub fn opens(answer: &HeaderMap, key: &HeaderValue) -> bool {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    only(answer, &header::UPGRADE).is_some_and(is_websocket)
        && only(answer, &SEC_WEBSOCKET_ACCEPT)
            .is_some_and(|accept| accept == &STANDARD.encode(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_must_be_to_this_key() {
        // The example of RFC 6455 §1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let mut answer = HeaderMap::new();
        answer.insert("upgrade", HeaderValue::from_static("WebSocket"));
        assert!(!opens(&answer, &key));
        let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        answer.insert("sec-websocket-accept", accept);
        assert!(opens(&answer, &key));
        assert!(!opens(&answer, &HeaderValue::from_static("AAAAIHNhbXBsZSBub25jZQ==")));
        answer.insert("upgrade", HeaderValue::from_static("h2c"));
        assert!(!opens(&answer, &key));
    }
}
