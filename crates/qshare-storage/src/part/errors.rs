//! The errors of a part, one enum for each operation.

use std::path::PathBuf;

use qshare_content::{ChunkIndex, ContentId};

use super::recover::RecoverError;
use crate::DiskError;

/// The reason why a part cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A different file is at the target; only `force` replaces it.
    #[error("a different file is already at {}", .0.display())]
    Different(PathBuf),
    /// A directory, a device, a FIFO or a socket is at the target; it is never replaced.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Another content's unfinished download has the same name; only `force` and `supersedes`
    /// replace it.
    #[error("{} belongs to an unfinished download of {other}", .path.display())]
    OtherUnfinished {
        /// The meta file.
        path: PathBuf,
        /// The other content.
        other: ContentId,
    },
    /// Another process, or another part in this process, has locked it.
    #[error("{} is being downloaded already", .0.display())]
    Locked(PathBuf),
    /// A file with the name of a working file that qshare has not created.
    #[error("{} is not qshare's; move it away", .0.display())]
    NotOurs(PathBuf),
    /// A meta file of a later version of qshare.
    #[error("{} was written by a newer qshare (format {version})", .path.display())]
    Newer {
        /// The meta file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The content is longer than [`qshare_content::LENGTH_MAX_BYTES`].
    #[error("{} would be longer than 16 TiB", .0.display())]
    TooLong(PathBuf),
    /// The options' `cancel` was raised while existing bytes were hashed.
    #[error("cancelled")]
    Cancelled,
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The reason why an operation on a part failed.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The bytes do not lie within the chunk; an error of the caller.
    #[error("the bytes lie outside of chunk {chunk}", chunk = .0.0)]
    OutOfRange(ChunkIndex),
    /// The hashes do not hash to the root.
    #[error("the chunk hashes do not hash to the root of this content")]
    WrongHashes,
    /// The options' `cancel` was raised while existing bytes were hashed.
    #[error("cancelled")]
    Cancelled,
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The reason why a part cannot be finished. It stays resumable.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// Chunks are missing.
    #[error("{missing} chunks are missing")]
    Incomplete {
        /// The number of missing chunks.
        missing: u32,
    },
    /// A different file has appeared at the target.
    #[error("a different file has appeared at {}", .0.display())]
    Different(PathBuf),
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl From<RecoverError> for OpenError {
    fn from(error: RecoverError) -> OpenError {
        match error {
            RecoverError::Cancelled => OpenError::Cancelled,
            RecoverError::Disk(error) => error.into(),
        }
    }
}

impl From<RecoverError> for PartError {
    fn from(error: RecoverError) -> PartError {
        match error {
            RecoverError::Cancelled => PartError::Cancelled,
            RecoverError::Disk(error) => error.into(),
        }
    }
}
