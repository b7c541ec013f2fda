//! The thread that keeps the list of offered files as the disk is: looks where something may have changed, has
//! files hashed once they have settled, and tells what that comes to.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qshare_content::{AssetName, ContentInfo, LENGTH_MAX_BYTES};

use crate::event::{LibraryEvent, SkipReason};
use crate::hashing::{HashError, HashOptions, HashedFile, hash_opened, thread_count};
use crate::index::{Index, KnownFiles};
use crate::offered_files::{Key, Offered, OfferedFiles};
use crate::open_files::OpenFiles;
use crate::roots::Roots;
use crate::stamp::Stamp;
use crate::system::stamp_of;
use crate::walk::{Found, walk};
use crate::watch::{Hint, Watch};
use crate::{Cancel, DiskError};

/// How long after the first hint we look: one change comes as several events.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// A file that was modified this lately is probably still being written.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// How often we look whether a root has come, gone or been replaced, which nothing tells us.
const ROOTS_EVERY: Duration = Duration::from_secs(1);
/// How often we look at everything if changes are not reported.
const BLIND_EVERY: Duration = Duration::from_secs(10);
/// How long the first scan waits for files that are still being written.
const FIRST_SCAN_WAITS: Duration = Duration::from_secs(3);
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// From this length on a file is hashed by all threads, one such file at a time.
const LARGE_BYTES: u64 = 32 * 1024 * 1024;
/// Most results that one transaction of the index takes.
const RESULTS_MAX: usize = 512;
/// Most paths that are remembered as skipped, so as not to be reported twice.
const SKIPPED_MAX: usize = 10_000;
/// The index may hold this many files that are gone, besides as many as are there: another
/// choice of roots may want them.
const INDEX_SLACK: u64 = 10_000;

/// What the library's threads share.
pub(crate) struct LibraryState {
    pub(crate) roots: Roots,
    pub(crate) index: Index,
    pub(crate) open_files: OpenFiles,
    pub(crate) cancel: Cancel,
    offered_files: RwLock<OfferedFiles>,
    threads: usize,
    /// Held while a large file is hashed.
    large: Mutex<()>,
    hashed_bytes: Arc<AtomicU64>,
}

impl LibraryState {
    pub(crate) fn new(roots: Roots, index: Index, hash_threads: usize) -> LibraryState {
        LibraryState {
            roots,
            index,
            open_files: OpenFiles::default(),
            cancel: Cancel::new(),
            offered_files: RwLock::default(),
            threads: thread_count(hash_threads),
            large: Mutex::new(()),
            hashed_bytes: Arc::default(),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) fn offered_files(&self) -> RwLockReadGuard<'_, OfferedFiles> {
        self.offered_files
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn offered_files_mut(&self) -> RwLockWriteGuard<'_, OfferedFiles> {
        self.offered_files
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the scanner is told.
pub(crate) enum Message {
    /// Something may have changed.
    Hint(Hint),
    /// A file was hashed, or not.
    Hashed(Job, Result<(HashedFile, Stamp), HashError>),
    /// A reader found that a file had changed, and has withdrawn it.
    Withdrawn(Arc<Offered>, Option<LibraryEvent>),
    /// A download was taken in.
    Adopted(Vec<LibraryEvent>),
    /// The library is being dropped.
    Stop,
}

/// A file to be hashed.
pub(crate) struct Job {
    key: Arc<Key>,
    name: AssetName,
    size: u64,
}

/// Hashes files until there are no more jobs.
pub(crate) fn hash_jobs(
    shared: &LibraryState,
    jobs: &Mutex<Receiver<Job>>,
    done: &Sender<Message>,
) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if shared.cancel.is_cancelled() {
            return;
        }
        let result = hash_one(shared, &job);
        if done.send(Message::Hashed(job, result)).is_err() {
            return;
        }
    }
}

fn hash_one(shared: &LibraryState, job: &Job) -> Result<(HashedFile, Stamp), HashError> {
    let path = shared.roots.full_path(&job.key);
    let large = job.size >= LARGE_BYTES;
    let _turn = large.then(|| shared.large.lock().unwrap_or_else(PoisonError::into_inner));
    let (file, _) = shared
        .roots
        .open(&job.key)
        .map_err(|error| DiskError::new("read", &path, error))?;
    // The hashing threads tell how far the file is; what is new since the last word counts.
    let (told, hashed_bytes) = (AtomicU64::new(0), shared.hashed_bytes.clone());
    let progress = move |done, _| {
        let before = told.fetch_max(done, Ordering::Relaxed);
        hashed_bytes.fetch_add(done.saturating_sub(before), Ordering::Relaxed);
    };
    let options = HashOptions {
        threads: if large { shared.threads } else { 1 },
        cancel: shared.cancel.clone(),
        progress: Some(Arc::new(progress)),
    };
    hash_opened(&file, &path, &options)
}

/// The scanner's own state.
pub(crate) struct Scanner<F> {
    shared: Arc<LibraryState>,
    inbox: Receiver<Message>,
    jobs: Sender<Job>,
    on_event: F,
    watch: Watch,
    /// Device and inode of each root as it is being watched.
    watched: Vec<Option<(u64, u64)>>,
    blind: HashSet<u32>,
    hinted: BTreeSet<Key>,
    look_at: Option<Instant>,
    /// Files that have not settled.
    later: BinaryHeap<Reverse<(Instant, Arc<Key>)>>,
    waiting: HashSet<Arc<Key>>,
    pending: HashSet<Arc<Key>>,
    skipped: HashSet<PathBuf>,
    started: Instant,
    next_roots: Instant,
    next_blind: Instant,
    next_progress: Instant,
    scan_told: bool,
    progress_told: bool,
    index_unflushed: bool,
}

impl<F: Fn(LibraryEvent)> Scanner<F> {
    pub(crate) fn new(
        shared: Arc<LibraryState>,
        inbox: Receiver<Message>,
        jobs: Sender<Job>,
        watch: Watch,
        on_event: F,
    ) -> Scanner<F> {
        let now = Instant::now();
        Scanner {
            watched: vec![None; shared.roots.iter().count()],
            shared,
            inbox,
            jobs,
            on_event,
            watch,
            blind: HashSet::new(),
            hinted: BTreeSet::new(),
            look_at: None,
            later: BinaryHeap::new(),
            waiting: HashSet::new(),
            pending: HashSet::new(),
            skipped: HashSet::new(),
            started: now,
            next_roots: now,
            next_blind: now,
            next_progress: now + PROGRESS_EVERY,
            scan_told: false,
            progress_told: true,
            index_unflushed: false,
        }
    }

    /// Goes on until told to stop.
    pub(crate) fn run(mut self) {
        loop {
            let now = Instant::now();
            if now >= self.next_roots {
                self.check_roots();
                self.next_roots = now + ROOTS_EVERY;
            }
            if now >= self.next_blind {
                self.look_where_blind();
                self.next_blind = now + BLIND_EVERY;
            }
            if self.look_at.is_some_and(|at| now >= at) {
                self.look_where_hinted();
            }
            self.look_at_settled(now);
            self.tell_progress(now);
            let wake = self.next_wake();
            let timeout = wake.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(timeout) {
                Ok(first) => {
                    let more = self.inbox.try_iter().take(RESULTS_MAX - 1);
                    let messages: Vec<_> = std::iter::once(first).chain(more).collect();
                    if !self.handle(messages) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.index_unflushed {
            self.remember(&[], true);
        }
    }

    fn next_wake(&self) -> Instant {
        let settled = self.later.peek().map(|Reverse((at, _))| *at);
        let progress = (!self.scan_told || !self.progress_told).then_some(self.next_progress);
        [self.look_at, settled, progress]
            .into_iter()
            .flatten()
            .chain([self.next_roots])
            .fold(self.next_blind, Instant::min)
    }

    fn tell(&self, events: impl IntoIterator<Item = LibraryEvent>) {
        events.into_iter().for_each(&self.on_event);
    }

    /// False when it is time to stop.
    fn handle(&mut self, messages: Vec<Message>) -> bool {
        let mut hashed = Vec::new();
        for message in messages {
            match message {
                Message::Stop => return false,
                Message::Hint(hint) => self.take_hint(hint),
                Message::Adopted(events) => {
                    self.index_unflushed = true;
                    self.tell(events);
                }
                Message::Withdrawn(offered, event) => {
                    self.tell(event);
                    self.look(&offered.key);
                }
                Message::Hashed(job, result) => {
                    self.pending.remove(&job.key);
                    match result {
                        Ok(result) => hashed.push((job, result)),
                        Err(error) => self.not_hashed(job, error),
                    }
                }
            }
        }
        if !hashed.is_empty() {
            self.remember(&hashed, self.pending.is_empty());
            for (job, (file, stamp)) in hashed {
                self.offer_if_same(&job, stamp, file.info);
            }
        }
        true
    }

    /// Puts results into the index. Without it everything works, only slower the next time.
    fn remember(&mut self, hashed: &[(Job, (HashedFile, Stamp))], durable: bool) {
        let entries = hashed.iter().map(|(_, (file, stamp))| file.indexed(stamp));
        if let Err(error) = self.shared.index.put(entries, durable) {
            tracing::warn!(%error, "the index was not updated");
        }
        self.index_unflushed = !durable;
    }

    fn take_hint(&mut self, hint: Hint) {
        match hint {
            Hint::At(paths) => {
                for path in paths {
                    self.hinted.extend(self.shared.roots.keys_of(&path));
                }
            }
            Hint::Everywhere => self.hint_everywhere(),
            Hint::Blind(cause) => {
                let roots: Vec<u32> = self.shared.roots.iter().map(|(root, _)| root).collect();
                for root in roots {
                    self.go_blind(root, cause.clone());
                }
                self.hint_everywhere();
            }
        }
        if !self.hinted.is_empty() {
            self.look_at.get_or_insert(Instant::now() + DEBOUNCE);
        }
    }

    fn hint_everywhere(&mut self) {
        let roots = self.shared.roots.iter();
        self.hinted
            .extend(roots.map(|(root, _)| Key::new(root, Path::new(""))));
    }

    fn go_blind(&mut self, root: u32, cause: String) {
        if self.blind.insert(root) {
            let root = self.shared.roots.path(root).to_path_buf();
            self.tell([LibraryEvent::WatchFailed { root, cause }]);
        }
    }

    /// Watches and scans roots that have come; empties those that have gone.
    fn check_roots(&mut self) {
        let shared = self.shared.clone();
        for (root, path) in shared.roots.iter() {
            let found = match path.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    let stamp = stamp_of(&metadata, path);
                    Some((stamp.device, stamp.inode))
                }
                _ => None,
            };
            let Some(watched) = self.watched.get_mut(root as usize) else {
                continue;
            };
            if *watched == found {
                continue;
            }
            if watched.is_some() {
                self.watch.remove(path);
            }
            *watched = found;
            // Watched before it is scanned, so that nothing happens unseen in between.
            if found.is_some()
                && let Err(cause) = self.watch.add(path)
            {
                self.go_blind(root, cause);
            }
            self.look(&Key::new(root, Path::new("")));
        }
    }

    fn look_where_blind(&mut self) {
        for root in self.blind.clone() {
            self.look(&Key::new(root, Path::new("")));
        }
    }

    fn look_where_hinted(&mut self) {
        self.look_at = None;
        let hinted = std::mem::take(&mut self.hinted);
        for key in &hinted {
            // Sorted, so a directory comes before what is beneath it.
            let mut above = key.relative.ancestors().skip(1);
            if !above.any(|above| hinted.contains(&Key::new(key.root, above))) {
                self.look(key);
            }
        }
    }

    fn look_at_settled(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.later.peek()
            && *at <= now
        {
            if let Some(Reverse((_, key))) = self.later.pop() {
                self.waiting.remove(&key);
                self.look(&key);
            }
        }
    }

    /// Makes the list of offered files agree with what is at a path and beneath it.
    fn look(&mut self, start: &Key) {
        let shared = self.shared.clone();
        let known = match shared.index.files() {
            Ok(known) => Some(known),
            Err(error) => {
                tracing::warn!(%error, "hashing without the index");
                None
            }
        };
        let mut stale: BTreeSet<_> = shared.offered_files().beneath(start).into_iter().collect();
        let root = shared.roots.path(start.root);
        let excluded = shared.roots.excluded(start.root);
        walk(root, &start.relative, &excluded, |found| match found {
            Found::File {
                relative,
                name,
                stamp,
            } => {
                let key = Key {
                    relative: relative.into(),
                    root: start.root,
                };
                stale.remove(&key);
                self.consider(key, name, stamp, known.as_ref());
            }
            Found::Skipped { relative, reason } => self.skip(root.join(relative), reason),
        });
        for offered in stale {
            self.withdraw(&offered.key);
        }
    }

    fn consider(&mut self, key: Key, name: AssetName, stamp: Stamp, known: Option<&KnownFiles>) {
        let offered = self
            .shared
            .offered_files()
            .get(&key)
            .map(|offered| offered.stamp);
        if offered == Some(stamp) {
            return;
        }
        if offered.is_some() {
            self.withdraw(&key);
        }
        if stamp.size > LENGTH_MAX_BYTES {
            self.skip(self.shared.roots.full_path(&key), SkipReason::TooLong);
        } else if self.pending.contains(&key) {
            // What was hashed is compared with what is there then.
        } else if let Some(info) = known.and_then(|known| known.get(&stamp)) {
            self.offer(key, name, stamp, info);
        } else if let Some(wait) = unsettled_for(&stamp) {
            self.look_later(Arc::new(key), wait);
        } else {
            let (key, size) = (Arc::new(key), stamp.size);
            self.pending.insert(key.clone());
            self.progress_told = false;
            // Only fails when the workers are gone, and then so are we.
            let _ = self.jobs.send(Job { key, name, size });
        }
    }

    fn look_later(&mut self, key: Arc<Key>, wait: Duration) {
        if self.waiting.insert(key.clone()) {
            self.later.push(Reverse((Instant::now() + wait, key)));
        }
    }

    fn offer(&self, key: Key, name: AssetName, stamp: Stamp, info: ContentInfo) {
        let events = self
            .shared
            .offered_files_mut()
            .insert(key, name, stamp, info);
        self.tell(events);
    }

    fn offer_if_same(&mut self, job: &Job, stamp: Stamp, info: ContentInfo) {
        let path = self.shared.roots.full_path(&job.key);
        let now = path.symlink_metadata();
        let same = now.is_ok_and(|now| stamp_of(&now, &path) == stamp);
        if same {
            self.offer(Key::clone(&job.key), job.name.clone(), stamp, info);
        } else {
            self.look(&job.key);
        }
    }

    fn withdraw(&self, key: &Key) {
        let event = self.shared.offered_files_mut().remove(key);
        self.shared.open_files.forget(key);
        self.tell(event);
    }

    fn not_hashed(&mut self, job: Job, error: HashError) {
        let path = self.shared.roots.full_path(&job.key);
        match error {
            HashError::Cancelled | HashError::NotAFile(_) => {}
            HashError::Changed(_) => self.look_later(job.key, SETTLED_AFTER),
            HashError::TooLong(_) => self.skip(path, SkipReason::TooLong),
            HashError::Disk(DiskError::InTheWay { .. }) => {}
            HashError::Disk(DiskError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            HashError::Disk(error) => {
                self.skip(path, SkipReason::Unreadable(error.to_string()));
            }
        }
    }

    fn skip(&mut self, path: PathBuf, reason: SkipReason) {
        if self.skipped.len() < SKIPPED_MAX && self.skipped.insert(path.clone()) {
            self.tell([LibraryEvent::Skipped { path, reason }]);
        }
    }

    fn tell_progress(&mut self, now: Instant) {
        let idle = self.pending.is_empty();
        if !self.progress_told && (idle || now >= self.next_progress) {
            self.tell([LibraryEvent::Hashing {
                pending_files: self.pending.len() as u64,
                hashed_bytes: self.shared.hashed_bytes.load(Ordering::Relaxed),
            }]);
            self.progress_told = idle;
        }
        let waited = self.started.elapsed() >= FIRST_SCAN_WAITS;
        if !self.scan_told && idle && (self.later.is_empty() || waited) {
            self.scan_told = true;
            let (assets, bytes) = self.shared.offered_files().totals();
            self.tell([LibraryEvent::ScanFinished { assets, bytes }]);
            self.tidy_index(assets);
        }
        if now >= self.next_progress {
            self.next_progress = now + PROGRESS_EVERY;
        }
    }

    /// Forgets files that are long gone, once they outnumber those that are there.
    fn tidy_index(&self, assets: u64) {
        let all_here = self.watched.iter().all(Option::is_some);
        let files = self.shared.index.file_count().unwrap_or(0);
        if !all_here || files <= 2 * assets + INDEX_SLACK {
            return;
        }
        let offered_files = self.shared.offered_files();
        let live: HashSet<_> = offered_files
            .stamps()
            .map(|stamp| (stamp.device, stamp.inode))
            .collect();
        let tidied = self.shared.index.retain(
            |device, inode| live.contains(&(device, inode)),
            |id| offered_files.find(id).is_some(),
        );
        if let Err(error) = tidied {
            tracing::warn!(%error, "the index was not tidied");
        }
    }
}

/// How long to wait before a file can be taken to be complete; None if it can be now. A time in
/// the future is not waited for.
fn unsettled_for(stamp: &Stamp) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let modified = Duration::from_nanos(u64::try_from(stamp.mtime_ns).ok()?);
    let age = now.checked_sub(modified)?;
    SETTLED_AFTER
        .checked_sub(age)
        .filter(|wait| !wait.is_zero())
}
