//! Errors of this machine's file system, which are kept apart from errors of peers, and errors
//! that several parts of the crate return.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on this machine's files failed. Ends a download with code 6.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system is full, or a quota is exceeded.
    #[error("no space left to {doing} {}", .path.display())]
    Full {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// Permission denied, or a read-only file system.
    #[error("not allowed to {doing} {}: {source}", .path.display())]
    Permission {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A symbolic link or a file is where a directory should be.
    #[error("cannot {doing} {}: it is a symbolic link or a file, not a directory", .path.display())]
    InTheWay {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// Any other error.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl DiskError {
    /// Classifies an error of the operating system; for use with `map_err`.
    pub fn new(doing: &'static str, path: impl AsRef<Path>, source: io::Error) -> DiskError {
        use io::ErrorKind as Kind;
        let path = path.as_ref().to_path_buf();
        match source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => DiskError::Full { doing, path },
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => DiskError::Permission {
                doing,
                path,
                source,
            },
            Kind::NotADirectory => DiskError::InTheWay { doing, path },
            _ => DiskError::Io {
                doing,
                path,
                source,
            },
        }
    }

    /// Returns the error of the operating system.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            DiskError::Full { .. } => io::ErrorKind::StorageFull.into(),
            DiskError::InTheWay { .. } => io::ErrorKind::NotADirectory.into(),
            DiskError::Permission { source, .. } | DiskError::Io { source, .. } => source,
        }
    }

    /// Returns the file or directory of the failed operation.
    pub fn path(&self) -> &Path {
        match self {
            DiskError::Full { path, .. }
            | DiskError::Permission { path, .. }
            | DiskError::InTheWay { path, .. }
            | DiskError::Io { path, .. } => path,
        }
    }
}

/// The reason why a library cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Another process has this index open.
    #[error("another process uses {}", .0.display())]
    InUse(PathBuf),
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The reason why a content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The content, or the requested part of it, is not here.
    #[error("this node does not have the content")]
    NotHere,
    /// The file has changed since it was hashed. It is not offered any more.
    #[error("the file has changed")]
    Changed,
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
