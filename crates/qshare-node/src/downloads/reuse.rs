//! Reuse: chunks that files of this machine hold are not fetched. [`Part::reuse`] proves each of
//! them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qshare_content::{Bitmap, ContentInfo};
use qshare_storage::{Part, PartError, ReuseHooks, SingleChunk};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::download::DownloadState;
use super::request::DownloadRequest;
use crate::shares::ShareStore;
use crate::vocabulary::{Progress, Stage};

/// The reuse of local chunks by one download. Clones share the count.
#[derive(Clone)]
pub(super) struct Reuse {
    same: Arc<[PathBuf]>,
    bytes: Arc<AtomicU64>,
    stop: CancellationToken,
    progress: watch::Sender<Progress>,
}

impl Reuse {
    pub(super) fn new(
        request: &DownloadRequest,
        shares: &ShareStore,
        state: &DownloadState,
    ) -> Reuse {
        Reuse {
            same: copies(request, shares).into(),
            bytes: Arc::default(),
            stop: state.stop.clone(),
            progress: state.progress.clone(),
        }
    }

    /// Takes what local files hold. Returns all verified chunks. Blocks.
    pub(super) fn run(&self, part: &Part) -> Result<Bitmap, PartError> {
        let on_taken = |bytes| {
            let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
            self.progress.send_modify(|progress| {
                progress.stage = Stage::Recovering;
                progress.reused_bytes = all;
                progress.verified_bytes += bytes;
            });
        };
        let hooks = ReuseHooks {
            should_stop: &|| self.stop.is_cancelled(),
            on_taken: &on_taken,
        };
        part.reuse(&self.same, &hooks)?;
        Ok(part.verified())
    }

    /// Returns the bytes that were taken so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Returns the paths of files that are said to hold the content: those of the same folder and those
/// that this node shares.
pub(super) fn copies(request: &DownloadRequest, shares: &ShareStore) -> Vec<PathBuf> {
    let id = request.info.id();
    let of_folder = request.membership().and_then(|membership| {
        let folder = &membership.collection.folder;
        // A directory that is received has the files under their names.
        folder.path(folder.find(&id)?)
    });
    of_folder.into_iter().chain(shares.path(&id)).collect()
}

/// Reads a content of one chunk from one of the files that are said to hold it. Blocks.
pub(super) fn read_single(info: ContentInfo, same: &[PathBuf]) -> Option<SingleChunk> {
    let is_candidate = |path: &&PathBuf| {
        let metadata = path.metadata();
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == info.length)
    };
    let mut candidates = same.iter().filter(is_candidate);
    candidates.find_map(|path| SingleChunk::verified(info, std::fs::read(path).ok()?))
}
