//! The members of a received folder that are there, from an index of hashed files.

use qshare_content::ChunkIndex;

use super::{HashIndex, SharedFolder};
use crate::shared_file::indexed::known;
use crate::{HashError, HashOptions, SharedFile};

impl SharedFolder {
    /// Serves a member whose file the index has in its present state, without reading it. Returns
    /// whether it is served.
    pub fn adopt_known(&self, at: u32, index: &HashIndex) -> bool {
        let Some(info) = self.list().info(at) else {
            return false;
        };
        let Ok(stamp) = self.present_stamp(at) else {
            return false;
        };
        match known(index, &stamp) {
            Some((found, hashes)) if found == info => {
                self.adopt(at, hashes).is_ok() && self.has_stamp(at, &stamp)
            }
            _ => false,
        }
    }

    /// Does the same as [`adopt_known`](Self::adopt_known), after hashing the file if the index
    /// does not know it.
    ///
    /// # Errors
    ///
    /// [`HashError`] if the file cannot be read.
    pub fn adopt_hashed(&self, at: u32, index: &HashIndex) -> Result<bool, HashError> {
        if self.adopt_known(at, index) {
            return Ok(true);
        }
        // Nothing behind a symbolic link is a member.
        let (Some(path), Ok(_)) = (self.path(at), self.present_stamp(at)) else {
            return Ok(false);
        };
        SharedFile::indexed(&path, index, &HashOptions::default())?;
        Ok(self.adopt_known(at, index))
    }

    /// Returns whether a member is there, in the state in which it was adopted.
    pub fn is_unchanged(&self, at: u32) -> bool {
        let is_there = self.present().contains(ChunkIndex(at));
        is_there
            && self
                .present_stamp(at)
                .is_ok_and(|now| self.has_stamp(at, &now))
    }
}
