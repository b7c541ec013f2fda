//! Notices that a file was replaced at its source while it was downloaded: the name means another
//! content by now.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use qshare_node::content::{AssetName, Query};
use qshare_node::{Contact, Download, FileAttributes, FoundFile, Node};
use tokio::task::JoinSet;

use super::Item;
use crate::choice;

/// Interval of lookups for one download.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Deadline of one lookup.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Limit on the lookups under way: thousands of files may lose their sources at once.
const LOOKS_MAX: usize = 4;
/// Limit on the files of one lookup, which asks for one name.
const FOUND_MAX: usize = 64;

/// How to look a file up again, of which the user knows the name only.
#[derive(Debug, Clone)]
pub(crate) struct ByName {
    pub(crate) query: Query,
    /// Whether the file gets the modification time that its sources state.
    pub(crate) keeps_times: bool,
    /// Whether the sources decide that the file is executable.
    pub(crate) keeps_exec: bool,
}

impl Item {
    /// Returns the item of a newer version; None if only this version is wanted.
    pub(super) fn renewed(&self, found: FoundFile) -> Option<Item> {
        let by_name = self.by_name.as_ref()?;
        Some(Item {
            info: found.info,
            holders: found.holders,
            attributes: FileAttributes {
                modified_ns: found.metadata.modified_ns.filter(|_| by_name.keeps_times),
                executable: found.metadata.executable && by_name.keeps_exec,
            },
            supersedes: Some(self.info),
            ..self.clone()
        })
    }
}

/// Looks up the names of downloads that have lost their sources.
pub(super) struct Newer {
    node: Node,
    looks: JoinSet<(usize, Option<FoundFile>)>,
    looked_at: HashMap<usize, Instant>,
}

impl Newer {
    pub(super) fn new(node: &Node) -> Newer {
        Newer {
            node: node.clone(),
            looks: JoinSet::new(),
            looked_at: HashMap::new(),
        }
    }

    /// Looks the name of a download up, if its sources are lost and it is time to.
    pub(super) fn look(&mut self, key: usize, item: &Item, download: &Download) {
        let Some(by_name) = &item.by_name else { return };
        let now = Instant::now();
        let is_due = |at: &Instant| now.saturating_duration_since(*at) >= LOOK_EVERY;
        if self.looks.len() >= LOOKS_MAX
            || !self.looked_at.get(&key).is_none_or(is_due)
            || download.progress().trouble.is_none()
        {
            return;
        }
        self.looked_at.insert(key, now);
        let (node, query) = (self.node.clone(), by_name.query.clone());
        let (name, content) = (item.name.clone(), item.info.id());
        let before = item.holders.clone();
        self.looks.spawn(async move {
            let found = node.find(&query, FOUND_MAX, LOOK_MAX).await;
            let files = found.map_or_else(|_| Vec::new(), |found| found.files);
            let newer = version_of(&query, &name, files, &before);
            (key, newer.filter(|file| file.content != content))
        });
    }

    /// Waits for the next newer version. Returns None if no lookup is under way.
    pub(super) async fn found(&mut self) -> Option<(usize, FoundFile)> {
        while let Some(looked) = self.looks.join_next().await {
            if let Ok((key, Some(found))) = looked {
                return Some((key, found));
            }
        }
        None
    }
}

/// Returns the file that a name means, if one of the nodes that had its earlier version offers it.
/// Another node that uses the name does not decide what is downloaded.
fn version_of(
    query: &Query,
    name: &AssetName,
    mut files: Vec<FoundFile>,
    before: &[Contact],
) -> Option<FoundFile> {
    files.retain(|file| file.name == *name && !file.is_collection);
    let chosen = choice::choose(query, files).files;
    let [file] = <[FoundFile; 1]>::try_from(chosen).ok()?;
    let had_it = |holder: &Contact| before.iter().any(|earlier| earlier.node == holder.node);
    (file.complete > 0 && file.holders.iter().any(had_it)).then_some(file)
}

#[cfg(test)]
mod tests {
    use qshare_node::content::{ContentInfo, FileMetadata, Hash, NodeId};

    use super::*;

    fn contact(byte: u8) -> Contact {
        Contact {
            node: NodeId([byte; 32]),
            addresses: Vec::new(),
            complete: true,
        }
    }

    fn file(byte: u8, complete: u32, holder: u8) -> FoundFile {
        let info = ContentInfo {
            length: 5,
            root: Hash([byte; 32]),
        };
        FoundFile {
            name: AssetName::new("x").unwrap(),
            content: info.id(),
            info,
            is_collection: false,
            complete,
            partial: 0,
            metadata: FileMetadata::default(),
            holders: vec![contact(holder)],
        }
    }

    #[test]
    fn only_a_node_that_had_the_file_offers_its_newer_version() {
        let query: Query = "x".parse().unwrap();
        let name = AssetName::new("x").unwrap();
        let before = [contact(1), contact(2)];
        let version = |files: &[FoundFile]| version_of(&query, &name, files.to_vec(), &before);
        let newer = file(7, 1, 1);
        let old_partial = file(8, 0, 2);
        assert_eq!(version(&[newer.clone(), old_partial]), Some(newer.clone()));
        assert_eq!(version(&[file(7, 0, 1)]), None);
        assert_eq!(version(&[file(7, 1, 9)]), None);
        assert_eq!(version(&[newer, file(9, 1, 9)]), None);
        let other_name = FoundFile {
            name: AssetName::new("y").unwrap(),
            ..file(7, 1, 1)
        };
        assert_eq!(version(&[other_name]), None);
    }
}
