//! What a library tells its owner.

use std::path::PathBuf;
use std::sync::Arc;

use qshare_content::{AssetName, ContentId, ContentInfo, NameError};

use crate::own_files::OwnFile;

/// A file that is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its path relative to its root, as others are told it.
    pub name: AssetName,
    /// Names its bytes.
    pub id: ContentId,
    /// Length and root of its bytes.
    pub info: ContentInfo,
    /// What else travels with it.
    pub attributes: FileAttributes,
}

/// What travels with a file besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileAttributes {
    /// When its bytes were changed last, nanoseconds since 1970; None if that is not known.
    pub modified_ns: Option<i64>,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl Asset {
    /// A content under a name, with unknown attributes.
    pub fn new(name: AssetName, info: ContentInfo) -> Asset {
        let id = info.id();
        let attributes = FileAttributes::default();
        Asset {
            name,
            id,
            info,
            attributes,
        }
    }
}

/// Why a path beneath a root is not shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// Its name is not Unicode.
    #[error("the name is not valid Unicode")]
    NotUnicode,
    /// Its name would be refused by others.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Longer than [`qshare_content::LENGTH_MAX_BYTES`].
    #[error("the file is longer than 16 TiB")]
    TooLong,
    /// It cannot be read; tried again at growing intervals, and when it changes.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is a symbolic link.
    #[error("symbolic links are not followed")]
    Link,
    /// It holds a private key, or another file of qshare's own.
    #[error("it is {0}, which is never shared")]
    Own(OwnFile),
}

/// What changed in a [`crate::Library`], in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LibraryEvent {
    /// This content is offered under this name from now on.
    Added(Arc<Asset>),
    /// This content is no longer offered under this name. It may be under another.
    Removed(Arc<Asset>),
    /// A file or directory that is not shared, and why. Sent once for each path, and for the
    /// first links only. Hidden files, sockets, devices and unfinished downloads are left out
    /// silently.
    Skipped {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        reason: SkipReason,
    },
    /// What was there at the start has been looked at, hashed and added. Sent once.
    ScanFinished {
        /// Number of assets.
        assets: u64,
        /// Sum of their lengths.
        bytes: u64,
    },
    /// Hashing goes on; sent a few times a second at most, and once with nothing pending.
    Hashing {
        /// Files that wait or are being hashed.
        pending_files: u64,
        /// Bytes hashed since the library was opened.
        hashed_bytes: u64,
    },
    /// The system does not report changes in some directories; they are read at intervals. Sent
    /// once for each root.
    WatchFailed {
        /// The root.
        root: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// A file has been written to for so long that it is not offered for now. It is offered when
    /// it settles, and as a snapshot every 10 minutes. Sent once while that lasts.
    StillWritten {
        /// The file.
        path: PathBuf,
    },
    /// The index was damaged and has been replaced; shared files are hashed anew.
    IndexReplaced {
        /// What was wrong with it.
        cause: String,
    },
    /// An internal error ended the thread that follows the shared directories.
    ScannerFailed {
        /// The error.
        cause: String,
        /// Whether the thread was started again. If not, changes are not seen until the process
        /// is restarted.
        restarted: bool,
    },
}
