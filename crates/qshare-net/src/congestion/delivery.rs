//! Delivery rate estimation, on every acknowledgement.
//!
//! The method is that of draft-cheng-iccrg-delivery-rate-estimation: the bytes delivered between
//! the sending of a packet and its acknowledgement, divided by the longer of the send and the
//! acknowledgement interval. Instead of every packet's state, that of the first packet of each
//! short interval is kept, so that memory does not grow with the bytes in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most packet states of one connection. When all are in use, the last one covers later packets,
/// and rates are measured over longer intervals.
const FLIGHTS_MAX: usize = 160;
/// Packet states kept of each round trip.
const FLIGHTS_A_TRIP: u32 = 48;

/// The state of the connection when the packets of a short interval were sent.
#[derive(Debug, Clone, Copy)]
struct Flight {
    sent_at: Instant,
    delivered_bytes: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    in_flight_bytes: u64,
    is_limited: bool,
}

/// The measurement of one acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Delivery rate in bytes a second; None if the interval was too short.
    pub(super) rate: Option<f64>,
    /// Whether the sender was application-limited, so that the rate may be below the path's.
    pub(super) is_limited: bool,
    /// RTT of the newest packet.
    pub(super) round_trip: Duration,
    /// Bytes delivered when that packet was sent.
    pub(super) delivered_before: u64,
    /// Bytes that this acknowledgement delivered.
    pub(super) acked_bytes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Deliveries {
    delivered_bytes: u64,
    delivered_at: Instant,
    /// Send time of the newest acknowledged packet.
    first_sent_at: Instant,
    in_flight_bytes: u64,
    /// Rates are application-limited until this many bytes are delivered.
    limited_until: u64,
    flights: VecDeque<Flight>,
    acked_bytes: u64,
    newest_sent_at: Option<Instant>,
}

impl Deliveries {
    pub(super) fn new(now: Instant) -> Deliveries {
        Deliveries {
            delivered_bytes: 0,
            delivered_at: now,
            first_sent_at: now,
            in_flight_bytes: 0,
            limited_until: 0,
            flights: VecDeque::new(),
            acked_bytes: 0,
            newest_sent_at: None,
        }
    }

    pub(super) fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    pub(super) fn handle_sent(&mut self, now: Instant, bytes: u64, round_trip: Duration) {
        if self.in_flight_bytes == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        self.in_flight_bytes += bytes;
        let is_covered = self.flights.len() >= FLIGHTS_MAX
            || self.flights.back().is_some_and(|last| {
                now.saturating_duration_since(last.sent_at) < round_trip / FLIGHTS_A_TRIP
            });
        if !is_covered {
            self.flights.push_back(Flight {
                sent_at: now,
                delivered_bytes: self.delivered_bytes,
                delivered_at: self.delivered_at,
                first_sent_at: self.first_sent_at,
                in_flight_bytes: self.in_flight_bytes,
                is_limited: self.delivered_bytes < self.limited_until,
            });
        }
    }

    /// Takes one packet of an acknowledgement.
    pub(super) fn handle_acked(&mut self, sent_at: Instant, bytes: u64) {
        self.acked_bytes += bytes;
        self.newest_sent_at = self.newest_sent_at.max(Some(sent_at));
    }

    /// Ends an acknowledgement, after which `in_flight_bytes` are in flight.
    pub(super) fn sample(
        &mut self,
        now: Instant,
        in_flight_bytes: u64,
        least: Duration,
    ) -> Option<Sample> {
        let acked_bytes = std::mem::take(&mut self.acked_bytes);
        let newest = self.newest_sent_at.take();
        self.in_flight_bytes = in_flight_bytes;
        let sent_at = newest?;
        self.delivered_bytes += acked_bytes;
        self.delivered_at = now;
        let flight = self.flight_of(sent_at)?;
        self.first_sent_at = sent_at;
        // Older packets are acknowledged, lost, or too late to be measured.
        while self
            .flights
            .get(1)
            .is_some_and(|next| next.sent_at <= sent_at)
        {
            self.flights.pop_front();
        }
        let sending = sent_at.saturating_duration_since(flight.first_sent_at);
        let acking = now.saturating_duration_since(flight.delivered_at);
        let time = sending.max(acking);
        let delivered = self.delivered_bytes - flight.delivered_bytes;
        let is_long_enough = !time.is_zero() && time >= least;
        Some(Sample {
            rate: is_long_enough.then(|| delivered as f64 / time.as_secs_f64()),
            is_limited: flight.is_limited,
            round_trip: now.saturating_duration_since(sent_at),
            delivered_before: flight.delivered_bytes,
            acked_bytes,
        })
    }

    /// Notes that the sender is application-limited: bytes in flight now do not show the path's
    /// rate.
    pub(super) fn handle_limited(&mut self) {
        self.limited_until = (self.delivered_bytes + self.in_flight_bytes).max(1);
    }

    /// Removes lost bytes from those in flight; returns the bytes in flight when the newest lost
    /// packet was sent.
    pub(super) fn handle_lost(&mut self, sent_at: Instant, bytes: u64) -> u64 {
        let before = self.in_flight_bytes;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        self.flight_of(sent_at)
            .map_or(before, |flight| flight.in_flight_bytes)
    }

    fn flight_of(&self, sent_at: Instant) -> Option<Flight> {
        let after = self
            .flights
            .partition_point(|flight| flight.sent_at <= sent_at);
        self.flights.get(after.checked_sub(1)?).copied()
    }
}
