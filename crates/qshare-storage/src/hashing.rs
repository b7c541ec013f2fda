//! Hashing a file with all cores.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use qshare_content::{ChunkIndex, Chunks, ContentInfo, Hash, LENGTH_MAX_BYTES, tree};

use crate::stamp::Stamp;
use crate::system::{read_exact_at, stamp_of};
use crate::{Cancel, DiskError};

/// Bytes from which on another thread is worthwhile: hashing them takes some 3 ms, starting a
/// thread up to 0.1 ms.
pub const THREAD_WORTH_BYTES: u64 = 4 * 1024 * 1024;

/// A file's hash tree down to its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedFile {
    /// Length and root.
    pub info: ContentInfo,
    /// One hash for each chunk. The only hash of a content of one chunk is the root.
    pub hashes: Vec<Hash>,
}

/// One page of chunk hashes with its proof; see [`qshare_content::tree::verify_page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPage {
    /// The hashes of the page's chunks.
    pub hashes: Vec<Hash>,
    /// The page's audit path, lowest sibling first.
    pub path: Vec<Hash>,
}

/// Options for hashing.
#[derive(Clone, Default)]
pub struct HashOptions {
    /// Number of threads; 0 means one for each core.
    pub threads: usize,
    /// Raised to stop hashing.
    pub cancel: Cancel,
    /// Called from the hashing threads with (bytes done, total bytes) after each chunk.
    pub progress: Option<OnHashed>,
}

/// A callback for (bytes done, total bytes), called from the hashing threads.
pub type OnHashed = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// The reason why a file was not hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The [`Cancel`] was raised.
    #[error("hashing was cancelled")]
    Cancelled,
    /// The file changed meanwhile, so the hash may be of bytes that never existed together.
    #[error("{} changed while it was being hashed", .0.display())]
    Changed(PathBuf),
    /// It is a directory, a device, a FIFO or a socket.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is longer than [`qshare_content::LENGTH_MAX_BYTES`].
    #[error("{} is longer than 16 TiB", .0.display())]
    TooLong(PathBuf),
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Hashes the file at `path`, following symbolic links.
pub fn hash_file(path: &Path, options: &HashOptions) -> Result<HashedFile, HashError> {
    // Opening a FIFO would block until a writer opens it.
    let metadata = std::fs::metadata(path).map_err(|error| DiskError::new("read", path, error))?;
    if !metadata.is_file() {
        return Err(HashError::NotAFile(path.into()));
    }
    let file = File::open(path).map_err(|error| DiskError::new("read", path, error))?;
    hash_opened(&file, path, options).map(|(hashed, _)| hashed)
}

/// Hashes small files, several at once and each with one thread. Returns the results in the order
/// of `paths`.
pub fn hash_small_files(
    paths: &[&Path],
    options: &HashOptions,
) -> Vec<Result<HashedFile, HashError>> {
    let each = HashOptions {
        threads: 1,
        ..options.clone()
    };
    let next = AtomicUsize::new(0);
    let hashed = Mutex::new(Vec::with_capacity(paths.len()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(at) else { return };
            let result = hash_file(path, &each);
            let mut hashed = hashed.lock().unwrap_or_else(PoisonError::into_inner);
            hashed.push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..thread_count(options.threads).min(paths.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut hashed = hashed.into_inner().unwrap_or_else(PoisonError::into_inner);
    hashed.sort_unstable_by_key(|&(at, _)| at);
    hashed.into_iter().map(|(_, result)| result).collect()
}

/// Hashes an open file. Returns also its stamp, which was the same before and after.
pub(crate) fn hash_opened(
    file: &File,
    path: &Path,
    options: &HashOptions,
) -> Result<(HashedFile, Stamp), HashError> {
    let (hashed, before) = hash_snapshot(file, path, options)?;
    let after = file.metadata();
    let after = after.map_err(|error| DiskError::new("read", path, error))?;
    if before != stamp_of(&after, path) {
        return Err(HashError::Changed(path.into()));
    }
    Ok((hashed, before))
}

/// Hashes the bytes that an open file has now, even if it is written to meanwhile. Returns also
/// its stamp from before.
pub(crate) fn hash_snapshot(
    file: &File,
    path: &Path,
    options: &HashOptions,
) -> Result<(HashedFile, Stamp), HashError> {
    let failed = |error| DiskError::new("read", path, error);
    let before = file.metadata().map_err(failed)?;
    if !before.is_file() {
        return Err(HashError::NotAFile(path.into()));
    }
    let length = before.len();
    if length > LENGTH_MAX_BYTES {
        return Err(HashError::TooLong(path.into()));
    }
    let chunks = Chunks::of_length(length);
    let hashes = Mutex::new(vec![Hash::ZERO; chunks.count() as usize]);
    hash_chunks(
        file,
        &chunks,
        chunks.indices(),
        length,
        options,
        |chunk, hash| {
            let mut hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = hashes.get_mut(chunk.get()) {
                *slot = hash;
            }
        },
    )
    .map_err(|failure| match failure {
        ChunkFailure::Cancelled => HashError::Cancelled,
        ChunkFailure::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            HashError::Changed(path.into())
        }
        ChunkFailure::Read(error) => failed(error).into(),
    })?;
    let hashes = hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let root = tree::root_of_chunks(&chunks, &hashes);
    let info = ContentInfo { length, root };
    Ok((HashedFile { info, hashes }, stamp_of(&before, path)))
}

/// The reason why [`hash_chunks`] stopped.
#[derive(Debug)]
pub(crate) enum ChunkFailure {
    Cancelled,
    Read(io::Error),
}

/// Hashes some chunks of a file and passes each hash to `found` from several threads.
/// `total_bytes` is the size of these chunks, for progress and for the number of threads.
pub(crate) fn hash_chunks(
    file: &File,
    chunks: &Chunks,
    wanted: impl Iterator<Item = ChunkIndex> + Send,
    total_bytes: u64,
    options: &HashOptions,
    found: impl Fn(ChunkIndex, Hash) + Sync,
) -> Result<(), ChunkFailure> {
    let wanted = Mutex::new(wanted.fuse());
    let failure = Mutex::new(None);
    let failed = AtomicBool::new(false);
    let done_bytes = AtomicU64::new(0);
    let work = || {
        let mut buffer = Vec::new();
        while !options.cancel.is_cancelled() && !failed.load(Ordering::Relaxed) {
            let next = wanted.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(chunk) = next else { return };
            let range = chunks.range(chunk);
            let size = range.end - range.start;
            buffer.resize(size as usize, 0);
            if let Err(error) = read_exact_at(file, &mut buffer, range.start) {
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
                failed.store(true, Ordering::Relaxed);
                return;
            }
            found(chunk, tree::chunk_hash(chunks, &buffer));
            let done = done_bytes.fetch_add(size, Ordering::Relaxed) + size;
            if let Some(progress) = &options.progress {
                progress(done, total_bytes);
            }
        }
    };
    let threads = thread_count(options.threads) as u64;
    let helpers = threads.min(total_bytes / THREAD_WORTH_BYTES).max(1) - 1;
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(ChunkFailure::Read(error)),
        None if options.cancel.is_cancelled() => Err(ChunkFailure::Cancelled),
        None => Ok(()),
    }
}

/// Returns the number of threads for a configured number: 0 means one for each core.
pub(crate) fn thread_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_hashed_in_order_and_one_that_fails_stops_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut paths: Vec<PathBuf> = (0..50).map(|n| dir.path().join(format!("{n}"))).collect();
        for (n, path) in paths.iter().enumerate() {
            std::fs::write(path, vec![n as u8; n * 1000]).unwrap();
        }
        paths.insert(20, dir.path().join("nothing here"));
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let options = HashOptions::default();
        let hashed = hash_small_files(&paths, &options);
        assert_eq!(hashed.len(), paths.len());
        for (path, hashed) in paths.iter().zip(hashed) {
            assert_eq!(hashed.ok(), hash_file(path, &options).ok(), "{path:?}");
        }
    }

    #[test]
    fn a_file_hashes_as_its_bytes_do_whatever_the_threads() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        for length in [0usize, 1, 16_385, 131_072, 131_073, 20_000_001] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 31 / 8) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let chunks = Chunks::of_length(length as u64);
            let hashes: Vec<Hash> = bytes
                .chunks(chunks.chunk_bytes() as usize)
                .map(|bytes| tree::chunk_hash(&chunks, bytes))
                .collect();
            for threads in [1, 4] {
                let options = HashOptions {
                    threads,
                    ..HashOptions::default()
                };
                let hashed = hash_file(&path, &options).unwrap();
                assert_eq!(hashed.info.length, length as u64);
                if length > 0 {
                    assert_eq!(hashed.hashes, hashes, "length {length}");
                }
                assert_eq!(
                    hashed.info.root,
                    tree::root_of_chunks(&chunks, &hashed.hashes)
                );
            }
        }
    }

    #[test]
    fn cancelling_stops_and_a_directory_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        std::fs::write(&path, vec![1; 1_000_000]).unwrap();
        let options = HashOptions::default();
        options.cancel.cancel();
        assert!(matches!(
            hash_file(&path, &options),
            Err(HashError::Cancelled)
        ));
        assert!(matches!(
            hash_file(temp.path(), &HashOptions::default()),
            Err(HashError::NotAFile(_))
        ));
    }
}
