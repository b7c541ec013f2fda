//! A qshare node as a library: share a directory, download from a swarm.
//!
//! [`Node::start`] opens one UDP socket, shares what [`NodeConfig`] says and keeps a session with
//! each tracker. [`Node::find`] looks files up; [`Node::download`] fetches a content from all of
//! its holders, verifies every chunk and resumes what was interrupted. A node runs as tasks on the
//! tokio runtime that it is started on; a current-thread runtime is fastest (docs/performance.md).
//!
//! The directory `examples/` holds two small programs: one shares a directory, one downloads a
//! file.
//!
//! # Example
//!
//! A tracker, a node that shares a directory, and one that downloads a file from it:
//!
//! ```
//! use std::{fs, net::SocketAddr, time::Duration};
//!
//! use qshare_node::{DownloadRequest, Identity, Node, NodeConfig, Shares, Target};
//! use qshare_tracker::{Tracker, TrackerConfig};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let dir = tempfile::tempdir()?;
//!     let assets = dir.path().join("assets");
//!     fs::create_dir(&assets)?;
//!     fs::write(assets.join("hello.txt"), "hello, swarm")?;
//!     let second = Duration::from_secs(1);
//!
//!     let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
//!     let mut config = TrackerConfig::new(Identity::ephemeral()?);
//!     config.listen = loopback;
//!     let tracker = Tracker::start(config)?;
//!     let trackers = vec![tracker.listen().to_string().parse()?];
//!
//!     let shares = Shares {
//!         assets,
//!         downloads: dir.path().join("downloads"),
//!         exclude: Vec::new(),
//!         state_dir: dir.path().join("state"),
//!     };
//!     let mut config = NodeConfig::full(Identity::ephemeral()?, shares, trackers.clone());
//!     config.listen = loopback;
//!     let sharer = Node::start(config).await?;
//!
//!     let mut config = NodeConfig::one_shot(Identity::ephemeral()?, trackers);
//!     config.listen = loopback;
//!     let getter = Node::start(config).await?;
//!     // A tracker that has just started is asked again until the file has been announced.
//!     let found = getter.find(&"hello.txt".parse()?, 1, 5 * second).await?;
//!     let file = found.files.into_iter().next().ok_or("no node shares it")?;
//!     let target = Target::Path(dir.path().join("copy.txt"));
//!     let request = DownloadRequest::of_file(file, target).give_up_after(10 * second);
//!     let report = getter.download(request).finished().await?;
//!     assert_eq!(fs::read_to_string(&report.path)?, "hello, swarm");
//!
//!     getter.shutdown(second).await;
//!     sharer.shutdown(second).await;
//!     tracker.shutdown(second).await;
//!     Ok(())
//! }
//! ```

mod access;
mod codes;
mod collections;
mod config;
mod downloads;
mod error;
mod follow;
mod lookup;
mod nat;
mod neighbours;
mod node;
mod peers;
mod runtime;
mod shares;
mod sharing;
mod slow_cause;
mod trackers;
mod uploads;
mod vocabulary;

pub use codes::{
    ClaimFault, CodeEnd, CodeEvent, CodeOffer, CodeOfferConfig, LinkProvider, OfferedCode,
    RedeemError, RedeemPatience, Redeemed,
};
pub use collections::{
    FetchTerms, Folder, FolderEvent, FolderFetch, FolderFetchError, FolderFound, FolderReader,
    FolderReceiver, FolderRequest, FolderTotals, FormerFolder, InvalidGlob, Selection,
};
pub use config::{DEFAULT_NODE_PORT, Limits, NodeConfig, NodeRole, RateLimits, Shares};
pub use downloads::{
    ContentReader, Download, DownloadId, DownloadRequest, FolderTerms, Follow, NoSuchDownload,
    Priority, RemoveError, RosterChanges, RosterCounts, RosterPage, RosterRow, RosterState,
    StreamError, discard_unfinished, unfinished_chunks,
};
pub use error::{
    AskError, DownloadError, FindError, NoSource, PartFailed, PathFault, PortCheckFault,
    ReachError, SourceFault, StartError, TrackerFault, UnverifiedPort,
};
pub use nat::{
    AddressMapping, Filtering, NatKind, NetReport, NetReportConfig, NetReportError, NotAsked,
    PortMappingFound, Seen, net_report,
};
pub use node::{
    ConnectedPeer, DownloadRoster, ListedShare, Node, SharesPage, Traffic, VerifiedChunks,
};
pub use qshare_content as content;
pub use qshare_net::{
    BindError, Congestion, DialError, GroupError, GroupMismatch, GroupSecret, Identity,
    IdentityDir, IdentityError, IdentityFault, IdentityLock, IdentityRole, KnownTrackers,
    MappingError, MappingFailure, MappingProtocol, RateError, RateLimit, TrustError,
    UnknownCongestion, default_identity_dir, exclude_from_core_dumps,
};
pub use qshare_storage::{
    Cancel, DiskError, Durability, FileAttributes, FolderError, FolderPlace, FolderProgress,
    FolderSkip, FolderSkipReason, HashError, HashIndex, HashOptions, HashedFile, LibraryError,
    LibraryEvent, OpenError, PlaceError, SkipReason, THREAD_WORTH_BYTES, Target, Unfinished,
    hash_file, hash_small_files, is_case_insensitive, sha256_of_file, unfinished,
};
pub use shares::Audience;
pub use sharing::{FolderShareRequest, Share, ShareRequest, ShareVersion, new_share_key};
pub use slow_cause::{Cause, CauseShare};
pub use vocabulary::{
    Contact, DownloadStatus, FileCounts, Findings, FoundFile, MappedPort, NodeEvent, NodeStatus,
    PathKind, PeerView, PortMappingState, Progress, Report, Source, Stage, SwarmView, TrackerState,
    TrackerStatus,
};
