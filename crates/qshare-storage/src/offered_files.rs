//! The offered files, by path and by content. Pure: the caller reports the files that it found, and
//! gets the changes to the offer.
//!
//! A library may hold a million files. Each file is one allocation, and both indexes point to it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use qshare_content::{AssetName, ContentId, ContentInfo};

use crate::event::{Asset, LibraryEvent};
use crate::stamp::Stamp;

/// A path beneath one of the roots. The order puts everything beneath a directory right after it,
/// and files of the same name under several roots next to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The path relative to the root; empty for the root itself.
    pub(crate) relative: Box<Path>,
    /// Index of the root.
    pub(crate) root: u32,
}

/// An offered file. Ordered by its key.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) key: Key,
    pub(crate) asset: Arc<Asset>,
    /// The file's stamp when it was hashed.
    pub(crate) stamp: Stamp,
    /// Whether a program was writing to the file when it was hashed, and may still be. The bytes of
    /// such a file are verified on every read.
    pub(crate) snapshot: bool,
}

/// All offered files.
#[derive(Default)]
pub(crate) struct OfferedFiles {
    by_key: BTreeSet<Arc<Offered>>,
    by_content: BTreeMap<ContentId, Holders>,
}

/// The files of one content. Usually one, but thousands of files may be equal (empty files, for
/// example).
enum Holders {
    One(Arc<Offered>),
    /// Two or more files, ordered by name.
    #[expect(clippy::box_collection, reason = "the usual case stays small")]
    Many(Box<BTreeSet<ByName>>),
}

/// A file ordered by its name, then its key. Several paths may have one name: under several
/// roots, or in different Unicode normal forms.
struct ByName(Arc<Offered>);

/// The effect of [`OfferedFiles::insert`].
pub(crate) struct Offer {
    pub(crate) key: Key,
    pub(crate) name: AssetName,
    pub(crate) stamp: Stamp,
    pub(crate) info: ContentInfo,
    pub(crate) snapshot: bool,
}

impl OfferedFiles {
    /// Offers a file. Replaces the file that was offered under its path.
    pub(crate) fn insert(&mut self, offer: Offer) -> Vec<LibraryEvent> {
        let Offer {
            key,
            name,
            stamp,
            info,
            snapshot,
        } = offer;
        let mut events = Vec::new();
        let before = self.take(&key);
        let asset = match before {
            Some(before)
                if before.asset.info == info && before.stamp.attributes() == stamp.attributes() =>
            {
                before.asset.clone()
            }
            before => {
                events.extend(before.and_then(|before| self.removal(&before)));
                let asset = Arc::new(Asset {
                    attributes: stamp.attributes(),
                    ..Asset::new(name, info)
                });
                if !self.has_namesake(&asset) {
                    events.push(LibraryEvent::Added(asset.clone()));
                }
                asset
            }
        };
        let offered = Arc::new(Offered {
            key,
            asset,
            stamp,
            snapshot,
        });
        let id = offered.asset.id;
        let holders = match self.by_content.remove(&id) {
            None => Holders::One(offered.clone()),
            Some(holders) => holders.with(offered.clone()),
        };
        self.by_content.insert(id, holders);
        self.by_key.insert(offered);
        events
    }

    /// Stops offering a file.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<LibraryEvent> {
        let offered = self.take(key)?;
        self.removal(&offered)
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Offered>> {
        let offered = self.by_key.take(key)?;
        let holders = self.by_content.remove(&offered.asset.id);
        if let Some(rest) = holders.and_then(|holders| holders.without(&offered)) {
            self.by_content.insert(offered.asset.id, rest);
        }
        Some(offered)
    }

    /// Returns the event for a file that was removed; None if another path has the same name and
    /// content.
    fn removal(&self, offered: &Offered) -> Option<LibraryEvent> {
        let removed = || LibraryEvent::Removed(offered.asset.clone());
        (!self.has_namesake(&offered.asset)).then(removed)
    }

    /// Returns the file that is offered under a path.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Offered>> {
        self.by_key.get(key)
    }

    /// Returns the file at a path, or the files beneath it.
    pub(crate) fn beneath(&self, directory: &Key) -> Vec<Arc<Offered>> {
        let first = Key::new(0, &directory.relative);
        self.by_key
            .range::<Key, _>(first..)
            .take_while(|offered| offered.key.relative.starts_with(&directory.relative))
            .filter(|offered| offered.key.root == directory.root)
            .cloned()
            .collect()
    }

    /// Returns the entries of a directory that are offered, or have offered files beneath them.
    pub(crate) fn children(&self, directory: &Key) -> Vec<Child> {
        let next = |from: Key| self.by_key.range::<Key, _>(from..).map(|at| &at.key).next();
        children(directory, next)
    }

    /// Returns the first file of a content for which `wanted` is true.
    pub(crate) fn holder(
        &self,
        id: &ContentId,
        wanted: impl Fn(&Offered) -> bool,
    ) -> Option<&Arc<Offered>> {
        self.by_content.get(id)?.iter().find(|held| wanted(held))
    }

    /// Returns the asset of a content, under one of its names.
    pub(crate) fn find(&self, id: &ContentId) -> Option<&Arc<Asset>> {
        self.holder(id, |_| true).map(|offered| &offered.asset)
    }

    /// Returns every (name, content) once.
    pub(crate) fn assets(&self) -> Vec<Arc<Asset>> {
        let is_first = |offered: &&Arc<Offered>| {
            let first = self.first_namesake(&offered.asset);
            first.is_some_and(|first| first.key == offered.key)
        };
        let firsts = self.by_key.iter().filter(is_first);
        firsts.map(|offered| offered.asset.clone()).collect()
    }

    /// Returns the number of files and the sum of their lengths.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let bytes = self.by_key.iter().map(|offered| offered.stamp.size).sum();
        (self.by_key.len() as u64, bytes)
    }

    /// Returns all files.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Offered>> {
        self.by_key.iter()
    }

    /// Returns the first file with this name and content.
    fn first_namesake(&self, asset: &Asset) -> Option<&Arc<Offered>> {
        self.by_content.get(&asset.id)?.first_named(&asset.name)
    }

    fn has_namesake(&self, asset: &Asset) -> bool {
        self.first_namesake(asset).is_some()
    }
}

impl Holders {
    fn iter(&self) -> impl Iterator<Item = &Arc<Offered>> {
        let (one, many) = match self {
            Holders::One(offered) => (Some(offered), None),
            Holders::Many(all) => (None, Some(all)),
        };
        let many = many.into_iter().flat_map(|all| all.iter());
        one.into_iter().chain(many.map(|ByName(offered)| offered))
    }

    fn first_named(&self, name: &AssetName) -> Option<&Arc<Offered>> {
        let found = match self {
            Holders::One(offered) => Some(offered),
            Holders::Many(all) => all.range::<AssetName, _>(name..).next().map(|held| &held.0),
        };
        found.filter(|offered| offered.asset.name == *name)
    }

    fn with(self, offered: Arc<Offered>) -> Holders {
        let mut all = match self {
            Holders::One(other) => Box::new(BTreeSet::from([ByName(other)])),
            Holders::Many(all) => all,
        };
        all.insert(ByName(offered));
        Holders::Many(all)
    }

    /// Returns the holders without `offered`, which must be one of them; None if no file is left.
    fn without(self, offered: &Arc<Offered>) -> Option<Holders> {
        let Holders::Many(mut all) = self else {
            return None;
        };
        all.remove(&ByName(offered.clone()));
        match all.len() {
            1 => all.pop_first().map(|ByName(last)| Holders::One(last)),
            _ => Some(Holders::Many(all)),
        }
    }
}

impl Borrow<AssetName> for ByName {
    fn borrow(&self) -> &AssetName {
        &self.0.asset.name
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &ByName) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByName {}

impl Ord for ByName {
    fn cmp(&self, other: &ByName) -> Ordering {
        let (one, other) = (&self.0, &other.0);
        let names = one.asset.name.cmp(&other.asset.name);
        names.then_with(|| one.key.cmp(&other.key))
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &ByName) -> Option<Ordering> {
        Some(self.cmp(other))
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

/// Orders paths by their components, as `Path` does, but compares their bytes directly: a check of
/// 100,000 files makes some millions of comparisons.
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

    /// Returns the key of an entry of this directory.
    pub(crate) fn child(&self, name: &OsStr) -> Key {
        Key::new(self.root, &self.relative.join(name))
    }

    /// Returns the directory of this entry; None for a root.
    pub(crate) fn parent(&self) -> Option<Key> {
        let parent = self.relative.parent()?;
        Some(Key::new(self.root, parent))
    }

    /// Whether this key is a root.
    pub(crate) fn is_root(&self) -> bool {
        self.relative.as_os_str().is_empty()
    }

    /// Returns a key that sorts after everything beneath this one and before its next neighbour.
    fn after_all_beneath(&self) -> Key {
        let mut after = self.relative.as_os_str().to_os_string();
        // The lowest byte that is not a separator.
        after.push("\0");
        Key::new(0, Path::new(&after))
    }
}

/// An entry of a directory in a sorted set of keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) key: Key,
    /// Whether the set contains the entry itself.
    pub(crate) direct: bool,
    /// Whether the set contains keys beneath the entry, under this root or another.
    pub(crate) deeper: bool,
}

/// Iterates over the entries of a directory in a sorted set of keys, in order. `next` returns the
/// first key of the set at or after another key. Deeper keys are skipped, not visited.
pub(crate) fn children<'a>(directory: &Key, next: impl Fn(Key) -> Option<&'a Key>) -> Vec<Child> {
    let mut children: Vec<Child> = Vec::new();
    let mut from = Key::new(0, &directory.relative);
    while let Some(found) = next(from) {
        let Ok(inner) = found.relative.strip_prefix(&directory.relative) else {
            break;
        };
        let mut components = inner.components();
        let (name, deeper) = (components.next(), components.next().is_some());
        from = Key::new(found.root + 1, &found.relative);
        let Some(name) = name else {
            // The directory itself.
            continue;
        };
        if !deeper && found.root != directory.root {
            continue;
        }
        let key = directory.child(name.as_os_str());
        if deeper {
            from = key.after_all_beneath();
        }
        match children.last_mut() {
            Some(last) if last.key == key => last.deeper |= deeper,
            _ => children.push(Child {
                key,
                direct: !deeper,
                deeper,
            }),
        }
    }
    children
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
        executable: false,
    };

    fn put(offered_files: &mut OfferedFiles, key: &Key, seed: u8) -> Vec<LibraryEvent> {
        let name = AssetName::from_local(key.relative.to_str().unwrap()).unwrap();
        offered_files.insert(Offer {
            key: key.clone(),
            name,
            stamp: STAMP,
            info: info(seed),
            snapshot: false,
        })
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
    fn two_spellings_of_one_name_are_one_entry_with_two_sources() {
        let mut offered_files = OfferedFiles::default();
        let (composed, decomposed) = (key(0, "\u{e9}"), key(0, "e\u{301}"));
        assert_eq!(put(&mut offered_files, &composed, 1).len(), 1);
        assert_eq!(put(&mut offered_files, &decomposed, 1), []);
        assert_eq!(offered_files.assets().len(), 1);
        assert_eq!(offered_files.remove(&composed), None);
        assert_eq!(offered_files.assets().len(), 1);
        assert!(matches!(
            offered_files.remove(&decomposed),
            Some(LibraryEvent::Removed(_))
        ));
    }

    #[test]
    fn a_holder_among_thousands_of_equal_files_is_found_without_copying_them() {
        let mut offered_files = OfferedFiles::default();
        for at in 0..5_000 {
            put(&mut offered_files, &key(0, &format!("d/{at}")), 1);
        }
        let id = info(1).id();
        let first = offered_files.holder(&id, |_| true).unwrap().key.clone();
        let second = offered_files.holder(&id, |held| held.key != first);
        assert_ne!(second.unwrap().key, first);
        for at in 0..4_999 {
            offered_files.remove(&key(0, &format!("d/{at}")));
        }
        let last = offered_files.holder(&id, |_| true).unwrap();
        assert_eq!(last.key, key(0, "d/4999"));
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
        let children = |directory: Key| {
            let children = offered_files.children(&directory).into_iter();
            let children = children.map(|child| (child.key, child.direct, child.deeper));
            children.collect::<Vec<_>>()
        };
        let (file, directory) = (
            |path| (key(0, path), true, false),
            |path| (key(0, path), false, true),
        );
        assert_eq!(children(key(0, "d")), [file("d/x"), directory("d/y")]);
        assert_eq!(
            children(key(0, "")),
            [
                file("a"),
                file("a.txt"),
                directory("d"),
                file("d-"),
                directory("d0"),
                file("e")
            ]
        );
        assert_eq!(children(key(1, "d"))[0].0, key(1, "d/x"));
    }
}
