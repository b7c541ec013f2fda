//! What was hashed before: kept across restarts in `index.redb` in the state directory.
//!
//! Everything here can be hashed anew, so a damaged index is thrown away.
//!
//! | table | key | value |
//! |---|---|---|
//! | `files` | device u64 BE, inode u64 BE | size u64, mtime i64, ctime i64 (ns, LE), root 32 |
//! | `hashes` | content id 32, page u32 BE | chunk hashes of the page, 32 bytes each |
//! | `page_roots` | content id 32 | roots of all pages, 32 bytes each |
//!
//! A file is known by its number, not by its path, so a renamed directory costs nothing.
//! Contents of one chunk are only in `files`; `page_roots` only has those of several pages.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use qshare_content::{Chunks, ContentId, ContentInfo, Hash, tree};
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata,
    TableDefinition,
};

use crate::DiskError;
use crate::hashing::{HashPage, HashedFile};
use crate::library::LibraryError;
use crate::meta::{decode_hashes, encode_hashes};
use crate::stamp::Stamp;

const FILE_NAME: &str = "index.redb";
/// redb's own default is 1 GiB; a page of chunk hashes is 128 KiB, an entry of a file 72 bytes. A
/// restart looks files up about in their order on disk, and is as fast with 2 MiB as with 8.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

const FILES: TableDefinition<'_, [u8; 16], [u8; 56]> = TableDefinition::new("files");
const HASHES: TableDefinition<'_, [u8; 36], &[u8]> = TableDefinition::new("hashes");
const PAGE_ROOTS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("page_roots");

/// What was hashed before.
pub(crate) struct Index {
    database: Database,
    path: PathBuf,
}

impl Index {
    /// Opens the index in a state directory, making both as needed.
    pub(crate) fn open(state_dir: &Path) -> Result<Index, LibraryError> {
        let failed = |path: &Path, error| {
            LibraryError::Disk(DiskError::new("open the index in", path, error))
        };
        std::fs::create_dir_all(state_dir).map_err(|error| failed(state_dir, error))?;
        let path = state_dir.join(FILE_NAME);
        let database = match open_database(&path) {
            Ok(database) => database,
            Err(redb::Error::DatabaseAlreadyOpen) => return Err(LibraryError::InUse(path)),
            Err(redb::Error::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(failed(&path, error));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the index is damaged; hashing anew");
                std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
                open_database(&path).map_err(|error| failed(&path, io::Error::other(error)))?
            }
        };
        Ok(Index { database, path })
    }

    fn failed(&self, doing: &'static str, error: impl Into<redb::Error>) -> DiskError {
        let error = match error.into() {
            redb::Error::Io(error) => error,
            other => io::Error::other(other),
        };
        DiskError::new(doing, &self.path, error)
    }

    /// Number of files that are known.
    pub(crate) fn file_count(&self) -> Result<u64, DiskError> {
        let known = self.files()?;
        known.0.len().map_err(|error| self.failed("read", error))
    }

    /// A view for many look-ups.
    pub(crate) fn files(&self) -> Result<KnownFiles, DiskError> {
        let table = self.database.begin_read().map_err(redb::Error::from);
        let table = table.and_then(|read| read.open_table(FILES).map_err(redb::Error::from));
        table
            .map(KnownFiles)
            .map_err(|error| self.failed("read", error))
    }

    /// Notes what files were hashed to. Without `durable`, a power cut may undo it.
    pub(crate) fn put<'a>(
        &self,
        hashed: impl Iterator<Item = (&'a Stamp, &'a ContentInfo, &'a [Hash])>,
        durable: bool,
    ) -> Result<(), DiskError> {
        self.try_put(hashed, durable)
            .map_err(|error| self.failed("write", error))
    }

    fn try_put<'a>(
        &self,
        hashed: impl Iterator<Item = (&'a Stamp, &'a ContentInfo, &'a [Hash])>,
        durable: bool,
    ) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(if durable {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        {
            let mut files = write.open_table(FILES)?;
            let mut tables = (write.open_table(HASHES)?, write.open_table(PAGE_ROOTS)?);
            for (stamp, info, hashes) in hashed {
                files.insert(file_key(stamp), file_value(stamp, &info.root))?;
                let chunks = Chunks::of_length(info.length);
                if chunks.count() == 1 {
                    continue;
                }
                let id = info.id();
                let mut roots = Vec::new();
                for (page, hashes) in hashes.chunks(tree::PAGE_CHUNKS as usize).enumerate() {
                    let key = page_key(&id, page as u32);
                    tables.0.insert(key, encode_hashes(hashes).as_slice())?;
                    roots.push(tree::page_root(&chunks, hashes));
                }
                if roots.len() > 1 {
                    tables.1.insert(id.0, encode_hashes(&roots).as_slice())?;
                }
            }
        }
        write.commit()?;
        Ok(())
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
    ) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::None)?;
        let key = page_key(&info.id(), page);
        write
            .open_table(FILES)?
            .insert(file_key(stamp), file_value(stamp, &info.root))?;
        write.open_table(HASHES)?.insert(key, hashes)?;
        write.open_table(PAGE_ROOTS)?.insert(info.id().0, roots)?;
        write.commit()?;
        Ok(())
    }

    /// Forgets every file and content that is not `live`. Durable.
    pub(crate) fn retain(
        &self,
        live_file: impl Fn(u64, u64) -> bool,
        live_content: impl Fn(&ContentId) -> bool,
    ) -> Result<(), DiskError> {
        self.try_retain(live_file, live_content)
            .map_err(|error| self.failed("write", error))
    }

    fn try_retain(
        &self,
        live_file: impl Fn(u64, u64) -> bool,
        live_content: impl Fn(&ContentId) -> bool,
    ) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        write.open_table(FILES)?.retain(|key, _| {
            let (device, inode) = split_u64s(&key);
            live_file(device, inode)
        })?;
        write.open_table(HASHES)?.retain(|key, _| {
            key.first_chunk()
                .is_some_and(|id| live_content(&ContentId(*id)))
        })?;
        write
            .open_table(PAGE_ROOTS)?
            .retain(|id, _| live_content(&ContentId(id)))?;
        write.commit()?;
        Ok(())
    }

    /// The hashes of some chunks of a content; None if they are not here.
    pub(crate) fn chunk_hashes(
        &self,
        info: &ContentInfo,
        chunks_wanted: Range<u32>,
    ) -> Result<Option<Vec<Hash>>, DiskError> {
        let chunks = Chunks::of_length(info.length);
        if chunks_wanted.start >= chunks_wanted.end || chunks_wanted.end > chunks.count() {
            return Ok(None);
        }
        if chunks.count() == 1 {
            return Ok(Some(vec![info.root]));
        }
        let mut hashes = Vec::with_capacity(chunks_wanted.len());
        let pages =
            chunks_wanted.start / tree::PAGE_CHUNKS..chunks_wanted.end.div_ceil(tree::PAGE_CHUNKS);
        for page in pages {
            let range = tree::page_chunks(&chunks, page);
            let Some(found) = self.page(&info.id(), page)? else {
                return Ok(None);
            };
            let from = chunks_wanted.start.max(range.start) - range.start;
            let to = chunks_wanted.end.min(range.end) - range.start;
            let Some(found) = found.get(from as usize..to as usize) else {
                return Ok(None);
            };
            hashes.extend_from_slice(found);
        }
        Ok(Some(hashes))
    }

    /// A page of chunk hashes with its audit path; None if it is not here.
    pub(crate) fn proven_page(
        &self,
        info: &ContentInfo,
        page: u32,
    ) -> Result<Option<HashPage>, DiskError> {
        let chunks = Chunks::of_length(info.length);
        let range = tree::page_chunks(&chunks, page);
        let Some(hashes) = self.chunk_hashes(info, range)? else {
            return Ok(None);
        };
        let path = if tree::page_count(&chunks) == 1 {
            Vec::new()
        } else {
            let Some(roots) = self.page_roots(&info.id())? else {
                return Ok(None);
            };
            tree::page_path(&chunks, roots, page)
        };
        Ok(Some(HashPage { hashes, path }))
    }

    fn page(&self, id: &ContentId, page: u32) -> Result<Option<Vec<Hash>>, DiskError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(HASHES)?;
            let found = table.get(page_key(id, page))?;
            Ok(found.map(|bytes| decode_hashes(bytes.value())))
        };
        read().map_err(|error| self.failed("read", error))
    }

    fn page_roots(&self, id: &ContentId) -> Result<Option<Vec<Hash>>, DiskError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(PAGE_ROOTS)?;
            let found = table.get(id.0)?;
            Ok(found.map(|bytes| decode_hashes(bytes.value())))
        };
        read().map_err(|error| self.failed("read", error))
    }
}

/// Which files were hashed, as of one moment.
pub(crate) struct KnownFiles(ReadOnlyTable<[u8; 16], [u8; 56]>);

impl KnownFiles {
    /// What a file was hashed to, if it has not changed since.
    pub(crate) fn get(&self, stamp: &Stamp) -> Option<ContentInfo> {
        let found = self.0.get(file_key(stamp)).ok()??.value();
        let (times, root) = found.split_first_chunk::<24>()?;
        let root = Hash(*root.first_chunk()?);
        (*times == stamp_times(stamp)).then_some(ContentInfo {
            length: stamp.size,
            root,
        })
    }
}

fn open_database(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let database = builder.create(path).map_err(|error| match error {
        DatabaseError::LockProtocolMismatch => redb::Error::DatabaseAlreadyOpen,
        other => other.into(),
    })?;
    // So that readers find the tables.
    let write = database.begin_write()?;
    write.open_table(FILES)?;
    write.open_table(HASHES)?;
    write.open_table(PAGE_ROOTS)?;
    write.commit()?;
    Ok(database)
}

fn file_key(stamp: &Stamp) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&stamp.device.to_be_bytes());
    key[8..].copy_from_slice(&stamp.inode.to_be_bytes());
    key
}

fn split_u64s(key: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_be_bytes(*key);
    ((both >> 64) as u64, both as u64)
}

fn stamp_times(stamp: &Stamp) -> [u8; 24] {
    let mut times = [0; 24];
    times[..8].copy_from_slice(&stamp.size.to_le_bytes());
    times[8..16].copy_from_slice(&stamp.mtime_ns.to_le_bytes());
    times[16..].copy_from_slice(&stamp.ctime_ns.to_le_bytes());
    times
}

fn file_value(stamp: &Stamp, root: &Hash) -> [u8; 56] {
    let mut value = [0; 56];
    value[..24].copy_from_slice(&stamp_times(stamp));
    value[24..].copy_from_slice(&root.0);
    value
}

fn page_key(id: &ContentId, page: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&id.0);
    key[32..].copy_from_slice(&page.to_be_bytes());
    key
}

impl HashedFile {
    /// As [`Index::put`] takes it.
    pub(crate) fn indexed<'a>(
        &'a self,
        stamp: &'a Stamp,
    ) -> (&'a Stamp, &'a ContentInfo, &'a [Hash]) {
        (stamp, &self.info, &self.hashes)
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
            index.put([file.indexed(&known)].into_iter(), true).unwrap();
        }
        let index = Index::open(temp.path()).unwrap();
        assert_eq!(index.files().unwrap().get(&known), Some(file.info));
        let touched = Stamp {
            ctime_ns: 8,
            ..known
        };
        assert_eq!(index.files().unwrap().get(&touched), None);
        assert_eq!(
            index.chunk_hashes(&file.info, 1..4).unwrap().unwrap(),
            file.hashes[1..4]
        );
        assert_eq!(index.chunk_hashes(&file.info, 1..6).unwrap(), None);

        index.retain(|_, inode| inode != 3, |_| false).unwrap();
        assert_eq!(index.files().unwrap().get(&known), None);
        assert_eq!(index.chunk_hashes(&file.info, 1..4).unwrap(), None);
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
            .put([file.indexed(&known)].into_iter(), false)
            .unwrap();
        for page in 0..3 {
            let found = index.proven_page(&info, page).unwrap().unwrap();
            assert!(tree::verify_page(
                &chunks,
                &root,
                page,
                &found.hashes,
                &found.path
            ));
        }
        assert_eq!(index.proven_page(&info, 3).unwrap(), None);
        let across = index.chunk_hashes(&info, 4090..8200).unwrap().unwrap();
        assert_eq!(across, file.hashes[4090..8200]);
    }

    #[test]
    fn a_damaged_index_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(FILE_NAME), b"not a database").unwrap();
        let index = Index::open(temp.path()).unwrap();
        assert_eq!(index.files().unwrap().get(&stamp(1, 1)), None);
    }
}
