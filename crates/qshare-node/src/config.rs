//! The configuration of a node.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use qshare_content::TrackerAddress;
use qshare_net::{GroupSecret, Identity, KnownTrackers, RateLimit, TransportConfig};
use qshare_swarm::{FetchConfig, ServeConfig};

/// Default UDP port of a node.
pub const DEFAULT_NODE_PORT: u16 = 64500;

/// The configuration of [`crate::Node::start`].
#[derive(Debug)]
pub struct NodeConfig {
    /// The node's identity. The caller holds its lock, if there is one.
    pub identity: Identity,
    /// The group that all trackers and peers must belong to; None for a node without a group.
    pub group: Option<GroupSecret>,
    /// The UDP address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Trackers to announce to and to ask.
    pub trackers: Vec<TrackerAddress>,
    /// Where tracker keys are remembered; None accepts any key, and remembers none.
    pub known_trackers: Option<KnownTrackers>,
    /// Whether to discover nodes on the local network, and to advertise this one there.
    pub lan: bool,
    /// Whether birthday punching is allowed: up to [`qshare_wire::limits::BIRTHDAY_PORTS`] ports of
    /// another node's NAT are probed from [`qshare_wire::limits::BIRTHDAY_SOCKETS`] sockets, where
    /// no other method leads to a direct path and the other node agrees.
    pub punch_hard: bool,
    /// Whether the router is asked for a port mapping (PCP, NAT-PMP, UPnP), once a tracker sees
    /// this node behind a NAT. A one-shot node never asks.
    pub port_mapping: bool,
    /// Whether to compute the plain SHA-256 of every file that is shared with everybody and to
    /// state it, so that others find the file by `sha256:HEX`.
    pub sha256: bool,
    /// Whether this node serves directories, or only looks up and downloads.
    pub role: NodeRole,
    /// Bounds.
    pub limits: Limits,
}

/// The tasks of a node in addition to lookups and downloads.
#[derive(Debug, Clone)]
pub enum NodeRole {
    /// Shares directories until it is stopped, and resumes the downloads of an earlier run.
    Full(Shares),
    /// Serves only its own downloads, and leaves when they are complete.
    OneShot,
}

impl NodeConfig {
    /// A node that shares directories, on a port of the system's choice.
    pub fn full(identity: Identity, shares: Shares, trackers: Vec<TrackerAddress>) -> NodeConfig {
        NodeConfig::new(identity, NodeRole::Full(shares), trackers)
    }

    /// A node that shares no directory, on a port of the system's choice.
    pub fn one_shot(identity: Identity, trackers: Vec<TrackerAddress>) -> NodeConfig {
        NodeConfig::new(identity, NodeRole::OneShot, trackers)
    }

    fn new(identity: Identity, role: NodeRole, trackers: Vec<TrackerAddress>) -> NodeConfig {
        NodeConfig {
            identity,
            group: None,
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            trackers,
            known_trackers: None,
            lan: false,
            punch_hard: false,
            port_mapping: false,
            sha256: false,
            role,
            limits: Limits::default(),
        }
    }
}

/// The shared directories of a node, and the directory of its downloads.
#[derive(Debug, Clone)]
pub struct Shares {
    /// Directory whose files are shared; created if it does not exist.
    pub assets: PathBuf,
    /// Directory for downloads, which are shared once they are complete; created if it does not
    /// exist.
    pub downloads: PathBuf,
    /// Directories beneath these that are never shared.
    pub exclude: Vec<PathBuf>,
    /// Directory of the node's state, the index of shared files.
    pub state_dir: PathBuf,
}

/// The rate limits of a node. They count UDP packets with their headers, retransmissions and
/// relayed packets included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Limit on what is sent.
    pub up: RateLimit,
    /// Limit on what is received.
    pub down: RateLimit,
}

/// Bounds on what a node does at once. Its memory follows from them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Peers that one download is connected to at once.
    pub peers_per_download_max: usize,
    /// Limit on accepted connections. When it is reached, a newcomer evicts the longest idle
    /// connection of the network with the most connections.
    pub accepted_connections_max: usize,
    /// Limit on accepted connections that have not sent their Hello yet.
    pub half_open_max: usize,
    /// Bytes of answers in memory: read, and not yet acknowledged by the other side.
    pub answers_max_bytes: u32,
    /// Bytes of chunks in memory: requested, and not yet verified and written, by all downloads.
    pub requested_max_bytes: u32,
    /// The sum of the receive windows of all peers that this node requests something from. Other
    /// peers have the window of `transport`.
    pub windows_max_bytes: u32,
    /// Bytes of free buffers that are kept for further chunks.
    pub buffers_kept_bytes: usize,
    /// Bytes of a content that are held in memory for its readers ([`crate::Node::read`]), at least
    /// one chunk. At most 8 contents are read at once.
    pub stream_bytes: u64,
    /// Downloads that run at once; further ones wait.
    pub downloads_max: usize,
    /// The same for contents of one chunk (at most 128 KiB). Their requests share a connection, so
    /// this many are answered within one RTT.
    pub small_downloads_max: usize,
    /// Rate limits at the start; see [`crate::Node::set_rate_limits`].
    pub rates: RateLimits,
    /// QUIC settings.
    pub transport: TransportConfig,
    /// How chunks are requested.
    pub fetch: FetchConfig,
    /// How requests are answered.
    pub serve: ServeConfig,
    /// Verified chunks become durable at least this often,
    pub checkpoint_interval: Duration,
    /// and whenever this many bytes were written since.
    pub checkpoint_bytes: u64,
    /// A partial download is withdrawn from trackers when it had no source for this long, so that
    /// its name does not attract nodes to a content that none of them can complete.
    pub withdraw_partial_after: Duration,
}

impl Limits {
    /// The least memory for [`Limits::set_memory`]: each kind of buffer holds several chunks.
    pub const MEMORY_MIN_BYTES: u64 = 64_000_000;

    /// Divides memory among the kinds of buffers, in the proportions of the default.
    pub fn set_memory(&mut self, bytes: u64) {
        let usual = Limits::default();
        let sum = u64::from(usual.answers_max_bytes)
            + u64::from(usual.requested_max_bytes)
            + u64::from(usual.windows_max_bytes)
            + usual.buffers_kept_bytes as u64;
        let factor = bytes.max(Limits::MEMORY_MIN_BYTES) as f64 / sum as f64;
        let scaled = |usual: u32| (f64::from(usual) * factor).min(f64::from(u32::MAX / 2)) as u32;
        self.answers_max_bytes = scaled(usual.answers_max_bytes);
        self.requested_max_bytes = scaled(usual.requested_max_bytes);
        self.windows_max_bytes = scaled(usual.windows_max_bytes);
        self.buffers_kept_bytes = (usual.buffers_kept_bytes as f64 * factor) as usize;
        let in_flight = usual.fetch.in_flight_max_bytes as f64 * factor;
        self.fetch.in_flight_max_bytes = in_flight as u64;
    }

    /// Sets the rate limits. What peers may send unasked takes at most a twentieth of a second at
    /// the limit.
    pub fn set_rates(&mut self, up: RateLimit, down: RateLimit) {
        self.rates = RateLimits { up, down };
        let at_once = down.bytes_within(Duration::from_millis(50)).max(32 << 10);
        let window = u64::from(self.transport.receive_window_bytes);
        self.transport.receive_window_bytes =
            u32::try_from(window.min(at_once)).unwrap_or(u32::MAX);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            peers_per_download_max: 40,
            accepted_connections_max: 512,
            half_open_max: 64,
            answers_max_bytes: 64 << 20,
            requested_max_bytes: 64 << 20,
            windows_max_bytes: 64 << 20,
            buffers_kept_bytes: 16 << 20,
            stream_bytes: 32 << 20,
            downloads_max: 64,
            // Leaves streams of a connection for all other requests.
            small_downloads_max: 192,
            rates: RateLimits::default(),
            transport: TransportConfig {
                // For requests, which have at most 16 KiB each.
                receive_window_bytes: 256 << 10,
                ..TransportConfig::default()
            },
            fetch: FetchConfig {
                in_flight_max_bytes: 48 << 20,
                ..FetchConfig::default()
            },
            serve: ServeConfig {
                // The second answer keeps the link busy while the first is read from disk or waits
                // for its congestion window, neither of which is simulated: 8 leechers at 20 Mbit/s
                // end at 1.16 times the lower bound instead of 1.25.
                running_max: 2,
                ..ServeConfig::default()
            },
            checkpoint_interval: Duration::from_secs(2),
            checkpoint_bytes: 256 << 20,
            withdraw_partial_after: Duration::from_secs(24 * 3600),
        }
    }
}
