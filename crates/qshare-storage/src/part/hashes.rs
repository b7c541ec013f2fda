//! The chunk hashes of a download: in memory up to a limit, else read from the meta file page by
//! page.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use qshare_content::{ChunkIndex, Chunks, Hash, tree};

use crate::HashPage;
use crate::meta::{Layout, decode_hashes};
use crate::system::read_exact_at;

/// Chunk hashes that are held in memory at most: 4 MiB of them, enough for a file of 512 GiB.
const IN_MEMORY_MAX: u32 = 128 * 1024;

/// Chunk hashes that have been verified against the content's root.
pub(crate) struct ChunkHashes {
    chunks: Chunks,
    page_roots: Vec<Hash>,
    kept: Kept,
}

enum Kept {
    All(Vec<Hash>),
    OnDisk {
        meta: Arc<File>,
        last: Mutex<Option<(u32, Vec<Hash>)>>,
    },
}

impl ChunkHashes {
    /// Returns the only hash of a content of one chunk, its root.
    pub(crate) fn of_one_chunk(chunks: Chunks, root: Hash) -> ChunkHashes {
        ChunkHashes {
            chunks,
            page_roots: vec![root],
            kept: Kept::All(vec![root]),
        }
    }

    /// Verifies hashes from peers, which `meta` holds already; None if they do not hash to `root`.
    pub(crate) fn checked(
        chunks: Chunks,
        root: &Hash,
        hashes: Vec<Hash>,
        meta: Arc<File>,
    ) -> Option<ChunkHashes> {
        if hashes.len() != chunks.count() as usize {
            return None;
        }
        let page_roots = hashes
            .chunks(tree::PAGE_CHUNKS as usize)
            .map(|page| tree::page_root(&chunks, page))
            .collect();
        let kept = if chunks.count() <= IN_MEMORY_MAX {
            Kept::All(hashes)
        } else {
            Kept::OnDisk {
                meta,
                last: Mutex::new(None),
            }
        };
        ChunkHashes::amounting_to(root, chunks, page_roots, kept)
    }

    /// Loads and verifies the hashes in a meta file; None if they are missing or damaged.
    pub(crate) fn load(
        chunks: Chunks,
        root: &Hash,
        meta: &Arc<File>,
    ) -> io::Result<Option<ChunkHashes>> {
        let mut page_roots = Vec::new();
        let mut all = Vec::new();
        for page in 0..tree::page_count(&chunks) {
            let hashes = match read_page(meta, &chunks, page) {
                Ok(hashes) => hashes,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            };
            page_roots.push(tree::page_root(&chunks, &hashes));
            if chunks.count() <= IN_MEMORY_MAX {
                all.extend(hashes);
            }
        }
        let kept = if chunks.count() <= IN_MEMORY_MAX {
            Kept::All(all)
        } else {
            Kept::OnDisk {
                meta: meta.clone(),
                last: Mutex::new(None),
            }
        };
        Ok(ChunkHashes::amounting_to(root, chunks, page_roots, kept))
    }

    fn amounting_to(
        root: &Hash,
        chunks: Chunks,
        page_roots: Vec<Hash>,
        kept: Kept,
    ) -> Option<ChunkHashes> {
        let first = *page_roots.first()?;
        let path = tree::page_path(&chunks, page_roots.clone(), 0);
        (tree::root_of_path(first, 0, &path) == *root).then_some(ChunkHashes {
            chunks,
            page_roots,
            kept,
        })
    }

    /// Returns the hash of one chunk; None beyond the last chunk.
    pub(crate) fn get(&self, chunk: ChunkIndex) -> io::Result<Option<Hash>> {
        match &self.kept {
            Kept::All(hashes) => Ok(hashes.get(chunk.get()).copied()),
            Kept::OnDisk { last, .. } => {
                let (page, within) = (chunk.0 / tree::PAGE_CHUNKS, chunk.0 % tree::PAGE_CHUNKS);
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((at, hashes)) = &*last
                    && *at == page
                {
                    return Ok(hashes.get(within as usize).copied());
                }
                let hashes = self.page(page)?;
                let hash = hashes.get(within as usize).copied();
                *last = Some((page, hashes));
                Ok(hash)
            }
        }
    }

    /// Returns the hashes of a page; none beyond the last page.
    fn page(&self, page: u32) -> io::Result<Vec<Hash>> {
        let range = tree::page_chunks(&self.chunks, page);
        match &self.kept {
            Kept::All(hashes) => Ok(hashes
                .get(range.start as usize..range.end as usize)
                .unwrap_or_default()
                .to_vec()),
            Kept::OnDisk { .. } if range.is_empty() => Ok(Vec::new()),
            Kept::OnDisk { meta, .. } => {
                let hashes = read_page(meta, &self.chunks, page)?;
                let root = tree::page_root(&self.chunks, &hashes);
                if self.page_roots.get(page as usize) != Some(&root) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(hashes)
            }
        }
    }

    /// Returns all hashes.
    pub(crate) fn all(&self) -> io::Result<Vec<Hash>> {
        if let Kept::All(hashes) = &self.kept {
            return Ok(hashes.clone());
        }
        let mut all = Vec::with_capacity(self.chunks.count() as usize);
        for page in 0..tree::page_count(&self.chunks) {
            all.extend(self.page(page)?);
        }
        Ok(all)
    }

    /// Returns a page with its audit path; None beyond the last page.
    pub(crate) fn proven_page(&self, page: u32) -> io::Result<Option<HashPage>> {
        let hashes = self.page(page)?;
        if hashes.is_empty() {
            return Ok(None);
        }
        let path = tree::page_path(&self.chunks, self.page_roots.clone(), page);
        Ok(Some(HashPage { hashes, path }))
    }
}

fn read_page(meta: &File, chunks: &Chunks, page: u32) -> io::Result<Vec<Hash>> {
    let range = tree::page_chunks(chunks, page);
    let mut bytes = vec![0; range.len() * 32];
    read_exact_at(
        meta,
        &mut bytes,
        Layout::of(chunks).hash_offset(range.start),
    )?;
    Ok(decode_hashes(&bytes))
}
