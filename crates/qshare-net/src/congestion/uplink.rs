//! The uplink: the first link, which all connections of an endpoint share.
//!
//! Each controller finds a window for its own path. Where the uplink is the bottleneck, as in most
//! homes and in large swarms, all of these windows fill one queue: with thirty connections it
//! overflows early, and urgent packets wait behind older ones. So all connections together have no
//! more in flight than the uplink carries in [`QUEUE_MAX`], and no more than [`QUEUE_MAX_BYTES`];
//! each sending connection has an equal share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Queueing delay that all bytes in flight on short paths together may cause: enough to keep a link
/// busy that several senders share, and less than routers buffer.
const QUEUE_MAX: Duration = Duration::from_millis(40);
/// Most bytes in flight on short paths. The receiver's socket buffer holds little more, and memory
/// there that is not in the CPU cache costs both ends a tenth of their processor time.
const QUEUE_MAX_BYTES: u64 = 5_000_000;
/// Interval over which the rate is measured; the highest counts.
const SAMPLE: Duration = Duration::from_millis(50);
/// Period after which a rate is replaced; it expires after two.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Smallest share of a connection: more than one call of ten packets, so that some are in flight
/// while those are acknowledged, but little enough that several senders to one receiver do not
/// overflow the queue in front of it.
const SHARE_MIN_BYTES: u64 = 20_000;
/// A connection with fewer bytes in flight does not count as sending: it carries acknowledgements
/// or control messages.
const SENDING_MIN_BYTES: u64 = 4 << 10;

/// The uplink of an endpoint.
#[derive(Debug)]
pub(super) struct Uplink {
    state: Mutex<State>,
    /// Bytes that each connection may have in flight.
    share_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Number of sending connections.
    sending: u64,
    sample: Option<Sample>,
    /// Highest rates of this period and the last one, in bytes a second.
    best: f64,
    best_before: f64,
    period: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    since: Instant,
    bytes: u64,
}

impl Uplink {
    pub(super) fn new() -> Arc<Uplink> {
        Arc::new(Uplink {
            state: Mutex::new(State {
                sending: 0,
                sample: None,
                best: 0.0,
                best_before: 0.0,
                period: None,
            }),
            share_bytes: AtomicU64::new(u64::MAX),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        self.share_bytes
            .store(state.share_bytes(), Ordering::Relaxed);
    }
}

impl State {
    fn handle_acked(&mut self, now: Instant, bytes: u64) {
        let sample = self.sample.get_or_insert(Sample {
            since: now,
            bytes: 0,
        });
        let elapsed = now.saturating_duration_since(sample.since);
        if elapsed >= SAMPLE {
            let rate = sample.bytes as f64 / elapsed.as_secs_f64();
            *sample = Sample {
                since: now,
                bytes: 0,
            };
            self.handle_rate(now, rate);
        }
        if let Some(sample) = &mut self.sample {
            sample.bytes += bytes;
        }
    }

    fn handle_rate(&mut self, now: Instant, rate: f64) {
        let period = *self.period.get_or_insert(now);
        if now.saturating_duration_since(period) >= REMEMBERED {
            self.best_before = std::mem::take(&mut self.best);
            self.period = Some(now);
        }
        self.best = self.best.max(rate);
    }

    /// Returns the rate in bytes a second, once it is known.
    fn rate(&self) -> Option<f64> {
        let rate = self.best.max(self.best_before);
        (rate > 0.0).then_some(rate)
    }

    /// Returns the share of a connection: unlimited while the rate is unknown.
    fn share_bytes(&self) -> u64 {
        let Some(rate) = self.rate() else {
            return u64::MAX;
        };
        let all = ((rate * QUEUE_MAX.as_secs_f64()) as u64).min(QUEUE_MAX_BYTES);
        (all / self.sending.max(1)).max(SHARE_MIN_BYTES)
    }
}

/// A connection's membership in an uplink. Its bytes in flight are released when it is dropped.
#[derive(Debug)]
pub(super) struct Member {
    uplink: Arc<Uplink>,
    in_flight_bytes: u64,
    acked_bytes: u64,
    is_sending: bool,
}

impl Member {
    pub(super) fn new(uplink: Arc<Uplink>) -> Member {
        Member {
            uplink,
            in_flight_bytes: 0,
            acked_bytes: 0,
            is_sending: false,
        }
    }

    /// Returns the membership of another connection, or of the same one on another path.
    pub(super) fn another(&self) -> Member {
        Member::new(self.uplink.clone())
    }

    /// Returns the bytes that the connection may have in flight.
    pub(super) fn share_bytes(&self) -> u64 {
        self.uplink.share_bytes.load(Ordering::Relaxed)
    }

    /// Returns the highest rate that the uplink carried, in bytes a second, once it is known.
    pub(super) fn link_rate(&self) -> Option<f64> {
        self.uplink.state().rate()
    }

    pub(super) fn handle_sent(&mut self, bytes: u64) {
        self.set_in_flight(self.in_flight_bytes.saturating_add(bytes));
    }

    pub(super) fn handle_acked(&mut self, bytes: u64) {
        self.acked_bytes += bytes;
    }

    pub(super) fn handle_acks_end(&mut self, now: Instant, in_flight_bytes: u64) {
        let acked = std::mem::take(&mut self.acked_bytes);
        self.uplink.update(|state| state.handle_acked(now, acked));
        self.set_in_flight(in_flight_bytes);
    }

    fn set_in_flight(&mut self, bytes: u64) {
        self.in_flight_bytes = bytes;
        let is_sending = bytes >= SENDING_MIN_BYTES;
        if is_sending != self.is_sending {
            self.is_sending = is_sending;
            self.uplink.update(|state| match is_sending {
                true => state.sending += 1,
                false => state.sending -= 1,
            });
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set_in_flight(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// 12.5 MB/s, 100 Mbit/s.
    const BYTES_A_MS: u64 = 12_500;

    struct Bench {
        uplink: Arc<Uplink>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                uplink: Uplink::new(),
                now: Instant::now(),
            }
        }

        fn member(&self) -> Member {
            Member::new(self.uplink.clone())
        }

        /// Acknowledges this many bytes every millisecond, and sends as many.
        fn run(&mut self, member: &mut Member, time: Duration, bytes_a_ms: u64) {
            for _ in 0..time.as_millis() {
                self.now += MS;
                member.handle_sent(bytes_a_ms);
                member.handle_acked(bytes_a_ms);
                member.handle_acks_end(self.now, 100_000);
            }
        }
    }

    fn assert_near(bytes: u64, expected: u64) {
        let ratio = bytes as f64 / expected as f64;
        assert!((0.95..1.05).contains(&ratio), "{bytes}, not {expected}");
    }

    #[test]
    fn nothing_is_held_back_before_a_rate_is_known() {
        let mut bench = Bench::new();
        let mut one = bench.member();
        bench.run(&mut one, 40 * MS, BYTES_A_MS);
        assert_eq!((one.share_bytes(), one.link_rate()), (u64::MAX, None));
        bench.run(&mut one, 20 * MS, BYTES_A_MS);
        assert_near(one.share_bytes(), 40 * BYTES_A_MS);
        assert_near(one.link_rate().unwrap() as u64, 1000 * BYTES_A_MS);
    }

    #[test]
    fn on_a_fast_link_no_more_is_in_flight_than_what_sockets_hold() {
        let mut bench = Bench::new();
        let mut one = bench.member();
        bench.run(&mut one, 200 * MS, 80 * BYTES_A_MS);
        assert_eq!(one.share_bytes(), QUEUE_MAX_BYTES);
    }

    #[test]
    fn those_who_send_have_equal_shares() {
        let mut bench = Bench::new();
        let (mut one, mut two, mut quiet) = (bench.member(), bench.member(), bench.member());
        bench.run(&mut one, 200 * MS, BYTES_A_MS);
        quiet.handle_sent(100);
        assert_near(one.share_bytes(), 40 * BYTES_A_MS);
        two.handle_sent(10_000);
        assert_near(one.share_bytes(), 20 * BYTES_A_MS);
        assert_eq!(one.share_bytes(), two.share_bytes());
        two.handle_acked(10_000);
        two.handle_acks_end(bench.now, 0);
        assert_near(one.share_bytes(), 40 * BYTES_A_MS);
        two.handle_sent(10_000);
        drop(two);
        assert_near(one.share_bytes(), 40 * BYTES_A_MS);
    }

    #[test]
    fn however_many_send_each_keeps_a_little() {
        let mut bench = Bench::new();
        let mut one = bench.member();
        bench.run(&mut one, 200 * MS, BYTES_A_MS);
        let mut many: Vec<_> = (0..100).map(|_| bench.member()).collect();
        many.iter_mut().for_each(|one| one.handle_sent(10_000));
        assert_eq!(one.share_bytes(), SHARE_MIN_BYTES);
    }

    #[test]
    fn what_the_link_carried_once_is_forgotten_and_pauses_say_nothing() {
        let mut bench = Bench::new();
        let mut one = bench.member();
        bench.run(&mut one, 200 * MS, BYTES_A_MS);
        bench.now += 60 * REMEMBERED;
        bench.run(&mut one, 200 * MS, BYTES_A_MS / 4);
        assert_near(one.share_bytes(), 40 * BYTES_A_MS);
        bench.run(&mut one, 3 * REMEMBERED, BYTES_A_MS / 4);
        assert_near(one.share_bytes(), 10 * BYTES_A_MS);
    }
}
