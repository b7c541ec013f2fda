//! Which directories the scanner follows, and when it checks each.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Message, Scanner};
use crate::event::LibraryEvent;
use crate::followed::{Directory, Followed};
use crate::naming::{is_hidden, is_own_suffix};
use crate::offered_files::Key;
use crate::system::{directory_stamp_of, is_remote};
use crate::watch::{WatchError, WatchEvent, WatchId, Watcher, mount_points};

/// Delay from the first hint to the check, because one change causes several events.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// Interval at which polled directories are read. A change is found within 15 s, plus the time to
/// settle.
pub(super) const POLL_EVERY: Duration = Duration::from_secs(10);
/// A pause between polls is at least this many times as long as the poll took, so that polling a
/// large tree uses at most 5 % of a core.
const POLL_PAUSE: u32 = 20;
/// Directories that a poll or a reconciliation reads in one step, before messages are handled.
const SWEEP_MAX: usize = 64;

impl<F: Fn(LibraryEvent)> Scanner<F> {
    pub(super) fn start_watching(&mut self) {
        let to_self = self.to_self.clone();
        let tell = move |events| to_self.send(Message::Watch(events)).is_ok();
        match Watcher::new(tell) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                let roots: Vec<u32> = self.state.roots.iter().map(|(root, _)| root).collect();
                for root in roots {
                    self.tell_watch_failure(root, error.to_string());
                }
            }
        }
        self.mounts = mount_points(&self.real_roots());
    }

    pub(super) fn stop_watching(&mut self) {
        self.watcher = None;
        self.followed = Followed::default();
    }

    pub(super) fn real_roots(&self) -> Vec<PathBuf> {
        let roots = self.state.roots.iter();
        roots
            .filter_map(|(_, path)| path.canonicalize().ok())
            .collect()
    }

    pub(super) fn tell_watch_failure(&mut self, root: u32, cause: String) {
        if self.watch_failures_told.insert(root) {
            let root = self.state.roots.path(root).to_path_buf();
            self.tell([LibraryEvent::WatchFailed { root, cause }]);
        }
    }

    /// Follows a directory that is about to be read. A change after this call is found by the read,
    /// the watch or a poll.
    pub(super) fn follow(&mut self, key: &Key, path: &Path, id: (u64, u64)) {
        let mut watch = None;
        if let Some(watcher) = &self.watcher
            && (key.is_root() || !Watcher::RECURSIVE)
        {
            match watcher.add(path, key.is_root()) {
                Ok(id) => watch = Some(id),
                // The read of the directory reports the error, or finds the directory gone.
                Err(WatchError::Directory) => {}
                Err(WatchError::System(cause)) => self.tell_watch_failure(key.root, cause),
            }
        }
        let covered = watch.is_some() || (Watcher::RECURSIVE && !key.is_root());
        let remote = *(self.remote.entry(id.0)).or_insert_with(|| is_remote(path));
        let read_as = None;
        let polled = remote || !covered || self.watcher.is_none();
        let directory = Directory {
            read_as,
            id,
            watch,
            polled,
        };
        let unused = self.followed.insert(key.clone(), directory);
        self.release(unused);
    }

    /// Stops following a path and everything beneath it.
    pub(super) fn unfollow(&mut self, key: &Key) {
        let unused = self.followed.remove(key);
        self.release(unused);
    }

    pub(super) fn release(&self, unused: impl IntoIterator<Item = WatchId>) {
        if let Some(watcher) = &self.watcher {
            unused.into_iter().for_each(|id| watcher.remove(id));
        }
    }

    pub(super) fn handle_watch(&mut self, event: WatchEvent) {
        let now = Instant::now();
        match event {
            WatchEvent::Entry {
                directory,
                name,
                change,
            } => {
                if is_hidden(&name) || is_own_suffix(&name) {
                    return;
                }
                let keys: Vec<_> = self
                    .followed
                    .keys_of(directory)
                    .map(|key| key.child(&name))
                    .collect();
                for key in keys {
                    self.settling.note(&key, change, now);
                    self.hint(key);
                }
            }
            WatchEvent::Directory(watch) => {
                // The watch may have ended; following the directory again sets a new one if so.
                let keys: Vec<_> = self.followed.keys_of(watch).cloned().collect();
                for key in keys {
                    self.followed.set_read(&key, None);
                    self.hint(key);
                }
            }
            WatchEvent::Paths(paths, change) => {
                for path in paths {
                    let name = path.file_name().unwrap_or_default();
                    if is_hidden(name) || is_own_suffix(name) {
                        continue;
                    }
                    let keys: Vec<_> = self.state.roots.keys_of(&path).collect();
                    for key in keys {
                        self.settling.note(&key, change, now);
                        self.hint(key);
                    }
                }
            }
            WatchEvent::Overflow => self.reconcile(true),
            WatchEvent::Mounts => self.check_mounts(),
            WatchEvent::Failed(cause) => {
                self.stop_watching();
                let roots: Vec<u32> = self.state.roots.iter().map(|(root, _)| root).collect();
                for root in roots {
                    self.tell_watch_failure(root, cause.clone());
                    self.hint(Key::new(root, Path::new("")));
                }
            }
        }
    }

    pub(super) fn hint(&mut self, key: Key) {
        self.hinted.insert(key);
        self.look_at.get_or_insert(Instant::now() + DEBOUNCE);
    }

    pub(super) fn look_where_hinted(&mut self) {
        self.look_at = None;
        let hinted = std::mem::take(&mut self.hinted);
        // A renamed file is offered under its new name before the old one is withdrawn.
        let is_there = |key: &Key| {
            let path = self.state.roots.full_path(key);
            path.symlink_metadata().is_ok()
        };
        let (there, gone): (Vec<_>, Vec<_>) = hinted.into_iter().partition(is_there);
        for key in there.iter().chain(&gone) {
            self.look(key);
        }
    }

    /// Checks mount points that have appeared, disappeared or changed.
    pub(super) fn check_mounts(&mut self) {
        // The system reuses device numbers.
        self.remote.clear();
        let real_roots = self.real_roots();
        let now = mount_points(&real_roots);
        let before = std::mem::replace(&mut self.mounts, now);
        let (before, now): (BTreeSet<_>, BTreeSet<_>) = (
            before.into_iter().collect(),
            self.mounts.iter().cloned().collect(),
        );
        for (path, _) in before.symmetric_difference(&now) {
            let state = self.state.clone();
            for (root, base) in state.roots.iter() {
                let Ok(base) = base.canonicalize() else {
                    continue;
                };
                if let Ok(inner) = path.strip_prefix(base) {
                    self.hint(Key::new(root, inner));
                }
            }
        }
    }

    /// Checks roots that have appeared or been replaced, and withdraws the files of those that have
    /// disappeared.
    pub(super) fn check_roots(&mut self) {
        let state = self.state.clone();
        let roots = state.roots.iter();
        self.excluded = roots.map(|(root, _)| state.roots.excluded(root)).collect();
        for (root, path) in state.roots.iter() {
            let found = match path.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    let stamp = directory_stamp_of(&metadata, path);
                    Some((stamp.device, stamp.inode))
                }
                _ => None,
            };
            if self.followed.root_id(root) != found {
                self.look(&Key::new(root, Path::new("")));
            }
        }
    }

    /// Handles due timers: checks files that may have settled, and retries failed reads.
    pub(super) fn look_where_due(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
        {
            let Some(Reverse((at, key))) = self.timers.pop() else {
                return;
            };
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.look(&key);
            }
        }
    }

    pub(super) fn look_at_time(&mut self, key: Arc<Key>, at: Instant) {
        let sooner = self.due.get(&key).is_none_or(|due| at < *due);
        if sooner {
            self.due.insert(key.clone(), at);
            self.timers.push(Reverse((at, key)));
        }
    }

    /// Starts a poll or a reconciliation if one is due, and reads some directories of the current
    /// one.
    pub(super) fn go_on_sweeping(&mut self, now: Instant) {
        if self.sweep.is_empty() {
            if now >= self.next_reconciliation {
                self.reconcile(false);
            } else if now >= self.next_poll {
                self.sweep.extend(self.followed.polled().cloned());
                self.sweep_began = now;
                self.next_poll = now + POLL_EVERY;
            }
        }
        for _ in 0..SWEEP_MAX {
            let Some(key) = self.sweep.pop_front() else {
                return;
            };
            self.look(&key);
            if self.sweep.is_empty() {
                let took = self.sweep_began.elapsed();
                self.next_poll = self.next_poll.max(Instant::now() + took * POLL_PAUSE);
            }
        }
    }

    /// Schedules a check of every followed directory, which also sets its watch again. With `all`,
    /// after events were lost, a directory is read even if its stamp has not changed.
    pub(super) fn reconcile(&mut self, all: bool) {
        let now = Instant::now();
        if self.watcher.is_none() {
            self.start_watching();
        }
        self.sweep = self.followed.keys().cloned().collect();
        if all {
            for key in &self.sweep {
                self.followed.set_read(key, None);
            }
            // A close may be among the lost events.
            for key in self.settling.forget_reports() {
                self.hint(key);
            }
        }
        self.sweep_began = now;
        self.next_reconciliation = now + self.state.reconcile_every;
    }
}
