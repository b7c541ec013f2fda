//! Contents in memory: the manifests of snapshots.

use qshare_content::{ChunkIndex, Chunks, ContentInfo, Hash, tree};
use qshare_storage::{HashPage, ReadError};

/// A content in memory.
pub(crate) struct MemoryContent {
    bytes: Vec<u8>,
    info: ContentInfo,
    chunks: Chunks,
    hashes: Vec<Hash>,
}

impl MemoryContent {
    /// Hashes the bytes. Blocks for some milliseconds if there are many.
    pub(crate) fn new(bytes: Vec<u8>) -> MemoryContent {
        let length = bytes.len() as u64;
        let chunks = Chunks::of_length(length);
        let of_chunk = |chunk: ChunkIndex| {
            let range = chunks.range(chunk);
            let range = range.start as usize..range.end as usize;
            tree::chunk_hash(&chunks, bytes.get(range).unwrap_or_default())
        };
        let hashes: Vec<Hash> = chunks.indices().map(of_chunk).collect();
        let root = tree::root_of_chunks(&chunks, &hashes);
        MemoryContent {
            info: ContentInfo { length, root },
            bytes,
            chunks,
            hashes,
        }
    }

    pub(crate) fn info(&self) -> ContentInfo {
        self.info
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        let start = usize::try_from(offset).map_err(|_| ReadError::NotHere)?;
        let end = start.checked_add(bytes.len()).ok_or(ReadError::NotHere)?;
        let found = self.bytes.get(start..end).ok_or(ReadError::NotHere)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    pub(crate) fn hash_page(&self, page: u32) -> Result<HashPage, ReadError> {
        if page >= tree::page_count(&self.chunks) {
            return Err(ReadError::NotHere);
        }
        let of_page = |page| {
            let range = tree::page_chunks(&self.chunks, page);
            let range = range.start as usize..range.end as usize;
            self.hashes.get(range).unwrap_or_default()
        };
        let pages = 0..tree::page_count(&self.chunks);
        let roots = pages.map(|page| tree::page_root(&self.chunks, of_page(page)));
        Ok(HashPage {
            hashes: of_page(page).to_vec(),
            path: tree::page_path(&self.chunks, roots.collect(), page),
        })
    }
}
