//! What the tracker counts about its own work, and how it is written for Prometheus.
//!
//! Labels come from fixed sets, so strangers cannot add time series.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use qshare_registry::Counts;
use qshare_wire::tracker::{Find, Found};
use qshare_wire::{Message, Refusal};

use crate::registry_metrics::RegistryMetrics;
use crate::relay::RelayCounts;
use crate::shared::WriteRefusal;

/// Upper bound of the first bucket of latencies, and the factor between two: 0.05 ms to 1.6 s.
const FIRST_BUCKET_SECONDS: f64 = 0.000_05;
const BUCKET_FACTOR: f64 = 2.0;
const BUCKETS: u16 = 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByType {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByBudget {
    budget: &'static str,
}

/// The counters of a tracker. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<ByType, Counter>,
    /// Those of lookups, which are counted without a search for their names.
    lookups: Counter,
    lookup_answers: Counter,
    lookup_seconds: Histogram,
    all_requests: Counter,
    answers: Family<ByType, Counter>,
    refusals: Family<ByReason, Counter>,
    seconds: Family<ByType, Histogram, fn() -> Histogram>,
    sessions_opened: Counter,
    sessions_refused: Counter,
    announced: Counter,
    announced_refused: Counter,
}

/// What is measured at the moment of a scrape.
#[derive(Debug, Clone)]
pub(crate) struct Levels {
    pub(crate) registry: Counts,
    pub(crate) relay: Option<RelayCounts>,
    /// None if the tracker shares no registry.
    pub(crate) shared: Option<SharedLevels>,
    /// Name of each shared budget, how much of it is used, and how much there is.
    pub(crate) budgets: [(&'static str, u64, u64); 3],
}

/// The state of the shared registry at the moment of a scrape.
#[derive(Debug, Clone)]
pub(crate) struct SharedLevels {
    pub(crate) is_connected: bool,
    pub(crate) write_refusal: Option<WriteRefusal>,
    /// Changes that wait to be published.
    pub(crate) queued_changes: usize,
    /// Nodes of which all entries wait to be published.
    pub(crate) queued_nodes: usize,
    pub(crate) metrics: RegistryMetrics,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let latencies: fn() -> Histogram = || {
            let buckets = exponential_buckets(FIRST_BUCKET_SECONDS, BUCKET_FACTOR, BUCKETS);
            Histogram::new(buckets)
        };
        let (requests, answers) = (
            Family::<ByType, Counter>::default(),
            Family::<ByType, Counter>::default(),
        );
        let seconds = Family::<ByType, Histogram, _>::new_with_constructor(latencies);
        let lookup = ByType { r#type: Find::NAME };
        let found = ByType {
            r#type: Found::NAME,
        };
        let lookups = requests.get_or_create(&lookup).clone();
        let lookup_answers = answers.get_or_create(&found).clone();
        let lookup_seconds = seconds.get_or_create(&lookup).clone();
        Metrics {
            lookups,
            lookup_answers,
            lookup_seconds,
            requests,
            all_requests: Counter::default(),
            answers,
            refusals: Family::default(),
            seconds,
            sessions_opened: Counter::default(),
            sessions_refused: Counter::default(),
            announced: Counter::default(),
            announced_refused: Counter::default(),
        }
    }

    /// Counts a request by the name of its message.
    pub(crate) fn requested(&self, request: &'static str) {
        match request == Find::NAME {
            true => self.lookups.inc(),
            false => self
                .requests
                .get_or_create(&ByType { r#type: request })
                .inc(),
        };
        self.all_requests.inc();
    }

    /// Records how long a request took, from its frame to the last byte of its answer.
    pub(crate) fn took(&self, request: &'static str, time: Duration) {
        let seconds = time.as_secs_f64();
        match request == Find::NAME {
            true => self.lookup_seconds.observe(seconds),
            false => self
                .seconds
                .get_or_create(&ByType { r#type: request })
                .observe(seconds),
        }
    }

    /// Counts a message of an answer by its name.
    pub(crate) fn answered(&self, answer: &'static str) {
        match answer == Found::NAME {
            true => self.lookup_answers.inc(),
            false => self.answers.get_or_create(&ByType { r#type: answer }).inc(),
        };
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::NotHere => "not_here",
            Refusal::NotYet => "not_yet",
            Refusal::Busy => "busy",
            Refusal::Changed => "changed",
            Refusal::NotAllowed => "not_allowed",
            Refusal::Withdrawn => "withdrawn",
            Refusal::Invalid => "invalid",
            Refusal::Failed => "failed",
            Refusal::Other(_) => "other",
        };
        self.refusals.get_or_create(&ByReason { reason }).inc();
    }

    pub(crate) fn session_opened(&self) {
        self.sessions_opened.inc();
    }

    pub(crate) fn session_refused(&self) {
        self.sessions_refused.inc();
    }

    /// Counts the entries of a batch, and those of them that were refused.
    pub(crate) fn announced(&self, entries: usize, refused: usize) {
        self.announced.inc_by(entries as u64);
        self.announced_refused.inc_by(refused as u64);
    }

    /// Returns the number of requests of all types since the start.
    pub(crate) fn requests_total(&self) -> u64 {
        self.all_requests.get()
    }

    /// Writes all metrics in the OpenMetrics text format.
    pub(crate) fn text(&self, levels: &Levels) -> String {
        let mut registry = Registry::with_prefix("qshare_tracker");
        let r = &mut registry;
        let all: [(&str, &str, &Counter); 4] = [
            (
                "sessions_opened",
                "Sessions that nodes opened",
                &self.sessions_opened,
            ),
            (
                "sessions_refused",
                "Connections that were refused a session",
                &self.sessions_refused,
            ),
            (
                "announced_entries",
                "Entries that nodes announced",
                &self.announced,
            ),
            (
                "announced_entries_refused",
                "Announced entries that were refused",
                &self.announced_refused,
            ),
        ];
        for (name, help, counter) in all {
            r.register(name, help, counter.clone());
        }
        r.register(
            "requests",
            "Requests by their message",
            self.requests.clone(),
        );
        r.register(
            "answers",
            "Messages of answers by their name",
            self.answers.clone(),
        );
        r.register(
            "refusals",
            "Requests that were refused, by reason",
            self.refusals.clone(),
        );
        r.register_with_unit(
            "request",
            "Time from a request to the end of its answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
        register_levels(r, levels);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// The name under which requests of unknown types are counted.
pub(crate) const UNKNOWN: &str = "unknown";

fn register_levels(registry: &mut Registry, levels: &Levels) {
    let mut level = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let Counts {
        sessions,
        nodes,
        entries,
        assets,
        contents,
        name_bytes,
        watches,
        ..
    } = levels.registry;
    level("sessions", "Open sessions", sessions as u64);
    level("nodes", "Nodes with a session or a lease", nodes as u64);
    level("entries", "Entries of all nodes", entries as u64);
    level(
        "assets",
        "Distinct pairs of name and content",
        assets as u64,
    );
    level("contents", "Distinct contents", contents as u64);
    level("watches", "Open watches", watches as u64);
    level("name_bytes", "Bytes of names", name_bytes as u64);
    if let Some(relay) = &levels.relay {
        level("relay_pairs", "Channels of the relay", relay.pairs as u64);
    }
    let evicted = Counter::<u64>::default();
    evicted.inc_by(levels.registry.evicted);
    registry.register(
        "evicted_entries",
        "Entries removed to make room for others",
        evicted,
    );
    if let Some(relay) = &levels.relay {
        let counts = [
            (
                "relay_forwarded_packets",
                "Packets that the relay forwarded",
                relay.forwarded_packets,
            ),
            (
                "relay_forwarded_bytes",
                "Bytes that the relay forwarded",
                relay.forwarded_bytes,
            ),
            (
                "relay_dropped_packets",
                "Packets that the relay dropped at a limit",
                relay.dropped_packets,
            ),
        ];
        for (name, help, value) in counts {
            let counter = Counter::<u64>::default();
            counter.inc_by(value);
            registry.register(name, help, counter);
        }
    }
    let used = Family::<ByBudget, Gauge>::default();
    let capacity = Family::<ByBudget, Gauge>::default();
    for (budget, now, most) in levels.budgets {
        let of = ByBudget { budget };
        used.get_or_create(&of)
            .set(i64::try_from(now).unwrap_or(i64::MAX));
        capacity
            .get_or_create(&of)
            .set(i64::try_from(most).unwrap_or(i64::MAX));
    }
    registry.register("budget_used", "Used part of a shared budget", used);
    registry.register("budget_capacity", "Size of a shared budget", capacity);
    if let Some(shared) = &levels.shared {
        register_shared(registry, shared);
    }
}

fn register_shared(registry: &mut Registry, shared: &SharedLevels) {
    shared.metrics.register(registry);
    let levels = [
        (
            "registry_connected",
            "Whether there is a connection to Redis",
            usize::from(shared.is_connected),
        ),
        (
            "registry_writable",
            "Whether Redis accepts writes, as far as is known",
            usize::from(shared.is_connected && shared.write_refusal.is_none()),
        ),
        (
            "registry_queued_entries",
            "Changes of entries that wait to be written to Redis",
            shared.queued_changes,
        ),
        (
            "registry_queued_nodes",
            "Nodes whose entries all wait to be written to Redis",
            shared.queued_nodes,
        ),
    ];
    for (name, help, value) in levels {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_counts_levels_and_latencies() {
        let metrics = Metrics::new();
        metrics.requested("Find");
        metrics.requested("Find");
        metrics.took("Find", Duration::from_millis(3));
        metrics.answered("Found");
        metrics.refused(Refusal::Busy);
        metrics.announced(5, 2);
        assert_eq!(metrics.requests_total(), 2);
        let levels = Levels {
            registry: Counts {
                sessions: 3,
                entries: 4,
                ..Counts::default()
            },
            relay: None,
            shared: None,
            budgets: [("a", 1, 2), ("b", 3, 4), ("c", 5, 6)],
        };
        let text = metrics.text(&levels);
        for line in [
            "qshare_tracker_requests_total{type=\"Find\"} 2",
            "qshare_tracker_answers_total{type=\"Found\"} 1",
            "qshare_tracker_refusals_total{reason=\"busy\"} 1",
            "qshare_tracker_request_seconds_count{type=\"Find\"} 1",
            "qshare_tracker_announced_entries_total 5",
            "qshare_tracker_announced_entries_refused_total 2",
            "qshare_tracker_sessions 3",
            "qshare_tracker_entries 4",
            "qshare_tracker_budget_used{budget=\"b\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
