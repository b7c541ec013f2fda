//! The events of a library.

use std::path::PathBuf;
use std::sync::Arc;

use qshare_content::{AssetName, ContentId, ContentInfo, NameError};

use crate::own_files::OwnFile;
use crate::stamp::FileAttributes;

/// A file that is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// The name: the path relative to its root.
    pub name: AssetName,
    /// The content id.
    pub id: ContentId,
    /// Length and root of its bytes.
    pub info: ContentInfo,
    /// Attributes that travel with the file.
    pub attributes: FileAttributes,
    /// Whether the content is the manifest of a collection, which is found as a folder.
    pub is_collection: bool,
}

impl Asset {
    /// Creates an asset with unknown attributes.
    pub fn new(name: AssetName, info: ContentInfo) -> Asset {
        let id = info.id();
        let attributes = FileAttributes::default();
        Asset {
            name,
            id,
            info,
            attributes,
            is_collection: false,
        }
    }

    /// Creates the entry of a collection; `info` is that of its manifest.
    pub fn collection(name: AssetName, info: ContentInfo) -> Asset {
        Asset {
            is_collection: true,
            ..Asset::new(name, info)
        }
    }
}

/// The reason why a path beneath a root is not shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// The name is not Unicode.
    #[error("the name is not valid Unicode")]
    NotUnicode,
    /// Other nodes would refuse the name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file is longer than [`qshare_content::LENGTH_MAX_BYTES`].
    #[error("the file is longer than 16 TiB")]
    TooLong,
    /// The file or directory cannot be read. It is retried at growing intervals, and when it
    /// changes.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The path is a symbolic link.
    #[error("symbolic links are not followed")]
    Link,
    /// The file is one of qshare's own, a private key for example.
    #[error("it is {0}, which is never shared")]
    Own(OwnFile),
}

/// An event of a [`crate::Library`]. Events are delivered in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LibraryEvent {
    /// The content is offered under this name from now on.
    Added(Arc<Asset>),
    /// The content is no longer offered under this name. It may be offered under another one.
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
    /// The files that existed at the start have been found, hashed and added. Sent once.
    ScanFinished {
        /// Number of assets.
        assets: u64,
        /// Sum of their lengths.
        bytes: u64,
    },
    /// Progress of hashing. Sent at most a few times a second, and once when no file is pending.
    Hashing {
        /// Files that are queued or being hashed.
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
