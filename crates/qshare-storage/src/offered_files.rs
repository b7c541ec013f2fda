//! What is offered, by path and by content. Pure: it is told what was found, and tells what that
//! changes.
//!
//! A library may hold a million files, so each is one allocation, to which both orders point.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use qshare_content::{AssetName, ContentId, ContentInfo};

use crate::event::{Asset, LibraryEvent};
use crate::stamp::Stamp;

/// A path beneath one of the roots. Sorted so that what is beneath a directory follows it, and
/// namesakes under several roots stand together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The path relative to the root; empty for the root itself.
    pub(crate) relative: Box<Path>,
    /// Which root.
    pub(crate) root: u32,
}

/// A file that is offered. Ordered by its key.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) key: Key,
    pub(crate) asset: Arc<Asset>,
    /// What the file looked like when it was hashed.
    pub(crate) stamp: Stamp,
}

/// What is offered.
#[derive(Default)]
pub(crate) struct OfferedFiles {
    by_key: BTreeSet<Arc<Offered>>,
    by_content: HashSet<Holders>,
}

/// The files of one content, by their keys: one as a rule, but thousands may be equal (empty
/// ones, say). Found by the content's id.
enum Holders {
    One(Arc<Offered>),
    /// Two or more.
    Many(Vec<Arc<Offered>>),
}

impl OfferedFiles {
    /// Offers a file, in place of what was under its path before.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        name: AssetName,
        stamp: Stamp,
        info: ContentInfo,
    ) -> Vec<LibraryEvent> {
        let mut events = Vec::new();
        let before = self.take(&key);
        let asset = match before {
            Some(before) if before.asset.info == info => before.asset.clone(),
            before => {
                events.extend(before.and_then(|before| self.removal(&before)));
                let asset = Arc::new(Asset::new(name, info));
                if self.first_namesake(&asset.id, &key).is_none() {
                    events.push(LibraryEvent::Added(asset.clone()));
                }
                asset
            }
        };
        let offered = Arc::new(Offered { key, asset, stamp });
        let holders = match self.by_content.take(&offered.asset.id) {
            None => Holders::One(offered.clone()),
            Some(holders) => holders.with(offered.clone()),
        };
        self.by_content.insert(holders);
        self.by_key.insert(offered);
        events
    }

    /// Offers a file no more.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<LibraryEvent> {
        let offered = self.take(key)?;
        self.removal(&offered)
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Offered>> {
        let offered = self.by_key.take(key)?;
        let holders = self.by_content.take(&offered.asset.id);
        let rest = holders.and_then(|holders| holders.without(key));
        self.by_content.extend(rest);
        Some(offered)
    }

    /// What is to be told of a file that was taken out; nothing if the same name is under another
    /// root.
    fn removal(&self, offered: &Offered) -> Option<LibraryEvent> {
        self.first_namesake(&offered.asset.id, &offered.key)
            .is_none()
            .then(|| LibraryEvent::Removed(offered.asset.clone()))
    }

    /// What is offered under a path.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Offered>> {
        self.by_key.get(key)
    }

    /// The files that are a path or beneath it.
    pub(crate) fn beneath(&self, directory: &Key) -> Vec<Arc<Offered>> {
        let first = Key::new(0, &directory.relative);
        self.by_key
            .range::<Key, _>(first..)
            .take_while(|offered| offered.key.relative.starts_with(&directory.relative))
            .filter(|offered| offered.key.root == directory.root)
            .cloned()
            .collect()
    }

    /// The files that hold a content.
    pub(crate) fn holders(&self, id: &ContentId) -> &[Arc<Offered>] {
        self.by_content.get(id).map_or(&[], Holders::as_slice)
    }

    /// The content under one of its names.
    pub(crate) fn find(&self, id: &ContentId) -> Option<&Arc<Asset>> {
        self.holders(id).first().map(|offered| &offered.asset)
    }

    /// Every (name, content) once.
    pub(crate) fn assets(&self) -> Vec<Arc<Asset>> {
        let is_first = |offered: &&Arc<Offered>| {
            let first = self.first_namesake(&offered.asset.id, &offered.key);
            first.is_some_and(|first| first.key == offered.key)
        };
        let firsts = self.by_key.iter().filter(is_first);
        firsts.map(|offered| offered.asset.clone()).collect()
    }

    /// Number of files, and the sum of their lengths.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let bytes = self.by_key.iter().map(|offered| offered.stamp.size).sum();
        (self.by_key.len() as u64, bytes)
    }

    /// The stamps of all files.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = &Stamp> {
        self.by_key.iter().map(|offered| &offered.stamp)
    }

    /// The first file with this content under the same path, in any root.
    fn first_namesake(&self, id: &ContentId, key: &Key) -> Option<&Arc<Offered>> {
        let holders = self.holders(id);
        let at = holders
            .partition_point(|other| compare_paths(&other.key.relative, &key.relative).is_lt());
        let found = holders.get(at);
        found.filter(|other| other.key.relative == key.relative)
    }
}

impl Holders {
    fn as_slice(&self) -> &[Arc<Offered>] {
        match self {
            Holders::One(offered) => std::slice::from_ref(offered),
            Holders::Many(all) => all,
        }
    }

    fn with(self, offered: Arc<Offered>) -> Holders {
        let mut all = match self {
            Holders::One(other) => vec![other],
            Holders::Many(all) => all,
        };
        let at = all.partition_point(|other| other.key < offered.key);
        all.insert(at, offered);
        Holders::Many(all)
    }

    /// All but one of them, which is there.
    fn without(self, key: &Key) -> Option<Holders> {
        let Holders::Many(mut all) = self else {
            return None;
        };
        if let Ok(at) = all.binary_search_by(|other| other.key.cmp(key)) {
            all.remove(at);
        }
        match all.len() {
            1 => all.pop().map(Holders::One),
            _ => Some(Holders::Many(all)),
        }
    }
}

impl Borrow<ContentId> for Holders {
    fn borrow(&self) -> &ContentId {
        match self {
            Holders::One(offered) => &offered.asset.id,
            Holders::Many(all) => &all[0].asset.id,
        }
    }
}

impl PartialEq for Holders {
    fn eq(&self, other: &Holders) -> bool {
        Borrow::<ContentId>::borrow(self) == Borrow::<ContentId>::borrow(other)
    }
}

impl Eq for Holders {}

impl Hash for Holders {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<ContentId>::borrow(self).hash(state);
    }
}

impl Borrow<Key> for Arc<Offered> {
    fn borrow(&self) -> &Key {
        &self.key
    }
}

impl PartialEq for Offered {
    fn eq(&self, other: &Offered) -> bool {
        self.key == other.key
    }
}

impl Eq for Offered {}

impl Ord for Offered {
    fn cmp(&self, other: &Offered) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Offered {
    fn partial_cmp(&self, other: &Offered) -> Option<Ordering> {
        Some(self.cmp(other))
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
            relative: relative.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qshare_content::Hash;

    fn key(root: u32, path: &str) -> Key {
        Key::new(root, Path::new(path))
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

    fn put(offered_files: &mut OfferedFiles, key: &Key, seed: u8) -> Vec<LibraryEvent> {
        let name = AssetName::new(key.relative.to_str().unwrap()).unwrap();
        offered_files.insert(key.clone(), name, STAMP, info(seed))
    }

    #[test]
    fn one_content_at_several_paths_goes_only_with_the_last() {
        let mut offered_files = OfferedFiles::default();
        let (one, other_root, two) = (key(0, "a"), key(1, "a"), key(0, "b"));
        assert_eq!(put(&mut offered_files, &one, 1).len(), 1);
        assert_eq!(put(&mut offered_files, &other_root, 1).len(), 0);
        assert_eq!(put(&mut offered_files, &two, 1).len(), 1);
        assert_eq!(offered_files.assets().len(), 2);
        assert_eq!(offered_files.remove(&one), None);
        assert!(matches!(
            offered_files.remove(&other_root),
            Some(LibraryEvent::Removed(_))
        ));
        assert_eq!(
            offered_files.find(&info(1).id()).unwrap().name.as_str(),
            "b"
        );
        assert!(offered_files.remove(&two).is_some());
        assert_eq!(offered_files.find(&info(1).id()), None);
        assert_eq!(offered_files.totals(), (0, 0));
    }

    #[test]
    fn different_contents_of_one_name_are_both_offered() {
        let mut offered_files = OfferedFiles::default();
        put(&mut offered_files, &key(0, "a"), 1);
        put(&mut offered_files, &key(1, "a"), 2);
        assert_eq!(offered_files.assets().len(), 2);
    }

    #[test]
    fn a_replaced_file_is_removed_and_added() {
        let mut offered_files = OfferedFiles::default();
        put(&mut offered_files, &key(0, "a"), 1);
        let events = put(&mut offered_files, &key(0, "a"), 2);
        assert!(matches!(
            events[..],
            [LibraryEvent::Removed(_), LibraryEvent::Added(_)]
        ));
    }

    #[test]
    fn what_is_beneath_a_directory_does_not_include_its_namesakes() {
        let mut offered_files = OfferedFiles::default();
        for path in ["a", "a.txt", "d/x", "d/y/z", "d-", "d0/x", "e"] {
            put(&mut offered_files, &key(0, path), 1);
        }
        put(&mut offered_files, &key(1, "d/x"), 1);
        let found = offered_files.beneath(&key(0, "d"));
        let found: Vec<_> = found.iter().map(|offered| &offered.key).collect();
        assert_eq!(found, [&key(0, "d/x"), &key(0, "d/y/z")]);
        assert_eq!(offered_files.beneath(&key(0, "")).len(), 7);
    }
}
