//! Notices that a file was replaced at its source while it was downloaded: the name means another
//! content by now.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use qshare_node::{Download, FileAttributes, FoundFile, Node};
use tokio::task::JoinSet;

use super::Item;

/// Interval of lookups for one download.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Deadline of one lookup.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Limit on the lookups under way: thousands of files may lose their sources at once.
const LOOKS_MAX: usize = 4;
/// Limit on the files of one lookup, which asks for one name.
const FOUND_MAX: usize = 64;

impl Item {
    /// Returns the item of a newer version; None if only this version is wanted.
    pub(super) fn renewed(&self, found: FoundFile) -> Option<Item> {
        let follow = self.follow.as_ref()?;
        Some(Item {
            info: found.info,
            attributes: FileAttributes {
                modified_ns: found.metadata.modified_ns.filter(|_| follow.keeps_times),
                executable: found.metadata.executable && follow.keeps_exec,
            },
            follow: Some(follow.renewed(&found.holders)),
            holders: found.holders,
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
        let Some(follow) = &item.follow else { return };
        let now = Instant::now();
        let is_due = |at: &Instant| now.saturating_duration_since(*at) >= LOOK_EVERY;
        if self.looks.len() >= LOOKS_MAX
            || !self.looked_at.get(&key).is_none_or(is_due)
            || download.progress().trouble.is_none()
        {
            return;
        }
        self.looked_at.insert(key, now);
        let (node, follow) = (self.node.clone(), follow.clone());
        let content = item.info.id();
        self.looks.spawn(async move {
            let found = node.find(&follow.query(), FOUND_MAX, LOOK_MAX).await;
            let files = found.map_or_else(|_| Vec::new(), |found| found.files);
            (key, follow.newer(&content, files))
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
