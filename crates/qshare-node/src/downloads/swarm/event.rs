//! Reports from the tasks of a download to the task that owns the scheduler.

use std::sync::Arc;
use std::time::Duration;

use qshare_content::{Bitmap, ChunkIndex, NodeId};
use qshare_storage::{DiskError, PartError};
use qshare_swarm::{PeerKey, RequestId};
use qshare_wire::Refused;
use qshare_wire::peer::Hashes;
use tokio::task::JoinError;

use super::super::chunk_request::Step;
use crate::error::{ReachError, SourceFault};
use crate::peers::Peer;

/// Deadline for the answer to an interest or a hash request.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Interval at which a download's sources are logged, at level INFO.
pub(super) const LOG_EVERY: Duration = Duration::from_secs(5);

/// An event of the download.
pub(super) enum Event {
    Reached {
        node: NodeId,
        result: Result<Arc<Peer>, ReachError>,
    },
    Have {
        peer: PeerKey,
        chunks: Bitmap,
        queue_bytes: u64,
    },
    HaveMore {
        peer: PeerKey,
        chunks: Vec<ChunkIndex>,
        queue_bytes: u64,
    },
    PeerGone {
        peer: PeerKey,
        fault: SourceFault,
    },
    Hashes {
        peer: PeerKey,
        page: u32,
        result: Result<Hashes, SourceFault>,
    },
    HashesKept(Result<Bitmap, PartError>),
    Step {
        request: RequestId,
        step: Step,
    },
    Received {
        request: RequestId,
    },
    Verified {
        request: RequestId,
    },
    Corrupt {
        request: RequestId,
    },
    Refused {
        request: RequestId,
        refused: Refused,
    },
    Broken {
        request: RequestId,
        cause: String,
        /// Another connection has replaced the one to the peer.
        moved: bool,
    },
    Disk(DiskError),
    Checkpointed,
    /// The plain digest was advanced.
    Digested,
}

/// Resumes the panic of blocking work in the task that waits for it.
pub(super) fn resume(lost: JoinError) {
    if let Ok(panic) = lost.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}
