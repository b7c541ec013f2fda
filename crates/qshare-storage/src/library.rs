//! The shared directories.

use std::ops::Range;
use std::path::{Path, PathBuf};

use qshare_content::{ChunkIndex, ContentId, ContentInfo, Hash};

use crate::{Asset, DiskError, HashPage, LibraryEvent};

/// What a [`Library`] shares, and how.
#[derive(Clone, Debug)]
pub struct LibraryConfig {
    /// Directories whose files are shared; they may be made later, or overlap in names.
    pub roots: Vec<PathBuf>,
    /// Directories beneath them that are never shared (certificates, state).
    pub exclude: Vec<PathBuf>,
    /// Where the index lives; made if it is not there.
    pub state_dir: PathBuf,
    /// Threads that hash; 0 means one a core.
    pub hash_threads: usize,
}

/// Why a library cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Another process has this index open.
    #[error("another process uses {}", .0.display())]
    InUse(PathBuf),
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing by this id, or not this part of it.
    #[error("not here")]
    NotHere,
    /// The file is not what was announced any more; it has been withdrawn.
    #[error("the file has changed")]
    Changed,
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a download cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Not beneath one of the roots, or under a name that cannot be told to others.
    #[error("{} is not in a shared directory", .0.display())]
    NotShared(PathBuf),
    /// The hashes do not amount to the root, or the length differs.
    #[error("{} is not the content that it should be", .0.display())]
    Mismatch(PathBuf),
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The shared directories: what is in them, and its bytes.
///
/// Opening returns at once; scanning, hashing and watching go on in the library's own threads
/// until it is dropped. Safe to share between threads.
pub struct Library {}

impl Library {
    /// Opens the index and begins to scan. `on_event` is called from one of the library's
    /// threads, in order, after the change shows in [`assets`](Self::assets); it must not block
    /// for long.
    pub fn open(
        config: LibraryConfig,
        on_event: impl Fn(LibraryEvent) + Send + 'static,
    ) -> Result<Library, LibraryError> {
        let _ = (config, on_event);
        Ok(Library {})
    }

    /// Everything that is offered now; each (name, content) once.
    pub fn assets(&self) -> Vec<Asset> {
        Vec::new()
    }

    /// The content, under one of its names.
    pub fn find(&self, id: &ContentId) -> Option<Asset> {
        let _ = id;
        None
    }

    /// The hashes of some of a content's chunks.
    pub fn chunk_hashes(&self, id: &ContentId, chunks: Range<u32>) -> Result<Vec<Hash>, ReadError> {
        let _ = (id, chunks);
        Err(ReadError::NotHere)
    }

    /// One page of chunk hashes with its audit path.
    pub fn hash_page(&self, id: &ContentId, page: u32) -> Result<HashPage, ReadError> {
        let _ = (id, page);
        Err(ReadError::NotHere)
    }

    /// The bytes `range` of a content, at most 4 MiB of them (the largest chunk).
    pub fn read(&self, id: &ContentId, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        let _ = (id, range);
        Err(ReadError::NotHere)
    }

    /// The bytes of one chunk.
    pub fn read_chunk(&self, id: &ContentId, chunk: ChunkIndex) -> Result<Vec<u8>, ReadError> {
        let _ = (id, chunk);
        Err(ReadError::NotHere)
    }

    /// Takes in a completed download without hashing it again. `hashes` may be empty for a
    /// content of one chunk.
    pub fn adopt(
        &self,
        path: &Path,
        info: ContentInfo,
        hashes: &[Hash],
    ) -> Result<Asset, AdoptError> {
        let _ = (info, hashes);
        Err(AdoptError::NotShared(path.into()))
    }
}
