//! What this node has, by content, topic or name, and the bytes of it.

use std::path::PathBuf;
use std::sync::Arc;

use qshare_content::{
    AssetName, ChunkIndex, ContentId, Hash, NodeId, Query, QueryParseError, ShareKey, Topic,
};
use qshare_storage::{Asset, HashPage, ReadError};

use super::ShareStore;
use crate::shares::catalogue::{Announced, Listing};
use crate::shares::contents::Holding;
use crate::shares::private::Found;

impl ShareStore {
    /// Returns the content if any of its bytes can be served to everybody.
    pub(crate) fn find(&self, content: &ContentId) -> Option<Holding> {
        let marks = self.marks.as_ref();
        let is_public = |asset: &Asset| marks.is_none_or(|marks| marks.is_public(asset));
        let found = self.contents.find(content, is_public);
        found.or_else(|| self.collections.find(content))
    }

    /// Returns what this node has of a topic, and the topic that must be unlocked for it.
    pub(crate) fn find_private(&self, topic: &Topic) -> Option<(Found, Topic)> {
        let member = || {
            let (holding, unlocked_by) = self.collections.find_private(topic)?;
            Some((Found::Holding(holding), unlocked_by))
        };
        self.private.find(topic).or_else(member)
    }

    /// Returns what must be unlocked to learn that a member's collection has changed.
    pub(crate) fn changed_member(&self, topic: &Topic) -> Option<Topic> {
        self.collections.changed_member(topic)
    }

    /// Returns a listed content, with one of its names.
    pub(crate) fn listed(&self, content: &ContentId) -> Option<Announced> {
        if let Some(asset) = self
            .contents
            .library()
            .and_then(|library| library.find(content))
        {
            return Some(Announced {
                sha256: self.catalogue.digest_of(&asset.id),
                asset,
                complete: true,
            });
        }
        // Everything else that is served is rare: finished files elsewhere, and running downloads.
        self.find(content)?;
        self.catalogue.find(content)
    }

    /// Returns the complete files that everybody may have beneath a directory.
    pub(crate) fn beneath(&self, directory: &AssetName) -> Vec<Arc<Asset>> {
        self.catalogue.beneath(directory)
    }

    /// Lists the entries that match a query, from the end of the last page on.
    ///
    /// # Errors
    ///
    /// When the query holds an invalid glob.
    pub(crate) fn list(
        &self,
        us: NodeId,
        query: &Query,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, QueryParseError> {
        self.catalogue.list(us, query, after, limit)
    }

    /// Returns the number of complete files, and the sum of their lengths in bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        self.catalogue.totals()
    }

    /// Returns a number that differs after every change of the list.
    pub(crate) fn revision(&self) -> u64 {
        self.catalogue.revision()
    }

    /// Returns whether the shared directories hold a content under another name.
    pub(crate) fn has_elsewhere(&self, content: &ContentId, name: &AssetName) -> bool {
        let library = self.contents.library();
        let other = |asset: &Asset| asset.name != *name;
        library.is_some_and(|library| library.find_named(content, other).is_some())
    }

    /// Returns the path of a content in the shared directories.
    pub(crate) fn path(&self, content: &ContentId) -> Option<PathBuf> {
        self.contents.library()?.path(content)
    }

    /// Returns the shared files that programs are still writing.
    pub(crate) fn still_written(&self) -> Vec<PathBuf> {
        let library = self.contents.library();
        library.map_or_else(Vec::new, |library| library.still_written())
    }

    /// Returns the key of a topic that this node serves.
    pub(crate) fn key_of(&self, topic: &Topic) -> Option<ShareKey> {
        self.private.key_of(topic)
    }

    /// Returns the plain digest of a content, if it was stated.
    pub(in crate::shares) fn digest_of(&self, content: &ContentId) -> Option<Hash> {
        self.catalogue.digest_of(content)
    }

    /// Fills `bytes` with those of a content from `offset` on, within one chunk. Blocks.
    pub(crate) fn read_into(
        &self,
        holding: &Holding,
        chunk: ChunkIndex,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        self.contents.read_into(holding, chunk, offset, bytes)
    }

    /// Reads a page of chunk hashes with its proof. Blocks.
    pub(crate) fn hash_page(&self, holding: &Holding, page: u32) -> Result<HashPage, ReadError> {
        self.contents.hash_page(holding, page)
    }
}
