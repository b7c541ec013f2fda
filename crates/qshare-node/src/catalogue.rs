//! What we announce: everything that we share, and every change to it in order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use qshare_content::{
    AssetName, ContentId, ContentInfo, NamePattern, NodeId, Query, QueryParseError, is_glob,
};
use qshare_wire::tracker::{Entry, EntryKey, EntryKind};
use tokio::sync::{broadcast, watch};

/// Changes that a slow tracker connection may lag behind before it announces everything anew.
const DELTAS_KEPT: usize = 4096;

/// Entries that one page of a listing looks at: less than a millisecond of them.
const SCAN_MAX: usize = 4096;

/// One difference to what was announced.
#[derive(Debug, Clone)]
pub(crate) enum Delta {
    Upsert(Arc<Entry>),
    Remove(Arc<EntryKey>),
}

/// Everything that we share, by name and content.
#[derive(Debug)]
pub(crate) struct Catalogue {
    entries: Mutex<BTreeMap<(AssetName, ContentId), Arc<Entry>>>,
    deltas: broadcast::Sender<Delta>,
    /// Whether there was ever anything.
    offers: watch::Sender<bool>,
}

/// A part of what we share, in the order of names.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Where to go on, if there may be more.
    pub(crate) more: Option<Vec<u8>>,
}

impl Catalogue {
    pub(crate) fn new() -> Catalogue {
        Catalogue {
            entries: Mutex::default(),
            deltas: broadcast::Sender::new(DELTAS_KEPT),
            offers: watch::Sender::new(false),
        }
    }

    /// Announces a content under a name, or that it became complete or partial.
    pub(crate) fn upsert(&self, name: AssetName, info: ContentInfo, complete: bool) {
        let mut entries = self.lock();
        let key = (name, info.id());
        if entries
            .get(&key)
            .is_some_and(|entry| entry.complete == complete)
        {
            return;
        }
        let entry = Arc::new(Entry {
            name: key.0.clone(),
            kind: EntryKind::File,
            info,
            complete,
            flags: 0,
            metadata: Vec::new(),
        });
        entries.insert(key, entry.clone());
        // Sent under the lock, so that the order of changes is the order of words. Nobody
        // listening is fine: whoever comes later reads the entries.
        let _ = self.deltas.send(Delta::Upsert(entry));
        self.offers
            .send_if_modified(|any| !std::mem::replace(any, true));
    }

    /// Whether we ever had something to offer, and when that becomes so.
    pub(crate) fn watch_offers(&self) -> watch::Receiver<bool> {
        self.offers.subscribe()
    }

    /// Announces that a content is gone.
    pub(crate) fn remove(&self, name: &AssetName, content: ContentId) {
        let mut entries = self.lock();
        if entries.remove(&(name.clone(), content)).is_some() {
            let key = EntryKey {
                name: name.clone(),
                content,
            };
            let _ = self.deltas.send(Delta::Remove(Arc::new(key)));
        }
    }

    /// Everything there is now, and every change from now on.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Entry>>, broadcast::Receiver<Delta>) {
        let entries = self.lock();
        (entries.values().cloned().collect(), self.deltas.subscribe())
    }

    /// What of it a query means, from where the last page ended. Looks at a bounded number of
    /// entries, so a page may be empty and still have another one after it.
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
            Query::Id(_) | Query::IdPrefix(_) => None,
        };
        let entries = self.lock();
        if let Some(name) = name {
            let first = (name.clone(), ContentId([0; 32]));
            let named = entries
                .range(first..)
                .take_while(|((other, _), _)| *other == name)
                .take(limit)
                .map(|(_, entry)| entry.clone());
            let named: Vec<_> = named.collect();
            // An exact name wins over a glob.
            if !named.is_empty() || pattern.is_none() {
                return Ok(Listing {
                    entries: named,
                    more: None,
                });
            }
        }
        let is_meant = |name: &AssetName, content: &ContentId| match (query, &pattern) {
            (Query::Id(id), _) => content == id,
            (Query::IdPrefix(prefix), _) => content.to_string().starts_with(prefix.digits()),
            (_, Some(pattern)) => pattern.matches(name.as_str()),
            (_, None) => false,
        };
        let start = after.and_then(decode_cursor);
        let start = start.map_or(Bound::Unbounded, Bound::Excluded);
        let mut listing = Listing::default();
        let mut rest = entries.range((start, Bound::Unbounded));
        let mut last = None;
        for (key, entry) in rest.by_ref().take(SCAN_MAX) {
            last = Some(key);
            if is_meant(&key.0, &key.1) {
                listing.entries.push(entry.clone());
                if listing.entries.len() == limit {
                    break;
                }
            }
        }
        if rest.next().is_some() {
            listing.more = last.map(|(name, content)| encode_cursor(name, content));
        }
        Ok(listing)
    }

    /// Number of complete entries and the sum of their lengths in bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let entries = self.lock();
        let complete = entries.values().filter(|entry| entry.complete);
        complete.fold((0, 0), |(count, bytes), entry| {
            (count + 1, bytes + entry.info.length)
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(AssetName, ContentId), Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the order of entries, as a stranger brings it back: 32 bytes of content id, then
/// the name.
fn encode_cursor(name: &AssetName, content: &ContentId) -> Vec<u8> {
    [&content.0, name.as_str().as_bytes()].concat()
}

/// What is not a cursor is none: the first page comes again.
fn decode_cursor(bytes: &[u8]) -> Option<(AssetName, ContentId)> {
    let (content, name) = bytes.split_first_chunk::<32>()?;
    let name = AssetName::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((name, ContentId(*content)))
}

#[cfg(test)]
mod tests {
    use qshare_content::Hash;

    use super::*;

    const US: NodeId = NodeId([1; 32]);

    fn catalogue(count: usize) -> Catalogue {
        let catalogue = Catalogue::new();
        for number in 0..count {
            let name = AssetName::new(format!("d/{number:05}.txt")).unwrap();
            let root = Hash([number as u8; 32]);
            let info = ContentInfo { length: 1, root };
            catalogue.upsert(name, info, number % 2 == 0);
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
            names.extend(page.entries.iter().map(|entry| entry.name.to_string()));
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
    fn one_question_looks_at_a_bounded_number_of_entries() {
        let catalogue = catalogue(2 * SCAN_MAX + 10);
        let (names, pages) = all(&catalogue, "nothing/*", 10);
        assert_eq!((names.len(), pages), (0, 3));
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
    fn a_cursor_that_a_stranger_made_up_is_none() {
        assert_eq!(decode_cursor(&[1; 31]), None);
        assert_eq!(decode_cursor(&[255; 40]), None);
        let (name, content) = (AssetName::new("a/b").unwrap(), ContentId([3; 32]));
        let cursor = encode_cursor(&name, &content);
        assert_eq!(decode_cursor(&cursor), Some((name, content)));
    }
}
