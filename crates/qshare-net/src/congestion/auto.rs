//! Chooses the controller by the path's RTT: CUBIC on short paths, BBRv3 on long ones.
//!
//! On a local network nearly all losses come from full queues, and swarms finish earlier with
//! CUBIC. On a long path, one packet in a thousand lost for other reasons leaves CUBIC a hundredth
//! of the rate. On short paths most bytes in flight are in queues, so all connections share what
//! the link carries ([`Uplink`]).

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use super::Congestion;
use super::uplink::{Member, Uplink};

/// Smallest RTT of a long path.
const LONG_PATH: Duration = Duration::from_millis(5);
/// Acknowledged packets before the choice: the RTT of handshake packets includes computation at
/// both ends.
const PACKETS_UNDECIDED: u32 = 16;

/// Builds the controllers that choose.
pub(super) struct AutoFactory {
    uplink: Arc<Uplink>,
}

impl AutoFactory {
    pub(super) fn new() -> AutoFactory {
        AutoFactory {
            uplink: Uplink::new(),
        }
    }
}

impl ControllerFactory for AutoFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let build = |one: Congestion| one.factory().build(now, current_mtu);
        Box::new(Auto {
            used: build(Congestion::Cubic),
            other: Some(build(Congestion::Bbr3)),
            acked_packets: 0,
            member: Some(Member::new(self.uplink.clone())),
        })
    }
}

/// Returns the highest rate that a connection's uplink carried, in bytes a second, summed over all
/// connections of the endpoint. None at first, on long paths, and with a controller chosen by name.
pub fn link_rate(connection: &quinn::Connection) -> Option<f64> {
    let controller = connection.congestion_state().into_any();
    let member = controller.downcast_ref::<Auto>()?.member.as_ref()?;
    member.link_rate()
}

struct Auto {
    used: Box<dyn Controller>,
    /// The other candidate, which gets the same events until the choice.
    other: Option<Box<dyn Controller>>,
    acked_packets: u32,
    /// The connection's share of the uplink. None on a long path, where most bytes in flight are
    /// not in queues.
    member: Option<Member>,
}

impl Auto {
    fn both(&mut self, tell: impl Fn(&mut dyn Controller)) {
        tell(&mut *self.used);
        if let Some(other) = &mut self.other {
            tell(&mut **other);
        }
    }

    /// Returns whether the share of the uplink is smaller than the window. The window must not grow
    /// then: an unused window is not known to be too small.
    fn is_held_back(&self) -> bool {
        self.window() < self.used.window()
    }

    fn decide(&mut self, shortest_round_trip: Duration) {
        if let Some(bbr3) = self.other.take()
            && shortest_round_trip >= LONG_PATH
        {
            self.used = bbr3;
            self.member = None;
        }
    }
}

impl Controller for Auto {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.both(|one| one.on_sent(now, bytes, last_packet_number));
        if let Some(member) = &mut self.member {
            member.handle_sent(bytes);
        }
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        let limited = app_limited || self.is_held_back();
        self.both(|one| one.on_ack(now, sent, bytes, limited, rtt));
        if let Some(member) = &mut self.member {
            member.handle_acked(bytes);
        }
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
        if let Some(member) = &mut self.member {
            member.handle_acks_end(now, in_flight);
        }
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
        let share = self.member.as_ref().map_or(u64::MAX, Member::share_bytes);
        self.used.window().min(share)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.used.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Auto {
            used: self.used.clone_box(),
            other: self.other.as_ref().map(|other| other.clone_box()),
            acked_packets: self.acked_packets,
            member: self.member.as_ref().map(Member::another),
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

    /// Returns whether a pacing rate is reported, which only BBRv3 does.
    fn is_bbr3(controller: &Auto) -> bool {
        controller.metrics().pacing_rate.is_some()
    }

    fn decided(shortest: Duration) -> Auto {
        let now = Instant::now();
        let build = |one: Congestion| one.factory().build(now, 1200);
        let mut controller = Auto {
            used: build(Congestion::Cubic),
            other: Some(build(Congestion::Bbr3)),
            acked_packets: 0,
            member: Some(Member::new(Uplink::new())),
        };
        controller.on_sent(now, 1200, 0);
        assert!(!is_bbr3(&controller));
        controller.decide(shortest);
        assert!(controller.other.is_none());
        controller
    }

    #[test]
    fn a_window_is_no_larger_than_the_share_of_the_link() {
        let mut now = Instant::now();
        let mut controller = decided(Duration::from_micros(300));
        assert!(!controller.is_held_back());
        let member = controller.member.as_mut().unwrap();
        // The uplink carries 1 MB/s.
        for _ in 0..100 {
            now += Duration::from_millis(1);
            member.handle_acked(1000);
            member.handle_acks_end(now, 20_000);
        }
        assert!(controller.window() < 50_000, "{}", controller.window());
        assert!(controller.is_held_back());
    }

    #[test]
    fn long_paths_get_bbr3_and_short_ones_cubic() {
        let long = decided(Duration::from_millis(20));
        assert!(is_bbr3(&long) && long.member.is_none());
        assert!(!is_bbr3(&decided(Duration::from_micros(300))));
    }
}
