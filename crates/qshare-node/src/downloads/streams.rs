//! Contents that are read in order while they are fetched.
//!
//! Bytes live in memory only, in a window ahead of each reader: a content larger than the disk can
//! be piped, and a slow reader stops the fetch instead of filling a directory. What this node
//! shares or has downloaded is read from there. Readers of one content share a window, its chunks
//! and its connections.

mod window;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use qshare_content::{ChunkIndex, Chunks, ContentId, ContentInfo, Topic};

use super::download::Download;
use crate::error::DownloadError;
use crate::runtime::blocking;
use crate::shares::{Found, ShareStore};
use crate::vocabulary::Progress;
use window::ReaderId;
pub(crate) use window::Window;

/// Contents that are read at once. Each takes [`crate::Limits::stream_bytes`].
const CONTENTS_MAX: usize = 8;
/// Bytes that are read from a local file at once.
const LOCAL_READ_BYTES: u64 = 1 << 20;

/// Why a content cannot be read, or read on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The limit of contents that are read at once is reached.
    #[error("too many contents are being read at once: at most {limit}")]
    TooManyContents {
        /// The limit.
        limit: usize,
    },
    /// This content is being read at other places.
    #[error("the content is being read at too many places at once: at most {limit}")]
    TooManyReaders {
        /// The limit.
        limit: usize,
    },
    /// The fetch failed, or the node stops.
    #[error(transparent)]
    Failed(Arc<DownloadError>),
}

/// All contents that are being read.
pub(super) struct Streams {
    stream_bytes: u64,
    open: Mutex<HashMap<ContentId, Weak<Stream>>>,
}

/// A content that is being read.
pub(super) struct Stream {
    info: ContentInfo,
    window: Arc<Window>,
    /// The fetch, once a reader needed it.
    fetch: Mutex<Option<Download>>,
}

impl Streams {
    pub(super) fn new(stream_bytes: u64) -> Arc<Streams> {
        Arc::new(Streams {
            stream_bytes,
            open: Mutex::default(),
        })
    }

    /// Returns the stream of a content, which ends with its last reader.
    pub(super) fn open(&self, info: ContentInfo) -> Result<Arc<Stream>, StreamError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, stream| stream.strong_count() > 0);
        let id = info.id();
        let known = open.get(&id).and_then(Weak::upgrade);
        if let Some(stream) = known.filter(|stream| !stream.window.has_failed()) {
            return Ok(stream);
        }
        if open.len() >= CONTENTS_MAX && !open.contains_key(&id) {
            let limit = CONTENTS_MAX;
            return Err(StreamError::TooManyContents { limit });
        }
        let stream = Arc::new(Stream {
            info,
            window: Arc::new(Window::new(info, self.stream_bytes)),
            fetch: Mutex::default(),
        });
        open.insert(id, Arc::downgrade(&stream));
        Ok(stream)
    }
}

/// Starts the fetch for a window.
type StartFetch = Box<dyn Fn(Arc<Window>) -> Download + Send + Sync>;

/// Reads a range of a content in order, while it is fetched.
///
/// [`next`](Self::next) returns verified bytes only. The node fetches a window ahead of the reader
/// and stops when the window is full, so a slow reader costs no more memory. Dropping the reader
/// stops the fetch, unless other readers read the same content. Several readers of one content
/// share its chunks.
pub struct ContentReader {
    stream: Arc<Stream>,
    chunks: Chunks,
    shares: Arc<ShareStore>,
    /// The topic of the private share that the content belongs to; None if it is public.
    topic: Option<Topic>,
    position: u64,
    end: u64,
    /// The place in the window, once the bytes could not be read from this machine's files.
    place: Option<ReaderId>,
    start_fetch: StartFetch,
}

impl ContentReader {
    pub(super) fn new(
        stream: Arc<Stream>,
        shares: Arc<ShareStore>,
        topic: Option<Topic>,
        range: Range<u64>,
        start_fetch: StartFetch,
    ) -> ContentReader {
        let end = range.end.min(stream.info.length);
        ContentReader {
            chunks: Chunks::of_length(stream.info.length),
            position: range.start.min(end),
            end,
            stream,
            shares,
            topic,
            place: None,
            start_fetch,
        }
    }

    /// Returns length and root of the content.
    pub fn info(&self) -> ContentInfo {
        self.stream.info
    }

    /// Returns the offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the offset after the last byte that will be read.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Returns the progress of the fetch: sources, rate, and why nothing comes; None while the
    /// bytes come from this machine's files.
    pub fn progress(&self) -> Option<Progress> {
        let fetch = self.stream.fetch.lock();
        let fetch = fetch.unwrap_or_else(PoisonError::into_inner);
        fetch.as_ref().map(Download::progress)
    }

    /// Returns the next bytes, at most a chunk; None at the end of the range. May be cancelled: no
    /// bytes are lost.
    ///
    /// # Errors
    ///
    /// When the content has no source for as long as the request allows, or the node stops.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.position >= self.end {
            self.leave();
            return Ok(None);
        }
        let chunk = self.chunk();
        let bytes = match self.read_local(chunk).await {
            Some(bytes) => bytes,
            None => self.read_window(chunk).await?,
        };
        self.position += bytes.len() as u64;
        if let Some(id) = self.place {
            match self.position < self.end {
                true => self.stream.window.advance(id, self.chunk().0),
                false => self.leave(),
            }
        }
        Ok(Some(bytes))
    }

    /// Returns the chunk of the next byte.
    fn chunk(&self) -> ChunkIndex {
        ChunkIndex((self.position / self.chunks.chunk_bytes()) as u32)
    }

    /// Reads from a shared file, a finished download or an unfinished one.
    async fn read_local(&self, chunk: ChunkIndex) -> Option<Bytes> {
        let private = || match self.shares.find_private(self.topic.as_ref()?)? {
            (Found::Holding(holding), _) => Some(holding),
            (Found::Changed, _) => None,
        };
        let holding = self.shares.find(&self.stream.info.id()).or_else(private)?;
        if !holding.has(chunk) {
            return None;
        }
        let range = self.chunks.range(chunk);
        let end = self.end.min(range.end);
        let length = (end - self.position).min(LOCAL_READ_BYTES) as usize;
        let offset = self.position;
        let shares = self.shares.clone();
        blocking(move || {
            let mut bytes = vec![0; length];
            // A file that changed, or vanished, is fetched from others.
            let read = shares.read_into(&holding, chunk, offset, &mut bytes);
            read.ok().map(|()| bytes.into())
        })
        .await
    }

    async fn read_window(&mut self, chunk: ChunkIndex) -> Result<Bytes, StreamError> {
        let window = self.stream.window.clone();
        if self.place.is_none() {
            let end = self.end.div_ceil(self.chunks.chunk_bytes()) as u32;
            let limit = window.readers_max();
            let joined = window.join(chunk.0..end);
            let (place, starts) = joined.ok_or(StreamError::TooManyReaders { limit })?;
            self.place = Some(place);
            if starts {
                let fetch = self.stream.fetch.lock();
                let mut fetch = fetch.unwrap_or_else(PoisonError::into_inner);
                *fetch = Some((self.start_fetch)(window.clone()));
            }
        }
        let bytes = window.wait_for(chunk).await.map_err(StreamError::Failed)?;
        let start = self.chunks.range(chunk).start;
        let from = (self.position - start) as usize;
        let to = ((self.end - start) as usize).min(bytes.len());
        Ok(bytes.slice(from..to))
    }

    fn leave(&mut self) {
        if let Some(id) = self.place.take() {
            self.stream.window.leave(id);
        }
    }
}

impl Drop for ContentReader {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let fetch = self.fetch.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetch) = fetch.take() {
            fetch.stop();
        }
    }
}
