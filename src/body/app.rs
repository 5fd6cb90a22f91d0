//! The body of the app's answer, of which the beginning may have been read already.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::take_all;
use crate::slots::Slot;

/// What was read of an answer and what is still to come: together the app's own bytes.
#[derive(Debug)]
pub struct AppBody {
    read: Bytes,
    rest: Incoming,
    /// What the request holds at the app until its answer has ended.
    slot: Option<Slot>,
}

impl AppBody {
    /// The whole again, after `read` was taken from it.
    #[must_use]
    pub fn after(self, read: Bytes) -> Self {
        debug_assert!(self.read.is_empty(), "what was read twice would be lost");
        Self { read, ..self }
    }

    /// An answer that has not been read yet.
    pub fn new(rest: Incoming, slot: Slot) -> Self {
        Self { read: Bytes::new(), rest, slot: Some(slot) }
    }

    /// Takes the slot, for a tunnel that outlives the answer.
    pub fn take_slot(&mut self) -> Option<Slot> {
        self.slot.take()
    }
}

impl From<Incoming> for AppBody {
    fn from(rest: Incoming) -> Self {
        Self { read: Bytes::new(), rest, slot: None }
    }
}

impl HttpBody for AppBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match take_all(&mut self.read) {
            None => Pin::new(&mut self.rest).poll_frame(cx),
            first => Poll::Ready(first),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}
