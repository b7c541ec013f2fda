//! The stamp of a file, which shows whether it has changed since it was hashed.

use crate::FileAttributes;

/// A file's identity, length and times. Equal stamps mean equal bytes: a program can set the
/// modification time back, but not the change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Device number of the file system.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
    /// Length in bytes.
    pub(crate) size: u64,
    /// Modification time, nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// Change time (bytes, names or permissions), nanoseconds since 1970.
    pub(crate) ctime_ns: i64,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
}

impl Stamp {
    /// Returns the attributes that travel with the file.
    pub(crate) fn attributes(&self) -> FileAttributes {
        FileAttributes {
            modified_ns: Some(self.mtime_ns),
            executable: self.executable,
        }
    }

    /// Returns whether both are the same file, with the same bytes or not.
    pub(crate) fn same_file(&self, other: &Stamp) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}
