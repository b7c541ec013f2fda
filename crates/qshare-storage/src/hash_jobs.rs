//! The threads that hash shared files, one file after another.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use qshare_content::AssetName;

use crate::DiskError;
use crate::hashing::{HashError, HashOptions, HashedFile, hash_opened, hash_snapshot};
use crate::index::panic_message;
use crate::library_state::LibraryState;
use crate::offered_files::Key;
use crate::own_files::{OwnFile, recognise};
use crate::stamp::Stamp;

/// From this length on a file is hashed by all threads, one such file at a time.
const LARGE_BYTES: u64 = 32 * 1024 * 1024;

/// A file to be hashed.
pub(crate) struct HashJob {
    pub(crate) key: Arc<Key>,
    pub(crate) name: AssetName,
    /// What it looked like when the job was made.
    pub(crate) stamp: Stamp,
    /// Whether it is hashed although it may change under way.
    pub(crate) snapshot: bool,
}

/// What became of a job.
pub(crate) struct Hashed {
    pub(crate) file: HashedFile,
    /// What the file looked like: before and after, unless the job is for a snapshot.
    pub(crate) stamp: Stamp,
}

/// Why a job brought no hashes.
pub(crate) enum HashJobError {
    /// The file is one of qshare's own.
    Own(OwnFile),
    /// The file could not be hashed.
    Hash(HashError),
    /// An internal error.
    Panicked(String),
}

impl<E: Into<HashError>> From<E> for HashJobError {
    fn from(error: E) -> HashJobError {
        HashJobError::Hash(error.into())
    }
}

/// Hashes files until there are no more jobs, or `done` returns false.
pub(crate) fn hash_jobs(
    state: &LibraryState,
    jobs: &Mutex<Receiver<HashJob>>,
    done: impl Fn(HashJob, Result<Hashed, HashJobError>) -> bool,
) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if state.cancel.is_cancelled() {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| hash_one(state, &job)))
            .unwrap_or_else(|panic| Err(HashJobError::Panicked(panic_message(&*panic))));
        if !done(job, result) {
            return;
        }
    }
}

fn hash_one(state: &LibraryState, job: &HashJob) -> Result<Hashed, HashJobError> {
    let path = state.roots.full_path(&job.key);
    let failed = |error: io::Error| DiskError::new("read", &path, error);
    let large = job.stamp.size >= LARGE_BYTES;
    let _turn = large.then(|| state.large_file_turn());
    let (file, metadata) = state.roots.open(&job.key).map_err(failed)?;
    let file_name = job.key.relative.file_name().unwrap_or_default();
    if metadata.is_file()
        && let Some(own) = recognise(&file, file_name, metadata.len()).map_err(failed)?
    {
        return Err(HashJobError::Own(own));
    }
    // The hashing threads tell how far the file is; what is new since the last call counts.
    let (told, hashed_bytes) = (AtomicU64::new(0), state.hashed_bytes_counter());
    let progress = move |done, _| {
        let before = told.fetch_max(done, Ordering::Relaxed);
        hashed_bytes.fetch_add(done.saturating_sub(before), Ordering::Relaxed);
    };
    let options = HashOptions {
        threads: if large { state.threads } else { 1 },
        cancel: state.cancel.clone(),
        progress: Some(Arc::new(progress)),
    };
    let (file, stamp) = if job.snapshot {
        hash_snapshot(&file, &path, &options)?
    } else {
        hash_opened(&file, &path, &options)?
    };
    Ok(Hashed { file, stamp })
}
