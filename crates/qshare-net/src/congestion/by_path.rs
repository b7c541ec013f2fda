//! The controller that suits a path: CUBIC on short ones, the model on long ones.
//!
//! On a local network little is lost but by full queues, and CUBIC lets swarms end earlier there. On
//! a long path a packet in a thousand that is lost for any other reason leaves CUBIC a hundredth of
//! the rate.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use super::Congestion;

/// From this round trip on a path is long.
const LONG_PATH: Duration = Duration::from_millis(5);
/// Packets that are acknowledged before it is decided: those of the handshake come late, because
/// both ends compute.
const PACKETS_UNDECIDED: u32 = 16;

/// Builds the controller that decides.
pub(super) struct Chosen;

impl ControllerFactory for Chosen {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let build = |one: Congestion| one.factory().build(now, current_mtu);
        Box::new(ByPath {
            used: build(Congestion::Cubic),
            other: Some(build(Congestion::Model)),
            acked_packets: 0,
        })
    }
}

struct ByPath {
    used: Box<dyn Controller>,
    /// Hears the same until it is decided.
    other: Option<Box<dyn Controller>>,
    acked_packets: u32,
}

impl ByPath {
    fn both(&mut self, tell: impl Fn(&mut dyn Controller)) {
        tell(&mut *self.used);
        if let Some(other) = &mut self.other {
            tell(&mut **other);
        }
    }

    fn decide(&mut self, shortest_round_trip: Duration) {
        if let Some(model) = self.other.take()
            && shortest_round_trip >= LONG_PATH
        {
            self.used = model;
        }
    }
}

impl Controller for ByPath {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.both(|one| one.on_sent(now, bytes, last_packet_number));
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.both(|one| one.on_ack(now, sent, bytes, app_limited, rtt));
        self.acked_packets = self.acked_packets.saturating_add(1);
        if self.acked_packets == PACKETS_UNDECIDED {
            self.decide(rtt.min());
        }
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.both(|one| one.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked));
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.both(|one| one.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes));
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.both(|one| one.on_mtu_update(new_mtu));
    }

    fn window(&self) -> u64 {
        self.used.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.used.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(ByPath {
            used: self.used.clone_box(),
            other: self.other.as_ref().map(|other| other.clone_box()),
            acked_packets: self.acked_packets,
        })
    }

    fn initial_window(&self) -> u64 {
        self.used.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is paced by, which only the model tells.
    fn is_the_model(controller: &ByPath) -> bool {
        controller.metrics().pacing_rate.is_some()
    }

    fn decided(shortest: Duration) -> ByPath {
        let now = Instant::now();
        let build = |one: Congestion| one.factory().build(now, 1200);
        let mut controller = ByPath {
            used: build(Congestion::Cubic),
            other: Some(build(Congestion::Model)),
            acked_packets: 0,
        };
        controller.on_sent(now, 1200, 0);
        assert!(!is_the_model(&controller));
        controller.decide(shortest);
        assert!(controller.other.is_none());
        controller
    }

    #[test]
    fn long_paths_get_the_model_and_short_ones_cubic() {
        assert!(is_the_model(&decided(Duration::from_millis(20))));
        assert!(!is_the_model(&decided(Duration::from_micros(300))));
    }
}
