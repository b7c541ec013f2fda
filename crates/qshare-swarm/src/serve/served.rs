//! Counts how often each chunk was served, so that a server answers requests for the rarest first.

use std::collections::BTreeMap;

use qshare_content::{ChunkIndex, ContentId};

/// Counters of one content. Chunks beyond this number share counters with earlier ones. Sharing
/// blurs the order slightly, and limits a table of 4-byte counters to 256 KiB.
const COUNTERS_MAX: usize = 1 << 16;

/// Served counts of the contents that were requested most recently.
#[derive(Debug)]
pub(super) struct Served {
    tables: BTreeMap<ContentId, Table>,
    contents_max: usize,
    clock: u64,
}

#[derive(Debug, Default)]
struct Table {
    counts: Vec<u32>,
    last_start: u64,
}

impl Served {
    pub(super) fn new(contents_max: usize) -> Served {
        Served {
            tables: BTreeMap::new(),
            contents_max: contents_max.max(1),
            clock: 0,
        }
    }

    /// Returns how often `chunk` was served.
    pub(super) fn count(&self, content: &ContentId, chunk: ChunkIndex) -> u32 {
        self.tables
            .get(content)
            .and_then(|table| table.counts.get(chunk.get() % COUNTERS_MAX))
            .copied()
            .unwrap_or(0)
    }

    /// Returns the turn of `content`; the content that was served longest ago has the lowest.
    pub(super) fn turn(&self, content: &ContentId) -> u64 {
        self.tables.get(content).map_or(0, |table| table.last_start)
    }

    /// Counts a response for `chunk` that starts.
    pub(super) fn add(&mut self, content: ContentId, chunk: ChunkIndex) {
        self.clock += 1;
        if !self.tables.contains_key(&content) && self.tables.len() >= self.contents_max {
            let oldest = self.tables.iter().min_by_key(|(_, table)| table.last_start);
            if let Some(oldest) = oldest.map(|(&content, _)| content) {
                self.tables.remove(&oldest);
            }
        }
        let table = self.tables.entry(content).or_default();
        table.last_start = self.clock;
        let at = chunk.get() % COUNTERS_MAX;
        if table.counts.len() <= at {
            table.counts.resize(at + 1, 0);
        }
        if let Some(count) = table.counts.get_mut(at) {
            *count = count.saturating_add(1);
        }
    }

    /// Reverts a count, because the response was cut short and no client received the chunk.
    pub(super) fn take_back(&mut self, content: &ContentId, chunk: ChunkIndex) {
        let table = self.tables.get_mut(content);
        if let Some(count) =
            table.and_then(|table| table.counts.get_mut(chunk.get() % COUNTERS_MAX))
        {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qshare_content::ContentInfo;

    fn content(length: u64) -> ContentId {
        let root = qshare_content::tree::leaf_hash(&[]);
        ContentInfo { length, root }.id()
    }

    #[test]
    fn contents_and_chunks_are_bounded() {
        let mut served = Served::new(3);
        for length in 0..10 {
            served.add(content(length), ChunkIndex(u32::MAX));
            served.add(content(length), ChunkIndex(length as u32));
        }
        assert_eq!(served.tables.len(), 3);
        assert!(
            served
                .tables
                .values()
                .all(|table| table.counts.len() <= COUNTERS_MAX)
        );
        assert_eq!(served.count(&content(9), ChunkIndex(9)), 1);
        assert_eq!(served.count(&content(0), ChunkIndex(0)), 0);
    }
}
