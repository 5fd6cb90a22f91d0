//! What comes before HTTP on a connection: the PROXY protocol's header, the TLS handshake, and a look
//! at which HTTP it is; each within its time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::addresses::Seat;
use super::{Edge, FRESH_GRACE, Terms, linger, reject};
use crate::conn::{Deadlines, PREFACE};
use crate::peer::Peer;
use crate::proxy_protocol;
use crate::refusal::Refusal;
use crate::settings::{ServerSettings, TrustedProxies};
use crate::socket::{Socket, Transport};
use crate::tls::{ALPN_HTTP2, Tls};

/// What is asked of connections.
#[derive(Debug)]
pub(super) struct Entrance {
    proxy_protocol: bool,
    /// Who may send a PROXY header; everybody if there are none.
    trusted_proxies: TrustedProxies,
    tls: Option<Arc<Tls>>,
    /// Without TLS too there may be HTTP/2.
    http2_cleartext: bool,
}

/// A connection ready for HTTP; `true`: for HTTP/2.
pub(super) type Arrived = (Transport, Peer, bool);

impl Entrance {
    pub(super) fn new(settings: &ServerSettings, tls: Option<Arc<Tls>>) -> Self {
        Self {
            proxy_protocol: settings.proxy_protocol,
            trusted_proxies: settings.trusted_proxies.clone(),
            tls,
            http2_cleartext: settings.http2_cleartext,
        }
    }

    /// Whether the address a connection comes from is its client's.
    pub(super) fn knows_addresses(&self) -> bool {
        !self.proxy_protocol
    }

    /// Whether it speaks for many clients.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        self.trusted_proxies.contain(peer.ip())
    }

    pub(super) fn speaks_tls(&self, socket: &Socket) -> bool {
        self.tls.is_some() && socket.is_tcp()
    }

    /// Whether nothing comes before HTTP; gives the socket back if something does.
    pub(super) fn open(&self, socket: Socket, peer: Peer) -> Result<Arrived, Socket> {
        if self.proxy_protocol || self.http2_cleartext || self.speaks_tls(&socket) {
            return Err(socket);
        }
        Ok((Transport::Plain(socket), peer, false))
    }
}

/// Reads what comes before HTTP; `None`: the connection is closed, and counted if the client did
/// something wrong.
pub(super) async fn arrive(
    mut socket: Socket,
    mut peer: Peer,
    edge: &Edge,
    terms: &Terms,
    seat: &mut Option<Seat>,
) -> Option<Arrived> {
    let (entrance, deadlines) = (&terms.entrance, terms.deadlines);
    let arriving = async {
        if entrance.proxy_protocol {
            peer = introduced(&mut socket, peer, edge, terms).await?;
            match edge.seat(terms, peer) {
                Ok(taken) => *seat = taken,
                Err(refusal) => {
                    (edge.hooks.on_refused)(refusal, peer);
                    if !entrance.speaks_tls(&socket) {
                        reject(socket, &edge.hooks, refusal).await;
                    }
                    return None;
                }
            }
        }
        match &entrance.tls {
            Some(tls) if socket.is_tcp() => shake_hands(socket, peer, tls, edge, deadlines).await,
            _ => {
                let http2 =
                    entrance.http2_cleartext && begins_http2(&mut socket, deadlines).await?;
                Some((Transport::Plain(socket), peer, http2))
            }
        }
    };
    // As for a connection that has not said yet what it came for.
    let leaving = async {
        edge.lifecycle.drain_token().cancelled().await;
        tokio::select! {
            () = sleep(FRESH_GRACE) => {}
            () = edge.lifecycle.exit_token().cancelled() => {}
        }
    };
    tokio::select! {
        arrived = arriving => arrived,
        () = leaving => None,
    }
}

/// Whom the PROXY header names. It has to come first, from whom it may, and in time.
async fn introduced(socket: &mut Socket, peer: Peer, edge: &Edge, terms: &Terms) -> Option<Peer> {
    let deadlines = terms.deadlines;
    let refuse = || {
        (edge.hooks.on_refused)(Refusal::ProxyProtocol, peer);
        None
    };
    let trusted = &terms.entrance.trusted_proxies;
    if !trusted.is_empty() && !trusted.contain(peer.ip()) {
        return refuse();
    }
    if !first_byte(socket, deadlines.first_byte).await {
        return None;
    }
    let until = Instant::now() + deadlines.head;
    loop {
        match proxy_protocol::parse(socket.ahead()) {
            Ok(Some(header)) => {
                socket.drop_ahead(header.length);
                return Some(match header.source {
                    Some(source) => Peer { address: Some(source), ..peer },
                    // What it says of others may come from anybody.
                    None => Peer { may_introduce: false, ..peer },
                });
            }
            Ok(None) => {}
            Err(proxy_protocol::Malformed) => return refuse(),
        }
        if !matches!(timeout_at(until, socket.read_ahead()).await, Ok(Ok(1..))) {
            return refuse();
        }
    }
}

async fn shake_hands(
    mut socket: Socket,
    peer: Peer,
    tls: &Tls,
    edge: &Edge,
    deadlines: Deadlines,
) -> Option<Arrived> {
    let until = Instant::now() + deadlines.handshake;
    if !first_byte(&mut socket, deadlines.first_byte.min(deadlines.handshake)).await {
        return None;
    }
    // No TLS record begins with a letter, every HTTP request does.
    if socket.ahead().first().is_some_and(u8::is_ascii_alphabetic) {
        (edge.hooks.on_refused)(Refusal::PlainHttp, peer);
        reject(socket, &edge.hooks, Refusal::PlainHttp).await;
        return None;
    }
    let (error, left) = match timeout_at(until, tls.acceptor().accept(socket).into_fallible()).await
    {
        Ok(Ok(stream)) => {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
            let peer = Peer { secure: true, ..peer };
            return Some((Transport::Tls(Box::new(stream.into())), peer, http2));
        }
        Ok(Err((error, socket))) => (error.to_string(), Some(socket)),
        Err(_) => ("not done in time".to_owned(), None),
    };
    tracing::debug!(%peer, error, "TLS handshake failed");
    (edge.hooks.on_refused)(Refusal::TlsHandshake, peer);
    if let Some(socket) = left {
        // The alert says why.
        linger(socket).await;
    }
    None
}

/// Whether the client begins with HTTP/2; `None`: with nothing. All that was read is read again.
async fn begins_http2(socket: &mut Socket, deadlines: Deadlines) -> Option<bool> {
    if !first_byte(socket, deadlines.first_byte).await {
        return None;
    }
    let until = Instant::now() + deadlines.head;
    loop {
        let ahead = socket.ahead();
        if ahead.len() >= PREFACE.len() || !PREFACE.starts_with(ahead) {
            return Some(ahead.starts_with(PREFACE));
        }
        if !matches!(timeout_at(until, socket.read_ahead()).await, Ok(Ok(1..))) {
            return Some(false);
        }
    }
}

/// Waits until the client says something; false if it does not.
async fn first_byte(socket: &mut Socket, within: Duration) -> bool {
    !socket.ahead().is_empty() || matches!(timeout(within, socket.read_ahead()).await, Ok(Ok(1..)))
}
