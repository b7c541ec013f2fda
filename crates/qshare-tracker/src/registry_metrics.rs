//! What is counted about the use of Redis by a tracker of a shared registry.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Upper bound of the first bucket of latencies, the factor between two, and how many there are:
/// 0.1 ms to 1.6 s, above the longest time that an answer may take.
const FIRST_BUCKET_SECONDS: f64 = 0.000_1;
const BUCKET_FACTOR: f64 = 2.0;
const BUCKETS: u16 = 15;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

/// The counters of the links to Redis. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct RegistryMetrics {
    operations: Counter,
    errors: Family<ByCause, Counter>,
    all_errors: Counter,
    connections: Counter,
    seconds: Histogram,
}

impl RegistryMetrics {
    pub(crate) fn new() -> RegistryMetrics {
        let buckets = exponential_buckets(FIRST_BUCKET_SECONDS, BUCKET_FACTOR, BUCKETS);
        RegistryMetrics {
            operations: Counter::default(),
            errors: Family::default(),
            all_errors: Counter::default(),
            connections: Counter::default(),
            seconds: Histogram::new(buckets),
        }
    }

    /// Counts a connection.
    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    /// Counts operations that Redis has carried out in one round trip.
    pub(crate) fn carried_out(&self, operations: usize) {
        self.operations.inc_by(operations as u64);
    }

    /// Records the time of a round trip.
    pub(crate) fn took(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// Counts a round trip without the wanted answer. `cause` is one of a fixed set.
    pub(crate) fn failed(&self, cause: &'static str) {
        self.errors.get_or_create(&ByCause { cause }).inc();
        self.all_errors.inc();
    }

    /// Returns the number of operations since the start.
    pub(crate) fn operations_total(&self) -> u64 {
        self.operations.get()
    }

    /// Returns the number of failures since the start.
    pub(crate) fn errors_total(&self) -> u64 {
        self.all_errors.get()
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("registry");
        registry.register(
            "operations",
            "Commands and scripts that Redis has carried out",
            self.operations.clone(),
        );
        registry.register(
            "errors",
            "Round trips to Redis that failed, by cause",
            self.errors.clone(),
        );
        registry.register(
            "connections",
            "Connections to Redis since the start",
            self.connections.clone(),
        );
        registry.register_with_unit(
            "round_trip",
            "Time of a round trip to Redis, of several operations together",
            Unit::Seconds,
            self.seconds.clone(),
        );
    }
}
