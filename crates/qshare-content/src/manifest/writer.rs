//! Writes a manifest as a stream.

use std::io::Write;

use super::checker::{Checker, shared_bytes};
use super::codec::Output;
use super::entry::{
    MAGIC, MANIFEST_MAX_BYTES, ManifestEntry, ManifestError, ManifestItem, ManifestTotals, VERSION,
};

/// Writes a manifest entry by entry. The sink should be buffered.
pub struct ManifestWriter<W> {
    output: Output<W>,
    checker: Checker,
}

impl<W: Write> ManifestWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Io`] if the sink fails.
    pub fn new(sink: W) -> Result<ManifestWriter<W>, ManifestError> {
        Ok(ManifestWriter {
            output: Output::open(sink, MANIFEST_MAX_BYTES, MAGIC, VERSION)?,
            checker: Checker::default(),
        })
    }

    /// Writes an entry. Names ascend by [`crate::manifest::cmp_names`].
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if the entry cannot follow the last one, or the manifest becomes too
    /// large. The manifest is of no use then.
    pub fn add(&mut self, entry: &ManifestEntry) -> Result<(), ManifestError> {
        let name = entry.name.as_str();
        let shared = shared_bytes(&self.checker.last, name);
        self.checker.check(entry)?;
        let kind = match &entry.item {
            ManifestItem::File { executable, .. } => u8::from(*executable),
            ManifestItem::Symlink(_) => 2,
            ManifestItem::EmptyDirectory => 3,
        };
        let rest = name.as_bytes().get(shared..).unwrap_or_default();
        self.output.write(&[kind])?;
        self.output.varint(shared as u64)?;
        self.output.varint(rest.len() as u64)?;
        self.output.write(rest)?;
        match &entry.item {
            ManifestItem::File { info, .. } => {
                self.output.varint(info.length)?;
                self.output.write(&info.root.0)
            }
            ManifestItem::Symlink(target) => {
                self.output.varint(target.as_str().len() as u64)?;
                self.output.write(target.as_str().as_bytes())
            }
            ManifestItem::EmptyDirectory => Ok(()),
        }
    }

    /// Returns what has been written so far.
    pub fn totals(&self) -> ManifestTotals {
        self.checker.totals
    }

    /// Flushes the sink and returns it.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Io`] if the sink fails.
    pub fn finish(self) -> Result<W, ManifestError> {
        self.output.into_inner()
    }
}
