//! *Our disk failed*: kept apart from everything that a peer can do wrong.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on this machine's files failed. Ends a download with code 6.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No space, or no quota, left.
    #[error("no space left to {doing} {}", .path.display())]
    Full {
        /// What was attempted: a verb.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
    },
    /// Permission denied, or a read-only file system.
    #[error("not allowed to {doing} {}: {source}", .path.display())]
    Permission {
        /// What was attempted: a verb.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A symbolic link, or something that is no directory, where a directory should be.
    #[error("cannot {doing} {}: a symbolic link or a file is in the way", .path.display())]
    InTheWay {
        /// What was attempted: a verb.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
    },
    /// Everything else.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was attempted: a verb.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskError {
    /// Sorts what the system said; for use with `map_err`.
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

    /// The file or directory that it happened to.
    pub fn path(&self) -> &Path {
        match self {
            DiskError::Full { path, .. }
            | DiskError::Permission { path, .. }
            | DiskError::InTheWay { path, .. }
            | DiskError::Io { path, .. } => path,
        }
    }
}
