//! The division of a file into chunks and leaves, which follows from its length alone.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes of a leaf of the hash tree (BEP 52); the last leaf of a file may be shorter.
pub const LEAF_BYTES: u64 = 16 * 1024;

/// Largest file, in bytes (16 TiB). A length from the network is refused above it.
pub const LENGTH_MAX_BYTES: u64 = 1 << 44;

/// Smallest chunk. With smaller chunks, the cost of requests outweighs the faster spreading.
const CHUNK_MIN_BYTES: u64 = 128 * 1024;
/// Largest chunk. A larger chunk would occupy a peer's uplink for too long.
const CHUNK_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Minimum number of chunks of a file, unless its chunks have the smallest size. A file of fewer
/// chunks spreads too slowly (docs/protocol.md).
const CHUNKS_WANTED: u64 = 512;

/// Position of a chunk in its file, from 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct ChunkIndex(pub u32);

impl ChunkIndex {
    /// Returns the index as a `usize`.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// The division of a file into chunks, each an aligned power-of-two run of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    length: u64,
    chunk_bytes: u64,
}

impl Chunks {
    /// Divides a file of `length` bytes into chunks of the largest power of two not above
    /// length/512, at least 128 KiB and at most 4 MiB.
    pub fn of_length(length: u64) -> Chunks {
        let wanted = (length / CHUNKS_WANTED).max(1);
        let chunk_bytes = (1u64 << wanted.ilog2()).clamp(CHUNK_MIN_BYTES, CHUNK_MAX_BYTES);
        Chunks {
            length,
            chunk_bytes,
        }
    }

    /// Returns the length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the size in bytes of every chunk but the last, a power of two.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Returns the height of a chunk in the hash tree: a chunk has `1 << height` leaves.
    pub fn height(&self) -> u8 {
        (self.chunk_bytes / LEAF_BYTES).ilog2() as u8
    }

    /// Returns the number of chunks. An empty file has one chunk of no bytes, so that every file
    /// has a root.
    pub fn count(&self) -> u32 {
        // LENGTH_MAX_BYTES / CHUNK_MAX_BYTES = 2^22, so it fits.
        self.length.div_ceil(self.chunk_bytes).max(1) as u32
    }

    /// Returns the indices of all chunks, in order.
    pub fn indices(&self) -> impl Iterator<Item = ChunkIndex> + use<> {
        (0..self.count()).map(ChunkIndex)
    }

    /// Returns the byte range of `chunk` in the file; empty for an index beyond the last chunk.
    pub fn range(&self, chunk: ChunkIndex) -> Range<u64> {
        let start = (u64::from(chunk.0) * self.chunk_bytes).min(self.length);
        start..(start + self.chunk_bytes).min(self.length)
    }

    /// Returns the size of `chunk` in bytes.
    pub fn size(&self, chunk: ChunkIndex) -> u64 {
        let range = self.range(chunk);
        range.end - range.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn chunk_size_follows_the_rule() {
        for (length, chunk_bytes) in [
            (0, MIB / 8),
            (1, MIB / 8),
            (64 * MIB, MIB / 8),
            (128 * MIB - 1, MIB / 8),
            (128 * MIB, MIB / 4),
            (1024 * MIB, 2 * MIB),
            (2048 * MIB, 4 * MIB),
            (LENGTH_MAX_BYTES, 4 * MIB),
        ] {
            assert_eq!(
                Chunks::of_length(length).chunk_bytes(),
                chunk_bytes,
                "length {length}"
            );
        }
    }

    #[test]
    fn ranges_cover_the_file_once() {
        for length in [0, 1, LEAF_BYTES, MIB / 8, MIB / 8 + 1, 3 * MIB + 17] {
            let chunks = Chunks::of_length(length);
            let mut end = 0;
            for chunk in chunks.indices() {
                assert_eq!(chunks.range(chunk).start, end);
                end = chunks.range(chunk).end;
            }
            assert_eq!(end, length);
            assert_eq!(chunks.size(ChunkIndex(chunks.count())), 0);
        }
    }
}
