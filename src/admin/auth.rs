//! Who calls the admin API: bearer tokens, roles, and a brake on guessing. Secrets are compared as
//! hashes and in constant time; none is kept or logged.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::Admin;
use super::problem::Problem;
use crate::settings::{AdminRole, AdminToken};

/// Shorter secrets are not even compared.
const SECRET_BYTES_MIN: usize = 16;
/// Longer ones are nobody's.
const SECRET_BYTES_MAX: usize = 1024;
/// Failures an address may make in the long run.
const FAILURES_PER_SECOND: f64 = 0.5;
/// Addresses remembered.
const ADDRESSES_MAX: usize = 1024;

/// The caller, as far as the token tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The token's name.
    pub(super) name: Arc<str>,
    pub(super) role: AdminRole,
}

impl Caller {
    /// Refuses a caller whose role is below `role`.
    pub(super) fn require(&self, role: AdminRole) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "role_insufficient",
            "The role of this token does not allow this.",
        ))
    }
}

/// The tokens in force.
pub struct Tokens {
    known: ArcSwap<Vec<(Caller, [u8; 32])>>,
    /// Failures an address may make at once.
    failures_max: AtomicU32,
}

impl Tokens {
    pub fn new(tokens: &[AdminToken], failures_max: u32) -> Self {
        let known = ArcSwap::from_pointee(Self::known(tokens));
        Self { known, failures_max: failures_max.into() }
    }

    /// Puts others in force, for calls that come from here on.
    pub fn replace(&self, tokens: &[AdminToken], failures_max: u32) {
        self.known.store(Arc::new(Self::known(tokens)));
        self.failures_max.store(failures_max, Ordering::Relaxed);
    }

    fn known(tokens: &[AdminToken]) -> Vec<(Caller, [u8; 32])> {
        let caller = |token: &AdminToken| Caller { name: (&*token.name).into(), role: token.role };
        tokens.iter().map(|token| (caller(token), token.digest)).collect()
    }
}

/// The tokens, and who failed lately.
pub(super) struct Gate {
    tokens: Arc<Tokens>,
    failures: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refilled(&self, now: Instant, max: f64) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * FAILURES_PER_SECOND).min(max)
    }
}

impl Gate {
    pub(super) fn new(tokens: Arc<Tokens>) -> Self {
        Self { tokens, failures: Mutex::new(HashMap::new()) }
    }

    /// Whose secret this is, and its digest.
    pub(super) fn known(&self, secret: &[u8]) -> Option<(Caller, [u8; 32])> {
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(secret).into();
        Some((self.caller(&digest)?, digest))
    }

    /// Whose token has this digest now. Every one is compared, whether an earlier one matched or
    /// not.
    pub(super) fn caller(&self, digest: &[u8; 32]) -> Option<Caller> {
        let tokens = self.tokens.known.load();
        let mut found = Choice::from(0);
        let mut position = 0_u32;
        for (index, (_, known)) in (0_u32..).zip(&**tokens) {
            let same = known.ct_eq(digest);
            position.conditional_assign(&index, same & !found);
            found |= same;
        }
        bool::from(found)
            .then(|| tokens.get(position as usize))
            .flatten()
            .map(|(who, _)| who.clone())
    }

    /// Notes a failure; answers whether the address has failed too often.
    pub(super) fn failed_too_often(&self, address: IpAddr, now: Instant) -> bool {
        let max = f64::from(self.tokens.failures_max.load(Ordering::Relaxed));
        let mut failures = self.failures.lock();
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&address) {
            failures.retain(|_, bucket| bucket.refilled(now, max) < max);
            if failures.len() >= ADDRESSES_MAX {
                // Under a flood from everywhere nobody is told apart any more.
                return true;
            }
        }
        let bucket = failures.entry(address).or_insert(Bucket { left: max, at: now });
        bucket.left = bucket.refilled(now, max);
        bucket.at = now;
        if bucket.left < 1.0 {
            return true;
        }
        bucket.left -= 1.0;
        false
    }
}

/// Lets only requests with a known token pass. A right secret is always let in, so that nobody can
/// lock the operator out; what is braked is trying wrong ones.
pub(super) async fn require_token(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = if token_in_query(request.uri().query()) {
        Err("token_in_query")
    } else {
        match bearer(request.headers()) {
            None => Err("token_missing"),
            Some(secret) => admin.gate.known(secret).map(|(caller, _)| caller).ok_or("token_wrong"),
        }
    };
    let reason = match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Err(reason) => reason,
    };
    if admin.gate.failed_too_often(peer.ip().to_canonical(), Instant::now()) {
        return too_many_failures().into_response();
    }
    tracing::warn!(target: "headcount::admin", %peer, reason, "admin call refused");
    let detail = match reason {
        "token_in_query" => "A token must not stand in the URL: send it as Authorization: Bearer.",
        "token_missing" => "Send an admin token as Authorization: Bearer.",
        _ => "This admin token is not known.",
    };
    Problem::new(StatusCode::UNAUTHORIZED, reason, detail)
        .with(header::WWW_AUTHENTICATE, "Bearer")
        .into_response()
}

pub(super) fn too_many_failures() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_failures",
        "Too many requests without a valid token from this address.",
    )
    .with(header::RETRY_AFTER, "10")
}

/// The secret of exactly one `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, secret) = line.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| secret.trim_ascii())
}

/// URLs end up in logs and histories; whoever tries to put a token there is told at once.
fn token_in_query(query: Option<&str>) -> bool {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| {
        ["token", "access_token", "bearer", "authorization", "api_key"]
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_brake_is_per_address_bounded_and_lets_go() {
        let gate = Gate::new(Arc::new(Tokens::new(&[], 10)));
        let now = Instant::now();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let allowed = (0..20).filter(|_| !gate.failed_too_often(address(1), now)).count();
        assert_eq!(allowed, 10);
        assert!(!gate.failed_too_often(address(2), now), "another address");
        for number in 0..5000 {
            gate.failed_too_often(address(number), now);
        }
        assert!(gate.failures.lock().len() <= ADDRESSES_MAX);
        let later = now + Duration::from_secs(60);
        assert!(!gate.failed_too_often(address(1), later));
        assert!(!gate.failed_too_often(address(900_000), later), "the full ones were forgotten");
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_only_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.append(header::AUTHORIZATION, "bEaReR abc".parse().unwrap());
        assert_eq!(bearer(&headers), Some(&b"abc"[..]));
        headers.append(header::AUTHORIZATION, "Bearer abc".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        headers.clear();
        headers.append(header::AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(bearer(&headers), None);
    }
}
