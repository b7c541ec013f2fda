//! The directories whose changes are followed: each is watched, polled or both.
//!
//! Pure bookkeeping. [`crate::scanner`] enters a directory here before it reads the directory, so
//! that every directory whose files are offered is listed here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::offered_files::{Key, children};
use crate::stamp::DirectoryStamp;
use crate::watch::WatchId;

/// A followed directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// The directory's stamp at its last read; None if it has not been read, or must be read again.
    pub(crate) read_as: Option<DirectoryStamp>,
    /// Device and inode.
    pub(crate) id: (u64, u64),
    /// The watch; None if the system refused one.
    pub(crate) watch: Option<WatchId>,
    /// Whether the directory is read at intervals. True if it is not watched, or if its file system
    /// does not report changes, because other machines make them.
    pub(crate) polled: bool,
}

/// All followed directories.
#[derive(Default)]
pub(crate) struct Followed {
    by_key: BTreeMap<Key, Directory>,
    /// Directories by identity. There are several keys if one directory is reached under several
    /// paths.
    keys_by_watch: HashMap<WatchId, BTreeSet<Key>>,
    polled: BTreeSet<Key>,
}

impl Followed {
    /// Returns a followed directory.
    pub(crate) fn get(&self, key: &Key) -> Option<&Directory> {
        self.by_key.get(key)
    }

    /// Enters a directory, and replaces its earlier entry. Returns a watch that no directory uses
    /// any more.
    pub(crate) fn insert(&mut self, key: Key, directory: Directory) -> Option<WatchId> {
        let unused = match self.by_key.get(&key).and_then(|before| before.watch) {
            Some(before) if Some(before) != directory.watch => self.detach(&key, before),
            _ => None,
        };
        if let Some(watch) = directory.watch {
            let keys = self.keys_by_watch.entry(watch).or_default();
            keys.insert(key.clone());
        }
        if directory.polled {
            self.polled.insert(key.clone());
        } else {
            self.polled.remove(&key);
        }
        self.by_key.insert(key, directory);
        unused
    }

    /// Records the stamp of a directory at its read.
    pub(crate) fn set_read(&mut self, key: &Key, read_as: Option<DirectoryStamp>) {
        if let Some(directory) = self.by_key.get_mut(key) {
            directory.read_as = read_as;
        }
    }

    /// Removes a directory and everything beneath it. Returns the watches that no directory uses
    /// any more.
    pub(crate) fn remove(&mut self, key: &Key) -> Vec<WatchId> {
        let first = Key::new(0, &key.relative);
        let keys: Vec<Key> = self
            .by_key
            .range(first..)
            .map(|(other, _)| other)
            .take_while(|other| other.relative.starts_with(&key.relative))
            .filter(|other| other.root == key.root)
            .cloned()
            .collect();
        let mut unused = Vec::new();
        for key in keys {
            self.polled.remove(&key);
            let watch = self.by_key.remove(&key).and_then(|gone| gone.watch);
            unused.extend(watch.and_then(|watch| self.detach(&key, watch)));
        }
        unused
    }

    /// Returns the keys of a watched directory.
    pub(crate) fn keys_of(&self, watch: WatchId) -> impl Iterator<Item = &Key> {
        self.keys_by_watch.get(&watch).into_iter().flatten()
    }

    /// Returns the followed directories directly in `parent`.
    pub(crate) fn children(&self, parent: &Key) -> Vec<Key> {
        let next = |from: Key| self.by_key.range(from..).map(|(key, _)| key).next();
        let children = children(parent, next).into_iter();
        children
            .filter_map(|child| child.direct.then_some(child.key))
            .collect()
    }

    /// Returns the directories that are read at intervals, in order.
    pub(crate) fn polled(&self) -> impl Iterator<Item = &Key> {
        self.polled.iter()
    }

    /// Returns all directories, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    /// Returns the device of a root, if it is followed.
    pub(crate) fn root_id(&self, root: u32) -> Option<(u64, u64)> {
        self.by_key
            .get(&Key::new(root, Path::new("")))
            .map(|directory| directory.id)
    }

    /// Removes one key from a watch; returns the watch if no other key is left.
    fn detach(&mut self, key: &Key, watch: WatchId) -> Option<WatchId> {
        let keys = self.keys_by_watch.get_mut(&watch)?;
        keys.remove(key);
        if !keys.is_empty() {
            return None;
        }
        self.keys_by_watch.remove(&watch);
        Some(watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(root: u32, path: &str) -> Key {
        Key::new(root, Path::new(path))
    }

    fn watched(watch: i32) -> Directory {
        Directory {
            read_as: None,
            id: (1, watch as u64),
            watch: Some(WatchId(watch)),
            polled: false,
        }
    }

    fn polled() -> Directory {
        Directory {
            watch: None,
            polled: true,
            ..watched(0)
        }
    }

    #[test]
    fn a_directory_under_two_paths_is_watched_until_both_are_gone() {
        let mut followed = Followed::default();
        followed.insert(key(0, "a"), watched(1));
        followed.insert(key(0, "b"), watched(1));
        followed.insert(key(1, ""), watched(1));
        assert_eq!(followed.keys_of(WatchId(1)).count(), 3);
        assert_eq!(followed.remove(&key(0, "a")), []);
        assert_eq!(followed.insert(key(0, "b"), watched(2)), None);
        assert_eq!(followed.remove(&key(1, "")), [WatchId(1)]);
        assert_eq!(followed.remove(&key(0, "b")), [WatchId(2)]);
        assert_eq!(followed.keys().count(), 0);
    }

    #[test]
    fn what_is_beneath_a_directory_goes_with_it_and_its_neighbours_stay() {
        let mut followed = Followed::default();
        for (at, path) in (0..).zip(["", "d", "d/e", "d/e/f", "d-", "d0", "e"]) {
            followed.insert(key(0, path), watched(at));
        }
        followed.insert(key(1, "d"), polled());
        assert_eq!(
            followed.children(&key(0, "")),
            [key(0, "d"), key(0, "d-"), key(0, "d0"), key(0, "e")]
        );
        assert_eq!(followed.children(&key(0, "d")), [key(0, "d/e")]);
        let unused = followed.remove(&key(0, "d"));
        assert_eq!(unused, [WatchId(1), WatchId(2), WatchId(3)]);
        assert_eq!(followed.children(&key(0, "d")), []);
        assert_eq!(followed.children(&key(0, "")).len(), 3);
        assert_eq!(followed.polled().count(), 1);
    }
}
