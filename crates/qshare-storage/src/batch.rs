//! Small files: whole contents that are written in one go, without a meta file.

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

/// Up to this many files are flushed one by one: flushing the whole file system would also wait
/// for what other programs have written.
const FLUSHED_SINGLY: usize = 8;

/// Why a whole file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A different file at the target; only `force` overwrites it.
    #[error("a different file is already at {}", .0.display())]
    Different(PathBuf),
    /// A directory, a device, a FIFO or a socket at the target; it is never replaced.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// These bytes are not that content, or it has more than one chunk.
    #[error("the bytes for {} do not belong to this content", .0.display())]
    Mismatch(PathBuf),
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The bytes of a content of one chunk, compared with its root.
pub struct SingleChunk {
    info: ContentInfo,
    bytes: Vec<u8>,
}

impl SingleChunk {
    /// None if these bytes are not that content, or it has more than one chunk.
    pub fn verified(info: ContentInfo, bytes: Vec<u8>) -> Option<SingleChunk> {
        is_whole(info, &bytes).then_some(SingleChunk { info, bytes })
    }

    /// Names the bytes.
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

/// Many small files that become durable, and get their names, together.
///
/// Dropped without [`commit`](Self::commit), it removes what it wrote.
pub struct Batch {
    disk: SharedDisk,
    force: bool,
    /// Names of directories that were made become durable only when the file system is flushed.
    directories: Directories,
    waiting: Vec<Waiting>,
}

struct Waiting {
    target: Target,
    info: ContentInfo,
    /// None if an identical file was there already.
    temporary: Option<OsString>,
}

impl Batch {
    /// An empty batch. `force` overwrites different files.
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

    /// Writes the bytes of a one-chunk content under a temporary name.
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

    /// Whoever else has this temporary file open writes the same bytes to it.
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

    /// Number of files that wait for [`commit`](Self::commit).
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Makes all of them durable with one sync (unless `Durability::Deferred`) and gives them their
    /// names. The result of each, in the order of [`add`](Self::add). The batch is empty then.
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
        // The names; cheap, since the bytes are already there.
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

/// Gives a file its name, unless an identical one has it already.
fn rename(disk: &SharedDisk, file: &Waiting, place: Spot, force: bool) -> Result<Spot, BatchError> {
    let Some(temporary) = &file.temporary else {
        return Ok(place);
    };
    let renamed = disk.rename(&place.dir, temporary, &place.file_name, force);
    let Err(error) = renamed else {
        return Ok(place);
    };
    // Something stands there now, or the temporary file is gone because somebody else who
    // wrote the same content has renamed it: what counts is what stands there.
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

/// Makes the name of a file, and those of the directories made for it, durable.
fn flush_names(disk: &SharedDisk, place: &Spot) -> Result<(), DiskError> {
    disk.sync_dir(&place.dir)
        .map_err(|error| DiskError::new("flush the directory of", &place.path, error))
}

/// Making bytes durable: one file after the other, or all that is on a file system at once.
struct Flush<'a> {
    disk: &'a SharedDisk,
    together: bool,
    /// A directory on each file system, with a path for messages.
    by_device: HashMap<u64, (Arc<Dir>, PathBuf)>,
    /// The directory that was noted last: its other files are on the same file system.
    noted: Option<Arc<Dir>>,
}

impl Flush<'_> {
    /// Flushes a file, or notes which file system is to be flushed.
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

    /// Flushes the file systems that were noted.
    fn all(&self) -> Result<(), (PathBuf, io::Error)> {
        for (dir, path) in self.by_device.values() {
            let flushed = self.disk.sync_filesystem(dir);
            flushed.map_err(|error| (path.clone(), error))?;
        }
        Ok(())
    }

    /// The same result for every file.
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

    /// The k-th operation fails, and only that one; renames before a flush are counted.
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
