//! Makes the manifest of a directory: walks it, hashes its files with all cores, and writes the
//! manifest and the modification times as it goes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qshare_content::manifest::{
    FolderList, ManifestEntry, ManifestItem, ManifestTotals, ManifestWriter, TimesWriter,
};
use qshare_content::{AssetName, Chunks, Hash};

use super::walk::{Seen, Walk};
use super::{
    FolderError, FolderSkip, FolderSkipReason, HashIndex, SharedFolder, anonymous_file, failed,
};
use crate::hashing::{HashedFile, hash_opened, thread_count};
use crate::index::{Entry, Hashes};
use crate::own_files::recognise;
use crate::stamp::Stamp;
use crate::{Cancel, DiskError, HashError, HashOptions, SharedFile};

/// Entries that are hashed together. They take some kilobytes each at most, so memory is bounded
/// for a directory of any size.
const BATCH: usize = 4096;
/// From this length on a file is hashed by all threads, one such file at a time.
const LARGE_BYTES: u64 = 32 << 20;
/// Attempts to hash a file that changes meanwhile.
const TRIES: u32 = 3;
/// A file that was written to less than this before it was hashed may change again without a new
/// time: file systems store times with a resolution of up to 2 s (FAT). It is not indexed.
const TIMES_RESOLUTION: Duration = Duration::from_secs(2);

/// How far a folder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderProgress {
    /// Files that are hashed, or known to the index.
    pub files: u64,
    /// Their bytes, and those of files that are being hashed.
    pub bytes: u64,
    /// All files of the folder, as they were counted first.
    pub total_files: u64,
    /// The bytes of all files.
    pub total_bytes: u64,
}

/// How a folder is built.
pub struct FolderOptions<'a> {
    /// Hashes of files that have not changed, and where new hashes are kept.
    pub index: Option<HashIndex>,
    /// Directories beneath it that are never shared (identities, state).
    pub exclude: Vec<PathBuf>,
    /// Raised to stop.
    pub cancel: Cancel,
    /// Number of hashing threads; 0 means one for each core.
    pub threads: usize,
    /// Called with the progress, from several threads.
    pub progress: Option<&'a (dyn Fn(FolderProgress) + Sync)>,
    /// Called for every path that is left out.
    pub skipped: &'a (dyn Fn(FolderSkip) + Sync),
}

/// A directory that can be shared.
#[derive(Debug)]
pub struct BuiltFolder {
    /// The manifest.
    pub manifest: SharedFile,
    /// The modification times.
    pub times: SharedFile,
    /// The members, where they lie.
    pub folder: SharedFolder,
    /// The totals of the manifest.
    pub totals: ManifestTotals,
}

/// Makes the manifest of a directory. Blocks until all files are hashed.
///
/// # Errors
///
/// [`FolderError`] if the directory itself cannot be read, the manifest would be too large, or the
/// work was cancelled. A file that cannot be read is reported and left out.
pub fn build_folder(dir: &Path, options: &FolderOptions<'_>) -> Result<BuiltFolder, FolderError> {
    let walk = Walk::new(dir, &options.exclude, options.skipped)?;
    let progress = Progress::new(options);
    if options.progress.is_some() {
        progress.count(dir, options)?;
    }
    let (manifest, manifest_path) = anonymous_file()?;
    let (times, times_path) = anonymous_file()?;
    let mut build = Build {
        walk: &walk,
        options,
        progress: &progress,
        manifest: ManifestWriter::new(BufWriter::new(manifest))?,
        times: TimesWriter::new(BufWriter::new(times))?,
        batch: Vec::new(),
        stamps: Vec::new(),
        hashes: HashMap::new(),
        local_paths: HashMap::new(),
        dir,
    };
    walk.run(&mut |seen| build.add(seen))?;
    build.flush()?;
    let Build {
        manifest,
        times,
        stamps,
        hashes,
        local_paths,
        ..
    } = build;
    let totals = manifest.totals();
    let manifest = list_file(manifest.finish()?, &manifest_path)?;
    let times = list_file(times.finish()?, &times_path)?;
    let list = FolderList::read(manifest.reader(), manifest.info())?;
    let mut folder = SharedFolder::complete(dir, Arc::new(list), stamps, hashes, local_paths);
    folder.follow(walk.directories());
    Ok(BuiltFolder {
        manifest,
        times,
        folder,
        totals,
    })
}

/// Opens a list that was just written as a content.
fn list_file(list: BufWriter<File>, path: &Path) -> Result<SharedFile, FolderError> {
    let cut_off = |error: io::IntoInnerError<_>| DiskError::new("write", path, error.into_error());
    let mut file = list.into_inner().map_err(cut_off)?;
    file.rewind().map_err(failed("read", path))?;
    SharedFile::of_open(file, path).map_err(FolderError::of_list)
}

struct Build<'a> {
    dir: &'a Path,
    walk: &'a Walk<'a>,
    options: &'a FolderOptions<'a>,
    progress: &'a Progress<'a>,
    manifest: ManifestWriter<BufWriter<File>>,
    times: TimesWriter<BufWriter<File>>,
    batch: Vec<Seen>,
    /// Of the files in the manifest, in its order.
    stamps: Vec<Stamp>,
    /// Chunk hashes of the files that have several.
    hashes: HashMap<u32, Arc<[Hash]>>,
    /// Paths that differ from their names: a name is in normal form C.
    local_paths: HashMap<u32, PathBuf>,
}

impl Build<'_> {
    fn add(&mut self, seen: Seen) -> Result<(), FolderError> {
        if self.options.cancel.is_cancelled() {
            return Err(FolderError::Cancelled);
        }
        self.batch.push(seen);
        match self.batch.len() {
            BATCH => self.flush(),
            _ => Ok(()),
        }
    }

    /// Hashes the files of the batch, and writes its entries.
    fn flush(&mut self) -> Result<(), FolderError> {
        let batch = std::mem::take(&mut self.batch);
        let hashed = self.hash_all(&batch);
        if self.options.cancel.is_cancelled() {
            return Err(FolderError::Cancelled);
        }
        self.keep(&hashed);
        for (seen, hashed) in batch.into_iter().zip(hashed) {
            match (seen, hashed) {
                (Seen::File { name, path, .. }, Some(hashed)) => self.write(name, path, hashed)?,
                // Reported when it could not be read.
                (Seen::File { .. }, None) => {}
                (Seen::Symlink { name, target }, _) => self.manifest.add(&ManifestEntry {
                    name,
                    item: ManifestItem::Symlink(target),
                })?,
                (Seen::EmptyDirectory { name }, _) => self.manifest.add(&ManifestEntry {
                    name,
                    item: ManifestItem::EmptyDirectory,
                })?,
            }
        }
        Ok(())
    }

    fn write(&mut self, name: AssetName, path: PathBuf, found: Found) -> Result<(), FolderError> {
        let at = self.stamps.len() as u32;
        let Found { hashed, stamp, .. } = found;
        if path != self.dir.join(name.as_str()) {
            self.local_paths.insert(at, path);
        }
        if hashed.hashes.len() > 1 {
            self.hashes.insert(at, hashed.hashes.into());
        }
        self.stamps.push(stamp);
        self.times.add(stamp.mtime_ns)?;
        self.manifest.add(&ManifestEntry {
            name,
            item: ManifestItem::File {
                info: hashed.info,
                executable: stamp.executable,
            },
        })?;
        Ok(())
    }

    /// Returns the hashes of all files of a batch, with the index or from all cores.
    fn hash_all(&self, batch: &[Seen]) -> Vec<Option<Found>> {
        let mut found: Vec<Option<Found>> = Vec::new();
        found.resize_with(batch.len(), || None);
        let mut unknown = Vec::new();
        let known = self.options.index.as_ref();
        let known = known.and_then(|index| Some((index, index.index().files().ok()?)));
        for (at, seen) in batch.iter().enumerate() {
            let Seen::File { stamp, .. } = seen else {
                continue;
            };
            let hashed = known.as_ref().and_then(|(index, files)| {
                let info = files.get(stamp)?;
                let count = Chunks::of_length(info.length).count();
                let hashes = match count {
                    1 => vec![info.root],
                    count => match index.index().chunk_hashes(&info, 0..count) {
                        Ok(Hashes::Found(hashes)) => hashes,
                        _ => return None,
                    },
                };
                Some(HashedFile { info, hashes })
            });
            match hashed {
                Some(hashed) => {
                    self.progress.add(1, stamp.size);
                    let (stamp, is_new) = (*stamp, false);
                    let slot = found.get_mut(at);
                    let hashed = Found {
                        hashed,
                        stamp,
                        is_new,
                    };
                    slot.into_iter()
                        .for_each(|slot| *slot = Some(hashed.clone()));
                }
                None => unknown.push((at, seen)),
            }
        }
        let is_large =
            |seen: &Seen| matches!(seen, Seen::File { stamp, .. } if stamp.size >= LARGE_BYTES);
        let (large, small): (Vec<_>, Vec<_>) =
            unknown.into_iter().partition(|(_, seen)| is_large(seen));
        for (at, hashed) in self.hash_small(&small) {
            found
                .get_mut(at)
                .into_iter()
                .for_each(|slot| *slot = Some(hashed.clone()));
        }
        for (at, seen) in large {
            let hashed = self.hash(seen, self.options.threads);
            found
                .get_mut(at)
                .into_iter()
                .for_each(|slot| slot.clone_from(&hashed));
        }
        found
    }

    /// Hashes small files, several at once and each with one thread.
    fn hash_small(&self, files: &[(usize, &Seen)]) -> Vec<(usize, Found)> {
        let (next, hashed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(&(at, seen)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(found) = self.hash(seen, 1) {
                    let mut hashed = hashed.lock().unwrap_or_else(PoisonError::into_inner);
                    hashed.push((at, found));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..thread_count(self.options.threads).min(files.len()) {
                scope.spawn(work);
            }
            work();
        });
        hashed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes one file; reports why it cannot.
    fn hash(&self, seen: &Seen, threads: usize) -> Option<Found> {
        let Seen::File { path, .. } = seen else {
            return None;
        };
        for _ in 0..TRIES {
            if self.options.cancel.is_cancelled() {
                return None;
            }
            match self.try_hash(path, threads) {
                Err(HashError::Changed(_)) => {}
                Err(HashError::Cancelled) => return None,
                Err(HashError::NotAFile(_)) => {
                    self.walk.skip(path.clone(), FolderSkipReason::Special);
                    return None;
                }
                Err(HashError::TooLong(_)) => {
                    self.walk.skip(path.clone(), FolderSkipReason::TooLong);
                    return None;
                }
                Err(HashError::Disk(error)) => {
                    self.walk.skip_unread(path.clone(), error.into_io());
                    return None;
                }
                Ok(None) => return None,
                Ok(Some((hashed, stamp))) => {
                    self.progress.add(1, hashed.info.length);
                    let is_new = true;
                    return Some(Found {
                        hashed,
                        stamp,
                        is_new,
                    });
                }
            }
        }
        self.walk.skip(path.clone(), FolderSkipReason::Changing);
        None
    }

    fn try_hash(
        &self,
        path: &Path,
        threads: usize,
    ) -> Result<Option<(HashedFile, Stamp)>, HashError> {
        let file = open_regular(path).map_err(failed("read", path))?;
        let size = file.metadata().map_err(failed("read", path))?.len();
        let file_name = path.file_name().unwrap_or_default();
        if let Some(own) = recognise(&file, file_name, size).map_err(failed("read", path))? {
            self.walk.skip(path.into(), FolderSkipReason::Own(own));
            return Ok(None);
        }
        let options = HashOptions {
            threads,
            cancel: self.options.cancel.clone(),
            progress: None,
        };
        hash_opened(&file, path, &options).map(Some)
    }

    /// Adds new hashes to the index.
    fn keep(&self, found: &[Option<Found>]) {
        let Some(index) = &self.options.index else {
            return;
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = since_1970.map_or(0, |since| since.as_nanos() as i64);
        let settled = |stamp: &Stamp| {
            let changed_ns = stamp.mtime_ns.max(stamp.ctime_ns);
            now_ns.saturating_sub(changed_ns) >= TIMES_RESOLUTION.as_nanos() as i64
        };
        let new = found.iter().flatten().filter(|found| found.is_new);
        let entries = new
            .filter(|found| settled(&found.stamp))
            .map(|found| Entry {
                stamp: Some(&found.stamp),
                info: &found.hashed.info,
                hashes: &found.hashed.hashes,
            });
        if let Err(error) = index.index().put(entries, false) {
            tracing::warn!(%error, "the index does not keep new hashes");
        }
    }
}

/// A file with its hashes.
#[derive(Clone)]
struct Found {
    hashed: HashedFile,
    stamp: Stamp,
    /// Whether it was hashed just now.
    is_new: bool,
}

/// Opens a file for reading. Does not follow a link that has taken its place, and does not block on
/// a FIFO.
fn open_regular(path: &Path) -> io::Result<File> {
    use crate::system::{Access, Dir};
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    Dir::open(parent)?.open_file(name, Access::Read)
}

struct Progress<'a> {
    tell: Option<&'a (dyn Fn(FolderProgress) + Sync)>,
    files: AtomicU64,
    bytes: AtomicU64,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
}

impl<'a> Progress<'a> {
    fn new(options: &FolderOptions<'a>) -> Progress<'a> {
        Progress {
            tell: options.progress,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total_files: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
        }
    }

    /// Counts the files, so that the time left can be told.
    fn count(&self, dir: &Path, options: &FolderOptions<'_>) -> Result<(), FolderError> {
        let quiet = |_| {};
        let walk = Walk::new(dir, &options.exclude, &quiet)?;
        walk.run(&mut |seen| {
            if options.cancel.is_cancelled() {
                return Err(FolderError::Cancelled);
            }
            if let Seen::File { stamp, .. } = seen {
                self.total_files.fetch_add(1, Ordering::Relaxed);
                self.total_bytes.fetch_add(stamp.size, Ordering::Relaxed);
            }
            Ok(())
        })?;
        self.add(0, 0);
        Ok(())
    }

    fn add(&self, files: u64, bytes: u64) {
        let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(tell) = self.tell {
            tell(FolderProgress {
                files,
                bytes,
                total_files: self.total_files.load(Ordering::Relaxed),
                total_bytes: self.total_bytes.load(Ordering::Relaxed),
            });
        }
    }
}
