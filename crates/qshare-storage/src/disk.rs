//! The fault seam: every operation that changes a download's files goes through [`Disk`], so
//! that tests can fail, tear or forget the k-th one.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::system::{self, Dir};

/// What changes files. The provided bodies do it; a test's implementation may do less.
pub(crate) trait Disk: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        system::write_all_at(file, bytes, offset)
    }

    /// Cuts a file, or lengthens it with a hole.
    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Makes a file's bytes and length durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes a directory's names durable.
    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        dir.sync()
    }

    /// Makes all files on the directory's file system durable, where the system can
    /// ([`system::SYNCS_FILESYSTEM`]).
    fn sync_filesystem(&self, dir: &Dir) -> io::Result<()> {
        system::sync_filesystem(dir)
    }

    /// Renames, over what is there or only if nothing is (`AlreadyExists`).
    fn rename(&self, dir: &Dir, from: &OsStr, to: &OsStr, over: bool) -> io::Result<()> {
        if over {
            dir.rename_over(from, to)
        } else {
            dir.rename_new(from, to)
        }
    }

    /// Removes a file.
    fn remove(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        dir.remove(name)
    }
}

/// The disk as it is.
pub(crate) struct RealDisk;

impl Disk for RealDisk {}

/// A disk that several parts use.
pub(crate) type SharedDisk = Arc<dyn Disk>;
