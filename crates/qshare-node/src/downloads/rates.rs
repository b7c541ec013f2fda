//! The rate limit and the priority of a download, beside the limit of the node.

mod competition;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use qshare_net::{Incoming, Pacing, RateLimit};
use qshare_swarm::Fetch;
use serde::{Deserialize, Serialize};

pub(super) use competition::Competition;
use competition::{Demand, Limit};

/// Time at the limit for which data is requested ahead: the queues of a few peers. More would
/// occupy places in their queues without use.
const REQUESTED_AHEAD: Duration = Duration::from_millis(1500);
/// Chunks that a limited download may request at once at least, so that the next answer is under
/// way when one ends.
const CHUNKS_AHEAD_MIN: u64 = 2;
/// The part of its requests that a download keeps while one of a higher priority runs.
const YIELDED: u64 = 16;
/// Payload of a packet in bytes.
const PACKET_BYTES: u64 = 1400;

/// How a download is served beside the node's other downloads.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Keeps little under way while any other download runs; a quarter of a normal one's share of a
    /// node's rate limit.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Others keep little under way while it runs; four times a normal one's share of a rate limit.
    High,
}

impl Priority {
    const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    fn from_index(index: u8) -> Priority {
        let found = Priority::ALL.get(usize::from(index)).copied();
        found.unwrap_or_default()
    }
}

/// The rate limits and the priority of a download.
#[derive(Debug)]
pub(super) struct Rates {
    node: Arc<Pacing>,
    own: Incoming,
    priority: AtomicU8,
    running: Arc<Competition>,
    /// Number of running downloads that share the own limit: the files of a folder.
    users: AtomicU64,
    /// Microseconds for which readers have waited, all together.
    waited_us: AtomicU64,
    /// Number of readers that the limit makes wait at this moment.
    paying: AtomicUsize,
}

impl Rates {
    pub(super) fn new(node: Arc<Pacing>, running: Arc<Competition>) -> Rates {
        Rates {
            node,
            own: Incoming::of_payload(),
            priority: AtomicU8::new(Priority::Normal as u8),
            running,
            users: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            paying: AtomicUsize::new(0),
        }
    }

    pub(super) fn set_limit(&self, limit: RateLimit) {
        self.own.set(limit);
    }

    pub(super) fn limit(&self) -> RateLimit {
        self.own.limit()
    }

    pub(super) fn priority(&self) -> Priority {
        Priority::from_index(self.priority.load(Ordering::Relaxed))
    }

    /// Counts the download as running until the result is dropped.
    pub(super) fn run(self: &Arc<Self>) -> RunningRates {
        self.users.fetch_add(1, Ordering::Relaxed);
        RunningRates {
            id: self.running.join(self.priority()),
            rates: self.clone(),
        }
    }

    pub(super) fn set_priority(&self, priority: Priority) {
        self.priority.store(priority as u8, Ordering::Relaxed);
    }

    /// Returns how many pieces of a packet each may be read before the next [`Rates::pay`].
    pub(super) fn turn_packets(&self) -> usize {
        let bytes = self.node.down.turn_bytes().min(self.own.turn_bytes());
        usize::try_from(bytes / PACKET_BYTES)
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// Pays for data that was read, and waits until more may be read.
    pub(super) async fn pay(&self, bytes: u64) {
        let _paying = Paying::new(&self.paying);
        let waited = self.own.pay(bytes).await + self.node.down.pay(bytes).await;
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.waited_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Returns for how long readers have waited since the last call, all together.
    pub(super) fn take_waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.swap(0, Ordering::Relaxed))
    }

    /// Returns the number of readers that wait now. A wait of seconds counts before it ends.
    pub(super) fn paying(&self) -> usize {
        self.paying.load(Ordering::Relaxed)
    }

    /// Returns the stricter of both limits.
    fn strictest(&self) -> RateLimit {
        let limits = [self.own.limit(), self.node.down.limit()];
        let limited = limits.into_iter().filter(|limit| *limit != RateLimit::NONE);
        limited
            .min_by_key(|limit| limit.bytes_per_second())
            .unwrap_or_default()
    }

    /// Returns the bytes that may be requested and not yet verified, out of at most `max_bytes`.
    pub(super) fn in_flight_max_bytes(&self, max_bytes: u64, chunk_bytes: u64) -> u64 {
        let least = (chunk_bytes * CHUNKS_AHEAD_MIN).min(max_bytes);
        let yielding = match self.running.is_any_above(self.priority()) {
            true => max_bytes / YIELDED,
            false => max_bytes,
        };
        let limited = self.strictest().bytes_within(REQUESTED_AHEAD);
        let limited = limited / self.users.load(Ordering::Relaxed).max(1);
        yielding.min(limited).max(least)
    }
}

/// Counts a reader as waiting until it is dropped, since a request may be abandoned meanwhile.
struct Paying<'a>(&'a AtomicUsize);

impl Paying<'_> {
    fn new(count: &AtomicUsize) -> Paying<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Paying(count)
    }
}

impl Drop for Paying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A download that counts as running.
#[derive(Debug)]
pub(super) struct RunningRates {
    rates: Arc<Rates>,
    id: u64,
}

impl RunningRates {
    /// Follows a change of the priority.
    pub(super) fn update(&self) {
        self.rates
            .running
            .set_priority(self.id, self.rates.priority());
    }

    /// Tells the scheduler how much it may request until the next call: within the limits, and
    /// within the download's share of them. Returns whether it may request nothing.
    pub(super) fn apply(&self, fetch: &mut Fetch, max_bytes: u64, chunk_bytes: u64) -> bool {
        let rates = &self.rates;
        fetch.set_in_flight_max(rates.in_flight_max_bytes(max_bytes, chunk_bytes));
        let demand = Demand {
            requested_bytes: fetch.requested_bytes(),
            in_flight_bytes: fetch.in_flight_bytes(),
            chunk_bytes,
        };
        let limit = Limit {
            bytes_per_second: rates.node.down.limit().bytes_per_second(),
            is_unused: rates.node.down.is_unused(),
        };
        let bytes = rates.running.allow(Instant::now(), self.id, demand, limit);
        fetch.set_allowance(bytes);
        bytes == 0
    }
}

impl Drop for RunningRates {
    fn drop(&mut self) {
        self.rates.users.fetch_sub(1, Ordering::Relaxed);
        self.rates.running.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn rates(running: &Arc<Competition>) -> Arc<Rates> {
        Arc::new(Rates::new(Arc::default(), running.clone()))
    }

    fn limit(bytes: u64) -> RateLimit {
        RateLimit::from_bytes(bytes).unwrap()
    }

    #[test]
    fn the_stricter_limit_bounds_what_is_requested() {
        let rates = rates(&Arc::default());
        assert_eq!(rates.in_flight_max_bytes(48 * MIB, MIB), 48 * MIB);
        rates.node.down.set(limit(10_000_000));
        assert_eq!(rates.in_flight_max_bytes(48 * MIB, MIB), 15_000_000);
        rates.set_limit(limit(4_000_000));
        assert_eq!(rates.in_flight_max_bytes(48 * MIB, MIB), 6_000_000);
        rates.set_limit(limit(10_000));
        assert_eq!(rates.in_flight_max_bytes(48 * MIB, MIB), 2 * MIB);
        rates.set_limit(RateLimit::NONE);
        assert_eq!(rates.in_flight_max_bytes(48 * MIB, MIB), 15_000_000);
    }

    #[test]
    fn a_download_yields_to_a_higher_priority_until_that_ends_or_changes() {
        let running = Arc::default();
        let (one, two) = (rates(&running), rates(&running));
        let (_one, two_runs) = (one.run(), two.run());
        assert_eq!(one.in_flight_max_bytes(48 * MIB, MIB), 48 * MIB);
        two.set_priority(Priority::High);
        two_runs.update();
        assert_eq!(one.in_flight_max_bytes(48 * MIB, MIB), 3 * MIB);
        assert_eq!(two.in_flight_max_bytes(48 * MIB, MIB), 48 * MIB);
        two.set_priority(Priority::Low);
        two_runs.update();
        assert_eq!(one.in_flight_max_bytes(48 * MIB, MIB), 48 * MIB);
        assert_eq!(two.in_flight_max_bytes(48 * MIB, MIB), 3 * MIB);
        two.set_priority(Priority::High);
        two_runs.update();
        drop(two_runs);
        assert_eq!(one.in_flight_max_bytes(48 * MIB, MIB), 48 * MIB);
    }
}
