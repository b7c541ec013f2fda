//! What is offered, by path and by content. Pure: it is told what was found, and tells what that
//! changes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qshare_content::{AssetName, ContentId, ContentInfo};

use crate::event::{Asset, LibraryEvent};
use crate::stamp::Stamp;

/// A path beneath one of the roots. Sorted so that what is beneath a directory follows it, and
/// namesakes under several roots stand together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The path relative to the root; empty for the root itself.
    pub(crate) relative: PathBuf,
    /// Which root.
    pub(crate) root: u32,
}

/// A file that is offered.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) asset: Asset,
    /// What the file looked like when it was hashed.
    pub(crate) stamp: Stamp,
}

/// What is offered.
#[derive(Default)]
pub(crate) struct Shelf {
    by_key: BTreeMap<Arc<Key>, Offered>,
    /// Sorted: thousands of files may be equal (empty ones, say).
    keys_by_content: HashMap<ContentId, Vec<Arc<Key>>>,
}

impl Shelf {
    /// Offers a file, in place of what was under its path before.
    pub(crate) fn insert(
        &mut self,
        key: &Arc<Key>,
        name: AssetName,
        stamp: Stamp,
        info: ContentInfo,
    ) -> Vec<LibraryEvent> {
        let id = info.id();
        if let Some(same) = self.by_key.get_mut(key)
            && same.asset.id == id
        {
            same.stamp = stamp;
            return Vec::new();
        }
        let mut events: Vec<_> = self.remove(key).into_iter().collect();
        let asset = Asset { name, id, info };
        if self.first_namesake(&id, key).is_none() {
            events.push(LibraryEvent::Added(asset.clone()));
        }
        self.by_key.insert(key.clone(), Offered { asset, stamp });
        let keys = self.keys_by_content.entry(id).or_default();
        let at = keys.partition_point(|other| other < key);
        keys.insert(at, key.clone());
        events
    }

    /// Offers a file no more.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<LibraryEvent> {
        let (_, offered) = self.by_key.remove_entry(key)?;
        let asset = offered.asset;
        if let Some(keys) = self.keys_by_content.get_mut(&asset.id) {
            if let Ok(at) = keys.binary_search_by(|other| (**other).cmp(key)) {
                keys.remove(at);
            }
            if keys.is_empty() {
                self.keys_by_content.remove(&asset.id);
            }
        }
        // The same name may be under another root.
        self.first_namesake(&asset.id, key)
            .is_none()
            .then_some(LibraryEvent::Removed(asset))
    }

    /// What is offered under a path.
    pub(crate) fn get(&self, key: &Key) -> Option<&Offered> {
        self.by_key.get(key)
    }

    /// The paths that are a directory or beneath it.
    pub(crate) fn beneath(&self, directory: &Key) -> Vec<Arc<Key>> {
        let first = Key::new(0, &directory.relative);
        self.by_key
            .range::<Key, _>(first..)
            .map(|(key, _)| key)
            .take_while(|key| key.relative.starts_with(&directory.relative))
            .filter(|key| key.root == directory.root)
            .cloned()
            .collect()
    }

    /// The files that hold a content.
    pub(crate) fn holders(&self, id: &ContentId) -> Vec<(Arc<Key>, Offered)> {
        self.keys(id)
            .iter()
            .filter_map(|key| Some((key.clone(), self.by_key.get(key)?.clone())))
            .collect()
    }

    /// The content under one of its names.
    pub(crate) fn find(&self, id: &ContentId) -> Option<&Asset> {
        let key = self.keys(id).first()?;
        self.by_key.get(key).map(|offered| &offered.asset)
    }

    /// Every (name, content) once.
    pub(crate) fn assets(&self) -> Vec<Asset> {
        self.by_key
            .iter()
            .filter(|(key, offered)| self.first_namesake(&offered.asset.id, key) == Some(key))
            .map(|(_, offered)| offered.asset.clone())
            .collect()
    }

    /// Number of files, and the sum of their lengths.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let bytes = self.by_key.values().map(|offered| offered.stamp.size).sum();
        (self.by_key.len() as u64, bytes)
    }

    /// The stamps of all files.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = &Stamp> {
        self.by_key.values().map(|offered| &offered.stamp)
    }

    fn keys(&self, id: &ContentId) -> &[Arc<Key>] {
        self.keys_by_content.get(id).map_or(&[], Vec::as_slice)
    }

    /// The first path with this content under the same name, in any root.
    fn first_namesake(&self, id: &ContentId, key: &Key) -> Option<&Arc<Key>> {
        let keys = self.keys(id);
        let at =
            keys.partition_point(|other| compare_paths(&other.relative, &key.relative).is_lt());
        keys.get(at).filter(|other| other.relative == key.relative)
    }
}

/// Orders paths by their components, as `Path` does, but from their bytes: a look at 100,000
/// files compares some millions of them.
fn compare_paths(one: &Path, other: &Path) -> Ordering {
    let one = one.as_os_str().as_encoded_bytes();
    let other = other.as_os_str().as_encoded_bytes();
    let rank = |&byte: &u8| (!std::path::is_separator(char::from(byte)), byte);
    match one.iter().zip(other).position(|(a, b)| a != b) {
        Some(at) => one.get(at).map(rank).cmp(&other.get(at).map(rank)),
        None => one.len().cmp(&other.len()),
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        compare_paths(&self.relative, &other.relative).then(self.root.cmp(&other.root))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Key {
    /// A path beneath a root.
    pub(crate) fn new(root: u32, relative: &Path) -> Key {
        Key {
            root,
            relative: relative.to_path_buf(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qshare_content::Hash;

    fn key(root: u32, path: &str) -> Arc<Key> {
        Arc::new(Key::new(root, Path::new(path)))
    }

    fn info(seed: u8) -> ContentInfo {
        ContentInfo {
            length: 1,
            root: Hash([seed; 32]),
        }
    }

    const STAMP: Stamp = Stamp {
        device: 0,
        inode: 0,
        size: 1,
        mtime_ns: 0,
        ctime_ns: 0,
    };

    fn put(shelf: &mut Shelf, key: &Arc<Key>, seed: u8) -> Vec<LibraryEvent> {
        let name = AssetName::new(key.relative.to_str().unwrap()).unwrap();
        shelf.insert(key, name, STAMP, info(seed))
    }

    #[test]
    fn one_content_at_several_paths_goes_only_with_the_last() {
        let mut shelf = Shelf::default();
        let (one, other_root, two) = (key(0, "a"), key(1, "a"), key(0, "b"));
        assert_eq!(put(&mut shelf, &one, 1).len(), 1);
        assert_eq!(put(&mut shelf, &other_root, 1).len(), 0);
        assert_eq!(put(&mut shelf, &two, 1).len(), 1);
        assert_eq!(shelf.assets().len(), 2);
        assert_eq!(shelf.remove(&one), None);
        assert!(matches!(
            shelf.remove(&other_root),
            Some(LibraryEvent::Removed(_))
        ));
        assert_eq!(shelf.find(&info(1).id()).unwrap().name.as_str(), "b");
        assert!(shelf.remove(&two).is_some());
        assert_eq!(shelf.find(&info(1).id()), None);
        assert_eq!(shelf.totals(), (0, 0));
    }

    #[test]
    fn different_contents_of_one_name_are_both_offered() {
        let mut shelf = Shelf::default();
        put(&mut shelf, &key(0, "a"), 1);
        put(&mut shelf, &key(1, "a"), 2);
        assert_eq!(shelf.assets().len(), 2);
    }

    #[test]
    fn a_replaced_file_is_removed_and_added() {
        let mut shelf = Shelf::default();
        put(&mut shelf, &key(0, "a"), 1);
        let events = put(&mut shelf, &key(0, "a"), 2);
        assert!(matches!(
            events[..],
            [LibraryEvent::Removed(_), LibraryEvent::Added(_)]
        ));
    }

    #[test]
    fn what_is_beneath_a_directory_does_not_include_its_namesakes() {
        let mut shelf = Shelf::default();
        for path in ["a", "a.txt", "d/x", "d/y/z", "d-", "d0/x", "e"] {
            put(&mut shelf, &key(0, path), 1);
        }
        put(&mut shelf, &key(1, "d/x"), 1);
        let found = shelf.beneath(&key(0, "d"));
        assert_eq!(found, [key(0, "d/x"), key(0, "d/y/z")]);
        assert_eq!(shelf.beneath(&key(0, "")).len(), 7);
    }
}
