//! One group: its nodes, what they announced, and who watches.

use std::collections::BTreeMap;
use std::time::Instant;

use qshare_content::{ContentId, NodeId};

use crate::catalog::{Asset, Catalog, Content, Listed};
use crate::holders::{Network, Presence, Standing};
use crate::registry::{Announced, Contact, Holder, Refusal, SessionId, Shared};
use crate::slab::{Key, Slab};
use crate::watch::{HolderChange, Untold, WatchId, Watches};

/// What a node said about one asset.
#[derive(Clone, Copy)]
struct Entry {
    /// The full announcement that it was last part of.
    round: u16,
    complete: bool,
}

/// A node that has a session, or had one a moment ago.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// `None` while only the lease keeps its entries.
    pub(crate) session: Option<SessionId>,
    pub(crate) lease_until: Option<Instant>,
    pub(crate) watches: Vec<WatchId>,
    contact: Contact,
    network: Option<Network>,
    entries: BTreeMap<Key<Asset>, Entry>,
    round: u16,
    announcing: bool,
}

impl Node {
    fn new(id: NodeId, contact: Contact) -> Node {
        Node {
            id,
            session: None,
            lease_until: None,
            watches: Vec::new(),
            network: Network::of(contact.observed.ip()),
            contact,
            entries: BTreeMap::new(),
            round: 0,
            announcing: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Node {
        let contact = Contact {
            observed: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            claimed: [].into(),
        };
        Node::new(NodeId([0; 32]), contact)
    }

    pub(crate) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn announces(&self, asset: Key<Asset>) -> bool {
        self.entries.contains_key(&asset)
    }

    fn standing(&self) -> Standing {
        Standing {
            connected: self.session.is_some(),
            network: self.network,
        }
    }
}

/// Everything of one group.
#[derive(Default)]
pub(crate) struct Room {
    pub(crate) catalog: Catalog,
    pub(crate) nodes: Slab<Node>,
    by_id: BTreeMap<NodeId, Key<Node>>,
    pub(crate) watches: Watches,
}

impl Room {
    pub(crate) fn node(&self, id: NodeId) -> Option<Key<Node>> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn add_node(&mut self, id: NodeId, contact: Contact) -> Key<Node> {
        let key = self.nodes.insert(Node::new(id, contact));
        self.by_id.insert(id, key);
        key
    }

    /// Forgets a node, its watches and all that it announced.
    pub(crate) fn remove_node(&mut self, key: Key<Node>, shared: &mut Shared) {
        self.close_watches(key);
        let assets: Vec<Key<Asset>> = self.nodes[key].entries.keys().copied().collect();
        for asset in assets {
            self.withdraw_asset(key, asset, shared);
        }
        if let Some(node) = self.nodes.remove(key) {
            self.by_id.remove(&node.id);
        }
    }

    pub(crate) fn close_watches(&mut self, key: Key<Node>) {
        for watch in std::mem::take(&mut self.nodes[key].watches) {
            self.watches.close(watch);
        }
    }

    /// A node is to be reached elsewhere; whoever watches what it holds is told.
    pub(crate) fn set_contact(&mut self, key: Key<Node>, contact: Contact, shared: &mut Shared) {
        let node = &mut self.nodes[key];
        if node.contact == contact {
            return;
        }
        node.network = Network::of(contact.observed.ip());
        node.contact = contact;
        let id = node.id;
        let watched: Vec<ContentId> = self.watches.contents().collect();
        for content in watched {
            let Some(held) = self.catalog.content(content) else {
                continue;
            };
            let holders = &self.catalog.contents[held].holders;
            let before = holders.presence(key);
            if before != Presence::Absent {
                let untold = Untold {
                    before,
                    moved: true,
                };
                self.watches
                    .note(content, key, id, untold, holders.len(), shared);
            }
        }
    }

    pub(crate) fn begin_announcement(&mut self, key: Key<Node>) {
        let node = &mut self.nodes[key];
        node.round = node.round.wrapping_add(1);
        node.announcing = true;
    }

    /// Ends a full announcement: what was not part of it goes. `None` if none had begun.
    pub(crate) fn end_announcement(
        &mut self,
        key: Key<Node>,
        shared: &mut Shared,
    ) -> Option<usize> {
        let node = &mut self.nodes[key];
        if !std::mem::take(&mut node.announcing) {
            return None;
        }
        let round = node.round;
        let stale = node.entries.iter();
        let stale: Vec<Key<Asset>> = stale
            .filter(|(_, entry)| entry.round != round)
            .map(|(&asset, _)| asset)
            .collect();
        for &asset in &stale {
            self.withdraw_asset(key, asset, shared);
        }
        Some(stale.len())
    }

    /// A new session begins: an announcement that the last one left open is void.
    pub(crate) fn abandon_announcement(&mut self, key: Key<Node>) {
        self.nodes[key].announcing = false;
    }

    pub(crate) fn announce(
        &mut self,
        key: Key<Node>,
        announced: &Announced,
        shared: &mut Shared,
    ) -> Result<(), Refusal> {
        let Announced {
            name,
            info,
            complete,
        } = announced;
        if info.length > qshare_content::LENGTH_MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        let listed = Listed {
            name: name.as_str().into(),
            content: info.id(),
        };
        let content = listed.content;
        let known = self.catalog.asset(&listed);
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
                // Added before the other is taken away: the node stays a holder throughout.
                let (before, _) = holders.add(key, *complete);
                let (_, after) = holders.remove(key, was_complete);
                self.note(content, held, key, before, after, shared);
            }
            return Ok(());
        }
        let name_bytes = if known.is_none() {
            name.as_str().len()
        } else {
            0
        };
        shared.admit(node.entries.len(), name_bytes)?;
        let asset = self.catalog.acquire(listed, *info);
        let entry = Entry {
            round,
            complete: *complete,
        };
        self.nodes[key].entries.insert(asset, entry);
        let held = self.catalog.assets[asset].content;
        let (before, after) = self.catalog.contents[held].holders.add(key, *complete);
        self.note(content, held, key, before, after, shared);
        Ok(())
    }

    pub(crate) fn withdraw(&mut self, key: Key<Node>, listed: &Listed, shared: &mut Shared) {
        if let Some(asset) = self.catalog.asset(listed) {
            self.withdraw_asset(key, asset, shared);
        }
    }

    fn withdraw_asset(&mut self, key: Key<Node>, asset: Key<Asset>, shared: &mut Shared) {
        let Some(entry) = self.nodes[key].entries.remove(&asset) else {
            return;
        };
        let held = self.catalog.assets[asset].content;
        let holders = &mut self.catalog.contents[held].holders;
        let (before, after) = holders.remove(key, entry.complete);
        if before != after && !self.watches.is_empty() {
            let content = self.catalog.contents[held].info.id();
            self.note(content, held, key, before, after, shared);
        }
        let name_bytes = self.catalog.release(asset);
        shared.dismiss(name_bytes);
    }

    fn note(
        &mut self,
        content: ContentId,
        held: Key<Content>,
        key: Key<Node>,
        before: Presence,
        after: Presence,
        shared: &mut Shared,
    ) {
        if before != after {
            let holders = self.catalog.contents[held].holders.len();
            let untold = Untold {
                before,
                moved: false,
            };
            let node = self.nodes[key].id;
            self.watches
                .note(content, key, node, untold, holders, shared);
        }
    }

    /// A random sample of those who hold a content, `asking` left out.
    pub(crate) fn sample(
        &mut self,
        content: Key<Content>,
        limit: usize,
        asking: Option<NodeId>,
        shared: &mut Shared,
    ) -> Vec<Holder> {
        let nodes = &self.nodes;
        let standing = |key: Key<Node>| {
            let node = &nodes[key];
            (Some(node.id) != asking).then(|| node.standing())
        };
        let limit = limit.min(shared.config.holders_max);
        self.catalog.contents[content]
            .holders
            .sample(
                limit,
                shared.config.holders_per_network,
                &mut shared.rng,
                standing,
            )
            .into_iter()
            .map(|(key, presence)| holder(&nodes[key], presence))
            .collect()
    }

    /// The next change that a watch has not been told, as things stand now: what came and went
    /// in between is left out.
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

fn holder(node: &Node, presence: Presence) -> Holder {
    Holder {
        node: node.id,
        contact: node.contact.clone(),
        complete: presence == Presence::Complete,
    }
}
