//! Small files: contents of one chunk, written in batches and without a meta file.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use qshare_content::{Chunks, ContentInfo, tree};

use crate::directories::{Directories, Spot};
use crate::disk::{RealDisk, SharedDisk};
use crate::existing::Existing;
use crate::system::{Access, Dir, Entry, SYNCS_FILESYSTEM, apply_attributes};
use crate::temporary::temporary_name;
use crate::{DiskError, Durability, FileAttributes, Target};

/// Up to this many files are flushed one by one. Flushing the whole file system would also wait
/// for data that other programs have written.
const FLUSHED_SINGLY: usize = 8;

/// The reason why a file of a batch cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A different file is at the target; only `force` replaces it.
    #[error("a different file is already at {}", .0.display())]
    Different(PathBuf),
    /// A directory, a device, a FIFO or a socket is at the target; it is never replaced.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The bytes are not those of the content, or the content has several chunks.
    #[error("the bytes for {} do not belong to this content", .0.display())]
    Mismatch(PathBuf),
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The verified bytes of a content of one chunk.
pub struct SingleChunk {
    info: ContentInfo,
    bytes: Vec<u8>,
}

impl SingleChunk {
    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Verifies the bytes against the root. Returns None if they differ, or if the content has
    /// several chunks.
    pub fn verified(info: ContentInfo, bytes: Vec<u8>) -> Option<SingleChunk> {
        is_whole(info, &bytes).then_some(SingleChunk { info, bytes })
    }

    /// Returns length and root.
    pub fn info(&self) -> ContentInfo {
        self.info
    }
}

fn is_whole(info: ContentInfo, bytes: &[u8]) -> bool {
    let chunks = Chunks::of_length(info.length);
    bytes.len() as u64 == info.length
        && chunks.count() == 1
        && tree::chunk_hash(&chunks, bytes) == info.root
}

/// A set of small files that are flushed and renamed together.
///
/// If it is dropped without [`commit`](Self::commit), it removes the files that it wrote.
pub struct Batch {
    disk: SharedDisk,
    force: bool,
    /// The directories of the files. New directories become durable only when the whole file
    /// system is flushed.
    directories: Directories,
    waiting: Vec<Waiting>,
}

struct Waiting {
    target: Target,
    info: ContentInfo,
    /// None if an identical file exists already.
    temporary: Option<OsString>,
}

impl Batch {
    /// Creates an empty batch. `force` replaces different files at the targets.
    pub fn new(force: bool) -> Batch {
        Batch::on(Arc::new(RealDisk), force)
    }

    pub(crate) fn on(disk: SharedDisk, force: bool) -> Batch {
        Batch {
            disk,
            force,
            directories: Directories::default(),
            waiting: Vec::new(),
        }
    }

    /// Verifies the bytes of a content of one chunk and writes them under a temporary name.
    pub fn add(
        &mut self,
        target: &Target,
        info: ContentInfo,
        bytes: &[u8],
    ) -> Result<(), BatchError> {
        if !is_whole(info, bytes) {
            return Err(BatchError::Mismatch(target.path()));
        }
        self.put(target, info, bytes, FileAttributes::default())
    }

    /// Writes verified bytes under a temporary name; the file gets `attributes`.
    pub fn add_verified(
        &mut self,
        target: &Target,
        chunk: &SingleChunk,
        attributes: FileAttributes,
    ) -> Result<(), BatchError> {
        self.put(target, chunk.info, &chunk.bytes, attributes)
    }

    fn put(
        &mut self,
        target: &Target,
        info: ContentInfo,
        bytes: &[u8],
        attributes: FileAttributes,
    ) -> Result<(), BatchError> {
        let place = self.directories.resolve(target)?;
        let temporary = match Existing::at_once(&place.dir, &place.file_name, target, &info)? {
            Existing::Same => None,
            Existing::Directory | Existing::Special => {
                return Err(BatchError::NotAFile(place.path));
            }
            Existing::Different if !self.force => return Err(BatchError::Different(place.path)),
            Existing::Different | Existing::Nothing => {
                let temporary = temporary_name(&place.file_name, &info.id());
                if let Err(error) = self.write(&place, &temporary, bytes, attributes) {
                    let _ = self.disk.remove(&place.dir, &temporary);
                    return Err(DiskError::new("write", place.path, error).into());
                }
                Some(temporary)
            }
        };
        self.waiting.push(Waiting {
            target: target.clone(),
            info,
            temporary,
        });
        Ok(())
    }

    /// Writes a temporary file. Another process that has it open writes the same bytes, since its
    /// name depends on the content.
    fn write(
        &self,
        place: &Spot,
        temporary: &OsString,
        bytes: &[u8],
        attributes: FileAttributes,
    ) -> io::Result<()> {
        let file = place.dir.open_file(temporary, Access::EditOrCreate)?;
        self.disk.write_at(&file, bytes, 0)?;
        self.disk.set_len(&file, bytes.len() as u64)?;
        apply_attributes(&file, &attributes, &place.path);
        Ok(())
    }

    /// Returns the number of files that wait for [`commit`](Self::commit).
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether no file waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Flushes all files (unless `Durability::Deferred`) and renames them to their targets. Returns
    /// the result of each, in the order of [`add`](Self::add), and leaves the batch empty.
    pub fn commit(&mut self, durability: Durability) -> Vec<(Target, Result<PathBuf, BatchError>)> {
        let waiting = std::mem::take(&mut self.waiting);
        let made_directories = std::mem::take(&mut self.directories.made_any);
        self.directories.forget();
        let together = SYNCS_FILESYSTEM && (waiting.len() > FLUSHED_SINGLY || made_directories);
        let mut flush = Flush {
            disk: &self.disk,
            together: durability == Durability::Immediate && together,
            by_device: HashMap::new(),
            noted: None,
        };
        let directories = &mut self.directories;
        let bytes_durable: Vec<_> = waiting
            .iter()
            .map(|file| match (&file.temporary, durability) {
                (Some(temporary), Durability::Immediate) => directories
                    .resolve(&file.target)
                    .and_then(|spot| flush.bytes(spot, temporary)),
                _ => Ok(()),
            })
            .collect();
        let flushed = flush.all();
        let results: Vec<_> = waiting
            .into_iter()
            .zip(bytes_durable)
            .map(|(file, durable)| {
                let result = durable
                    .and_then(|()| Flush::again(&flushed))
                    .map_err(BatchError::from)
                    .and_then(|()| Ok(directories.resolve(&file.target)?))
                    .and_then(|place| rename(&self.disk, &file, place, self.force))
                    .and_then(|place| {
                        if durability == Durability::Immediate && !together {
                            flush_names(&self.disk, &place)?;
                        }
                        Ok(place.path)
                    });
                if result.is_err() {
                    remove_temporary(&self.disk, &file);
                }
                (file.target, result)
            })
            .collect();
        if !flush.together {
            return results;
        }
        // This flush covers the names. It is cheap, since the bytes are durable already.
        let flushed = flush.all();
        let named = |result: Result<PathBuf, BatchError>| {
            Flush::again(&flushed).map_err(BatchError::from).and(result)
        };
        results
            .into_iter()
            .map(|(target, result)| (target, named(result)))
            .collect()
    }
}

/// Renames a temporary file to its target, unless an identical file is there already.
fn rename(disk: &SharedDisk, file: &Waiting, place: Spot, force: bool) -> Result<Spot, BatchError> {
    let Some(temporary) = &file.temporary else {
        return Ok(place);
    };
    let renamed = disk.rename(&place.dir, temporary, &place.file_name, force);
    let Err(error) = renamed else {
        return Ok(place);
    };
    // A file has appeared at the target, or another process that wrote the same content has
    // renamed the temporary file. The content of the target decides.
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => {}
        _ => return Err(DiskError::new("rename", place.path, error).into()),
    }
    match Existing::at_once(&place.dir, &place.file_name, &file.target, &file.info)? {
        Existing::Same => {
            remove_temporary(disk, file);
            Ok(place)
        }
        Existing::Nothing if error.kind() == io::ErrorKind::NotFound => {
            Err(DiskError::new("rename", place.path, error).into())
        }
        Existing::Nothing | Existing::Different => Err(BatchError::Different(place.path)),
        Existing::Directory | Existing::Special => Err(BatchError::NotAFile(place.path)),
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for file in &self.waiting {
            remove_temporary(&self.disk, file);
        }
    }
}

fn remove_temporary(disk: &SharedDisk, file: &Waiting) {
    if let (Some(temporary), Ok(place)) = (&file.temporary, file.target.resolve()) {
        let _ = disk.remove(&place.dir, temporary);
    }
}

/// Flushes the directory of a file, which makes its name durable.
fn flush_names(disk: &SharedDisk, place: &Spot) -> Result<(), DiskError> {
    disk.sync_dir(&place.dir)
        .map_err(|error| DiskError::new("flush the directory of", &place.path, error))
}

/// A flush of many files: one after the other, or whole file systems at once.
struct Flush<'a> {
    disk: &'a SharedDisk,
    together: bool,
    /// A directory on each file system to flush, with a path for messages.
    by_device: HashMap<u64, (Arc<Dir>, PathBuf)>,
    /// The directory of the last file: further files in it are on the same file system.
    noted: Option<Arc<Dir>>,
}

impl Flush<'_> {
    /// Flushes a file, or adds its file system to those to flush.
    fn bytes(&mut self, place: Spot, temporary: &OsString) -> Result<(), DiskError> {
        let noted = |noted: &Arc<Dir>| Arc::ptr_eq(noted, &place.dir);
        if self.together && self.noted.as_ref().is_some_and(noted) {
            return Ok(());
        }
        let failed = |error| DiskError::new("flush", &place.path, error);
        if self.together
            && let Some(Entry::File(stamp)) = place.dir.entry(temporary).map_err(failed)?
        {
            let known = self.by_device.entry(stamp.device);
            known.or_insert((place.dir.clone(), place.path));
            self.noted = Some(place.dir);
            return Ok(());
        }
        let file = place.dir.open_file(temporary, Access::Edit);
        self.disk.sync(&file.map_err(failed)?).map_err(failed)
    }

    /// Flushes the collected file systems.
    fn all(&self) -> Result<(), (PathBuf, io::Error)> {
        for (dir, path) in self.by_device.values() {
            let flushed = self.disk.sync_filesystem(dir);
            flushed.map_err(|error| (path.clone(), error))?;
        }
        Ok(())
    }

    /// Copies the common result for one file.
    fn again(flushed: &Result<(), (PathBuf, io::Error)>) -> Result<(), DiskError> {
        flushed.as_ref().map(|_| ()).map_err(|(path, error)| {
            DiskError::new(
                "flush",
                path,
                io::Error::new(error.kind(), error.to_string()),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use qshare_content::AssetName;
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A disk whose k-th operation fails, and only that one.
    struct Flaky {
        fails_at: u64,
        operations: AtomicU64,
    }

    impl Flaky {
        fn step(&self) -> io::Result<()> {
            if self.operations.fetch_add(1, Ordering::SeqCst) == self.fails_at {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    impl Disk for Flaky {
        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            let result = self.step();
            let end = if result.is_ok() { bytes.len() } else { 1 };
            RealDisk.write_at(file, &bytes[..end], offset)?;
            result
        }

        fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
            self.step()?;
            RealDisk.set_len(file, length)
        }

        fn sync(&self, _file: &File) -> io::Result<()> {
            self.step()
        }

        fn sync_dir(&self, _dir: &Dir) -> io::Result<()> {
            self.step()
        }

        fn sync_filesystem(&self, _dir: &Dir) -> io::Result<()> {
            self.step()
        }

        fn rename(&self, dir: &Dir, from: &OsStr, to: &OsStr, over: bool) -> io::Result<()> {
            self.step()?;
            RealDisk.rename(dir, from, to, over)
        }
    }

    #[test]
    fn whatever_operation_fails_no_wrong_file_gets_a_name_and_a_second_try_succeeds() {
        for count in [3usize, FLUSHED_SINGLY + 2] {
            for fails_at in 0..count as u64 * 5 + 5 {
                let temp = tempfile::tempdir().unwrap();
                let disk = Arc::new(Flaky {
                    fails_at,
                    operations: AtomicU64::new(0),
                });
                let mut batch = Batch::on(disk, false);
                let contents: Vec<_> = (0..count)
                    .map(|at| {
                        let bytes = vec![at as u8; 10];
                        let chunks = Chunks::of_length(10);
                        let root = tree::chunk_hash(&chunks, &bytes);
                        let name = AssetName::new(format!("f{at}")).unwrap();
                        let target = Target::beneath(temp.path(), name);
                        (target, ContentInfo { length: 10, root }, bytes)
                    })
                    .collect();
                let mut told = 0;
                for (target, info, bytes) in &contents {
                    told += usize::from(batch.add(target, *info, bytes).is_ok());
                }
                let results = batch.commit(Durability::Immediate);
                assert_eq!(results.len(), told);
                for (target, result) in &results {
                    assert!(result.is_err() || target.path().is_file());
                }
                for (target, info, bytes) in &contents {
                    if let Ok(there) = fs::read(target.path()) {
                        assert_eq!(there, *bytes);
                    }
                    let mut again = Batch::new(false);
                    again.add(target, *info, bytes).unwrap();
                    for (_, result) in again.commit(Durability::Immediate) {
                        result.unwrap();
                    }
                    assert_eq!(fs::read(target.path()).unwrap(), *bytes);
                }
                assert_eq!(fs::read_dir(temp.path()).unwrap().count(), count);
            }
        }
    }
}
