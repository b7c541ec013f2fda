//! The configuration of a tracker.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use qshare_net::{GroupSecret, Identity, TransportConfig};
use qshare_registry::RegistryConfig;
use qshare_wire::limits::{LEASE, WARMING};

pub use qshare_content::DEFAULT_TRACKER_PORT;

use crate::{Clock, RelayLimits, SharedRegistryConfig};

/// The configuration of [`crate::Tracker::start`].
#[derive(Debug)]
pub struct TrackerConfig {
    /// The tracker's identity. The caller holds the lock on its files, if it has any.
    pub identity: Identity,
    /// The group that every node must belong to; None serves all nodes that are in no group.
    pub group: Option<GroupSecret>,
    /// The UDP address to listen on; with port 0 the system chooses a port.
    pub listen: SocketAddr,
    /// Bounds and times of the registry.
    pub registry: RegistryConfig,
    /// The clock of the registry.
    pub clock: Clock,
    /// The registry that this tracker shares with others; None keeps everything to itself.
    pub shared: Option<SharedRegistryConfig>,
    /// Bounds on what nodes may ask.
    pub limits: TrackerLimits,
    /// Bounds of the relay; None switches it off.
    pub relay: Option<RelayLimits>,
    /// File of the nodes that may announce, one ID a line; None lets every node announce.
    pub allow: Option<PathBuf>,
    /// File of the nodes that may not connect.
    pub deny: Option<PathBuf>,
}

impl TrackerConfig {
    /// Returns the configuration of an open tracker on the default port.
    pub fn new(identity: Identity) -> TrackerConfig {
        let limits = TrackerLimits::default();
        TrackerConfig {
            identity,
            group: None,
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_TRACKER_PORT),
            registry: RegistryConfig {
                nodes_max: limits.sessions_max,
                lease: LEASE,
                warming: WARMING,
                // Each watch takes a stream, and lookups need some as well.
                watches_per_session: limits.transport.streams_max as usize * 3 / 4,
                ..RegistryConfig::default()
            },
            clock: Clock::default(),
            shared: None,
            limits,
            relay: Some(RelayLimits::default()),
            allow: None,
            deny: None,
        }
    }
}

/// Bounds on what nodes may ask, which with those of the registry bound the tracker's memory.
///
/// Bounds for all sessions together are shared out by network when they are reached: see
/// [`qshare_content::fair`].
#[derive(Debug, Clone)]
pub struct TrackerLimits {
    /// Sessions: connections that have said Hello.
    pub sessions_max: usize,
    /// Connections that have not said Hello yet. Beyond half of them, newcomers must first prove
    /// their address (QUIC Retry, RFC 9000 section 8.1.2).
    pub half_open_max: usize,
    /// Requests per second that one session may make in the long run.
    pub requests_per_second: u32,
    /// Requests that one session may make at once: a node asks for much when it starts.
    pub requests_burst: u32,
    /// Bytes of announcements that have arrived and are not acknowledged, all sessions together.
    pub announcements_max_bytes: u64,
    /// Bytes of answers that nodes have not acknowledged, all sessions together.
    pub answers_max_bytes: u64,
    /// Open request streams and watches, all sessions together.
    pub open_streams_max: u64,
    /// Mailboxes of codes: those that are claimed, and those that ended less than a day ago.
    pub mailboxes_max: usize,
    /// Bytes that a node may have in flight to the tracker while it announces much; until then
    /// [`TransportConfig::receive_window_bytes`] of [`TrackerLimits::transport`].
    pub announcement_window_bytes: u32,
    /// Time within which a node must take an answer, and over which the minimum rate of an
    /// announcement is measured.
    pub transfer_deadline: Duration,
    /// Interval at which the addresses of connections are checked for changes.
    pub moves_interval: Duration,
    /// QUIC settings. `streams_max` bounds the requests and watches of one session.
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
            // Some 300 bytes each.
            mailboxes_max: 20_000,
            announcement_window_bytes: 256 << 10,
            transfer_deadline: Duration::from_secs(30),
            moves_interval: Duration::from_secs(2),
            transport: TransportConfig {
                // Many thousand sessions share one machine, and a session can leave as much unread
                // for as long as it lasts. Most requests take less than 100 bytes.
                receive_window_bytes: 32 << 10,
                // Most nodes ask for one thing at a time; a session that needs more gets them.
                streams_initial: 16,
                // Messages are short, and the buffer is kept for as long as the session.
                mtu_max_bytes: 1452,
                stream_receive_window_bytes: 128 << 10,
                send_window_bytes: 256 << 10,
                ..TransportConfig::default()
            },
        }
    }
}
