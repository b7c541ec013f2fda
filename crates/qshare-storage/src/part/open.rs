//! Opening a part: locks the working files and verifies the bytes of an earlier run.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use qshare_content::{
    Bitmap, Chunks, ContentId, ContentInfo, LENGTH_MAX_BYTES, META_SUFFIX, PART_SUFFIX, ShareKey,
};

use super::direct::DirectFile;
use super::hashes::ChunkHashes;
use super::recover::verified_chunks;
use super::unfinished::{latest_slot, read_head};
use super::{OpenError, Part, Progress};
use crate::disk::{RealDisk, SharedDisk};
use crate::existing::Existing;
use crate::hashing::{HashError, HashOptions};
use crate::meta::{Head, HeadRead, PartLook, Slot};
use crate::system::{Access, Entry, stamp_of};
use crate::target::{Place, Target};
use crate::temporary::temporary_name;
use crate::{DiskError, FileAttributes};

/// Options for opening a part.
#[derive(Clone, Default)]
pub struct PartOptions {
    /// Whether to replace a different file at the target, or another content's unfinished download.
    pub force: bool,
    /// A content whose unfinished download at the target is taken over: its verified bytes that
    /// are also part of the new content are kept.
    pub supersedes: Option<ContentId>,
    /// Options for hashing existing files.
    pub hashing: HashOptions,
    /// Attributes that the finished file gets.
    pub attributes: FileAttributes,
    /// The key of a private share, which the meta file keeps. The owner alone may read it then.
    pub share_key: Option<ShareKey>,
}

/// The result of opening a part.
#[allow(
    clippy::large_enum_variant,
    reason = "moved once; a box would complicate every use"
)]
pub enum Opened {
    /// The target exists already with the bytes of the content.
    Complete {
        /// The target.
        path: std::path::PathBuf,
    },
    /// The download is unfinished.
    Part(Part),
}

impl Part {
    /// Opens the unfinished download of `info` at `target`, or begins one. Blocks while existing
    /// files are hashed.
    pub fn open(
        target: &Target,
        info: ContentInfo,
        options: &PartOptions,
    ) -> Result<Opened, OpenError> {
        Part::open_on(Arc::new(RealDisk), target, info, options)
    }

    pub(crate) fn open_on(
        disk: SharedDisk,
        target: &Target,
        info: ContentInfo,
        options: &PartOptions,
    ) -> Result<Opened, OpenError> {
        if info.length > LENGTH_MAX_BYTES {
            return Err(OpenError::TooLong(target.path()));
        }
        let place = target.resolve()?;
        let ours = Ours {
            disk: &disk,
            place: &place,
            head: Head {
                id: info.id(),
                info,
                name: head_name(target),
                share_key: options.share_key.clone(),
            },
            chunks: Chunks::of_length(info.length),
        };
        match ours.existing(target, &options.hashing)? {
            Existing::Same => {
                ours.remove_leftovers();
                return Ok(Opened::Complete { path: place.path });
            }
            Existing::Directory | Existing::Special => {
                return Err(OpenError::NotAFile(place.path));
            }
            Existing::Different if !options.force => return Err(OpenError::Different(place.path)),
            Existing::Different | Existing::Nothing => {}
        }
        let meta = Arc::new(ours.lock_meta(options)?);
        let data = ours.open_data()?;
        let state = ours.judge(&meta, &data, &options.hashing)?;
        disk.sync_dir(&place.dir)
            .map_err(|error| DiskError::new("flush the directory of", &place.path, error))?;
        place.sync_made(&disk)?;

        let (id, chunks) = (ours.head.id, ours.chunks);
        let (data_name, meta_name) = (place.name_with(PART_SUFFIX), place.name_with(META_SUFFIX));
        Ok(Opened::Part(Part {
            disk,
            target: target.clone(),
            attributes: options.attributes,
            info,
            id,
            chunks,
            force: options.force,
            hashing: options.hashing.clone(),
            data,
            data_name,
            meta,
            meta_name,
            place,
            hashes: state.hashes.map_or_else(OnceLock::new, OnceLock::from),
            unjudged: AtomicBool::new(state.unjudged),
            recovered: state.verified.clone(),
            progress: Mutex::new(Progress {
                verified: state.verified,
                durable: state.durable,
            }),
            writing: Mutex::new(()),
            direct: DirectFile::default(),
            generation: Mutex::new(state.generation),
            clean: AtomicBool::new(state.clean),
            flush_failed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            finished: OnceLock::new(),
        }))
    }
}

/// Returns the name for the head of the meta file, short enough for it.
fn head_name(target: &Target) -> String {
    match target {
        Target::Beneath { name, .. } => name.as_str().to_owned(),
        Target::Path(path) => path
            .file_name()
            .map(|name| name.to_string_lossy().chars().take(255).collect())
            .unwrap_or_default(),
    }
}

/// The working files of one download.
struct Ours<'a> {
    disk: &'a SharedDisk,
    place: &'a Place,
    head: Head,
    chunks: Chunks,
}

/// The state of a part when it is opened.
struct State {
    hashes: Option<ChunkHashes>,
    unjudged: bool,
    verified: Bitmap,
    durable: Bitmap,
    generation: u64,
    clean: bool,
}

impl Ours<'_> {
    fn existing(&self, target: &Target, options: &HashOptions) -> Result<Existing, OpenError> {
        let (dir, name) = (&self.place.dir, &self.place.file_name);
        match Existing::under(dir, name, target, &self.head.info, options) {
            Ok(existing) => Ok(existing),
            Err(HashError::Cancelled) => Err(OpenError::Cancelled),
            Err(HashError::Disk(error)) => Err(error.into()),
            Err(HashError::Changed(_) | HashError::NotAFile(_) | HashError::TooLong(_)) => {
                Ok(Existing::Different)
            }
        }
    }

    fn entry(&self, name: &OsStr) -> Result<Option<Entry>, DiskError> {
        let entry = self.place.dir.entry(name);
        entry.map_err(|error| DiskError::new("look at", self.place.beside(name), error))
    }

    /// Opens or creates the meta file and locks it.
    fn lock_meta(&self, options: &PartOptions) -> Result<File, OpenError> {
        let name = self.place.name_with(META_SUFFIX);
        let path = self.place.beside(&name);
        let failed = |error| DiskError::new("open", &path, error);
        loop {
            match self.entry(&name)? {
                Some(Entry::File(_)) => {}
                Some(_) => return Err(OpenError::NotOurs(path)),
                None => {
                    if let Some(meta) = self.make_meta(false)? {
                        return Ok(meta);
                    }
                    continue;
                }
            }
            let meta = match self.place.dir.open_file(&name, Access::Edit) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            // Checked before locking, so that a file of another program is not locked.
            if read_head(&meta).map_err(failed)? == HeadRead::NotOurs {
                return Err(OpenError::NotOurs(path));
            }
            if !self.lock(&meta, &name)? {
                continue;
            }
            match read_head(&meta).map_err(failed)? {
                HeadRead::Good(head) if head.id == self.head.id => {
                    // A key that the file has stays: the download was private.
                    if self.head.share_key.is_some() && head.share_key != self.head.share_key {
                        self.keep_private(&meta).map_err(failed)?;
                        self.disk
                            .write_at(&meta, &self.head.encode(), 0)
                            .map_err(failed)?;
                    }
                    return Ok(meta);
                }
                HeadRead::Good(head) if options.force || options.supersedes == Some(head.id) => {
                    // The new meta file comes first, so that the old part file always has one.
                    if let Some(fresh) = self.make_meta(true)? {
                        return Ok(fresh);
                    }
                }
                HeadRead::Good(head) => {
                    let other = head.id;
                    return Err(OpenError::OtherUnfinished { path, other });
                }
                HeadRead::Damaged => {
                    self.keep_private(&meta).map_err(failed)?;
                    self.disk
                        .write_at(&meta, &self.head.encode(), 0)
                        .map_err(failed)?;
                    return Ok(meta);
                }
                HeadRead::Newer(version) => return Err(OpenError::Newer { path, version }),
                HeadRead::NotOurs => return Err(OpenError::NotOurs(path)),
            }
        }
    }

    /// Creates a meta file under a temporary name, locks it, and renames it. Returns None if
    /// another process was faster.
    fn make_meta(&self, over: bool) -> Result<Option<File>, OpenError> {
        let part = self.place.name_with(PART_SUFFIX);
        if !over && self.entry(&part)?.is_some() {
            return Err(OpenError::NotOurs(self.place.beside(&part)));
        }
        let name = self.place.name_with(META_SUFFIX);
        let temporary = temporary_name(&name, &self.head.id);
        let path = self.place.beside(&name);
        let failed = |error| DiskError::new("make", &path, error);
        let meta = self.place.dir.open_file(&temporary, Access::EditOrCreate);
        let meta = meta.map_err(failed)?;
        if !self.lock(&meta, &temporary)? {
            return Ok(None);
        }
        let made = self
            .keep_private(&meta)
            .and_then(|()| self.disk.set_len(&meta, 0))
            .and_then(|()| self.disk.write_at(&meta, &self.head.encode(), 0))
            .and_then(|()| self.disk.sync(&meta))
            .and_then(|()| self.disk.rename(&self.place.dir, &temporary, &name, over));
        match made {
            Ok(()) => Ok(Some(meta)),
            Err(error) => {
                let _ = self.disk.remove(&self.place.dir, &temporary);
                match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(None),
                    _ => Err(failed(error).into()),
                }
            }
        }
    }

    /// Lets only the owner read a meta file that is to hold a share key.
    fn keep_private(&self, meta: &File) -> io::Result<()> {
        #[cfg(unix)]
        if self.head.share_key.is_some() {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            return meta.set_permissions(mode);
        }
        let _ = meta;
        Ok(())
    }

    /// Locks an open file. Returns false if the previous owner of the lock has renamed or removed
    /// the file meanwhile.
    fn lock(&self, file: &File, name: &OsStr) -> Result<bool, OpenError> {
        let path = self.place.beside(name);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked(self.place.path.clone()));
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(path = %path.display(), "this file system cannot lock files");
            }
            Err(TryLockError::Error(error)) => {
                return Err(DiskError::new("lock", path, error).into());
            }
        }
        let metadata = file
            .metadata()
            .map_err(|error| DiskError::new("look at", &path, error))?;
        let locked = stamp_of(&metadata, &path);
        Ok(match self.entry(name)? {
            Some(Entry::File(stamp)) => stamp.same_file(&locked),
            _ => false,
        })
    }

    /// Opens or creates the part file. It belongs to this download, since the meta file does.
    fn open_data(&self) -> Result<File, OpenError> {
        let name = self.place.name_with(PART_SUFFIX);
        let path = self.place.beside(&name);
        let failed = |error| DiskError::new("open", &path, error);
        if !matches!(self.entry(&name)?, None | Some(Entry::File(_))) {
            return Err(OpenError::NotOurs(path));
        }
        let data = self.place.dir.open_file(&name, Access::EditOrCreate);
        let data = data.map_err(failed)?;
        if data.metadata().map_err(failed)?.len() > self.head.info.length {
            self.disk
                .set_len(&data, self.head.info.length)
                .map_err(failed)?;
        }
        Ok(data)
    }

    /// Determines which chunks of the part file are verified.
    fn judge(
        &self,
        meta: &Arc<File>,
        data: &File,
        options: &HashOptions,
    ) -> Result<State, OpenError> {
        let path = self.place.beside(&self.place.name_with(PART_SUFFIX));
        let failed = |error| DiskError::new("read", &path, error);
        let look = PartLook::from(stamp_of(&data.metadata().map_err(failed)?, &path));
        let root = &self.head.info.root;
        let hashes = if self.chunks.count() == 1 {
            Some(ChunkHashes::of_one_chunk(self.chunks, *root))
        } else {
            ChunkHashes::load(self.chunks, root, meta).map_err(failed)?
        };
        let slot = latest_slot(meta, &self.head, &self.chunks).unwrap_or_else(|| Slot {
            generation: 0,
            clean: None,
            durable: Bitmap::new(self.chunks.count()),
        });
        let clean = slot.clean == Some(look);
        let verified = match &hashes {
            _ if clean => slot.durable.clone(),
            Some(_) if look.size == 0 => Bitmap::new(self.chunks.count()),
            Some(hashes) => verified_chunks(data, &path, &self.chunks, hashes, options)?,
            None => Bitmap::new(self.chunks.count()),
        };
        let mut durable = slot.durable;
        let gone: Vec<_> = durable
            .iter()
            .filter(|&chunk| !verified.contains(chunk))
            .collect();
        for chunk in gone {
            durable.remove(chunk);
        }
        Ok(State {
            unjudged: !clean && hashes.is_none() && look.size > 0,
            hashes,
            verified,
            durable,
            generation: slot.generation,
            clean,
        })
    }

    /// Removes the working files that a stop between the final rename and the removal of the meta
    /// file has left, if they belong to this content and no process has locked them.
    fn remove_leftovers(&self) {
        let name = self.place.name_with(META_SUFFIX);
        let Ok(meta) = self.place.dir.open_file(&name, Access::Edit) else {
            return;
        };
        let ours = |id: ContentId| id == self.head.id;
        match read_head(&meta) {
            Ok(HeadRead::Good(head)) if ours(head.id) => {}
            _ => return,
        }
        if matches!(self.lock(&meta, &name), Ok(true)) {
            let _ = (self.disk).remove(&self.place.dir, &self.place.name_with(PART_SUFFIX));
            let _ = self.disk.remove(&self.place.dir, &name);
        }
    }
}
