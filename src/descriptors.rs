//! File descriptors: how many the system allows, and how many connections they suffice for. Who
//! holds connections, and what happens over the limit, is the business of the listener and the proxy.

use std::fs;
use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// For what is not the data plane: files of the store, connections that are turned away, the admin
/// listener, look-ups of names.
const RESERVED: usize = 160;

/// How many connections the configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of clients.
    pub clients: usize,
    /// To the app, with a request on each.
    pub app: usize,
}

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What the system allows, for everything.
    pub limit: usize,
    /// Connections of clients.
    pub clients: usize,
    /// Connections to the app that carry a request.
    pub app: usize,
}

/// What there is to divide.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    limit: usize,
    /// Open already.
    used: usize,
}

impl Room {
    /// Asks the system for all it grants this process. To be called before connections are open,
    /// which are no lasting use.
    pub fn take() -> io::Result<Self> {
        let limit = raise();
        let used = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd"))?.count();
        Ok(Self { limit, used })
    }

    /// `wanted` says how many at most; `threads` is how many will serve requests, each with up to
    /// `idle` unused connections to the app.
    pub fn budget(self, threads: usize, idle: usize, wanted: Wanted) -> Budget {
        // The runtime of a thread has some, and its listeners.
        divide(self.limit, self.used + threads * 6, threads * idle, wanted)
    }
}

/// Takes the soft limit to the hard one; the limit from then on.
fn raise() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        // Some systems name a maximum that they do not grant.
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            limit = wanted;
        }
    }
    limit.current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// If there are too few for both, each gets half, or what the other leaves.
fn divide(limit: usize, used: usize, idle: usize, wanted: Wanted) -> Budget {
    let free = limit.saturating_sub(used);
    let free = free - RESERVED.min(free / 4);
    let free = free - idle.min(free / 3);
    // At least one of each: what cannot be opened fails on its own.
    let app = wanted.app.min((free / 2).max(free.saturating_sub(wanted.clients))).max(1);
    let clients = wanted.clients.min(free.saturating_sub(app)).max(1);
    Budget { limit, clients, app }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Wanted = Wanted { clients: 10_000, app: 10_000 };

    #[test]
    fn all_together_stay_below_the_limit() {
        for limit in [64, 256, 1024, 4096, 20_000] {
            let (used, idle) = (30, 128);
            let budget = divide(limit, used, idle, MANY);
            assert!(budget.clients >= limit / 8 && budget.app >= limit / 8, "{budget:?}");
            let most = budget.clients + budget.app + used;
            assert!(most + RESERVED.min((limit - used) / 4) <= limit, "{budget:?}");
        }
        assert_eq!(divide(10, 30, 128, MANY), Budget { limit: 10, clients: 1, app: 1 });
    }

    #[test]
    fn nobody_gets_more_than_wanted_and_what_is_left_goes_to_the_other() {
        let Budget { clients, app, .. } = divide(65_536, 50, 128, MANY);
        assert_eq!((clients, app), (10_000, 10_000));
        let few_at_the_app = Wanted { clients: 10_000, app: 1_000 };
        let Budget { clients, app, .. } = divide(12_000, 50, 128, few_at_the_app);
        assert_eq!((clients, app), (10_000, 1_000));
        let few_clients = Wanted { clients: 100, app: 10_000 };
        let Budget { clients, app, .. } = divide(4_000, 50, 128, few_clients);
        assert_eq!((clients, app), (100, 3_562));
    }

    #[test]
    fn the_system_grants_some() {
        let budget = Room::take().unwrap().budget(2, 4, MANY);
        assert!(budget.clients > 10 && budget.clients < budget.limit, "{budget:?}");
    }
}
