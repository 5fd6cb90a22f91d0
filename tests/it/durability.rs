//! What must hold whatever happens: races, revocation, power cuts, secrets. In process against a
//! real SQLite file where the number of tries matters, with the real binary where the wire does.

mod backup;
mod canary;
mod core;
mod crash;
mod keys;
mod migration;
mod model;
mod naive;
mod outages;
mod privacy;
mod race;
mod replicas;
mod revocation;
mod scale;
mod site;
mod steady;

/// A folder of the test's own; it goes when dropped.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("durability-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Tells the others to stop when it goes, also when a test fails: they would go on for ever.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
