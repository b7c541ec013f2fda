//! QUIC settings, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use qshare_wire::limits::{IDLE_TIMEOUT, KEEP_ALIVE};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, VarInt};

use crate::Congestion;

/// What a connection may cost and how it starts.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Bidirectional streams that the other side may have open at once: requests that wait.
    pub streams_max: u32,
    /// Bytes that the other side may have in flight to us on one connection. Bounds memory.
    pub receive_window_bytes: u32,
    /// Bytes that one stream may have in flight to us; a whole chunk (4 MiB) need not wait.
    pub stream_receive_window_bytes: u32,
    /// Bytes that we may have sent and not yet acknowledged on one connection.
    pub send_window_bytes: u64,
    /// How fast to send.
    pub congestion: Congestion,
    /// Something is sent at least this often, so that routers remember the connection: the least
    /// that is seen is that they forget after 30 s.
    pub keep_alive: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            streams_max: 256,
            // 1 Gbit/s over 100 ms is 12.5 MB in flight. What stands behind a lost packet in its
            // stream is held at both ends for another round trip.
            receive_window_bytes: 32 << 20,
            stream_receive_window_bytes: 6 << 20,
            send_window_bytes: 32 << 20,
            congestion: Congestion::default(),
            keep_alive: KEEP_ALIVE,
        }
    }
}

/// Largest UDP payload that path MTU discovery tries. quinn sends up to ten packets in one call,
/// and ten of more than 6,548 bytes exceed what one call may carry.
const MTU_UPPER_BOUND_BYTES: u16 = 6500;

/// Packets that may come in before they are acknowledged, unless something is missing among them
/// or 25 ms have passed: as many as leave in one call, so that an acknowledgement lets the next such
/// call go. Every other packet, as RFC 9000 has it, costs both ends a third of their packets.
const UNACKNOWLEDGED_MAX: u32 = 9;

impl TransportConfig {
    pub(crate) fn to_quinn(&self) -> Arc<quinn::TransportConfig> {
        let mut config = quinn::TransportConfig::default();
        let mut acknowledgements = AckFrequencyConfig::default();
        acknowledgements.ack_eliciting_threshold(UNACKNOWLEDGED_MAX.into());
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(MTU_UPPER_BOUND_BYTES);
        config
            .congestion_controller_factory(self.congestion.factory())
            .max_concurrent_bidi_streams(self.streams_max.into())
            .max_concurrent_uni_streams(0u32.into())
            .receive_window(self.receive_window_bytes.into())
            .stream_receive_window(self.stream_receive_window_bytes.into())
            .send_window(self.send_window_bytes)
            // Earlier streams finish first, so chunks can be verified and passed on early.
            .send_fairness(false)
            .datagram_receive_buffer_size(None)
            .mtu_discovery_config(Some(mtu))
            .ack_frequency_config(Some(acknowledgements))
            // Paths are rarely as slow as the RFC's 333 ms; a lost first packet is sent again
            // after 3 times this.
            .initial_rtt(Duration::from_millis(100))
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle_timeout()));
        Arc::new(config)
    }

    /// Largest UDP payload that we are ready to receive.
    pub(crate) fn receive_payload_max_bytes(&self) -> u16 {
        MTU_UPPER_BOUND_BYTES
    }
}

fn idle_timeout() -> IdleTimeout {
    let ms = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    IdleTimeout::from(VarInt::from_u32(ms))
}
