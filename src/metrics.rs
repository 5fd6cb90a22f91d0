//! Every metric, its name and its closed label values. Counting is one atomic addition; nothing
//! here decides, logs or names a user.

mod levels;

use std::fmt;
use std::hash::Hash as Hashed;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::levels::LevelCollector;
pub use self::levels::Levels;
use crate::refusal::Refusal;
use crate::session::{EndReason, Mode};

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The values of one label: a closed list, so that no traffic can make the metrics grow.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of `index`.
    const ALL: &'static [Self];
    /// The value as printed.
    fn value(self) -> &'static str;
    /// The position in `ALL`.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident $label:literal { $($(#[$item:meta])* $variant:ident $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$item])* $variant,)* }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)*];
            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value,)* }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// How a request ended.
    RequestOutcome "outcome" {
        /// The app's answer was passed on.
        Forwarded "forwarded",
        /// The connection became a tunnel.
        Upgraded "upgraded",
        /// The client was told that its session has ended.
        Ended "ended",
        /// One of our own pages was shown, or did what it was asked.
        Own "own",
        /// A login over the limit was turned away.
        Denied "denied",
        /// Any other answer of ours; `refusals` says which.
        Refused "refused",
    }
}

labels! {
    /// What became of a login.
    LoginOutcome "outcome" {
        Admitted "admitted",
        Renewed "renewed",
        Denied "denied",
        /// The app refused it.
        Failed "failed",
        /// The client left before the app had answered; nobody received the session.
        Abandoned "abandoned",
        /// It succeeded, for nobody knows whom.
        Unattributed "unattributed",
        StoreFailed "store_failed",
    }
}

labels! {
    /// What became of a logout sent to the app for an ended session.
    AppLogoutOutcome "outcome" {
        Done "done",
        /// The app answered with an error.
        Refused "refused",
        /// The app could not be reached.
        Failed "failed",
    }
}

labels! {
    /// What the app said when it was asked who somebody is.
    ProbeOutcome "outcome" {
        User "user",
        Nobody "nobody",
        /// It could not be reached, was too slow, or said neither.
        Failed "failed",
        /// It was not asked: too many questions at once.
        Limited "limited",
    }
}

labels! {
    /// What became of the order to read configuration and certificates again.
    ReloadOutcome "outcome" {
        Done "done",
        /// All stayed as it was.
        Failed "failed",
    }
}

impl Label for Refusal {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = Refusal::ALL;
    fn value(self) -> &'static str {
        self.code()
    }
    fn index(self) -> usize {
        self as usize
    }
}

impl Label for EndReason {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &EndReason::ALL;
    fn value(self) -> &'static str {
        self.as_str()
    }
    fn index(self) -> usize {
        self as usize
    }
}

type Pairs = [(&'static str, &'static str); 1];
type Hash = [(&'static str, String); 1];

/// Counters by one closed label; all exist, at zero, from the start.
pub struct Counters<L> {
    counters: Box<[Counter]>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<Pairs, Counter>::default();
        let counters = L::ALL
            .iter()
            .map(|label| family.get_or_create_owned(&[(L::NAME, label.value())]))
            .collect();
        registry.register(name, help, family);
        Self { counters, label: PhantomData }
    }

    /// Counts one.
    pub fn inc(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.inc();
        }
    }

    /// Counted so far.
    pub fn get(&self, label: L) -> u64 {
        self.counters.get(label.index()).map_or(0, Counter::get)
    }
}

/// All metrics of one process. Shared by reference; there is no global.
pub struct Metrics {
    registry: Mutex<Registry>,
    levels: Arc<LevelCollector>,
    mode: Family<Pairs, Gauge>,
    config: Configuration,
    events: Family<Pairs, Counter>,
    pub requests: Counters<RequestOutcome>,
    pub refusals: Counters<Refusal>,
    pub logins: Counters<LoginOutcome>,
    pub sessions_ended: Counters<EndReason>,
    pub app_logouts: Counters<AppLogoutOutcome>,
    pub probes: Counters<ProbeOutcome>,
    pub reloads: Counters<ReloadOutcome>,
    /// Requests with a credential of an ended session.
    pub use_after_end: Counter,
    /// Requests with a credential that no known login produced.
    pub untracked_requests: Counter,
    /// Panics caught: defects of ours.
    pub panics: Counter,
    /// Log lines dropped because nobody read them fast enough.
    pub log_lines_dropped: Counter,
    /// Logins that might have evicted a session, had there not been too many evictions of late.
    pub evictions_refused: Counter,
    /// Logins in several steps that were forgotten half-way.
    pub steps_dropped: Counter,
    /// Seconds from asking for a store transaction to its commit.
    pub store_transaction_seconds: Histogram,
    /// Seconds from the end of a session on another replica to its end here.
    pub revocation_delay_seconds: Histogram,
    /// Seconds the app took to begin its answer to a login or logout.
    pub upstream_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// From half a millisecond to ten seconds.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

impl Metrics {
    /// Every family, at zero.
    pub fn new() -> Self {
        let mut all = Registry::with_prefix("headcount");
        let levels = Arc::new(LevelCollector::default());
        all.register_collector(Box::new(Arc::clone(&levels)));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        all.register("build", "The version that runs.", version);
        Self {
            levels,
            mode: family(&mut all, "mode", "1 for the mode that is in force."),
            config: Configuration::register(&mut all),
            events: family(&mut all, "audit_events", "Lines of the audit trail."),
            requests: Counters::register(&mut all, "requests", "Requests by how they ended."),
            refusals: Counters::register(&mut all, "refusals", "Requests not sent to the app."),
            logins: Counters::register(&mut all, "logins", "Logins by what became of them."),
            sessions_ended: Counters::register(&mut all, "sessions_ended", "Sessions ended."),
            app_logouts: Counters::register(
                &mut all,
                "app_logouts",
                "Logouts sent to the app for ended sessions.",
            ),
            probes: Counters::register(
                &mut all,
                "probes",
                "Times the app was asked who somebody is.",
            ),
            reloads: Counters::register(
                &mut all,
                "reloads",
                "Times configuration and certificates were read again.",
            ),
            use_after_end: counter(
                &mut all,
                "use_after_end",
                "Requests with a credential of an ended session.",
            ),
            untracked_requests: counter(
                &mut all,
                "untracked_requests",
                "Requests with a credential that no known login produced.",
            ),
            panics: counter(&mut all, "panics", "Panics caught."),
            log_lines_dropped: counter(&mut all, "log_lines_dropped", "Log lines dropped."),
            evictions_refused: counter(
                &mut all,
                "evictions_refused",
                "Logins that could not evict a session, after too many evictions of late.",
            ),
            steps_dropped: counter(
                &mut all,
                "steps_dropped",
                "Logins in several steps that were forgotten half-way for want of room.",
            ),
            store_transaction_seconds: histogram(
                &mut all,
                "store_transaction_seconds",
                "Time from asking for a store transaction to its commit.",
            ),
            revocation_delay_seconds: histogram(
                &mut all,
                "revocation_delay_seconds",
                "Time from the end of a session on another replica to its end here.",
            ),
            upstream_seconds: histogram(
                &mut all,
                "upstream_seconds",
                "Time the app took to begin its answer to a watched request.",
            ),
            registry: Mutex::new(all),
        }
    }

    /// Says where the levels come from. Only the first call counts.
    pub fn read_levels(&self, read: impl Fn() -> Levels + Send + Sync + 'static) {
        // A second source would be a defect; the first one stays true.
        let _ = self.levels.0.set(Box::new(read));
    }

    /// Shows which configuration is in force, and since when (seconds since 1970).
    pub fn set_config(&self, fingerprint: &str, loaded_at: i64) {
        self.config.info.clear();
        self.config.info.get_or_create(&[("hash", fingerprint.to_owned())]).set(1);
        self.config.loaded.set(loaded_at);
        self.config.good.set(1);
    }

    /// Shows that the configuration in force is not the one in the file.
    pub fn config_refused(&self) {
        self.config.good.set(0);
    }

    /// Shows which mode is in force.
    pub fn set_mode(&self, mode: Mode) {
        for (name, this) in [("enforce", Mode::Enforce), ("observe", Mode::Observe)] {
            self.mode.get_or_create(&[("mode", name)]).set(i64::from(this == mode));
        }
    }

    /// The counter of one kind of audit event; `event` is from a closed list.
    pub fn audit_event(&self, event: &'static str) -> Counter {
        self.events.get_or_create_owned(&[("event", event)])
    }

    /// Everything in the Prometheus (OpenMetrics) text form.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// Which configuration is in force, since when, and whether it is that of the file.
struct Configuration {
    info: Family<Hash, Gauge>,
    loaded: Gauge,
    good: Gauge,
}

impl Configuration {
    fn register(all: &mut Registry) -> Self {
        let when = "When the configuration in force was loaded.";
        let whether = "0 if the last reload was refused.";
        Self {
            info: family(all, "config_info", "1 for the configuration in force."),
            loaded: gauge(all, "config_loaded_timestamp_seconds", when),
            good: gauge(all, "config_last_reload_successful", whether),
        }
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn histogram(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(SECONDS);
    registry.register(name, help, histogram.clone());
    histogram
}

fn family<P, M>(registry: &mut Registry, name: &str, help: &str) -> Family<P, M>
where
    P: Clone + Eq + Hashed + EncodeLabelSet + fmt::Debug + Send + Sync + 'static,
    M: Default + Clone + EncodeMetric + fmt::Debug + Send + Sync + 'static,
    M: prometheus_client::metrics::TypedMetric,
{
    let family = Family::<P, M>::default();
    registry.register(name, help, family.clone());
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_label_sits_at_its_index() {
        fn check<L: Label>() {
            for (position, label) in L::ALL.iter().enumerate() {
                assert_eq!(label.index(), position, "{}", label.value());
            }
        }
        check::<RequestOutcome>();
        check::<LoginOutcome>();
        check::<AppLogoutOutcome>();
        check::<ProbeOutcome>();
        check::<ReloadOutcome>();
        check::<Refusal>();
        check::<EndReason>();
    }

    #[test]
    fn counts_and_levels_are_shown() {
        let metrics = Metrics::new();
        metrics.requests.inc(RequestOutcome::Ended);
        metrics.audit_event("session_ended").inc();
        metrics.set_mode(Mode::Observe);
        metrics.store_transaction_seconds.observe(0.002);
        assert!(!metrics.encode().contains("headcount_sessions_live "));
        metrics.read_levels(|| Levels {
            sessions_live: 3,
            store_statements: 7,
            store_lag: Some(Duration::from_millis(250)),
            ..Levels::default()
        });
        let text = metrics.encode();
        for line in [
            "headcount_requests_total{outcome=\"ended\"} 1",
            "headcount_requests_total{outcome=\"forwarded\"} 0",
            "headcount_refusals_total{reason=\"store_failed\"} 0",
            "headcount_audit_events_total{event=\"session_ended\"} 1",
            "headcount_mode{mode=\"observe\"} 1",
            "headcount_mode{mode=\"enforce\"} 0",
            "headcount_sessions_live 3",
            "headcount_store_lag_seconds 0.25",
            "headcount_store_statements_total 7",
            "headcount_store_transaction_seconds_count 1",
            concat!("headcount_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
