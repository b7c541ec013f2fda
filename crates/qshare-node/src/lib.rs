//! A qshare node as a library: share a directory, download from a swarm.
//!
//! [`Node::start`] opens one UDP socket, shares what [`NodeConfig`] says and keeps in touch with
//! the trackers. [`Node::find`] asks them; [`Node::download`] fetches from everybody who has the
//! file, verifies every chunk and resumes what was interrupted. A node runs as tasks on the tokio
//! runtime that it is started on; a current-thread runtime is fastest (docs/performance.md).

mod catalogue;
mod config;
mod contents;
mod downloads;
mod error;
mod node;
mod peers;
mod report;
mod tracker_link;
mod uploads;

pub use config::{DEFAULT_NODE_PORT, Limits, NodeConfig, Shares};
pub use downloads::{Download, DownloadRequest, unfinished_chunks};
pub use error::{DownloadError, FindError, StartError};
pub use node::Node;
pub use qshare_content as content;
pub use qshare_net::{
    BindError, GroupError, GroupSecret, Identity, IdentityError, IdentityLock, IdentityRole,
    KnownTrackers, TrustError, default_identity_dir,
};
pub use qshare_storage::{
    DiskError, HashError, HashOptions, HashedFile, LibraryError, LibraryEvent, SkipReason, Sync,
    Target, hash_file,
};
pub use report::{
    Contact, DownloadStatus, Findings, FoundFile, NodeEvent, NodeStatus, PathKind, PeerView,
    Progress, Report, Source, Stage, TrackerState,
};
