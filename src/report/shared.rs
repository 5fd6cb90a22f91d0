//! Accounts that look shared: one user's sessions in use at the same time from networks that are far
//! from each other. Without a map, far means that the addresses have nothing much in common.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Stay, seen};
use crate::session::{SessionId, Timestamp};

/// Shorter use at the same time is somebody who walks from one network into another.
const OVERLAP_MS_MIN: i64 = 60_000;
/// Sessions of one user that are compared with each other.
const COMPARED_MAX: usize = 200;
const EVIDENCE_MAX: usize = 3;

/// One of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SharedAccount {
    pub user: String,
    /// Pairs of sessions that were in use at the same time from distant networks,
    pub pairs: u32,
    /// and for how many seconds, all together.
    pub overlap_s: i64,
    /// The longest of them.
    pub evidence: Vec<Evidence>,
}

/// Two sessions in use at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Evidence {
    pub from: Timestamp,
    pub until: Timestamp,
    pub one: Seen,
    pub other: Seen,
}

/// One session in the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Seen {
    pub session: SessionId,
    #[schema(required)]
    pub address: Option<String>,
    #[schema(required)]
    pub user_agent: Option<String>,
}

/// The network of an address as recorded: /16 of IPv4, /32 of IPv6, of a hash the hash.
pub fn network(address: &str) -> Option<String> {
    let bare = address.split_once('/').map_or(address, |(bare, _)| bare);
    Some(match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, ..] = ip.octets();
            format!("{a}.{b}.0.0/16")
        }
        Ok(IpAddr::V6(ip)) => {
            let [a, b, ..] = ip.segments();
            format!("{a:x}:{b:x}::/32")
        }
        Err(_) => address.to_owned(),
    })
}

/// `stays` in the order of their logins.
pub(super) fn shared(user: &str, stays: &[Stay<'_>]) -> Option<SharedAccount> {
    let newest = &stays[stays.len().saturating_sub(COMPARED_MAX)..];
    let networks: Vec<Option<String>> = newest
        .iter()
        .map(|stay| stay.session.client.address.as_deref().and_then(network))
        .collect();
    let (mut pairs, mut overlap_ms, mut evidence) = (0, 0_i64, Vec::new());
    for (at, one) in newest.iter().enumerate() {
        for (other, its_network) in newest.iter().zip(&networks).skip(at + 1) {
            let (from, until) = (one.from.max(other.from), one.last.min(other.last));
            let together_ms = until.since_ms(from);
            let known = networks[at].is_some() && its_network.is_some();
            if !known || networks[at] == *its_network || together_ms < OVERLAP_MS_MIN {
                continue;
            }
            pairs += 1;
            overlap_ms = overlap_ms.saturating_add(together_ms);
            let (one, other) = (seen(one.session), seen(other.session));
            evidence.push(Evidence { from, until, one, other });
        }
    }
    evidence.sort_by_key(|pair| std::cmp::Reverse(pair.until.since_ms(pair.from)));
    evidence.truncate(EVIDENCE_MAX);
    let overlap_s = overlap_ms / 1000;
    (pairs > 0).then(|| SharedAccount { user: user.to_owned(), pairs, overlap_s, evidence })
}
