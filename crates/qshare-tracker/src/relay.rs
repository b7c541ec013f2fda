//! The relay of last resort: forwards packets between two introduced nodes that have no direct
//! path. The packets are QUIC between the two nodes; the relay cannot read them.
//!
//! - A *channel* joins two nodes that this tracker introduced, while both are its clients. Each
//!   end has a handle and a secret of its own, told to that node alone, for a limited time.
//! - A packet is taken only from the address that its end has proven: by the secret, and by
//!   repeating a cookie that was sent to that very address.
//! - Every node has a rate, and all of them together have one. What exceeds a node's own rate is
//!   dropped; what exceeds the common one waits in a short queue of that node's own, and the
//!   queues take turns.

mod service;
mod state;

use std::time::Duration;

pub(crate) use self::service::Relay;

/// Bounds of the relay.
#[derive(Debug, Clone)]
pub struct RelayLimits {
    /// Bytes per second that the relay forwards, all nodes together.
    pub bytes_per_second: u64,
    /// Bytes per second that one node may send.
    pub bytes_per_second_per_client: u64,
    /// Nodes that have a channel at once.
    pub clients_max: usize,
    /// Channels at once.
    pub pairs_max: usize,
    /// Channels that one node may ask for at once; as many may be asked for by its peers.
    pub pairs_per_client_max: usize,
    /// How long a ticket holds after the last introduction, once both nodes have bound their ends.
    pub lifetime: Duration,
    /// How long a ticket holds until then. Nodes bind at once when they are introduced.
    pub unbound_lifetime: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        RelayLimits {
            // 100 Mbit/s in all and 40 for one node: enough for a last resort.
            bytes_per_second: 12_500_000,
            bytes_per_second_per_client: 5_000_000,
            clients_max: 1_000,
            pairs_max: 4_000,
            pairs_per_client_max: 128,
            lifetime: Duration::from_secs(300),
            unbound_lifetime: Duration::from_secs(10),
        }
    }
}

/// Counters of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayCounts {
    /// Channels that exist.
    pub pairs: usize,
    /// Packets forwarded.
    pub forwarded_packets: u64,
    /// Bytes forwarded.
    pub forwarded_bytes: u64,
    /// Packets dropped because a limit was reached.
    pub dropped_packets: u64,
}
