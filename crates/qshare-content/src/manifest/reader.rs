//! Reads a manifest as a stream.

use std::io::Read;

use super::checker::{Checker, shared_bytes};
use super::codec::Input;
use super::entry::{
    MAGIC, MANIFEST_MAX_BYTES, ManifestEntry, ManifestError, ManifestItem, ManifestTotals, VERSION,
};
use super::links::LinkTarget;
use crate::{AssetName, ContentInfo, Hash, NAME_MAX_BYTES};

/// Reads a manifest entry by entry, and validates each against those before it.
///
/// The iterator ends after the first error. Only a manifest that was read to its end without one is
/// valid.
pub struct ManifestReader<R> {
    input: Input<R>,
    pub(super) checker: Checker,
    own: Option<ContentInfo>,
    /// The bytes of the last name.
    name: Vec<u8>,
    ended: bool,
}

impl<R: Read> ManifestReader<R> {
    /// Reads the header. `own` is the manifest itself, which may not be its own member.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if the bytes are no manifest, or cannot be read.
    pub fn new(
        bytes: R,
        own: impl Into<Option<ContentInfo>>,
    ) -> Result<ManifestReader<R>, ManifestError> {
        Ok(ManifestReader {
            input: Input::open(bytes, MANIFEST_MAX_BYTES, MAGIC, VERSION)?,
            checker: Checker::default(),
            own: own.into(),
            name: Vec::new(),
            ended: false,
        })
    }

    /// Returns what has been read so far.
    pub fn totals(&self) -> ManifestTotals {
        self.checker.totals
    }

    fn entry(&mut self) -> Result<Option<ManifestEntry>, ManifestError> {
        let Some(kind) = self.input.next()? else {
            return Ok(None);
        };
        if kind > 3 {
            return Err(ManifestError::Kind(kind));
        }
        let shared = self.input.length(self.name.len())?;
        let rest = self
            .input
            .length(NAME_MAX_BYTES - shared.min(NAME_MAX_BYTES))?;
        self.name.truncate(shared);
        self.name.resize(shared + rest, 0);
        let tail = self.name.get_mut(shared..).unwrap_or_default();
        self.input.fill(tail)?;
        let name = std::str::from_utf8(&self.name)
            .map_err(|_| ManifestError::NotCanonical("a name is not UTF-8"))?;
        let name = AssetName::new(name)?;
        let item = match kind {
            0 | 1 => {
                let length = self.input.varint()?;
                let mut root = Hash([0; 32]);
                self.input.fill(&mut root.0)?;
                ManifestItem::File {
                    info: ContentInfo { length, root },
                    executable: kind == 1,
                }
            }
            2 => {
                let mut target = vec![0; self.input.length(NAME_MAX_BYTES)?];
                self.input.fill(&mut target)?;
                let target = String::from_utf8(target)
                    .map_err(|_| ManifestError::NotCanonical("a target is not UTF-8"))?;
                // The checker validates it.
                ManifestItem::Symlink(LinkTarget::unchecked(target))
            }
            _ => ManifestItem::EmptyDirectory,
        };
        if shared != shared_bytes(&self.checker.last, name.as_str()) {
            return Err(ManifestError::NotCanonical(
                "a name repeats bytes of the last one",
            ));
        }
        if let ManifestItem::File { info, .. } = &item
            && self.own == Some(*info)
        {
            return Err(ManifestError::SelfReference(name.into()));
        }
        let entry = ManifestEntry { name, item };
        self.checker.check(&entry)?;
        Ok(Some(entry))
    }
}

impl<R: Read> Iterator for ManifestReader<R> {
    type Item = Result<ManifestEntry, ManifestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let entry = self.entry().transpose();
        self.ended = !matches!(entry, Some(Ok(_)));
        entry
    }
}
