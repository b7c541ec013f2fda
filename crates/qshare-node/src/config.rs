//! What a node is started with.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use qshare_content::TrackerAddress;
use qshare_net::{GroupSecret, Identity, KnownTrackers, TransportConfig};
use qshare_swarm::{FetchConfig, ServeConfig};

/// UDP port of a node that names none.
pub const DEFAULT_NODE_PORT: u16 = 64500;

/// Everything that [`crate::Node::start`] wants to know.
#[derive(Debug)]
pub struct NodeConfig {
    /// Who the node is. The caller holds the lock, if there is one.
    pub identity: Identity,
    /// The group that everybody must belong to; None shares with all.
    pub group: Option<GroupSecret>,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Trackers to announce to and to ask.
    pub trackers: Vec<TrackerAddress>,
    /// Where tracker keys are remembered; None trusts whoever answers, and remembers nothing.
    pub known_trackers: Option<KnownTrackers>,
    /// Whether nodes on the same network are looked for, and told that this one is here.
    pub lan: bool,
    /// Whether up to [`qshare_wire::limits::BIRTHDAY_PORTS`] ports of another node's router are probed,
    /// and [`qshare_wire::limits::BIRTHDAY_SOCKETS`] sockets opened, where nothing less leads to a
    /// direct way and the other node agrees.
    pub punch_hard: bool,
    /// Whether the router is asked to let others in (PCP, NAT-PMP, UPnP), once a tracker sees that
    /// there is one. A one-shot node never asks.
    pub port_mapping: bool,
    /// Whether this node serves directories, or only looks up and downloads.
    pub role: NodeRole,
    /// Bounds.
    pub limits: Limits,
}

/// What a node does beside looking up and downloading.
#[derive(Debug, Clone)]
pub enum NodeRole {
    /// Shares directories until it is stopped, and goes on with the downloads of an earlier run.
    Full(Shares),
    /// Serves only what it downloads, and leaves when that is done.
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
            role,
            limits: Limits::default(),
        }
    }
}

/// What a node shares, and where its downloads go.
#[derive(Debug, Clone)]
pub struct Shares {
    /// Directory whose files are shared; made if it is not there.
    pub assets: PathBuf,
    /// Directory for downloads, shared too once they are complete; made if it is not there.
    pub downloads: PathBuf,
    /// Directories beneath them that are never shared.
    pub exclude: Vec<PathBuf>,
    /// The node's state: asset index.
    pub state_dir: PathBuf,
}

/// Bounds on what a node does at once. MemoryBudget follows from them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Peers that one download is connected to at once.
    pub peers_per_download_max: usize,
    /// Connections that others may have to us.
    pub accepted_connections_max: usize,
    /// Connections that others may have to us and have not said Hello on.
    pub half_open_max: usize,
    /// Bytes of answers that are in memory: read, and not yet acknowledged by those who asked.
    pub answers_max_bytes: u32,
    /// Bytes of chunks in memory: asked for, and not yet verified and written, by all downloads.
    pub requested_max_bytes: u32,
    /// Bytes that all nodes of whom something is asked may have in flight to us: a connection's
    /// receive window is its share. Whoever is not asked has the window of `transport`.
    pub windows_max_bytes: u32,
    /// Bytes of buffers that are kept for the next chunk while nobody uses them.
    pub buffers_kept_bytes: usize,
    /// Downloads that are under way at once; others wait.
    pub downloads_max: usize,
    /// The same for contents of one chunk, which is at most 128 KiB: their requests share a
    /// connection, so that this many are answered in a round trip.
    pub small_downloads_max: usize,
    /// QUIC settings.
    pub transport: TransportConfig,
    /// How chunks are asked for.
    pub fetch: FetchConfig,
    /// How requests are answered.
    pub serve: ServeConfig,
    /// What is verified becomes durable at least this often.
    pub checkpoint_interval: Duration,
    /// And whenever this much was written since.
    pub checkpoint_bytes: u64,
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
            downloads_max: 64,
            // Leaves room among the streams of a connection for everything else.
            small_downloads_max: 192,
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
                // The second keeps the link busy while the first is read or waits for its window,
                // which the simulated network has not: 8 leechers at 20 Mbit/s end at 1.16 times
                // the bound instead of 1.25.
                running_max: 2,
                ..ServeConfig::default()
            },
            checkpoint_interval: Duration::from_secs(2),
            checkpoint_bytes: 256 << 20,
        }
    }
}
