//! What networks use of a registry, for trackers that share out several of them together.

use std::collections::BTreeMap;

use qshare_content::fair::{FairShares, Network};

use crate::registry::Registry;
use crate::resources::NodeRef;

/// What the networks of a registry's nodes use of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkUse {
    /// Bytes of entries and their names.
    pub entry_bytes: BTreeMap<Network, u64>,
    /// Nodes.
    pub nodes: BTreeMap<Network, u64>,
}

impl Registry {
    /// Returns what networks use, up to `max` of each kind, the heaviest ones.
    pub fn network_use(&self, max: usize) -> NetworkUse {
        let heaviest =
            |shares: &FairShares<NodeRef>| shares.heaviest_networks(max).into_iter().collect();
        NetworkUse {
            entry_bytes: heaviest(&self.resources.memory),
            nodes: heaviest(&self.resources.nodes),
        }
    }

    /// Replaces what networks use of other registries. When this one is full, it counts as well.
    pub fn set_use_elsewhere(&mut self, elsewhere: NetworkUse) {
        let NetworkUse { entry_bytes, nodes } = elsewhere;
        self.resources.memory.set_elsewhere(entry_bytes);
        self.resources.nodes.set_elsewhere(nodes);
    }
}
