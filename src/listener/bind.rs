//! Binding addresses, and accepting from what was bound.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::peer::Peer;
use crate::settings::ListenAddress;
use crate::socket::Socket;

const BACKLOG: i32 = 1024;

/// A bound address, on no runtime yet.
#[derive(Debug)]
pub enum Listening {
    Tcp(StdTcpListener),
    /// Opened and held open by somebody else.
    InheritedTcp(StdTcpListener),
    Unix(StdUnixListener),
}

impl Listening {
    /// Where it listens, with the real port; `wanted` is what was asked for.
    pub fn address(&self, wanted: &ListenAddress) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) | Self::InheritedTcp(listener) => {
                listener.local_addr().map(ListenAddress::Tcp)
            }
            Self::Unix(_) => Ok(wanted.clone()),
        }
    }

    /// One more for another thread. Those of a TCP address are bound anew, so that the kernel spreads
    /// connections over them; a unix socket, and one that was inherited, has only one queue, which
    /// they share.
    pub fn another(&self, address: &ListenAddress) -> io::Result<Self> {
        match self {
            Self::Tcp(_) => bind(address, true, 0),
            Self::InheritedTcp(listener) => listener.try_clone().map(Self::InheritedTcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

/// Binds a listener; with `reuse_port` several may share a TCP address. `unix_mode` says who may
/// connect to a unix socket.
pub fn bind(address: &ListenAddress, reuse_port: bool, unix_mode: u32) -> io::Result<Listening> {
    match address {
        ListenAddress::Unix(path) => bind_unix(path, unix_mode).map(Listening::Unix),
        ListenAddress::Tcp(address) => {
            let domain = Domain::for_address(*address);
            let socket = RawSocket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if reuse_port {
                socket.set_reuse_port(true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            Ok(Listening::Tcp(socket.into()))
        }
    }
}

/// Fails if anybody listens there, also another process that would share the address: it would take
/// some of the connections, and count by itself.
pub(super) fn only_one(address: &ListenAddress) -> io::Result<()> {
    let ListenAddress::Tcp(address) = address else { return Ok(()) };
    let socket = RawSocket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&(*address).into())
}

/// In place of a socket that nobody listens on any more.
fn bind_unix(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            // A blocking connect to a unix socket answers at once, unless its queue is full: then
            // somebody listens.
            socket.set_nonblocking(true)?;
            match socket.connect(&address) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                }
                _ => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        // Binding says that something else is there, or cannot be looked at.
        _ => {}
    }
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    // Nobody can connect before it listens.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The file of a unix socket, which goes when we go.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// That of an address just bound.
    pub(super) fn of(address: &ListenAddress) -> Option<Self> {
        let ListenAddress::Unix(path) = address else {
            return None;
        };
        let identity = identity(path)?;
        Some(Self { path: path.clone(), identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have put another in its place.
        if identity(&self.path) == Some(self.identity) {
            // Best effort: who starts next removes it too.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// A bound address on the current runtime.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// `unsent_bytes` is how much of an answer the kernel holds for a connection before it can be
    /// sent; beyond that it is the app that waits.
    pub(super) fn open(listening: Listening, unsent_bytes: u32) -> io::Result<Self> {
        match listening {
            Listening::Tcp(listener) | Listening::InheritedTcp(listener) => {
                listener.set_nonblocking(true)?;
                // Connections have both from their listener. Where the kernel knows neither, its own
                // limits hold, and small answers come later.
                let socket = SockRef::from(&listener);
                let _ = socket.set_tcp_nodelay(true);
                let _ = socket.set_tcp_notsent_lowat(unsent_bytes);
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            Listening::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
        }
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => {
                ready!(listener.poll_accept(cx)).map(|(stream, peer)| (stream.into(), peer.into()))
            }
            Self::Unix(listener) => {
                ready!(listener.poll_accept(cx)).map(|(stream, _)| (stream.into(), Peer::UNIX))
            }
        })
    }
}
