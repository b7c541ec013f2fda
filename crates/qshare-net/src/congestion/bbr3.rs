//! BBR version 3 (draft-ietf-ccwg-bbr), adapted to quinn: a model of the path, and the window from
//! it.
//!
//! The bandwidth is the highest recent delivery rate, the minimum RTT the shortest of the last
//! seconds, and their product the bandwidth-delay product (BDP). Losses count once they exceed the
//! path's own loss rate; delay alone counts only in `Startup`. Phases probe for more bandwidth
//! (`Up`), drain the queue that this built (`Down`), and use the measured bandwidth (`Cruise`).
//!
//! quinn derives its pacing from the window: it sends 1.25 windows a round trip while less than a
//! window is in flight. So where BBR sets a pacing rate, this sets the window that yields it:
//! bandwidth × RTT, with most of the queueing delay in the RTT counted (`QUEUE_SHARE`).

use std::ops::Range;
use std::time::{Duration, Instant};

use super::delivery::{Deliveries, Sample};

/// Smallest window in packets: enough that a loss is detected by later packets, not by a time-out.
const WINDOW_MIN_PACKETS: u64 = 8;
/// Window at start-up as a multiple of the BDP, which doubles every round trip.
const STARTUP_GAIN: f64 = 2.5;
/// The path is full when its rate grew by less than this in three round trips, or in one that had a
/// queue.
const STARTUP_GROWTH: f64 = 1.25;
const STARTUP_TRIPS: u32 = 3;
/// Window gain while probing for bandwidth.
const UP_GAIN: f64 = 1.25;
/// Probing goes on while each round trip raises the rate by this.
const UP_GROWTH: f64 = 1.08;
/// Window gain while draining the queue.
const DOWN_GAIN: f64 = 0.9;
/// Largest window as a multiple of the BDP, regardless of the queue that other flows build.
const CAP_GAIN: f64 = 2.0;
/// Share of the queueing delay that counts in the window. With all of it a queue of our own would
/// persist; with none of it the queues of other flows would starve us.
const QUEUE_SHARE: f64 = 0.75;
/// Queue that the window always allows, in time and in packets. Flows at one bottleneck converge to
/// equal shares by it, because it is a larger part of a smaller window.
const EXTRA_TIME: Duration = Duration::from_millis(10);
const EXTRA_PACKETS: Range<u64> = 4..16;
/// Lower bound of the RTT in calculations. On one machine or a local network, waking both programs
/// takes longer than the path, and a queue of a few milliseconds is harmless.
const ROUND_TRIP_FLOOR: Duration = Duration::from_millis(40);
/// Pause between two probes, in round trips, with a minimum and a maximum.
const CRUISE_TRIPS: u32 = 16;
const CRUISE_MIN: Duration = Duration::from_millis(200);
const CRUISE_MAX: Duration = Duration::from_secs(3);
/// Loss rate of a round trip, beyond the path's own, from which on too much is in flight: 2 % with
/// a queue, as in BBR, and more without one.
const LOSS_WITH_QUEUE: f64 = 0.02;
const LOSS_WITHOUT_QUEUE: f64 = 0.1;
/// Highest loss rate that counts as the path's own.
const LOSS_ANYWAY_MAX: f64 = 0.05;
/// Fewest lost packets that count as a loss rate.
const LOST_PACKETS_MIN: u64 = 3;
/// Window multiplier after excessive loss.
const LOSS_GAIN: f64 = 0.7;
/// Largest window multiplier when other flows made the queue too long: larger windows yield more.
const YIELD_GAIN: f64 = 0.85;
/// Headroom for other flows below the window that had excessive loss.
const HEADROOM: f64 = 0.85;
/// Age after which the minimum RTT is probed for again …
const MIN_TRIP_LIFETIME: Duration = Duration::from_secs(5);
const MIN_TRIP_LIFETIME_TRIPS: u32 = 32;
/// … for at least this time, with this part of the window.
const PROBE_TRIP_TIME: Duration = Duration::from_millis(200);
const PROBE_TRIP_GAIN: f64 = 0.5;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// Double the rate every round trip.
    Startup {
        full_rate: f64,
        trips_without_growth: u32,
    },
    /// Drain the queue of start-up or of the last probe.
    Down { is_drained: bool, trips: u32 },
    /// Use the measured bandwidth until then.
    Cruise { until: Instant },
    /// Probe for more bandwidth.
    Up {
        rate_before: f64,
        trips: u32,
        /// RTT at the beginning: the queue that probing builds does not count.
        trip: Duration,
    },
    /// Probe for the minimum RTT.
    ProbeTrip {
        until: Option<Instant>,
        shortest: Duration,
    },
}

/// Measurements of one round trip.
#[derive(Debug, Clone, Copy)]
struct Trip {
    /// The round trip ends when a packet is acknowledged that was sent after this many bytes had
    /// been delivered.
    ends_at_delivered: u64,
    acked_bytes: u64,
    lost_bytes: u64,
    is_limited: bool,
    trips_sum: Duration,
    trips: u32,
}

impl Trip {
    fn starting(delivered_bytes: u64) -> Trip {
        Trip {
            ends_at_delivered: delivered_bytes,
            acked_bytes: 0,
            lost_bytes: 0,
            is_limited: false,
            trips_sum: Duration::ZERO,
            trips: 0,
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        (self.trips > 0).then(|| self.trips_sum / self.trips)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Bbr3 {
    deliveries: Deliveries,
    phase: Phase,
    window_bytes: u64,
    initial_bytes: u64,
    packet_bytes: u64,
    /// Highest rates of the last cycle and of this one, in bytes a second.
    rates: [f64; 2],
    min_trip: Duration,
    min_trip_at: Instant,
    /// Shortest RTT since then.
    recent_trip: Duration,
    /// quinn's smoothed RTT, on which its pacing is based.
    smoothed_trip: Duration,
    trip: Trip,
    /// Ceiling of the window: a larger window lost too many packets.
    ceiling_bytes: Option<u64>,
    /// Rise of the ceiling after the next round trip without excessive loss.
    ceiling_step: u64,
    /// Limit until our next probe, while other flows are probing.
    yielding_bytes: Option<u64>,
    /// Losses of packets sent before this have already reduced the window.
    shrunk_at: Option<Instant>,
    /// Loss rate without a queue.
    loss_anyway: f64,
    bursts: Bursts,
    random: u64,
}

impl Bbr3 {
    pub(super) fn new(now: Instant, initial_bytes: u64, packet_bytes: u16, seed: u64) -> Bbr3 {
        Bbr3 {
            deliveries: Deliveries::new(now),
            phase: STARTUP,
            window_bytes: initial_bytes,
            initial_bytes,
            packet_bytes: packet_bytes.into(),
            rates: [0.0; 2],
            min_trip: Duration::MAX,
            min_trip_at: now,
            recent_trip: Duration::MAX,
            smoothed_trip: Duration::ZERO,
            trip: Trip::starting(0),
            ceiling_bytes: None,
            ceiling_step: 0,
            yielding_bytes: None,
            shrunk_at: None,
            loss_anyway: 0.0,
            bursts: Bursts::default(),
            random: seed | 1,
        }
    }

    pub(super) fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    pub(super) fn initial_bytes(&self) -> u64 {
        self.initial_bytes
    }

    /// Returns the measured bandwidth in bytes a second.
    pub(super) fn rate(&self) -> f64 {
        self.rates[0].max(self.rates[1])
    }

    /// Returns the number of packet states kept.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.deliveries.remembered()
    }

    pub(super) fn set_packet_bytes(&mut self, packet_bytes: u16) {
        self.packet_bytes = packet_bytes.into();
        self.window_bytes = self.window_bytes.max(self.window_min());
    }

    pub(super) fn handle_sent(&mut self, now: Instant, bytes: u64) {
        self.deliveries.handle_sent(now, bytes, self.smoothed_trip);
    }

    /// Handles one packet of an acknowledgement; `handle_acks_end` follows.
    pub(super) fn handle_acked(&mut self, sent_at: Instant, bytes: u64, smoothed_trip: Duration) {
        self.smoothed_trip = smoothed_trip;
        self.deliveries.handle_acked(sent_at, bytes);
    }

    /// Ends an acknowledgement. `has_nothing_to_send`: less than a window is in flight for want of
    /// data.
    pub(super) fn handle_acks_end(
        &mut self,
        now: Instant,
        in_flight_bytes: u64,
        has_nothing_to_send: bool,
    ) {
        let least = self.known_trip().unwrap_or(Duration::ZERO);
        let Some(sample) = self.deliveries.sample(now, in_flight_bytes, least) else {
            return;
        };
        // Applications refill the window after an acknowledgement: only a flow well below it lacks
        // data.
        let was_in_flight = in_flight_bytes + sample.acked_bytes;
        if has_nothing_to_send && was_in_flight < self.window_bytes / 2 {
            self.deliveries.handle_limited();
            self.trip.is_limited = true;
        }
        self.note_trip(now, &sample);
        if let Some(rate) = sample.rate
            && (!sample.is_limited || rate >= self.rate())
        {
            self.rates[1] = self.rates[1].max(rate);
        }
        self.bursts
            .handle_acked(now, sample.acked_bytes, self.rate());
        self.trip.acked_bytes += sample.acked_bytes;
        if sample.delivered_before >= self.trip.ends_at_delivered {
            self.end_trip();
        }
        self.advance(now, in_flight_bytes);
        self.make_window(sample.acked_bytes, sample.is_limited);
    }

    /// Handles a loss; takes the send time of the newest lost packet. Zero bytes are a congestion
    /// mark (ECN).
    pub(super) fn handle_lost(
        &mut self,
        now: Instant,
        sent_at: Instant,
        bytes: u64,
        is_persistent: bool,
    ) {
        let in_flight_then = self.deliveries.handle_lost(sent_at, bytes);
        if is_persistent {
            self.start_again(now);
            return;
        }
        if self.shrunk_at.is_some_and(|at| sent_at <= at) {
            return;
        }
        self.trip.lost_bytes += bytes;
        let is_marked = bytes == 0;
        if is_marked
            || self.is_too_much(
                self.trip.lost_bytes,
                in_flight_then.max(self.trip.acked_bytes),
            )
        {
            self.shrink(now, in_flight_then);
        }
    }

    /// Restarts after persistent congestion: the path may have changed.
    fn start_again(&mut self, now: Instant) {
        self.phase = STARTUP;
        self.rates = [0.0; 2];
        self.min_trip_at = now;
        self.min_trip = Duration::MAX;
        self.ceiling_bytes = None;
        self.yielding_bytes = None;
        self.bursts = Bursts::default();
        self.trip = Trip::starting(self.deliveries.delivered_bytes());
        self.window_bytes = self.window_min();
    }

    fn is_too_much(&self, lost_bytes: u64, of_bytes: u64) -> bool {
        let allowed = match self.has_queue() {
            true => LOSS_WITH_QUEUE + self.loss_anyway,
            false => LOSS_WITHOUT_QUEUE,
        };
        lost_bytes >= LOST_PACKETS_MIN * self.packet_bytes
            && lost_bytes as f64 > allowed * of_bytes as f64
    }

    /// Returns whether the queueing delay exceeds that of a useful drop-tail queue.
    fn has_queue(&self) -> bool {
        match (self.trip.round_trip(), self.known_trip()) {
            (Some(now), Some(least)) => now > least + (least / 8).max(Duration::from_millis(2)),
            _ => true,
        }
    }

    fn shrink(&mut self, now: Instant, in_flight_then: u64) {
        let lost_bytes = std::mem::take(&mut self.trip.lost_bytes);
        self.shrunk_at = Some(now);
        self.start_trip_of_what_is_sent_now();
        let least = (self.window_bytes as f64 * LOSS_GAIN) as u64;
        let fits = in_flight_then.saturating_sub(lost_bytes);
        match self.phase {
            Phase::Startup { .. } | Phase::Up { .. } => {
                let trip = self.known_trip().unwrap_or(Duration::ZERO);
                let held = self.rate() * trip.as_secs_f64() * LOSS_GAIN;
                self.ceiling_bytes = Some(fits.max(held as u64).max(self.window_min()));
                self.ceiling_step = 0;
                self.enter_down();
            }
            _ => {
                let least = self
                    .yielding_bytes
                    .map_or(least, |bytes| (bytes as f64 * LOSS_GAIN) as u64);
                let most = (self.window_bytes as f64 * YIELD_GAIN) as u64;
                self.yielding_bytes = Some(least.max(fits.min(most)));
            }
        }
        self.make_window(0, true);
    }

    /// Starts a round trip with the next packet that is sent.
    fn start_trip_of_what_is_sent_now(&mut self) {
        let in_flight_bytes = self.deliveries.in_flight_bytes();
        self.trip = Trip::starting(self.deliveries.delivered_bytes() + in_flight_bytes);
    }

    fn note_trip(&mut self, now: Instant, sample: &Sample) {
        let tolerance = (self.min_trip / 64).min(Duration::from_millis(1));
        if self.min_trip == Duration::MAX || sample.round_trip <= self.min_trip + tolerance {
            self.min_trip_at = now;
            self.recent_trip = Duration::MAX;
        }
        self.min_trip = self.min_trip.min(sample.round_trip);
        self.recent_trip = self.recent_trip.min(sample.round_trip);
        self.trip.trips_sum += sample.round_trip;
        self.trip.trips += 1;
        if let Phase::ProbeTrip { shortest, .. } = &mut self.phase {
            *shortest = (*shortest).min(sample.round_trip);
        }
    }

    fn end_trip(&mut self) {
        let has_queue = self.has_queue();
        let (rate, trip) = (self.rate(), self.trip);
        if !has_queue && trip.acked_bytes > 0 {
            let lost = trip.lost_bytes as f64 / (trip.acked_bytes + trip.lost_bytes) as f64;
            self.loss_anyway += (lost.min(LOSS_ANYWAY_MAX) - self.loss_anyway) / 8.0;
        }
        self.trip = Trip::starting(self.deliveries.delivered_bytes());
        match &mut self.phase {
            Phase::Startup {
                full_rate,
                trips_without_growth,
            } => {
                if rate >= *full_rate * STARTUP_GROWTH {
                    (*full_rate, *trips_without_growth) = (rate, 0);
                } else if !trip.is_limited {
                    *trips_without_growth += 1;
                    if *trips_without_growth >= STARTUP_TRIPS || has_queue {
                        self.enter_down();
                    }
                }
            }
            Phase::Down { trips, .. } => *trips += 1,
            Phase::Up {
                rate_before, trips, ..
            } => {
                *trips += 1;
                // The first one ends when the first packet of this phase is acknowledged.
                let has_grown = *trips < 2 || rate >= *rate_before * UP_GROWTH;
                *rate_before = rate;
                let is_held_down = self.raise_ceiling();
                if !(has_grown || is_held_down) {
                    self.enter_down();
                }
            }
            Phase::Cruise { .. } | Phase::ProbeTrip { .. } => {}
        }
        self.bursts.handle_trip();
    }

    /// Raises the ceiling after a round trip of probing without excessive loss. Returns whether the
    /// ceiling limits the probe.
    fn raise_ceiling(&mut self) -> bool {
        let wanted = self.held(UP_GAIN).unwrap_or(0.0) as u64;
        let Some(ceiling) = &mut self.ceiling_bytes else {
            return false;
        };
        if self.window_bytes >= *ceiling {
            self.ceiling_step = (self.ceiling_step * 2)
                .max(*ceiling / 64)
                .max(self.packet_bytes);
            *ceiling += self.ceiling_step;
        }
        *ceiling < wanted
    }

    /// Advances the phase by time and bytes in flight.
    fn advance(&mut self, now: Instant, in_flight_bytes: u64) {
        match self.phase {
            Phase::Startup { .. } => {}
            Phase::Down {
                is_drained: false,
                trips,
            } => {
                if in_flight_bytes <= self.window_bytes || trips >= 3 {
                    self.phase = Phase::Down {
                        is_drained: true,
                        trips: 0,
                    };
                }
            }
            // One more round trip measures the RTT without a queue.
            Phase::Down { trips, .. } => {
                if trips >= 1 {
                    self.enter_cruise(now);
                }
            }
            Phase::Cruise { until } => {
                if now >= until {
                    self.yielding_bytes = None;
                    self.phase = Phase::Up {
                        rate_before: self.rate(),
                        trips: 0,
                        trip: self.smoothed_trip,
                    };
                    self.start_trip_of_what_is_sent_now();
                }
            }
            Phase::Up { .. } => {}
            Phase::ProbeTrip {
                until: None,
                shortest,
            } => {
                if in_flight_bytes <= self.window_bytes {
                    let until = now + PROBE_TRIP_TIME.max(self.smoothed_trip);
                    self.phase = Phase::ProbeTrip {
                        until: Some(until),
                        shortest,
                    };
                }
            }
            Phase::ProbeTrip {
                until: Some(until),
                shortest,
            } => {
                if now >= until {
                    self.min_trip = shortest;
                    self.min_trip_at = now;
                    self.recent_trip = Duration::MAX;
                    self.enter_cruise(now);
                }
            }
        }
        let may_probe = matches!(
            self.phase,
            Phase::Cruise { .. } | Phase::Down { .. } | Phase::Up { .. }
        );
        let lifetime = MIN_TRIP_LIFETIME.max(self.min_trip.saturating_mul(MIN_TRIP_LIFETIME_TRIPS));
        if may_probe && now.saturating_duration_since(self.min_trip_at) > lifetime {
            if self.recent_trip <= ROUND_TRIP_FLOOR {
                // Below the floor the RTT makes no difference.
                (self.min_trip, self.min_trip_at) = (self.recent_trip, now);
                self.recent_trip = Duration::MAX;
            } else {
                self.phase = Phase::ProbeTrip {
                    until: None,
                    shortest: Duration::MAX,
                };
            }
        }
    }

    fn enter_down(&mut self) {
        self.phase = Phase::Down {
            is_drained: false,
            trips: 0,
        };
    }

    fn enter_cruise(&mut self, now: Instant) {
        // Drops the maximum of the cycle before last, unless the last one measured nothing.
        if self.rates[1] > 0.0 {
            self.rates = [self.rates[1], 0.0];
        }
        let trips = self.smoothed_trip.max(ROUND_TRIP_FLOOR) * CRUISE_TRIPS;
        let time = trips.clamp(CRUISE_MIN, CRUISE_MAX);
        // Randomized, so that flows at one bottleneck do not probe at once.
        self.phase = Phase::Cruise {
            until: now + time.mul_f64(0.75 + 0.5 * self.next_random()),
        };
    }

    /// Returns a random number from 0 to 1.
    fn next_random(&mut self) -> f64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn known_trip(&self) -> Option<Duration> {
        (self.min_trip < Duration::MAX).then_some(self.min_trip)
    }

    /// Returns the BDP without a queue, times a gain.
    fn held(&self, gain: f64) -> Option<f64> {
        let trip = self.known_trip()?.max(ROUND_TRIP_FLOOR);
        let rate = self.rate();
        (rate > 0.0).then_some(gain * rate * trip.as_secs_f64())
    }

    /// Returns the window that yields a multiple of the bandwidth with the present queue.
    fn flowing(&self, gain: f64, round_trip: Duration) -> Option<f64> {
        let trip = self.known_trip()?.max(ROUND_TRIP_FLOOR);
        let queue = round_trip.saturating_sub(trip);
        let trip = trip.as_secs_f64() + QUEUE_SHARE * queue.as_secs_f64();
        let rate = self.rate();
        let more = self.bursts.bytes().max(self.extra_bytes()) as f64;
        (rate > 0.0).then(|| (gain * rate * trip).min(self.held(CAP_GAIN).unwrap_or(0.0)) + more)
    }

    fn extra_bytes(&self) -> u64 {
        let bytes = (self.rate() * EXTRA_TIME.as_secs_f64()) as u64;
        bytes.clamp(
            EXTRA_PACKETS.start * self.packet_bytes,
            EXTRA_PACKETS.end * self.packet_bytes,
        )
    }

    fn make_window(&mut self, acked_bytes: u64, is_limited: bool) {
        let wanted = match self.phase {
            Phase::Startup { .. } => {
                let most = self.held(STARTUP_GAIN).map_or(0, |bytes| bytes as u64);
                let grown = match is_limited {
                    true => self.window_bytes,
                    false => (self.window_bytes + acked_bytes).min(most.max(self.initial_bytes)),
                };
                Some(grown.max(self.window_bytes))
            }
            Phase::Down {
                is_drained: false, ..
            } => self.held(DOWN_GAIN).map(|bytes| bytes as u64),
            Phase::Down { .. } => self.held(1.0).map(|bytes| bytes as u64),
            Phase::Cruise { .. } => self
                .flowing(1.0, self.smoothed_trip)
                .map(|bytes| bytes as u64),
            Phase::Up { trip, .. } => self.flowing(UP_GAIN, trip).map(|bytes| bytes as u64),
            Phase::ProbeTrip { .. } => self.held(PROBE_TRIP_GAIN).map(|bytes| bytes as u64),
        };
        let Some(mut window) = wanted else { return };
        if let Some(ceiling) = self.ceiling_bytes {
            window = window.min(match self.phase {
                Phase::Up { .. } | Phase::Startup { .. } => ceiling,
                _ => (ceiling as f64 * HEADROOM) as u64,
            });
        }
        if let Some(yielding) = self.yielding_bytes {
            window = window.min(yielding);
        }
        self.window_bytes = window.max(self.window_min());
    }

    fn window_min(&self) -> u64 {
        WINDOW_MIN_PACKETS * self.packet_bytes
    }
}

const STARTUP: Phase = Phase::Startup {
    full_rate: 0.0,
    trips_without_growth: 0,
};

/// Ack aggregation: bytes acknowledged at once beyond those that the bandwidth explains. Without
/// room for them in the window, a path that aggregates acknowledgements would idle between them.
#[derive(Debug, Clone, Copy, Default)]
struct Bursts {
    began: Option<Instant>,
    acked_bytes: u64,
    most: [u64; 2],
    trips: u32,
}

impl Bursts {
    /// Round trips after which the maximum expires, at the latest after twice as many.
    const TRIPS: u32 = 8;

    fn handle_acked(&mut self, now: Instant, bytes: u64, rate: f64) {
        let began = *self.began.get_or_insert(now);
        let explained = rate * now.saturating_duration_since(began).as_secs_f64();
        if self.acked_bytes as f64 <= explained {
            (self.began, self.acked_bytes) = (Some(now), 0);
        }
        self.acked_bytes += bytes;
        let explained = match self.began {
            Some(began) => rate * now.saturating_duration_since(began).as_secs_f64(),
            None => 0.0,
        };
        let more = (self.acked_bytes as f64 - explained)
            .max(0.0)
            .min(rate * 0.1) as u64;
        self.most[1] = self.most[1].max(more);
    }

    fn handle_trip(&mut self) {
        self.trips += 1;
        if self.trips >= Bursts::TRIPS {
            self.trips = 0;
            self.most = [self.most[1], 0];
        }
    }

    fn bytes(&self) -> u64 {
        self.most[0].max(self.most[1])
    }
}
