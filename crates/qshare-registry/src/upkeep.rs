//! Background work of a registry: eviction when it is full, and work that is spread over several
//! calls because it would take too long at once.

use std::time::Instant;

use qshare_content::fair::{Network, User};

use crate::catalog::Asset;
use crate::group::weight_of;
use crate::node::Node;
use crate::registry::Registry;
use crate::resources::NodeRef;
use crate::slab::Key;
use crate::types::{Announced, GroupId, Output};

/// Entries that one call processes: about a millisecond of work with a million entries.
const ENTRIES_PER_CALL: usize = 256;
/// Leases that one call ends: each takes about a microsecond.
const LEASES_PER_CALL: usize = 1024;
/// Entries that may be evicted for one new entry. Several may be necessary, because a name that
/// other nodes also announce frees no memory.
const EVICTIONS_PER_ENTRY_MAX: usize = 64;
/// Leases that are searched for one of the network that must yield a node.
const LEASES_SEARCHED_MAX: usize = 1024;

/// Work on the entries of one node.
#[derive(Debug)]
pub(crate) struct Chore {
    group: GroupId,
    node: Key<Node>,
    kind: ChoreKind,
}

impl Chore {
    /// Whether it removes entries of this node after a full announcement.
    pub(crate) fn sweeps(&self, group: GroupId, node: Key<Node>) -> bool {
        let sweeps = matches!(self.kind, ChoreKind::Sweep { .. });
        sweeps && self.group == group && self.node == node
    }
}

#[derive(Debug)]
pub(crate) enum ChoreKind {
    /// The node left: its entries are removed.
    Remove,
    /// The node ended a full announcement: its entries of earlier rounds are removed.
    Sweep {
        round: u16,
        after: Option<Key<Asset>>,
    },
    /// The node's addresses changed: the change is reported to those who watch its contents.
    TellMoved { after: Option<Key<Asset>> },
}

impl Registry {
    /// Adds work, and does as much as one call may.
    pub(crate) fn add_chore(&mut self, group: GroupId, node: Key<Node>, kind: ChoreKind) {
        self.chores.push_back(Chore { group, node, kind });
        self.do_chores();
    }

    /// Processes a bounded number of entries.
    pub(crate) fn do_chores(&mut self) {
        let mut left = ENTRIES_PER_CALL;
        while left > 0
            && let Some(chore) = self.chores.pop_front()
        {
            // Work without entries has a cost, too.
            left -= 1;
            let Some(group) = self.groups.get_mut(&chore.group) else {
                continue;
            };
            let (id, key, resources) = (chore.group, chore.node, &mut self.resources);
            let kind = match chore.kind {
                ChoreKind::Remove => {
                    let removed = group.remove_some(key, left, resources);
                    left -= removed;
                    (group.nodes.get(key).is_some()).then_some(ChoreKind::Remove)
                }
                ChoreKind::Sweep { round, after } => {
                    let last = group.sweep(key, round, after, left, resources);
                    left = if last.is_some() { 0 } else { left };
                    last.map(|last| ChoreKind::Sweep {
                        round,
                        after: Some(last),
                    })
                }
                ChoreKind::TellMoved { after } => {
                    let last = group.tell_moved(key, after, left, resources);
                    left = if last.is_some() { 0 } else { left };
                    last.map(|last| ChoreKind::TellMoved { after: Some(last) })
                }
            };
            if let Some(kind) = kind {
                let chore = Chore {
                    group: id,
                    node: key,
                    kind,
                };
                self.chores.push_front(chore);
            } else if group.nodes.len() == 0 {
                self.groups_by_number.remove(&group.number);
                self.groups.remove(&id);
            }
        }
    }

    /// Ends leases that have expired, a bounded number at each call.
    pub(crate) fn expire_leases(&mut self, now: Instant) {
        for _ in 0..LEASES_PER_CALL {
            let Some(&lease) = self.leases.first().filter(|lease| lease.0 <= now) else {
                break;
            };
            self.leases.remove(&lease);
            let (_, id, node) = lease;
            if let Some(group) = self.groups.get_mut(&id)
                && let Some(key) = group.node(node)
            {
                group.detach(key, &mut self.resources);
                let kind = ChoreKind::Remove;
                self.chores.push_back(Chore {
                    group: id,
                    node: key,
                    kind,
                });
            }
        }
    }

    /// Forgets a node that has neither session nor lease.
    pub(crate) fn forget(&mut self, group: GroupId, key: Key<Node>) {
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.detach(key, &mut self.resources);
            self.add_chore(group, key, ChoreKind::Remove);
        }
    }

    /// Makes room for one more node of `network`. Returns false if no network has more nodes than
    /// `network` would then have.
    pub(crate) fn make_room_for_node(&mut self, network: Network) -> bool {
        let newcomer = User {
            network,
            id: NodeRef {
                group: u32::MAX,
                node: Key::DANGLING,
            },
        };
        while !self.resources.nodes.fits(1) {
            let Some(victim) = self.resources.nodes.yields_to(newcomer, 1) else {
                return false;
            };
            let Some((group, key)) = self.lost_node_of(victim.network).or_else(|| {
                let group = self.groups_by_number.get(&victim.id.group)?;
                Some((*group, victim.id.node))
            }) else {
                return false;
            };
            self.evict_node(group, key);
        }
        true
    }

    /// Returns a node of this network that has a lease but no session.
    fn lost_node_of(&self, network: Network) -> Option<(GroupId, Key<Node>)> {
        let leases = self.leases.iter().take(LEASES_SEARCHED_MAX);
        let mut lost = leases.filter_map(|(_, id, node)| {
            let group = self.groups.get(id)?;
            let key = group.node(*node)?;
            (group.nodes[key].network() == network).then_some((*id, key))
        });
        lost.next()
    }

    /// Makes room for an entry of a node in a full registry. Returns false if no node uses more
    /// than this node would, or if the evicted entries do not free enough.
    pub(crate) fn make_room_for_entry(
        &mut self,
        group: GroupId,
        key: Key<Node>,
        entry: &Announced,
    ) -> bool {
        let Some(claimant) = self.groups.get(&group).map(|group| group.user(key)) else {
            return false;
        };
        let name_bytes = entry.name.as_str().len();
        for _ in 0..EVICTIONS_PER_ENTRY_MAX {
            let config = &self.resources.config;
            if self.resources.entries < config.entries_total
                && self.resources.name_bytes + name_bytes <= config.name_bytes_total
            {
                return true;
            }
            // Entries of nodes that left are removed first.
            if !self.chores.is_empty() {
                self.do_chores();
                continue;
            }
            let weight = weight_of(&entry.name);
            let Some(victim) = self.resources.memory.yields_to(claimant, weight) else {
                return false;
            };
            let Some(id) = self.groups_by_number.get(&victim.id.group).copied() else {
                return false;
            };
            let Some(group) = self.groups.get_mut(&id) else {
                return false;
            };
            let (key, is_told) = (
                victim.id.node,
                group.nodes[victim.id.node].evicted.is_some(),
            );
            if !group.evict_one(key, &mut self.resources) {
                return false;
            }
            if !is_told {
                let node = group.nodes[key].id;
                let output = Output::EntriesEvicted(id, node);
                self.resources.outputs.push_back(output);
            }
        }
        false
    }
}
