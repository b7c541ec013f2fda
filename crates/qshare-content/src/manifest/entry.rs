//! Entries of a manifest, its limits, and why bytes are none.

use std::io;

use super::links::{LinkTarget, LinkTargetError};
use crate::{AssetName, ContentInfo, NameError};

/// Largest manifest in bytes.
pub const MANIFEST_MAX_BYTES: u64 = 512 << 20;
/// Most entries of a manifest.
pub const MANIFEST_ENTRIES_MAX: u64 = 4_000_000;
/// Largest sum of the files' lengths in bytes: 1 EiB.
pub const COLLECTION_MAX_BYTES: u64 = 1 << 60;
/// Largest sum of the lengths of names in bytes, which bounds the memory of a
/// [`super::FolderList`].
pub const MANIFEST_NAMES_MAX_BYTES: u64 = 512 << 20;
/// Largest content with modification times, in bytes.
pub const TIMES_MAX_BYTES: u64 = 64 << 20;

pub(super) const MAGIC: [u8; 8] = *b"qshare\0c";
pub(super) const VERSION: u32 = 1;

/// An entry of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The path relative to the folder.
    pub name: AssetName,
    /// What is there.
    pub item: ManifestItem,
}

/// What an entry stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestItem {
    /// A file.
    File {
        /// Length and root of its bytes.
        info: ContentInfo,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link to a path inside of the folder.
    Symlink(LinkTarget),
    /// A directory without entries. Other directories follow from the names in them.
    EmptyDirectory,
}

/// What a manifest amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManifestTotals {
    /// Number of files.
    pub files: u64,
    /// Number of symbolic links.
    pub symlinks: u64,
    /// Number of empty directories.
    pub empty_directories: u64,
    /// Sum of the files' lengths.
    pub bytes: u64,
}

/// Why bytes are not a manifest, or an entry cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The first bytes are others.
    #[error("it is not the list of a folder")]
    NotAManifest,
    /// A version that this program does not know.
    #[error("the folder's list has version {0}, which this program does not know")]
    Version(u32),
    /// More bytes than [`MANIFEST_MAX_BYTES`], [`MANIFEST_NAMES_MAX_BYTES`] of names, or
    /// [`TIMES_MAX_BYTES`] of times.
    #[error("the folder's list is too long")]
    TooLong,
    /// More entries than [`MANIFEST_ENTRIES_MAX`].
    #[error("the folder has more than {MANIFEST_ENTRIES_MAX} entries")]
    TooMany,
    /// The bytes end within an entry.
    #[error("the folder's list is cut off")]
    CutOff,
    /// The bytes are not in the only valid form.
    #[error("the folder's list is not canonical: {0}")]
    NotCanonical(&'static str),
    /// An entry of a kind that this program does not know.
    #[error("the folder's list has an entry of the unknown kind {0}")]
    Kind(u8),
    /// A name that could leave the folder, or cannot be shared.
    #[error("the folder's list has an invalid name: {0}")]
    Name(#[from] NameError),
    /// A name that occurs twice, or after a later one.
    #[error("the folder's list has {0:?} twice, or in the wrong place")]
    Order(String),
    /// A name that is both a directory and something else.
    #[error("the folder's list has {0:?} both as a directory and as something else")]
    FileAndDirectory(String),
    /// A file longer than [`crate::LENGTH_MAX_BYTES`], or more than [`COLLECTION_MAX_BYTES`]
    /// together.
    #[error("the folder's list has an impossible size for {0:?}")]
    Size(String),
    /// The manifest lists itself as a member.
    #[error("the folder's list contains itself as {0:?}")]
    SelfReference(String),
    /// A symbolic link that could lead out of the folder.
    #[error("the folder's list has an invalid link {name:?}: {cause}")]
    Link {
        /// The link.
        name: String,
        /// What is wrong with its target.
        cause: LinkTargetError,
    },
    /// The bytes cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}
