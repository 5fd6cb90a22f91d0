//! Which requests are for this proxy at all, and where it is told to be less strict than it would be.

use http::header::HeaderValue;

use crate::rules::matcher::Patterns;

/// Keys of `[server]` that say what clients may ask for.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Names, lower case and without port; empty: any.
    pub hosts: Patterns,
    /// Whether Host must be the name that the client gave in its TLS handshake.
    pub host_is_sni: bool,
    /// Empty: any in capitals.
    pub methods: Vec<String>,
    /// Whether targets may hold bytes that are not ASCII.
    pub non_ascii_targets: bool,
    /// Whether HTTP/1.1 may come without Host.
    pub missing_host: bool,
}

impl Accepted {
    /// For the answer to a method that is not accepted; `None`: there is no list.
    pub fn allow(&self) -> Option<HeaderValue> {
        let list = self.methods.join(", ");
        (!list.is_empty()).then(|| HeaderValue::from_str(&list).ok()).flatten()
    }
}

/// Keys of `[upstream]` that let an app answer in ways two readers could take differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lenience {
    /// Header lines that go on in the next.
    pub folded_headers: bool,
    /// Blanks between a header's name and its colon.
    pub spaced_headers: bool,
    /// Content-Length beside `chunked`; it is taken off.
    pub length_beside_chunks: bool,
}
