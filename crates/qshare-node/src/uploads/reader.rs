//! Reads the bytes of an answer, block by block, each within the memory budget.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use qshare_content::{ChunkIndex, Chunks, Hash, LEAF_BYTES, tree};
use qshare_storage::ReadError;
use qshare_swarm::PeerKey;
use qshare_wire::Refused;
use tracing::debug;

use super::memory_budget::{Charged, MemoryBudget, Share};
use super::queue::Turn;
use super::refuse::refuse_read;
use crate::runtime::{BlockingBatch, Buffer, BufferPool, blocking};
use crate::shares::{Holding, ShareStore};

/// Reads of at most this many bytes are combined with others in one task of a blocking thread.
const SMALL_READ_BYTES: u64 = 16 * 1024;
/// Size of a block, which is read at once. The largest chunk has four times as many bytes.
const BLOCK_BYTES: u64 = 1 << 20;

/// The subtree of a chunk that a request names.
pub(super) struct Subtree {
    pub(super) chunk: ChunkIndex,
    /// Its bytes in the file.
    pub(super) range: Range<u64>,
    /// Its position among the subtrees of the same height in the chunk.
    pub(super) index_in_chunk: u32,
}

impl Subtree {
    /// Returns the subtree of this height and index; None if the content has none.
    pub(super) fn new(chunks: &Chunks, height: u8, index: u64) -> Option<Subtree> {
        if height > chunks.height() {
            return None;
        }
        let start = index.checked_mul(LEAF_BYTES << height)?;
        let end = start
            .checked_add(LEAF_BYTES << height)?
            .min(chunks.length());
        // An empty file has one chunk of no bytes.
        if start >= chunks.length() && !(start == 0 && chunks.length() == 0) {
            return None;
        }
        let chunk = ChunkIndex(u32::try_from(start / chunks.chunk_bytes()).ok()?);
        let per_chunk = 1u64 << (chunks.height() - height);
        let index_in_chunk = u32::try_from(index % per_chunk).ok()?;
        Some(Subtree {
            chunk,
            range: start..end,
            index_in_chunk,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// What reading needs, over all answers.
pub(super) struct ReadAccess {
    pub(super) shares: Arc<ShareStore>,
    pub(super) buffers: Arc<BufferPool>,
    pub(super) batch: Arc<BlockingBatch>,
    pub(super) memory: Arc<MemoryBudget>,
}

/// Reads one answer.
pub(super) struct Reader<'a> {
    pub(super) access: &'a ReadAccess,
    pub(super) client: PeerKey,
    pub(super) holding: Holding,
    pub(super) chunks: Chunks,
    pub(super) chunk: ChunkIndex,
}

/// The first block of an answer.
pub(super) struct First {
    pub(super) data: Bytes,
    /// The audit path.
    pub(super) path: Vec<Hash>,
    /// Bytes that are read once `data` was sent.
    pub(super) later: Range<u64>,
}

impl Reader<'_> {
    /// Reads the first block, and computes the audit path of `path_levels` hashes.
    pub(super) async fn first(
        &self,
        turn: &Turn,
        wanted: &Subtree,
        height: u8,
        path_levels: usize,
    ) -> Result<First, Refused> {
        let mut later = wanted.range.clone();
        let (data, path) = match path_levels {
            0 => (self.block(turn, &mut later).await?, Vec::new()),
            levels => {
                self.with_path(turn, wanted, height, levels, &mut later)
                    .await?
            }
        };
        Ok(First { data, path, later })
    }

    /// Reads the next block, and removes it from `unread`.
    pub(super) async fn block(
        &self,
        turn: &Turn,
        unread: &mut Range<u64>,
    ) -> Result<Bytes, Refused> {
        let (share, range) = self.memory_for_block(turn, unread).await;
        Ok(Charged::answer(self.read(range).await?, share))
    }

    /// Reads the first block with the audit path of `wanted`, for which the whole chunk is hashed.
    /// The rest of the chunk is not kept while the block is sent.
    async fn with_path(
        &self,
        turn: &Turn,
        wanted: &Subtree,
        height: u8,
        levels: usize,
        unread: &mut Range<u64>,
    ) -> Result<(Bytes, Vec<Hash>), Refused> {
        let whole = self.chunks.range(self.chunk);
        let (share, range) = self.memory_for_block(turn, unread).await;
        let _work = self.access.memory.work(whole.end - whole.start).await;
        let read = self.read(whole.clone()).await?;
        let (chunks, index) = (self.chunks, wanted.index_in_chunk);
        let block = (range.start - whole.start) as usize..(range.end - whole.start) as usize;
        let prove = move || {
            let leaves = tree::leaf_hashes(&read);
            let mut path = tree::subtree_path(&chunks, leaves, height, index);
            path.truncate(levels);
            let block: Box<[u8]> = read.get(block).unwrap_or_default().into();
            (Charged::answer(block, share), path)
        };
        Ok(blocking(prove).await)
    }

    /// Waits for memory for the next block, or for as much of it as the client may have now, and
    /// removes that from `unread`. An answer that waits for memory counts as blocked.
    async fn memory_for_block(&self, turn: &Turn, unread: &mut Range<u64>) -> (Share, Range<u64>) {
        let most_bytes = (unread.end - unread.start).min(BLOCK_BYTES);
        let memory = &self.access.memory;
        let share = match memory.try_take(self.client, most_bytes) {
            Some(share) => share,
            None => {
                let _blocked = turn.block();
                memory.take(self.client, most_bytes).await
            }
        };
        let range = unread.start..unread.start + share.bytes();
        unread.start = range.end;
        (share, range)
    }

    async fn read(&self, range: Range<u64>) -> Result<Buffer, Refused> {
        let bytes = range.end - range.start;
        let (shares, buffers) = (self.access.shares.clone(), self.access.buffers.clone());
        let (holding, chunk) = (self.holding.clone(), self.chunk);
        let content = holding.info().id();
        let read = move || {
            let mut data = buffers.take(bytes as usize);
            shares.read_into(&holding, chunk, range.start, &mut data)?;
            Ok(data)
        };
        let read = match bytes <= SMALL_READ_BYTES {
            true => self.access.batch.run(read).await,
            false => blocking(read).await,
        };
        read.map_err(|error: ReadError| {
            debug!(%content, %error, "cannot read");
            refuse_read(&error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_lies_within_one_chunk_and_the_file() {
        let chunks = Chunks::of_length((8 << 20) + 1);
        let height = chunks.height();
        let last = Subtree::new(&chunks, height, u64::from(chunks.count()) - 1).unwrap();
        assert_eq!((last.chunk.0, last.bytes()), (chunks.count() - 1, 1));
        assert!(Subtree::new(&chunks, height, chunks.count().into()).is_none());
        assert!(Subtree::new(&chunks, height + 1, 0).is_none());
        assert!(Subtree::new(&chunks, 0, u64::MAX).is_none());
        let leaf = Subtree::new(&chunks, 0, 3).unwrap();
        let third = 3 * LEAF_BYTES..4 * LEAF_BYTES;
        assert_eq!((leaf.range, leaf.index_in_chunk), (third, 3));
    }

    #[test]
    fn an_empty_file_has_one_empty_chunk() {
        let chunks = Chunks::of_length(0);
        let empty = Subtree::new(&chunks, 0, 0).unwrap();
        assert_eq!(empty.bytes(), 0);
        assert!(Subtree::new(&chunks, 0, 1).is_none());
    }
}
