//! Consequences of corrupt bytes.

use std::sync::Arc;

use qshare_content::{ContentId, NodeId};
use tokio::sync::broadcast;
use tracing::debug;

use crate::peers::PeerTable;
use crate::vocabulary::NodeEvent;

/// Records which nodes sent bytes that failed verification. Clones share one record.
#[derive(Clone)]
pub(crate) struct Blame {
    table: Arc<PeerTable>,
    events: broadcast::Sender<NodeEvent>,
}

impl Blame {
    pub(crate) fn new(table: Arc<PeerTable>, events: broadcast::Sender<NodeEvent>) -> Blame {
        Blame { table, events }
    }

    /// Records that a node sent corrupt bytes of a content.
    pub(crate) fn corrupt(&self, node: NodeId, content: ContentId) {
        debug!(peer = %node, content = content.short(), "sent bytes that failed verification");
        self.table.note_lie(node);
        let _ = self.events.send(NodeEvent::PeerLied { node, content });
    }
}
