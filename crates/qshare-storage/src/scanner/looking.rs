//! Checking a path: updates the list of offered files to match the disk.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qshare_content::{AssetName, ContentInfo, LENGTH_MAX_BYTES};

use super::Scanner;
use crate::event::{LibraryEvent, SkipReason};
use crate::hash_jobs::HashJob;
use crate::index::KnownFiles;
use crate::naming::{Naming, is_hidden, naming};
use crate::offered_files::{Key, Offer};
use crate::settling::{Sight, Verdict};
use crate::stamp::Stamp;
use crate::system::{directory_stamp_of, stamp_of};

/// A directory that changed less than this before it was read may change again without a new
/// modification time: file systems store times with a resolution of up to 2 s (FAT).
const TIMES_RESOLUTION: Duration = Duration::from_secs(2);

impl<F: Fn(LibraryEvent)> Scanner<F> {
    /// Updates the list of offered files to match the disk at a path. For a directory, that
    /// includes its own entries and, recursively, those of directories in it that are not followed
    /// yet.
    pub(super) fn look(&mut self, start: &Key) {
        let state = self.state.clone();
        let excluded = self.excluded.get(start.root as usize).cloned();
        let excluded = excluded.unwrap_or_default();
        let is_out = |relative: &Path| {
            let hidden = relative
                .components()
                .any(|name| is_hidden(name.as_os_str()));
            hidden || excluded.iter().any(|path| relative.starts_with(path))
        };
        if is_out(&start.relative) {
            return;
        }
        let start = &self.nearest_followed(start);
        let known = match state.index.files() {
            Ok(known) => Some(known),
            Err(error) => {
                tracing::warn!(%error, "hashing without the index");
                None
            }
        };
        let path = state.roots.full_path(start);
        let metadata = if start.is_root() {
            path.metadata()
        } else {
            path.symlink_metadata()
        };
        let mut directories = Vec::new();
        match metadata {
            Ok(metadata) if metadata.is_dir() => directories.push(start.clone()),
            Ok(metadata) if !start.is_root() => {
                self.drop_beneath(start);
                self.look_at_file(start, &path, &metadata, known.as_ref());
            }
            Ok(_) => self.drop_all(start),
            Err(error) if is_gone(&error) => self.drop_all(start),
            Err(error) => self.could_not_read(start, &error),
        }
        while let Some(key) = directories.pop() {
            self.look_at_directory(&key, &is_out, known.as_ref(), &mut directories);
        }
    }

    /// Returns the path, or the topmost directory above it that is not followed. What lies beneath
    /// such a directory may be reached through a link.
    pub(super) fn nearest_followed(&self, key: &Key) -> Key {
        let mut nearest = key.clone();
        while let Some(parent) = nearest.parent()
            && self.followed.get(&parent).is_none()
        {
            nearest = parent;
        }
        nearest
    }

    /// Reads a directory. Subdirectories that are not followed yet are added to `more`.
    pub(super) fn look_at_directory(
        &mut self,
        key: &Key,
        is_out: &impl Fn(&Path) -> bool,
        known: Option<&KnownFiles<'_>>,
        more: &mut Vec<Key>,
    ) {
        let path = self.state.roots.full_path(key);
        let now_ns = nanoseconds_since_1970();
        let metadata = if key.is_root() {
            path.metadata()
        } else {
            path.symlink_metadata()
        };
        let stamp = match metadata {
            Ok(metadata) if metadata.is_dir() => directory_stamp_of(&metadata, &path),
            Ok(_) => return self.drop_all(key),
            Err(error) if is_gone(&error) => return self.drop_all(key),
            Err(error) => return self.could_not_read(key, &error),
        };
        let before = self.followed.get(key).cloned();
        let id = (stamp.device, stamp.inode);
        if before.as_ref().is_some_and(|before| before.id != id) {
            // A different directory or file system is at the path: nothing in it is followed yet.
            self.unfollow(key);
        }
        self.follow(key, &path, id);
        let read_before = before.and_then(|before| before.read_as);
        // Stamps of a polled directory are unreliable: other machines' clocks differ, and times are
        // coarse.
        let polled = self
            .followed
            .get(key)
            .is_none_or(|directory| directory.polled);
        if read_before == Some(stamp) && !polled {
            // No name in the directory has changed.
            self.followed.set_read(key, read_before);
            return self.look_at_known_files(key, known);
        }
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return self.drop_all(key),
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    // The directory's files cannot be read any more.
                    self.withdraw_beneath(key);
                }
                return self.could_not_read(key, &error);
            }
        };
        // Offered files and followed directories by child, and whether any of them are beneath the
        // child.
        let mut stale: HashMap<Key, bool> = HashMap::new();
        for child in self.state.offered_files().children(key) {
            stale.insert(child.key, child.deeper);
        }
        for child in self.followed.children(key) {
            stale.insert(child, true);
        }
        let mut complete = true;
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.could_not_read(key, &error);
                    complete = false;
                    break;
                }
            };
            let child = key.child(&entry.file_name());
            if is_out(&child.relative) {
                continue;
            }
            // Does not follow links.
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    stale.remove(&child);
                    self.could_not_read(&child, &error);
                    continue;
                }
            };
            if metadata.is_dir() {
                let child_path = entry.path();
                let stamp = directory_stamp_of(&metadata, &child_path);
                if stale.remove(&child) == Some(false) {
                    // The child was a file.
                    self.withdraw(&child);
                }
                let is_followed = self.followed.get(&child).is_some_and(|followed| {
                    followed.id == (stamp.device, stamp.inode) && followed.read_as.is_some()
                });
                if !is_followed {
                    more.push(child);
                }
            } else {
                if stale.remove(&child) == Some(true) {
                    // The child was a directory.
                    self.drop_beneath(&child);
                }
                self.look_at_file(&child, &entry.path(), &metadata, known);
            }
        }
        if complete {
            self.failures.remove(key);
            for gone in stale.into_keys() {
                self.drop_all(&gone);
            }
            let settled = now_ns.saturating_sub(stamp.mtime_ns.max(stamp.ctime_ns))
                >= TIMES_RESOLUTION.as_nanos() as i64;
            let read_as = if settled { stamp } else { stamp.as_recent() };
            self.followed.set_read(key, Some(read_as));
        }
    }

    /// Compares the offered files of a directory with the disk.
    pub(super) fn look_at_known_files(&mut self, key: &Key, known: Option<&KnownFiles<'_>>) {
        let children = self.state.offered_files().children(key);
        for child in children.into_iter().filter(|child| child.direct) {
            let child = child.key;
            let path = self.state.roots.full_path(&child);
            match path.symlink_metadata() {
                Ok(metadata) => self.look_at_file(&child, &path, &metadata, known),
                Err(error) if is_gone(&error) => self.withdraw(&child),
                Err(error) => self.could_not_read(&child, &error),
            }
        }
    }

    /// Checks a path that is not a directory.
    pub(super) fn look_at_file(
        &mut self,
        key: &Key,
        path: &Path,
        metadata: &Metadata,
        known: Option<&KnownFiles<'_>>,
    ) {
        if !metadata.is_file() {
            self.withdraw(key);
            if metadata.is_symlink() && matches!(naming(&key.relative), Naming::Shared(_)) {
                self.skip_link(path);
            }
            return;
        }
        match naming(&key.relative) {
            Naming::Shared(name) => {
                let stamp = stamp_of(metadata, path);
                self.consider(key, name, stamp, known);
            }
            Naming::Unfit(reason) => {
                self.settling.forget(key);
                self.skip(path.to_path_buf(), reason);
            }
            Naming::Silent => {}
        }
    }

    pub(super) fn consider(
        &mut self,
        key: &Key,
        name: AssetName,
        stamp: Stamp,
        known: Option<&KnownFiles<'_>>,
    ) {
        let offered = self.state.offered_files().get(key).cloned();
        if let Some(offered) = offered {
            if offered.stamp == stamp && !offered.snapshot {
                self.settling.forget(key);
                return;
            }
            let still_serves = offered.snapshot
                && offered.stamp.same_file(&stamp)
                && offered.stamp.size <= stamp.size;
            if !still_serves {
                self.withdraw(key);
            }
        }
        if stamp.size > LENGTH_MAX_BYTES {
            self.settling.forget(key);
            self.skip(self.state.roots.full_path(key), SkipReason::TooLong);
            return;
        }
        if self.pending.contains(key) {
            // The file is checked again when its hashing ends.
            return;
        }
        if let Some(info) = known.and_then(|known| known.get(&stamp)) {
            self.settling.forget(key);
            self.offer(key, name, stamp, info, false);
            return;
        }
        let failed = self.failures.get(key);
        if failed.is_some_and(|failed| failed.stamp == Some(stamp)) && self.due.contains_key(key) {
            // The read is retried when its timer is due.
            return;
        }
        let sight = Sight {
            stamp,
            age: age_of(&stamp),
            polled: self.is_polled(key),
        };
        let now = Instant::now();
        match self.settling.judge(key, sight, now) {
            Verdict::Settled => self.hash(key, name, stamp, false),
            Verdict::Snapshot => self.hash(key, name, stamp, true),
            Verdict::Wait { again, tell } => {
                if tell {
                    let path = self.state.roots.full_path(key);
                    self.tell([LibraryEvent::StillWritten { path }]);
                }
                self.look_at_time(Arc::new(key.clone()), again);
            }
        }
    }

    /// Whether the system may miss changes in a file's directory.
    pub(super) fn is_polled(&self, key: &Key) -> bool {
        let parent = key.parent();
        let directory = parent.and_then(|parent| self.followed.get(&parent));
        directory.is_none_or(|directory| directory.polled)
    }

    pub(super) fn note_still_written(&self) {
        let roots = &self.state.roots;
        let mut paths: Vec<_> = (self.settling.still_written())
            .map(|key| roots.full_path(key))
            .collect();
        paths.sort();
        *self.state.still_written() = paths;
    }

    pub(super) fn hash(&mut self, key: &Key, name: AssetName, stamp: Stamp, snapshot: bool) {
        let key = Arc::new(key.clone());
        self.pending.insert(key.clone());
        self.progress_told = false;
        let job = HashJob {
            key,
            name,
            stamp,
            snapshot,
        };
        // Fails only when the hashing threads have ended, and then the scanner ends, too.
        let _ = self.jobs.send(job);
    }

    pub(super) fn offer(
        &self,
        key: &Key,
        name: AssetName,
        stamp: Stamp,
        info: ContentInfo,
        snapshot: bool,
    ) {
        let events = self.state.offered_files_mut().insert(Offer {
            key: key.clone(),
            name,
            stamp,
            info,
            snapshot,
        });
        self.tell(events);
    }

    pub(super) fn offer_if_same(&mut self, job: &HashJob, stamp: Stamp, info: ContentInfo) {
        self.failures.remove(&*job.key);
        let path = self.state.roots.full_path(&job.key);
        let now = path.symlink_metadata().map(|now| stamp_of(&now, &path));
        let same = match now {
            Ok(now) if job.snapshot => now.same_file(&stamp) && now.size >= stamp.size,
            Ok(now) => now == stamp,
            Err(_) => false,
        };
        if same {
            self.offer(&job.key, job.name.clone(), stamp, info, job.snapshot);
        }
        if !same || job.snapshot {
            self.look(&job.key);
        }
    }

    pub(super) fn withdraw(&self, key: &Key) {
        let event = self.state.offered_files_mut().remove(key);
        self.state.open_files.forget(key);
        self.tell(event);
    }

    pub(super) fn withdraw_beneath(&self, key: &Key) {
        let offered = self.state.offered_files().beneath(key);
        for file in offered {
            self.withdraw(&file.key);
        }
    }

    /// Handles a path at which nothing exists any more.
    pub(super) fn drop_all(&mut self, key: &Key) {
        if self.followed.get(key).is_some() {
            self.unfollow(key);
            self.settling.forget_beneath(key);
        } else {
            self.settling.forget(key);
        }
        self.failures.remove(key);
        self.withdraw_beneath(key);
    }

    /// Handles a path at which something else has replaced a directory.
    pub(super) fn drop_beneath(&mut self, key: &Key) {
        self.unfollow(key);
        let offered = self.state.offered_files().beneath(key);
        for file in offered {
            if file.key != *key {
                self.withdraw(&file.key);
            }
        }
    }
}

/// Whether the path does not exist, or one of its parents is not a directory any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn nanoseconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as i64)
}

/// Returns the time since a file's modification; None if that lies in the future.
fn age_of(stamp: &Stamp) -> Option<Duration> {
    let age = nanoseconds_since_1970().checked_sub(stamp.mtime_ns)?;
    u64::try_from(age).ok().map(Duration::from_nanos)
}
