//! The index of hashed files, which is kept across restarts in `index.redb` in the state directory.
//!
//! It can be rebuilt by hashing, so a damaged index is replaced by an empty one.
//!
//! | table | key | value |
//! |---|---|---|
//! | `files` | device u64 BE, inode u64 BE | size u64, mtime i64, ctime i64 (ns, LE), root 32 |
//! | `hashes` | content id 32, page u32 BE | chunk hashes of the page, 32 bytes each |
//! | `page_roots` | content id 32 | roots of all pages, 32 bytes each |
//! | `format` | "version" | 2 |
//!
//! A file is identified by its inode number, not by its path, so renaming a directory costs no
//! hashing. `hashes` has only contents of several chunks, `page_roots` only those of several pages.

mod damage;
mod tables;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use qshare_content::{Chunks, ContentId, ContentInfo, Hash, tree};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata};

use crate::error::{DiskError, LibraryError};
use crate::hashing::{HashPage, HashedFile};
use crate::meta::decode_hashes;
use crate::stamp::Stamp;

pub(crate) use damage::panic_message;
use damage::{Failure, guard};
use tables::{
    FILES, HASHES, PAGE_ROOTS, file_key, open_database, page_key, stamp_times, try_put, try_retain,
};

const FILE_NAME: &str = "index.redb";

/// The index of hashed files.
///
/// If redb reports damage by an error or a panic, the database is replaced by an empty one, and the
/// operation fails.
pub(crate) struct Index {
    database: RwLock<Opened>,
    path: PathBuf,
}

struct Opened {
    /// None if the damaged one could not be replaced.
    database: Option<Database>,
    /// Number of replacements.
    generation: u64,
    /// Why it was replaced; taken by [`Index::take_replaced`].
    replaced: Option<String>,
}

/// A file that was hashed.
pub(crate) struct Entry<'a> {
    /// None if the file may have changed while it was hashed, so that only its hashes are kept.
    pub(crate) stamp: Option<&'a Stamp>,
    pub(crate) info: &'a ContentInfo,
    pub(crate) hashes: &'a [Hash],
}

impl Index {
    /// Opens the index in a state directory, creating both as needed.
    pub(crate) fn open(state_dir: &Path) -> Result<Index, LibraryError> {
        let failed = |path: &Path, error| {
            LibraryError::Disk(DiskError::new("open the index in", path, error))
        };
        std::fs::create_dir_all(state_dir).map_err(|error| failed(state_dir, error))?;
        let path = state_dir.join(FILE_NAME);
        let (database, replaced) = match guard(|| open_database(&path)) {
            Ok(database) => (database, None),
            Err(Failure::Damage(cause)) => {
                tracing::warn!(path = %path.display(), cause, "the index is damaged and replaced");
                std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
                let fresh = open_database(&path);
                let fresh = fresh.map_err(|error| failed(&path, io::Error::other(error)))?;
                (fresh, Some(cause))
            }
            Err(Failure::Other(redb::Error::DatabaseAlreadyOpen)) => {
                return Err(LibraryError::InUse(path));
            }
            Err(Failure::Other(redb::Error::Io(error))) => return Err(failed(&path, error)),
            Err(Failure::Other(error)) => return Err(failed(&path, io::Error::other(error))),
        };
        let opened = Opened {
            database: Some(database),
            generation: 0,
            replaced,
        };
        Ok(Index {
            database: RwLock::new(opened),
            path,
        })
    }

    /// Returns why the index was replaced, if it was since the last call.
    pub(crate) fn take_replaced(&self) -> Option<String> {
        let opened = self.database.read().unwrap_or_else(PoisonError::into_inner);
        opened.replaced.as_ref()?;
        drop(opened);
        let mut opened = self.write_lock();
        opened.replaced.take()
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Opened> {
        self.database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &'static str, error: impl Into<redb::Error>) -> DiskError {
        let error = match error.into() {
            redb::Error::Io(error) => error,
            other => io::Error::other(other),
        };
        DiskError::new(doing, &self.path, error)
    }

    /// Runs an operation on the database, and replaces the database if it is damaged.
    fn run<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, DiskError> {
        let opened = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let generation = opened.generation;
        let Some(database) = &opened.database else {
            let error = io::Error::other("the damaged index could not be replaced");
            return Err(DiskError::new(doing, &self.path, error));
        };
        let result = guard(|| work(database));
        drop(opened);
        match result {
            Ok(done) => Ok(done),
            Err(Failure::Other(error)) => Err(self.failed(doing, error)),
            Err(Failure::Damage(cause)) => {
                self.replace(generation, &cause);
                let error = io::Error::new(io::ErrorKind::InvalidData, cause);
                Err(DiskError::new(doing, &self.path, error))
            }
        }
    }

    /// Replaces the database by an empty one, unless that has been done since `generation`.
    fn replace(&self, generation: u64, cause: &str) {
        let mut opened = self.write_lock();
        if opened.generation != generation {
            return;
        }
        tracing::warn!(path = %self.path.display(), cause, "the index is damaged and replaced");
        let damaged = opened.database.take();
        // Closing a damaged database may panic as well.
        let _ = guard(|| {
            drop(damaged);
            Ok(())
        });
        let removed = std::fs::remove_file(&self.path);
        match removed
            .map_err(redb::Error::from)
            .and_then(|()| open_database(&self.path))
        {
            Ok(fresh) => opened.database = Some(fresh),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the index cannot be created; files are hashed again at each start");
            }
        }
        opened.generation += 1;
        opened.replaced = Some(cause.to_owned());
    }

    /// Returns the number of files in the index.
    pub(crate) fn file_count(&self) -> Result<u64, DiskError> {
        self.run("read", |database| {
            Ok(database.begin_read()?.open_table(FILES)?.len()?)
        })
    }

    /// Returns a view for many look-ups.
    pub(crate) fn files(&self) -> Result<KnownFiles<'_>, DiskError> {
        let table = self.run("read", |database| {
            Ok(database.begin_read()?.open_table(FILES)?)
        })?;
        let opened = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(KnownFiles {
            table,
            index: self,
            generation: opened.generation,
        })
    }

    /// Adds hashed files. Without `durable`, a power cut may undo it.
    pub(crate) fn put<'a>(
        &self,
        hashed: impl Iterator<Item = Entry<'a>>,
        durable: bool,
    ) -> Result<(), DiskError> {
        self.run("write", |database| try_put(database, hashed, durable))
    }

    /// Removes files, so that they are hashed again.
    pub(crate) fn forget<'a>(
        &self,
        stamps: impl Iterator<Item = &'a Stamp>,
    ) -> Result<(), DiskError> {
        self.run("write", |database| {
            let write = database.begin_write()?;
            {
                let mut files = write.open_table(FILES)?;
                for stamp in stamps {
                    files.remove(file_key(stamp))?;
                }
            }
            Ok(write.commit()?)
        })
    }

    /// Writes records of a file, a page of hashes and the roots of pages as they are given.
    #[cfg(fuzzing)]
    pub(crate) fn put_raw(
        &self,
        stamp: &Stamp,
        info: &ContentInfo,
        page: u32,
        hashes: &[u8],
        roots: &[u8],
    ) -> Result<(), DiskError> {
        self.run("write", |database| {
            let mut write = database.begin_write()?;
            write.set_durability(redb::Durability::None)?;
            let key = page_key(&info.id(), page);
            write
                .open_table(FILES)?
                .insert(file_key(stamp), tables::file_value(stamp, &info.root))?;
            write.open_table(HASHES)?.insert(key, hashes)?;
            write.open_table(PAGE_ROOTS)?.insert(info.id().0, roots)?;
            Ok(write.commit()?)
        })
    }

    /// Removes every file and content that is not `live`, durably.
    pub(crate) fn retain(
        &self,
        live_file: impl Fn(u64, u64) -> bool,
        live_content: impl Fn(&ContentId) -> bool,
    ) -> Result<(), DiskError> {
        self.run("write", |database| {
            try_retain(database, live_file, live_content)
        })
    }

    /// Returns the hashes of some chunks of a content, verified against its root.
    pub(crate) fn chunk_hashes(
        &self,
        info: &ContentInfo,
        chunks_wanted: Range<u32>,
    ) -> Result<Hashes<Vec<Hash>>, DiskError> {
        let chunks = Chunks::of_length(info.length);
        if chunks_wanted.start >= chunks_wanted.end || chunks_wanted.end > chunks.count() {
            return Ok(Hashes::NoSuchChunks);
        }
        let mut hashes = Vec::with_capacity(chunks_wanted.len());
        let pages =
            chunks_wanted.start / tree::PAGE_CHUNKS..chunks_wanted.end.div_ceil(tree::PAGE_CHUNKS);
        for page in pages {
            let found = match self.proven_page(info, page)? {
                Hashes::Found(found) => found.hashes,
                Hashes::NoSuchChunks => return Ok(Hashes::NoSuchChunks),
                Hashes::Damaged => return Ok(Hashes::Damaged),
            };
            let range = tree::page_chunks(&chunks, page);
            let from = chunks_wanted.start.max(range.start) - range.start;
            let to = chunks_wanted.end.min(range.end) - range.start;
            hashes.extend_from_slice(found.get(from as usize..to as usize).unwrap_or_default());
        }
        Ok(Hashes::Found(hashes))
    }

    /// Returns a page of chunk hashes with its audit path, verified against the content's root.
    pub(crate) fn proven_page(
        &self,
        info: &ContentInfo,
        page: u32,
    ) -> Result<Hashes<HashPage>, DiskError> {
        let chunks = Chunks::of_length(info.length);
        if page >= tree::page_count(&chunks) {
            return Ok(Hashes::NoSuchChunks);
        }
        if chunks.count() == 1 {
            return Ok(Hashes::Found(HashPage {
                hashes: vec![info.root],
                path: Vec::new(),
            }));
        }
        let id = info.id();
        let (hashes, roots) = self.run("read", |database| {
            let read = database.begin_read()?;
            let hashes = read.open_table(HASHES)?.get(page_key(&id, page))?;
            let roots = read.open_table(PAGE_ROOTS)?.get(id.0)?;
            Ok((
                hashes.map(|bytes| decode_hashes(bytes.value())),
                roots.map(|bytes| decode_hashes(bytes.value())),
            ))
        })?;
        let Some(hashes) = hashes else {
            return Ok(Hashes::Damaged);
        };
        let path = match roots {
            _ if tree::page_count(&chunks) == 1 => Vec::new(),
            Some(roots) if roots.len() == tree::page_count(&chunks) as usize => {
                tree::page_path(&chunks, roots, page)
            }
            _ => return Ok(Hashes::Damaged),
        };
        if tree::verify_page(&chunks, &info.root, page, &hashes, &path) {
            Ok(Hashes::Found(HashPage { hashes, path }))
        } else {
            Ok(Hashes::Damaged)
        }
    }
}

/// The chunk hashes that the index has of an offered content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hashes<T> {
    Found(T),
    /// The content has no such chunks or page.
    NoSuchChunks,
    /// The hashes are missing, or do not hash to the content's root.
    Damaged,
}

/// A view of the hashed files at one moment.
pub(crate) struct KnownFiles<'a> {
    table: ReadOnlyTable<[u8; 16], [u8; 56]>,
    index: &'a Index,
    generation: u64,
}

impl KnownFiles<'_> {
    /// Returns the content of a file, if the file has not changed since it was hashed.
    pub(crate) fn get(&self, stamp: &Stamp) -> Option<ContentInfo> {
        let found = guard(|| Ok(self.table.get(file_key(stamp))?.map(|found| found.value())));
        let found = match found {
            Ok(found) => found?,
            Err(Failure::Damage(cause)) => {
                self.index.replace(self.generation, &cause);
                return None;
            }
            Err(Failure::Other(_)) => return None,
        };
        let (times, root) = found.split_first_chunk::<24>()?;
        let root = Hash(*root.first_chunk()?);
        (*times == stamp_times(stamp)).then_some(ContentInfo {
            length: stamp.size,
            root,
        })
    }
}

impl HashedFile {
    /// Returns the entry for [`Index::put`].
    pub(crate) fn indexed<'a>(&'a self, stamp: Option<&'a Stamp>) -> Entry<'a> {
        Entry {
            stamp,
            info: &self.info,
            hashes: &self.hashes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64, size: u64) -> Stamp {
        Stamp {
            device: 1,
            inode,
            size,
            mtime_ns: -5,
            ctime_ns: 7,
            executable: false,
        }
    }

    fn content(count: u32) -> HashedFile {
        let length = u64::from(count) * 128 * 1024;
        let chunks = Chunks::of_length(length);
        let hashes: Vec<_> = (0..chunks.count())
            .map(|at| tree::leaf_hash(&at.to_le_bytes()))
            .collect();
        let root = tree::root_of_chunks(&chunks, &hashes);
        let info = ContentInfo { length, root };
        HashedFile { info, hashes }
    }

    #[test]
    fn what_was_put_is_found_by_its_stamp_after_reopening() {
        let temp = tempfile::tempdir().unwrap();
        let file = content(5);
        let known = stamp(3, file.info.length);
        {
            let index = Index::open(temp.path()).unwrap();
            assert!(matches!(
                Index::open(temp.path()),
                Err(LibraryError::InUse(_))
            ));
            index
                .put([file.indexed(Some(&known))].into_iter(), true)
                .unwrap();
        }
        let index = Index::open(temp.path()).unwrap();
        assert_eq!(index.files().unwrap().get(&known), Some(file.info));
        let touched = Stamp {
            ctime_ns: 8,
            ..known
        };
        assert_eq!(index.files().unwrap().get(&touched), None);
        let hashes = index.chunk_hashes(&file.info, 1..4).unwrap();
        assert_eq!(hashes, Hashes::Found(file.hashes[1..4].to_vec()));
        let beyond = index.chunk_hashes(&file.info, 1..6).unwrap();
        assert_eq!(beyond, Hashes::NoSuchChunks);

        index.forget([&known].into_iter()).unwrap();
        assert_eq!(index.files().unwrap().get(&known), None);
        index.retain(|_, _| false, |_| false).unwrap();
        let forgotten = index.chunk_hashes(&file.info, 1..4).unwrap();
        assert_eq!(forgotten, Hashes::Damaged);
    }

    #[test]
    fn pages_prove_themselves() {
        let temp = tempfile::tempdir().unwrap();
        let index = Index::open(temp.path()).unwrap();
        // 4 MiB chunks: 40 GiB are 10,240 of them, which are three pages.
        let length = 40 << 30;
        let chunks = Chunks::of_length(length);
        let hashes: Vec<_> = (0..chunks.count())
            .map(|at| tree::leaf_hash(&at.to_le_bytes()))
            .collect();
        let root = tree::root_of_chunks(&chunks, &hashes);
        let info = ContentInfo { length, root };
        let file = HashedFile { info, hashes };
        let known = stamp(1, length);
        index
            .put([file.indexed(Some(&known))].into_iter(), false)
            .unwrap();
        for page in 0..3 {
            let Hashes::Found(found) = index.proven_page(&info, page).unwrap() else {
                panic!("page {page} is there");
            };
            let proven = tree::verify_page(&chunks, &root, page, &found.hashes, &found.path);
            assert!(proven);
        }
        let beyond = index.proven_page(&info, 3).unwrap();
        assert_eq!(beyond, Hashes::NoSuchChunks);
        let across = index.chunk_hashes(&info, 4090..8200).unwrap();
        assert_eq!(across, Hashes::Found(file.hashes[4090..8200].to_vec()));

        // A hash that redb stores faithfully, but that is not the content's.
        let mut wrong = file.clone();
        wrong.hashes[5000] = Hash([9; 32]);
        let entry = Entry {
            info: &info,
            ..wrong.indexed(None)
        };
        index.put([entry].into_iter(), true).unwrap();
        assert_eq!(index.proven_page(&info, 1).unwrap(), Hashes::Damaged);
        let across = index.chunk_hashes(&info, 4090..8200).unwrap();
        assert_eq!(across, Hashes::Damaged);
    }

    #[test]
    fn whatever_is_damaged_the_index_is_replaced_and_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(FILE_NAME);
        {
            let index = Index::open(temp.path()).unwrap();
            for at in 0..40 {
                let file = content(at % 7 + 1);
                let known = stamp(at.into(), file.info.length);
                let entry = file.indexed(Some(&known));
                index.put([entry].into_iter(), true).unwrap();
            }
        }
        let good = std::fs::read(&path).unwrap();
        let exercise = |index: &Index| {
            let file = content(5);
            let known = stamp(4, file.info.length);
            // The operation that meets the damage may fail; those after it must not.
            for _ in 0..3 {
                let _ = index.files().map(|files| files.get(&known));
                let _ = index.proven_page(&file.info, 0);
                let _ = index.put([file.indexed(Some(&known))].into_iter(), true);
            }
            let entry = file.indexed(Some(&known));
            index.put([entry].into_iter(), true).unwrap();
            assert_eq!(index.files().unwrap().get(&known), Some(file.info));
        };
        let mut replaced = 0;
        let mut cases: Vec<Vec<u8>> = vec![b"not a database".to_vec(), Vec::new()];
        cases.push(good[..good.len() / 2].to_vec());
        for page in 0..good.len().min(256 * 1024) / 4096 {
            for at in [0, 1, 3, 9, 100, 4095] {
                let mut bytes = good.clone();
                bytes[page * 4096 + at] ^= 0x5a;
                cases.push(bytes);
            }
        }
        for (at, bytes) in cases.iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            let index = Index::open(temp.path()).unwrap_or_else(|error| panic!("{at}: {error}"));
            exercise(&index);
            replaced += usize::from(index.take_replaced().is_some());
        }
        assert!(replaced >= 3, "{replaced} of {}", cases.len());
    }
}
