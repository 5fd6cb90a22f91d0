//! Keys that say what is let through at all, and those that let through what is refused otherwise:
//! the names of the latter begin with `unsafe_`, and each that is on is warned of.

use crate::settings::{Accepted, Lenience, Settings};

use super::super::reader::Table;
use super::{recognition, scope};

/// Of `[server]`.
pub(super) fn accepted(server: &mut Table<'_>) -> Accepted {
    let written = server.texts("methods");
    let read = |method| recognition::method(server, "methods", Some(method));
    let methods: Vec<String> = written.iter().filter_map(read).collect();
    for never in ["CONNECT", "TRACE"] {
        if let Some(written) = written.iter().find(|written| written.value == never) {
            let what = "is never let through";
            server.wrong("methods", &written.at, what, "any other method");
        }
    }
    let host_is_sni = server.flag("host_is_sni", false);
    if host_is_sni && !server.has("tls") {
        let what = "says nothing without TLS: there is no handshake to compare Host with";
        server.missing("host_is_sni", what, "`tls` beside it");
    }
    Accepted {
        hosts: scope::hosts(server, "hosts"),
        host_is_sni,
        methods,
        non_ascii_targets: server.flag("unsafe_non_ascii_targets", false),
        missing_host: server.flag("unsafe_missing_host", false),
    }
}

/// Of `[upstream]`.
pub(super) fn lenience(upstream: &mut Table<'_>) -> Lenience {
    Lenience {
        folded_headers: upstream.flag("unsafe_folded_headers", false),
        spaced_headers: upstream.flag("unsafe_spaced_headers", false),
        length_beside_chunks: upstream.flag("unsafe_length_beside_chunks", false),
    }
}

/// Which of them are on.
pub(super) fn unsafe_keys(settings: &Settings) -> Vec<&'static str> {
    let (accepted, lenience) = (&settings.server.accepted, settings.upstream.lenience);
    [
        ("server.unsafe_non_ascii_targets", accepted.non_ascii_targets),
        ("server.unsafe_missing_host", accepted.missing_host),
        ("upstream.unsafe_folded_headers", lenience.folded_headers),
        ("upstream.unsafe_spaced_headers", lenience.spaced_headers),
        ("upstream.unsafe_length_beside_chunks", lenience.length_beside_chunks),
    ]
    .into_iter()
    .filter_map(|(key, on)| on.then_some(key))
    .collect()
}
