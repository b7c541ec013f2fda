//! The sources of served bytes: shared directories, finished files elsewhere, and unfinished
//! downloads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, ContentInfo, ShareKey};
use qshare_storage::{Asset, HashPage, Library, Part, ReadError, SharedFile};
use tokio::sync::broadcast;

use super::availability::Availability;
use super::collections::{Membership, SharedCollection};
use super::memory::MemoryContent;

/// An unfinished download that other nodes are served from.
///
/// Only [`Part`] records which chunks are verified. [`mark_verified`](Self::mark_verified) is the
/// one place where a completed chunk is recorded and reported to other nodes.
pub(crate) struct PartialContent {
    pub(crate) info: ContentInfo,
    pub(crate) chunks: Chunks,
    pub(crate) part: Arc<Part>,
    pub(crate) availability: Arc<Availability>,
    /// The key of a private share. Without it the download is public.
    pub(crate) share_key: Option<ShareKey>,
    /// The collection that it is a member of, which is announced in its place.
    pub(crate) member: Option<Membership>,
    /// Whether it is never announced: the list of a folder, until its members can be.
    pub(crate) is_unannounced: bool,
}

impl PartialContent {
    pub(crate) fn new(
        info: ContentInfo,
        part: Arc<Part>,
        share_key: Option<ShareKey>,
    ) -> PartialContent {
        PartialContent {
            info,
            chunks: Chunks::of_length(info.length),
            part,
            availability: Availability::new(),
            share_key,
            member: None,
            is_unannounced: false,
        }
    }

    /// Makes it a member of a collection, or a download that is never announced.
    pub(crate) fn for_folder(
        self,
        member: Option<Membership>,
        is_unannounced: bool,
    ) -> PartialContent {
        PartialContent {
            member,
            is_unannounced,
            ..self
        }
    }

    /// Records that a chunk was verified and written, and reports it to other nodes.
    pub(crate) fn mark_verified(&self, chunk: ChunkIndex) {
        self.part.mark_verified(chunk);
        self.availability.add(chunk);
    }

    /// Whether all chunks are verified.
    pub(crate) fn is_complete(&self) -> bool {
        self.part.is_complete()
    }

    /// Returns the verified chunks, and subscribes to batches of later ones. A chunk that was
    /// verified just before may be in both.
    pub(crate) fn subscribe(&self) -> (Bitmap, broadcast::Receiver<Arc<[ChunkIndex]>>) {
        // In this order, so that no chunk is missed.
        let batches = self.availability.subscribe();
        (self.part.verified(), batches)
    }
}

/// A content that can be served.
#[derive(Clone)]
pub(crate) enum Holding {
    /// A file in a shared directory.
    Shared(ContentInfo),
    /// A finished file outside the shared directories.
    File(Arc<SharedFile>),
    /// An unfinished download.
    Partial(Arc<PartialContent>),
    /// A file of a collection, by its number.
    Member(Arc<SharedCollection>, u32),
    /// The manifest of a snapshot.
    Memory(Arc<MemoryContent>),
}

impl Holding {
    pub(crate) fn info(&self) -> ContentInfo {
        match self {
            Holding::Shared(info) => *info,
            Holding::File(file) => file.info(),
            Holding::Partial(partial) => partial.info,
            Holding::Member(collection, at) => collection.member_info(*at),
            Holding::Memory(content) => content.info(),
        }
    }

    /// Whether the chunk can be served now.
    pub(crate) fn has(&self, chunk: ChunkIndex) -> bool {
        match self {
            Holding::Shared(_) | Holding::File(_) | Holding::Memory(_) => true,
            Holding::Member(collection, at) => collection.folder.has(*at),
            Holding::Partial(partial) => partial.part.is_verified(chunk),
        }
    }

    /// Returns the name under which receivers are counted: for a member, that of its collection.
    pub(crate) fn audience(&self, named: ContentId) -> ContentId {
        match self {
            Holding::Member(collection, _) => collection.wire_id(),
            _ => named,
        }
    }
}

/// All contents that can be served to everybody.
pub(crate) struct Contents {
    library: Option<Arc<Library>>,
    /// Finished files outside the shared directories; preferred to partial contents.
    files: Mutex<HashMap<ContentId, Arc<SharedFile>>>,
    partials: Mutex<HashMap<ContentId, Arc<PartialContent>>>,
    memory: Mutex<HashMap<ContentId, Arc<MemoryContent>>>,
}

impl Contents {
    pub(crate) fn new(library: Option<Arc<Library>>) -> Contents {
        Contents {
            library,
            files: Mutex::default(),
            partials: Mutex::default(),
            memory: Mutex::default(),
        }
    }

    pub(crate) fn library(&self) -> Option<&Arc<Library>> {
        self.library.as_ref()
    }

    /// Returns the content if any of its bytes can be served to everybody. Of the files in shared
    /// directories, those that are not `public` do not count.
    pub(crate) fn find(&self, id: &ContentId, public: impl Fn(&Asset) -> bool) -> Option<Holding> {
        let library = self.library.as_ref();
        if let Some(asset) = library.and_then(|library| library.find_named(id, public)) {
            return Some(Holding::Shared(asset.info));
        }
        let file = self
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned();
        let partial = || self.lock().get(id).cloned().map(Holding::Partial);
        let memory = || self.lock_memory().get(id).cloned().map(Holding::Memory);
        file.map(Holding::File).or_else(partial).or_else(memory)
    }

    /// Serves a content in memory.
    pub(crate) fn insert_memory(&self, content: Arc<MemoryContent>) {
        self.lock_memory().insert(content.info().id(), content);
    }

    /// Stops serving a content in memory.
    pub(crate) fn remove_memory(&self, id: &ContentId) {
        self.lock_memory().remove(id);
    }

    /// Serves a finished file outside the shared directories.
    pub(crate) fn insert_file(&self, file: Arc<SharedFile>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(file.info().id(), file);
    }

    /// Stops serving a file outside the shared directories.
    pub(crate) fn remove_file(&self, id: &ContentId) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.remove(id);
    }

    /// Serves an unfinished download.
    pub(crate) fn insert(&self, partial: Arc<PartialContent>) {
        self.lock().insert(partial.info.id(), partial);
    }

    /// Stops serving an unfinished download. Running answers continue.
    pub(crate) fn remove(&self, partial: &Arc<PartialContent>) {
        let mut map = self.lock();
        let id = partial.info.id();
        if map
            .get(&id)
            .is_some_and(|current| Arc::ptr_eq(current, partial))
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
            Holding::Partial(partial) => {
                let start = partial.chunks.range(chunk).start;
                let in_chunk = offset.saturating_sub(start);
                partial.part.read_into(chunk, in_chunk, bytes)
            }
            Holding::Member(collection, at) => collection.folder.read_into(*at, offset, bytes),
            Holding::Memory(content) => content.read_into(offset, bytes),
        }
    }

    /// Reads a page of chunk hashes with its proof. Blocks.
    pub(crate) fn hash_page(&self, holding: &Holding, page: u32) -> Result<HashPage, ReadError> {
        match holding {
            Holding::Shared(info) => {
                let library = self.library.as_ref().ok_or(ReadError::NotHere)?;
                library.hash_page(&info.id(), page)
            }
            Holding::File(file) => file.hash_page(page),
            Holding::Partial(partial) => partial.part.hash_page(page),
            Holding::Member(collection, at) => collection.folder.hash_page(*at, page),
            Holding::Memory(content) => content.hash_page(page),
        }
    }

    fn lock_memory(&self) -> MutexGuard<'_, HashMap<ContentId, Arc<MemoryContent>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, Arc<PartialContent>>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
