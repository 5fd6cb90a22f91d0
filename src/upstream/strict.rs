//! Where hyper is not strict enough: bodies that it would leave out on the way up; and on the way down
//! answers whose end two readers could see in different places, and interim answers without number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request};
use http_body::Body;
use parking_lot::Mutex;

use crate::settings::Lenience;

/// hyper sends a GET without the body it came with, if the length of that is not known before.
pub(super) fn keep_body<B: Body>(request: &mut Request<B>) {
    let rare = matches!(*request.method(), Method::GET | Method::HEAD);
    if rare && request.body().size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// The interim answers to one request so far, which nobody gets to see.
#[derive(Debug)]
pub(super) struct Interim {
    max: usize,
    count: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

impl Interim {
    /// Counts those to `request`.
    pub(super) fn of<B>(request: &mut Request<B>, max: usize) -> Arc<Self> {
        let (count, waiting) = (AtomicUsize::new(0), Mutex::new(None));
        let interim = Arc::new(Self { max, count, waiting });
        let counting = Arc::clone(&interim);
        hyper::ext::on_informational(request, move |_| {
            if counting.count.fetch_add(1, Ordering::AcqRel) == counting.max
                && let Some(waker) = counting.waiting.lock().take()
            {
                waker.wake();
            }
        });
        interim
    }

    /// Whether there were too many; if not, the task is woken by the first too many.
    pub(super) fn poll_flooded(&self, cx: &Context<'_>) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        drop(waiting);
        // After the waker is in place, or one that comes just now would be missed.
        self.count.load(Ordering::Acquire) > self.max
    }
}

/// Holds an answer's framing to RFC 9112 §6, of which hyper's reading is lenient: one encoding,
/// `chunked`, and no length beside it; or one length. The same length said twice is said once.
pub(super) fn check_framing(headers: &mut HeaderMap, lenience: Lenience) -> bool {
    if lenience.length_beside_chunks && headers.contains_key(TRANSFER_ENCODING) {
        // hyper goes by the encoding.
        headers.remove(CONTENT_LENGTH);
    }
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        return encoding.as_bytes().eq_ignore_ascii_case(b"chunked")
            && encodings.next().is_none()
            && !headers.contains_key(CONTENT_LENGTH);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return true };
    let digits = first.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let mut more = lengths.peekable();
    if more.peek().is_none() {
        return true;
    }
    let agree = more.all(|length| length == first);
    let first: HeaderValue = first.clone();
    headers.insert(CONTENT_LENGTH, first);
    agree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_length_or_one_encoding() {
        let check = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let held = check_framing(&mut headers, Lenience::default());
            (held, headers.get_all(CONTENT_LENGTH).iter().count())
        };
        let (length, encoding) = ("content-length", "transfer-encoding");
        assert_eq!(check(&[]), (true, 0));
        assert_eq!(check(&[(length, "5")]), (true, 1));
        assert_eq!(check(&[(length, "5"), (length, "5")]), (true, 1));
        assert_eq!(check(&[(encoding, "Chunked")]), (true, 0));
        for bad in [
            &[(length, "5"), (length, "6")][..],
            &[(length, "5, 5")],
            &[(length, "+5")],
            &[(length, "")],
            &[(length, "5"), (encoding, "chunked")],
            &[(encoding, "gzip, chunked")],
            &[(encoding, "chunked"), (encoding, "chunked")],
            &[(encoding, "identity")],
        ] {
            assert!(!check(bad).0, "{bad:?}");
        }
    }
}
