//! The rules for the entries of a manifest and their order.

use std::cmp::Ordering;

use super::entry::{
    COLLECTION_MAX_BYTES, MANIFEST_ENTRIES_MAX, MANIFEST_NAMES_MAX_BYTES, ManifestEntry,
    ManifestError, ManifestItem, ManifestTotals,
};
use crate::LENGTH_MAX_BYTES;

/// Compares names by their components, so that what is in a directory follows the place of the
/// directory itself.
pub fn cmp_names(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

/// Checks entries in their order, for the reader and the writer.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) last: String,
    pub(super) totals: ManifestTotals,
    pub(super) entries: u64,
    pub(super) names_bytes: u64,
}

impl Checker {
    pub(super) fn check(&mut self, entry: &ManifestEntry) -> Result<(), ManifestError> {
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
pub(super) fn shared_bytes(a: &str, b: &str) -> usize {
    let pairs = a.bytes().zip(b.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}
