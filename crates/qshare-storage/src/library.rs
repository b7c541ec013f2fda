//! The shared directories.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use qshare_content::{Chunks, ContentId, ContentInfo, Hash, tree};

use crate::DiskError;
use crate::event::{Asset, LibraryEvent};
use crate::hashing::HashPage;
use crate::index::Index;
use crate::offered_files::Offered;
use crate::reading::is_readable;
use crate::roots::Roots;
use crate::scanner::{LibraryState, Message, Scanner, hash_jobs};
use crate::system::{read_exact_at, stamp_of};
use crate::walk::{Naming, naming};
use crate::watch::Watch;

/// What a [`Library`] shares, and how.
#[derive(Clone, Debug)]
pub struct LibraryConfig {
    /// Directories whose files are shared; they may be made later, or overlap in names.
    pub roots: Vec<PathBuf>,
    /// Directories beneath them that are never shared (certificates, state).
    pub exclude: Vec<PathBuf>,
    /// Where the index lives; made if it is not there, and never shared.
    pub state_dir: PathBuf,
    /// Threads that hash; 0 means one a core.
    pub hash_threads: usize,
}

/// Why a library cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Another process has this index open.
    #[error("another process uses {}", .0.display())]
    InUse(PathBuf),
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing by this id, or not this part of it.
    #[error("not here")]
    NotHere,
    /// The file is not what was announced any more; it has been withdrawn.
    #[error("the file has changed")]
    Changed,
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a download cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Not beneath one of the roots, or under a name that cannot be told to others.
    #[error("{} is not in a shared directory", .0.display())]
    NotShared(PathBuf),
    /// The hashes do not amount to the root, or the length differs.
    #[error("{} is not the content that it should be", .0.display())]
    Mismatch(PathBuf),
    /// Our disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The shared directories: what is in them, and its bytes.
///
/// Opening returns at once; scanning, hashing and watching go on in the library's own threads
/// until it is dropped. Safe to share between threads.
pub struct Library {
    shared: Arc<LibraryState>,
    messages: Sender<Message>,
    threads: Vec<JoinHandle<()>>,
}

impl Library {
    /// Opens the index and begins to scan. `on_event` is called from one of the library's
    /// threads, in order, after the change shows in [`assets`](Self::assets); it must not block
    /// for long.
    pub fn open(
        config: LibraryConfig,
        on_event: impl Fn(LibraryEvent) + Send + 'static,
    ) -> Result<Library, LibraryError> {
        let mut exclude = config.exclude;
        exclude.push(config.state_dir.clone());
        let roots = Roots::new(&config.roots, &exclude)
            .map_err(|error| DiskError::new("find", &config.state_dir, error))?;
        let index = Index::open(&config.state_dir)?;
        let shared = Arc::new(LibraryState::new(roots, index, config.hash_threads));
        let (messages, inbox) = mpsc::channel();
        let (jobs, job_queue) = mpsc::channel();
        let job_queue = Arc::new(Mutex::new(job_queue));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(|error| DiskError::new("start a thread for", &config.state_dir, error))
        };
        let mut threads = Vec::new();
        for _ in 0..shared.threads() {
            let (shared, queue, done) = (shared.clone(), job_queue.clone(), messages.clone());
            let work = move || hash_jobs(&shared, &queue, &done);
            threads.push(spawn("qshare-hash", Box::new(work))?);
        }
        let (scanner_shared, hints) = (shared.clone(), messages.clone());
        let keep = move || {
            let watch = Watch::new(move |hint| {
                // Only fails when the scanner has stopped.
                let _ = hints.send(Message::Hint(hint));
            });
            Scanner::new(scanner_shared, inbox, jobs, watch, on_event).run();
        };
        threads.push(spawn("qshare-library", Box::new(keep))?);
        Ok(Library {
            shared,
            messages,
            threads,
        })
    }

    /// Everything that is offered now; each (name, content) once.
    pub fn assets(&self) -> Vec<Arc<Asset>> {
        self.shared.offered_files().assets()
    }

    /// The content, under one of its names.
    pub fn find(&self, id: &ContentId) -> Option<Arc<Asset>> {
        self.shared.offered_files().find(id).cloned()
    }

    /// The path of a file that holds the content.
    pub fn path(&self, id: &ContentId) -> Option<PathBuf> {
        let first = self.shared.offered_files().holders(id).first()?.clone();
        Some(self.shared.roots.full_path(&first.key))
    }

    /// The hashes of some of a content's chunks.
    pub fn chunk_hashes(&self, id: &ContentId, chunks: Range<u32>) -> Result<Vec<Hash>, ReadError> {
        let asset = self.find(id).ok_or(ReadError::NotHere)?;
        let hashes = self.shared.index.chunk_hashes(&asset.info, chunks)?;
        hashes.ok_or(ReadError::NotHere)
    }

    /// One page of chunk hashes with its audit path.
    pub fn hash_page(&self, id: &ContentId, page: u32) -> Result<HashPage, ReadError> {
        let asset = self.find(id).ok_or(ReadError::NotHere)?;
        let page = self.shared.index.proven_page(&asset.info, page)?;
        page.ok_or(ReadError::NotHere)
    }

    /// Fills `bytes`, at most 4 MiB of them (the largest chunk), with those of a content from
    /// `offset` on.
    ///
    /// The file is compared with what was hashed before and after the read. If it has changed it
    /// is withdrawn and hashed anew; if the same content lies elsewhere too, that serves.
    pub fn read_into(
        &self,
        id: &ContentId,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut worst = ReadError::NotHere;
        let holders = self.shared.offered_files().holders(id).to_vec();
        for offered in holders {
            if !is_readable(offset, bytes, offered.asset.info.length) {
                return Err(ReadError::NotHere);
            }
            match self.read_file(&offered, offset, bytes) {
                Ok(()) => return Ok(()),
                Err(ReadError::Changed) => {
                    self.withdraw(&offered);
                    worst = ReadError::Changed;
                }
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }

    /// Takes in a completed download without hashing it again. `hashes` may be empty for a
    /// content of one chunk.
    pub fn adopt(
        &self,
        path: &Path,
        info: ContentInfo,
        hashes: &[Hash],
    ) -> Result<Asset, AdoptError> {
        let not_shared = || AdoptError::NotShared(path.into());
        let mismatch = || AdoptError::Mismatch(path.into());
        let failed = |error| DiskError::new("read", path, error);
        let chunks = Chunks::of_length(info.length);
        let proven = if chunks.count() == 1 {
            hashes.is_empty() || hashes == [info.root]
        } else {
            hashes.len() == chunks.count() as usize
                && tree::root_of_chunks(&chunks, hashes) == info.root
        };
        if !proven {
            return Err(mismatch());
        }
        let absolute = std::path::absolute(path).map_err(failed)?;
        let key = self.shared.roots.keys_of(&absolute).find(|key| {
            let excluded = self.shared.roots.excluded(key.root);
            !excluded.iter().any(|path| key.relative.starts_with(path))
        });
        let key = key.ok_or_else(not_shared)?;
        let Naming::Shared(name) = naming(&key.relative) else {
            return Err(not_shared());
        };
        let (_, metadata) = self.shared.roots.open(&key).map_err(failed)?;
        let stamp = stamp_of(&metadata, &absolute);
        if !metadata.is_file() || stamp.size != info.length {
            return Err(mismatch());
        }
        let entry = (&stamp, &info, hashes);
        self.shared.index.put([entry].into_iter(), false)?;
        let asset = Asset::new(name.clone(), info);
        let events = self
            .shared
            .offered_files_mut()
            .insert(key, name, stamp, info);
        // Only fails when the scanner has stopped.
        let _ = self.messages.send(Message::Adopted(events));
        Ok(asset)
    }

    fn read_file(
        &self,
        offered: &Arc<Offered>,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        use std::io::ErrorKind;
        let path = self.shared.roots.full_path(&offered.key);
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::UnexpectedEof => {
                ReadError::Changed
            }
            _ => DiskError::new("read", &path, error).into(),
        };
        let unchanged = |metadata: std::io::Result<std::fs::Metadata>| {
            let stamp = stamp_of(&metadata.map_err(failed)?, &path);
            if stamp == offered.stamp {
                Ok(())
            } else {
                Err(ReadError::Changed)
            }
        };
        let file = match self.shared.open_files.get(&offered.key) {
            Some(file) => file,
            None => {
                let (file, _) = self.shared.roots.open(&offered.key).map_err(failed)?;
                let file = Arc::new(file);
                self.shared.open_files.put(offered.clone(), file.clone());
                file
            }
        };
        unchanged(file.metadata())?;
        read_exact_at(&file, bytes, offset).map_err(failed)?;
        unchanged(file.metadata())
    }

    /// Offers a file no more, unless it has been hashed anew meanwhile, and has it looked at.
    fn withdraw(&self, offered: &Arc<Offered>) {
        let key = &offered.key;
        self.shared.open_files.forget(key);
        let mut offered_files = self.shared.offered_files_mut();
        let same = offered_files
            .get(key)
            .is_some_and(|now| now.stamp == offered.stamp);
        let event = if same {
            offered_files.remove(key)
        } else {
            None
        };
        drop(offered_files);
        // Only fails when the scanner has stopped.
        let _ = self
            .messages
            .send(Message::Withdrawn(offered.clone(), event));
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        let _ = self.messages.send(Message::Stop);
        // The scanner ends, hence its queue of jobs, hence the others.
        for thread in self.threads.drain(..).rev() {
            // An event may have dropped us.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
