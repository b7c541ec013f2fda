//! A manifest in memory: what is needed to fetch and to serve its members.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

use super::entry::{ManifestEntry, ManifestError, ManifestItem, ManifestTotals};
use super::links::LinkTarget;
use super::reader::ManifestReader;
use crate::{AssetName, ContentId, ContentInfo};

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderFile {
    /// The path relative to the folder.
    pub name: AssetName,
    /// Length and root.
    pub info: ContentInfo,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// A validated manifest. A file takes some 60 bytes and its name.
#[derive(Debug)]
pub struct FolderList {
    /// The names of all files, one after the other.
    names: String,
    files: Vec<Packed>,
    /// The files by the first bytes of their content ids.
    by_id: Vec<(u32, u32)>,
    links: Vec<(AssetName, LinkTarget)>,
    empty_directories: Vec<AssetName>,
    totals: ManifestTotals,
}

#[derive(Debug)]
struct Packed {
    info: ContentInfo,
    /// Where the name ends in `names`; it begins where the last one ends.
    name_end: u32,
    executable: bool,
}

impl FolderList {
    /// Reads and validates a manifest. `own` is the manifest itself.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if the bytes are no valid manifest, or cannot be read.
    pub fn read(
        bytes: impl Read,
        own: impl Into<Option<ContentInfo>>,
    ) -> Result<FolderList, ManifestError> {
        let mut reader = ManifestReader::new(bytes, own)?;
        let mut list = FolderList {
            names: String::new(),
            files: Vec::new(),
            by_id: Vec::new(),
            links: Vec::new(),
            empty_directories: Vec::new(),
            totals: ManifestTotals::default(),
        };
        for entry in reader.by_ref() {
            let ManifestEntry { name, item } = entry?;
            match item {
                ManifestItem::File { info, executable } => {
                    list.names.push_str(name.as_str());
                    let name_end =
                        u32::try_from(list.names.len()).map_err(|_| ManifestError::TooLong)?;
                    // At most MANIFEST_ENTRIES_MAX.
                    let at = list.files.len() as u32;
                    list.by_id.push((head_of(&info.id()), at));
                    list.files.push(Packed {
                        info,
                        name_end,
                        executable,
                    });
                }
                ManifestItem::Symlink(target) => list.links.push((name, target)),
                ManifestItem::EmptyDirectory => list.empty_directories.push(name),
            }
        }
        list.totals = reader.totals();
        list.by_id.sort_unstable();
        Ok(list)
    }

    /// Returns what the manifest amounts to.
    pub fn totals(&self) -> ManifestTotals {
        self.totals
    }

    /// Returns the number of files. They are numbered from 0 in the manifest's order.
    pub fn file_count(&self) -> u32 {
        self.files.len() as u32
    }

    /// Returns a file.
    pub fn file(&self, at: u32) -> Option<FolderFile> {
        let packed = self.files.get(at as usize)?;
        Some(FolderFile {
            // It was a valid name when it was read.
            name: AssetName::new(self.name(at)?).ok()?,
            info: packed.info,
            executable: packed.executable,
        })
    }

    /// Returns the name of a file.
    pub fn name(&self, at: u32) -> Option<&str> {
        let end = self.files.get(at as usize)?.name_end as usize;
        let before = (at as usize).checked_sub(1);
        let start = before.and_then(|before| self.files.get(before));
        let start = start.map_or(0, |before| before.name_end as usize);
        self.names.get(start..end)
    }

    /// Returns length and root of a file.
    pub fn info(&self, at: u32) -> Option<ContentInfo> {
        Some(self.files.get(at as usize)?.info)
    }

    /// Returns all files, in order.
    pub fn files(&self) -> impl Iterator<Item = FolderFile> + '_ {
        (0..self.file_count()).filter_map(|at| self.file(at))
    }

    /// Returns the files of a content. A content may have several names.
    pub fn files_of<'a>(&'a self, content: &'a ContentId) -> impl Iterator<Item = u32> + 'a {
        let head = head_of(content);
        let start = self.by_id.partition_point(|&(other, _)| other < head);
        let candidates = self.by_id.get(start..).unwrap_or_default().iter();
        candidates
            .take_while(move |&&(other, _)| other == head)
            .map(|&(_, at)| at)
            .filter(|&at| self.info(at).is_some_and(|info| info.id() == *content))
    }

    /// Returns a file of a content that is `wanted`. That is asked first: a content may have very
    /// many names.
    pub fn find_file(&self, content: &ContentId, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let head = head_of(content);
        let start = self.by_id.partition_point(|&(other, _)| other < head);
        let candidates = self.by_id.get(start..).unwrap_or_default().iter();
        candidates
            .take_while(|&&(other, _)| other == head)
            .map(|&(_, at)| at)
            .filter(|&at| wanted(at))
            .find(|&at| self.info(at).is_some_and(|info| info.id() == *content))
    }

    /// Returns the symbolic links, in order.
    pub fn links(&self) -> &[(AssetName, LinkTarget)] {
        &self.links
    }

    /// Returns the empty directories, in order.
    pub fn empty_directories(&self) -> &[AssetName] {
        &self.empty_directories
    }

    /// Returns names that a file system which ignores case cannot tell from others, at most `max`.
    pub fn case_collisions(&self, max: usize) -> Vec<String> {
        // Keyed with a random seed, so that nobody can make names collide.
        let hasher = RandomState::new();
        let mut seen = HashSet::new();
        let links = self.links.iter().map(|(name, _)| name.as_str());
        let directories = self.empty_directories.iter().map(AssetName::as_str);
        let files = (0..self.file_count()).filter_map(|at| self.name(at));
        files
            .chain(links)
            .chain(directories)
            .filter(|name| !seen.insert(hasher.hash_one(case_key(name))))
            .take(max)
            .map(str::to_owned)
            .collect()
    }
}

/// Returns the form in which names are equal that differ in case only.
pub fn case_key(name: &str) -> String {
    // By way of upper case, so that letters with several lower-case forms are one.
    name.to_uppercase().to_lowercase()
}

fn head_of(id: &ContentId) -> u32 {
    let [a, b, c, d, ..] = id.0;
    u32::from_be_bytes([a, b, c, d])
}
