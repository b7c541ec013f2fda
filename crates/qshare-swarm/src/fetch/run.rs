//! The order of requests to an only source: chunks in a row, which a disk reads and writes faster
//! than scattered ones.
//!
//! A run begins at a random chunk. Several clients that know only the seed at first would otherwise
//! all request the same chunks, and have nothing to exchange.

use qshare_content::ChunkIndex;

use super::{Fetch, Peer};

impl Fetch {
    /// Makes the run of an only source begin at `chunk`, for a caller that needs the chunks in this
    /// order.
    pub fn begin_run_at(&mut self, chunk: ChunkIndex) {
        self.run_at = chunk;
    }

    /// Returns whether `peer` holds all chunks and no other peer could deliver any. Then no chunk
    /// is rarer than another.
    pub(super) fn is_only_source(&self, peer: &Peer) -> bool {
        let mut live = self.peers.values().filter(|peer| peer.dropped.is_none());
        peer.chunks.is_full() && live.nth(1).is_none()
    }
}

/// Returns where a run begins: seeds that differ little begin far from each other.
pub(super) fn beginning(seed: u64, chunks: u32) -> ChunkIndex {
    /// The odd number next to 2^64 divided by the golden ratio (Knuth, multiplicative hashing).
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = seed.wrapping_mul(GOLDEN) >> 32;
    ChunkIndex(((mixed * u64::from(chunks)) >> 32) as u32)
}
