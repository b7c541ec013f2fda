//! The part of a chunk that a request asks for: a subtree, usually the whole chunk.

use std::ops::Range;

use qshare_content::{ChunkIndex, Chunks, LEAF_BYTES};

/// An aligned run of `1 << height` leaves inside one chunk: a subtree of the hash tree, so that it
/// can be verified by itself.
///
/// The whole chunk has the height of [`Chunks::height`] and index 0. Indices count subtrees of
/// that height within the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The chunk that contains the span.
    pub chunk: ChunkIndex,
    /// Height of the subtree above the leaves, at most that of the chunk.
    pub height: u8,
    /// Position among the chunk's subtrees of this height, from 0.
    pub index: u32,
}

impl Span {
    /// Returns the span that covers the whole of `chunk`.
    pub fn whole(chunks: &Chunks, chunk: ChunkIndex) -> Span {
        Span {
            chunk,
            height: chunks.height(),
            index: 0,
        }
    }

    /// Returns whether the span covers its whole chunk.
    pub fn is_whole(&self, chunks: &Chunks) -> bool {
        self.height >= chunks.height()
    }

    /// Returns the byte range of the file that the span covers. The range is empty if the span lies
    /// beyond the end of the chunk or of the file.
    pub fn range(&self, chunks: &Chunks) -> Range<u64> {
        let chunk = chunks.range(self.chunk);
        let bytes = LEAF_BYTES
            .checked_shl(self.height.into())
            .unwrap_or(u64::MAX);
        let start = bytes
            .saturating_mul(self.index.into())
            .saturating_add(chunk.start)
            .min(chunk.end);
        start..start.saturating_add(bytes).min(chunk.end)
    }

    /// Returns the length of the span in bytes.
    pub fn size(&self, chunks: &Chunks) -> u64 {
        let range = self.range(chunks);
        range.end - range.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_a_height_cover_a_chunk_once() {
        let chunks = Chunks::of_length(5 * LEAF_BYTES + 3);
        for height in 0..=chunks.height() {
            let mut end = 0;
            for index in 0..1 << (chunks.height() - height) {
                let span = Span {
                    chunk: ChunkIndex(0),
                    height,
                    index,
                };
                assert_eq!(span.range(&chunks).start, end);
                end = span.range(&chunks).end;
            }
            assert_eq!(end, chunks.length());
        }
    }

    #[test]
    fn absurd_spans_are_empty() {
        let chunks = Chunks::of_length(LEAF_BYTES);
        for (chunk, height, index) in [(0, 0, 1), (7, 0, 0), (0, 255, u32::MAX), (9, 63, 9)] {
            let span = Span {
                chunk: ChunkIndex(chunk),
                height,
                index,
            };
            assert_eq!(span.size(&chunks), 0, "{span:?}");
        }
    }
}
