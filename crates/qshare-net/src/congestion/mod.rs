//! How fast to send: which congestion controller a connection gets.

mod by_path;
mod delivery;
mod model;
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

pub use by_path::link_rate;
use model::Model;

/// A congestion controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// By the path: the model where it is long, CUBIC where it is short.
    #[default]
    Auto,
    /// CUBIC (RFC 9438), as quinn has it.
    Cubic,
    /// BBR version 1, as quinn has it; for comparison.
    Bbr,
    /// Ours: sends at the rate that the path delivers, as later versions of BBR do, and takes the
    /// losses that a path has anyway for no reason to slow down.
    Model,
}

/// Bytes that may leave before anything is acknowledged: three round trips of slow start less than
/// with quinn's 12,000, and room for a close beside an MTU probe, which quinn-proto 0.11.19 would
/// otherwise hold back (quinn issue 2785).
pub(crate) const INITIAL_WINDOW_BYTES: u64 = 64 * 1024;

/// A name that no controller has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of auto, cubic, bbr and model")]
pub struct UnknownCongestion(String);

impl Congestion {
    /// All of them.
    pub const ALL: [Congestion; 4] = [
        Congestion::Auto,
        Congestion::Cubic,
        Congestion::Bbr,
        Congestion::Model,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Congestion::Auto => "auto",
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
            Congestion::Model => "model",
        }
    }

    pub(crate) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Congestion::Auto => Arc::new(by_path::Chosen::new()),
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
            Congestion::Model => Arc::new(Modelled),
        }
    }
}

impl FromStr for Congestion {
    type Err = UnknownCongestion;

    fn from_str(text: &str) -> Result<Congestion, UnknownCongestion> {
        let found = Congestion::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| UnknownCongestion(text.to_owned()))
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

struct Modelled;

impl ControllerFactory for Modelled {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let model = Model::new(now, INITIAL_WINDOW_BYTES, current_mtu, rand::random());
        Box::new(QuinnAdapter(model))
    }
}

/// What quinn calls.
#[derive(Debug, Clone)]
struct QuinnAdapter(Model);

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
