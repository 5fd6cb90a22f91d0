//! The body of the app's answer, of which the beginning may have been read already.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{KeepAlive, take_all};
use crate::slots::Slot;

/// What was read of an answer and what is still to come: together the app's own bytes.
pub struct AppBody {
    read: Bytes,
    rest: Incoming,
    /// What the request holds at the app until its answer has ended.
    slot: Option<Slot>,
    _keep: Option<KeepAlive>,
}

impl fmt::Debug for AppBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBody").field("read", &self.read.len()).finish_non_exhaustive()
    }
}

impl AppBody {
    /// What `keep` stands for lasts as long as the body.
    pub fn keeping(rest: Incoming, keep: KeepAlive) -> Self {
        Self { read: Bytes::new(), rest, slot: None, _keep: Some(keep) }
    }

    /// The whole again, after `read` was taken from it.
    #[must_use]
    pub fn after(self, read: Bytes) -> Self {
        debug_assert!(self.read.is_empty(), "what was read twice would be lost");
        Self { read, ..self }
    }

    /// The same, which holds `slot` until it has ended.
    #[must_use]
    pub fn holding(self, slot: Slot) -> Self {
        Self { slot: Some(slot), ..self }
    }

    /// Takes the slot, for a tunnel that outlives the answer.
    pub fn take_slot(&mut self) -> Option<Slot> {
        self.slot.take()
    }
}

impl From<Incoming> for AppBody {
    fn from(rest: Incoming) -> Self {
        Self { read: Bytes::new(), rest, slot: None, _keep: None }
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
