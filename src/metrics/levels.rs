//! The metrics that others keep count of, read at each scrape.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// What others keep count of, read when somebody scrapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    pub sessions_live: u64,
    pub users_live: u64,
    pub tombstones: u64,
    pub keys: u64,
    /// Credentials in use that no known login produced.
    pub untracked: u64,
    pub store_statements: u64,
    /// How old our knowledge of other replicas' changes may be; `None`: there are none.
    pub store_lag: Option<Duration>,
    /// Open client connections.
    pub connections: u64,
    /// Requests at the app, tunnels included.
    pub upstream_requests: u64,
    /// Requests that wait for room there.
    pub upstream_queue: u64,
}

pub(super) type ReadLevels = Box<dyn Fn() -> Levels + Send + Sync>;

/// Reads the levels at each scrape; none are shown until somebody provides them.
#[derive(Default)]
pub(super) struct LevelCollector(pub(super) OnceLock<ReadLevels>);

impl fmt::Debug for LevelCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LevelCollector")
    }
}

impl Collector for LevelCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(read) = self.0.get() else { return Ok(()) };
        let levels = read();
        let gauges = [
            ("sessions_live", "Sessions that count against a limit.", levels.sessions_live),
            ("users_live", "Users with at least one live session.", levels.users_live),
            ("tombstones", "Keys of ended sessions that are remembered.", levels.tombstones),
            ("keys", "Keys held in memory.", levels.keys),
            ("connections", "Open client connections.", levels.connections),
            (
                "upstream_requests",
                "Requests at the app, tunnels included.",
                levels.upstream_requests,
            ),
            ("upstream_queue", "Requests that wait for room at the app.", levels.upstream_queue),
            (
                "untracked_credentials",
                "Credentials in use that no known login produced.",
                levels.untracked,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        if let Some(lag) = levels.store_lag {
            let gauge = ConstGauge::new(lag.as_secs_f64());
            let help = "How old the knowledge of other replicas' changes may be.";
            let metric =
                encoder.encode_descriptor("store_lag_seconds", help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let statements = ConstCounter::new(levels.store_statements);
        let metric = encoder.encode_descriptor(
            "store_statements",
            "SQL statements run.",
            None,
            statements.metric_type(),
        )?;
        statements.encode(metric)
    }
}
