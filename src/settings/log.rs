//! `[log]` after checking: what is written of clients, and in what form.

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    pub client_address: ClientAddress,
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// How much of a client's address is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    Full,
    /// IPv4 /24, IPv6 /48.
    Prefix,
    /// Keyed hash.
    Hash,
    None,
}
