//! An unfinished download: its bytes, its verified chunks and its durable chunks.

mod direct;
mod errors;
mod hashes;
mod open;
mod recover;
mod reuse;
mod sparse;
#[cfg(test)]
mod tests;
mod unfinished;

pub use errors::{FinishError, OpenError, PartError};
pub use open::{Opened, PartOptions};
pub use reuse::ReuseHooks;
pub use unfinished::{Unfinished, durable_chunks, unfinished};

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, ContentInfo, Hash};

use crate::disk::SharedDisk;
use crate::existing::Existing;
use crate::hashing::{HashError, HashOptions, HashPage};
use crate::meta::{Layout, Slot, encode_hashes};
use crate::reading::is_readable;
use crate::stamp::Stamp;
use crate::system::{apply_attributes, read_exact_at, stamp_of};
use crate::target::{Place, Target};
use crate::{DiskError, FileAttributes, ReadError};
use direct::DirectFile;
use hashes::ChunkHashes;

/// When a finished file is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns.
    Immediate,
    /// Whenever the operating system writes it back.
    Deferred,
}

/// An unfinished download with its part file and its meta file, exclusively locked.
///
/// *Verified* chunks have the right hash and may be served. *Durable* chunks survive a power cut.
/// All methods may be called from several threads at once. [`close`](Self::close),
/// [`finish`](Self::finish) and [`discard`](Self::discard) end the part: they release the lock, and
/// later writes fail, but verified chunks can still be read. A part that is dropped without any of
/// them loses no written bytes: the next open hashes the part file again.
pub struct Part {
    disk: SharedDisk,
    place: Place,
    target: Target,
    attributes: FileAttributes,
    info: ContentInfo,
    id: ContentId,
    chunks: Chunks,
    force: bool,
    hashing: HashOptions,
    data: File,
    data_name: OsString,
    /// The meta file, which carries the lock.
    meta: Arc<File>,
    meta_name: OsString,
    hashes: OnceLock<ChunkHashes>,
    /// Whether the part file holds bytes that could not be verified without chunk hashes.
    unjudged: AtomicBool,
    recovered: Bitmap,
    progress: Mutex<Progress>,
    /// Held while bytes are written. The kernel admits one writer to a file anyway, and other
    /// writers would spin.
    writing: Mutex<()>,
    direct: DirectFile,
    /// Generation of the last slot that was written; held while files are flushed.
    generation: Mutex<u64>,
    /// Whether the meta file says that the part file is as the last clean stop left it.
    clean: AtomicBool,
    /// Whether a flush has failed. The system may have dropped the pages that it could not write
    /// and report success the next time, so no chunk becomes durable any more.
    flush_failed: AtomicBool,
    /// Whether the lock has been released, so that another process may use the files.
    ended: AtomicBool,
    /// The file's stamp when it was finished.
    finished: OnceLock<Stamp>,
}

struct Progress {
    verified: Bitmap,
    durable: Bitmap,
}

impl Part {
    /// Returns length and root of the content.
    pub fn info(&self) -> ContentInfo {
        self.info
    }

    /// Returns the path of the finished file.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Returns whether the chunk hashes are known. Those of a content of one chunk always are.
    pub fn has_hashes(&self) -> bool {
        self.hashes.get().is_some()
    }

    /// Returns all chunk hashes, if they are known.
    pub fn hashes(&self) -> Result<Option<Vec<Hash>>, PartError> {
        let all = self.hashes.get().map(ChunkHashes::all).transpose();
        Ok(all.map_err(|error| self.meta_failed("read", error))?)
    }

    /// Returns the hash of one chunk, if it is known.
    pub fn hash(&self, chunk: ChunkIndex) -> Result<Option<Hash>, PartError> {
        let hash = self.hashes.get().map(|hashes| hashes.get(chunk));
        let hash = hash
            .transpose()
            .map_err(|error| self.meta_failed("read", error))?;
        Ok(hash.flatten())
    }

    /// Returns one page of chunk hashes with its audit path, for a peer.
    pub fn hash_page(&self, page: u32) -> Result<HashPage, ReadError> {
        let hashes = self.hashes.get().ok_or(ReadError::NotHere)?;
        hashes
            .proven_page(page)
            .map_err(|error| self.meta_failed("read", error))?
            .ok_or(ReadError::NotHere)
    }

    /// Stores the chunk hashes durably, and verifies the bytes of the part file that could not be
    /// verified without them. Returns the chunks that are verified now.
    pub fn set_hashes(&self, hashes: Vec<Hash>) -> Result<Bitmap, PartError> {
        let generation = self.generation();
        self.still_ours()?;
        if !self.has_hashes() {
            let bytes = encode_hashes(&hashes);
            let checked =
                ChunkHashes::checked(self.chunks, &self.info.root, hashes, self.meta.clone())
                    .ok_or(PartError::WrongHashes)?;
            if self.chunks.count() > 1 {
                let offset = Layout::of(&self.chunks).hash_offset(0);
                self.disk
                    .write_at(&self.meta, &bytes, offset)
                    .and_then(|()| self.disk.sync(&self.meta))
                    .map_err(|error| self.meta_failed("write", error))?;
            }
            let _ = self.hashes.set(checked);
        }
        if let Some(hashes) = self.hashes.get()
            && self.unjudged.load(Ordering::Acquire)
        {
            let path = self.data_path();
            let verified =
                recover::verified_chunks(&self.data, &path, &self.chunks, hashes, &self.hashing)?;
            let mut progress = self.progress();
            for chunk in verified.iter() {
                progress.verified.insert(chunk);
            }
            self.unjudged.store(false, Ordering::Release);
        }
        drop(generation);
        Ok(self.verified())
    }

    /// Returns the chunks of an earlier run that were verified when this part was opened.
    pub fn recovered(&self) -> Bitmap {
        self.recovered.clone()
    }

    /// Returns the verified chunks.
    pub fn verified(&self) -> Bitmap {
        self.progress().verified.clone()
    }

    /// Returns the chunks that survive a power cut.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> Bitmap {
        self.progress().durable.clone()
    }

    /// Returns whether a chunk is verified.
    pub fn is_verified(&self, chunk: ChunkIndex) -> bool {
        self.progress().verified.contains(chunk)
    }

    /// Returns whether all chunks are verified.
    pub fn is_complete(&self) -> bool {
        self.progress().verified.is_full()
    }

    /// Writes bytes of a chunk. Does nothing if the chunk is verified already.
    ///
    /// Only one writer at a time may write unverified bytes of a chunk. Otherwise bytes of one
    /// writer may overwrite those that another has verified. Use
    /// [`write_verified`](Self::write_verified) where there may be several writers.
    pub fn write(
        &self,
        chunk: ChunkIndex,
        offset_in_chunk: u64,
        bytes: &[u8],
    ) -> Result<(), PartError> {
        let range = self.chunks.range(chunk);
        let end = offset_in_chunk.saturating_add(bytes.len() as u64);
        if chunk.0 >= self.chunks.count() || end > range.end - range.start {
            return Err(PartError::OutOfRange(chunk));
        }
        if self.progress().verified.contains(chunk) {
            return Ok(());
        }
        self.still_ours()?;
        self.note_unclean()?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = range.start + offset_in_chunk;
        let write = |bytes: &[u8], offset| self.write_run(bytes, offset);
        sparse::write_sparse(&*self.disk, &self.data, bytes, offset, write)
            .map_err(|error| self.data_failed("write", error).into())
    }

    /// Chooses whether bytes are written around the page cache from now on, where the file system
    /// can and the caller's buffers are aligned to 4 KiB. That saves most of the kernel's work, and
    /// reading the bytes again needs the disk.
    pub fn write_around_cache(&self, around: bool) {
        self.direct.want(around);
    }

    fn write_run(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let open = || {
            let file = self.place.dir.open_direct(&self.data_name).ok()?;
            let same = self
                .stamp_of_opened(&file)?
                .same_file(&self.data_stamp().ok()?);
            same.then_some(file)
        };
        let done = self.direct.write(&*self.disk, bytes, offset, open)?;
        match &bytes[done..] {
            [] => Ok(()),
            rest => self.disk.write_at(&self.data, rest, offset + done as u64),
        }
    }

    fn stamp_of_opened(&self, file: &File) -> Option<Stamp> {
        Some(stamp_of(&file.metadata().ok()?, &self.place.path))
    }

    /// Marks `chunk`, whose bytes have been written and verified. Returns whether that is new.
    pub fn mark_verified(&self, chunk: ChunkIndex) -> bool {
        self.progress().verified.insert(chunk)
    }

    /// Writes the verified bytes of a whole chunk and marks it. Returns whether that is new.
    pub fn write_verified(&self, chunk: ChunkIndex, bytes: &[u8]) -> Result<bool, PartError> {
        if bytes.len() as u64 != self.chunks.size(chunk) {
            return Err(PartError::OutOfRange(chunk));
        }
        self.write(chunk, 0, bytes)?;
        Ok(self.mark_verified(chunk))
    }

    /// Returns the bytes of a verified chunk; `NotHere` if it is not verified.
    pub fn read(&self, chunk: ChunkIndex) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; self.chunks.size(chunk) as usize];
        self.read_into(chunk, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from `offset_in_chunk` of a verified chunk; `NotHere` if it is not verified.
    pub fn read_into(
        &self,
        chunk: ChunkIndex,
        offset_in_chunk: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        let chunk_range = self.chunks.range(chunk);
        let size = chunk_range.end - chunk_range.start;
        if !is_readable(offset_in_chunk, bytes, size) || !self.progress().verified.contains(chunk) {
            return Err(ReadError::NotHere);
        }
        match read_exact_at(&self.data, bytes, chunk_range.start + offset_in_chunk) {
            Ok(()) if self.changed_since_finished() => Err(ReadError::Changed),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Changed),
            Err(error) => Err(self.data_failed("read", error).into()),
        }
    }

    /// Makes the verified chunks durable: flushes the part file, then the meta file. Does nothing
    /// if no chunk is new. To be called every 2 s or 256 MiB.
    pub fn checkpoint(&self) -> Result<(), PartError> {
        let mut generation = self.generation();
        self.still_ours()?;
        let (verified, nothing_new) = {
            let progress = self.progress();
            let nothing_new = progress.verified == progress.durable;
            (progress.verified.clone(), nothing_new)
        };
        if nothing_new {
            return Ok(());
        }
        self.flush_data()?;
        self.flush_slot(&mut generation, false, verified)
    }

    /// Writes a checkpoint with the clean flag, so that the next start need not hash, and ends the
    /// part.
    pub fn close(&self) -> Result<(), PartError> {
        let mut generation = self.generation();
        self.still_ours()?;
        let verified = self.verified();
        let noted = if self.clean.load(Ordering::Acquire) {
            Ok(())
        } else {
            self.flush_data()
                .map_err(PartError::from)
                .and_then(|()| self.flush_slot(&mut generation, true, verified))
        };
        self.end();
        noted
    }

    /// Renames the part file of a complete part to its target, removes the meta file and ends the
    /// part.
    ///
    /// After an error the part is resumable and not ended. A finished part can still be read until
    /// the file changes.
    pub fn finish(&self, durability: Durability) -> Result<PathBuf, FinishError> {
        let _no_checkpoint = self.generation();
        self.still_ours()?;
        let verified = self.verified();
        if !verified.is_full() {
            let missing = verified.len() - verified.count();
            return Err(FinishError::Incomplete { missing });
        }
        self.disk
            .set_len(&self.data, self.info.length)
            .map_err(|error| self.data_failed("cut", error))?;
        apply_attributes(&self.data, &self.attributes, self.path());
        if durability == Durability::Immediate {
            self.flush_data()?;
        }
        let file_name = &self.place.file_name;
        let renamed = self
            .disk
            .rename(&self.place.dir, &self.data_name, file_name, self.force);
        match renamed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (dir, name) = (&self.place.dir, &self.place.file_name);
                match Existing::under(dir, name, &self.target, &self.info, &self.hashing) {
                    Ok(Existing::Same) => {}
                    Err(HashError::Disk(error)) => return Err(error.into()),
                    _ => return Err(FinishError::Different(self.place.path.clone())),
                }
                self.disk
                    .remove(&self.place.dir, &self.data_name)
                    .map_err(|error| self.data_failed("remove", error))?;
            }
            Err(error) => return Err(self.data_failed("rename", error).into()),
        }
        if durability == Durability::Immediate {
            self.disk
                .sync_dir(&self.place.dir)
                .map_err(|error| DiskError::new("flush the directory of", self.path(), error))?;
        }
        self.disk
            .remove(&self.place.dir, &self.meta_name)
            .map_err(|error| self.meta_failed("remove", error))?;
        if let Ok(stamp) = self.data_stamp() {
            let _ = self.finished.set(stamp);
        }
        self.end();
        Ok(self.place.path.clone())
    }

    /// Abandons the download: removes the part file and the meta file, and ends the part.
    pub fn discard(&self) -> Result<(), PartError> {
        let _no_checkpoint = self.generation();
        self.still_ours()?;
        // In this order: a part file without a meta file would not be recognised as qshare's.
        self.disk
            .remove(&self.place.dir, &self.data_name)
            .map_err(|error| self.data_failed("remove", error))?;
        self.disk
            .remove(&self.place.dir, &self.meta_name)
            .map_err(|error| self.meta_failed("remove", error))?;
        self.end();
        Ok(())
    }

    /// Releases the lock.
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // Unlocking fails on a file system that has no locks.
        let _ = self.meta.unlock();
    }

    fn still_ours(&self) -> Result<(), DiskError> {
        if self.ended.load(Ordering::Acquire) {
            let error = io::Error::other("this download has ended");
            return Err(self.data_failed("write", error));
        }
        Ok(())
    }

    fn data_stamp(&self) -> io::Result<Stamp> {
        Ok(stamp_of(&self.data.metadata()?, &self.place.path))
    }

    /// Returns whether the finished file has changed. The user may edit it while it is served.
    fn changed_since_finished(&self) -> bool {
        self.finished.get().is_some_and(|finished| {
            self.data_stamp().map_or(true, |now| {
                now.mtime_ns != finished.mtime_ns || now.size != finished.size
            })
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> MutexGuard<'_, u64> {
        self.generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn data_path(&self) -> PathBuf {
        self.place.beside(&self.data_name)
    }

    fn data_failed(&self, doing: &'static str, error: io::Error) -> DiskError {
        DiskError::new(doing, self.data_path(), error)
    }

    fn meta_failed(&self, doing: &'static str, error: io::Error) -> DiskError {
        DiskError::new(doing, self.place.beside(&self.meta_name), error)
    }

    fn flush_data(&self) -> Result<(), DiskError> {
        if self.flush_failed.load(Ordering::Acquire) {
            let error = io::Error::other("an earlier flush failed");
            return Err(self.data_failed("flush", error));
        }
        self.disk.sync(&self.data).map_err(|error| {
            self.flush_failed.store(true, Ordering::Release);
            self.data_failed("flush", error)
        })
    }

    /// Clears the clean flag before the part file changes. A change within the resolution of the
    /// file's times would not show in them.
    fn note_unclean(&self) -> Result<(), DiskError> {
        if !self.clean.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut generation = self.generation();
        if self.clean.load(Ordering::Acquire) {
            let durable = self.progress().durable.clone();
            self.write_slot(&mut generation, false, &durable)?;
            self.clean.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Writes and flushes the next slot, after which the chunks in `durable` are durable.
    fn flush_slot(
        &self,
        generation: &mut u64,
        clean: bool,
        durable: Bitmap,
    ) -> Result<(), PartError> {
        self.write_slot(generation, clean, &durable)?;
        self.disk.sync(&self.meta).map_err(|error| {
            self.flush_failed.store(true, Ordering::Release);
            self.meta_failed("flush", error)
        })?;
        self.progress().durable = durable;
        Ok(())
    }

    /// Overwrites the older slot. The generation advances only after a complete write, so the next
    /// write after a torn one overwrites the torn slot, not the valid one.
    fn write_slot(
        &self,
        generation: &mut u64,
        clean: bool,
        durable: &Bitmap,
    ) -> Result<(), DiskError> {
        let look = || -> io::Result<_> { Ok(self.data_stamp()?.into()) };
        let clean = clean
            .then(look)
            .transpose()
            .map_err(|error| self.data_failed("read", error))?;
        let slot = Slot {
            generation: *generation + 1,
            clean,
            durable: durable.clone(),
        };
        let offset = Layout::of(&self.chunks).slot_offset(slot.generation);
        self.disk
            .write_at(&self.meta, &slot.encode(&self.id), offset)
            .map_err(|error| self.meta_failed("write", error))?;
        *generation = slot.generation;
        Ok(())
    }
}
