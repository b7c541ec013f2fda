//! How fast a path delivers: measured whenever packets are acknowledged.
//!
//! The method is that of draft-cheng-iccrg-delivery-rate-estimation: what was delivered between
//! the sending of a packet and its acknowledgement, over the longer of the times that sending and
//! acknowledging it took. Instead of every packet's state, that of the first of each short while is
//! kept, so that memory does not grow with what is in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// States kept of one connection. When they are all in use, the last one covers what follows, and
/// rates are measured over longer times.
const FLIGHTS_MAX: usize = 160;
/// States kept of each round trip.
const FLIGHTS_A_TRIP: u32 = 48;

/// How the connection was when the packets of a short while were sent.
#[derive(Debug, Clone, Copy)]
struct Flight {
    sent_at: Instant,
    delivered_bytes: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    in_flight_bytes: u64,
    is_limited: bool,
}

/// What one acknowledgement tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes a second; none if the time was too short to tell.
    pub(super) rate: Option<f64>,
    /// Whether there was too little to send for the rate to be the path's.
    pub(super) is_limited: bool,
    /// From sending the newest of the packets until now.
    pub(super) round_trip: Duration,
    /// What had been delivered when it was sent.
    pub(super) delivered_before: u64,
    /// What this acknowledgement delivered.
    pub(super) acked_bytes: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Deliveries {
    delivered_bytes: u64,
    delivered_at: Instant,
    /// When the newest packet that was acknowledged had been sent.
    first_sent_at: Instant,
    in_flight_bytes: u64,
    /// Until so much is delivered, rates are those of who had too little to send.
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

    /// One of the packets of an acknowledgement.
    pub(super) fn handle_acked(&mut self, sent_at: Instant, bytes: u64) {
        self.acked_bytes += bytes;
        self.newest_sent_at = self.newest_sent_at.max(Some(sent_at));
    }

    /// That was the last of them; `in_flight_bytes` still are.
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
        // What was sent before is acknowledged or lost, or late, and tells nothing any more.
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

    /// There is too little to send: what is in flight now tells little about the path.
    pub(super) fn handle_limited(&mut self) {
        self.limited_until = (self.delivered_bytes + self.in_flight_bytes).max(1);
    }

    /// Takes losses out of what is in flight; returns how much was when the newest of the lost
    /// packets was sent.
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
