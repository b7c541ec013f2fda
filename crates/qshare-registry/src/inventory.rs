//! What one node announced, for a caller that keeps a copy elsewhere; and forgetting a node that
//! moved.

use std::ops::Bound;
use std::time::Instant;

use qshare_content::{ContentInfo, FileMetadata, NodeId, Topic};

use crate::catalog::{Asset, topic_info};
use crate::registry::{Registry, topic_name};
use crate::slab::Key;
use crate::types::{Announced, AnnouncedTopic, EntryKey, GroupId};

/// A position in the entries of one node: see [`Registry::entries_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPosition(Key<Asset>);

/// Returns the entry that stands for a topic. No lookup lists it.
pub fn topic_entry(announced: &AnnouncedTopic) -> Announced {
    Announced {
        name: topic_name(),
        info: topic_info(announced.topic),
        is_collection: false,
        complete: announced.complete,
        metadata: FileMetadata::default(),
    }
}

/// Returns the key of the entry that stands for a topic.
pub fn topic_key(topic: Topic) -> EntryKey {
    EntryKey {
        name: topic_name(),
        content: topic_info(topic).id(),
    }
}

/// Whether a content stands for a topic.
pub fn is_topic(info: &ContentInfo) -> bool {
    crate::catalog::is_topic(info)
}

impl Registry {
    /// Returns up to `max` entries of a node, topics included, that follow `after`, and the
    /// position of the last one; None at the end. An entry that is announced during the walk may be
    /// missing.
    pub fn entries_of(
        &self,
        group: GroupId,
        node: NodeId,
        after: Option<EntryPosition>,
        max: usize,
    ) -> (Vec<Announced>, Option<EntryPosition>) {
        let Some((group, key)) = self.groups.get(&group).and_then(|group| {
            let key = group.node(node)?;
            Some((group, key))
        }) else {
            return (Vec::new(), None);
        };
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0));
        let entries = group.nodes[key].entries.range((from, Bound::Unbounded));
        let mut last = None;
        let mut announced = Vec::new();
        for (&asset_key, entry) in entries.take(max) {
            last = Some(EntryPosition(asset_key));
            let asset: &Asset = &group.catalog.assets[asset_key];
            announced.push(Announced {
                name: asset.name.clone(),
                info: group.catalog.contents[asset.content].info,
                is_collection: asset.announcers.is_collection(),
                complete: entry.complete,
                metadata: group.nodes[key].metadata(asset_key),
            });
        }
        (announced, last)
    }

    /// Whether entries of a node that were not part of its last full announcement are still being
    /// removed.
    pub fn is_sweeping(&self, group: GroupId, node: NodeId) -> bool {
        let key = self.groups.get(&group).and_then(|group| group.node(node));
        key.is_some_and(|key| self.chores.iter().any(|chore| chore.sweeps(group, key)))
    }

    /// Forgets a node at once, its session and its lease included: it has a newer session with
    /// another tracker, which knows what it announces now.
    pub fn handle_moved_away(&mut self, now: Instant, group: GroupId, node: NodeId) {
        self.handle_timeout(now);
        let key = self.groups.get(&group).and_then(|group| group.node(node));
        if let Some(key) = key {
            self.remove_node(group, key);
        }
    }
}
