//! What is fuzzed, and what must hold: one function for each target. The targets call them with
//! what libFuzzer makes up, `tests/it/fuzzing.rs` with what is kept in `corpus/`.

mod cookies;
mod logins;
pub mod parsers;
pub mod proxy;
mod rules;
mod set_cookie;
pub mod strict;

pub use cookies::{cookies, values};
pub use logins::logins;
pub use proxy::proxy;
pub use rules::rules;
pub use set_cookie::set_cookie;

use headcount::path::canonical;

use parsers::decode;

/// A target: its name, which is that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("cookies", cookies),
    ("values", values),
    ("set_cookie", set_cookie),
    ("path", path),
    ("logins", logins),
    ("rules", rules),
    ("proxy", proxy),
];

/// The canonical form of a path is canonical, and has nothing in it that could be read otherwise.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let raw = format!("/{text}");
    // Nothing else gets as far as this.
    if raw.parse::<http::uri::PathAndQuery>().is_err() || raw.contains(['?', '#']) {
        return;
    }
    let path = canonical(&raw);
    assert!(path.text.starts_with('/'), "{raw:?} → {path:?}");
    for odd in ["//", "/./", "/../", "\\", "\0"] {
        assert!(!path.text.contains(odd), "{raw:?} → {path:?}");
    }
    assert!(!path.text.ends_with("/..") && !path.text.ends_with("/."), "{raw:?} → {path:?}");
    if path.plain {
        // What goes up as it came, but for parameters, is what was matched: no server that decodes,
        // resolves dots or cuts parameters off sees another path.
        let decoded = decode(path.text.as_bytes(), false);
        assert_eq!(decoded, path.text.as_bytes(), "{raw:?} → {path:?}");
        assert!(!path.text.contains(';'), "{raw:?} → {path:?}");
        assert_eq!(canonical(&path.text), path, "{raw:?}");
        let whole: String = raw
            .split('/')
            .map(|part| part.split(';').next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("/");
        assert_eq!(path.text, whole, "{raw:?}");
    }
}

/// The bytes a header line can have; the listener lets no others through.
fn header_bytes(data: &[u8]) -> Vec<u8> {
    data.iter().copied().filter(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)).collect()
}
