//! What one group has: names, contents, and which stands for which.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use qshare_content::{ContentId, ContentInfo};

use crate::holders::Holders;
use crate::slab::{Key, Slab};

/// A name that stands for a content. Ordered by name, then by content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) content: ContentId,
}

/// A (name, content) that at least one node announced.
pub(crate) struct Asset {
    pub(crate) name: Arc<str>,
    pub(crate) content: Key<Content>,
    /// Nodes that announce it.
    announcers: u32,
    /// Neighbours among the assets of the same content. A doubly linked list, because the
    /// empty file may well have a hundred thousand names that all go at once.
    previous: Option<Key<Asset>>,
    next: Option<Key<Asset>>,
}

/// A content that at least one node announced. Its id is not kept: it follows from the info.
pub(crate) struct Content {
    pub(crate) info: ContentInfo,
    pub(crate) holders: Holders,
    /// Head of the list of its assets.
    assets: Option<Key<Asset>>,
}

/// Names and contents of one group.
#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) assets: Slab<Asset>,
    pub(crate) contents: Slab<Content>,
    listed: BTreeMap<Listed, Key<Asset>>,
    by_id: BTreeMap<ContentId, Key<Content>>,
}

impl Catalog {
    pub(crate) fn asset(&self, listed: &Listed) -> Option<Key<Asset>> {
        self.listed.get(listed).copied()
    }

    pub(crate) fn content(&self, id: ContentId) -> Option<Key<Content>> {
        self.by_id.get(&id).copied()
    }

    /// Counts one more announcer of this name and content. `info` hashes to `listed.content`.
    pub(crate) fn acquire(&mut self, listed: Listed, info: ContentInfo) -> Key<Asset> {
        if let Some(key) = self.asset(&listed) {
            self.assets[key].announcers += 1;
            return key;
        }
        let content = self.content(listed.content).unwrap_or_else(|| {
            let key = self.contents.insert(Content {
                info,
                holders: Holders::default(),
                assets: None,
            });
            self.by_id.insert(listed.content, key);
            key
        });
        let next = self.contents[content].assets;
        let key = self.assets.insert(Asset {
            name: Arc::clone(&listed.name),
            content,
            announcers: 1,
            previous: None,
            next,
        });
        if let Some(next) = next {
            self.assets[next].previous = Some(key);
        }
        self.contents[content].assets = Some(key);
        self.listed.insert(listed, key);
        key
    }

    /// Counts one announcer less; returns the bytes of the name if that was the last one.
    pub(crate) fn release(&mut self, key: Key<Asset>) -> usize {
        let asset = &mut self.assets[key];
        asset.announcers -= 1;
        if asset.announcers > 0 {
            return 0;
        }
        let Some(asset) = self.assets.remove(key) else {
            return 0;
        };
        match asset.previous {
            Some(previous) => self.assets[previous].next = asset.next,
            None => self.contents[asset.content].assets = asset.next,
        }
        if let Some(next) = asset.next {
            self.assets[next].previous = asset.previous;
        }
        let content = self.contents[asset.content].info.id();
        if self.contents[asset.content].assets.is_none() {
            self.contents.remove(asset.content);
            self.by_id.remove(&content);
        }
        let name_bytes = asset.name.len();
        self.listed.remove(&Listed {
            name: asset.name,
            content,
        });
        name_bytes
    }

    /// Some of a content's assets, at most `max`, in the order of their names.
    pub(crate) fn assets_of(&self, content: Key<Content>, max: usize) -> Vec<Key<Asset>> {
        let head = self.contents[content].assets;
        let mut assets: Vec<Key<Asset>> =
            std::iter::successors(head, |&asset| self.assets[asset].next)
                .take(max)
                .collect();
        assets.sort_by(|&a, &b| self.assets[a].name.cmp(&self.assets[b].name));
        assets
    }

    /// All listings from `from` on, in order.
    pub(crate) fn listed_from(
        &self,
        from: Bound<Listed>,
    ) -> impl Iterator<Item = (&Listed, Key<Asset>)> {
        self.listed
            .range((from, Bound::Unbounded))
            .map(|(listed, &asset)| (listed, asset))
    }

    /// All listings before `end`, in reverse order.
    pub(crate) fn listed_before(&self, end: Listed) -> impl Iterator<Item = &Listed> {
        self.listed.range(..end).rev().map(|(listed, _)| listed)
    }

    /// All contents from `from` to `last`, in the order of their ids.
    pub(crate) fn contents_between(
        &self,
        from: Bound<ContentId>,
        last: ContentId,
    ) -> impl Iterator<Item = Key<Content>> {
        let ended = match from {
            Bound::Included(from) => from > last,
            Bound::Excluded(from) => from >= last,
            Bound::Unbounded => false,
        };
        // A range that begins beyond its end would panic; a stranger's cursor can ask for one.
        let (from, last) = if ended {
            (Bound::Included(last), Bound::Excluded(last))
        } else {
            (from, Bound::Included(last))
        };
        self.by_id.range((from, last)).map(|(_, &content)| content)
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::Hash;

    use super::*;

    fn info(n: u8) -> ContentInfo {
        ContentInfo {
            length: 1,
            root: Hash([n; 32]),
        }
    }

    fn listed(name: &str, n: u8) -> Listed {
        Listed {
            name: name.into(),
            content: info(n).id(),
        }
    }

    #[test]
    fn an_asset_stays_until_its_last_announcer_is_gone() {
        let mut catalog = Catalog::default();
        let key = catalog.acquire(listed("a", 1), info(1));
        assert!(catalog.acquire(listed("a", 1), info(1)) == key);
        assert_eq!(catalog.release(key), 0);
        assert!(catalog.asset(&listed("a", 1)).is_some());
        assert_eq!(catalog.release(key), 1);
        assert!(catalog.asset(&listed("a", 1)).is_none());
        assert!(catalog.content(info(1).id()).is_none());
        assert_eq!((catalog.assets.len(), catalog.contents.len()), (0, 0));
    }

    #[test]
    fn the_names_of_a_content_survive_removal_anywhere_in_its_list() {
        for gone in 0..3 {
            let mut catalog = Catalog::default();
            let names = ["a", "b", "c"];
            let keys = names.map(|name| catalog.acquire(listed(name, 1), info(1)));
            catalog.release(keys[gone]);
            let content = catalog.content(info(1).id()).unwrap();
            let left: Vec<&str> = catalog
                .assets_of(content, 8)
                .into_iter()
                .map(|asset| &*catalog.assets[asset].name)
                .collect();
            let expected: Vec<&str> = (0..3).filter(|&n| n != gone).map(|n| names[n]).collect();
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn a_range_of_ids_that_has_ended_is_empty() {
        let mut catalog = Catalog::default();
        catalog.acquire(listed("a", 1), info(1));
        let id = info(1).id();
        let count = |from, last| catalog.contents_between(from, last).count();
        assert_eq!(count(Bound::Included(id), id), 1);
        assert_eq!(count(Bound::Excluded(id), id), 0);
        assert_eq!(count(Bound::Included(id), ContentId([0; 32])), 0);
        assert_eq!(count(Bound::Included(ContentId([0; 32])), id), 1);
    }
}
