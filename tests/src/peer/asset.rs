//! A file of a peer: its bytes, hashes and proofs.

use std::ops::Range;

use qshare_content::{AssetName, Chunks, ContentInfo, Hash, tree};
use qshare_wire::peer::ChunkRequest;

use crate::files;

/// Chunk size of files of 2 GiB and more.
const LARGEST_CHUNK_BYTES: u64 = 4 << 20;

/// A file that a peer has.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) name: AssetName,
    pub(super) info: ContentInfo,
    body: Body,
    hashes: Vec<Hash>,
}

/// The bytes of a file.
#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    /// Zeros, for files that do not fit into memory.
    Zeros,
}

impl Asset {
    pub(super) fn of_bytes(name: &str, bytes: &[u8]) -> Asset {
        Asset {
            name: AssetName::new(name).unwrap(),
            info: files::info(bytes),
            body: Body::Bytes(bytes.to_vec()),
            hashes: files::chunk_hashes(bytes),
        }
    }

    /// Makes a file of `chunk_count` chunks of the largest size, all zeros.
    pub(super) fn of_zeros(name: &str, chunk_count: u32) -> Asset {
        let length = u64::from(chunk_count) * LARGEST_CHUNK_BYTES;
        let chunks = Chunks::of_length(length);
        assert_eq!(chunks.count(), chunk_count);
        let chunk = vec![0; LARGEST_CHUNK_BYTES as usize];
        let hashes = vec![tree::chunk_hash(&chunks, &chunk); chunk_count as usize];
        let root = tree::root_of_chunks(&chunks, &hashes);
        Asset {
            name: AssetName::new(name).unwrap(),
            info: ContentInfo { length, root },
            body: Body::Zeros,
            hashes,
        }
    }

    pub(super) fn read(&self, range: Range<u64>) -> Vec<u8> {
        match &self.body {
            Body::Bytes(bytes) => bytes[range.start as usize..range.end as usize].to_vec(),
            Body::Zeros => vec![0; (range.end - range.start) as usize],
        }
    }

    /// Returns a page of its chunk hashes, with the proof up to the root.
    pub(super) fn page(&self, page: u32) -> (Vec<Hash>, Vec<Hash>) {
        let chunks = Chunks::of_length(self.info.length);
        let of = |page| {
            let range = tree::page_chunks(&chunks, page);
            &self.hashes[range.start as usize..range.end as usize]
        };
        let roots = (0..tree::page_count(&chunks)).map(|page| tree::page_root(&chunks, of(page)));
        let path = tree::page_path(&chunks, roots.collect(), page);
        (of(page).to_vec(), path)
    }

    /// Returns the proof of the requested span up to its chunk's hash.
    pub(super) fn audit_path(&self, request: &ChunkRequest) -> Vec<Hash> {
        if request.path_levels == 0 {
            return Vec::new();
        }
        let chunks = Chunks::of_length(self.info.length);
        let per_chunk = 1u64 << (chunks.height() - request.height);
        let start = request.index / per_chunk * chunks.chunk_bytes();
        let end = (start + chunks.chunk_bytes()).min(self.info.length);
        let leaves = tree::leaf_hashes(&self.read(start..end));
        let index = u32::try_from(request.index % per_chunk).unwrap();
        let mut path = tree::subtree_path(&chunks, leaves, request.height, index);
        path.truncate(usize::from(request.path_levels));
        path
    }
}
