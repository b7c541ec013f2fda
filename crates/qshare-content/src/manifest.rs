//! The manifest of a collection: what a folder holds, as one content.
//!
//! A folder is shared as a *collection*. Its manifest lists files (name, length, root, executable
//! bit), symbolic links and empty directories; the manifest's content id identifies the
//! collection. The files are *members*: contents like any other. Modification times are a content
//! of their own ([`TimesWriter`]), so that two folders that differ only in times are one collection.
//!
//! ```text
//! magic "qshare\0c" │ version u32 LE │ entries, in the order of names
//! entry: kind u8 │ shared varint │ rest varint │ rest bytes │ …
//!        the name is the first `shared` bytes of the last entry's name, then `rest`
//!   0 file, 1 executable file: length varint │ root 32 bytes
//!   2 symbolic link:           bytes varint │ target
//!   3 empty directory
//! ```
//!
//! There is exactly one manifest for each folder: varints are LEB128 of the smallest length,
//! `shared` is as large as possible, names ascend by component, and nothing follows. A manifest
//! arrives from strangers: [`ManifestReader`] refuses whatever [`ManifestWriter`] would not write,
//! with memory for two names only.

mod codec;
mod links;
mod list;
mod reader;
mod times;
mod writer;

use std::cmp::Ordering;
use std::io;

use crate::{AssetName, ContentInfo, LENGTH_MAX_BYTES, NameError};

pub use links::{LinkTarget, LinkTargetError};
pub use list::{FolderFile, FolderList, case_key};
pub use reader::ManifestReader;
pub use times::{TimesReader, TimesWriter};
pub use writer::ManifestWriter;

/// Largest manifest in bytes.
pub const MANIFEST_MAX_BYTES: u64 = 512 << 20;
/// Most entries of a manifest.
pub const MANIFEST_ENTRIES_MAX: u64 = 4_000_000;
/// Largest sum of the files' lengths in bytes: 1 EiB.
pub const COLLECTION_MAX_BYTES: u64 = 1 << 60;
/// Largest sum of the lengths of names in bytes, which bounds the memory of a [`FolderList`].
pub const MANIFEST_NAMES_MAX_BYTES: u64 = 512 << 20;
/// Largest content with modification times, in bytes.
pub const TIMES_MAX_BYTES: u64 = 64 << 20;

const MAGIC: [u8; 8] = *b"qshare\0c";
const VERSION: u32 = 1;

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
    /// More bytes than [`MANIFEST_MAX_BYTES`], [`MANIFEST_NAMES_MAX_BYTES`] of names, or [`TIMES_MAX_BYTES`] of times.
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
    /// A file longer than [`LENGTH_MAX_BYTES`], or more than [`COLLECTION_MAX_BYTES`] together.
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

/// Compares names by their components, so that what is in a directory follows the place of the
/// directory itself.
pub fn cmp_names(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

/// Checks entries in their order, for the reader and the writer.
#[derive(Default)]
struct Checker {
    last: String,
    totals: ManifestTotals,
    entries: u64,
    names_bytes: u64,
}

impl Checker {
    fn check(&mut self, entry: &ManifestEntry) -> Result<(), ManifestError> {
        let name = entry.name.as_str();
        if self.entries > 0 {
            let is_beneath = name.strip_prefix(self.last.as_str());
            if is_beneath.is_some_and(|rest| rest.starts_with('/')) {
                return Err(ManifestError::FileAndDirectory(self.last.clone()));
            }
            if cmp_names(&self.last, name) != Ordering::Less {
                return Err(ManifestError::Order(name.into()));
            }
        }
        self.entries += 1;
        self.names_bytes += name.len() as u64;
        if self.names_bytes > MANIFEST_NAMES_MAX_BYTES {
            return Err(ManifestError::TooLong);
        }
        if self.entries > MANIFEST_ENTRIES_MAX {
            return Err(ManifestError::TooMany);
        }
        match &entry.item {
            ManifestItem::File { info, .. } => {
                let bytes = self.totals.bytes.checked_add(info.length);
                let fits = bytes.filter(|&sum| sum <= COLLECTION_MAX_BYTES);
                self.totals.bytes = match fits {
                    Some(bytes) if info.length <= LENGTH_MAX_BYTES => bytes,
                    _ => return Err(ManifestError::Size(name.into())),
                };
                self.totals.files += 1;
            }
            ManifestItem::Symlink(target) => {
                target
                    .check_for(&entry.name)
                    .map_err(|cause| ManifestError::Link {
                        name: name.into(),
                        cause,
                    })?;
                self.totals.symlinks += 1;
            }
            ManifestItem::EmptyDirectory => self.totals.empty_directories += 1,
        }
        self.last.clear();
        self.last.push_str(name);
        Ok(())
    }
}

/// Number of bytes that two names share at their beginning.
fn shared_bytes(a: &str, b: &str) -> usize {
    let pairs = a.bytes().zip(b.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
