//! QUIC transport settings, with the reason for each.

use std::sync::Arc;
use std::time::Duration;

use qshare_wire::limits::{IDLE_TIMEOUT, KEEP_ALIVE};
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, VarInt};

use crate::Congestion;

/// Limits and settings of every connection of an endpoint.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Bidirectional streams that the peer may have open at once, one for each pending request.
    pub streams_max: u32,
    /// How many of them a connection begins with. quinn takes 80 bytes for each at once; the owner
    /// of the connection raises the limit ([`quinn::Connection::set_max_concurrent_bi_streams`]).
    pub streams_initial: u32,
    /// Largest UDP payload that path MTU discovery tries, at most [`MTU_UPPER_BOUND_BYTES`]. Each
    /// connection keeps a buffer of this size.
    pub mtu_max_bytes: u16,
    /// Bytes that the peer may have in flight to us on one connection. Bounds memory.
    pub receive_window_bytes: u32,
    /// Bytes that one stream may have in flight to us; holds a whole chunk (4 MiB).
    pub stream_receive_window_bytes: u32,
    /// Bytes that we may have sent on one connection and that are not yet acknowledged.
    pub send_window_bytes: u64,
    /// The congestion controller.
    pub congestion: Congestion,
    /// Keep-alive interval, so that NATs keep the mapping: the shortest time-out seen in use is
    /// 30 s.
    pub keep_alive: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            streams_max: 256,
            streams_initial: 256,
            mtu_max_bytes: MTU_UPPER_BOUND_BYTES,
            // 1 Gbit/s over 100 ms is 12.5 MB in flight. After a loss both ends hold the bytes
            // behind the gap for another round trip.
            receive_window_bytes: 32 << 20,
            stream_receive_window_bytes: 6 << 20,
            send_window_bytes: 32 << 20,
            congestion: Congestion::default(),
            keep_alive: KEEP_ALIVE,
        }
    }
}

/// Largest UDP payload that path MTU discovery tries. quinn sends up to ten packets in one call,
/// which may carry 65,487 bytes: ten of more than 6,548 bytes exceed that.
pub const MTU_UPPER_BOUND_BYTES: u16 = 6500;

/// Ack-eliciting packets that may arrive before an acknowledgement is sent, unless one is missing
/// or 25 ms have passed. As many as leave in one call, so that an acknowledgement releases the next
/// call. Acknowledging every other packet (RFC 9000 section 13.2.2) makes a third of all packets
/// acknowledgements.
const UNACKNOWLEDGED_MAX: u32 = 9;

impl TransportConfig {
    pub(crate) fn to_quinn(&self) -> Arc<quinn::TransportConfig> {
        let mut config = quinn::TransportConfig::default();
        let mut acknowledgements = AckFrequencyConfig::default();
        acknowledgements.ack_eliciting_threshold(UNACKNOWLEDGED_MAX.into());
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.mtu_max_bytes.min(MTU_UPPER_BOUND_BYTES));
        config
            .congestion_controller_factory(self.congestion.factory())
            .max_concurrent_bidi_streams(self.streams_initial.min(self.streams_max).into())
            .max_concurrent_uni_streams(0u32.into())
            .receive_window(self.receive_window_bytes.into())
            .stream_receive_window(self.stream_receive_window_bytes.into())
            .send_window(self.send_window_bytes)
            // Earlier streams finish first, so that chunks are verified and served early.
            .send_fairness(false)
            .datagram_receive_buffer_size(None)
            .mtu_discovery_config(Some(mtu))
            .ack_frequency_config(Some(acknowledgements))
            // Few paths are as slow as the RFC's 333 ms. A lost first packet is retransmitted after
            // three times this.
            .initial_rtt(Duration::from_millis(100))
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle_timeout()));
        Arc::new(config)
    }

    /// Returns the largest UDP payload that we accept.
    pub(crate) fn receive_payload_max_bytes(&self) -> u16 {
        self.mtu_max_bytes.min(MTU_UPPER_BOUND_BYTES)
    }
}

fn idle_timeout() -> IdleTimeout {
    let ms = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    IdleTimeout::from(VarInt::from_u32(ms))
}
