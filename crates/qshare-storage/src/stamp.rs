//! What tells whether a file is still the one that was hashed.

use crate::FileAttributes;

/// A file's identity and the times of its last changes. Equal stamps mean equal bytes, as far as
/// the file system tells: the change time cannot be set back by a program that edits in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Device number of the file system.
    pub(crate) device: u64,
    /// Number of the file within it.
    pub(crate) inode: u64,
    /// Length in bytes.
    pub(crate) size: u64,
    /// Last change of the bytes, nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// Last change of bytes, names or permissions, nanoseconds since 1970.
    pub(crate) ctime_ns: i64,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
}

impl Stamp {
    /// The attributes that travel with the file.
    pub(crate) fn attributes(&self) -> FileAttributes {
        FileAttributes {
            modified_ns: Some(self.mtime_ns),
            executable: self.executable,
        }
    }

    /// Whether both are the same file, whatever became of its bytes.
    pub(crate) fn same_file(&self, other: &Stamp) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}
