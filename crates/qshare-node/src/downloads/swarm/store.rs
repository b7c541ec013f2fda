//! Where the verified bytes of a download go: a part file, or the memory of readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex, Chunks, Hash, tree};
use qshare_storage::{Part, PartError};
use qshare_swarm::{RequestId, Span};

use super::super::reuse::Reuse;
use super::super::streams::Window;
use super::event::Event;
use super::span::LocalWork;
use crate::runtime::Buffer;

/// Connections outlive the last reader by this time, for one that seeks.
const LINGER: Duration = Duration::from_secs(10);

/// The destination of verified bytes. Clones are the same one.
#[derive(Clone)]
pub(super) enum Store {
    /// A part file, which keeps everything.
    Part(Arc<Part>),
    /// The window of readers in memory, which keeps what they wait for.
    Window(Arc<Window>),
}

impl Store {
    pub(super) fn has_hashes(&self) -> bool {
        match self {
            Store::Part(part) => part.has_hashes(),
            Store::Window(window) => window.has_hashes(),
        }
    }

    /// Keeps the chunk hashes. Returns the chunks that are verified now. Blocks.
    pub(super) fn set_hashes(&self, hashes: Vec<Hash>) -> Result<Bitmap, PartError> {
        match self {
            Store::Part(part) => part.set_hashes(hashes),
            Store::Window(window) => Ok(window.set_hashes(hashes)),
        }
    }

    /// Takes what local files hold. Returns the chunks that are verified now. Blocks.
    pub(super) fn reuse(&self, reuse: &Reuse) -> Result<Bitmap, PartError> {
        match self {
            Store::Part(part) => reuse.run(part),
            Store::Window(window) => Ok(window.nothing()),
        }
    }

    /// Returns the chunks that were verified before.
    pub(super) fn verified(&self) -> Bitmap {
        match self {
            Store::Part(part) => part.verified(),
            Store::Window(window) => window.nothing(),
        }
    }

    pub(super) fn is_window(&self) -> bool {
        matches!(self, Store::Window(_))
    }

    /// Waits until readers came, moved or left. A part has none.
    pub(super) async fn moved(&self) {
        match self {
            Store::Part(_) => std::future::pending().await,
            Store::Window(window) => window.moved().await,
        }
    }

    /// Returns whether there has been no reader for a while; the fetch must end then.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Store::Part(_) => false,
            Store::Window(window) => window.stop_if_idle(LINGER),
        }
    }

    fn hash(&self, chunk: ChunkIndex) -> Result<Option<Hash>, PartError> {
        match self {
            Store::Part(part) => part.hash(chunk),
            Store::Window(window) => Ok(window.hash(chunk)),
        }
    }

    /// Verifies the bytes of a span and keeps them. Blocks.
    pub(super) fn verify_and_write(
        &self,
        request: RequestId,
        chunks: &Chunks,
        span: Span,
        (bytes, path): (Buffer, &[Hash]),
        work: &LocalWork,
    ) -> Event {
        let begun = Instant::now();
        let hashed = || work.add_hashing(begun.elapsed());
        let hash = match self.hash(span.chunk) {
            Ok(Some(hash)) => hash,
            Err(PartError::Disk(error)) => return Event::Disk(error),
            _ => {
                return Event::Broken {
                    request,
                    cause: "the chunk's hash is unknown".into(),
                    moved: false,
                };
            }
        };
        let written = if span.is_whole(chunks) {
            let is_right = tree::chunk_hash(chunks, &bytes) == hash;
            hashed();
            if !is_right {
                return Event::Corrupt { request };
            }
            match self {
                Store::Part(part) => part.write_verified(span.chunk, &bytes).map(|_| ()),
                Store::Window(window) => {
                    window.put(span.chunk, bytes);
                    Ok(())
                }
            }
        } else {
            let Span {
                chunk,
                height,
                index,
            } = span;
            let is_right = tree::verify_subtree(chunks, chunk, &hash, height, index, &bytes, path);
            hashed();
            if !is_right {
                return Event::Corrupt { request };
            }
            let start = span.range(chunks).start - chunks.range(chunk).start;
            match self {
                Store::Part(part) => part.write(chunk, start, &bytes),
                Store::Window(window) => {
                    window.put_span(chunk, start, &bytes);
                    Ok(())
                }
            }
        };
        work.add_all(begun.elapsed());
        match written {
            Ok(()) => Event::Verified { request },
            Err(PartError::Disk(error)) => Event::Disk(error),
            Err(error) => Event::Broken {
                request,
                cause: error.to_string(),
                moved: false,
            },
        }
    }
}
