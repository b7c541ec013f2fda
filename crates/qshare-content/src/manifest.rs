//! The manifest of a collection: what a folder holds, as one content.
//!
//! A folder is shared as a *collection*. Its manifest lists files (name, length, root, executable
//! bit), symbolic links and empty directories; the manifest's content id identifies the collection.
//! The files are *members*: contents like any other. Modification times are a content of their own
//! ([`TimesWriter`]), so that two folders that differ only in times are one collection.
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

mod checker;
mod codec;
mod entry;
mod links;
mod list;
mod reader;
mod times;
mod writer;

pub use checker::cmp_names;
pub use entry::{
    COLLECTION_MAX_BYTES, MANIFEST_ENTRIES_MAX, MANIFEST_MAX_BYTES, MANIFEST_NAMES_MAX_BYTES,
    ManifestEntry, ManifestError, ManifestItem, ManifestTotals, TIMES_MAX_BYTES,
};
pub use links::{LinkTarget, LinkTargetError};
pub use list::{FolderFile, FolderList, case_key};
pub use reader::ManifestReader;
pub use times::{TimesReader, TimesWriter};
pub use writer::ManifestWriter;

#[cfg(test)]
mod tests;
