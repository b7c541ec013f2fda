//! How fast to send: which congestion controller a connection gets.

use std::sync::Arc;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};

/// A congestion controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// CUBIC (RFC 9438), as quinn has it.
    #[default]
    Cubic,
    /// BBR version 1, as quinn has it; for comparison.
    Bbr,
}

/// Bytes that may leave before anything is acknowledged: three round trips of slow start less than
/// with quinn's 12,000, and room for a close beside an MTU probe, which quinn-proto 0.11.19 would
/// otherwise hold back (quinn issue 2785).
pub(crate) const INITIAL_WINDOW_BYTES: u64 = 64 * 1024;

impl Congestion {
    pub(crate) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
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
        }
    }
}
