//! One unfinished download.

use std::ops::Range;
use std::path::{Path, PathBuf};

use qshare_content::{AssetName, Bitmap, ChunkIndex, ContentId, ContentInfo, Hash};

use crate::{DiskError, HashOptions, HashPage, ReadError, Target};

/// How to open a part.
#[derive(Clone, Default)]
pub struct PartOptions {
    /// Replace a different file at the target, or another content's unfinished download.
    pub force: bool,
    /// For the hashing of what is already there.
    pub hashing: HashOptions,
}

/// What opening a part found.
pub enum Opened {
    /// The target is already there with these very bytes.
    Complete {
        /// The target.
        path: PathBuf,
    },
    /// Something is missing.
    Part(Part),
}

/// Why a part cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A different file at the target; only `force` overwrites it.
    #[error("a different file is already at {}", .0.display())]
    Different(PathBuf),
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

/// When a finished file must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before `finish` returns.
    Now,
    /// Whenever the system likes (`--no-sync`).
    Later,
}

/// One unfinished download: `NAME.qshare.part` and `NAME.qshare.meta`, exclusively locked.
///
/// All methods may be called from several threads at once.
pub struct Part {}

impl Part {
    /// Opens the unfinished download of `info` at `target`, or begins one. Blocks while what is
    /// already there is hashed.
    pub fn open(
        target: &Target,
        info: ContentInfo,
        options: &PartOptions,
    ) -> Result<Opened, OpenError> {
        let _ = (info, options);
        Err(OpenError::NotOurs(target.path()))
    }

    /// What is being downloaded.
    pub fn info(&self) -> ContentInfo {
        unimplemented!()
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// Whether the chunk hashes are known. Always so for a content of one chunk.
    pub fn has_hashes(&self) -> bool {
        unimplemented!()
    }

    /// All chunk hashes, if they are known.
    pub fn hashes(&self) -> Result<Option<Vec<Hash>>, PartError> {
        unimplemented!()
    }

    /// The hash of one chunk, if it is known.
    pub fn hash(&self, chunk: ChunkIndex) -> Result<Option<Hash>, PartError> {
        let _ = chunk;
        unimplemented!()
    }

    /// One page of chunk hashes with its audit path, for others.
    pub fn hash_page(&self, page: u32) -> Result<HashPage, ReadError> {
        let _ = page;
        unimplemented!()
    }

    /// Keeps the chunk hashes, durably, and hashes what the part file holds of chunks that could
    /// not be judged without them. Returns the chunks that are verified now.
    pub fn set_hashes(&self, hashes: Vec<Hash>) -> Result<Bitmap, PartError> {
        let _ = hashes;
        unimplemented!()
    }

    /// The chunks that an earlier run left and that proved right when this part was opened.
    pub fn recovered(&self) -> Bitmap {
        unimplemented!()
    }

    /// The chunks that are verified.
    pub fn verified(&self) -> Bitmap {
        unimplemented!()
    }

    /// The chunks that survive a power cut.
    pub fn durable(&self) -> Bitmap {
        unimplemented!()
    }

    /// Writes bytes of a chunk that is not verified yet; bytes of one that is are dropped.
    ///
    /// Unverified bytes of one chunk must come from one writer at a time, else another's may end
    /// up under a hash that proved right. Use [`write_verified`](Self::write_verified) where that
    /// cannot be promised.
    pub fn write(
        &self,
        chunk: ChunkIndex,
        offset_in_chunk: u64,
        bytes: &[u8],
    ) -> Result<(), PartError> {
        let _ = (chunk, offset_in_chunk, bytes);
        unimplemented!()
    }

    /// Notes that the bytes written for `chunk` have the right hash. True if that is new.
    pub fn mark_verified(&self, chunk: ChunkIndex) -> bool {
        let _ = chunk;
        unimplemented!()
    }

    /// Writes a whole chunk whose bytes have the right hash, and marks it. True if it is new.
    pub fn write_verified(&self, chunk: ChunkIndex, bytes: &[u8]) -> Result<bool, PartError> {
        let _ = (chunk, bytes);
        unimplemented!()
    }

    /// The bytes of a verified chunk, or `NotHere`.
    pub fn read(&self, chunk: ChunkIndex) -> Result<Vec<u8>, ReadError> {
        let _ = chunk;
        unimplemented!()
    }

    /// Some bytes of a verified chunk, or `NotHere`.
    pub fn read_range(
        &self,
        chunk: ChunkIndex,
        range_in_chunk: Range<u64>,
    ) -> Result<Vec<u8>, ReadError> {
        let _ = (chunk, range_in_chunk);
        unimplemented!()
    }

    /// Makes what is verified durable: flushes data, then the meta file. To be called every 2 s
    /// or 256 MiB. Does nothing if nothing is new.
    pub fn checkpoint(&self) -> Result<(), PartError> {
        unimplemented!()
    }

    /// Checkpoints and notes a clean stop, so that the next start need not hash.
    pub fn close(self) -> Result<(), PartError> {
        unimplemented!()
    }

    /// Makes the final file of a complete part and removes the meta file.
    ///
    /// What could not be finished stays on disk, resumable.
    pub fn finish(self, sync: Sync) -> Result<PathBuf, FinishError> {
        let _ = sync;
        unimplemented!()
    }

    /// Gives the download up: removes the part and the meta file.
    pub fn discard(self) -> Result<(), PartError> {
        unimplemented!()
    }
}

/// A download that an earlier run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where it goes; hand it to [`Part::open`].
    pub target: Target,
    /// Its name beneath the directory.
    pub name: AssetName,
    /// What it is.
    pub info: ContentInfo,
    /// Chunks that the last checkpoint noted, at most.
    pub durable_chunks: u32,
}

/// The unfinished downloads beneath a directory, by their meta files. Whatever cannot be read
/// is left out; a directory that is not there has none.
pub fn unfinished(dir: &Path) -> Vec<Unfinished> {
    let _ = dir;
    Vec::new()
}
