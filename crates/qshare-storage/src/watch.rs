//! Change notification by the operating system.
//!
//! Linux watches single directories (inotify), and [`crate::scanner`] decides which. Elsewhere
//! the system watches whole trees, and only roots are watched. Events are hints where to look:
//! a wrong one costs a look, a lost one costs time until the next poll or reconciliation.

use std::ffi::OsString;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::path::Path;
use std::path::PathBuf;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod inotify;
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
mod recursive;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use inotify::{Watcher, mount_points};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use recursive::{Watcher, mount_points};

/// A watched directory. One directory that is reached under several paths (a bind mount, roots
/// that overlap) has one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WatchId(pub(crate) i32);

/// What the system reports.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// Something happened to an entry of a watched directory.
    Entry {
        directory: WatchId,
        name: OsString,
        change: Change,
    },
    /// A watched directory itself was moved, deleted or unmounted, or its watch has ended.
    Directory(WatchId),
    /// Something happened at these paths, on a system that watches whole trees.
    #[cfg_attr(
        any(target_os = "linux", target_os = "android"),
        allow(dead_code, reason = "inotify reports entries")
    )]
    Paths(Vec<PathBuf>, Change),
    /// Events were lost.
    Overflow,
    /// File systems were mounted or unmounted.
    Mounts,
    /// The system reports nothing any more.
    Failed(String),
}

/// What happened to a directory's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Bytes were written: a program has the file open for writing.
    Written,
    /// A program that had the file open for writing has closed it.
    Closed,
    /// It was renamed to another name; the rename has this number.
    MovedFrom(u32),
    /// It got its name by the rename of this number.
    MovedTo(u32),
    /// Anything else.
    Other,
}

/// Why a directory cannot be watched.
#[derive(Debug)]
pub(crate) enum WatchError {
    /// It is gone, or may not be read.
    Directory,
    /// The system refuses more watches, or has none.
    System(String),
}

/// Where a file system is mounted, and which one: equal values mean that nothing changed there.
pub(crate) type MountPoint = (PathBuf, u64);

/// Whether `path` lies at or beneath one of `bases`.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_beneath(path: &Path, bases: &[PathBuf]) -> bool {
    bases.iter().any(|base| path.starts_with(base))
}
