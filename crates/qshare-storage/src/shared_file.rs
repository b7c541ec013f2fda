//! A finished file that is served although it is not in a shared directory.

pub(crate) mod indexed;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use qshare_content::{Chunks, ContentInfo, Hash, tree};

use crate::hashing::{HashError, HashOptions, HashPage, hash_file, hash_opened};
use crate::reading::is_readable;
use crate::stamp::Stamp;
use crate::system::{read_exact_at, stamp_of};
use crate::{DiskError, FileAttributes, ReadError};

/// A file of known content, open for reading. The user may edit the file, so every read checks
/// that it has not changed since it was hashed.
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    path: PathBuf,
    info: ContentInfo,
    chunks: Chunks,
    hashes: Vec<Hash>,
    page_roots: OnceLock<Vec<Hash>>,
    stamp: Stamp,
}

impl SharedFile {
    /// Opens a file that was just written from verified chunks with these hashes. A content of one
    /// chunk needs no hashes.
    ///
    /// # Errors
    ///
    /// [`HashError::Changed`] if length or hashes are not those of `info`.
    pub fn new(path: &Path, info: ContentInfo, hashes: Vec<Hash>) -> Result<SharedFile, HashError> {
        let failed = |error| DiskError::new("open", path, error);
        let file = File::open(path).map_err(failed)?;
        let stamp = stamp_of(&file.metadata().map_err(failed)?, path);
        let chunks = Chunks::of_length(info.length);
        let hashes = if chunks.count() == 1 {
            vec![info.root]
        } else {
            hashes
        };
        let right = stamp.size == info.length
            && hashes.len() == chunks.count() as usize
            && tree::root_of_chunks(&chunks, &hashes) == info.root;
        if !right {
            return Err(HashError::Changed(path.into()));
        }
        let (path, page_roots) = (path.into(), OnceLock::new());
        Ok(SharedFile {
            file,
            path,
            info,
            chunks,
            hashes,
            page_roots,
            stamp,
        })
    }

    /// Takes a file that is open, and may have no name. Blocks until it is hashed. `path` is for
    /// messages.
    pub(crate) fn of_open(file: File, path: &Path) -> Result<SharedFile, HashError> {
        let (hashed, stamp) = hash_opened(&file, path, &HashOptions::default())?;
        Ok(SharedFile {
            file,
            path: path.into(),
            info: hashed.info,
            chunks: Chunks::of_length(hashed.info.length),
            hashes: hashed.hashes,
            page_roots: OnceLock::new(),
            stamp,
        })
    }

    /// Returns the bytes as a stream. An error of [`read_into`](Self::read_into) ends it.
    pub fn reader(&self) -> impl io::Read + '_ {
        FileReader {
            file: self,
            offset: 0,
        }
    }

    /// Opens any file and hashes it. Blocks until it is hashed.
    pub fn hashed(path: &Path, options: &HashOptions) -> Result<SharedFile, HashError> {
        let hashed = hash_file(path, options)?;
        SharedFile::new(path, hashed.info, hashed.hashes)
    }

    /// Returns length and root.
    pub fn info(&self) -> ContentInfo {
        self.info
    }

    /// Returns the attributes that travel with the file.
    pub fn attributes(&self) -> FileAttributes {
        self.stamp.attributes()
    }

    /// Fills `bytes`, at most 4 MiB of them, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`ReadError::Changed`] if the file has changed, [`ReadError::NotHere`] beyond its end.
    pub fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        if !is_readable(offset, bytes, self.info.length) {
            return Err(ReadError::NotHere);
        }
        match read_exact_at(&self.file, bytes, offset) {
            Ok(()) if self.is_changed() => Err(ReadError::Changed),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Changed),
            Err(error) => Err(DiskError::new("read", &self.path, error).into()),
        }
    }

    /// Returns one page of chunk hashes with its audit path.
    pub fn hash_page(&self, page: u32) -> Result<HashPage, ReadError> {
        if page >= tree::page_count(&self.chunks) {
            return Err(ReadError::NotHere);
        }
        let of_page = |page| {
            let chunks = tree::page_chunks(&self.chunks, page);
            self.hashes
                .get(chunks.start as usize..chunks.end as usize)
                .unwrap_or_default()
        };
        let page_roots = self.page_roots.get_or_init(|| {
            let pages = 0..tree::page_count(&self.chunks);
            pages
                .map(|page| tree::page_root(&self.chunks, of_page(page)))
                .collect()
        });
        let path = tree::page_path(&self.chunks, page_roots.clone(), page);
        Ok(HashPage {
            hashes: of_page(page).to_vec(),
            path,
        })
    }

    /// Whether the file has changed since it was hashed. Blocks.
    pub fn is_changed(&self) -> bool {
        let now = self
            .file
            .metadata()
            .map(|metadata| stamp_of(&metadata, &self.path));
        now.map_or(true, |now| now != self.stamp)
    }
}

struct FileReader<'a> {
    file: &'a SharedFile,
    offset: u64,
}

impl io::Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.info.length - self.offset;
        let count = left.min(buffer.len() as u64).min(1 << 20) as usize;
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        let read = self.file.read_into(self.offset, buffer);
        read.map_err(io::Error::other)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_served_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let bytes: Vec<u8> = (0..1_000_000u64).map(|i| ((i * 7919) >> 8) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let shared = SharedFile::hashed(&path, &HashOptions::default()).unwrap();
        let mut read = [0; 10];
        shared.read_into(10, &mut read).unwrap();
        assert_eq!(read, bytes[10..20]);
        let page = shared.hash_page(0).unwrap();
        let chunks = Chunks::of_length(bytes.len() as u64);
        assert!(tree::verify_page(
            &chunks,
            &shared.info().root,
            0,
            &page.hashes,
            &page.path
        ));
        assert!(matches!(shared.hash_page(1), Err(ReadError::NotHere)));
        assert!(matches!(
            shared.read_into(999_991, &mut read),
            Err(ReadError::NotHere)
        ));
        fs::write(&path, vec![0; bytes.len()]).unwrap();
        let changed = shared.read_into(10, &mut read);
        assert!(matches!(changed, Err(ReadError::Changed)));
    }

    #[test]
    fn hashes_of_another_content_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, vec![1; 300_000]).unwrap();
        let hashed = hash_file(&path, &HashOptions::default()).unwrap();
        let mut wrong = hashed.hashes.clone();
        wrong.swap(0, 2);
        assert!(SharedFile::new(&path, hashed.info, hashed.hashes).is_ok());
        let refused = SharedFile::new(&path, hashed.info, wrong);
        assert!(matches!(refused, Err(HashError::Changed(_))));
    }
}
