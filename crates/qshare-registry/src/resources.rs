//! What all groups of a registry share: its limits, what is used of them, outputs and randomness.

use std::collections::VecDeque;

use qshare_content::fair::FairShares;
use rand::rngs::SmallRng;

use crate::config::RegistryConfig;
use crate::node::Node;
use crate::slab::Key;
use crate::types::{Output, Refusal};

/// What an entry weighs besides its name, in bytes, when it is decided who uses most.
pub(crate) const ENTRY_WEIGHT_BYTES: u64 = 200;

/// A node of any group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeRef {
    /// The group's number.
    pub(crate) group: u32,
    pub(crate) node: Key<Node>,
}

pub(crate) struct Resources {
    pub(crate) config: RegistryConfig,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) rng: SmallRng,
    pub(crate) entries: usize,
    pub(crate) name_bytes: usize,
    /// Who uses how many bytes for entries. Only decides who yields; the limits are counted above.
    pub(crate) memory: FairShares<NodeRef>,
    /// The number of nodes of each network.
    pub(crate) nodes: FairShares<NodeRef>,
    pub(crate) evicted: u64,
}

impl Resources {
    /// Counts one more entry of a node that has `node_entries`, whose name takes `name_bytes`
    /// more, or says which limit forbids it.
    pub(crate) fn admit(&mut self, node_entries: usize, name_bytes: usize) -> Result<(), Refusal> {
        let config = &self.config;
        if node_entries >= config.entries_per_node {
            let limit = config.entries_per_node;
            return Err(Refusal::NodeFull { limit });
        }
        if self.entries >= config.entries_total {
            let limit = config.entries_total;
            return Err(Refusal::RegistryFull { limit });
        }
        if self.name_bytes + name_bytes > config.name_bytes_total {
            let limit_bytes = config.name_bytes_total;
            return Err(Refusal::NamesFull { limit_bytes });
        }
        self.entries += 1;
        self.name_bytes += name_bytes;
        Ok(())
    }

    /// Counts further bytes of an entry. Returns false if there is no room.
    pub(crate) fn admit_bytes(&mut self, bytes: usize) -> bool {
        let has_room = self.name_bytes + bytes <= self.config.name_bytes_total;
        if has_room {
            self.name_bytes += bytes;
        }
        has_room
    }

    /// Counts fewer bytes of an entry.
    pub(crate) fn dismiss_bytes(&mut self, bytes: usize) {
        self.name_bytes -= bytes;
    }

    /// Counts one entry less.
    pub(crate) fn dismiss(&mut self, name_bytes: usize) {
        self.entries -= 1;
        self.name_bytes -= name_bytes;
    }
}
