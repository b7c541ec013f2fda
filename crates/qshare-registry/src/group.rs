//! One group: its nodes, their entries, and the watches.

use std::collections::BTreeMap;
use std::ops::Bound;

use qshare_content::fair::User;
use qshare_content::{AssetName, ContentId, FileMetadata, NodeId};

use crate::catalog::{Asset, Catalog, Content};
use crate::digests::{DIGEST_BYTES, Digests};
use crate::holders::Presence;
use crate::node::{Entry, Node};
use crate::resources::{ENTRY_WEIGHT_BYTES, NodeRef, Resources};
use crate::slab::{Key, Slab};
use crate::types::{Announced, Contact, EntryKey, Evicted, Holder, HolderChange, Refusal, WatchId};
use crate::watch::{Untold, Watches};

/// The state of one group.
pub(crate) struct Group {
    /// Identifies a group in fewer bytes than its id.
    pub(crate) number: u32,
    pub(crate) catalog: Catalog,
    pub(crate) nodes: Slab<Node>,
    by_id: BTreeMap<NodeId, Key<Node>>,
    pub(crate) watches: Watches,
    pub(crate) digests: Digests,
}

impl Group {
    pub(crate) fn new(number: u32, seed: u64) -> Group {
        Group {
            number,
            catalog: Catalog::new(seed),
            nodes: Slab::default(),
            by_id: BTreeMap::new(),
            watches: Watches::default(),
            digests: Digests::default(),
        }
    }

    /// Returns the node with this id, unless it left.
    pub(crate) fn node(&self, id: NodeId) -> Option<Key<Node>> {
        self.by_id.get(&id).copied()
    }

    /// A node as a user of the registry's resources.
    pub(crate) fn user(&self, key: Key<Node>) -> User<NodeRef> {
        User {
            network: self.nodes[key].network(),
            id: NodeRef {
                group: self.number,
                node: key,
            },
        }
    }

    pub(crate) fn add_node(
        &mut self,
        id: NodeId,
        contact: Contact,
        resources: &mut Resources,
    ) -> Key<Node> {
        let key = self.nodes.insert(Node::new(id, contact));
        self.by_id.insert(id, key);
        resources.nodes.add(self.user(key), 1);
        key
    }

    /// Handles a node that left: it is no longer found by its id, is not offered, and gets no
    /// reports. Its entries remain for now.
    pub(crate) fn detach(&mut self, key: Key<Node>, resources: &mut Resources) {
        self.close_watches(key);
        let user = self.user(key);
        resources.nodes.forget(user);
        resources.memory.forget(user);
        let node = &mut self.nodes[key];
        node.is_gone = true;
        self.by_id.remove(&node.id);
    }

    /// Removes up to `max` entries of a node that left, and the node after the last one. Returns
    /// how many entries there were.
    pub(crate) fn remove_some(
        &mut self,
        key: Key<Node>,
        max: usize,
        resources: &mut Resources,
    ) -> usize {
        let mut removed = 0;
        while removed < max
            && let Some((&asset, _)) = self.nodes[key].entries.last_key_value()
        {
            self.withdraw_asset(key, asset, resources);
            removed += 1;
        }
        if self.nodes[key].entries.is_empty() {
            self.nodes.remove(key);
        }
        removed
    }

    pub(crate) fn open_watch(&mut self, id: WatchId, watcher: Key<Node>, content: ContentId) {
        self.nodes[watcher].watches.push(id);
        self.watches.open(id, watcher, content);
        self.update_is_watched(content);
    }

    pub(crate) fn close_watch(&mut self, id: WatchId) {
        if let Some((watcher, content)) = self.watches.close(id) {
            self.nodes[watcher].watches.retain(|&other| other != id);
            self.update_is_watched(content);
        }
    }

    pub(crate) fn close_watches(&mut self, key: Key<Node>) {
        for watch in std::mem::take(&mut self.nodes[key].watches) {
            if let Some((_, content)) = self.watches.close(watch) {
                self.update_is_watched(content);
            }
        }
    }

    fn update_is_watched(&mut self, content: ContentId) {
        if let Some(held) = self.catalog.content(content) {
            self.catalog.contents[held].is_watched = self.watches.is_watched(content);
        }
    }

    /// Changes the addresses of a node. Returns whether they differ and watchers may need a report
    /// ([`Group::tell_moved`]).
    pub(crate) fn set_contact(
        &mut self,
        key: Key<Node>,
        contact: Contact,
        resources: &mut Resources,
    ) -> bool {
        if self.nodes[key].contact == contact {
            return false;
        }
        let before = self.user(key);
        self.nodes[key].contact = contact;
        let after = self.user(key);
        if before.network != after.network {
            resources.nodes.forget(before);
            resources.nodes.add(after, 1);
            resources.memory.forget(before);
            self.count_memory(key, resources);
        }
        !self.watches.is_empty()
    }

    /// Reports the new addresses to watchers of up to `max` of a node's entries after `after`.
    /// Returns the last of these entries, or None at the end.
    pub(crate) fn tell_moved(
        &mut self,
        key: Key<Node>,
        after: Option<Key<Asset>>,
        max: usize,
        resources: &mut Resources,
    ) -> Option<Key<Asset>> {
        let node = self.nodes.get(key).filter(|node| !node.is_gone)?;
        let mut last = None;
        let entries = node.entries.range((from(after), Bound::Unbounded));
        for (&asset, _) in entries.take(max) {
            last = Some(asset);
            let held = self.catalog.assets[asset].content;
            let content = &self.catalog.contents[held];
            if content.is_watched {
                let untold = Untold {
                    before: content.holders.presence(key),
                    moved: true,
                };
                let (id, holders) = (content.info.id(), content.holders.len());
                self.watches
                    .note(id, key, node.id, untold, holders, resources);
            }
        }
        last
    }

    pub(crate) fn begin_announcement(&mut self, key: Key<Node>) {
        let node = &mut self.nodes[key];
        node.round = node.round.wrapping_add(1);
        node.announcing = true;
    }

    /// Ends a full announcement. Returns its round, and the number of entries that were not part of
    /// it and must be removed with [`Group::sweep`]. Returns None if no announcement had begun.
    pub(crate) fn end_announcement(&mut self, key: Key<Node>) -> Option<(u16, usize)> {
        let node = &mut self.nodes[key];
        if !std::mem::take(&mut node.announcing) {
            return None;
        }
        let round = node.round;
        let entries = node.entries.values();
        Some((round, entries.filter(|entry| entry.round != round).count()))
    }

    /// Removes, of up to `max` entries after `after`, those that were last announced before
    /// `round`. Returns the last entry that was checked, or None at the end.
    pub(crate) fn sweep(
        &mut self,
        key: Key<Node>,
        round: u16,
        after: Option<Key<Asset>>,
        max: usize,
        resources: &mut Resources,
    ) -> Option<Key<Asset>> {
        let node = self.nodes.get(key).filter(|node| !node.is_gone)?;
        // Rounds since the one that ended; an entry of one of these is not stale.
        let since = node.round.wrapping_sub(round);
        let mut last = None;
        let mut stale = Vec::new();
        let entries = node.entries.range((from(after), Bound::Unbounded));
        for (&asset, entry) in entries.take(max) {
            last = Some(asset);
            if node.round.wrapping_sub(entry.round) > since {
                stale.push(asset);
            }
        }
        for asset in stale {
            self.withdraw_asset(key, asset, resources);
        }
        self.count_memory(key, resources);
        last
    }

    /// Starts a new session: an announcement that the previous session left open is void.
    pub(crate) fn abandon_announcement(&mut self, key: Key<Node>) {
        self.nodes[key].announcing = false;
    }

    /// Adds or changes one entry of a node. The caller calls [`Group::count_memory`] after a batch.
    pub(crate) fn announce(
        &mut self,
        key: Key<Node>,
        announced: &Announced,
        resources: &mut Resources,
    ) -> Result<(), Refusal> {
        let Announced {
            name,
            info,
            is_collection,
            complete,
            metadata,
        } = announced;
        let id = info.id();
        let known_content = self.catalog.content(id);
        let known = known_content.and_then(|content| self.catalog.asset(name.as_str(), content));
        let node = &mut self.nodes[key];
        let round = node.round;
        if let Some(asset) = known
            && let Some(entry) = node.entries.get_mut(&asset)
        {
            entry.round = round;
            let was_complete = std::mem::replace(&mut entry.complete, *complete);
            if was_complete != *complete {
                let held = self.catalog.assets[asset].content;
                let holders = &mut self.catalog.contents[held].holders;
                // Added before the other entry is removed, so that the node stays a holder
                // throughout.
                let (before, _) = holders.add(key, *complete);
                let (_, after) = holders.remove(key, was_complete);
                self.note(held, key, before, after, resources);
            }
            self.state(key, asset, metadata, resources);
            return Ok(());
        }
        let name_bytes = match known {
            Some(_) => 0,
            None => name.as_str().len(),
        };
        resources.admit(node.entries.len(), name_bytes)?;
        node.weight += weight_of(name);
        let asset = match known {
            Some(asset) => {
                self.catalog.share(asset);
                asset
            }
            None => {
                let asset = self.catalog.add(name, *info, id, known_content);
                self.catalog.set_collection(asset, *is_collection);
                asset
            }
        };
        let entry = Entry {
            round,
            complete: *complete,
        };
        self.nodes[key].entries.insert(asset, entry);
        let held = self.catalog.assets[asset].content;
        if known_content.is_none() && self.watches.is_watched(id) {
            self.catalog.contents[held].is_watched = true;
        }
        let (before, after) = self.catalog.contents[held].holders.add(key, *complete);
        self.note(held, key, before, after, resources);
        self.state(key, asset, metadata, resources);
        Ok(())
    }

    /// Records what a node states about one of its entries. A digest for which there is no room is
    /// left out.
    fn state(
        &mut self,
        key: Key<Node>,
        asset: Key<Asset>,
        metadata: &FileMetadata,
        resources: &mut Resources,
    ) {
        let node = &mut self.nodes[key];
        node.set_times(asset, metadata);
        if node.digests.get(&asset).copied() == metadata.sha256 {
            return;
        }
        self.forget_digest(key, asset, resources);
        if let Some(digest) = metadata.sha256
            && resources.admit_bytes(DIGEST_BYTES)
        {
            let node = &mut self.nodes[key];
            node.weight += DIGEST_BYTES as u64;
            node.digests.insert(asset, digest);
            self.digests.add(digest, self.catalog.assets[asset].content);
        }
    }

    fn forget_digest(&mut self, key: Key<Node>, asset: Key<Asset>, resources: &mut Resources) {
        let node = &mut self.nodes[key];
        if let Some(digest) = node.digests.remove(&asset) {
            node.weight -= DIGEST_BYTES as u64;
            resources.dismiss_bytes(DIGEST_BYTES);
            self.digests
                .remove(digest, self.catalog.assets[asset].content);
        }
    }

    pub(crate) fn withdraw(&mut self, key: Key<Node>, entry: &EntryKey, resources: &mut Resources) {
        let content = self.catalog.content(entry.content);
        let asset = content.and_then(|content| self.catalog.asset(entry.name.as_str(), content));
        if let Some(asset) = asset {
            self.withdraw_asset(key, asset, resources);
        }
    }

    /// Removes one entry of a node to make room, and records it for the node. Returns false if the
    /// node has none.
    pub(crate) fn evict_one(&mut self, key: Key<Node>, resources: &mut Resources) -> bool {
        let node = &mut self.nodes[key];
        let Some((&asset, _)) = node.entries.last_key_value() else {
            return false;
        };
        let evicted = node.evicted.get_or_insert_default();
        evicted.count += 1;
        // A topic has no name to tell.
        let is_listed = !self.catalog.is_topic(self.catalog.assets[asset].content);
        if is_listed && evicted.entries.len() < Evicted::LISTED_MAX {
            evicted.entries.push(EntryKey {
                name: self.catalog.assets[asset].name.clone(),
                content: self.catalog.id_of(asset),
            });
        }
        self.withdraw_asset(key, asset, resources);
        self.count_memory(key, resources);
        resources.evicted += 1;
        true
    }

    /// Updates the memory shares of a node.
    pub(crate) fn count_memory(&self, key: Key<Node>, resources: &mut Resources) {
        let node = &self.nodes[key];
        if !node.is_gone {
            resources.memory.set(self.user(key), node.weight);
        }
    }

    fn withdraw_asset(&mut self, key: Key<Node>, asset: Key<Asset>, resources: &mut Resources) {
        let node = &mut self.nodes[key];
        let Some(entry) = node.entries.remove(&asset) else {
            return;
        };
        node.weight -= weight_of(&self.catalog.assets[asset].name);
        node.set_times(asset, &FileMetadata::default());
        self.forget_digest(key, asset, resources);
        let held = self.catalog.assets[asset].content;
        let holders = &mut self.catalog.contents[held].holders;
        let (before, after) = holders.remove(key, entry.complete);
        self.note(held, key, before, after, resources);
        let name_bytes = self.catalog.release(asset);
        resources.dismiss(name_bytes);
    }

    fn note(
        &mut self,
        held: Key<Content>,
        key: Key<Node>,
        before: Presence,
        after: Presence,
        resources: &mut Resources,
    ) {
        let content = &self.catalog.contents[held];
        if before != after && content.is_watched {
            let untold = Untold {
                before,
                moved: false,
            };
            let (id, holders) = (content.info.id(), content.holders.len());
            let node = self.nodes[key].id;
            self.watches.note(id, key, node, untold, holders, resources);
        }
    }

    /// Returns a random sample of the holders of a content, without `asking`.
    pub(crate) fn sample(
        &mut self,
        content: Key<Content>,
        limit: usize,
        asking: Option<NodeId>,
        resources: &mut Resources,
    ) -> Vec<(Key<Node>, Holder)> {
        let nodes = &self.nodes;
        let eligibility = |key: Key<Node>| {
            let node = &nodes[key];
            node.eligibility().filter(|_| Some(node.id) != asking)
        };
        let limit = limit.min(resources.config.holders_max);
        self.catalog.contents[content]
            .holders
            .sample(
                limit,
                resources.config.holders_per_network,
                &mut resources.rng,
                eligibility,
            )
            .into_iter()
            .map(|(key, presence)| (key, holder(&nodes[key], presence)))
            .collect()
    }

    /// Returns the next change that was not reported to a watcher, in its current state. A holder
    /// that joined and left in between is skipped.
    pub(crate) fn poll_watch(&mut self, id: WatchId) -> Option<HolderChange> {
        while let Some((content, node_id, Untold { before, moved })) = self.watches.next_untold(id)
        {
            let node = self.node(node_id);
            let now = match (node, self.catalog.content(content)) {
                (Some(node), Some(held)) => self.catalog.contents[held].holders.presence(node),
                _ => Presence::Absent,
            };
            let change = match (node, before, now) {
                (_, Presence::Absent, Presence::Absent) => continue,
                (_, _, Presence::Absent) | (None, ..) => HolderChange::Left(node_id),
                (Some(node), Presence::Absent, _) => {
                    HolderChange::Joined(holder(&self.nodes[node], now))
                }
                (Some(_), ..) if before == now && !moved => continue,
                (Some(node), ..) => HolderChange::Changed(holder(&self.nodes[node], now)),
            };
            return Some(change);
        }
        None
    }
}

fn from(after: Option<Key<Asset>>) -> Bound<Key<Asset>> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

pub(crate) fn weight_of(name: &AssetName) -> u64 {
    ENTRY_WEIGHT_BYTES + name.as_str().len() as u64
}

fn holder(node: &Node, presence: Presence) -> Holder {
    Holder {
        node: node.id,
        contact: node.contact.clone(),
        complete: presence == Presence::Complete,
    }
}
