//! What the tests stand on: a browser, a raw socket, a real Django and other real sites, a scripted
//! app, and the proxy itself as a child process. Blocking, over the standard library; nothing here
//! waits by sleeping a fixed time, but polls until a deadline.

pub(crate) mod browser;
pub(crate) mod django;
pub(crate) mod http;
pub(crate) mod legacy;
pub(crate) mod link;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod site;
pub(crate) mod spellings;
mod tests;

use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether there is time for the full numbers: the long runs of `make soak`.
pub(crate) fn soak() -> bool {
    std::env::var_os("HEADCOUNT_SOAK").is_some()
}

/// The top of the checkout.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Polls until `look` yields something; fails the test with `what` when it never does.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// [`eventually`] with more patience, for what is slow to start.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
