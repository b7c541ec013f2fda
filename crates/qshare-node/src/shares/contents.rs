//! Where the bytes that we serve come from: shared directories, and downloads of ours, unfinished
//! or finished elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, ContentInfo};
use qshare_storage::{HashPage, Library, Part, ReadError, SharedFile};

use crate::shares::availability::Availability;

/// A download of ours, as those see it whom we serve from it.
pub(crate) struct Active {
    pub(crate) info: ContentInfo,
    pub(crate) chunks: Chunks,
    pub(crate) part: Arc<Part>,
    /// What can be served.
    pub(crate) have: Arc<Availability>,
}

impl Active {
    pub(crate) fn new(info: ContentInfo, part: Arc<Part>, verified: Bitmap) -> Active {
        Active {
            info,
            chunks: Chunks::of_length(info.length),
            part,
            have: Arc::new(Availability::new(verified)),
        }
    }
}

/// A content that we can serve from.
#[derive(Clone)]
pub(crate) enum Holding {
    /// A file in a shared directory.
    Shared(ContentInfo),
    /// A finished file that lies elsewhere.
    File(Arc<SharedFile>),
    /// An unfinished download.
    Active(Arc<Active>),
}

impl Holding {
    pub(crate) fn info(&self) -> ContentInfo {
        match self {
            Holding::Shared(info) => *info,
            Holding::File(file) => file.info(),
            Holding::Active(active) => active.info,
        }
    }

    /// Whether the chunk can be served now.
    pub(crate) fn has(&self, chunk: ChunkIndex) -> bool {
        match self {
            Holding::Shared(_) | Holding::File(_) => true,
            Holding::Active(active) => active.have.contains(chunk),
        }
    }
}

/// Everything that we can serve from.
#[derive(Default)]
pub(crate) struct Contents {
    library: Option<Arc<Library>>,
    /// The finished ones before the unfinished ones of the same content.
    files: Mutex<HashMap<ContentId, Arc<SharedFile>>>,
    active: Mutex<HashMap<ContentId, Arc<Active>>>,
}

impl Contents {
    pub(crate) fn new(library: Option<Arc<Library>>) -> Contents {
        Contents {
            library,
            files: Mutex::default(),
            active: Mutex::default(),
        }
    }

    pub(crate) fn library(&self) -> Option<&Arc<Library>> {
        self.library.as_ref()
    }

    /// The content, if we have any of it.
    pub(crate) fn find(&self, id: &ContentId) -> Option<Holding> {
        if let Some(asset) = self.library.as_ref().and_then(|library| library.find(id)) {
            return Some(Holding::Shared(asset.info));
        }
        let file = self
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned();
        file.map(Holding::File)
            .or_else(|| self.lock().get(id).cloned().map(Holding::Active))
    }

    /// Serves a finished file that lies in no shared directory.
    pub(crate) fn insert_file(&self, file: Arc<SharedFile>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(file.info().id(), file);
    }

    /// Serves from a download.
    pub(crate) fn insert(&self, active: Arc<Active>) {
        self.lock().insert(active.info.id(), active);
    }

    /// Serves no longer from a download. What is being sent goes on.
    pub(crate) fn remove(&self, active: &Arc<Active>) {
        let mut map = self.lock();
        let id = active.info.id();
        if map
            .get(&id)
            .is_some_and(|current| Arc::ptr_eq(current, active))
        {
            map.remove(&id);
        }
    }

    /// Fills `bytes` with those of a content from `offset` on, within one chunk. Blocks.
    pub(crate) fn read_into(
        &self,
        holding: &Holding,
        chunk: ChunkIndex,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        match holding {
            Holding::Shared(info) => {
                let library = self.library.as_ref().ok_or(ReadError::NotHere)?;
                library.read_into(&info.id(), offset, bytes)
            }
            Holding::File(file) => file.read_into(offset, bytes),
            Holding::Active(active) => {
                let start = active.chunks.range(chunk).start;
                let in_chunk = offset.saturating_sub(start);
                active.part.read_into(chunk, in_chunk, bytes)
            }
        }
    }

    /// A page of chunk hashes with its proof. Blocks.
    pub(crate) fn hash_page(&self, holding: &Holding, page: u32) -> Result<HashPage, ReadError> {
        match holding {
            Holding::Shared(info) => {
                let library = self.library.as_ref().ok_or(ReadError::NotHere)?;
                library.hash_page(&info.id(), page)
            }
            Holding::File(file) => file.hash_page(page),
            Holding::Active(active) => active.part.hash_page(page),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, Arc<Active>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
