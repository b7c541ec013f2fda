//! What a tracker is started with.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use qshare_net::{GroupSecret, Identity, TransportConfig};
use qshare_registry::RegistryConfig;

pub use qshare_content::DEFAULT_TRACKER_PORT;

use crate::RelayLimits;

/// Everything that [`crate::Tracker::start`] wants to know.
#[derive(Debug)]
pub struct TrackerConfig {
    /// Who the tracker is. The caller holds the lock, if there is one.
    pub identity: Identity,
    /// The group that everybody must belong to; None serves all.
    pub group: Option<GroupSecret>,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// How much is kept, and for how long.
    pub registry: RegistryConfig,
    /// What one node, and all of them together, may ask of the tracker.
    pub limits: TrackerLimits,
    /// What the relay may cost; None relays nothing.
    pub relay: Option<RelayLimits>,
}

impl TrackerConfig {
    /// An open tracker on the default port, all bounds in proportion to each other.
    pub fn new(identity: Identity) -> TrackerConfig {
        let limits = TrackerLimits::default();
        TrackerConfig {
            identity,
            group: None,
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_TRACKER_PORT),
            registry: RegistryConfig {
                nodes_max: limits.sessions_max,
                // Each watch takes a stream, and lookups need some, too.
                watches_per_session: limits.transport.streams_max as usize * 3 / 4,
                ..RegistryConfig::default()
            },
            limits,
            relay: Some(RelayLimits::default()),
        }
    }
}

/// Bounds on what nodes may ask. Memory follows from them and from the registry's.
#[derive(Debug, Clone)]
pub struct TrackerLimits {
    /// Connections that have said Hello.
    pub sessions_max: usize,
    /// Connections that have not said Hello yet. Beyond half of them, newcomers must first prove
    /// their address (QUIC Retry, RFC 9000 section 8.1.2).
    pub half_open_max: usize,
    /// Requests a second that one session may go on making.
    pub requests_per_second: u32,
    /// Requests that one session may make at once: a node that starts asks for much.
    pub requests_burst: u32,
    /// Bytes of announcements that have arrived and are not acknowledged, all sessions together.
    pub announcements_max_bytes: u64,
    /// Bytes of answers that nodes have not acknowledged, all sessions together.
    pub answers_max_bytes: u64,
    /// Open request streams and watches, all sessions together.
    pub open_streams_max: u64,
    /// Bytes that a node may have in flight to the tracker while it announces much; until then
    /// [`TransportConfig::receive_window_bytes`] of [`TrackerLimits::transport`].
    pub announcement_window_bytes: u32,
    /// Time for a node to take an answer, or to send a frame that it has begun.
    pub transfer_deadline: Duration,
    /// How often nodes are looked at for a change of their address.
    pub moves_interval: Duration,
    /// QUIC settings. The streams bound the requests and watches of one session.
    pub transport: TransportConfig,
}

impl Default for TrackerLimits {
    fn default() -> Self {
        TrackerLimits {
            sessions_max: 20_000,
            half_open_max: 1_024,
            requests_per_second: 100,
            requests_burst: 2_000,
            announcements_max_bytes: 256 << 20,
            answers_max_bytes: 256 << 20,
            // Some 4 kB each: 256 MB.
            open_streams_max: 65_536,
            announcement_window_bytes: 256 << 10,
            transfer_deadline: Duration::from_secs(30),
            moves_interval: Duration::from_secs(2),
            transport: TransportConfig {
                // Many thousand sessions share one machine, and a session can leave as much unread
                // for as long as it lasts. Most requests take less than 100 bytes.
                receive_window_bytes: 32 << 10,
                stream_receive_window_bytes: 128 << 10,
                send_window_bytes: 256 << 10,
                ..TransportConfig::default()
            },
        }
    }
}
