//! What a node tells its owner: found files, progress, results, status, events.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use qshare_content::{AssetName, ContentId, ContentInfo, NodeId, TrackerAddress};
use qshare_storage::LibraryEvent;

use crate::nat::port_mapping::PortMappingState;

/// A file that somebody shares, as trackers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// The name that it was found under.
    pub name: AssetName,
    /// Names its bytes.
    pub content: ContentId,
    /// Length and root.
    pub info: ContentInfo,
    /// Nodes that say they have all of it.
    pub complete: u32,
    /// Nodes that say they have part of it.
    pub partial: u32,
    /// Some of them.
    pub holders: Vec<Contact>,
}

/// A node that holds something, and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: Vec<SocketAddr>,
    /// Whether it says that it has all of the content.
    pub complete: bool,
}

/// What a lookup came to.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The files, in the order of their names.
    pub files: Vec<FoundFile>,
    /// There are more than were asked for.
    pub truncated: bool,
    /// Where nothing was found: names that look like what was asked for.
    pub near: Vec<AssetName>,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Waiting for its turn.
    #[default]
    Queued,
    /// Hashing what an earlier run left.
    Recovering,
    /// Looking for somebody who has it.
    Searching,
    /// Fetching chunks.
    Fetching,
    /// Making it durable.
    Finishing,
    /// Done.
    Complete,
    /// Stopped or failed; what is there is kept.
    Stopped,
}

/// Where a download stands.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What it is doing.
    pub stage: Stage,
    /// Length of the file.
    pub total_bytes: u64,
    /// Verified so far, in earlier runs too.
    pub verified_bytes: u64,
    /// Bytes a second over the last few seconds.
    pub bytes_per_second: u64,
    /// Time left at that rate.
    pub time_left: Option<Duration>,
    /// Peers that are delivering or may deliver.
    pub sources: u32,
    /// Why nothing happens, where that is so.
    pub trouble: Option<String>,
}

/// What kind of way the bytes took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Straight through the internet.
    Direct,
    /// Inside one network: private, link-local or loopback addresses.
    Lan,
    /// Through a relay, which sees ciphertext only.
    Relay,
}

/// What one node contributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Who.
    pub node: NodeId,
    /// Where it was reached.
    pub address: SocketAddr,
    /// On what way.
    pub path: PathKind,
    /// Verified bytes that came from it.
    pub bytes: u64,
    /// Verified chunks that came from it.
    pub chunks: u32,
}

/// A finished download.
#[derive(Debug, Clone)]
pub struct Report {
    /// Names the bytes.
    pub content: ContentId,
    /// What it was asked for as.
    pub name: AssetName,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Time that it took, from the request on.
    pub elapsed: Duration,
    /// Bytes that an earlier run had left.
    pub resumed_bytes: u64,
    /// Payload bytes that came over the network.
    pub received_bytes: u64,
    /// Of those, bytes that came in vain.
    pub wasted_bytes: u64,
    /// Who contributed, most first.
    pub sources: Vec<Source>,
    /// It was there already; nothing was fetched.
    pub already_there: bool,
}

/// A tracker, as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackerState {
    /// Not reached yet, or lost; the last error, if there was one.
    Away {
        /// For people.
        cause: Option<String>,
    },
    /// Connected.
    Connected {
        /// Who it is.
        id: NodeId,
        /// Where it was reached.
        address: SocketAddr,
        /// Where it sees us.
        seen_at: Option<SocketAddr>,
    },
    /// It refuses us, or is not who it should be; only a person can change that.
    Refused {
        /// For people, with the way out.
        cause: String,
    },
}

/// One download in [`NodeStatus`].
#[derive(Debug, Clone)]
pub struct DownloadStatus {
    /// What it is called.
    pub name: AssetName,
    /// Names the bytes.
    pub content: ContentId,
    /// Where it stands.
    pub progress: Progress,
    /// What it waits for, and of whom.
    pub swarm: SwarmView,
}

/// How a download stands with its swarm. Empty before the chunk hashes are known, and for a
/// content of one chunk.
#[derive(Debug, Clone, Default)]
pub struct SwarmView {
    /// Chunks of the content.
    pub chunks: u32,
    /// Of those, chunks that are verified.
    pub verified_chunks: u32,
    /// Missing chunks that nobody is being asked for: they wait for a holder to have room.
    pub open_chunks: u32,
    /// Missing chunks that nobody who is connected has.
    pub unheld_chunks: u32,
    /// Bytes asked for and not yet verified.
    pub in_flight_bytes: u64,
    /// Payload bytes that came over the network.
    pub received_bytes: u64,
    /// Of those, bytes that came in vain: twice, or wrong.
    pub wasted_bytes: u64,
    /// The sum of what those who hold missing chunks delivered a second, each at its recent best.
    /// What the download would run at if none of them ever had something better to do or nothing
    /// to give: what there is to gain lies between its own rate and this.
    pub possible_bytes_per_second: u64,
    /// The peers that it asks.
    pub peers: Vec<PeerView>,
}

/// A peer of a download in [`NodeStatus`].
#[derive(Debug, Clone)]
pub struct PeerView {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub address: SocketAddr,
    /// On what way.
    pub path: PathKind,
    /// Chunks that it says it has.
    pub chunks: u32,
    /// Of those, chunks that are missing here.
    pub wanted_chunks: u32,
    /// Requests that it has not begun to answer.
    pub waiting: u32,
    /// Requests that it is answering.
    pub answering: u32,
    /// Bytes that wait there, for everybody who asks it, as it last said.
    pub queue_bytes: u64,
    /// Time until it is asked again, after a refusal or a stall.
    pub asked_again_in: Option<Duration>,
    /// Bytes asked of it and not yet received.
    pub outstanding_bytes: u64,
    /// Bytes a second that it delivered at its recent best, while it had something to deliver.
    pub bytes_per_second: u64,
    /// Payload bytes that came from it.
    pub received_bytes: u64,
    /// Why it is not asked any more, if so.
    pub dropped: Option<String>,
}

/// A node at a glance.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Number of files that are shared.
    pub assets: usize,
    /// Sum of their lengths.
    pub asset_bytes: u64,
    /// Files that are not offered yet, or only as snapshots, because programs go on writing them.
    pub still_written: Vec<PathBuf>,
    /// Each tracker, as written, and how it is.
    pub trackers: Vec<(TrackerAddress, TrackerState)>,
    /// Whether the router lets others in.
    pub port_mapping: PortMappingState,
    /// Peers that are connected.
    pub peers: usize,
    /// Payload bytes sent since the start.
    pub sent_bytes: u64,
    /// Payload bytes received since the start.
    pub received_bytes: u64,
    /// Unfinished downloads.
    pub downloads: Vec<DownloadStatus>,
}

/// Something that an owner may want to tell a person.
#[derive(Debug, Clone)]
pub enum NodeEvent {
    /// A tracker was reached, lost, or refuses us.
    Tracker(TrackerAddress, TrackerState),
    /// The router lets others in, or not any more.
    PortMapping(PortMappingState),
    /// Shared directories changed.
    Library(LibraryEvent),
    /// A peer sent bytes that failed verification.
    PeerLied {
        /// Who.
        node: NodeId,
        /// About what.
        content: ContentId,
    },
}
