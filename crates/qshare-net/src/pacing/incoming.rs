//! The limit on what peers send to this node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::{BURST, BURST_MIN_BYTES, Buckets, MADE_UP, RateLimit, wire_bytes};

/// Bytes that readers take in turns, as time at the limit.
const TURN: Duration = BURST;
/// The limit counts as unused from this part of the rate on that may be made up for.
const UNUSED_PART: f64 = 0.75;
/// The payload of a packet.
const PACKET_BYTES: u64 = 1400;

/// A limit on received bytes. The socket counts what arrives; a reader of a stream pays for data
/// before it reads more, and waits while the rate is used up. Unread data keeps the sender
/// from sending more.
#[derive(Debug, Default)]
pub struct Incoming {
    /// The limit in bytes per second; 0 for none.
    limit: AtomicU64,
    buckets: Mutex<Option<Buckets>>,
    /// Readers pay in the order in which they asked.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
    counts_payload: bool,
}

impl Incoming {
    /// A limit that counts what its readers pay, because no socket counts for it. Readers pay for
    /// payload; 4 % are added for the headers around it.
    pub fn of_payload() -> Incoming {
        Incoming {
            counts_payload: true,
            ..Incoming::default()
        }
    }

    /// Sets the limit, from now on.
    pub fn set(&self, limit: RateLimit) {
        let bytes = limit.bytes_per_second();
        *self.buckets() = bytes.map(|bytes| Buckets::new(Instant::now(), bytes as f64));
        self.limit.store(bytes.unwrap_or(0), Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Returns the limit.
    pub fn limit(&self) -> RateLimit {
        RateLimit::from_bytes(self.limit.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Returns the bytes that a reader takes before it pays; `u64::MAX` without a limit.
    pub fn turn_bytes(&self) -> u64 {
        match self.limit() {
            RateLimit::NONE => u64::MAX,
            limit => limit.bytes_within(TURN).max(PACKET_BYTES),
        }
    }

    /// Returns whether clearly less than the limit has arrived of late; true without a limit.
    pub fn is_unused(&self) -> bool {
        let mut buckets = self.buckets();
        let (Some(buckets), Some(limit)) = (&mut *buckets, self.limit().bytes_per_second()) else {
            return true;
        };
        let unused = limit as f64 * MADE_UP.as_secs_f64() * UNUSED_PART;
        buckets.average.available(Instant::now()) >= unused
    }

    /// Counts received packets.
    pub(crate) fn charge(&self, payload: usize, segment: usize) {
        if self.limit.load(Ordering::Relaxed) != 0
            && let Some(buckets) = &mut *self.buckets()
        {
            let bytes = wire_bytes(payload, segment) as f64;
            buckets.average.charge(Instant::now(), bytes);
        }
    }

    /// Pays for data that was read, and waits until more may be read. Returns how long it waited.
    pub async fn pay(&self, bytes: u64) -> Duration {
        if self.limit.load(Ordering::Relaxed) == 0 {
            return Duration::ZERO;
        }
        let begun = Instant::now();
        let _turn = self.turn.lock().await;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let wait = {
                let now = Instant::now();
                let mut buckets = self.buckets();
                let Some(buckets) = &mut *buckets else {
                    break;
                };
                let wait = buckets.wait(now);
                if wait.is_zero() {
                    if self.counts_payload {
                        buckets.charge(now, bytes as f64 * PAYLOAD_TO_WIRE);
                    } else {
                        buckets.burst.charge(now, bytes as f64);
                    }
                    break;
                }
                wait
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = changed => {}
            }
        }
        begun.elapsed()
    }

    /// Returns the receive window of a connection with this RTT: enough for the limit on a path
    /// that loses packets, since a gap holds up its stream for another RTT, and no more, because a
    /// sender uses up a whole window at once.
    pub fn window_bytes(&self, rtt: Duration) -> u64 {
        let limit = self.limit();
        match limit {
            RateLimit::NONE => u64::MAX,
            limit => limit
                .bytes_within(rtt * 5 / 2 + WINDOW_TIME)
                .max(WINDOW_MIN_BYTES),
        }
    }

    fn buckets(&self) -> MutexGuard<'_, Option<Buckets>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a window that bridges late timers at both ends.
const WINDOW_TIME: Duration = Duration::from_millis(40);
/// The smallest window: a request, which is not limited, has at most 16 KiB.
const WINDOW_MIN_BYTES: u64 = 32 << 10;
/// The bytes of IP packets for each byte of data: 1,480 for some 1,420.
const PAYLOAD_TO_WIRE: f64 = 1.04;
const _: () = assert!(BURST_MIN_BYTES as u64 <= WINDOW_MIN_BYTES / 8);

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let down = Incoming::default();
        assert_eq!(down.pay(u64::MAX).await, Duration::ZERO);
        assert_eq!(down.turn_bytes(), u64::MAX);
        assert_eq!(down.window_bytes(Duration::ZERO), u64::MAX);
    }

    #[tokio::test]
    async fn what_the_socket_counts_holds_readers_up_until_the_limit_is_lifted() {
        let down = Incoming::default();
        down.set(RateLimit::from_bytes(MB).unwrap());
        // Minutes at this rate.
        down.charge(100_000_000, 1400);
        let mut paying = std::pin::pin!(down.pay(1));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(paying.as_mut().poll(&mut context).is_pending());
        down.set(RateLimit::NONE);
        paying.await;
    }

    #[test]
    fn a_turn_is_a_packet_at_least() {
        let down = Incoming::of_payload();
        down.set(RateLimit::from_bytes(10 * MB).unwrap());
        assert_eq!(down.turn_bytes(), 40_000);
        down.set(RateLimit::from_bytes(10_000).unwrap());
        assert_eq!(down.turn_bytes(), PACKET_BYTES);
    }

    #[test]
    fn a_limit_is_unused_until_packets_arrive_at_its_rate() {
        let down = Incoming::default();
        assert!(down.is_unused());
        down.set(RateLimit::from_bytes(10_000).unwrap());
        // Minutes at this rate.
        down.charge(MB as usize, 1400);
        assert!(!down.is_unused());
    }

    #[test]
    fn a_window_holds_what_the_path_does() {
        let down = Incoming::default();
        down.set(RateLimit::from_bytes(10 * MB).unwrap());
        let window = down.window_bytes(Duration::from_millis(100));
        assert_eq!(window, 10 * MB * 290 / 1000);
        down.set(RateLimit::from_bytes(10_000).unwrap());
        assert_eq!(down.window_bytes(Duration::ZERO), WINDOW_MIN_BYTES);
    }
}
