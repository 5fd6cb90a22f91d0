//! What the app's name means: looked up again and again, and kept when nobody answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How soon a look-up that failed, or whose addresses did, is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Who has an old answer does not wait longer for a new one.
const WAIT: Duration = Duration::from_millis(500);
/// More addresses are not kept.
const ADDRESSES_MAX: usize = 256;

/// A name with a port, shared by all workers.
#[derive(Debug)]
pub(super) struct Name {
    authority: String,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last good answer.
    addresses: Arc<[SocketAddr]>,
    /// When to look again.
    due: Instant,
    /// The last look-up failed.
    failing: bool,
    looking: Option<Looking>,
}

/// A look-up under way; the channel closes with it.
#[derive(Clone, Debug)]
struct Looking {
    since: Instant,
    done: watch::Receiver<()>,
}

impl Name {
    pub(super) fn new(authority: String, interval: Duration) -> Arc<Self> {
        let state =
            State { addresses: Arc::default(), due: Instant::now(), failing: false, looking: None };
        Arc::new(Self { authority, interval, state: Mutex::new(state) })
    }

    /// The addresses, in the order in which they should be tried; never empty.
    pub(super) async fn addresses(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> io::Result<Arc<[SocketAddr]>> {
        if let Some(mut looking) = self.look_if_due() {
            let deadline = match self.state.lock().addresses.is_empty() {
                true => deadline,
                false => deadline.min(looking.since + WAIT),
            };
            // Ends with an error in any case: nothing is ever sent.
            let _ = timeout_at(deadline, looking.done.changed()).await;
        }
        let state = self.state.lock();
        match state.addresses.is_empty() {
            false => Ok(Arc::clone(&state.addresses)),
            true if state.looking.is_some() => Err(io::ErrorKind::TimedOut.into()),
            true => Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("the name in {} cannot be resolved", self.authority),
            )),
        }
    }

    /// Whether a connection to this address still leads to the app.
    pub(super) fn holds(self: &Arc<Self>, address: SocketAddr) -> bool {
        self.look_if_due();
        self.state.lock().addresses.contains(&address)
    }

    /// None of the addresses could be reached.
    pub(super) fn all_failed(&self) {
        let mut state = self.state.lock();
        state.due = state.due.min(Instant::now() + RETRY);
    }

    /// The look-up under way; one is begun if it is time.
    fn look_if_due(self: &Arc<Self>) -> Option<Looking> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.looking.is_none() && state.due <= now {
            let (running, done) = watch::channel(());
            state.looking = Some(Looking { since: now, done });
            let name = Arc::clone(self);
            tokio::spawn(async move {
                let found = lookup_host(&*name.authority).await;
                name.found(found.map(|found| ordered(found.collect())));
                drop(running);
            });
        }
        state.looking.clone()
    }

    fn found(&self, found: io::Result<Vec<SocketAddr>>) {
        let mut state = self.state.lock();
        state.looking = None;
        let error = match found {
            Ok(found) if !found.is_empty() => {
                state.due = Instant::now() + self.interval;
                let name = &*self.authority;
                if state.failing {
                    tracing::info!(name, "the app's name can be resolved again");
                }
                state.failing = false;
                let known = &state.addresses;
                let same = found.len() == known.len() && found.iter().all(|at| known.contains(at));
                if !known.is_empty() && !same {
                    tracing::info!(name, addresses = ?found, "the app's name has other addresses");
                }
                state.addresses = found.into();
                return;
            }
            Ok(_) => "no addresses".to_owned(),
            Err(error) => error.to_string(),
        };
        state.due = Instant::now() + RETRY.min(self.interval);
        if !state.failing {
            let (name, kept) = (&*self.authority, state.addresses.len());
            tracing::warn!(name, error, kept, "the app's name cannot be resolved");
        }
        state.failing = true;
    }
}

/// Both families in turn, each in the resolver's order: a family that leads nowhere costs one
/// attempt at most.
fn ordered(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let length = one.len() + other.len();
    (one, other) = (one.into_iter().rev().collect(), other.into_iter().rev().collect());
    let mut ordered = Vec::with_capacity(length);
    while ordered.len() < length {
        ordered.extend(one.pop());
        ordered.extend(other.pop());
    }
    ordered.truncate(ADDRESSES_MAX);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|address| format!("{address}:1").parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let found = addresses("[::1] [::2] [::3] 10.0.0.1 10.0.0.2");
        assert_eq!(ordered(found), addresses("[::1] 10.0.0.1 [::2] 10.0.0.2 [::3]"));
        let found = addresses("10.0.0.1 10.0.0.2 [::1]");
        assert_eq!(ordered(found), addresses("10.0.0.1 [::1] 10.0.0.2"));
    }

    #[tokio::test]
    async fn the_last_good_answer_is_kept() {
        let name = Name::new("no-such-name.invalid:1".into(), Duration::from_secs(30));
        let soon = || Instant::now() + Duration::from_secs(20);
        assert!(name.addresses(soon()).await.is_err());
        let good = addresses("10.0.0.1");
        name.found(Ok(good.clone()));
        for failure in [Ok(Vec::new()), Err(io::ErrorKind::TimedOut.into())] {
            name.found(failure);
            assert_eq!(&*name.addresses(soon()).await.unwrap(), &*good);
        }
        assert!(name.holds(good[0]));
        name.found(Ok(addresses("10.0.0.2")));
        assert!(!name.holds(good[0]));
    }
}
