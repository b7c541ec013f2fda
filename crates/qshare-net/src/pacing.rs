//! Rate limits of an endpoint: how fast its socket sends, and how fast it is sent to.
//!
//! Sending is limited where all packets pass: the socket refuses packets while the rate is used up,
//! so nothing queues in the network, retransmissions and relayed packets included. Receiving can be
//! limited at the sender only: this side reads slowly, hence grants flow-control credit slowly.
//! What arrives is counted at the socket.
//!
//! A limit counts IP packets: the UDP payload and the headers of UDP and IP.

mod incoming;
mod outgoing;
mod rate;

use std::time::{Duration, Instant};

pub use incoming::Incoming;
pub(crate) use outgoing::{Outgoing, PacedPoller};
pub use rate::{RateError, RateLimit};

use crate::TokenBucket;

/// Bytes of the headers of UDP (8) and IPv4 (20) before each packet.
const HEADERS_BYTES: usize = 28;
/// What may be sent at once after a pause, as time at the limit. More would queue in the network;
/// less would be lost when a timer is late.
const BURST: Duration = Duration::from_millis(4);
/// Unused rate of this much time is made up for.
const MADE_UP: Duration = Duration::from_millis(150);
/// How much faster than the limit it is made up for.
const CATCHING_UP: f64 = 1.1;
/// The smallest burst: two full packets.
const BURST_MIN_BYTES: f64 = 3000.0;

/// The rate limits of an endpoint.
#[derive(Debug, Default)]
pub struct Pacing {
    /// The limit on what is sent.
    pub(crate) up: Outgoing,
    /// The limit on what is received.
    pub down: Incoming,
}

impl Pacing {
    /// Limits the rate at which packets are sent, from now on.
    pub fn set_up(&self, limit: RateLimit) {
        self.up.set(Instant::now(), limit);
    }

    /// Returns whether the limit held packets back within the last tenth of a second.
    pub fn is_up_limiting(&self) -> bool {
        self.up.is_limiting(Instant::now())
    }

    /// Returns the limit on sending.
    pub fn up(&self) -> RateLimit {
        self.up.limit()
    }
}

/// Two buckets: one that bounds the average, and one that bounds bursts.
#[derive(Debug)]
struct Buckets {
    average: TokenBucket,
    burst: TokenBucket,
}

impl Buckets {
    /// Full buckets for a limit in bytes per second.
    fn new(now: Instant, bytes_per_second: f64) -> Buckets {
        let within = |time: Duration| (bytes_per_second * time.as_secs_f64()).max(BURST_MIN_BYTES);
        let mut average = TokenBucket::new(now, bytes_per_second, within(MADE_UP));
        // Nothing is to be made up for at the beginning.
        average.charge(now, within(MADE_UP) - within(BURST));
        Buckets {
            average,
            burst: TokenBucket::new(now, bytes_per_second * CATCHING_UP, within(BURST)),
        }
    }

    /// Returns how long to wait until something may pass; zero if it may now.
    fn wait(&mut self, now: Instant) -> Duration {
        let mut longest = Duration::ZERO;
        for bucket in [&mut self.average, &mut self.burst] {
            if bucket.available(now) <= 0.0 {
                longest = longest.max(bucket.wait_for(1.0));
            }
        }
        longest
    }

    fn charge(&mut self, now: Instant, bytes: f64) {
        self.average.charge(now, bytes);
        self.burst.charge(now, bytes);
    }
}

/// Returns the bytes of the IP packets of a payload that is sent as packets of `segment` bytes.
fn wire_bytes(payload: usize, segment: usize) -> usize {
    payload + payload.div_ceil(segment.max(1)) * HEADERS_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends packets whenever it may, looking every `step`; returns the bytes.
    fn send(buckets: &mut Buckets, from: Instant, time: Duration, step: Duration) -> f64 {
        let (mut now, mut sent) = (from, 0.0);
        while now < from + time {
            while buckets.wait(now).is_zero() {
                buckets.charge(now, 1480.0);
                sent += 1480.0;
            }
            now += step;
        }
        sent
    }

    #[test]
    fn the_average_holds_also_when_timers_are_late() {
        for (limit, step) in [
            (1e5, MS),
            (1e6, MS),
            (1e7, MS),
            (1e7, 3 * MS),
            (1e8, 2 * MS),
        ] {
            let start = Instant::now();
            let mut buckets = Buckets::new(start, limit);
            let sent = send(&mut buckets, start, 5000 * MS, step);
            let ratio = sent / (limit * 5.0);
            assert!((0.97..1.03).contains(&ratio), "{limit} {step:?}: {ratio}");
        }
    }

    #[test]
    fn a_pause_is_made_up_for_slowly_and_a_long_one_in_part() {
        let start = Instant::now();
        let mut buckets = Buckets::new(start, 1e7);
        send(&mut buckets, start, 1000 * MS, MS);
        let later = start + 11_000 * MS;
        let first = send(&mut buckets, later, 10 * MS, MS);
        assert!(first < 1e7 * 0.016, "{first} bytes in 10 ms");
        let next = send(&mut buckets, later + 10 * MS, 4990 * MS, MS);
        assert!(first + next < 1e7 * 5.0 * 1.04, "{first} + {next}");
    }

    #[test]
    fn headers_count_for_each_packet() {
        assert_eq!(wire_bytes(3000, 1000), 3000 + 3 * HEADERS_BYTES);
        assert_eq!(wire_bytes(3001, 1000), 3001 + 4 * HEADERS_BYTES);
        assert_eq!(wire_bytes(0, 0), 0);
    }
}
