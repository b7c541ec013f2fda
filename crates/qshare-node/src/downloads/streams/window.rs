//! The chunks of a content that readers wait for, in memory.
//!
//! Readers move through the content, each in its own range. The window holds the chunks ahead of
//! them, at most [`Window::capacity_bytes`] for all readers together, so a slow reader stops the
//! fetch. Chunks that were read are kept as long as there is room: several readers of one place
//! share them. One more chunk is held by each reader that is handing it out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentInfo, Hash, tree};
use qshare_swarm::Focus;
use tokio::sync::Notify;

use crate::error::DownloadError;
use crate::runtime::Buffer;

/// The chunks of a content in memory, and the readers that want them.
pub(crate) struct Window {
    chunks: Chunks,
    /// Bytes of chunks that are held or requested, for all readers together.
    capacity_bytes: u64,
    hashes: OnceLock<Vec<Hash>>,
    state: Mutex<State>,
    /// Wakes the fetching task: readers came, moved or left.
    moved: Notify,
    /// Wakes readers: a chunk was verified, or the fetch ended.
    arrived: Notify,
}

struct State {
    /// Chunks that can be read.
    held: HashMap<ChunkIndex, Held>,
    /// Chunks that were verified, and which the scheduler has not recorded yet.
    arrived: HashMap<ChunkIndex, Bytes>,
    /// Chunks of which some spans were verified.
    assembling: HashMap<ChunkIndex, Vec<u8>>,
    /// The chunks that each reader still wants. Ordered by age.
    readers: BTreeMap<ReaderId, Range<u32>>,
    next_reader: u64,
    /// Counts uses, to find the chunk that was not used for longest.
    uses: u64,
    /// When the last reader left.
    idle_since: Option<Instant>,
    /// Whether a task fetches for this window, or is about to.
    is_fetching: bool,
    failure: Option<Arc<DownloadError>>,
}

struct Held {
    bytes: Bytes,
    used: u64,
}

/// Identifies a reader of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReaderId(u64);

/// What a reader finds at its position.
pub(super) enum Found {
    Chunk(Bytes),
    NotYet,
    Failed(Arc<DownloadError>),
}

impl Window {
    pub(super) fn new(info: ContentInfo, capacity_bytes: u64) -> Window {
        let chunks = Chunks::of_length(info.length);
        let hashes = OnceLock::new();
        if chunks.count() == 1 {
            let _ = hashes.set(vec![info.root]);
        }
        Window {
            capacity_bytes: capacity_bytes.max(chunks.chunk_bytes()),
            chunks,
            hashes,
            state: Mutex::new(State {
                held: HashMap::new(),
                arrived: HashMap::new(),
                assembling: HashMap::new(),
                readers: BTreeMap::new(),
                next_reader: 0,
                uses: 0,
                idle_since: Some(Instant::now()),
                is_fetching: false,
                failure: None,
            }),
            moved: Notify::new(),
            arrived: Notify::new(),
        }
    }

    /// Returns how many readers may wait at once: each needs room for a chunk.
    pub(super) fn readers_max(&self) -> usize {
        (self.capacity_bytes / self.chunks.chunk_bytes().max(1)).max(1) as usize
    }

    pub(crate) fn has_hashes(&self) -> bool {
        self.hashes.get().is_some()
    }

    pub(crate) fn set_hashes(&self, hashes: Vec<Hash>) -> Bitmap {
        let _ = self.hashes.set(hashes);
        self.nothing()
    }

    pub(crate) fn nothing(&self) -> Bitmap {
        Bitmap::new(self.chunks.count())
    }

    pub(crate) fn hash(&self, chunk: ChunkIndex) -> Option<Hash> {
        self.hashes.get()?.get(chunk.get()).copied()
    }

    /// Keeps the verified bytes of a chunk until the scheduler has recorded them.
    pub(crate) fn put(&self, chunk: ChunkIndex, bytes: Buffer) {
        let bytes = Bytes::from_owner(bytes);
        self.lock().arrived.insert(chunk, bytes);
    }

    /// Keeps verified bytes of a part of a chunk.
    pub(crate) fn put_span(&self, chunk: ChunkIndex, start: u64, bytes: &[u8]) {
        let size = self.chunks.size(chunk) as usize;
        let mut state = self.lock();
        let whole = state.assembling.entry(chunk);
        let whole = whole.or_insert_with(|| vec![0; size]);
        let start = start as usize;
        if let Some(place) = whole.get_mut(start..start.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }

    /// Lets readers have a chunk that the scheduler has recorded as verified. Returns false if its
    /// bytes are not there.
    pub(crate) fn publish(&self, chunk: ChunkIndex) -> bool {
        let mut state = self.lock();
        let assembled = state.assembling.remove(&chunk);
        let bytes = match (state.arrived.remove(&chunk), assembled) {
            (Some(bytes), _) => bytes,
            // Spans of one chunk may have been forgotten in between. Rare, and some milliseconds.
            (None, Some(whole))
                if self.hash(chunk) == Some(tree::chunk_hash(&self.chunks, &whole)) =>
            {
                whole.into()
            }
            _ => return false,
        };
        state.uses += 1;
        let used = state.uses;
        state.held.insert(chunk, Held { bytes, used });
        drop(state);
        self.arrived.notify_waiters();
        true
    }

    /// Waits until readers came, moved or left since the last call.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Returns the chunks to fetch, the most urgent first, and the held ones that were discarded to
    /// make room for them.
    pub(crate) fn refocus(&self) -> (Focus, Vec<ChunkIndex>) {
        let mut state = self.lock();
        let room = self.readers_max();
        let readers = state.readers.len().clamp(1, room);
        let ahead = (room / readers).max(1) as u32;
        let mut wanted = Vec::new();
        // A small content has hundreds of chunks in the window.
        let mut known = HashSet::new();
        for step in 0..ahead {
            for range in state.readers.values().take(room) {
                let chunk = ChunkIndex(range.start.saturating_add(step));
                if range.contains(&chunk.0) && known.insert(chunk) {
                    wanted.push(chunk);
                }
            }
        }
        let is_wanted = |chunk: &ChunkIndex| known.contains(chunk);
        state.assembling.retain(|chunk, _| is_wanted(chunk));
        let mut old: Vec<(u64, ChunkIndex)> = state
            .held
            .iter()
            .filter(|(chunk, _)| !is_wanted(chunk))
            .map(|(&chunk, held)| (held.used, chunk))
            .collect();
        old.sort_unstable();
        let surplus = (old.len() + wanted.len()).saturating_sub(room);
        let discarded: Vec<ChunkIndex> = old
            .into_iter()
            .take(surplus)
            .map(|(_, chunk)| chunk)
            .collect();
        for chunk in &discarded {
            state.held.remove(chunk);
        }
        wanted.retain(|chunk| !state.held.contains_key(chunk));
        let focus = Focus {
            chunks: wanted,
            is_exclusive: true,
        };
        (focus, discarded)
    }

    /// Ends the fetch if there has been no reader for `linger`. Returns whether it ended.
    pub(crate) fn stop_if_idle(&self, linger: Duration) -> bool {
        let mut state = self.lock();
        let is_idle = state
            .idle_since
            .is_some_and(|since| since.elapsed() >= linger);
        if is_idle {
            state.is_fetching = false;
            state.held.clear();
            state.arrived.clear();
        }
        is_idle
    }

    /// Ends the fetch: readers get the error.
    pub(crate) fn fail(&self, failure: Arc<DownloadError>) {
        self.lock().failure = Some(failure);
        self.arrived.notify_waiters();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// Adds a reader of these chunks. Returns its id, and whether the fetch must be started; None
    /// if there are too many readers.
    pub(super) fn join(&self, wanted: Range<u32>) -> Option<(ReaderId, bool)> {
        let mut state = self.lock();
        if state.readers.len() >= self.readers_max() {
            return None;
        }
        let id = ReaderId(state.next_reader);
        state.next_reader += 1;
        state.readers.insert(id, wanted);
        state.idle_since = None;
        let starts = !std::mem::replace(&mut state.is_fetching, true);
        drop(state);
        self.moved.notify_one();
        Some((id, starts))
    }

    /// Moves a reader: it wants nothing before `chunk` any more.
    pub(super) fn advance(&self, id: ReaderId, chunk: u32) {
        if let Some(range) = self.lock().readers.get_mut(&id) {
            range.start = chunk;
        }
        self.moved.notify_one();
    }

    pub(super) fn leave(&self, id: ReaderId) {
        let mut state = self.lock();
        state.readers.remove(&id);
        if state.readers.is_empty() {
            state.idle_since = Some(Instant::now());
        }
        drop(state);
        self.moved.notify_one();
    }

    /// Returns a chunk if it is there.
    pub(super) fn get(&self, chunk: ChunkIndex) -> Found {
        let mut state = self.lock();
        state.uses += 1;
        let uses = state.uses;
        if let Some(held) = state.held.get_mut(&chunk) {
            held.used = uses;
            return Found::Chunk(held.bytes.clone());
        }
        match &state.failure {
            Some(failure) => Found::Failed(failure.clone()),
            None => Found::NotYet,
        }
    }

    /// Waits for a chunk.
    pub(super) async fn wait_for(&self, chunk: ChunkIndex) -> Result<Bytes, Arc<DownloadError>> {
        loop {
            let arrived = self.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            // Registered before the look, so that no arrival is missed.
            arrived.as_mut().enable();
            match self.get(chunk) {
                Found::Chunk(bytes) => return Ok(bytes),
                Found::Failed(failure) => return Err(failure),
                Found::NotYet => arrived.await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::BufferPool;

    const CHUNK: usize = 128 << 10;

    /// A content of `count` chunks, and a window for `room` of them.
    fn window(count: usize, room: usize) -> (Window, Vec<u8>) {
        let bytes: Vec<u8> = (0..count * CHUNK).map(|at| (at / 1000) as u8).collect();
        let chunks = Chunks::of_length(bytes.len() as u64);
        let info = ContentInfo {
            length: bytes.len() as u64,
            root: Hash([0; 32]),
        };
        let window = Window::new(info, (room * CHUNK) as u64);
        let hashes = chunks.indices().map(|chunk| {
            let range = chunks.range(chunk);
            tree::chunk_hash(&chunks, &bytes[range.start as usize..range.end as usize])
        });
        window.set_hashes(hashes.collect());
        (window, bytes)
    }

    fn deliver(window: &Window, bytes: &[u8], chunk: u32) {
        let mut buffer = BufferPool::new(0).take(CHUNK);
        buffer.copy_from_slice(&bytes[chunk as usize * CHUNK..][..CHUNK]);
        window.put(ChunkIndex(chunk), buffer);
        assert!(window.publish(ChunkIndex(chunk)));
    }

    fn wanted(window: &Window) -> Vec<u32> {
        let (focus, _) = window.refocus();
        focus.chunks.iter().map(|chunk| chunk.0).collect()
    }

    #[test]
    fn a_reader_wants_the_chunks_ahead_of_it_and_a_slow_one_no_more() {
        let (window, bytes) = window(20, 4);
        let (reader, _) = window.join(2..20).unwrap();
        assert_eq!(wanted(&window), [2, 3, 4, 5]);
        for chunk in 2..6 {
            deliver(&window, &bytes, chunk);
        }
        assert!(wanted(&window).is_empty(), "back-pressure");
        window.advance(reader, 3);
        let (focus, discarded) = window.refocus();
        assert_eq!(focus.chunks, [ChunkIndex(6)]);
        assert_eq!(discarded, [ChunkIndex(2)]);
        window.leave(reader);
        assert!(wanted(&window).is_empty());
        assert!(!window.stop_if_idle(Duration::from_secs(3600)));
        assert!(window.stop_if_idle(Duration::ZERO));
        // The next reader starts the fetch again, with nothing held.
        let (_, starts) = window.join(2..20).unwrap();
        assert!(starts && matches!(window.get(ChunkIndex(3)), Found::NotYet));
    }

    #[test]
    fn readers_share_chunks_and_the_room() {
        let (window, bytes) = window(20, 4);
        let (_a, _) = window.join(0..20).unwrap();
        let (_b, _) = window.join(10..12).unwrap();
        assert_eq!(wanted(&window), [0, 10, 1, 11]);
        let (_c, _) = window.join(10..20).unwrap();
        deliver(&window, &bytes, 10);
        assert!(matches!(window.get(ChunkIndex(10)), Found::Chunk(_)));
        assert_eq!(wanted(&window), [0]);
        let (_d, _) = window.join(15..20).unwrap();
        assert!(window.join(0..20).is_none());
    }

    #[test]
    fn chunks_that_were_read_are_kept_while_there_is_room() {
        let (window, bytes) = window(20, 4);
        let (reader, _) = window.join(0..1).unwrap();
        deliver(&window, &bytes, 0);
        window.leave(reader);
        let (reader, _) = window.join(5..7).unwrap();
        assert_eq!(wanted(&window), [5, 6]);
        assert!(matches!(window.get(ChunkIndex(0)), Found::Chunk(_)));
        window.leave(reader);
        let (_reader, _) = window.join(5..20).unwrap();
        assert_eq!(window.refocus().1, [ChunkIndex(0)]);
    }

    #[test]
    fn spans_make_a_chunk_only_if_all_of_them_are_there() {
        let (window, bytes) = window(4, 4);
        let (_reader, _) = window.join(0..4).unwrap();
        let half = CHUNK / 2;
        window.put_span(ChunkIndex(0), 0, &bytes[..half]);
        assert!(!window.publish(ChunkIndex(0)));
        window.put_span(ChunkIndex(0), 0, &bytes[..half]);
        window.put_span(ChunkIndex(0), half as u64, &bytes[half..CHUNK]);
        assert!(window.publish(ChunkIndex(0)));
    }
}
