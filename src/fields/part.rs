//! The head of one part of a multipart form: whether every parser reads the same name and the same
//! text from it. What the text says is not looked at here.

use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName};

use crate::refusal::Refusal;

const CONTENT_TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// `form-data; name="…"`, perhaps with a file name, and nothing by which a parser (Django's, for
/// one) would decode the text.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut dispositions = headers.get_all(CONTENT_DISPOSITION).iter();
    let (Some(disposition), None) = (dispositions.next(), dispositions.next()) else {
        return Err(Refusal::LoginAmbiguous);
    };
    if !is_plain(disposition.as_bytes()) {
        return Err(Refusal::LoginAmbiguous);
    }
    let as_it_is = |encoding: &[u8]| {
        ["7bit", "8bit", "binary"]
            .iter()
            .any(|known| encoding.eq_ignore_ascii_case(known.as_bytes()))
    };
    if !headers.get_all(CONTENT_TRANSFER_ENCODING).iter().all(|it| as_it_is(it.as_bytes())) {
        return Err(Refusal::EncodingUnsupported);
    }
    for kind in headers.get_all(CONTENT_TYPE) {
        let kind = kind.to_str().map_err(|_| Refusal::LoginAmbiguous)?;
        super::charset(kind.split(';').skip(1))?;
    }
    Ok(())
}

/// Quotes only around values and none within, no escapes, each parameter once: some parsers look
/// for `name=` anywhere, some take the first and some the last.
fn is_plain(disposition: &[u8]) -> bool {
    let (kind, mut rest) = split(disposition);
    let (mut names, mut files) = (0, 0);
    while let Some(parameters) = rest {
        let at = parameters.iter().position(|byte| *byte == b'=').unwrap_or(parameters.len());
        let (key, value) = parameters.split_at(at);
        match key.trim_ascii().to_ascii_lowercase().as_slice() {
            b"name" => names += 1,
            b"filename" => files += 1,
            _ => return false,
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii_start();
        let Some(quoted) = value.strip_prefix(b"\"") else {
            let (token, after) = split(value);
            if token.is_empty() || token.iter().any(|byte| !byte.is_ascii_graphic() || is_odd(byte))
            {
                return false;
            }
            rest = after;
            continue;
        };
        let Some(end) = quoted.iter().position(|byte| *byte == b'"') else { return false };
        let (before, after) = split(&quoted[end + 1..]);
        let inside = &quoted[..end];
        // A semicolon within quotes is one for parsers that do not know quotes.
        if !before.is_empty() || inside.iter().any(|byte| is_odd(byte) || *byte == b';') {
            return false;
        }
        rest = after;
    }
    kind.eq_ignore_ascii_case(b"form-data") && names == 1 && files <= 1
}

fn is_odd(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'=' | b',' | b'\'') || byte.is_ascii_control()
}

/// What is before the first semicolon, trimmed, and what is after it, if there is one.
fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == b';') {
        Some(at) => (text[..at].trim_ascii(), Some(&text[at + 1..])),
        None => (text.trim_ascii(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_and_scripts_write_is_plain() {
        for plain in [
            &b"form-data; name=\"user\""[..],
            b"Form-Data;name=user",
            b"form-data; name=\"user[email]\"; filename=\"a b.txt\"",
            b"form-data; filename=\"\xc3\xa9.txt\"; name=\"picture\"",
            b"form-data; name=\"\"",
        ] {
            assert!(is_plain(plain), "{}", plain.escape_ascii());
        }
    }

    #[test]
    fn what_two_parsers_could_name_differently_is_not() {
        for odd in [
            &b"form-data"[..],
            b"form-data; name=\"a\"; name=\"user\"",
            b"form-data; x=\"; name=user\"; name=\"a\"",
            b"form-data; name=\"a\"; filename=\"; name=user\"",
            b"form-data; name*=utf-8''user",
            b"form-data; name=\"a\"; filename*=utf-8''b",
            b"form-data; name=\"us\\\"er\"",
            b"form-data; name=\"user",
            b"form-data; name=\"us\"er",
            b"form-data; name='user'",
            b"form-data; name=us er",
            b"form-data; name",
            b"form-data; name=\"user\";",
            b"attachment; name=\"user\"",
            b"form-data name=\"user\"",
        ] {
            assert!(!is_plain(odd), "{}", odd.escape_ascii());
        }
    }
}
