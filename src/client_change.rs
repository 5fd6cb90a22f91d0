//! Whether two clients are one: what of address and User-Agent counts, and a short mark by which a
//! request is known to come from the client that was there before. Pure; what a change leads to is
//! decided in `decide.rs`.

use std::hash::{BuildHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::device;
use crate::geo::Places;
use crate::session::Client;
use crate::settings::{AddressChange, AgentChange, ClientChange};

/// Bits of an address that a move within a network leaves as they are.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 48;

/// A mark of what counts in a request; never 0. It costs no allocation. Two requests with the same mark
/// come from the same client; with other marks they may, too.
pub fn mark(
    rule: ClientChange,
    key: &impl BuildHasher,
    address: Option<IpAddr>,
    agent: &[u8],
) -> u32 {
    let mut hasher = key.build_hasher();
    rule.hash(&mut hasher);
    match rule.address {
        AddressChange::Off => {}
        AddressChange::Prefix => {
            address.map(|address| network_of(address.into())).hash(&mut hasher)
        }
        AddressChange::Exact | AddressChange::Country => address.hash(&mut hasher),
    }
    if rule.user_agent != AgentChange::Off {
        agent.hash(&mut hasher);
    }
    short(hasher.finish())
}

/// A mark of what counts in a client as recorded; never 0. The same for all that [`same`] takes for one,
/// but where an address was recorded in another way than now.
pub fn kind(rule: ClientChange, key: &impl BuildHasher, places: &Places, client: &Client) -> u32 {
    let mut hasher = key.build_hasher();
    rule.hash(&mut hasher);
    let address = client.address.as_deref();
    match rule.address {
        AddressChange::Off => {}
        AddressChange::Exact => address.hash(&mut hasher),
        AddressChange::Prefix => match address.and_then(read) {
            Some(network) => network_of(network).hash(&mut hasher),
            None => address.hash(&mut hasher),
        },
        AddressChange::Country => country(places, client).hash(&mut hasher),
    }
    match rule.user_agent {
        AgentChange::Off => {}
        AgentChange::Exact => client.user_agent.hash(&mut hasher),
        AgentChange::Browser => family(client).hash(&mut hasher),
    }
    short(hasher.finish())
}

/// Enough bits that nobody meets another client's by chance; who would try does not know the key.
fn short(hash: u64) -> u32 {
    ((hash >> 32) as u32 ^ hash as u32).max(1)
}

/// Whether the session's client is still the same. An address that was not recorded is any.
pub fn same(rule: ClientChange, places: &Places, old: &Client, new: &Client) -> bool {
    same_address(rule.address, places, old, new)
        && match rule.user_agent {
            AgentChange::Off => true,
            AgentChange::Exact => old.user_agent == new.user_agent,
            AgentChange::Browser => old.user_agent == new.user_agent || family(old) == family(new),
        }
}

fn same_address(rule: AddressChange, places: &Places, old: &Client, new: &Client) -> bool {
    let (Some(before), Some(now)) = (&old.address, &new.address) else { return true };
    if rule == AddressChange::Off || before == now {
        return true;
    }
    if rule == AddressChange::Country {
        return country(places, old) == country(places, new);
    }
    // Perhaps one was recorded in full and the other is not.
    let (Some(before), Some(now)) = (read(before), read(now)) else { return false };
    match rule {
        AddressChange::Prefix => network_of(before) == network_of(now),
        _ => before.contains(&now) || now.contains(&before),
    }
}

/// Browser and system, whatever their versions.
fn family(client: &Client) -> Option<(Option<String>, Option<String>)> {
    let device = device::describe(client.user_agent.as_deref()?);
    Some((device.browser, device.system))
}

/// What is nowhere is in one country.
fn country(places: &Places, client: &Client) -> Option<String> {
    places.of(client.address.as_deref()?)?.country
}

/// An address, or a network, as recorded.
fn read(recorded: &str) -> Option<IpNet> {
    let address = recorded.parse::<IpAddr>().map(IpNet::from);
    address.ok().or_else(|| recorded.parse().ok())
}

fn network_of(network: IpNet) -> IpNet {
    let bits = match network {
        IpNet::V4(_) => PREFIX_V4,
        IpNet::V6(_) => PREFIX_V6,
    };
    let bits = bits.min(network.prefix_len());
    IpNet::new(network.addr(), bits).map_or(network, |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    const FIREFOX: &str =
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0";
    const NEWER: &str =
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0";
    const LINUX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

    fn client(address: &str, agent: &str) -> Client {
        Client { address: Some(address.to_owned()), user_agent: Some(agent.to_owned()) }
    }

    fn rule(address: AddressChange, user_agent: AgentChange) -> ClientChange {
        ClientChange { address, user_agent, ends: false }
    }

    #[test]
    fn addresses_are_as_alike_as_asked() {
        use AddressChange::{Exact, Off, Prefix};
        let table = [
            (Off, "192.0.2.1", "203.0.113.1", true),
            (Exact, "192.0.2.1", "192.0.2.1", true),
            (Exact, "192.0.2.1", "192.0.2.2", false),
            (Exact, "192.0.2.0/24", "192.0.2.2", true),
            (Exact, "unix", "192.0.2.2", false),
            (Prefix, "192.0.2.1", "192.0.2.254", true),
            (Prefix, "192.0.2.1", "192.0.2.0/24", true),
            (Prefix, "192.0.2.1", "192.0.3.1", false),
            (Prefix, "2001:db8:1::1", "2001:db8:1:ffff::1", true),
            (Prefix, "2001:db8:1::1", "2001:db8:2::1", false),
            (Prefix, "192.0.2.1", "2001:db8:2::1", false),
        ];
        let (places, key) = (Places::default(), RandomState::new());
        for (address, old, new, expected) in table {
            let rule = rule(address, AgentChange::Off);
            let (old, new) = (client(old, FIREFOX), client(new, LINUX));
            assert_eq!(same(rule, &places, &old, &new), expected, "{old:?} {new:?}");
            let kinds = [&old, &new].map(|client| kind(rule, &key, &places, client));
            assert!(expected || kinds[0] != kinds[1], "{old:?} {new:?}");
        }
        let unknown = Client { address: None, user_agent: None };
        let exact = rule(Exact, AgentChange::Off);
        assert!(same(exact, &places, &unknown, &client("192.0.2.1", "")));
    }

    #[test]
    fn user_agents_are_as_alike_as_asked() {
        use AgentChange::{Browser, Exact, Off};
        let (places, key) = (Places::default(), RandomState::new());
        for (agent, old, new, expected) in [
            (Off, FIREFOX, LINUX, true),
            (Browser, FIREFOX, NEWER, true),
            (Browser, FIREFOX, LINUX, false),
            (Browser, FIREFOX, "curl/8.5.0", false),
            (Exact, FIREFOX, FIREFOX, true),
            (Exact, FIREFOX, NEWER, false),
        ] {
            let rule = rule(AddressChange::Off, agent);
            let (old, new) = (client("192.0.2.1", old), client("203.0.113.1", new));
            assert_eq!(same(rule, &places, &old, &new), expected, "{agent:?}");
            let kinds = [&old, &new].map(|client| kind(rule, &key, &places, client));
            assert_eq!(kinds[0] == kinds[1], expected, "{agent:?}");
        }
    }

    #[test]
    fn a_mark_is_of_what_counts_and_of_nothing_else() {
        let key = RandomState::new();
        let of = |rule, address: &str, agent: &str| {
            mark(rule, &key, address.parse().ok(), agent.as_bytes())
        };
        let prefix = rule(AddressChange::Prefix, AgentChange::Off);
        assert_eq!(of(prefix, "192.0.2.1", FIREFOX), of(prefix, "192.0.2.7", LINUX));
        assert_ne!(of(prefix, "192.0.2.1", FIREFOX), of(prefix, "192.0.3.1", FIREFOX));
        let agent = rule(AddressChange::Off, AgentChange::Browser);
        assert_eq!(of(agent, "192.0.2.1", FIREFOX), of(agent, "203.0.113.1", FIREFOX));
        assert_ne!(of(agent, "192.0.2.1", FIREFOX), of(agent, "192.0.2.1", NEWER));
    }
}
