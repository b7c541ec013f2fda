//! Congestion control: the controllers, and which one a connection gets.

mod auto;
mod bbr3;
mod delivery;
#[cfg(test)]
mod tests;
mod uplink;
#[cfg(test)]
mod virtual_link;

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig};

pub use auto::link_rate;
use bbr3::Bbr3;

/// A congestion controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// By the path's RTT: BBRv3 on long paths, CUBIC on short ones.
    #[default]
    Auto,
    /// CUBIC (RFC 9438), quinn's implementation.
    Cubic,
    /// BBR version 1, quinn's implementation; for comparison.
    Bbr,
    /// BBR version 3 (draft-ietf-ccwg-bbr), our implementation: sends at the path's delivery rate
    /// and ignores the loss rate that the path has at any load. It sets a window, not a pace.
    Bbr3,
}

/// Initial congestion window in bytes: saves three round trips of slow start over quinn's 12,000,
/// and leaves room for a close beside an MTU probe, which quinn-proto 0.11.19 would otherwise hold
/// back (quinn issue 2785).
pub(crate) const INITIAL_WINDOW_BYTES: u64 = 64 * 1024;

/// A name that is no controller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown congestion control {0:?}; known are auto, cubic, bbr and bbr3")]
pub struct UnknownCongestion(String);

impl Congestion {
    /// All controllers.
    pub const ALL: [Congestion; 4] = [
        Congestion::Auto,
        Congestion::Cubic,
        Congestion::Bbr,
        Congestion::Bbr3,
    ];

    /// Returns the controller's name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Congestion::Auto => "auto",
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
            Congestion::Bbr3 => "bbr3",
        }
    }

    pub(crate) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Congestion::Auto => Arc::new(auto::AutoFactory::new()),
            Congestion::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(INITIAL_WINDOW_BYTES);
                Arc::new(config)
            }
            Congestion::Bbr => {
                let mut config = BbrConfig::default();
                config.initial_window(INITIAL_WINDOW_BYTES);
                Arc::new(config)
            }
            Congestion::Bbr3 => Arc::new(Bbr3Factory),
        }
    }
}

impl FromStr for Congestion {
    type Err = UnknownCongestion;

    fn from_str(text: &str) -> Result<Congestion, UnknownCongestion> {
        let found = Congestion::ALL.into_iter().find(|one| one.name() == text);
        // The name of `bbr3` in earlier versions.
        let found = found.or((text == "model").then_some(Congestion::Bbr3));
        found.ok_or_else(|| UnknownCongestion(text.to_owned()))
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

struct Bbr3Factory;

impl ControllerFactory for Bbr3Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let bbr3 = Bbr3::new(now, INITIAL_WINDOW_BYTES, current_mtu, rand::random());
        Box::new(QuinnAdapter(bbr3))
    }
}

/// Implements quinn's controller interface for [`Bbr3`].
#[derive(Debug, Clone)]
struct QuinnAdapter(Bbr3);

impl Controller for QuinnAdapter {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.0.handle_sent(now, bytes);
    }

    fn on_ack(
        &mut self,
        _now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        self.0.handle_acked(sent, bytes, rtt.get());
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.0.handle_acks_end(now, in_flight, app_limited);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.0
            .handle_lost(now, sent, lost_bytes, is_persistent_congestion);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.set_packet_bytes(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window_bytes()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.0.window_bytes();
        metrics.pacing_rate = Some((self.0.rate() * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_bytes()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
