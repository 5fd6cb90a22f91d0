//! The other end of a client's connection, as far as it is known. Whom it speaks for is told in
//! `client.rs`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `None`: it came over a unix socket.
    pub address: Option<SocketAddr>,
    /// The client came over TLS.
    pub secure: bool,
    /// A trusted proxy is believed what it says about whom it forwards for.
    pub may_introduce: bool,
}

/// Comes with a request where Host has to be the name of the TLS handshake; `None`: the client gave
/// none.
#[derive(Clone, Debug)]
pub struct ServerName(pub Option<Arc<str>>);

impl Peer {
    /// Who came over a unix socket.
    pub const UNIX: Self = Self { address: None, secure: false, may_introduce: true };

    /// In its IPv4 form where it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip().to_canonical())
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address: Some(address), ..Self::UNIX }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("unix"),
        }
    }
}
