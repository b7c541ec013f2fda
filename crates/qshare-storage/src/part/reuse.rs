//! Takes missing chunks from files of this machine instead of the network.
//!
//! A chunk is taken if a file holds its bytes at the same offset; bytes that have moved are not
//! found. Each chunk is verified by its hash like one that was fetched: a file that is another one
//! than expected, or that changes meanwhile, costs time and nothing else. On a file system that can
//! share blocks (btrfs, XFS) a taken chunk occupies no space of its own.
//!
//! A file is read once at most. One of which nothing is known is tried first by a sample of its
//! chunks, so that reading a file that has nothing in common costs an eighth of what it could save.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use qshare_content::{ChunkIndex, META_SUFFIX, PART_SUFFIX, tree};

use super::{Part, PartError};
use crate::DiskError;
use crate::hashing::thread_count;
use crate::system::{Access, Entry, read_exact_at};

/// The chunks that are tried first: an eighth of the missing ones, within these bounds. If none of
/// them matches, no more of the file is read.
const SAMPLE_SHARE: usize = 8;
const SAMPLE_MIN: usize = 2;
const SAMPLE_MAX: usize = 16;
/// Shortest content for which files beside the target are looked at.
const NEIGHBOUR_WORTH_BYTES: u64 = 8 << 20;
/// Entries of the target's directory that are looked at; that takes a millisecond.
const ENTRIES_MAX: usize = 1024;
/// Files beside the target that are tried.
const NEIGHBOURS_MAX: usize = 4;

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// It is said to hold the same content.
    Same,
    /// It may be another version.
    Unknown,
}

/// Limits and reports of [`Part::reuse`], which are called from several threads.
pub struct ReuseHooks<'a> {
    /// Returns whether to stop.
    pub should_stop: &'a (dyn Fn() -> bool + Sync),
    /// Called after each chunk that was taken, with its length in bytes.
    pub on_taken: &'a (dyn Fn(u64) + Sync),
}

impl Part {
    /// Takes missing chunks from local files: those at `same`, which are said to hold the content;
    /// with `force`, the file that the download is to replace; and other files of the same length
    /// beside it. Files that cannot be read are passed over. Returns the bytes that were taken.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// [`PartError::Disk`] if the part file cannot be written.
    pub fn reuse(&self, same: &[PathBuf], hooks: &ReuseHooks<'_>) -> Result<u64, PartError> {
        let mut taken = 0;
        for (file, likeness) in self.local_files(same) {
            if self.is_complete() || (hooks.should_stop)() {
                break;
            }
            taken += self.reuse_file(&file, likeness, hooks)?;
        }
        Ok(taken)
    }

    /// Returns the files to try, the most promising first. They are opened one by one.
    fn local_files<'a>(
        &'a self,
        same: &'a [PathBuf],
    ) -> impl Iterator<Item = (File, Likeness)> + 'a {
        let same = same.iter().filter_map(|path| open_regular(path));
        let replaced = || {
            let name = &self.place.file_name;
            let is_file = matches!(self.place.dir.entry(name), Ok(Some(Entry::File(_))));
            let opened = is_file.then(|| self.place.dir.open_file(name, Access::Read));
            opened.and_then(Result::ok)
        };
        // Looked at last, and only if something is missing then.
        let replaced = std::iter::once_with(replaced)
            .filter(|_| self.force)
            .flatten();
        let neighbours = std::iter::once_with(|| self.neighbours()).flatten();
        let neighbours = neighbours.filter_map(|name| {
            let file = self.place.dir.open_file(&name, Access::Read).ok()?;
            file.metadata().ok()?.is_file().then_some(file)
        });
        same.map(|file| (file, Likeness::Same))
            .chain(replaced.map(|file| (file, Likeness::Unknown)))
            .chain(neighbours.map(|file| (file, Likeness::Unknown)))
    }

    /// Returns the names of some files beside the target that are as long as the content: it may
    /// have had another name before.
    fn neighbours(&self) -> Vec<std::ffi::OsString> {
        if self.info.length < NEIGHBOUR_WORTH_BYTES {
            return Vec::new();
        }
        let parent = match self.place.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Ok(entries) = std::fs::read_dir(parent) else {
            return Vec::new();
        };
        let names = entries.take(ENTRIES_MAX).flatten().filter_map(|entry| {
            let name = entry.file_name();
            let bytes = name.as_encoded_bytes();
            let is_candidate = name != self.place.file_name
                && !bytes.starts_with(b".")
                && !bytes.ends_with(PART_SUFFIX.as_bytes())
                && !bytes.ends_with(META_SUFFIX.as_bytes());
            let metadata = is_candidate.then(|| entry.metadata().ok()).flatten()?;
            (metadata.is_file() && metadata.len() == self.info.length).then_some(name)
        });
        names.take(NEIGHBOURS_MAX).collect()
    }

    fn reuse_file(
        &self,
        file: &File,
        likeness: Likeness,
        hooks: &ReuseHooks<'_>,
    ) -> Result<u64, PartError> {
        let Ok(length) = file.metadata().map(|metadata| metadata.len()) else {
            return Ok(0);
        };
        let verified = self.verified();
        let held = |chunk: &ChunkIndex| self.chunks.range(*chunk).end <= length;
        let missing = self.chunks.indices().take_while(held);
        let missing: Vec<_> = missing.filter(|chunk| !verified.contains(*chunk)).collect();
        // Blocks of the file can be shared until the system says that they cannot.
        let shares_blocks = AtomicBool::new(true);
        let take = |chunks: &[ChunkIndex]| self.take(file, chunks, &shares_blocks, hooks);
        if likeness == Likeness::Same {
            return take(&missing);
        }
        let (sample, rest) = sample(&missing);
        match take(&sample)? {
            0 => Ok(0),
            taken => Ok(taken + take(&rest)?),
        }
    }

    /// Tries some chunks of a file, with several threads.
    fn take(
        &self,
        file: &File,
        chunks: &[ChunkIndex],
        shares_blocks: &AtomicBool,
        hooks: &ReuseHooks<'_>,
    ) -> Result<u64, PartError> {
        let next = AtomicUsize::new(0);
        let outcome = Mutex::new(Ok(0));
        let lock = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            let mut buffer = Vec::new();
            while !(hooks.should_stop)() && lock().is_ok() {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(&chunk) = chunks.get(at) else { return };
                match self.take_chunk(file, chunk, &mut buffer, shares_blocks) {
                    Ok(false) => {}
                    Ok(true) => {
                        let bytes = self.chunks.size(chunk);
                        if let Ok(taken) = &mut *lock() {
                            *taken += bytes;
                        }
                        (hooks.on_taken)(bytes);
                    }
                    Err(error) => *lock() = Err(error),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..thread_count(self.hashing.threads).min(chunks.len()) {
                scope.spawn(work);
            }
            work();
        });
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one chunk if the file has it. Returns whether it does.
    fn take_chunk(
        &self,
        file: &File,
        chunk: ChunkIndex,
        buffer: &mut Vec<u8>,
        shares_blocks: &AtomicBool,
    ) -> Result<bool, PartError> {
        let range = self.chunks.range(chunk);
        let Some(expected) = self.hash(chunk)? else {
            return Ok(false);
        };
        buffer.resize((range.end - range.start) as usize, 0);
        let is_right = |bytes: &[u8]| tree::chunk_hash(&self.chunks, bytes) == expected;
        if read_exact_at(file, buffer, range.start).is_err() || !is_right(buffer) {
            return Ok(false);
        }
        // The last chunk may end within a block.
        let is_whole = self.chunks.size(chunk) == self.chunks.chunk_bytes();
        if is_whole && shares_blocks.load(Ordering::Relaxed) {
            if self.share_blocks(file, chunk)? {
                // The file may have changed since, so the part's own bytes are verified.
                let read = read_exact_at(&self.data, buffer, range.start);
                let is_taken = read.is_ok() && is_right(buffer);
                return Ok(is_taken && self.mark_verified(chunk));
            }
            shares_blocks.store(false, Ordering::Relaxed);
        }
        self.write_verified(chunk, buffer)
    }

    /// Lets the part file share the blocks of a chunk. Returns false if that is not possible.
    fn share_blocks(&self, file: &File, chunk: ChunkIndex) -> Result<bool, PartError> {
        self.still_ours()?;
        self.note_unclean()?;
        let range = self.chunks.range(chunk);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.disk.share_blocks(file, &self.data, range) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                Err(DiskError::new("write", self.data_path(), error).into())
            }
            Err(_) => Ok(false),
        }
    }
}

/// Opens a file that is a regular one. A FIFO would block.
fn open_regular(path: &Path) -> Option<File> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    File::open(path).ok()
}

/// Returns some chunks at equal distances, and the others.
fn sample(missing: &[ChunkIndex]) -> (Vec<ChunkIndex>, Vec<ChunkIndex>) {
    let count = (missing.len() / SAMPLE_SHARE).clamp(SAMPLE_MIN, SAMPLE_MAX);
    let count = count.min(missing.len());
    let chosen = |at: usize| count > 0 && (at * count) % missing.len() < count;
    let mut sample = Vec::with_capacity(count);
    let mut rest = Vec::with_capacity(missing.len() - count);
    for (at, &chunk) in missing.iter().enumerate() {
        match chosen(at) {
            true => sample.push(chunk),
            false => rest.push(chunk),
        }
    }
    (sample, rest)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use qshare_content::ContentInfo;

    use super::super::{Durability, Opened, PartOptions};
    use super::*;
    use crate::disk::{Disk, RealDisk, SharedDisk};
    use crate::hashing::{HashOptions, HashedFile, hash_file};
    use crate::{FileAttributes, Target};

    const CHUNK: usize = 128 << 10;

    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..bytes).map(next).collect()
    }

    fn hashed(dir: &Path, bytes: &[u8]) -> HashedFile {
        let path = dir.join(".hashed");
        fs::write(&path, bytes).unwrap();
        let hashed = hash_file(&path, &HashOptions::default()).unwrap();
        fs::remove_file(path).unwrap();
        hashed
    }

    fn part(disk: SharedDisk, target: &Path, info: ContentInfo, force: bool) -> Part {
        let options = PartOptions {
            force,
            attributes: FileAttributes::default(),
            ..PartOptions::default()
        };
        let target = Target::Path(target.into());
        match Part::open_on(disk, &target, info, &options).unwrap() {
            Opened::Part(part) => part,
            Opened::Complete { .. } => panic!("it is there already"),
        }
    }

    fn reuse(part: &Part, same: &[PathBuf]) -> u64 {
        let told = AtomicU64::new(0);
        let hooks = ReuseHooks {
            should_stop: &|| false,
            on_taken: &|bytes| _ = told.fetch_add(bytes, Ordering::Relaxed),
        };
        let taken = part.reuse(same, &hooks).unwrap();
        assert_eq!(told.into_inner(), taken);
        taken
    }

    fn missing(part: &Part) -> Vec<u32> {
        let verified = part.verified();
        let chunks = part.chunks.indices();
        chunks
            .filter(|chunk| !verified.contains(*chunk))
            .map(|chunk| chunk.0)
            .collect()
    }

    /// Fetches what is missing, and compares the file.
    fn complete(part: &Part, bytes: &[u8]) {
        for chunk in missing(part).into_iter().map(ChunkIndex) {
            let range = part.chunks.range(chunk);
            part.write_verified(chunk, &bytes[range.start as usize..range.end as usize])
                .unwrap();
        }
        let path = part.finish(Durability::Deferred).unwrap();
        assert!(fs::read(path).unwrap() == bytes);
    }

    #[test]
    fn chunks_of_an_older_version_are_taken_and_changed_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("file");
        let new = noise(40 * CHUNK + 777, 1);
        let wanted = hashed(dir.path(), &new);
        // Longer, with two other chunks.
        let mut old = [new.clone(), noise(CHUNK, 2)].concat();
        old[3 * CHUNK + 5] ^= 1;
        old[20 * CHUNK] ^= 1;
        fs::write(&target, &old).unwrap();
        let part = part(Arc::new(RealDisk), &target, wanted.info, true);
        assert_eq!(reuse(&part, &[]), 0, "nothing is believed without hashes");
        part.set_hashes(wanted.hashes).unwrap();
        assert_eq!(reuse(&part, &[]), (38 * CHUNK + 777) as u64);
        assert_eq!(missing(&part), [3, 20]);
        assert!(fs::read(&target).unwrap() == old);
        complete(&part, &new);
    }

    #[test]
    fn without_force_the_file_at_the_target_is_no_source_and_moved_bytes_are_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let new = noise(20 * CHUNK, 3);
        let wanted = hashed(dir.path(), &new);
        let target = dir.path().join("file");
        let fresh = part(Arc::new(RealDisk), &target, wanted.info, false);
        fresh.set_hashes(wanted.hashes.clone()).unwrap();
        fs::write(&target, &new).unwrap();
        assert_eq!(reuse(&fresh, &[]), 0);
        fresh.discard().unwrap();
        fs::write(&target, [&[0], &new[..]].concat()).unwrap();
        let moved = part(Arc::new(RealDisk), &target, wanted.info, true);
        moved.set_hashes(wanted.hashes).unwrap();
        assert_eq!(reuse(&moved, &[]), 0);
        complete(&moved, &new);
    }

    #[test]
    fn a_file_beside_the_target_counts_if_it_is_as_long_and_links_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let new = noise(70 * CHUNK, 4);
        assert!(new.len() as u64 >= NEIGHBOUR_WORTH_BYTES);
        let wanted = hashed(dir.path(), &new);
        fs::write(elsewhere.path().join("a"), &new).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("a"), dir.path().join("link")).unwrap();
        fs::write(dir.path().join("longer"), [&new[..], &[1]].concat()).unwrap();
        let target = dir.path().join("file");
        let part = part(Arc::new(RealDisk), &target, wanted.info, false);
        part.set_hashes(wanted.hashes).unwrap();
        assert_eq!(reuse(&part, &[]), 0);
        fs::write(dir.path().join("renamed"), &new).unwrap();
        assert_eq!(reuse(&part, &[]), new.len() as u64);
        complete(&part, &new);
    }

    /// Shares blocks by copying them, as far as files are concerned. With a lie, the file changes
    /// between the check and the copy.
    struct Sharing {
        lies: bool,
        shared: AtomicU64,
    }

    impl Disk for Sharing {
        fn share_blocks(&self, from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            from.read_exact_at(&mut bytes, range.start)?;
            bytes[17] ^= u8::from(self.lies);
            self.shared.fetch_add(1, Ordering::Relaxed);
            to.write_all_at(&bytes, range.start)
        }
    }

    #[test]
    fn shared_blocks_are_verified_after_they_were_shared() {
        for lies in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let new = noise(9 * CHUNK + 5, 5);
            let wanted = hashed(dir.path(), &new);
            let copy = dir.path().join("copy");
            fs::write(&copy, &new).unwrap();
            let disk = Arc::new(Sharing {
                lies,
                shared: AtomicU64::new(0),
            });
            let part = part(disk.clone(), &dir.path().join("file"), wanted.info, false);
            part.set_hashes(wanted.hashes).unwrap();
            let gone = dir.path().join("gone");
            let taken = reuse(&part, &[gone, dir.path().to_owned(), copy]);
            // The last chunk is copied.
            let expected = if lies { 5 } else { new.len() };
            assert_eq!(taken, expected as u64);
            assert_eq!(disk.shared.load(Ordering::Relaxed), 9);
            complete(&part, &new);
        }
    }

    #[test]
    fn a_stop_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let new = noise(9 * CHUNK, 6);
        let wanted = hashed(dir.path(), &new);
        let copy = dir.path().join("copy");
        fs::write(&copy, &new).unwrap();
        let part = part(
            Arc::new(RealDisk),
            &dir.path().join("f"),
            wanted.info,
            false,
        );
        part.set_hashes(wanted.hashes).unwrap();
        let hooks = ReuseHooks {
            should_stop: &|| true,
            on_taken: &|_| panic!("nothing may be taken"),
        };
        assert_eq!(part.reuse(&[copy], &hooks).unwrap(), 0);
    }

    #[test]
    fn a_sample_is_spread_and_bounded_and_nothing_is_lost() {
        for count in [0, 1, 2, 3, 15, 16, 17, 100, 5000] {
            let missing: Vec<_> = (0..count).map(ChunkIndex).collect();
            let (chosen, rest) = sample(&missing);
            assert!(chosen.len() <= SAMPLE_MAX.min(missing.len()));
            assert!(chosen.len() >= SAMPLE_MIN.min(missing.len()));
            let mut all = [&chosen[..], &rest[..]].concat();
            all.sort_unstable();
            assert_eq!(all, missing);
        }
        let all: Vec<_> = (0..1600).map(ChunkIndex).collect();
        let steps = sample(&all).0;
        assert!(steps.windows(2).all(|two| two[1].0 - two[0].0 == 100));
    }
}
