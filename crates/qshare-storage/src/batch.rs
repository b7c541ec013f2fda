//! Small files: whole contents that are written in one go, without a meta file.

use std::path::PathBuf;

use qshare_content::ContentInfo;

use crate::{DiskError, Sync, Target};

/// Why a whole file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WholeError {
    /// A different file at the target; only `force` overwrites it.
    #[error("a different file is already at {}", .0.display())]
    Different(PathBuf),
    /// These bytes are not that content.
    #[error("the bytes for {} do not belong to this content", .0.display())]
    Mismatch(PathBuf),
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Writes a content of one chunk: under a temporary name, then renamed. An identical file that
/// is already there is left alone. Returns the final path.
pub fn write_whole(
    target: &Target,
    info: ContentInfo,
    bytes: &[u8],
    force: bool,
    sync: Sync,
) -> Result<PathBuf, WholeError> {
    let _ = (info, bytes, force, sync);
    Err(WholeError::Different(target.path()))
}

/// Many small files that become durable, and get their names, together.
///
/// Dropped without [`commit`](Self::commit), it removes what it wrote.
#[derive(Default)]
pub struct Batch {}

impl Batch {
    /// An empty batch. `force` overwrites different files.
    pub fn new(force: bool) -> Batch {
        let _ = force;
        Batch {}
    }

    /// Writes the bytes of a one-chunk content under a temporary name.
    pub fn add(
        &mut self,
        target: &Target,
        info: ContentInfo,
        bytes: &[u8],
    ) -> Result<(), WholeError> {
        let _ = (info, bytes);
        Err(WholeError::Different(target.path()))
    }

    /// Number of files that wait for [`commit`](Self::commit).
    pub fn len(&self) -> usize {
        0
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Makes all of them durable with one sync (unless `Sync::Later`) and gives them their
    /// names. The result of each, in the order of [`add`](Self::add). The batch is empty then.
    pub fn commit(&mut self, sync: Sync) -> Vec<(Target, Result<PathBuf, WholeError>)> {
        let _ = sync;
        Vec::new()
    }
}
