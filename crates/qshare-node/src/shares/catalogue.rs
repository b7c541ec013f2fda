//! The entries that this node announces, and every change to them in order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::{
    AssetName, ContentId, ContentInfo, FileMetadata, Hash, NamePattern, NodeId, Query,
    QueryParseError, is_glob,
};
use qshare_storage::Asset;
use qshare_wire::tracker::{Entry, EntryKey, EntryKind};
use tokio::sync::{broadcast, watch};

/// Changes that a slow tracker session may lag behind before it announces everything again.
const DELTAS_KEPT: usize = 4096;

/// Entries that one page of a listing scans, in less than a millisecond.
const SCAN_MAX: usize = 4096;
/// Steps of work that one page of a listing may cost, about 4 ns each: 1 ms. A glob may cost many
/// steps for each name.
const STEPS_MAX: u64 = 250_000;
/// Steps of work to skip an entry.
const ENTRY_STEPS: u64 = 25;

/// A change of the announced entries.
#[derive(Debug, Clone)]
pub(crate) enum Delta {
    Upsert(Announced),
    Remove(Arc<Asset>),
}

/// An announced asset. It is shared with the library, if the library has it.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) asset: Arc<Asset>,
    /// Whether this node has all of it.
    pub(crate) complete: bool,
    /// The plain SHA-256 of a complete file, if this node computed it.
    pub(crate) sha256: Option<Hash>,
}

/// All shared entries, ordered by name and content, each complete or partial.
#[derive(Debug)]
pub(crate) struct Catalogue {
    entries: Mutex<Entries>,
    /// Number and sum of the lengths of complete entries, changed under the lock of `entries`.
    complete: AtomicUsize,
    complete_bytes: AtomicU64,
    /// Number of changes so far.
    revision: AtomicU64,
    deltas: broadcast::Sender<Delta>,
    /// Whether there ever was an entry.
    offers: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Whether each asset is complete.
    listed: BTreeMap<Listed, bool>,
    /// Plain SHA-256 digests that this node computed. A content has one for ever, so a digest
    /// outlives its entries: 64 bytes for each content that was ever listed.
    digests: HashMap<ContentId, Hash>,
    contents_by_digest: HashMap<Hash, ContentId>,
}

impl Entries {
    fn announced(&self, asset: &Arc<Asset>, complete: bool) -> Announced {
        let digest = || self.digests.get(&asset.id).copied();
        Announced {
            asset: asset.clone(),
            complete,
            sha256: match complete && !asset.is_collection {
                true => digest(),
                false => None,
            },
        }
    }
}

/// An asset, ordered by name and content.
#[derive(Debug)]
struct Listed(Arc<Asset>);

/// A page of a listing, in the order of names.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Announced>,
    /// The cursor of the next page, if there may be one.
    pub(crate) more: Option<Vec<u8>>,
    /// The work of the page, in steps of about 4 ns.
    pub(crate) steps: u64,
}

impl Catalogue {
    pub(crate) fn new() -> Catalogue {
        Catalogue {
            entries: Mutex::default(),
            complete: AtomicUsize::new(0),
            complete_bytes: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            deltas: broadcast::Sender::new(DELTAS_KEPT),
            offers: watch::Sender::new(false),
        }
    }

    /// Announces an asset, or a change of its completeness or attributes.
    pub(crate) fn upsert(&self, asset: Arc<Asset>, complete: bool) {
        let mut entries = self.lock();
        let listed = Listed(asset.clone());
        // The key is replaced, too: attributes are no part of its order.
        let known = entries.listed.remove_entry(&listed);
        entries.listed.insert(listed, complete);
        let before = known.as_ref().map(|(_, complete)| *complete);
        if known.is_some_and(|(known, was)| was == complete && *known.0 == *asset) {
            return;
        }
        self.count(&asset, before, Some(complete));
        // Sent under the lock, so that subscribers get the changes in order. A later subscriber
        // reads the entries.
        let _ = self
            .deltas
            .send(Delta::Upsert(entries.announced(&asset, complete)));
        self.offers
            .send_if_modified(|any| !std::mem::replace(any, true));
    }

    /// Returns the plain digest of a content, if it was stated.
    pub(crate) fn digest_of(&self, content: &ContentId) -> Option<Hash> {
        self.lock().digests.get(content).copied()
    }

    /// Takes digests of earlier runs. They are announced with the entries that follow.
    pub(crate) fn know_digests(&self, known: impl Iterator<Item = (ContentId, Hash)>) {
        let mut entries = self.lock();
        for (content, digest) in known {
            entries.digests.insert(content, digest);
            entries.contents_by_digest.insert(digest, content);
        }
    }

    /// States the plain digest of a content, and announces it for an asset that is listed as
    /// complete.
    pub(crate) fn state_digest(&self, asset: &Arc<Asset>, digest: Hash) {
        self.know_digests(std::iter::once((asset.id, digest)));
        let entries = self.lock();
        if entries.listed.get(&Listed(asset.clone())) == Some(&true) {
            let announced = entries.announced(asset, true);
            self.revision.fetch_add(1, Relaxed);
            let _ = self.deltas.send(Delta::Upsert(announced));
        }
    }

    /// Returns the flag that is set when there is a first entry.
    pub(crate) fn offers(&self) -> watch::Sender<bool> {
        self.offers.clone()
    }

    /// Returns a watch that reports when there is a first entry.
    pub(crate) fn watch_offers(&self) -> watch::Receiver<bool> {
        self.offers.subscribe()
    }

    /// Announces that an asset was removed.
    pub(crate) fn remove(&self, asset: Arc<Asset>) {
        let mut entries = self.lock();
        let listed = Listed(asset);
        if let Some(complete) = entries.listed.remove(&listed) {
            self.count(&listed.0, Some(complete), None);
            let _ = self.deltas.send(Delta::Remove(listed.0));
        }
    }

    /// Returns the complete files beneath a directory.
    pub(crate) fn beneath(&self, directory: &AssetName) -> Vec<Arc<Asset>> {
        let prefix = format!("{directory}/");
        let first = Listed::place(directory.clone(), ContentId([0; 32]));
        let entries = self.lock();
        // Names such as `a.txt` and `a b` lie between `a` and `a/b`.
        let after = |listed: &Listed| {
            let name = listed.0.name.as_str();
            name.starts_with(directory.as_str())
        };
        entries
            .listed
            .range(first..)
            .take_while(|(listed, _)| after(listed))
            .filter(|(listed, complete)| {
                **complete && !listed.0.is_collection && listed.0.name.as_str().starts_with(&prefix)
            })
            .map(|(listed, _)| listed.0.clone())
            .collect()
    }

    /// Returns all entries, and subscribes to every change from now on.
    pub(crate) fn subscribe(&self) -> (Vec<Announced>, broadcast::Receiver<Delta>) {
        let entries = self.lock();
        let listed = entries.listed.iter();
        let all = listed.map(|(listed, &complete)| entries.announced(&listed.0, complete));
        (all.collect(), self.deltas.subscribe())
    }

    /// Lists the entries that match a query, from the end of the last page on. A page scans a
    /// bounded number of entries, so it may be empty although more pages follow.
    pub(crate) fn list(
        &self,
        us: NodeId,
        query: &Query,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, QueryParseError> {
        let pattern = match query {
            Query::Name(text) if is_glob(text) => Some(NamePattern::new(text)?),
            _ => None,
        };
        let name = match query {
            Query::Name(text) => AssetName::new(text.as_str()).ok(),
            Query::OfNode(node, name) if *node == us => Some(name.clone()),
            Query::OfNode(..) => return Ok(Listing::default()),
            Query::Id(_) | Query::IdPrefix(_) | Query::Sha256(_) => None,
        };
        let entries = self.lock();
        if let Some(name) = name {
            let first = Listed::place(name.clone(), ContentId([0; 32]));
            let named = entries
                .listed
                .range(first..)
                .take_while(|(listed, _)| listed.0.name == name)
                .take(limit)
                .map(|(listed, &complete)| entries.announced(&listed.0, complete));
            let named: Vec<_> = named.collect();
            // An exact name wins over a glob.
            if !named.is_empty() || pattern.is_none() {
                return Ok(Listing {
                    steps: ENTRY_STEPS * (1 + named.len() as u64),
                    entries: named,
                    more: None,
                });
            }
        }
        let range = match query {
            Query::Id(id) => Some((*id, *id)),
            Query::IdPrefix(prefix) => Some(prefix.range()),
            Query::Sha256(digest) => match entries.contents_by_digest.get(digest) {
                Some(id) => Some((*id, *id)),
                None => return Ok(Listing::default()),
            },
            _ => None,
        };
        let is_meant = |asset: &Asset, steps: &mut u64| match (&range, &pattern) {
            (Some((low, high)), _) => *low <= asset.id && asset.id <= *high,
            (None, Some(pattern)) => pattern.matches_counted(asset.name.as_str(), steps),
            (None, None) => false,
        };
        let start = after.and_then(decode_cursor);
        let start = start.map(|(name, content)| Listed::place(name, content));
        let start = start.map_or(Bound::Unbounded, Bound::Excluded);
        let mut listing = Listing::default();
        let mut rest = entries.listed.range((start, Bound::Unbounded));
        let mut last = None;
        for (listed, &complete) in rest.by_ref().take(SCAN_MAX) {
            let asset = &*listed.0;
            last = Some(asset);
            listing.steps += ENTRY_STEPS;
            if is_meant(asset, &mut listing.steps) {
                listing.entries.push(entries.announced(&listed.0, complete));
            }
            if listing.entries.len() == limit || listing.steps >= STEPS_MAX {
                break;
            }
        }
        if rest.next().is_some() {
            listing.more = last.map(|asset| encode_cursor(&asset.name, &asset.id));
        }
        Ok(listing)
    }

    /// Returns the number of complete entries, and the sum of their lengths in bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let (count, bytes) = (&self.complete, &self.complete_bytes);
        (count.load(Relaxed), bytes.load(Relaxed))
    }

    /// Returns an entry of a content. Looks at every entry.
    pub(crate) fn find(&self, content: &ContentId) -> Option<Announced> {
        let entries = self.lock();
        let mut listed = entries.listed.iter();
        let found = listed.find(|(listed, _)| listed.0.id == *content);
        found.map(|(listed, &complete)| entries.announced(&listed.0, complete))
    }

    /// Returns a number that differs after every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Relaxed)
    }

    /// Counts a change of an entry's completeness; None if there is no entry. Called under the
    /// lock.
    fn count(&self, asset: &Asset, before: Option<bool>, after: Option<bool>) {
        let bytes = asset.info.length;
        self.revision.fetch_add(1, Relaxed);
        match (before == Some(true), after == Some(true)) {
            (false, true) => {
                self.complete.fetch_add(1, Relaxed);
                self.complete_bytes.fetch_add(bytes, Relaxed);
            }
            (true, false) => {
                self.complete.fetch_sub(1, Relaxed);
                self.complete_bytes.fetch_sub(bytes, Relaxed);
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announced {
    /// Returns whether this is a file or a collection.
    pub(crate) fn kind(&self) -> EntryKind {
        match self.asset.is_collection {
            true => EntryKind::Collection,
            false => EntryKind::File,
        }
    }

    /// Returns what this node states about the file. Of an unfinished download it states nothing.
    pub(crate) fn metadata(&self) -> FileMetadata {
        let attributes = &self.asset.attributes;
        FileMetadata {
            modified_ns: attributes.modified_ns,
            executable: attributes.executable,
            sha256: self.sha256,
            ..FileMetadata::default()
        }
    }

    /// Returns the entry in the form that is sent to trackers.
    pub(crate) fn to_entry(&self) -> Entry {
        Entry {
            name: self.asset.name.clone(),
            kind: self.kind(),
            info: self.asset.info,
            complete: self.complete,
            flags: 0,
            metadata: self.metadata().encode(),
        }
    }
}

/// Returns the key that is sent to trackers when an asset was removed.
pub(crate) fn key_of(asset: &Asset) -> EntryKey {
    EntryKey {
        name: asset.name.clone(),
        content: asset.id,
    }
}

impl Listed {
    /// A position in the order, whether or not there is an entry.
    fn place(name: AssetName, id: ContentId) -> Listed {
        let (length, root) = (0, Hash([0; 32]));
        let info = ContentInfo { length, root };
        Listed(Arc::new(Asset {
            id,
            ..Asset::new(name, info)
        }))
    }

    fn rank(&self) -> (&AssetName, &ContentId) {
        (&self.0.name, &self.0.id)
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Listed) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Listed {}

impl Ord for Listed {
    fn cmp(&self, other: &Listed) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Listed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Encodes a position in the order of entries, which the asker returns: 32 bytes of content id,
/// then the name.
fn encode_cursor(name: &AssetName, content: &ContentId) -> Vec<u8> {
    [&content.0, name.as_str().as_bytes()].concat()
}

/// Decodes a cursor. For an invalid one the first page is returned again.
fn decode_cursor(bytes: &[u8]) -> Option<(AssetName, ContentId)> {
    let (content, name) = bytes.split_first_chunk::<32>()?;
    let name = AssetName::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((name, ContentId(*content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: NodeId = NodeId([1; 32]);

    fn catalogue(count: usize) -> Catalogue {
        let catalogue = Catalogue::new();
        for number in 0..count {
            let name = AssetName::new(format!("d/{number:05}.txt")).unwrap();
            let root = Hash([number as u8; 32]);
            let info = ContentInfo { length: 1, root };
            catalogue.upsert(Arc::new(Asset::new(name, info)), number % 2 == 0);
        }
        catalogue
    }

    /// All pages of a listing, and how many there were.
    fn all(catalogue: &Catalogue, query: &str, limit: usize) -> (Vec<String>, usize) {
        let query = query.parse().unwrap();
        let (mut names, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let page = catalogue.list(US, &query, after.as_deref(), limit).unwrap();
            pages += 1;
            names.extend(
                page.entries
                    .iter()
                    .map(|entry| entry.asset.name.to_string()),
            );
            match page.more {
                Some(more) => after = Some(more),
                None => return (names, pages),
            }
        }
    }

    #[test]
    fn pages_together_are_everything_once_in_order() {
        let catalogue = catalogue(100);
        for limit in [1, 7, 100, 1000] {
            let (names, _) = all(&catalogue, "**", limit);
            assert_eq!(names.len(), 100);
            assert!(names.is_sorted());
        }
    }

    #[test]
    fn one_page_looks_at_a_bounded_number_of_entries() {
        let catalogue = catalogue(2 * SCAN_MAX + 10);
        let (names, pages) = all(&catalogue, "nothing/*", 10);
        assert_eq!((names.len(), pages), (0, 3));
    }

    #[test]
    fn a_glob_that_costs_much_for_each_name_ends_a_page_early() {
        let catalogue = Catalogue::new();
        for number in 0..500 {
            let component = "a".repeat(240);
            let name = format!("{number:03}/{component}/{component}/{component}");
            let name = AssetName::new(name).unwrap();
            let root = Hash([number as u8; 32]);
            let info = ContentInfo { length: 1, root };
            catalogue.upsert(Arc::new(Asset::new(name, info)), true);
        }
        let query = Query::Name(format!("**/*a{}z*", "?".repeat(229)));
        let (mut pages, mut after) = (0, None);
        loop {
            let page = catalogue.list(US, &query, after.as_deref(), 10).unwrap();
            assert!(page.entries.is_empty() && page.steps <= STEPS_MAX + 10_000);
            pages += 1;
            match page.more {
                Some(more) => after = Some(more),
                None => break,
            }
        }
        assert!(pages > 1);
    }

    #[test]
    fn names_globs_ids_and_prefixes_are_told_apart() {
        let catalogue = catalogue(20);
        let info = ContentInfo {
            length: 1,
            root: Hash([3; 32]),
        };
        let id = info.id().to_string();
        for query in [
            "d/00003.txt",
            "*/00003.*",
            &id,
            &format!("id:{}", &id[..20]),
        ] {
            assert_eq!(all(&catalogue, query, 10).0, ["d/00003.txt"], "{query}");
        }
        assert_eq!(all(&catalogue, &format!("{US}/d/00003.txt"), 10).0.len(), 1);
        let other = NodeId([2; 32]);
        assert_eq!(
            all(&catalogue, &format!("{other}/d/00003.txt"), 10).0.len(),
            0
        );
        assert_eq!(all(&catalogue, "*", 10).0.len(), 0);
    }

    #[test]
    fn a_changed_time_is_announced_again() {
        let catalogue = catalogue(1);
        let (entries, mut deltas) = catalogue.subscribe();
        let asset = entries[0].asset.clone();
        catalogue.upsert(asset.clone(), true);
        assert!(deltas.try_recv().is_err());
        let touched = Asset {
            attributes: qshare_storage::FileAttributes {
                modified_ns: Some(7),
                executable: true,
            },
            ..(*asset).clone()
        };
        catalogue.upsert(Arc::new(touched), true);
        let Ok(Delta::Upsert(announced)) = deltas.try_recv() else {
            panic!("nothing was announced");
        };
        assert_eq!(announced.metadata().modified_ns, Some(7));
        let told = FileMetadata::decode(&catalogue.subscribe().0[0].to_entry().metadata).unwrap();
        assert_eq!((told.modified_ns, told.executable), (Some(7), true));
    }

    #[test]
    fn a_digest_is_announced_and_found_for_as_long_as_its_file_is_listed() {
        let catalogue = catalogue(3);
        let (entries, mut deltas) = catalogue.subscribe();
        let (asset, partial) = (entries[0].asset.clone(), entries[1].asset.clone());
        let digest = Hash([9; 32]);
        catalogue.state_digest(&asset, digest);
        let Ok(Delta::Upsert(announced)) = deltas.try_recv() else {
            panic!("nothing was announced");
        };
        assert_eq!(announced.metadata().sha256, Some(digest));
        let query = format!("sha256:{digest}");
        assert_eq!(all(&catalogue, &query, 10).0, ["d/00000.txt"]);
        // An unfinished download states nothing.
        catalogue.state_digest(&partial, Hash([8; 32]));
        assert!(deltas.try_recv().is_err());
        catalogue.remove(asset.clone());
        assert!(all(&catalogue, &query, 10).0.is_empty());
        assert!(matches!(deltas.try_recv(), Ok(Delta::Remove(_))));
        // The digest is known when the file is back.
        catalogue.upsert(asset.clone(), true);
        let Ok(Delta::Upsert(announced)) = deltas.try_recv() else {
            panic!("nothing was announced");
        };
        assert_eq!(announced.metadata().sha256, Some(digest));
        // A touched file keeps it.
        let touched = Asset {
            attributes: qshare_storage::FileAttributes {
                modified_ns: Some(7),
                executable: false,
            },
            ..(*asset).clone()
        };
        catalogue.upsert(Arc::new(touched), true);
        assert_eq!(all(&catalogue, &query, 10).0, ["d/00000.txt"]);
    }

    #[test]
    fn an_invalid_cursor_is_none() {
        assert_eq!(decode_cursor(&[1; 31]), None);
        assert_eq!(decode_cursor(&[255; 40]), None);
        let (name, content) = (AssetName::new("a/b").unwrap(), ContentId([3; 32]));
        let cursor = encode_cursor(&name, &content);
        assert_eq!(decode_cursor(&cursor), Some((name, content)));
    }
}
