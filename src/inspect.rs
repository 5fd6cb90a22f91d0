//! Looking into an answer: its body is read within a limit, decoded within the same limit, and goes
//! on to the client byte for byte. What the text means is the business of `detect.rs`.

use std::io::Read;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{CONTENT_ENCODING, HeaderMap};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::body::AppBody;
use crate::refusal::Refusal;
use crate::rules::expression::{self, Values};

/// What an answer says, decoded.
#[derive(Debug, Default)]
pub struct AnswerText {
    text: Vec<u8>,
    json: Option<serde_json::Value>,
}

impl AnswerText {
    pub fn new(text: Vec<u8>) -> Self {
        let json = serde_json::from_slice(&text).ok();
        Self { text, json }
    }

    /// The whole text.
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether it is a JSON document, whatever its Content-Type says.
    pub fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// The text, number or truth value at a JSON pointer.
    pub fn json(&self, pointer: &str) -> Option<String> {
        expression::scalar_at(self.json.as_ref()?, pointer)
    }

    /// The same, where a list may stand.
    pub fn json_values(&self, pointer: &str) -> Option<Values> {
        expression::values_at(self.json.as_ref()?, pointer)
    }
}

/// Reads the body for rules to look into. `None`: it is larger than `bytes_max`, slower than
/// `patience`, or in an encoding that cannot be read. The body returned is whole in any case.
pub async fn read(
    headers: &HeaderMap,
    body: AppBody,
    bytes_max: usize,
    patience: Duration,
) -> Result<(Option<AnswerText>, AppBody), Refusal> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Ok((None, body));
    }
    let deadline = Instant::now() + patience;
    let mut rest = body;
    let mut read = BytesMut::new();
    let whole = loop {
        if rest.is_end_stream() {
            break true;
        }
        let Ok(frame) = timeout_at(deadline, rest.frame()).await else { break false };
        let data = match frame {
            None => break true,
            Some(Ok(frame)) => frame.into_data(),
            Some(Err(error)) => {
                tracing::warn!(%error, "the app broke off an answer that a rule looks into");
                return Err(Refusal::UpstreamInvalid);
            }
        };
        // Trailers come last.
        let Ok(data) = data else { break true };
        read.extend_from_slice(&data);
        if read.len() > bytes_max {
            break false;
        }
    };
    let read = read.freeze();
    let text = if whole { decoded(headers, &read, bytes_max) } else { None };
    Ok((text.map(AnswerText::new), rest.after(read)))
}

/// The text behind a Content-Encoding; a small answer that unpacks to a large one is none.
pub fn decoded(headers: &HeaderMap, body: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let Some(encoding) = encodings.next() else { return Some(body.to_vec()) };
    if encodings.next().is_some() {
        return None;
    }
    match encoding.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Some(body.to_vec()),
        "gzip" | "x-gzip" => unpacked(flate2::read::MultiGzDecoder::new(body), bytes_max),
        // Meant is zlib (RFC 9110 §8.4.1.2); some servers send the bare stream.
        "deflate" => unpacked(flate2::read::ZlibDecoder::new(body), bytes_max)
            .or_else(|| unpacked(flate2::read::DeflateDecoder::new(body), bytes_max)),
        "br" => unpacked(brotli_decompressor::Decompressor::new(body, 4096), bytes_max),
        _ => None,
    }
}

fn unpacked(decoder: impl Read, bytes_max: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let one_more = bytes_max as u64 + 1;
    decoder.take(one_more).read_to_end(&mut text).ok()?;
    (text.len() <= bytes_max).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = br#"{"ok":true}"#;
    /// `TEXT`, uncompressed within a brotli stream.
    const BROTLI: &[u8] = b"\x0b\x05\x80{\"ok\":true}\x03";

    fn decode(encodings: &[&str], body: &[u8]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for encoding in encodings {
            headers.append(CONTENT_ENCODING, encoding.parse().unwrap());
        }
        decoded(&headers, body, 1024)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_common_encoding_is_read() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(TEXT).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(TEXT).unwrap();
        let table: [(&[&str], Vec<u8>); 8] = [
            (&[], TEXT.to_vec()),
            (&["identity"], TEXT.to_vec()),
            (&["gzip"], gzip(TEXT)),
            (&["GZIP"], gzip(TEXT)),
            (&["x-gzip"], gzip(TEXT)),
            (&["deflate"], zlib.finish().unwrap()),
            (&["deflate"], bare.finish().unwrap()),
            (&["br"], BROTLI.to_vec()),
        ];
        for (encodings, body) in table {
            assert_eq!(decode(encodings, &body).as_deref(), Some(TEXT), "{encodings:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_whole_is_not_read_at_all() {
        let cut = &gzip(TEXT)[..12];
        let bomb = gzip(&vec![b'x'; 1 << 20]);
        assert!(bomb.len() < 1 << 14);
        for (encodings, body) in [
            (&["gzip"][..], cut),
            (&["gzip"], TEXT),
            (&["gzip"], &bomb),
            (&["zstd"], TEXT),
            (&["gzip, br"], TEXT),
            (&["gzip", "identity"], TEXT),
        ] {
            assert_eq!(decode(encodings, body), None, "{encodings:?}");
        }
        assert_eq!(decode(&[], &[b'x'; 1024]).map(|text| text.len()), Some(1024));
    }

    #[test]
    fn values_are_found_in_json_whatever_it_is_called() {
        let text =
            AnswerText::new(br#"{"user":{"name":"alice","id":7},"ok":true,"no":null}"#.into());
        let find = |pointer| text.json(pointer);
        assert_eq!(find("/user/name").as_deref(), Some("alice"));
        assert_eq!(find("/user/id").as_deref(), Some("7"));
        assert_eq!(find("/ok").as_deref(), Some("true"));
        assert_eq!((find("/no"), find("/user"), find("/none")), (None, None, None));
        let deep = AnswerText::new("[".repeat(100_000).into_bytes());
        assert!(!deep.is_json() && AnswerText::new(b"<p>".to_vec()).json("/a").is_none());
    }
}
