//! Why a node cannot start, find or download.

use std::path::PathBuf;

use qshare_content::{AssetName, TrackerAddress};
use qshare_net::BindError;
use qshare_storage::{DiskError, LibraryError};

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The UDP port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The shared directories cannot be opened.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A directory cannot be made.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a lookup has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FindError {
    /// No tracker was named.
    #[error("no tracker to ask")]
    NoTracker,
    /// No tracker could be reached in time.
    #[error("no tracker can be reached: {}", list_causes(.0))]
    Unreachable(Vec<(TrackerAddress, String)>),
    /// Every tracker that could be reached refuses us, or is not who it should be.
    #[error("{}", list_causes(.0))]
    Refused(Vec<(TrackerAddress, String)>),
    /// A tracker answered with a refusal, or nonsense.
    #[error("the tracker {tracker} did not answer the lookup: {cause}")]
    Failed {
        /// Which.
        tracker: TrackerAddress,
        /// What came instead.
        cause: String,
    },
}

fn list_causes(causes: &[(TrackerAddress, String)]) -> String {
    let describe = |(tracker, cause): &(TrackerAddress, String)| {
        let place = tracker.host_port();
        // Some causes name the tracker themselves.
        match cause.contains(&place) {
            true => cause.clone(),
            false => format!("{place}: {cause}"),
        }
    };
    causes.iter().map(describe).collect::<Vec<_>>().join("; ")
}

/// Why a download ended without the file. What was fetched is kept, and the next attempt goes on
/// from there.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No tracker could be asked.
    #[error(transparent)]
    Tracker(#[from] FindError),
    /// Nobody who has it, or nobody who can be reached.
    #[error("nobody who can be reached has {name}{}", .detail)]
    NoSource {
        /// What was wanted.
        name: AssetName,
        /// What was tried, for people; empty or begins with a colon.
        detail: String,
    },
    /// Everybody who has it sent bytes that failed verification.
    #[error("every source of {name} sent bytes that failed verification")]
    VerificationFailed {
        /// What was wanted.
        name: AssetName,
    },
    /// Something else is where the file should be.
    #[error("{}: {why}", .path.display())]
    InTheWay {
        /// The path.
        path: PathBuf,
        /// What it is, and the way out.
        why: String,
    },
    /// This machine's disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was stopped; it can be resumed.
    #[error("stopped")]
    Stopped,
}
