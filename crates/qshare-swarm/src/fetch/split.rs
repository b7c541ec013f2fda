//! An urgent chunk: divided into spans that are requested separately.

use std::collections::BTreeSet;

use qshare_content::{ChunkIndex, Chunks, LEAF_BYTES};

use crate::Span;

/// Most spans of a divided chunk. Several peers can share the chunk, and answers stay large in
/// comparison with their proofs.
const SPANS_MAX: u64 = 16;

/// The open spans of a divided chunk, and the verified ones.
#[derive(Debug)]
pub(super) struct Split {
    chunk: ChunkIndex,
    height: u8,
    open: BTreeSet<u32>,
    unverified: BTreeSet<u32>,
}

impl Split {
    /// Divides `chunk` among `holders` peers into spans of at least `span_min_bytes`. Returns None
    /// if one span would cover the whole chunk.
    pub(super) fn new(
        chunks: &Chunks,
        chunk: ChunkIndex,
        holders: usize,
        span_min_bytes: u64,
    ) -> Option<Split> {
        let parts = (holders as u64).clamp(1, SPANS_MAX).next_power_of_two();
        let span_bytes = (chunks.chunk_bytes() / parts)
            .max(span_min_bytes.max(LEAF_BYTES).checked_next_power_of_two()?);
        let height = (span_bytes / LEAF_BYTES).ilog2() as u8;
        let count = chunks.size(chunk).div_ceil(span_bytes) as u32;
        (count > 1).then(|| Split {
            chunk,
            height,
            open: (0..count).collect(),
            unverified: (0..count).collect(),
        })
    }

    /// Returns any open span.
    pub(super) fn next_open(&self) -> Option<Span> {
        self.open.first().map(|&index| self.span(index))
    }

    /// Returns the open spans.
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(super) fn take(&mut self, span: Span) -> bool {
        span.height == self.height && self.open.remove(&span.index)
    }

    /// Opens a span again.
    pub(super) fn open(&mut self, span: Span) {
        if span.height == self.height && self.unverified.contains(&span.index) {
            self.open.insert(span.index);
        }
    }

    /// Records that a span was verified; returns whether the chunk is now complete.
    pub(super) fn verify(&mut self, span: Span) -> bool {
        if span.height == self.height {
            self.unverified.remove(&span.index);
            self.open.remove(&span.index);
        }
        self.unverified.is_empty()
    }

    fn span(&self, index: u32) -> Span {
        Span {
            chunk: self.chunk,
            height: self.height,
            index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn every_span_is_asked_for_once_and_completes_the_chunk() {
        let chunks = Chunks::of_length(1024 * KIB + 100 * KIB);
        let mut split = Split::new(&chunks, ChunkIndex(0), 5, 16 * KIB).unwrap();
        let mut bytes = 0;
        let mut spans = Vec::new();
        while let Some(span) = split.next_open() {
            assert!(split.take(span));
            bytes += span.size(&chunks);
            spans.push(span);
        }
        assert_eq!(bytes, chunks.size(ChunkIndex(0)));
        assert_eq!(spans.len(), 8);
        let last = spans.pop().unwrap();
        for span in spans {
            assert!(!split.verify(span));
            split.open(span);
            assert_eq!(
                split.open_count(),
                0,
                "verified spans are not asked for again"
            );
        }
        assert!(split.verify(last));
    }

    #[test]
    fn a_short_last_chunk_has_no_empty_spans() {
        let chunks = Chunks::of_length(128 * KIB + 70 * KIB);
        let split = Split::new(&chunks, ChunkIndex(1), 16, 64 * KIB).unwrap();
        assert_eq!(split.open_count(), 2);
        assert!(Split::new(&chunks, ChunkIndex(0), 1, 64 * KIB).is_none());
        assert!(Split::new(&Chunks::of_length(1), ChunkIndex(0), 9, 0).is_none());
    }
}
