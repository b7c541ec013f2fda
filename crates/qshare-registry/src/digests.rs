//! Plain SHA-256 digests of contents, as nodes claim them.

use std::collections::BTreeMap;

use qshare_content::Hash;

use crate::catalog::Content;
use crate::slab::Key;

/// What a stated digest costs in bytes: its place at the node and in the index.
pub(crate) const DIGEST_BYTES: usize = 112;
/// Contents of one digest that a lookup considers. An honest digest has one.
const CLAIMS_MAX: usize = 64;

/// Claims about plain digests, ordered by digest.
#[derive(Default)]
pub(crate) struct Digests {
    /// The number of entries that claim it.
    claims: BTreeMap<(Hash, Key<Content>), u32>,
}

impl Digests {
    pub(crate) fn add(&mut self, digest: Hash, content: Key<Content>) {
        *self.claims.entry((digest, content)).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, digest: Hash, content: Key<Content>) {
        if let Some(count) = self.claims.get_mut(&(digest, content)) {
            *count -= 1;
            if *count == 0 {
                self.claims.remove(&(digest, content));
            }
        }
    }

    /// Returns the contents of a digest, the one with the most claims first. Of many contents only
    /// some are considered.
    pub(crate) fn contents(&self, digest: Hash) -> Vec<Key<Content>> {
        // No key is smaller than that of the first position, and none is above the dangling one.
        let claims = self
            .claims
            .range((digest, Key::FIRST)..=(digest, Key::DANGLING));
        let mut claims: Vec<(u32, Key<Content>)> = claims
            .take(CLAIMS_MAX)
            .map(|(&(_, content), &count)| (count, content))
            .collect();
        claims.sort_by_key(|&(count, content)| (std::cmp::Reverse(count), content));
        claims.into_iter().map(|(_, content)| content).collect()
    }
}
