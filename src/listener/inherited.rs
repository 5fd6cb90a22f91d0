//! Sockets that a service manager has opened and holds open (systemd's socket activation): over a
//! restart clients wait in them instead of being refused. Which of them is for what is told by its
//! address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::Listening;
use crate::settings::ListenAddress;

/// What was passed on and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(ListenAddress, Listening)>);

impl Inherited {
    /// Takes the sockets that the environment tells of. To be called once, and before there is a
    /// second thread.
    ///
    /// # Errors
    ///
    /// If one of them listens neither at a TCP address nor at a unix path.
    pub fn from_env() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut found = Vec::with_capacity(passed.len());
        for index in 0..passed.len() {
            if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
                let address = ListenAddress::Tcp(listener.local_addr()?);
                found.push((address, Listening::InheritedTcp(listener)));
            } else if let Some(listener) = passed.take_unix_listener(index)? {
                let path = listener.local_addr()?.as_pathname().map(ToOwned::to_owned);
                let path = path.ok_or_else(|| {
                    io::Error::other("a unix socket that was passed on has no path")
                })?;
                found.push((ListenAddress::Unix(path), Listening::Unix(listener)));
            }
        }
        Ok(Self(found))
    }

    /// The one that listens at `wanted`.
    pub(super) fn take(&mut self, wanted: &ListenAddress) -> Option<Listening> {
        let at = self.0.iter().position(|(address, _)| address == wanted)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The one that listens at `wanted`, for the admin API.
    pub fn take_tcp(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        match self.take(&ListenAddress::Tcp(wanted))? {
            Listening::Tcp(listener) | Listening::InheritedTcp(listener) => Some(listener),
            Listening::Unix(_) => None,
        }
    }

    /// Addresses of those that nobody took: clients would wait in them for ever.
    pub fn left(&self) -> impl Iterator<Item = &ListenAddress> {
        self.0.iter().map(|(address, _)| address)
    }
}
