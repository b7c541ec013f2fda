//! What can go wrong with a part, one enum an operation.

use std::path::PathBuf;

use qshare_content::{ChunkIndex, ContentId};

use super::recover::RecoverError;
use crate::DiskError;

/// Why a part cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A different file at the target; only `force` overwrites it.
    #[error("a different file is already at {}", .0.display())]
    Different(PathBuf),
    /// A directory, a device, a FIFO or a socket at the target; it is never replaced.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Another content's unfinished download of the same name; only `force` discards it.
    #[error("{} belongs to an unfinished download of {other}", .path.display())]
    OtherUnfinished {
        /// The meta file.
        path: PathBuf,
        /// That other content.
        other: ContentId,
    },
    /// Another process, or another part in this one, is at it.
    #[error("{} is being downloaded already", .0.display())]
    Locked(PathBuf),
    /// A file of one of our names that qshare has not made.
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
    /// Longer than [`qshare_content::LENGTH_MAX_BYTES`].
    #[error("{} would be longer than 16 TiB", .0.display())]
    TooLong(PathBuf),
    /// The options' `cancel` was raised while hashing what is there.
    #[error("cancelled")]
    Cancelled,
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why an operation on a part failed.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// Bytes that do not lie in the chunk: a mistake of the caller's.
    #[error("chunk {chunk} does not have these bytes", chunk = .0.0)]
    OutOfRange(ChunkIndex),
    /// The hashes do not amount to the root.
    #[error("the chunk hashes do not belong to this content")]
    WrongHashes,
    /// The options' `cancel` was raised while hashing what is there.
    #[error("cancelled")]
    Cancelled,
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a part cannot become the final file. It stays resumable.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// Chunks are missing.
    #[error("{missing} chunks are missing")]
    Incomplete {
        /// How many.
        missing: u32,
    },
    /// A different file appeared at the target meanwhile.
    #[error("a different file has appeared at {}", .0.display())]
    Different(PathBuf),
    /// Our disk failed.
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
