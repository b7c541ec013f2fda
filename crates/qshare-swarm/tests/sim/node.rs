//! One node: its schedulers, its links, its habits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use qshare_content::{Bitmap, ChunkIndex};
use qshare_swarm::{Fetch, PeerKey, Refusal, RequestId, Serve, Ticket};

use super::link::{Downlink, Uplink};

/// How a node answers others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
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
    pub fn is_hostile(self) -> bool {
        !matches!(
            self,
            Behaviour::Honest | Behaviour::StallsAt(_) | Behaviour::LeavesAt(_)
        )
    }
}

/// A response being sent.
#[derive(Debug)]
pub struct Response {
    pub client: usize,
    pub request: RequestId,
    pub size_bytes: u64,
    pub sent_bytes: u64,
    pub is_blocked: bool,
}

pub struct Node {
    pub behaviour: Behaviour,
    pub fetch: Option<Fetch>,
    pub serve: Serve,
    pub uplink: Uplink,
    pub downlink: Downlink,
    pub neighbours: Vec<usize>,
    pub is_there: bool,
    pub is_silent: bool,
    /// What this node calls the peers that it fetches from, and back.
    pub keys: BTreeMap<usize, PeerKey>,
    pub nodes_by_key: BTreeMap<PeerKey, usize>,
    pub next_key: u64,
    /// Live requests: whom they were made to.
    pub asked: BTreeMap<RequestId, usize>,
    pub tickets: BTreeMap<(usize, RequestId), Ticket>,
    pub responses: BTreeMap<Ticket, Response>,
    pub turns: VecDeque<Ticket>,
    pub unacknowledged_bytes: BTreeMap<usize, u64>,
    pub news: Vec<ChunkIndex>,
    pub news_due: bool,
    pub advertised_queue_bytes: u64,
    pub wake_at: Option<u64>,
    pub finished_at: Option<u64>,
    pub sent_bytes: u64,
    pub delivered_bytes: u64,
    pub in_flight_most_bytes: u64,
}

impl Node {
    /// What the node tells others that it holds.
    pub fn claims(&self, count: u32) -> Bitmap {
        match &self.fetch {
            Some(fetch) => fetch.verified().clone(),
            None => Bitmap::full(count),
        }
    }
}
