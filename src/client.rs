//! Who is calling: the peer, or whoever a trusted proxy says it forwards for. Pure.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HOST, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::audit;
use crate::keyring::{Keyring, hex};
use crate::peer::Peer;
use crate::session::Client;
use crate::settings::{ClientAddress, TrustedProxies};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Forwarding hops looked at, from the right.
const HOPS_MAX: usize = 32;
/// Longest User-Agent kept, in characters.
const USER_AGENT_CHARS_MAX: usize = 256;

/// The client of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The right-most address no trusted proxy has; `None`: a unix socket, and no more is known.
    address: Option<IpAddr>,
    peer: Option<IpAddr>,
    trusted: bool,
    /// As the client sees it.
    pub scheme: &'static str,
    /// As the client sees it; empty for HTTP/1.0 without Host.
    pub host: String,
}

impl Caller {
    /// A client that calls without a trusted proxy between.
    pub fn direct(peer: &Peer, host: &str) -> Self {
        let address = peer.ip();
        let scheme = if peer.secure { "https" } else { "http" };
        Self { address, peer: address, trusted: false, scheme, host: host.to_owned() }
    }

    /// Reads forwarding headers only if the peer is trusted.
    pub fn identify(peer: &Peer, headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let mut caller = Self::direct(peer, text(&HOST).unwrap_or_default());
        if !peer.may_introduce || !trusted.contain(caller.peer) {
            return caller;
        }
        caller.trusted = true;
        let last = |name: &HeaderName| {
            text(name).and_then(|value| value.rsplit(',').next()).map(str::trim)
        };
        if let Some(proto) = last(&X_FORWARDED_PROTO) {
            caller.scheme = if proto.eq_ignore_ascii_case("https") { "https" } else { "http" };
        }
        if let Some(host) = last(&X_FORWARDED_HOST).filter(|host| !host.is_empty()) {
            host.clone_into(&mut caller.host);
        }
        let hops: Vec<&str> = headers
            .get_all(&X_FORWARDED_FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        for hop in hops.iter().rev().take(HOPS_MAX) {
            let Some(address) = read_hop(hop) else {
                break;
            };
            caller.address = Some(address);
            if !trusted.contain(caller.address) {
                break;
            }
        }
        caller
    }

    /// Whether a trusted proxy is between.
    pub fn is_introduced(&self) -> bool {
        self.trusted
    }

    /// The address, if it is known.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address
    }

    /// The address as text.
    pub fn address(&self) -> String {
        self.address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
    }

    /// The forwarding headers for the app. What a trusted proxy has said is kept and added to.
    pub fn forwarded(&self, headers: &HeaderMap) -> Vec<(HeaderName, Cow<'_, str>)> {
        let peer = self.peer.map(text_of).unwrap_or_default();
        let mut hops = self.earlier(headers, &X_FORWARDED_FOR);
        let mut elements = self.earlier(headers, &FORWARDED);
        if elements.is_empty() {
            // The proxy before us speaks only the older header.
            for hop in hops.split(',').filter_map(read_hop) {
                separate(&mut elements);
                elements.push_str("for=");
                push_node(&mut elements, hop);
            }
        }
        if !peer.is_empty() {
            separate(&mut hops);
            hops.push_str(&peer);
        }
        separate(&mut elements);
        elements.push_str("for=");
        match self.peer {
            Some(peer) => push_node(&mut elements, peer),
            // RFC 7239 has a word for a peer without an address; the older header has none.
            None => elements.push_str("unknown"),
        }
        elements.push_str(";host=");
        push_quoted(&mut elements, &self.host);
        elements.push_str(";proto=");
        elements.push_str(self.scheme);
        let hops = (!hops.is_empty()).then_some((X_FORWARDED_FOR.clone(), Cow::Owned(hops)));
        let rest = [
            (X_FORWARDED_PROTO.clone(), Cow::Borrowed(self.scheme)),
            (X_FORWARDED_HOST.clone(), Cow::Borrowed(&*self.host)),
            (FORWARDED, Cow::Owned(elements)),
        ];
        hops.into_iter().chain(rest).collect()
    }

    /// What a trusted proxy has said under a name, as one list.
    fn earlier(&self, headers: &HeaderMap, name: &HeaderName) -> String {
        // Room for one address and what is said about it.
        let mut list = String::with_capacity(96);
        if self.trusted {
            for value in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
                separate(&mut list);
                list.push_str(value);
            }
        }
        list
    }

    /// The client as sessions and events record it.
    pub fn recorded(
        &self,
        user_agent: Option<&HeaderValue>,
        keep: ClientAddress,
        keyring: &Keyring,
    ) -> Client {
        let address = match (keep, self.address) {
            (ClientAddress::None, _) => None,
            (_, None) => Some(self.address()),
            (ClientAddress::Full, Some(address)) => Some(address.to_string()),
            (ClientAddress::Hash, Some(address)) => {
                Some(hex(&keyring.address(&address.to_string())))
            }
            (ClientAddress::Prefix, Some(address)) => prefix(address),
        };
        let user_agent = user_agent.map(|agent| {
            audit::escape(&String::from_utf8_lossy(agent.as_bytes()), USER_AGENT_CHARS_MAX)
        });
        Client { address, user_agent }
    }
}

/// A peer as log lines show it.
pub fn logged(peer: &Peer, keep: ClientAddress, keyring: &Keyring) -> Option<String> {
    Caller::direct(peer, "").recorded(None, keep, keyring).address
}

/// Puts a comma behind what is in a list already.
fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push_str(", ");
    }
}

/// As `Display` writes it; IPv4 without the machinery of formatting, since every request needs it.
fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity(15);
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

/// A node of RFC 7239.
fn push_node(list: &mut String, address: IpAddr) {
    let quote = if address.is_ipv6() { ["\"[", "]\""] } else { [""; 2] };
    list.push_str(quote[0]);
    list.push_str(&text_of(address));
    list.push_str(quote[1]);
}

fn push_quoted(list: &mut String, host: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if host.bytes().all(plain) {
        return list.push_str(host);
    }
    list.push('"');
    list.extend(host.chars().filter(|character| !matches!(character, '"' | '\\')));
    list.push('"');
}

fn prefix(address: IpAddr) -> Option<String> {
    let bits = if address.is_ipv4() { 24 } else { 48 };
    IpNet::new(address, bits).ok().map(|network| network.trunc().to_string())
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn read_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    hop.parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(peer: Peer, forwarded: &[&str], trusted: &[&str]) -> Caller {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        let unix = trusted.contains(&"unix");
        let networks = trusted.iter().filter(|network| **network != "unix");
        let networks = networks.map(|network| network.parse().unwrap()).collect();
        Caller::identify(&peer, &headers, &TrustedProxies { networks, unix })
    }

    fn caller(peer: &str, forwarded: &[&str], trusted: &[&str]) -> Caller {
        called(SocketAddr::new(peer.parse().unwrap(), 1).into(), forwarded, trusted)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let caller = caller("192.0.2.9", &["1.1.1.1"], &[]);
        assert_eq!((&*caller.address(), caller.scheme), ("192.0.2.9", "http"));
    }

    #[test]
    fn the_right_most_untrusted_address_is_the_client() {
        let table: &[(&[&str], &str)] = &[
            (&["6.6.6.6, 198.51.100.4"], "198.51.100.4"),
            (&["6.6.6.6", "198.51.100.4, 10.0.0.2"], "198.51.100.4"),
            (&["10.0.0.3"], "10.0.0.3"),
            (&["6.6.6.6, unknown"], "10.0.0.1"),
            (&["[2001:db8::7]:443"], "2001:db8::7"),
            (&[], "10.0.0.1"),
        ];
        for (lines, expected) in table {
            let caller = caller("10.0.0.1", lines, &["10.0.0.0/8"]);
            assert_eq!(caller.address(), *expected, "{lines:?}");
            assert_eq!(caller.scheme, "https");
        }
    }

    #[test]
    fn who_comes_over_a_unix_socket_is_who_a_trusted_proxy_says() {
        let unknown = called(Peer::UNIX, &["198.51.100.4"], &["10.0.0.0/8"]);
        assert_eq!((&*unknown.address(), unknown.scheme), ("unix", "http"));
        let forwarded = unknown.forwarded(&HeaderMap::new());
        assert!(forwarded.iter().all(|(name, _)| name != "x-forwarded-for"), "{forwarded:?}");
        let known = called(Peer::UNIX, &["6.6.6.6, 198.51.100.4"], &["unix"]);
        assert_eq!((&*known.address(), known.scheme), ("198.51.100.4", "https"));
    }

    #[test]
    fn a_client_over_tls_is_one_of_https() {
        let secure = Peer { secure: true, ..SocketAddr::from(([192, 0, 2, 9], 1)).into() };
        assert_eq!(Caller::direct(&secure, "x").scheme, "https");
        // A trusted proxy that came over TLS itself knows how the client came.
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", "http".parse().unwrap());
        let networks = vec!["192.0.2.0/24".parse().unwrap()];
        let trusted = TrustedProxies { networks, unix: false };
        assert_eq!(Caller::identify(&secure, &headers, &trusted).scheme, "http");
        // One that cannot name its client for the connection is not asked about it either.
        let silent = Peer { may_introduce: false, ..secure };
        assert_eq!(Caller::identify(&silent, &headers, &trusted).scheme, "https");
    }

    #[test]
    fn addresses_are_written_as_everybody_does() {
        for address in ["0.0.0.0", "1.20.255.100", "105.9.10.99", "::1", "2001:db8::7"] {
            assert_eq!(text_of(address.parse().unwrap()), address);
        }
    }

    #[test]
    fn an_address_is_recorded_no_finer_than_asked() {
        let caller = caller("192.0.2.9", &[], &[]);
        let keyring = Keyring::new(&[1; 32]);
        let recorded = |keep| caller.recorded(None, keep, &keyring).address;
        assert_eq!(recorded(ClientAddress::Full).unwrap(), "192.0.2.9");
        assert_eq!(recorded(ClientAddress::Prefix).unwrap(), "192.0.2.0/24");
        assert_eq!(recorded(ClientAddress::Hash).unwrap().len(), 32);
        assert_eq!(recorded(ClientAddress::None), None);
    }
}
