//! The seam for fault injection: every operation that changes a download's files goes through
//! [`Disk`], so that tests can fail, tear or forget the k-th one.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use crate::system::{self, Dir};

/// The operations that change files. The provided methods use the real file system; a test
/// overrides some of them.
pub(crate) trait Disk: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        system::write_all_at(file, bytes, offset)
    }

    /// Truncates a file, or extends it with a hole.
    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Lets `to` share the blocks of a range of `from`, at the same offset. Fails where the file
    /// system cannot do that, or the files are on two of them.
    fn share_blocks(&self, from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
        let Some(length) = NonZeroU64::new(range.end.saturating_sub(range.start)) else {
            return Ok(());
        };
        reflink_copy::ReflinkBlockBuilder::new(from, to, length)
            .from_offset(range.start)
            .to_offset(range.start)
            .reflink_block()
    }

    /// Flushes a file's bytes and length.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Flushes a directory, which makes its names durable.
    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        dir.sync()
    }

    /// Flushes the directory's whole file system, where the operating system can
    /// ([`system::SYNCS_FILESYSTEM`]).
    fn sync_filesystem(&self, dir: &Dir) -> io::Result<()> {
        system::sync_filesystem(dir)
    }

    /// Renames a file. With `over` it replaces an existing file, else that is `AlreadyExists`.
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

/// The real file system.
pub(crate) struct RealDisk;

impl Disk for RealDisk {}

/// A disk that several downloads share.
pub(crate) type SharedDisk = Arc<dyn Disk>;
