//! A simulated node: its schedulers, links and behaviour.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use qshare_content::{Bitmap, ChunkIndex};
use qshare_swarm::{Fetch, PeerKey, Refusal, RequestId, Serve, Ticket};

use super::link::{Downlink, Uplink};

/// How a node answers its peers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Behaviour {
    /// Follows the protocol.
    Honest,
    /// Follows the protocol until this time. Then stays connected, but sends nothing.
    StallsAt(Duration),
    /// Follows the protocol until this time. Then disconnects.
    LeavesAt(Duration),
    /// Claims to hold all chunks and never answers.
    Mute,
    /// Claims to hold all chunks and sends corrupt ones.
    Corrupt,
    /// Claims to hold all chunks and refuses every request, always with the same reason.
    Refuses(Refusal),
    /// Claims to hold all chunks and sends one block per this interval.
    Trickles(Duration),
    /// Claims to hold all chunks and resets every stream half-way.
    Resets,
}

impl Behaviour {
    /// Returns whether the node is an attacker, which downloads nothing.
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
    /// This node's keys for the peers that it fetches from. `nodes_by_key` is the inverse map.
    pub(crate) keys: BTreeMap<usize, PeerKey>,
    pub(crate) nodes_by_key: BTreeMap<PeerKey, usize>,
    pub(crate) next_key: u64,
    /// The peer of each live request.
    pub(crate) asked: BTreeMap<RequestId, usize>,
    pub(crate) tickets: BTreeMap<(usize, RequestId), Ticket>,
    pub(crate) responses: BTreeMap<Ticket, Response>,
    pub(crate) turns: VecDeque<Ticket>,
    pub(crate) unacknowledged_bytes: BTreeMap<usize, u64>,
    pub(crate) news: Vec<ChunkIndex>,
    pub(crate) news_due: bool,
    pub(crate) advertised_queue_bytes: u64,
    pub(crate) wake_at: Option<u64>,
    /// Time of the next simulated time-out of the serving scheduler.
    pub(crate) serve_wake_at: Option<u64>,
    pub(crate) finished_at: Option<u64>,
    pub(crate) sent_bytes: u64,
    pub(crate) delivered_bytes: u64,
    pub(crate) in_flight_most_bytes: u64,
}

impl Node {
    /// Returns the chunks that the node claims to hold.
    pub(crate) fn claims(&self, count: u32) -> Bitmap {
        match &self.fetch {
            Some(fetch) => fetch.verified().clone(),
            None => Bitmap::full(count),
        }
    }
}
