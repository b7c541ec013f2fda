//! Shared types of all parts, and the types that a node reports to its owner: found files,
//! progress, results, states, events.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use qshare_content::{AssetName, ContentId, ContentInfo, FileMetadata, NodeId, TrackerAddress};
use qshare_net::{MappingError, MappingProtocol};
use qshare_storage::LibraryEvent;

use crate::error::{NoSource, PartFailed, SourceFault, TrackerFault, UnverifiedPort};
use crate::slow_cause::CauseShare;

/// A file or collection that other nodes share, as trackers and neighbours report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Its name.
    pub name: AssetName,
    /// Its content id.
    pub content: ContentId,
    /// Length and root.
    pub info: ContentInfo,
    /// Whether this is a folder, shared as a collection: the content is its manifest. The
    /// holders claim this, as they claim the name.
    pub is_collection: bool,
    /// The number of nodes that claim to have all of it.
    pub complete: u32,
    /// The number of nodes that claim to have part of it.
    pub partial: u32,
    /// Some of these nodes.
    pub holders: Vec<Contact>,
    /// What these nodes state about the file, merged; what the named node states, if the lookup
    /// was for the file of one node. A claim.
    pub metadata: FileMetadata,
}

/// A node that holds a content, and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The node.
    pub node: NodeId,
    /// Where it may be reached.
    pub addresses: Vec<SocketAddr>,
    /// Whether it claims to have all of the content.
    pub complete: bool,
}

/// The result of a lookup.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The files, in the order of their names.
    pub files: Vec<FoundFile>,
    /// There may be more files: the limit was reached, the deadline passed, or a tracker repeated
    /// a cursor.
    pub truncated: bool,
    /// Similar names, if nothing was found.
    pub near: Vec<AssetName>,
}

/// The stage of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Waiting for its turn.
    #[default]
    Queued,
    /// Hashing the files of an earlier run, or taking chunks from local files.
    Recovering,
    /// Looking for sources.
    Searching,
    /// Fetching chunks.
    Fetching,
    /// Making the file durable.
    Finishing,
    /// Done.
    Complete,
    /// Stopped or failed. The chunks that were fetched are kept.
    Stopped,
}

/// The progress of a download.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Length of the file in bytes.
    pub total_bytes: u64,
    /// Verified bytes, those of earlier runs included.
    pub verified_bytes: u64,
    /// Of those, bytes that this run took from local files.
    pub reused_bytes: u64,
    /// Bytes a second over the last few seconds.
    pub bytes_per_second: u64,
    /// Time left at that rate.
    pub time_left: Option<Duration>,
    /// Peers that are delivering or may deliver.
    pub sources: u32,
    /// Why nothing happens, if there has been no source for a while: the holders that were tried,
    /// and why each failed.
    pub trouble: Option<NoSource>,
    /// Of a folder, the number of its files, once its list is known.
    pub files: Option<FileCounts>,
}

/// The files of a folder that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct FileCounts {
    /// Their number.
    pub total: u64,
    /// Of those, files that are there.
    pub complete: u64,
}

/// The kind of path to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Directly over the Internet.
    Direct,
    /// Within one network: private, link-local or loopback addresses.
    Lan,
    /// Through a relay, which sees ciphertext only.
    Relay,
}

/// The contribution of one node to a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The node.
    pub node: NodeId,
    /// Its address.
    pub address: SocketAddr,
    /// The path to it.
    pub path: PathKind,
    /// Verified bytes that came from it.
    pub bytes: u64,
    /// Verified chunks that came from it.
    pub chunks: u32,
}

/// A finished download.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its content id.
    pub content: ContentId,
    /// Its name.
    pub name: AssetName,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Its path.
    pub path: PathBuf,
    /// Time from the request to the end.
    pub elapsed: Duration,
    /// Bytes that earlier runs had verified.
    pub resumed_bytes: u64,
    /// Bytes that were taken from local files.
    pub reused_bytes: u64,
    /// Payload bytes received over the network.
    pub received_bytes: u64,
    /// Of those, bytes that were received twice or failed verification.
    pub wasted_bytes: u64,
    /// The sources, the largest contribution first.
    pub sources: Vec<Source>,
    /// The file was there already; nothing was fetched.
    pub already_there: bool,
    /// Of a folder, the number of its files.
    pub files: Option<u64>,
}

/// The state of a tracker's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackerState {
    /// Not reached yet, or lost.
    Away {
        /// Why the last attempt or session ended.
        cause: Option<TrackerFault>,
    },
    /// Connected.
    Connected {
        /// Its id.
        id: NodeId,
        /// Its address.
        address: SocketAddr,
        /// Where it sees this node.
        seen_at: Option<SocketAddr>,
    },
    /// It refuses this node, or is not the expected tracker. Only a person can change that.
    Refused {
        /// Why.
        cause: TrackerFault,
    },
}

/// A port that a router claims to forward to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedPort {
    /// The protocol that it was asked by.
    pub protocol: MappingProtocol,
    /// The router.
    pub gateway: IpAddr,
    /// The external port.
    pub port: u16,
}

/// The state of the port mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMappingState {
    /// No router is asked.
    Off,
    /// No tracker sees this node behind an IPv4 NAT.
    NotNeeded,
    /// The router is being asked.
    Asking,
    /// No router granted a port.
    Failed {
        /// The result of each protocol.
        cause: MappingError,
    },
    /// The router granted a port, but a tracker's knock got no answer. The port is not reported to
    /// other nodes.
    NotProven {
        /// The granted mapping.
        mapping: MappedPort,
        /// Why it is not verified.
        cause: UnverifiedPort,
    },
    /// A tracker's knock arrived, and the port is reported to other nodes.
    Proven {
        /// The granted mapping.
        mapping: MappedPort,
        /// The address at which other nodes reach this one.
        address: SocketAddr,
    },
}

impl PortMappingState {
    /// Returns the state in one word, for scripts.
    pub fn name(&self) -> &'static str {
        match self {
            PortMappingState::Off => "off",
            PortMappingState::NotNeeded => "not-needed",
            PortMappingState::Asking => "asking",
            PortMappingState::Failed { .. } => "failed",
            PortMappingState::NotProven { .. } => "not-proven",
            PortMappingState::Proven { .. } => "proven",
        }
    }

    /// Returns the mapping that a router granted, if one did.
    pub fn mapping(&self) -> Option<&MappedPort> {
        match self {
            PortMappingState::NotProven { mapping, .. }
            | PortMappingState::Proven { mapping, .. } => Some(mapping),
            _ => None,
        }
    }

    /// Returns the address at which other nodes reach this one, once a knock proved it.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            PortMappingState::Proven { address, .. } => Some(*address),
            _ => None,
        }
    }

    /// Returns why there is no mapping, or why it is not verified.
    pub fn cause(&self) -> Option<String> {
        match self {
            PortMappingState::Failed { cause } => Some(cause.to_string()),
            PortMappingState::NotProven { cause, .. } => Some(cause.to_string()),
            _ => None,
        }
    }
}

impl fmt::Display for PortMappingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortMappingState::Off => f.write_str("off"),
            PortMappingState::NotNeeded => f.write_str("not needed: no tracker sees a NAT"),
            PortMappingState::Asking => f.write_str("asking the router"),
            PortMappingState::Failed { cause } => write!(f, "none: {cause}"),
            PortMappingState::NotProven { mapping, cause } => write!(
                f,
                "unverified: router {} granted port {} by {}, but {cause}",
                mapping.gateway, mapping.port, mapping.protocol
            ),
            PortMappingState::Proven { mapping, address } => write!(
                f,
                "reachable at {address} ({} by {})",
                mapping.gateway, mapping.protocol
            ),
        }
    }
}

/// A change among the holders of a watched content.
#[derive(Debug)]
pub(crate) enum HolderNews {
    /// A tracker says that these nodes hold it now, or have other addresses now.
    Joined(Vec<Contact>),
    /// A tracker says that these nodes no longer hold it.
    Left(Vec<NodeId>),
    /// Another source than a tracker says that these nodes may hold it.
    Given(Vec<Contact>),
    /// The address of this node is unknown.
    Unresolved {
        /// The node.
        node: NodeId,
        /// Why.
        fault: SourceFault,
    },
}

/// One download in [`NodeStatus`].
#[derive(Debug, Clone)]
pub struct DownloadStatus {
    /// Its name.
    pub name: AssetName,
    /// Its content id.
    pub content: ContentId,
    /// Its progress.
    pub progress: Progress,
    /// Its peers and requests.
    pub swarm: SwarmView,
}

/// A download's view of its swarm. Empty before the chunk hashes are known, and for a content of
/// one chunk.
#[derive(Debug, Clone, Default)]
pub struct SwarmView {
    /// The number of chunks of the content.
    pub chunks: u32,
    /// Of those, verified chunks.
    pub verified_chunks: u32,
    /// Missing chunks that no holder has room for now.
    pub open_chunks: u32,
    /// Missing chunks that no connected peer has.
    pub unheld_chunks: u32,
    /// Bytes requested and not yet verified.
    pub in_flight_bytes: u64,
    /// Payload bytes received over the network.
    pub received_bytes: u64,
    /// The part of these bytes that was received twice or failed verification.
    pub wasted_bytes: u64,
    /// The sum of the recent best rates of all peers that hold missing chunks. The download would
    /// run at this rate if none of them served other nodes or lacked chunks, so the difference from
    /// its own rate is the possible gain.
    pub possible_bytes_per_second: u64,
    /// Why it is not faster: the last seconds by cause, largest first. The shares sum to 100;
    /// empty while nothing is known.
    pub why: Vec<CauseShare>,
    /// Its peers.
    pub peers: Vec<PeerView>,
}

/// A peer of a download in [`NodeStatus`].
#[derive(Debug, Clone)]
pub struct PeerView {
    /// The node.
    pub node: NodeId,
    /// Its address.
    pub address: SocketAddr,
    /// The path to it.
    pub path: PathKind,
    /// The number of chunks that it claims to have.
    pub chunks: u32,
    /// Those of these chunks that are missing here.
    pub wanted_chunks: u32,
    /// Requests that it has not begun to answer.
    pub waiting: u32,
    /// Requests that it is answering.
    pub answering: u32,
    /// Bytes queued at the peer for all its clients, as last advertised.
    pub queue_bytes: u64,
    /// Remaining back-off after a refusal or a stall.
    pub asked_again_in: Option<Duration>,
    /// Bytes requested from it and not yet received.
    pub outstanding_bytes: u64,
    /// Its recent best rate in bytes per second, while it had something to deliver.
    pub bytes_per_second: u64,
    /// Payload bytes received from it.
    pub received_bytes: u64,
    /// Verified bytes that came from it, over all paths.
    pub verified_bytes: u64,
    /// Chunks that its bytes completed.
    pub verified_chunks: u32,
    /// The smoothed RTT of the connection to it.
    pub rtt: Duration,
    /// Why it is not asked any more, if it was dropped.
    pub dropped: Option<String>,
}

/// A configured tracker, and how the node stands with it.
#[derive(Debug, Clone)]
pub struct TrackerStatus {
    /// The tracker as it was configured.
    pub tracker: TrackerAddress,
    /// The state of its session.
    pub state: TrackerState,
    /// Shared files that the tracker refused or removed since the node last announced everything,
    /// because it is full: other nodes do not find them there.
    pub unlisted_entries: u64,
}

/// The status of a node.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// The number of shared files.
    pub assets: usize,
    /// Sum of their lengths.
    pub asset_bytes: u64,
    /// Files that are not offered yet, or only as snapshots, because programs go on writing them.
    pub still_written: Vec<PathBuf>,
    /// The configured trackers.
    pub trackers: Vec<TrackerStatus>,
    /// The state of the port mapping.
    pub port_mapping: PortMappingState,
    /// The number of connected peers.
    pub peers: usize,
    /// Payload bytes sent since the start.
    pub sent_bytes: u64,
    /// Payload bytes received since the start.
    pub received_bytes: u64,
    /// Unfinished downloads.
    pub downloads: Vec<DownloadStatus>,
}

/// An event that a user may want to know.
#[derive(Debug, Clone)]
pub enum NodeEvent {
    /// The state of a tracker's session changed.
    Tracker(TrackerAddress, TrackerState),
    /// The state of the port mapping changed.
    PortMapping(PortMappingState),
    /// The shared directories changed.
    Library(LibraryEvent),
    /// A peer sent bytes that failed verification.
    PeerLied {
        /// The peer.
        node: NodeId,
        /// The content.
        content: ContentId,
    },
    /// A part of the node is lost. The node is of no use any more.
    Failed(PartFailed),
}
