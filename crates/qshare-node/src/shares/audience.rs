//! Who is served what: the receivers of each content that somebody watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::{ContentId, NodeId, Topic};
/// Receivers whose completion is remembered for one share. Identities are free.
const RECEIVED_MAX: usize = 4096;

/// The receivers of one shared content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// Nodes that are fetching it now.
    pub receivers: usize,
    /// Nodes that reported to have all of it. Only receivers of a private share do.
    pub received: usize,
    /// Payload bytes sent.
    pub sent_bytes: u64,
}

#[derive(Default)]
struct Counted {
    audience: Mutex<Audience>,
    received: Mutex<BTreeSet<NodeId>>,
}

impl Counted {
    fn lock(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The audiences of the contents that are counted, by the name of the content in requests: its id,
/// or its topic.
#[derive(Default)]
pub(crate) struct Audiences {
    counted: Mutex<BTreeMap<ContentId, Arc<Counted>>>,
}

/// A receiver that is being served, until this is dropped.
pub(crate) struct Receiving(Option<Arc<Counted>>);

impl Audiences {
    /// Begins to count the receivers of a content.
    pub(crate) fn begin_counting(&self, wire_id: ContentId) {
        self.lock().entry(wire_id).or_default();
    }

    /// Stops counting.
    pub(crate) fn forget(&self, wire_id: &ContentId) {
        self.lock().remove(wire_id);
    }

    /// Returns the receivers of a content that is counted.
    pub(crate) fn current(&self, wire_id: &ContentId) -> Audience {
        let counted = self.get(wire_id);
        counted.map_or_else(Audience::default, |counted| counted.lock().clone())
    }

    /// Counts a node that follows the content, or is being sent it.
    pub(crate) fn begin(&self, wire_id: &ContentId) -> Receiving {
        let counted = self.get(wire_id);
        if let Some(counted) = &counted {
            counted.lock().receivers += 1;
        }
        Receiving(counted)
    }

    /// Counts bytes that were sent.
    pub(crate) fn add_sent(&self, wire_id: &ContentId, bytes: u64) {
        if let Some(counted) = self.get(wire_id) {
            counted.lock().sent_bytes += bytes;
        }
    }

    /// Counts a node that has all of a private content.
    pub(crate) fn received(&self, topic: &Topic, node: NodeId) {
        let Some(counted) = self.get(&ContentId(topic.0)) else {
            return;
        };
        let received = counted.received.lock();
        let mut received = received.unwrap_or_else(PoisonError::into_inner);
        if received.len() < RECEIVED_MAX {
            received.insert(node);
            counted.lock().received = received.len();
        }
    }

    fn get(&self, wire_id: &ContentId) -> Option<Arc<Counted>> {
        self.lock().get(wire_id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContentId, Arc<Counted>>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(counted) = &self.0 {
            counted.lock().receivers -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_counted_while_they_are_served_and_once_when_they_are_done() {
        let audiences = Audiences::default();
        let topic = Topic([1; 32]);
        let id = ContentId(topic.0);
        drop(audiences.begin(&id));
        audiences.begin_counting(id);
        let first = audiences.begin(&id);
        let second = audiences.begin(&id);
        audiences.add_sent(&id, 5);
        drop(first);
        for node in [1, 1, 2] {
            audiences.received(&topic, NodeId([node; 32]));
        }
        let expected = Audience {
            receivers: 1,
            received: 2,
            sent_bytes: 5,
        };
        assert_eq!(audiences.current(&id), expected);
        drop(second);
        assert_eq!(audiences.current(&id).receivers, 0);
        audiences.forget(&id);
        assert_eq!(audiences.current(&id), Audience::default());
    }
}
