//! The index of one group: names, contents, and the contents of each name.
//!
//! A million entries must fit in 200 MB, so the indexes hold four-byte keys and compare the values
//! themselves. An entry whose name and content no other node announces takes about 190 bytes beyond
//! its name: 72 in [`Content`], 32 in [`Asset`], 32 around the name, 14 in its node, and the rest
//! in five indexes.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use qshare_content::{
    AssetName, ContentId, ContentInfo, Hash as RootHash, LENGTH_MAX_BYTES, Topic,
};

use crate::holders::Holders;
use crate::index::{HashIndex, Place, SortedIndex};
use crate::slab::{Key, Slab};

/// A name that stands for a content, announced by at least one node.
pub(crate) struct Asset {
    pub(crate) name: AssetName,
    pub(crate) content: Key<Content>,
    pub(crate) announcers: Announcers,
    /// Neighbours among the assets of the same content. A doubly linked list, because the empty
    /// file may have a hundred thousand names that all go at once.
    previous: Option<Key<Asset>>,
    next: Option<Key<Asset>>,
}

/// How many nodes announce an asset (30 bits), whether other contents may have its name, and
/// whether it is a collection.
pub(crate) struct Announcers(u32);

impl Announcers {
    const SHARES_NAME: u32 = 1 << 31;
    const IS_COLLECTION: u32 = 1 << 30;
    const FLAGS: u32 = Self::SHARES_NAME | Self::IS_COLLECTION;

    fn count(&self) -> u32 {
        self.0 & !Self::FLAGS
    }

    fn shares_name(&self) -> bool {
        self.0 & Self::SHARES_NAME != 0
    }

    fn set_shares_name(&mut self, shares: bool) {
        self.set(Self::SHARES_NAME, shares);
    }

    pub(crate) fn is_collection(&self) -> bool {
        self.0 & Self::IS_COLLECTION != 0
    }

    fn set(&mut self, flag: u32, on: bool) {
        self.0 = self.0 & !flag | if on { flag } else { 0 };
    }
}

/// A content that at least one node announced. Its id follows from the info.
pub(crate) struct Content {
    pub(crate) info: ContentInfo,
    /// The first eight bytes of its id, so that comparing ids rarely needs to hash.
    id_head: u64,
    pub(crate) holders: Holders,
    /// Head of the list of its assets.
    assets: Key<Asset>,
    /// Whether any session watches it.
    pub(crate) is_watched: bool,
}

/// The length that stands for a topic: no content is as long.
const TOPIC_LENGTH: u64 = u64::MAX;
const _: () = assert!(TOPIC_LENGTH > LENGTH_MAX_BYTES);

/// Returns the info under which a topic is kept, as a content that no lookup finds: it is in the
/// index by hash of the id only, and its id follows from the topic.
pub(crate) fn topic_info(topic: Topic) -> ContentInfo {
    ContentInfo {
        length: TOPIC_LENGTH,
        root: RootHash(topic.0),
    }
}

/// Whether this is the info of a topic.
pub(crate) fn is_topic(info: &ContentInfo) -> bool {
    info.length == TOPIC_LENGTH
}

/// Names and contents of one group.
pub(crate) struct Catalog {
    pub(crate) assets: Slab<Asset>,
    pub(crate) contents: Slab<Content>,
    /// In the order of names, then of content ids.
    forward: SortedIndex<Asset>,
    /// In the order of reversed names, then of content ids.
    backward: SortedIndex<Asset>,
    /// One asset of each name.
    by_name: HashIndex<Asset>,
    /// In the order of ids.
    by_id: SortedIndex<Content>,
    by_id_hash: HashIndex<Content>,
    /// Makes hashes unpredictable.
    seed: u64,
}

/// A position in the order of names and contents, whether or not something is there.
#[derive(Clone, Copy)]
pub(crate) struct Listing<'a> {
    pub(crate) name: &'a str,
    pub(crate) content: ContentId,
}

impl<'a> Listing<'a> {
    /// Not above any listing of this name.
    pub(crate) fn first_of(name: &'a str) -> Listing<'a> {
        let content = ContentId([0; 32]);
        Listing { name, content }
    }
}

impl Catalog {
    pub(crate) fn new(seed: u64) -> Catalog {
        Catalog {
            assets: Slab::default(),
            contents: Slab::default(),
            forward: SortedIndex::default(),
            backward: SortedIndex::default(),
            by_name: HashIndex::default(),
            by_id: SortedIndex::default(),
            by_id_hash: HashIndex::default(),
            seed,
        }
    }

    pub(crate) fn content(&self, id: ContentId) -> Option<Key<Content>> {
        let head = head_of(&id);
        self.by_id_hash.get(hash(self.seed, &head), |key| {
            let content = &self.contents[key];
            content.id_head == head && content.info.id() == id
        })
    }

    /// Returns the content with this id; None for a topic.
    pub(crate) fn listed_content(&self, id: ContentId) -> Option<Key<Content>> {
        self.content(id).filter(|&key| !self.is_topic(key))
    }

    /// Whether a content stands for a topic.
    pub(crate) fn is_topic(&self, content: Key<Content>) -> bool {
        is_topic(&self.contents[content].info)
    }

    /// The asset of this name and content. A topic has one asset, whatever the name.
    pub(crate) fn asset(&self, name: &str, content: Key<Content>) -> Option<Key<Asset>> {
        if self.is_topic(content) {
            return Some(self.contents[content].assets);
        }
        let named = self.named(name)?;
        if self.assets[named].content == content {
            return Some(named);
        }
        if !self.assets[named].announcers.shares_name() {
            return None;
        }
        let id = self.contents[content].info.id();
        let found = self
            .forward
            .get(self.place(Listing { name, content: id }))?;
        let asset = &self.assets[found];
        (asset.content == content && asset.name.as_str() == name).then_some(found)
    }

    /// One asset of this name.
    fn named(&self, name: &str) -> Option<Key<Asset>> {
        self.by_name.get(hash(self.seed, name), |key| {
            self.assets[key].name.as_str() == name
        })
    }

    /// The asset of this name if there is one only; an error if there are several.
    pub(crate) fn only_named(&self, name: &str) -> Result<Option<Key<Asset>>, SeveralContents> {
        match self.named(name) {
            Some(key) if self.assets[key].announcers.shares_name() => Err(SeveralContents),
            found => Ok(found),
        }
    }

    /// Records whether an asset is a collection.
    pub(crate) fn set_collection(&mut self, key: Key<Asset>, is_collection: bool) {
        let announcers = &mut self.assets[key].announcers;
        announcers.set(Announcers::IS_COLLECTION, is_collection);
    }

    /// Counts one more announcer of an asset.
    pub(crate) fn share(&mut self, key: Key<Asset>) {
        self.assets[key].announcers.0 += 1;
    }

    /// Adds an asset that is not there yet, with one announcer. `info` hashes to `id`; `known` is
    /// its content if that is there.
    pub(crate) fn add(
        &mut self,
        name: &AssetName,
        info: ContentInfo,
        id: ContentId,
        known: Option<Key<Content>>,
    ) -> Key<Asset> {
        let content = known.unwrap_or_else(|| self.add_content(info, id));
        let head = self.contents[content].assets;
        let next = (head != Key::DANGLING).then_some(head);
        let key = self.assets.insert(Asset {
            name: name.clone(),
            content,
            announcers: Announcers(1),
            previous: None,
            next,
        });
        if let Some(next) = next {
            self.assets[next].previous = Some(key);
        }
        self.contents[content].assets = key;
        if is_topic(&info) {
            return key;
        }
        let listing = Listing {
            name: name.as_str(),
            content: id,
        };
        self.forward.insert(self.place(listing), key);
        let place = self.place_backward(listing);
        self.backward.insert(place, key);
        match self.named(name.as_str()) {
            Some(named) => self.assets[named].announcers.set_shares_name(true),
            None => {
                let (seed, assets) = (self.seed, &self.assets);
                let hash_of = |key: Key<Asset>| hash(seed, assets[key].name.as_str());
                self.by_name.insert(hash(seed, name.as_str()), key, hash_of);
            }
        }
        key
    }

    fn add_content(&mut self, info: ContentInfo, id: ContentId) -> Key<Content> {
        let id_head = head_of(&id);
        let key = self.contents.insert(Content {
            info,
            id_head,
            holders: Holders::default(),
            assets: Key::DANGLING,
            is_watched: false,
        });
        if !is_topic(&info) {
            let place = self.place_of_id(|key| self.cmp_id(key, &id).is_lt());
            self.by_id.insert(place, key);
        }
        let (seed, contents) = (self.seed, &self.contents);
        let hash_of = |key: Key<Content>| hash(seed, &contents[key].id_head);
        self.by_id_hash.insert(hash(seed, &id_head), key, hash_of);
        key
    }

    /// Counts one announcer less; returns the bytes of the name if that was the last one.
    pub(crate) fn release(&mut self, key: Key<Asset>) -> usize {
        let asset = &mut self.assets[key];
        asset.announcers.0 -= 1;
        if asset.announcers.count() > 0 {
            return 0;
        }
        let content = asset.content;
        let id = self.contents[content].info.id();
        if !self.is_topic(content) {
            self.unlist(key, id);
        }
        let Some(asset) = self.assets.remove(key) else {
            return 0;
        };
        match (asset.previous, asset.next) {
            (Some(previous), next) => self.assets[previous].next = next,
            (None, Some(next)) => self.contents[content].assets = next,
            (None, None) => self.remove_content(content, id),
        }
        if let Some(next) = asset.next {
            self.assets[next].previous = asset.previous;
        }
        asset.name.as_str().len()
    }

    /// Takes an asset out of the indexes.
    fn unlist(&mut self, key: Key<Asset>, id: ContentId) {
        let name = self.assets[key].name.clone();
        let name = name.as_str();
        let listing = Listing { name, content: id };
        let place = self.place(listing);
        debug_assert!(self.forward.get(place) == Some(key));
        self.forward.remove(place);
        let place = self.place_backward(listing);
        debug_assert!(self.backward.get(place) == Some(key));
        self.backward.remove(place);
        let Some(named) = self.named(name) else {
            return;
        };
        if named != key && !self.assets[named].announcers.shares_name() {
            return;
        }
        if named == key {
            self.by_name.remove(hash(self.seed, name), key);
            if !self.assets[key].announcers.shares_name() {
                return;
            }
        }
        // Some of the others stand for the name now, at most two of which need to be seen.
        let mut others = self
            .forward
            .after(self.place(Listing::first_of(name)))
            .take_while(|&other| self.assets[other].name.as_str() == name);
        let (first, second) = (others.next(), others.next());
        drop(others);
        let stands = if named == key { first } else { Some(named) };
        let Some(stands) = stands else {
            return;
        };
        let announcers = &mut self.assets[stands].announcers;
        announcers.set_shares_name(second.is_some());
        if named == key {
            let (seed, assets) = (self.seed, &self.assets);
            let hash_of = |key: Key<Asset>| hash(seed, assets[key].name.as_str());
            self.by_name.insert(hash(seed, name), stands, hash_of);
        }
    }

    fn remove_content(&mut self, content: Key<Content>, id: ContentId) {
        if !self.is_topic(content) {
            let place = self.place_of_id(|key| self.cmp_id(key, &id).is_lt());
            debug_assert!(self.by_id.get(place) == Some(content));
            self.by_id.remove(place);
        }
        self.by_id_hash
            .remove(hash(self.seed, &head_of(&id)), content);
        self.contents.remove(content);
    }

    /// Some of a content's assets, at most `max`, in the order of their names.
    pub(crate) fn assets_of(&self, content: Key<Content>, max: usize) -> Vec<Key<Asset>> {
        let head = Some(self.contents[content].assets);
        let mut assets: Vec<Key<Asset>> =
            std::iter::successors(head, |&asset| self.assets[asset].next)
                .take(max)
                .collect();
        assets.sort_by(|&a, &b| self.assets[a].name.cmp(&self.assets[b].name));
        assets
    }

    pub(crate) fn id_of(&self, asset: Key<Asset>) -> ContentId {
        self.contents[self.assets[asset].content].info.id()
    }

    /// The place of a listing in the order of names.
    pub(crate) fn place(&self, listing: Listing<'_>) -> Place {
        self.forward.place(|key| self.cmp(key, listing).is_lt())
    }

    /// The place behind a listing in the order of names.
    pub(crate) fn place_behind(&self, listing: Listing<'_>) -> Place {
        self.forward.place(|key| self.cmp(key, listing).is_le())
    }

    fn cmp(&self, key: Key<Asset>, listing: Listing<'_>) -> Ordering {
        let Asset { name, content, .. } = &self.assets[key];
        let order = name.as_str().cmp(listing.name);
        order.then_with(|| self.cmp_id(*content, &listing.content))
    }

    /// The place after all names that begin with `prefix` or lie before them.
    pub(crate) fn place_after_prefix(&self, prefix: &str) -> Place {
        self.forward.place(|key| {
            let name = self.assets[key].name.as_str();
            name < prefix || name.starts_with(prefix)
        })
    }

    /// The place of a listing in the order of reversed names.
    pub(crate) fn place_backward(&self, listing: Listing<'_>) -> Place {
        self.backward
            .place(|key| self.cmp_backward(key, listing).is_lt())
    }

    /// The place behind a listing in the order of reversed names.
    pub(crate) fn place_behind_backward(&self, listing: Listing<'_>) -> Place {
        self.backward
            .place(|key| self.cmp_backward(key, listing).is_le())
    }

    fn cmp_backward(&self, key: Key<Asset>, listing: Listing<'_>) -> Ordering {
        let Asset { name, content, .. } = &self.assets[key];
        let order = cmp_reversed(name.as_str(), listing.name);
        order.then_with(|| self.cmp_id(*content, &listing.content))
    }

    /// The place after all names that end with `suffix` or lie before them in reversed order.
    pub(crate) fn place_after_suffix(&self, suffix: &str) -> Place {
        self.backward.place(|key| {
            let name = self.assets[key].name.as_str();
            name.ends_with(suffix) || cmp_reversed(name, suffix).is_lt()
        })
    }

    /// The assets after a place in the order of names.
    pub(crate) fn after(&self, place: Place) -> impl Iterator<Item = Key<Asset>> {
        self.forward.after(place)
    }

    /// The assets before a place in the order of names, in reverse.
    pub(crate) fn before(&self, place: Place) -> impl Iterator<Item = Key<Asset>> {
        self.forward.before(place)
    }

    /// The assets after a place in the order of reversed names.
    pub(crate) fn after_backward(&self, place: Place) -> impl Iterator<Item = Key<Asset>> {
        self.backward.after(place)
    }

    /// How many names lie between two places in the order of names, about.
    pub(crate) fn count_between(&self, from: Place, to: Place) -> usize {
        self.forward.count_between(from, to)
    }

    /// The same in the order of reversed names.
    pub(crate) fn count_between_backward(&self, from: Place, to: Place) -> usize {
        self.backward.count_between(from, to)
    }

    /// The contents from `from` on, or after it, in the order of their ids.
    pub(crate) fn contents_from(
        &self,
        from: &ContentId,
        inclusive: bool,
    ) -> impl Iterator<Item = Key<Content>> {
        let place = self.place_of_id(|key| match self.cmp_id(key, from) {
            Ordering::Less => true,
            Ordering::Equal => !inclusive,
            Ordering::Greater => false,
        });
        self.by_id.after(place)
    }

    fn place_of_id(&self, before: impl Fn(Key<Content>) -> bool) -> Place {
        self.by_id.place(before)
    }

    pub(crate) fn cmp_id(&self, key: Key<Content>, id: &ContentId) -> Ordering {
        let content = &self.contents[key];
        let heads = content.id_head.cmp(&head_of(id));
        heads.then_with(|| content.info.id().cmp(id))
    }
}

/// Several contents have the name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SeveralContents;

/// Compares two names from their last bytes backwards.
fn cmp_reversed(a: &str, b: &str) -> Ordering {
    a.bytes().rev().cmp(b.bytes().rev())
}

fn head_of(id: &ContentId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// SipHash with a secret first word, so that an attacker cannot choose names that collide.
fn hash(seed: u64, value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(content: u8) -> ContentInfo {
        ContentInfo {
            length: 1,
            root: qshare_content::Hash([content; 32]),
        }
    }

    fn acquire(catalog: &mut Catalog, name: &str, content: u8) -> Key<Asset> {
        if let Some(key) = asset(catalog, name, content) {
            catalog.share(key);
            return key;
        }
        let name = AssetName::new(name).unwrap();
        let id = info(content).id();
        catalog.add(&name, info(content), id, catalog.content(id))
    }

    fn asset(catalog: &Catalog, name: &str, content: u8) -> Option<Key<Asset>> {
        catalog.asset(name, catalog.content(info(content).id())?)
    }

    fn listing(catalog: &Catalog) -> Vec<(String, ContentId)> {
        let all = catalog.after(catalog.place(Listing::first_of("")));
        all.map(|key| (catalog.assets[key].name.to_string(), catalog.id_of(key)))
            .collect()
    }

    #[test]
    fn an_asset_takes_32_bytes_and_a_content_72() {
        assert_eq!(size_of::<Option<Asset>>(), 32);
        assert_eq!(size_of::<Option<Content>>(), 72);
    }

    #[test]
    fn an_asset_stays_until_its_last_announcer_goes() {
        let mut catalog = Catalog::new(1);
        let key = acquire(&mut catalog, "a", 1);
        assert!(acquire(&mut catalog, "a", 1) == key);
        assert_eq!(catalog.release(key), 0);
        assert!(asset(&catalog, "a", 1).is_some());
        assert_eq!(catalog.release(key), 1);
        assert!(asset(&catalog, "a", 1).is_none());
        assert!(catalog.content(info(1).id()).is_none());
        assert_eq!((catalog.assets.len(), catalog.contents.len()), (0, 0));
    }

    #[test]
    fn the_names_of_a_content_survive_removal_anywhere_in_its_list() {
        for gone in 0..3 {
            let mut catalog = Catalog::new(1);
            let names = ["a", "b", "c"];
            let keys = names.map(|name| acquire(&mut catalog, name, 1));
            catalog.release(keys[gone]);
            let content = catalog.content(info(1).id()).unwrap();
            let left: Vec<&str> = catalog
                .assets_of(content, 8)
                .into_iter()
                .map(|asset| catalog.assets[asset].name.as_str())
                .collect();
            let expected: Vec<&str> = (0..3).filter(|&n| n != gone).map(|n| names[n]).collect();
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn ids_are_listed_from_one_on_or_after_it() {
        let mut catalog = Catalog::new(1);
        acquire(&mut catalog, "a", 1);
        let id = info(1).id();
        assert_eq!(catalog.contents_from(&id, true).count(), 1);
        assert_eq!(catalog.contents_from(&id, false).count(), 0);
        assert_eq!(catalog.contents_from(&ContentId([0; 32]), true).count(), 1);
    }

    proptest! {
        #[test]
        fn names_and_contents_are_found_whatever_comes_and_goes(
            steps in prop::collection::vec((0..4_usize, 0..4_u8, any::<bool>()), 1..120)
        ) {
            let names = ["a", "ab", "b", "b/a"];
            let mut catalog = Catalog::new(1);
            let mut model = std::collections::BTreeMap::new();
            for (name, content, comes) in steps {
                let id = info(content).id();
                let entry = (names[name].to_owned(), id);
                if comes {
                    let key = acquire(&mut catalog, names[name], content);
                    *model.entry(entry).or_insert((key, 0_usize)) = (key, model_count(&model, names[name], id) + 1);
                } else if let Some((key, count)) = model.remove(&entry) {
                    let freed = catalog.release(key);
                    prop_assert_eq!(freed > 0, count == 1);
                    if count > 1 {
                        model.insert(entry, (key, count - 1));
                    }
                }
                let expected: Vec<_> = model.keys().cloned().collect();
                prop_assert_eq!(listing(&catalog), expected);
                let backward = catalog.place_backward(Listing::first_of(""));
                prop_assert_eq!(catalog.after_backward(backward).count(), model.len());
                for name in names {
                    let of_name = model.keys().filter(|(other, _)| other == name).count();
                    match catalog.only_named(name) {
                        Ok(found) => prop_assert_eq!(usize::from(found.is_some()), of_name),
                        Err(SeveralContents) => prop_assert!(of_name > 1),
                    }
                    for content in 0..4 {
                        let known = model.get(&(name.to_owned(), info(content).id()));
                        prop_assert_eq!(
                            asset(&catalog, name, content),
                            known.map(|&(key, _)| key)
                        );
                    }
                }
            }
        }
    }

    fn model_count(
        model: &std::collections::BTreeMap<(String, ContentId), (Key<Asset>, usize)>,
        name: &str,
        id: ContentId,
    ) -> usize {
        model
            .get(&(name.to_owned(), id))
            .map_or(0, |&(_, count)| count)
    }
}
