//! Which entries of its nodes this tracker has in memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qshare_content::NodeId;

use super::layout::Stamp;

/// For each node of this tracker, the number of the first session whose entries are in memory.
///
/// What the node announced in an earlier session, with another tracker or before a restart of this
/// one, is in Redis only. It counts until the node has announced everything again.
#[derive(Debug, Default)]
pub(super) struct OwnSessions {
    first_number_by_node: Mutex<HashMap<NodeId, u64>>,
}

impl OwnSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, u64>> {
        self.first_number_by_node
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The node has opened a session. One that was known already keeps its entries.
    pub(super) fn begin(&self, node: NodeId, number: u64) {
        self.lock().entry(node).or_insert(number);
    }

    /// The memory has no entries of the node any more.
    pub(super) fn end(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    /// Whether what this tracker published with this stamp is in its memory.
    pub(super) fn are_in_memory(&self, node: NodeId, stamp: Stamp) -> bool {
        let first = self.lock().get(&node).copied();
        first.is_some_and(|first| stamp.number >= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_published_since_the_node_came_is_in_memory() {
        let (own, node) = (OwnSessions::default(), NodeId([1; 32]));
        let stamp = |number| Stamp { number, epoch: 3 };
        assert!(!own.are_in_memory(node, stamp(7)));
        own.begin(node, 7);
        own.begin(node, 9);
        assert!(own.are_in_memory(node, stamp(7)) && own.are_in_memory(node, stamp(9)));
        assert!(!own.are_in_memory(node, stamp(6)));
        own.end(node);
        own.begin(node, 9);
        assert!(!own.are_in_memory(node, stamp(8)));
    }
}
