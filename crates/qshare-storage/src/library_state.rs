//! What the threads of a library share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::Cancel;
use crate::hashing::thread_count;
use crate::index::Index;
use crate::offered_files::OfferedFiles;
use crate::open_files::OpenFiles;
use crate::roots::Roots;

/// What the library's threads and its readers share.
pub(crate) struct LibraryState {
    pub(crate) roots: Roots,
    pub(crate) index: Index,
    pub(crate) open_files: OpenFiles,
    pub(crate) cancel: Cancel,
    /// Threads that hash.
    pub(crate) threads: usize,
    /// Interval at which everything is reconciled.
    pub(crate) reconcile_every: Duration,
    offered_files: RwLock<OfferedFiles>,
    still_written: Mutex<Vec<PathBuf>>,
    /// Held while a large file is hashed.
    large_file: Mutex<()>,
    hashed_bytes: Arc<AtomicU64>,
}

impl LibraryState {
    pub(crate) fn new(
        roots: Roots,
        index: Index,
        hash_threads: usize,
        reconcile_every: Duration,
    ) -> LibraryState {
        LibraryState {
            roots,
            index,
            open_files: OpenFiles::new(),
            cancel: Cancel::new(),
            threads: thread_count(hash_threads),
            reconcile_every,
            offered_files: RwLock::default(),
            still_written: Mutex::default(),
            large_file: Mutex::new(()),
            hashed_bytes: Arc::default(),
        }
    }

    pub(crate) fn offered_files(&self) -> RwLockReadGuard<'_, OfferedFiles> {
        self.offered_files
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn offered_files_mut(&self) -> RwLockWriteGuard<'_, OfferedFiles> {
        self.offered_files
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that have been reported as still being written.
    pub(crate) fn still_written(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.still_written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other large file is being hashed.
    pub(crate) fn large_file_turn(&self) -> MutexGuard<'_, ()> {
        self.large_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes hashed since the library was opened.
    pub(crate) fn hashed_bytes(&self) -> u64 {
        self.hashed_bytes.load(Ordering::Relaxed)
    }

    /// What hashing threads add to.
    pub(crate) fn hashed_bytes_counter(&self) -> Arc<AtomicU64> {
        self.hashed_bytes.clone()
    }
}
