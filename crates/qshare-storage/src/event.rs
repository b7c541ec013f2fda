//! What a library tells its owner.

use std::path::PathBuf;
use std::sync::Arc;

use qshare_content::{AssetName, ContentId, ContentInfo, NameError};

/// A file that is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its path relative to its root, as others are told it.
    pub name: AssetName,
    /// Names its bytes.
    pub id: ContentId,
    /// Length and root of its bytes.
    pub info: ContentInfo,
}

impl Asset {
    /// A content under a name.
    pub fn new(name: AssetName, info: ContentInfo) -> Asset {
        let id = info.id();
        Asset { name, id, info }
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
    /// It cannot be read; tried again when it changes.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// What changed in a [`crate::Library`], in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LibraryEvent {
    /// This content is offered under this name from now on.
    Added(Arc<Asset>),
    /// This content is no longer offered under this name. It may be under another.
    Removed(Arc<Asset>),
    /// Not shared, and somebody may wonder why. Dotfiles, links, sockets, devices and
    /// qshare's own files are passed over without a word.
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
    /// The system does not report changes here; the directory is scanned anew at intervals.
    WatchFailed {
        /// The root.
        root: PathBuf,
        /// What the system said.
        cause: String,
    },
}
