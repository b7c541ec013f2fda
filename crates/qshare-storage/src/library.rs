//! The library: the shared directories and their contents.

use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qshare_content::{ChunkIndex, Chunks, ContentId, ContentInfo, Hash, tree};

use crate::error::{DiskError, LibraryError, ReadError};
use crate::event::{Asset, LibraryEvent};
use crate::folder::HashIndex;
use crate::hash_jobs::hash_jobs;
use crate::hashing::HashPage;
use crate::index::{Entry, Hashes, Index, panic_message};
use crate::library_state::LibraryState;
use crate::naming::{Naming, naming};
use crate::offered_files::{Key, Offer, Offered};
use crate::own_files::recognise;
use crate::reading::is_readable;
use crate::roots::Roots;
use crate::scanner::{Message, Scanner};
use crate::settling::Settling;
use crate::system::{is_out_of_descriptors, read_exact_at, stamp_of};

/// The configuration of a [`Library`].
#[derive(Clone, Debug)]
pub struct LibraryConfig {
    /// Directories whose files are shared. They may be created later, and several may hold files of
    /// the same name.
    pub roots: Vec<PathBuf>,
    /// Directories beneath them that are never shared (certificates, state).
    pub exclude: Vec<PathBuf>,
    /// Directory of the index. It is created if it is missing, and is never shared.
    pub state_dir: PathBuf,
    /// Number of hashing threads; 0 means one per core.
    pub hash_threads: usize,
    /// Interval at which all directories are checked again, in case the system did not report a
    /// change. [`RECONCILE_EVERY`] suits most uses.
    pub reconcile_every: Duration,
}

/// The default of [`LibraryConfig::reconcile_every`]. Checking 100,000 files takes about 0.3 s.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(600);

/// The reason why a finished download cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The path is not beneath a root, has a name that cannot be shared, or is one of qshare's own
    /// files.
    #[error("{} is not in a shared directory", .0.display())]
    NotShared(PathBuf),
    /// The hashes do not hash to the root, or the length differs.
    #[error("the bytes of {} differ from the content that was announced", .0.display())]
    Mismatch(PathBuf),
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Files of one content that a read tries before it fails.
const HOLDERS_TRIED: usize = 8;
/// Attempts to open a file while too many are open, and the pause between them: 1 s in all.
const OPEN_TRIES: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(20);
/// Panics after which the scanner is started again.
const RESTARTS_MAX: u32 = 5;

/// The shared directories, with the list of offered files and access to their bytes.
///
/// [`open`](Self::open) returns at once. The library's own threads scan, hash and watch until the
/// library is dropped. All methods may be called from several threads at once.
pub struct Library {
    state: Arc<LibraryState>,
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
        Library::open_with(config, Settling::new(), on_event)
    }

    fn open_with(
        config: LibraryConfig,
        settling: Settling,
        on_event: impl Fn(LibraryEvent) + Send + 'static,
    ) -> Result<Library, LibraryError> {
        let mut exclude = config.exclude;
        exclude.push(config.state_dir.clone());
        let roots = Roots::new(&config.roots, &exclude)
            .map_err(|error| DiskError::new("find", &config.state_dir, error))?;
        let index = Index::open(&config.state_dir)?;
        let state = LibraryState::new(roots, index, config.hash_threads, config.reconcile_every);
        let state = Arc::new(state);
        let (messages, inbox) = mpsc::channel();
        let (jobs, job_queue) = mpsc::channel();
        let job_queue = Arc::new(Mutex::new(job_queue));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(|error| DiskError::new("start a thread for", &config.state_dir, error))
        };
        let mut threads = Vec::new();
        for _ in 0..state.threads {
            let (state, queue, done) = (state.clone(), job_queue.clone(), messages.clone());
            let done = move |job, result| done.send(Message::Hashed(job, result)).is_ok();
            let work = move || hash_jobs(&state, &queue, done);
            threads.push(spawn("qshare-hash", Box::new(work))?);
        }
        let channel = (inbox, messages.clone());
        let scanner = Scanner::new(state.clone(), channel, jobs, settling, on_event);
        threads.push(spawn(
            "qshare-library",
            Box::new(move || supervise(scanner)),
        )?);
        Ok(Library {
            state,
            messages,
            threads,
        })
    }

    /// Returns the offered assets, each (name, content) once.
    pub fn assets(&self) -> Vec<Arc<Asset>> {
        self.state.offered_files().assets()
    }

    /// Returns the asset of a content, with one of its names.
    pub fn find(&self, id: &ContentId) -> Option<Arc<Asset>> {
        self.state.offered_files().find(id).cloned()
    }

    /// Returns the index of hashed files, for folders outside of the shared directories.
    pub fn hash_index(&self) -> HashIndex {
        HashIndex::of_library(self.state.clone())
    }

    /// Returns the asset of a content under one of the names that are `wanted`.
    pub fn find_named(
        &self,
        id: &ContentId,
        wanted: impl Fn(&Asset) -> bool,
    ) -> Option<Arc<Asset>> {
        let offered = self.state.offered_files();
        let held = offered.holder(id, |held| wanted(&held.asset))?;
        Some(held.asset.clone())
    }

    /// Returns the files that were reported with [`LibraryEvent::StillWritten`] and have not
    /// settled yet, in the order of their paths.
    pub fn still_written(&self) -> Vec<PathBuf> {
        self.state.still_written().clone()
    }

    /// Returns the path of a file with this content.
    pub fn path(&self, id: &ContentId) -> Option<PathBuf> {
        let first = self.state.offered_files().holder(id, |_| true)?.clone();
        Some(self.state.roots.full_path(&first.key))
    }

    /// Returns the hashes of some chunks of a content, verified against its root.
    pub fn chunk_hashes(&self, id: &ContentId, chunks: Range<u32>) -> Result<Vec<Hash>, ReadError> {
        let asset = self.find(id).ok_or(ReadError::NotHere)?;
        self.found(id, self.state.index.chunk_hashes(&asset.info, chunks)?)
    }

    /// Returns one page of chunk hashes with its audit path, verified against the root.
    pub fn hash_page(&self, id: &ContentId, page: u32) -> Result<HashPage, ReadError> {
        let asset = self.find(id).ok_or(ReadError::NotHere)?;
        self.found(id, self.state.index.proven_page(&asset.info, page)?)
    }

    /// Returns the hashes from the index. If they are wrong, makes the scanner hash the files
    /// again.
    fn found<T>(&self, id: &ContentId, hashes: Hashes<T>) -> Result<T, ReadError> {
        match hashes {
            Hashes::Found(found) => Ok(found),
            Hashes::NoSuchChunks => Err(ReadError::NotHere),
            Hashes::Damaged => {
                // Only fails when the scanner has stopped.
                let _ = self.messages.send(Message::WrongHashes(*id));
                Err(ReadError::NotHere)
            }
        }
    }

    /// Fills `bytes`, at most 4 MiB (the largest chunk), with bytes of a content from `offset` on.
    ///
    /// The file's stamp is checked before and after the read. A changed file is withdrawn and
    /// hashed again. Another file with the same content is then read instead, if there is one.
    pub fn read_into(
        &self,
        id: &ContentId,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut worst = ReadError::NotHere;
        let mut failed: Vec<Key> = Vec::new();
        while failed.len() < HOLDERS_TRIED {
            let untried = |held: &Offered| !failed.contains(&held.key);
            let held = self.state.offered_files().holder(id, untried).cloned();
            let Some(offered) = held else { break };
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
            failed.push(offered.key.clone());
        }
        Err(worst)
    }

    /// Offers a finished download without hashing it again. `hashes` may be empty for a content of
    /// one chunk.
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
        let key = self.state.roots.keys_of(&absolute).find(|key| {
            let excluded = self.state.roots.excluded(key.root);
            !excluded.iter().any(|path| key.relative.starts_with(path))
        });
        let key = key.ok_or_else(not_shared)?;
        let Naming::Shared(name) = naming(&key.relative) else {
            return Err(not_shared());
        };
        let (file, metadata) = self.state.roots.open(&key).map_err(failed)?;
        let stamp = stamp_of(&metadata, &absolute);
        if !metadata.is_file() || stamp.size != info.length {
            return Err(mismatch());
        }
        let file_name = key.relative.file_name().unwrap_or_default();
        let own = recognise(&file, file_name, stamp.size).map_err(failed)?;
        if own.is_some() {
            return Err(not_shared());
        }
        let entry = Entry {
            stamp: Some(&stamp),
            info: &info,
            hashes,
        };
        self.state.index.put([entry].into_iter(), false)?;
        let asset = Asset {
            attributes: stamp.attributes(),
            ..Asset::new(name.clone(), info)
        };
        let events = self.state.offered_files_mut().insert(Offer {
            key,
            name,
            stamp,
            info,
            snapshot: false,
        });
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
        let path = self.state.roots.full_path(&offered.key);
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::UnexpectedEof => {
                ReadError::Changed
            }
            _ => DiskError::new("read", &path, error).into(),
        };
        let unchanged = |metadata: std::io::Result<std::fs::Metadata>| {
            let stamp = stamp_of(&metadata.map_err(failed)?, &path);
            let serves = if offered.snapshot {
                stamp.same_file(&offered.stamp) && stamp.size >= offered.stamp.size
            } else {
                stamp == offered.stamp
            };
            if serves {
                Ok(())
            } else {
                Err(ReadError::Changed)
            }
        };
        let file = match self.state.open_files.get(&offered.key, Instant::now()) {
            Some(file) => file,
            None => {
                let file = Arc::new(self.open_file(&offered.key).map_err(failed)?);
                let open_files = &self.state.open_files;
                open_files.put(offered.clone(), file.clone(), Instant::now());
                file
            }
        };
        unchanged(file.metadata())?;
        if offered.snapshot {
            self.read_snapshot(&file, &offered.asset, offset, bytes)
                .map_err(|error| match error {
                    SnapshotError::Read(error) => failed(error),
                    SnapshotError::Hashes(error) => error,
                })?;
        } else {
            read_exact_at(&file, bytes, offset).map_err(failed)?;
        }
        unchanged(file.metadata())
    }

    /// Opens a file. If the process has too many open files, closes the cached ones and retries for
    /// up to 1 s.
    fn open_file(&self, key: &Key) -> std::io::Result<File> {
        let mut tries = 0;
        loop {
            match self.state.roots.open(key) {
                Err(error) if is_out_of_descriptors(&error) && tries < OPEN_TRIES => {
                    self.state.open_files.clear();
                    std::thread::sleep(OPEN_PAUSE);
                    tries += 1;
                }
                opened => return opened.map(|(file, _)| file),
            }
        }
    }

    /// Reads from a file that may have been written to since it was hashed, and verifies the chunks
    /// that hold the bytes.
    fn read_snapshot(
        &self,
        file: &File,
        asset: &Asset,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), SnapshotError> {
        let chunks = Chunks::of_length(asset.info.length);
        let end = offset + bytes.len() as u64;
        let first = (offset / chunks.chunk_bytes()) as u32;
        let last = end.div_ceil(chunks.chunk_bytes()).max(first.into()) as u32;
        let last = last.max(first + 1).min(chunks.count());
        let hashes = self
            .chunk_hashes(&asset.id, first..last)
            .map_err(SnapshotError::Hashes)?;
        let mut chunk_bytes = Vec::new();
        for (chunk, hash) in (first..last).map(ChunkIndex).zip(hashes) {
            let range = chunks.range(chunk);
            chunk_bytes.resize((range.end - range.start) as usize, 0);
            read_exact_at(file, &mut chunk_bytes, range.start).map_err(SnapshotError::Read)?;
            if tree::chunk_hash(&chunks, &chunk_bytes) != hash {
                return Err(SnapshotError::Hashes(ReadError::Changed));
            }
            let (from, to) = (offset.max(range.start), end.min(range.end));
            let source = (from - range.start) as usize..(to - range.start) as usize;
            let target = (from - offset) as usize..(to - offset) as usize;
            if let (Some(target), Some(source)) = (bytes.get_mut(target), chunk_bytes.get(source)) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    /// Withdraws a file, unless it has been hashed again meanwhile, and makes the scanner check its
    /// path.
    fn withdraw(&self, offered: &Arc<Offered>) {
        let key = &offered.key;
        self.state.open_files.forget(key);
        let mut offered_files = self.state.offered_files_mut();
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

/// The reason why a snapshot could not be read.
enum SnapshotError {
    Read(std::io::Error),
    Hashes(ReadError),
}

/// Runs the scanner until it is told to stop, and starts it again after a panic.
fn supervise<F: Fn(LibraryEvent)>(mut scanner: Scanner<F>) {
    for panics in 1.. {
        let run = catch_unwind(AssertUnwindSafe(|| scanner.run()));
        let Err(panic) = run else { return };
        let (cause, restarted) = (panic_message(&*panic), panics <= RESTARTS_MAX);
        tracing::error!(
            cause,
            restarted,
            "the scanner of shared directories panicked"
        );
        let told = catch_unwind(AssertUnwindSafe(|| {
            scanner.tell([LibraryEvent::ScannerFailed { cause, restarted }]);
            scanner.reset();
        }));
        if told.is_err() || !restarted {
            return;
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.state.cancel.cancel();
        let _ = self.messages.send(Message::Stop);
        // The end of the scanner closes the queue of jobs, which ends the hashing threads.
        for thread in self.threads.drain(..).rev() {
            // The callback for events may have dropped the library in a thread of its own.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::Receiver;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    struct Fixture {
        temp: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let temp = tempfile::tempdir().unwrap();
            fs::create_dir(temp.path().join("assets")).unwrap();
            Fixture { temp }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.temp.path().join("assets").join(name)
        }

        /// Writes a file that has long settled.
        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.path(name), bytes).unwrap();
            let file = File::options().write(true).open(self.path(name)).unwrap();
            let long_ago = std::time::SystemTime::now() - Duration::from_secs(100);
            file.set_modified(long_ago).unwrap();
        }

        fn open(
            &self,
            settling: Settling,
            hook: impl Fn(&LibraryEvent) + Send + 'static,
        ) -> (Library, Receiver<LibraryEvent>) {
            let config = LibraryConfig {
                roots: vec![self.temp.path().join("assets")],
                exclude: Vec::new(),
                state_dir: self.temp.path().join("state"),
                hash_threads: 1,
                reconcile_every: RECONCILE_EVERY,
            };
            let (sender, events) = mpsc::channel();
            let on_event = move |event| {
                hook(&event);
                let _ = sender.send(event);
            };
            let library = Library::open_with(config, settling, on_event).unwrap();
            (library, events)
        }
    }

    fn wait<T>(events: &Receiver<LibraryEvent>, pick: impl Fn(&LibraryEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = events
                .recv_timeout(left)
                .expect("an event within the deadline");
            if let Some(picked) = pick(&event) {
                return picked;
            }
        }
    }

    fn added(events: &Receiver<LibraryEvent>, name: &str) -> Arc<Asset> {
        wait(events, |event| match event {
            LibraryEvent::Added(asset) if asset.name.as_str() == name => Some(asset.clone()),
            _ => None,
        })
    }

    #[test]
    fn after_a_panic_the_scanner_is_started_again_and_sees_what_it_missed() {
        let fixture = Fixture::new();
        let panicked = AtomicBool::new(false);
        let (library, events) = fixture.open(Settling::new(), move |event| {
            let first = matches!(event, LibraryEvent::Added(_));
            assert!(!first || panicked.swap(true, Ordering::SeqCst), "planned");
        });
        fixture.write("a", b"a");
        let restarted = wait(&events, |event| match event {
            LibraryEvent::ScannerFailed { cause, restarted } => {
                assert!(cause.contains("planned"));
                Some(*restarted)
            }
            _ => None,
        });
        assert!(restarted);
        fixture.write("b", b"b");
        added(&events, "b");
        assert_eq!(library.assets().len(), 2);
        fs::create_dir(fixture.path("d")).unwrap();
        fixture.write("d/c", b"c");
        added(&events, "d/c");
    }

    #[test]
    fn wrong_hashes_in_the_index_are_not_served_and_the_file_is_hashed_again() {
        let fixture = Fixture::new();
        fixture.write("a", &vec![5; 500_000]);
        let (library, events) = fixture.open(Settling::new(), |_| {});
        let asset = added(&events, "a");
        let right = library.hash_page(&asset.id, 0).unwrap();
        let mut wrong = right.hashes.clone();
        wrong[1] = Hash([1; 32]);
        let entry = Entry {
            stamp: None,
            info: &asset.info,
            hashes: &wrong,
        };
        library.state.index.put([entry].into_iter(), true).unwrap();
        let refused = library.hash_page(&asset.id, 0);
        assert!(matches!(refused, Err(ReadError::NotHere)));
        assert_eq!(added(&events, "a"), asset);
        assert_eq!(library.hash_page(&asset.id, 0).unwrap(), right);
    }

    #[test]
    fn a_file_that_never_settles_is_offered_as_a_snapshot_whose_bytes_are_verified() {
        let fixture = Fixture::new();
        let mut log = File::create(fixture.path("log")).unwrap();
        log.write_all(&[b'x'; 300_000]).unwrap();
        let settling = Settling::with_snapshots(Duration::from_secs(1));
        let (library, events) = fixture.open(settling, |_| {});
        // From now on the scanner sees that a program has it open.
        log.write_all(b"one more line").unwrap();
        let asset = added(&events, "log");
        let read = |at: u64| {
            let mut bytes = [0; 1000];
            library.read_into(&asset.id, at, &mut bytes).map(|()| bytes)
        };
        log.write_all(&[b'y'; 1000]).unwrap();
        let length = asset.info.length;
        assert!(length < 301_013);
        let bytes = read(131_000).unwrap();
        assert_eq!(bytes, [b'x'; 1000]);
        assert!(matches!(read(length - 999), Err(ReadError::NotHere)));
        // A line that is part of the snapshot is changed in place.
        crate::system::write_all_at(&log, b"z", 131_500).unwrap();
        let changed = read(131_000);
        assert!(matches!(
            changed,
            Err(ReadError::Changed | ReadError::NotHere)
        ));
    }
}
