//! What waits to be published: the nodes of this tracker, and the queue of those with changes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use qshare_content::NodeId;
use qshare_registry::{Announced, EntryKey, EntryPosition};
use tokio::sync::oneshot;

use super::super::layout::Stamp;
use super::super::own_sessions::OwnSessions;
use super::super::session_record::SessionDetails;

pub(super) enum Change {
    Put(Announced),
    Remove(EntryKey),
    /// The end of a full announcement.
    Finish,
}

/// Walks all entries of a node.
#[derive(Clone, Copy)]
pub(super) enum Walk {
    /// Nothing to do.
    Idle,
    /// Goes on behind this position.
    At(Option<EntryPosition>),
}

/// One node of this tracker, as it is published.
pub(super) struct Published {
    pub(super) number: u64,
    pub(super) epoch: u32,
    pub(super) details: SessionDetails,
    /// A newer session that has not announced anything yet. It may be a spare one, while the node
    /// announces to another tracker.
    pub(super) pending: Option<(u64, SessionDetails)>,
    /// Whether the session, or its new details, must be published.
    pub(super) must_open: bool,
    /// Whether anything was announced. Before, nothing is published: a node that has another
    /// session with the same registry leaves again without announcing.
    pub(super) is_announcing: bool,
    /// Whether a full announcement has begun and not ended.
    pub(super) is_in_full: bool,
    /// Whether all entries were published anew since that began.
    pub(super) walked_in_full: bool,
    pub(super) walk: Walk,
    pub(super) changes: VecDeque<Change>,
    pub(super) walked_at: Instant,
    pub(super) refresh_at: Option<Instant>,
    pub(super) not_before: Option<Instant>,
    pub(super) is_queued: bool,
    pub(super) leaving: Option<Leaving>,
    pub(super) flushed: Vec<oneshot::Sender<()>>,
}

/// A node whose session has ended.
pub(super) struct Leaving {
    /// When its entries go.
    pub(super) at: Instant,
    pub(super) keys: Vec<EntryKey>,
    /// Whether Redis knows that the session has ended, and that the node has no newer one.
    pub(super) is_closed: bool,
}

impl Published {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            number: self.number,
            epoch: self.epoch,
        }
    }

    /// Publishes everything anew, so that what was published before does not count any more.
    pub(super) fn begin_anew(&mut self) {
        self.epoch += 1;
        self.must_open = true;
        self.walk = Walk::At(None);
        self.changes.clear();
        self.walked_in_full = self.is_in_full;
    }

    /// Takes over the newer session that has just announced something. The node's earlier entries
    /// stay until it has announced all of them again. A number that is not higher comes from a
    /// clock that was set back.
    pub(super) fn begin_session(&mut self) {
        let Some((number, details)) = self.pending.take() else {
            return;
        };
        self.number = number.max(self.number + 1);
        self.epoch = 0;
        self.details = details;
        self.must_open = true;
        self.is_in_full = false;
        if !matches!(self.walk, Walk::Idle) || !self.changes.is_empty() {
            self.walk = Walk::At(None);
            self.changes.clear();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.must_open && matches!(self.walk, Walk::Idle) && self.changes.is_empty()
    }

    pub(super) fn wake(&mut self) {
        for waiting in self.flushed.drain(..) {
            let _ = waiting.send(());
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) nodes: HashMap<NodeId, Published>,
    pub(super) queue: VecDeque<NodeId>,
    pub(super) due: BTreeSet<(Instant, NodeId)>,
    /// When Redis last lost or refused what this tracker writes.
    pub(super) failed_at: Option<Instant>,
    pub(super) own_sessions: Arc<OwnSessions>,
}

impl State {
    pub(super) fn enqueue(&mut self, node: NodeId) {
        if let Some(published) = self.nodes.get_mut(&node)
            && published.is_announcing
            && !published.is_queued
        {
            published.is_queued = true;
            self.queue.push_back(node);
        }
    }

    pub(super) fn set_due(&mut self, node: NodeId, at: Option<Instant>) {
        if let Some(published) = self.nodes.get_mut(&node) {
            if let Some(earlier) = published.refresh_at {
                self.due.remove(&(earlier, node));
            }
            published.refresh_at = at;
            if let Some(at) = at {
                self.due.insert((at, node));
            }
        }
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        self.set_due(node, None);
        if let Some(mut removed) = self.nodes.remove(&node) {
            self.own_sessions.end(node);
            removed.wake();
        }
    }
}
