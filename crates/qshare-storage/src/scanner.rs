//! The thread that keeps the list of offered files in step with the disk. It decides which
//! directories to follow, checks paths that may have changed, has files hashed once they have
//! settled, and reports changes.
//!
//! Changes are found in three ways. The system reports them (within a second). Directories whose
//! changes it does not report are polled. Every ten minutes, reconciliation checks everything and
//! finds changes that the first two missed.

mod following;
mod looking;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use qshare_content::{Chunks, ContentId};

use crate::DiskError;
use crate::event::{LibraryEvent, SkipReason};
use crate::followed::Followed;
use crate::hash_jobs::{HashJob, HashJobError, Hashed};
use crate::hashing::HashError;
use crate::library_state::LibraryState;
use crate::offered_files::{Key, Offered};
use crate::settling::Settling;
use crate::stamp::Stamp;
use crate::watch::{MountPoint, WatchEvent, Watcher};
use looking::is_gone;

/// Interval at which the scanner closes idle files, and checks whether a root has appeared,
/// disappeared or been replaced, which the system does not report.
const ROOTS_EVERY: Duration = Duration::from_secs(1);
/// How long the first scan waits for files that are still being written.
const FIRST_SCAN_WAITS: Duration = Duration::from_secs(3);
/// Interval of progress reports.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Most results in one transaction of the index.
const RESULTS_MAX: usize = 512;
/// Most skipped paths that are remembered, so that each is reported once.
const SKIPPED_MAX: usize = 10_000;
/// Most links that are reported as skipped: a tree may hold thousands.
const LINKS_TOLD_MAX: usize = 20;
/// Entries of missing files that the index may hold, in addition to as many as there are files.
/// Another choice of roots may need them.
const INDEX_SLACK: u64 = 10_000;
/// First and longest pause before a failed read is retried. The pause doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Number of failures after which a transient error is reported: after about 7 s.
const RETRIES_TOLD: u32 = 4;

/// A message to the scanner.
pub(crate) enum Message {
    /// The system reported changes.
    Watch(Vec<WatchEvent>),
    /// A hashing thread hashed a file, or failed to.
    Hashed(HashJob, Result<Hashed, HashJobError>),
    /// A reader found that a file had changed, and has withdrawn it.
    Withdrawn(Arc<Offered>, Option<LibraryEvent>),
    /// A finished download was adopted.
    Adopted(Vec<LibraryEvent>),
    /// The index has wrong hashes of a content.
    WrongHashes(ContentId),
    /// The library is being dropped.
    Stop,
}

/// A path that could not be read.
struct Failure {
    /// Consecutive failures.
    count: u32,
    /// The file's stamp at the failure, if the path is a file and its metadata could be read.
    stamp: Option<Stamp>,
}

/// The scanner's state.
pub(crate) struct Scanner<F> {
    state: Arc<LibraryState>,
    inbox: Receiver<Message>,
    to_self: Sender<Message>,
    jobs: Sender<HashJob>,
    on_event: F,
    watcher: Option<Watcher>,
    followed: Followed,
    /// The paths beneath each root that are excluded; they change when links change.
    excluded: Vec<Vec<PathBuf>>,
    /// Roots for which a failed watch was reported.
    watch_failures_told: HashSet<u32>,
    /// Whether other machines can change a file system, by device.
    remote: HashMap<u64, bool>,
    mounts: Vec<MountPoint>,
    hinted: BTreeSet<Key>,
    look_at: Option<Instant>,
    /// Directories that the current poll or reconciliation has yet to read.
    sweep: VecDeque<Key>,
    sweep_began: Instant,
    settling: Settling,
    timers: BinaryHeap<Reverse<(Instant, Arc<Key>)>>,
    /// The valid timer of each path; other timers of the path are void.
    due: HashMap<Arc<Key>, Instant>,
    /// The paths that could not be read.
    failures: HashMap<Key, Failure>,
    pending: HashSet<Arc<Key>>,
    skipped: HashSet<PathBuf>,
    links_told: usize,
    started: Instant,
    next_roots: Instant,
    next_poll: Instant,
    next_reconciliation: Instant,
    next_progress: Instant,
    scan_told: bool,
    progress_told: bool,
    index_unflushed: bool,
}

impl<F: Fn(LibraryEvent)> Scanner<F> {
    pub(crate) fn new(
        state: Arc<LibraryState>,
        (inbox, to_self): (Receiver<Message>, Sender<Message>),
        jobs: Sender<HashJob>,
        settling: Settling,
        on_event: F,
    ) -> Scanner<F> {
        let now = Instant::now();
        Scanner {
            next_reconciliation: now + state.reconcile_every,
            state,
            inbox,
            to_self,
            jobs,
            on_event,
            watcher: None,
            followed: Followed::default(),
            excluded: Vec::new(),
            watch_failures_told: HashSet::new(),
            remote: HashMap::new(),
            mounts: Vec::new(),
            hinted: BTreeSet::new(),
            look_at: None,
            sweep: VecDeque::new(),
            sweep_began: now,
            settling,
            timers: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            pending: HashSet::new(),
            skipped: HashSet::new(),
            links_told: 0,
            started: now,
            next_roots: now,
            next_poll: now + following::POLL_EVERY,
            next_progress: now + PROGRESS_EVERY,
            scan_told: false,
            progress_told: true,
            index_unflushed: false,
        }
    }

    /// Makes the scanner usable again after a panic: discards its state of the directories, and
    /// checks everything again.
    pub(crate) fn reset(&mut self) {
        self.stop_watching();
        self.remote.clear();
        self.hinted.clear();
        self.sweep.clear();
        self.settling.clear();
        self.timers.clear();
        self.due.clear();
        self.failures.clear();
        self.look_at = None;
        self.next_roots = Instant::now();
    }

    /// Runs until it receives [`Message::Stop`].
    pub(crate) fn run(&mut self) {
        if self.watcher.is_none() {
            self.start_watching();
        }
        loop {
            let now = Instant::now();
            self.check_index();
            if now >= self.next_roots {
                self.check_roots();
                self.state.open_files.close_idle(now);
                self.note_still_written();
                self.next_roots = now + ROOTS_EVERY;
            }
            if self.look_at.is_some_and(|at| now >= at) {
                self.look_where_hinted();
            }
            self.look_where_due(now);
            self.go_on_sweeping(now);
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

    pub(super) fn next_wake(&self) -> Instant {
        let due = self.timers.peek().map(|Reverse((at, _))| *at);
        let progress = (!self.scan_told || !self.progress_told).then_some(self.next_progress);
        let sweep = (!self.sweep.is_empty()).then_some(self.sweep_began);
        [self.look_at, due, progress, sweep]
            .into_iter()
            .flatten()
            .chain([self.next_roots, self.next_reconciliation])
            .fold(self.next_poll, Instant::min)
    }

    pub(crate) fn tell(&self, events: impl IntoIterator<Item = LibraryEvent>) {
        events.into_iter().for_each(&self.on_event);
    }

    /// Handles messages; false when it is time to stop.
    pub(super) fn handle(&mut self, messages: Vec<Message>) -> bool {
        let mut hashed = Vec::new();
        for message in messages {
            match message {
                Message::Stop => return false,
                Message::Watch(events) => {
                    for event in events {
                        self.handle_watch(event);
                    }
                }
                Message::Adopted(events) => {
                    self.index_unflushed = true;
                    self.tell(events);
                }
                Message::Withdrawn(offered, event) => {
                    self.tell(event);
                    self.look(&offered.key);
                }
                Message::WrongHashes(id) => self.hash_again(&id),
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
            for (job, hashed) in hashed {
                self.offer_if_same(&job, hashed.stamp, hashed.file.info);
            }
        }
        true
    }

    /// Writes results to the index. If that fails, sharing goes on, but the next start is slower.
    pub(super) fn remember(&mut self, hashed: &[(HashJob, Hashed)], durable: bool) {
        let entries = hashed.iter().map(|(job, hashed)| {
            let stamp = (!job.snapshot).then_some(&hashed.stamp);
            hashed.file.indexed(stamp)
        });
        if let Err(error) = self.state.index.put(entries, durable) {
            tracing::warn!(%error, "the index was not updated");
        }
        self.index_unflushed = !durable;
    }

    /// If the index was replaced, has all files hashed again whose hashes were in the old one.
    pub(super) fn check_index(&mut self) {
        let Some(cause) = self.state.index.take_replaced() else {
            return;
        };
        self.tell([LibraryEvent::IndexReplaced { cause }]);
        let offered: Vec<_> = self.state.offered_files().iter().cloned().collect();
        for file in offered {
            if Chunks::of_length(file.asset.info.length).count() > 1 {
                self.withdraw(&file.key);
                self.look(&file.key);
            }
        }
    }

    /// Has the files of a content hashed again, because the index has wrong hashes of it.
    pub(super) fn hash_again(&mut self, id: &ContentId) {
        tracing::warn!(content = %id, "the index has wrong hashes of this content");
        loop {
            let held = self.state.offered_files().holder(id, |_| true).cloned();
            let Some(held) = held else { return };
            if let Err(error) = self.state.index.forget([&held.stamp].into_iter()) {
                tracing::warn!(%error, "the index was not updated");
            }
            self.withdraw(&held.key);
            self.hint(held.key.clone());
        }
    }

    pub(super) fn not_hashed(&mut self, job: HashJob, error: HashJobError) {
        let path = self.state.roots.full_path(&job.key);
        match error {
            HashJobError::Own(own) => {
                self.settling.forget(&job.key);
                self.skip(path, SkipReason::Own(own));
            }
            HashJobError::Panicked(cause) => {
                let error = io::Error::other(format!("internal error: {cause}"));
                self.could_not_read_as(&job.key, Some(job.stamp), &error);
            }
            HashJobError::Hash(HashError::Cancelled | HashError::NotAFile(_)) => {}
            HashJobError::Hash(HashError::Changed(_)) => {
                self.look_at_time(job.key, Instant::now() + RETRY_FIRST);
            }
            HashJobError::Hash(HashError::TooLong(_)) => self.skip(path, SkipReason::TooLong),
            HashJobError::Hash(HashError::Disk(error)) => match error {
                DiskError::InTheWay { .. } => {}
                DiskError::Io { source, .. } | DiskError::Permission { source, .. } => {
                    if !is_gone(&source) {
                        self.could_not_read_as(&job.key, Some(job.stamp), &source);
                    }
                }
                DiskError::Full { .. } => {
                    let error = io::ErrorKind::StorageFull.into();
                    self.could_not_read_as(&job.key, Some(job.stamp), &error);
                }
            },
        }
    }

    /// Schedules a retry. Reports a permanent error at once, and a transient one if it persists.
    pub(super) fn could_not_read(&mut self, key: &Key, error: &io::Error) {
        self.could_not_read_as(key, None, error);
    }

    pub(super) fn could_not_read_as(&mut self, key: &Key, stamp: Option<Stamp>, error: &io::Error) {
        let failure = self.failures.entry(key.clone()).or_insert(Failure {
            count: 0,
            stamp: None,
        });
        failure.stamp = stamp;
        failure.count = failure.count.saturating_add(1);
        let count = failure.count;
        let pause = RETRY_FIRST * 2u32.saturating_pow((count - 1).min(16));
        let lasting = error.kind() == io::ErrorKind::PermissionDenied;
        if lasting || count >= RETRIES_TOLD {
            let path = self.state.roots.full_path(key);
            self.skip(path, SkipReason::Unreadable(error.to_string()));
        }
        self.followed.set_read(key, None);
        self.due.remove(key);
        self.look_at_time(Arc::new(key.clone()), Instant::now() + pause.min(RETRY_MAX));
    }

    pub(super) fn skip(&mut self, path: PathBuf, reason: SkipReason) {
        if self.skipped.len() < SKIPPED_MAX && self.skipped.insert(path.clone()) {
            self.tell([LibraryEvent::Skipped { path, reason }]);
        }
    }

    pub(super) fn skip_link(&mut self, path: &Path) {
        if self.links_told < LINKS_TOLD_MAX && !self.skipped.contains(path) {
            self.links_told += 1;
            self.skip(path.to_path_buf(), SkipReason::Link);
        }
    }

    pub(super) fn tell_progress(&mut self, now: Instant) {
        let idle = self.pending.is_empty();
        if !self.progress_told && (idle || now >= self.next_progress) {
            let hashed_bytes = self.state.hashed_bytes();
            self.tell([LibraryEvent::Hashing {
                pending_files: self.pending.len() as u64,
                hashed_bytes,
            }]);
            self.progress_told = idle;
        }
        let waited = self.started.elapsed() >= FIRST_SCAN_WAITS;
        let settled = self.settling.is_empty();
        if !self.scan_told && idle && (settled || waited) {
            self.scan_told = true;
            let (assets, bytes) = self.state.offered_files().totals();
            self.tell([LibraryEvent::ScanFinished { assets, bytes }]);
            self.tidy_index(assets);
        }
        if now >= self.next_progress {
            self.next_progress = now + PROGRESS_EVERY;
        }
    }

    /// Removes files from the index that are long gone, once they outnumber the existing files.
    pub(super) fn tidy_index(&self, assets: u64) {
        let followed = &self.followed;
        let mut roots = self.state.roots.iter();
        let all_here = roots.all(|(root, _)| followed.root_id(root).is_some());
        let files = self.state.index.file_count().unwrap_or(0);
        if !all_here || files <= 2 * assets + INDEX_SLACK {
            return;
        }
        let offered_files = self.state.offered_files();
        let live: HashSet<_> = offered_files
            .iter()
            .map(|offered| (offered.stamp.device, offered.stamp.inode))
            .collect();
        let tidied = self.state.index.retain(
            |device, inode| live.contains(&(device, inode)),
            |id| offered_files.find(id).is_some(),
        );
        if let Err(error) = tidied {
            tracing::warn!(%error, "the index was not tidied");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::time::SystemTime;

    use super::*;
    use crate::index::Index;
    use crate::library::RECONCILE_EVERY;
    use crate::roots::Roots;

    #[test]
    pub(super) fn after_an_overflow_lost_watches_are_set_again_and_missed_names_are_seen() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("assets");
        fs::create_dir_all(root.join("d/e")).unwrap();
        let roots = Roots::new(std::slice::from_ref(&root), &[]).unwrap();
        let index = Index::open(&temp.path().join("state")).unwrap();
        let state = Arc::new(LibraryState::new(roots, index, 1, RECONCILE_EVERY));
        let ((to_self, inbox), (jobs, jobs_made)) = (channel(), channel());
        let settling = Settling::new();
        let mut scanner = Scanner::new(state, (inbox, to_self), jobs, settling, |_| {});
        scanner.start_watching();
        scanner.check_roots();
        let key = |path: &str| Key::new(0, Path::new(path));
        let watch = |scanner: &Scanner<_>, path: &str| scanner.followed.get(&key(path))?.watch;
        let lost = watch(&scanner, "d/e").unwrap();

        // Events of the lost watch are lost, too.
        scanner.release([lost]);
        fs::create_dir_all(root.join("d/new/deep")).unwrap();
        let file = root.join("d/new/deep/file");
        fs::write(&file, b"file").unwrap();
        let file = fs::File::options().write(true).open(&file).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(100))
            .unwrap();
        scanner.handle_watch(WatchEvent::Overflow);
        while !scanner.sweep.is_empty() {
            scanner.go_on_sweeping(Instant::now());
        }
        assert!(watch(&scanner, "d/e").is_some_and(|watch| watch != lost));
        assert!(watch(&scanner, "d/new/deep").is_some());
        assert_eq!(*jobs_made.try_recv().unwrap().key, key("d/new/deep/file"));
        assert_eq!(scanner.followed.polled().count(), 0);
    }
}
