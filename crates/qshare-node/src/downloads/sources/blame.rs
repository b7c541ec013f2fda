//! What follows from corrupt bytes.

use std::sync::Arc;

use qshare_content::{ContentId, NodeId};
use tokio::sync::broadcast;
use tracing::debug;

use crate::peers::PeerTable;
use crate::vocabulary::NodeEvent;

/// Notes which nodes sent bytes that failed verification. Clones note in the same place.
#[derive(Clone)]
pub(crate) struct Blame {
    table: Arc<PeerTable>,
    events: broadcast::Sender<NodeEvent>,
}

impl Blame {
    pub(crate) fn new(table: Arc<PeerTable>, events: broadcast::Sender<NodeEvent>) -> Blame {
        Blame { table, events }
    }

    /// A node sent corrupt bytes of a content.
    pub(crate) fn corrupt(&self, node: NodeId, content: ContentId) {
        debug!(peer = %node, content = content.short(), "sent bytes that failed verification");
        self.table.note_lie(node);
        let _ = self.events.send(NodeEvent::PeerLied { node, content });
    }
}
