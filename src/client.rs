//! Who is calling: the peer, or whoever a trusted proxy says it forwards for. Pure.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{HOST, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::audit;
use crate::keyring::{Keyring, hex};
use crate::session::Client;
use crate::settings::ClientAddress;

/// Forwarding hops looked at, from the right.
const HOPS_MAX: usize = 32;
/// Longest User-Agent kept, in characters.
const USER_AGENT_CHARS_MAX: usize = 256;

/// The client of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The right-most address no trusted proxy has.
    pub address: IpAddr,
    peer: IpAddr,
    trusted: bool,
    /// As the client sees it.
    pub scheme: &'static str,
    /// As the client sees it; empty for HTTP/1.0 without Host.
    pub host: String,
}

impl Caller {
    /// A client that calls without a trusted proxy between.
    pub fn direct(address: IpAddr, host: &str) -> Self {
        Self { address, peer: address, trusted: false, scheme: "http", host: host.to_owned() }
    }

    /// Reads forwarding headers only if the peer is trusted.
    pub fn identify(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(HOST.as_str()).unwrap_or_default();
        let peer = peer.ip().to_canonical();
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let mut caller = Self::direct(peer, host);
        if !is_trusted(&peer) {
            return caller;
        }
        caller.trusted = true;
        let last =
            |name: &str| text(name).and_then(|value| value.rsplit(',').next()).map(str::trim);
        if last("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https")) {
            caller.scheme = "https";
        }
        if let Some(host) = last("x-forwarded-host").filter(|host| !host.is_empty()) {
            host.clone_into(&mut caller.host);
        }
        let hops: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        for hop in hops.iter().rev().take(HOPS_MAX) {
            let Some(address) = read_hop(hop) else {
                break;
            };
            caller.address = address;
            if !is_trusted(&address) {
                break;
            }
        }
        caller
    }

    /// The forwarding headers for the app. What a trusted proxy has said is kept and added to.
    pub fn forwarded(&self, headers: &HeaderMap) -> Vec<(HeaderName, String)> {
        let earlier = |name: &str| {
            let kept: Vec<&str> = headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .filter(|_| self.trusted)
                .collect();
            kept.join(", ")
        };
        let append = |earlier: String, own: &str| {
            if earlier.is_empty() { own.to_owned() } else { format!("{earlier}, {own}") }
        };
        let node = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let host = if self
            .host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        {
            self.host.clone()
        } else {
            format!("\"{}\"", self.host.replace(['"', '\\'], ""))
        };
        let element = format!("for={};host={host};proto={}", node(self.peer), self.scheme);
        let mut before = earlier("forwarded");
        if before.is_empty() {
            // The proxy before us speaks only the older header.
            let hops = earlier("x-forwarded-for");
            let known = hops.split(',').filter_map(read_hop);
            let elements: Vec<String> = known.map(|hop| format!("for={}", node(hop))).collect();
            before = elements.join(", ");
        }
        let name = HeaderName::from_static;
        vec![
            (name("x-forwarded-for"), append(earlier("x-forwarded-for"), &self.peer.to_string())),
            (name("x-forwarded-proto"), self.scheme.to_owned()),
            (name("x-forwarded-host"), self.host.clone()),
            (name("forwarded"), append(before, &element)),
        ]
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
            (ClientAddress::Full, address) => Some(address.to_string()),
            (ClientAddress::Hash, address) => Some(hex(&keyring.address(&address.to_string()))),
            (ClientAddress::Prefix, address) => prefix(address),
        };
        let user_agent = user_agent.map(|agent| {
            audit::escape(&String::from_utf8_lossy(agent.as_bytes()), USER_AGENT_CHARS_MAX)
        });
        Client { address, user_agent }
    }
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

    fn caller(peer: &str, forwarded: &[&str], trusted: &[&str]) -> Caller {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        Caller::identify(SocketAddr::new(peer.parse().unwrap(), 1), &headers, &trusted)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let caller = caller("192.0.2.9", &["1.1.1.1"], &[]);
        assert_eq!((caller.address.to_string(), caller.scheme), ("192.0.2.9".to_owned(), "http"));
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
            assert_eq!(caller.address.to_string(), *expected, "{lines:?}");
            assert_eq!(caller.scheme, "https");
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
