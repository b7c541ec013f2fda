//! The stamp of a file, which shows whether it has changed since it was hashed.

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

/// Identity and times of a directory. As long as they are equal, no name in it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryStamp {
    /// Device number of the file system.
    pub(crate) device: u64,
    /// Number of the directory within it.
    pub(crate) inode: u64,
    /// Last change of the names in it, nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// Last change of names, permissions or owner, nanoseconds since 1970.
    pub(crate) ctime_ns: i64,
}

impl DirectoryStamp {
    /// The stamp of a directory that was read while its times were recent: no directory is equal
    /// to it, since a further change may not show in the times.
    pub(crate) fn as_recent(self) -> DirectoryStamp {
        DirectoryStamp {
            mtime_ns: i64::MIN,
            ..self
        }
    }
}

/// The attributes of a file that travel with its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileAttributes {
    /// Modification time, nanoseconds since 1970; None if it is unknown.
    pub modified_ns: Option<i64>,
    /// Whether the owner may execute the file.
    pub executable: bool,
}
