//! The rate limit and the priority of a download, beside the limit of the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use qshare_net::{Incoming, Pacing, RateLimit, Share};
use serde::{Deserialize, Serialize};

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
    /// rate limit.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Others keep little under way while it runs; four times a normal one's share of a rate limit.
    High,
}

impl Priority {
    const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    /// Returns its share of a rate limit.
    fn share(self) -> Share {
        Share(match self {
            Priority::Low => 1,
            Priority::Normal => 4,
            Priority::High => 16,
        })
    }

    fn from_index(index: u8) -> Priority {
        let found = Priority::ALL.get(usize::from(index)).copied();
        found.unwrap_or_default()
    }
}

/// Number of running downloads of each priority.
#[derive(Debug, Default)]
pub(super) struct RunningByPriority([AtomicUsize; 3]);

impl RunningByPriority {
    /// Whether a download of a higher priority runs.
    fn is_any_above(&self, priority: Priority) -> bool {
        let above = self.0.iter().skip(priority as usize + 1);
        above
            .map(|count| count.load(Ordering::Relaxed))
            .sum::<usize>()
            > 0
    }
}

/// The rate limits and the priority of a download.
#[derive(Debug)]
pub(super) struct Rates {
    node: Arc<Pacing>,
    own: Incoming,
    priority: AtomicU8,
    running: Arc<RunningByPriority>,
    /// Microseconds for which readers have waited, all together.
    waited_us: AtomicU64,
    /// Number of readers that the limit makes wait at this moment.
    paying: AtomicUsize,
}

impl Rates {
    pub(super) fn new(node: Arc<Pacing>, running: Arc<RunningByPriority>) -> Rates {
        Rates {
            node,
            own: Incoming::of_payload(),
            priority: AtomicU8::new(Priority::Normal as u8),
            running,
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
        let counted = self.priority();
        self.running.0[counted as usize].fetch_add(1, Ordering::Relaxed);
        RunningRates {
            rates: self.clone(),
            counted,
        }
    }

    pub(super) fn set_priority(&self, priority: Priority) {
        self.priority.store(priority as u8, Ordering::Relaxed);
    }

    /// Returns how many pieces of a packet each may be read before the next [`Rates::pay`].
    pub(super) fn turn_packets(&self) -> usize {
        let share = self.priority().share();
        let all = self.node.down.turn_bytes(share);
        let bytes = all.min(self.own.turn_bytes(Share(1)));
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
    counted: Priority,
}

impl RunningRates {
    /// Follows a change of the priority.
    pub(super) fn update(&mut self) {
        let now = self.rates.priority();
        if now != self.counted {
            let counts = &self.rates.running.0;
            counts[self.counted as usize].fetch_sub(1, Ordering::Relaxed);
            counts[now as usize].fetch_add(1, Ordering::Relaxed);
            self.counted = now;
        }
    }
}

impl Drop for RunningRates {
    fn drop(&mut self) {
        self.rates.running.0[self.counted as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn rates(running: &Arc<RunningByPriority>) -> Arc<Rates> {
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
        let (_one, mut two_runs) = (one.run(), two.run());
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

    #[test]
    fn priorities_take_larger_turns() {
        let rates = rates(&Arc::default());
        rates.node.down.set(limit(10_000_000));
        let normal = rates.turn_packets();
        rates.set_priority(Priority::High);
        assert!(rates.turn_packets() >= 4 * normal);
        rates.set_priority(Priority::Low);
        assert!(rates.turn_packets() <= normal / 4);
    }
}
