//! Folders that are shared as collections: the manifest of a directory, its members where they
//! lie, and the entries of a received one that are not files.

mod build;
mod discard;
mod index;
mod known;
mod receive;
mod shared;
mod walk;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use qshare_content::NameError;
use qshare_content::manifest::ManifestError;

use crate::own_files::OwnFile;
use crate::{DiskError, HashError};

pub use build::{BuiltFolder, FolderOptions, FolderProgress, build_folder};
pub use index::HashIndex;
pub use receive::{FolderPlace, PlaceError, is_case_insensitive};
pub use shared::SharedFolder;

/// Why a directory cannot be shared as a collection.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The manifest would exceed its limits.
    #[error("the folder cannot be listed: {0}")]
    Manifest(ManifestError),
    /// The [`crate::Cancel`] was raised.
    #[error("hashing was cancelled")]
    Cancelled,
    /// The directory, or the list in a temporary file, cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl From<ManifestError> for FolderError {
    fn from(error: ManifestError) -> FolderError {
        FolderError::Manifest(error)
    }
}

impl FolderError {
    fn of_list(error: HashError) -> FolderError {
        match error {
            HashError::Disk(error) => FolderError::Disk(error),
            HashError::Cancelled => FolderError::Cancelled,
            error => FolderError::Manifest(ManifestError::Io(io::Error::other(error))),
        }
    }
}

/// A path of the directory that is not part of the collection.
#[derive(Debug)]
pub struct FolderSkip {
    /// The path.
    pub path: PathBuf,
    /// Why.
    pub reason: FolderSkipReason,
}

/// Why a path is not part of a collection. Hidden files and unfinished downloads are left out
/// without a report, as in a node's shared directories.
#[derive(Debug, thiserror::Error)]
pub enum FolderSkipReason {
    /// The name is not Unicode.
    #[error("the name is not valid Unicode")]
    NotUnicode,
    /// Receivers would refuse the name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Another entry has the same name in another normal form of Unicode.
    #[error("another entry has the same name in a different Unicode form")]
    Twice,
    /// The file is longer than any file may be.
    #[error("the file is longer than 16 TiB")]
    TooLong,
    /// The file is one of qshare's own.
    #[error("it is {0}, which is never shared")]
    Own(OwnFile),
    /// A symbolic link that leads out of the folder.
    #[error("the symbolic link leads out of the folder")]
    LinkOutside,
    /// A device, a FIFO or a socket.
    #[error("it is neither a file nor a directory")]
    Special,
    /// The file was removed while the folder was read.
    #[error("it vanished while the folder was read")]
    Vanished,
    /// The file was written to whenever it was hashed.
    #[error("it kept changing while it was hashed")]
    Changing,
    /// The file or directory cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Creates a file without a name, which vanishes with its last handle.
fn anonymous_file() -> Result<(File, PathBuf), DiskError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let dir = std::env::temp_dir();
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".qshare-{}-{number}.list", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(file) => {
                let _ = std::fs::remove_file(&path);
                return Ok((file, path));
            }
            // Left by a process of the same number that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DiskError::new("create", path, error)),
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError + use<> {
    let path = path.to_path_buf();
    move |error| DiskError::new(doing, &path, error)
}
