//! The members of a collection, served from where they lie.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::manifest::FolderList;
use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, Hash, tree};

use crate::beneath;
use crate::hashing::{HashPage, hash_opened};
use crate::reading::is_readable;
use crate::stamp::{DirectoryStamp, Stamp};
use crate::system::{Access, Dir, directory_stamp_of, open_files_limit, read_exact_at, stamp_of};
use crate::{DiskError, HashError, HashOptions, ReadError};

/// Most files that stay open; an eighth of what the process may have open, if that is less.
const OPEN_MAX: u64 = 64;

/// A directory with members of a collection: all of them where it is shared, those that were
/// fetched where it is received. Files are opened when they are read, beneath the directory and
/// without following links, and are served as long as they have not changed.
#[derive(Debug)]
pub struct SharedFolder {
    base: PathBuf,
    list: Arc<FolderList>,
    local_paths: HashMap<u32, PathBuf>,
    present: Mutex<Present>,
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
    open_max: usize,
    /// The directories of a shared folder, as they were before they were read.
    directories: Vec<(PathBuf, DirectoryStamp)>,
}

#[derive(Debug)]
struct Present {
    /// The members whose files still exist.
    members: Bitmap,
    stamps: Vec<Option<Stamp>>,
    /// Chunk hashes of the files that have several.
    hashes: HashMap<u32, Arc<[Hash]>>,
}

impl SharedFolder {
    /// Starts with an empty directory, or one that does not exist yet, which receives the members.
    pub fn empty(base: &Path, list: Arc<FolderList>) -> SharedFolder {
        let count = list.file_count();
        let present = Present {
            members: Bitmap::new(count),
            stamps: vec![None; count as usize],
            hashes: HashMap::new(),
        };
        SharedFolder::new(base, list, present, HashMap::new())
    }

    pub(super) fn complete(
        base: &Path,
        list: Arc<FolderList>,
        stamps: Vec<Stamp>,
        hashes: HashMap<u32, Arc<[Hash]>>,
        local_paths: HashMap<u32, PathBuf>,
    ) -> SharedFolder {
        let present = Present {
            members: Bitmap::full(list.file_count()),
            stamps: stamps.into_iter().map(Some).collect(),
            hashes,
        };
        SharedFolder::new(base, list, present, local_paths)
    }

    fn new(
        base: &Path,
        list: Arc<FolderList>,
        present: Present,
        local_paths: HashMap<u32, PathBuf>,
    ) -> SharedFolder {
        SharedFolder {
            base: base.to_path_buf(),
            list,
            local_paths,
            present: Mutex::new(present),
            open: Mutex::default(),
            open_max: (open_files_limit() / 8).clamp(1, OPEN_MAX) as usize,
            directories: Vec::new(),
        }
    }

    pub(super) fn follow(&mut self, directories: Vec<(PathBuf, DirectoryStamp)>) {
        self.directories = directories;
    }

    /// Returns the list of the folder.
    pub fn list(&self) -> &Arc<FolderList> {
        &self.list
    }

    /// Returns the directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Returns the members that can be read.
    pub fn present(&self) -> Bitmap {
        self.lock().members.clone()
    }

    /// Returns a member of this content that can be read.
    pub fn find(&self, content: &ContentId) -> Option<u32> {
        let present = self.lock();
        let is_there = |at: u32| present.members.contains(ChunkIndex(at));
        self.list.find_file(content, is_there)
    }

    /// Returns whether a member can be read.
    pub fn has(&self, at: u32) -> bool {
        self.lock().members.contains(ChunkIndex(at))
    }

    /// Returns the path of a member.
    pub fn path(&self, at: u32) -> Option<PathBuf> {
        match self.local_paths.get(&at) {
            Some(path) => Some(path.clone()),
            None => Some(self.base.join(self.list.name(at)?)),
        }
    }

    /// Serves a member that was written just now, from verified chunks with these hashes. A content
    /// of one chunk needs none; without those of another one, the file is hashed. Returns whether
    /// it is new.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if it is not there, or its length or hashes are others.
    pub fn adopt(&self, at: u32, hashes: Vec<Hash>) -> Result<bool, ReadError> {
        let info = self.list.info(at).ok_or(ReadError::NotHere)?;
        let chunks = Chunks::of_length(info.length);
        // Of a file that was there already, the hashes are not known.
        let hashes = match hashes.is_empty() && chunks.count() > 1 {
            true => self.hash(at)?,
            false => hashes,
        };
        let is_proven = match chunks.count() {
            1 => true,
            count => {
                hashes.len() == count as usize
                    && tree::root_of_chunks(&chunks, &hashes) == info.root
            }
        };
        let stamp = self.stamp(at, &*self.open_file(at)?)?;
        if !is_proven || stamp.size != info.length {
            return Err(ReadError::Changed);
        }
        let mut present = self.lock();
        if let Some(slot) = present.stamps.get_mut(at as usize) {
            *slot = Some(stamp);
        }
        if hashes.len() > 1 {
            present.hashes.insert(at, hashes.into());
        }
        Ok(present.members.insert(ChunkIndex(at)))
    }

    /// Serves a member whose attributes were changed, and not its bytes.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if it is not there.
    pub fn readopt(&self, at: u32) -> Result<(), ReadError> {
        let now = self.stamp(at, &*self.open_file(at)?)?;
        let mut present = self.lock();
        if let Some(Some(stamp)) = present.stamps.get_mut(at as usize)
            && stamp.same_file(&now)
            && stamp.size == now.size
        {
            *stamp = now;
        }
        Ok(())
    }

    /// Fills `bytes`, at most 4 MiB of them, from `offset` of a member on.
    ///
    /// # Errors
    ///
    /// [`ReadError::Changed`] if the file has changed; it is not served any more then.
    pub fn read_into(&self, at: u32, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        let info = self.list.info(at).ok_or(ReadError::NotHere)?;
        let stamp = self.lock().stamps.get(at as usize).copied().flatten();
        let stamp = stamp.ok_or(ReadError::NotHere)?;
        if !is_readable(offset, bytes, info.length) {
            return Err(ReadError::NotHere);
        }
        let read = self.read_unchanged(at, &stamp, offset, bytes);
        if matches!(read, Err(ReadError::Changed)) {
            self.withdraw(at);
        }
        read
    }

    fn read_unchanged(
        &self,
        at: u32,
        stamp: &Stamp,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        let file = self.open_file(at)?;
        if self.stamp(at, &file)? != *stamp {
            return Err(ReadError::Changed);
        }
        read_exact_at(&file, bytes, offset).map_err(|error| self.failed(at, error))?;
        match self.stamp(at, &file)? == *stamp {
            true => Ok(()),
            false => Err(ReadError::Changed),
        }
    }

    /// Returns one page of chunk hashes of a member with its audit path.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotHere`] if the member or the page is not there.
    pub fn hash_page(&self, at: u32, page: u32) -> Result<HashPage, ReadError> {
        let info = self.list.info(at).ok_or(ReadError::NotHere)?;
        let chunks = Chunks::of_length(info.length);
        let known = self.lock().hashes.get(&at).cloned();
        let hashes: Arc<[Hash]> = match (chunks.count(), known) {
            (1, _) if self.has(at) => Arc::from([info.root]),
            (_, Some(hashes)) if self.has(at) => hashes,
            _ => return Err(ReadError::NotHere),
        };
        if page >= tree::page_count(&chunks) {
            return Err(ReadError::NotHere);
        }
        let of_page = |page| {
            let range = tree::page_chunks(&chunks, page);
            let range = range.start as usize..range.end as usize;
            hashes.get(range).unwrap_or_default()
        };
        let pages = 0..tree::page_count(&chunks);
        let roots = pages.map(|page| tree::page_root(&chunks, of_page(page)));
        let path = tree::page_path(&chunks, roots.collect(), page);
        Ok(HashPage {
            hashes: of_page(page).to_vec(),
            path,
        })
    }

    /// Returns whether a file of the folder is no longer as it was hashed, or a directory has other
    /// entries. Looks at every file, so it blocks: some microseconds for each.
    pub fn any_changed(&self) -> bool {
        let has_changed = |(path, stamp): &(PathBuf, DirectoryStamp)| {
            let now = path.metadata();
            now.map_or(true, |now| directory_stamp_of(&now, path) != *stamp)
        };
        if self.directories.iter().any(has_changed) {
            return true;
        }
        (0..self.list.file_count()).any(|at| {
            let stamp = self.lock().stamps.get(at as usize).copied().flatten();
            let path = self.path(at);
            let (Some(stamp), Some(path)) = (stamp, path) else {
                return true;
            };
            let now = path.symlink_metadata();
            now.map_or(true, |now| stamp_of(&now, &path) != stamp)
        })
    }

    /// Returns the state of a member's file.
    pub(super) fn present_stamp(&self, at: u32) -> Result<Stamp, ReadError> {
        self.stamp(at, &*self.open_anew(at)?)
    }

    /// Returns whether a member was adopted in this state.
    pub(super) fn has_stamp(&self, at: u32, stamp: &Stamp) -> bool {
        let adopted = self.lock().stamps.get(at as usize).copied().flatten();
        adopted.is_some_and(|adopted| adopted == *stamp)
    }

    fn hash(&self, at: u32) -> Result<Vec<Hash>, ReadError> {
        let path = self.path(at).ok_or(ReadError::NotHere)?;
        let file = self.open_file(at)?;
        match hash_opened(&file, &path, &HashOptions::default()) {
            Ok((hashed, _)) => Ok(hashed.hashes),
            Err(HashError::Disk(error)) => Err(error.into()),
            Err(_) => Err(ReadError::Changed),
        }
    }

    fn withdraw(&self, at: u32) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(other, _)| *other != at);
        drop(open);
        let mut present = self.lock();
        present.members.remove(ChunkIndex(at));
        if let Some(slot) = present.stamps.get_mut(at as usize) {
            *slot = None;
        }
    }

    fn open_file(&self, at: u32) -> Result<Arc<File>, ReadError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.iter().position(|(other, _)| *other == at)
            && let Some(found) = open.remove(place)
        {
            let file = found.1.clone();
            open.push_back(found);
            return Ok(file);
        }
        drop(open);
        let file = self.open_anew(at)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.open_max {
            open.pop_front();
        }
        open.push_back((at, file.clone()));
        Ok(file)
    }

    /// Opens the file that has the member's name now.
    fn open_anew(&self, at: u32) -> Result<Arc<File>, ReadError> {
        let path = self.path(at).ok_or(ReadError::NotHere)?;
        let relative = path.strip_prefix(&self.base).unwrap_or(&path);
        let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
            return Err(ReadError::NotHere);
        };
        let opened = Dir::open(&self.base)
            .and_then(|base| beneath::open_dir(base, parent, false))
            .and_then(|reached| reached.dir.open_file(name, Access::Read));
        let file = opened.map_err(|error| self.failed(at, error))?;
        Ok(Arc::new(file))
    }

    fn stamp(&self, at: u32, file: &File) -> Result<Stamp, ReadError> {
        let path = self.path(at).ok_or(ReadError::NotHere)?;
        let metadata = file.metadata().map_err(|error| self.failed(at, error))?;
        match metadata.is_file() {
            true => Ok(stamp_of(&metadata, &path)),
            false => Err(ReadError::Changed),
        }
    }

    fn failed(&self, at: u32, error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::UnexpectedEof => ReadError::Changed,
            _ => DiskError::new("read", self.path(at).unwrap_or_default(), error).into(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
