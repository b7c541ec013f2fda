//! Opening a shared file without hashing it again.

use std::fs::File;
use std::path::Path;

use qshare_content::{Chunks, ContentInfo, Hash};

use super::SharedFile;
use crate::DiskError;
use crate::folder::HashIndex;
use crate::hashing::{HashError, HashOptions, hash_opened};
use crate::index::{Entry, Hashes};
use crate::stamp::Stamp;
use crate::system::stamp_of;

impl SharedFile {
    /// Opens any file. Hashes it unless the index has its present state, and blocks until it is
    /// hashed. A failure of the index is no error.
    pub fn indexed(
        path: &Path,
        index: &HashIndex,
        options: &HashOptions,
    ) -> Result<SharedFile, HashError> {
        let failed = |error| DiskError::new("read", path, error);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        // Opening a FIFO would block until a writer opens it.
        if !metadata.is_file() {
            return Err(HashError::NotAFile(path.into()));
        }
        if let Some((info, hashes)) = known(index, &stamp_of(&metadata, path))
            && let Ok(file) = SharedFile::new(path, info, hashes)
        {
            return Ok(file);
        }
        let file = File::open(path).map_err(failed)?;
        let (hashed, stamp) = hash_opened(&file, path, options)?;
        let entry = Entry {
            stamp: Some(&stamp),
            info: &hashed.info,
            hashes: &hashed.hashes,
        };
        if let Err(error) = index.index().put([entry].into_iter(), true) {
            tracing::debug!(%error, "cannot keep the hashes of a shared file");
        }
        SharedFile::new(path, hashed.info, hashed.hashes)
    }
}

/// Returns what the index knows about a file in this state: length, root and chunk hashes.
pub(crate) fn known(index: &HashIndex, stamp: &Stamp) -> Option<(ContentInfo, Vec<Hash>)> {
    let info = index.index().files().ok()?.get(stamp)?;
    let chunks = Chunks::of_length(info.length);
    match index.index().chunk_hashes(&info, 0..chunks.count()) {
        Ok(Hashes::Found(hashes)) => Some((info, hashes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn an_unchanged_file_is_hashed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![7; 1_000_000]).unwrap();
        let hashed = Arc::new(AtomicU64::new(0));
        let counter = hashed.clone();
        let options = HashOptions {
            progress: Some(Arc::new(move |done, _| {
                counter.fetch_max(done, Ordering::Relaxed);
            })),
            ..HashOptions::default()
        };
        let state = dir.path().join("index");
        let first = {
            let index = HashIndex::open(&state).unwrap();
            SharedFile::indexed(&path, &index, &options).unwrap().info()
        };
        assert_eq!(hashed.swap(0, Ordering::Relaxed), 1_000_000);
        let index = HashIndex::open(&state).unwrap();
        let open = || SharedFile::indexed(&path, &index, &options).unwrap().info();
        assert_eq!(open(), first);
        assert_eq!(hashed.load(Ordering::Relaxed), 0);
        fs::write(&path, vec![8; 1_000_000]).unwrap();
        assert_ne!(open(), first);
        assert_eq!(hashed.load(Ordering::Relaxed), 1_000_000);
    }
}
