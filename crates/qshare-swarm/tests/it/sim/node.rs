//! One node: its schedulers, its links, its habits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use qshare_content::{Bitmap, ChunkIndex};
use qshare_swarm::{Fetch, PeerKey, Refusal, RequestId, Serve, Ticket};

use super::link::{Downlink, Uplink};

/// How a node answers others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Behaviour {
    /// As it should.
    Honest,
    /// As it should until then, then neither sends nor answers anything, yet stays connected.
    StallsAt(Duration),
    /// As it should until then, then it is gone.
    LeavesAt(Duration),
    /// Claims to hold everything and never answers.
    Mute,
    /// Claims to hold everything and sends rubbish.
    Corrupt,
    /// Claims to hold everything and refuses, always the same way.
    Refuses(Refusal),
    /// Claims to hold everything and sends a block every so often.
    Trickles(Duration),
    /// Claims to hold everything and resets every stream half-way.
    Resets,
}

impl Behaviour {
    /// Whether the node is there only to harm: it downloads nothing.
    pub(crate) fn is_hostile(self) -> bool {
        !matches!(
            self,
            Behaviour::Honest | Behaviour::StallsAt(_) | Behaviour::LeavesAt(_)
        )
    }
}

/// A response being sent.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) client: usize,
    pub(crate) request: RequestId,
    pub(crate) size_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) is_blocked: bool,
}

pub(crate) struct Node {
    pub(crate) behaviour: Behaviour,
    pub(crate) fetch: Option<Fetch>,
    pub(crate) serve: Serve,
    pub(crate) uplink: Uplink,
    pub(crate) downlink: Downlink,
    pub(crate) neighbours: Vec<usize>,
    pub(crate) is_there: bool,
    pub(crate) is_silent: bool,
    /// What this node calls the peers that it fetches from, and back.
    pub(crate) keys: BTreeMap<usize, PeerKey>,
    pub(crate) nodes_by_key: BTreeMap<PeerKey, usize>,
    pub(crate) next_key: u64,
    /// Live requests: whom they were made to.
    pub(crate) asked: BTreeMap<RequestId, usize>,
    pub(crate) tickets: BTreeMap<(usize, RequestId), Ticket>,
    pub(crate) responses: BTreeMap<Ticket, Response>,
    pub(crate) turns: VecDeque<Ticket>,
    pub(crate) unacknowledged_bytes: BTreeMap<usize, u64>,
    pub(crate) news: Vec<ChunkIndex>,
    pub(crate) news_due: bool,
    pub(crate) advertised_queue_bytes: u64,
    pub(crate) wake_at: Option<u64>,
    /// When the serving scheduler's time-out is simulated next.
    pub(crate) serve_wake_at: Option<u64>,
    pub(crate) finished_at: Option<u64>,
    pub(crate) sent_bytes: u64,
    pub(crate) delivered_bytes: u64,
    pub(crate) in_flight_most_bytes: u64,
}

impl Node {
    /// What the node tells others that it holds.
    pub(crate) fn claims(&self, count: u32) -> Bitmap {
        match &self.fetch {
            Some(fetch) => fetch.verified().clone(),
            None => Bitmap::full(count),
        }
    }
}
