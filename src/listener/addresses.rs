//! How many connections each client address has open. Whose address counts, and what is told to
//! those over the limit, is decided where connections arrive.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Open connections by address; no more entries than connections.
#[derive(Debug)]
pub(super) struct Addresses {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default() })
    }

    /// Counts one more connection from an address until the seat is dropped; `None`: it has as many
    /// as it may.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = network(address);
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Seat { addresses: Arc::clone(self), address })
    }
}

/// A connection that counts.
#[derive(Debug)]
pub(super) struct Seat {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock();
        if let Entry::Occupied(mut entry) = open.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What one client can have all addresses of: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_network() {
        let table = [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
        ];
        for (first, second, same) in table {
            let addresses = Addresses::new(1);
            let seat = addresses.take(first.parse().unwrap()).unwrap();
            let other = addresses.take(second.parse().unwrap());
            assert_eq!(other.is_none(), same, "{first} {second}");
            drop(seat);
            assert!(addresses.take(first.parse().unwrap()).is_some());
        }
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let addresses = Addresses::new(2);
        let seats: Vec<_> = (0..200_u8)
            .flat_map(|last| [[192, 0, 2, last], [192, 0, 2, last]])
            .map(|address| addresses.take(address.into()).unwrap())
            .collect();
        assert!(addresses.take([192, 0, 2, 7].into()).is_none());
        assert_eq!(addresses.open.lock().len(), 200);
        drop(seats);
        assert!(addresses.open.lock().is_empty());
    }
}
