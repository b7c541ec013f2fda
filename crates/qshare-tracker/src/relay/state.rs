//! The relay as a state machine: it takes datagrams and the time, and returns what is to be sent.
//! It does no IO and reads no clock.

mod packets;
mod room;

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::{FairShares, User};
use qshare_net::TokenBucket;
use qshare_wire::introduction::RelayTicket;
use rand::Rng;
use rand::rngs::StdRng;

use super::{RelayCounts, RelayLimits};

/// Time whose worth of its rate a node may send at once.
const BURST: Duration = Duration::from_millis(100);
/// Smallest burst in bytes: some packets, however low the rate.
const BURST_MIN_BYTES: u64 = 64 << 10;
/// Bytes that the queue of one node may hold.
const QUEUE_MAX_BYTES: usize = 128 << 10;
/// Largest packet in bytes that the relay forwards.
const PACKET_MAX_BYTES: usize = 9_000;
/// Shortest time that a cookie is valid; the longest is twice that.
const COOKIE_SPAN: Duration = Duration::from_secs(30);
/// Challenges per second, all nodes together.
const CHALLENGES_PER_SECOND: f64 = 2_000.0;

/// A bucket of bytes that come back at `bytes_per_second`.
fn byte_bucket(now: Instant, bytes_per_second: u64) -> TokenBucket {
    let per_second = bytes_per_second as f64;
    let burst = (per_second * BURST.as_secs_f64()).max(BURST_MIN_BYTES as f64);
    TokenBucket::new(now, per_second, burst)
}

/// One end of a channel.
struct End {
    node: NodeId,
    other: u64,
    secret: [u8; 16],
    /// The address that packets come from and go to, once it is proven.
    address: Option<SocketAddr>,
    expires: Instant,
}

/// A channel between two introduced nodes.
struct Channel {
    /// The handles of its ends, the smaller node's first.
    handles: (u64, u64),
    /// The node that asked for the introduction, which the channel is counted for.
    asker: User<NodeId>,
    asked: NodeId,
    is_bound: bool,
    used_at: Instant,
}

/// A node that has a channel.
struct Participant {
    channels: usize,
    /// Who asked for channels with this node: its quota is divided among them.
    askers: FairShares<NodeId>,
    rate: TokenBucket,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    queued_bytes: usize,
}

pub(super) struct State {
    limits: RelayLimits,
    ends: HashMap<u64, End>,
    /// Channels by their nodes, the smaller id first.
    channels: HashMap<(NodeId, NodeId), Channel>,
    /// Channels by the node that asked for them.
    shares: FairShares<NodeId>,
    clients: HashMap<NodeId, Participant>,
    /// Nodes with queued packets, in the order of their turns.
    turns: VecDeque<NodeId>,
    rate: TokenBucket,
    challenges: TokenBucket,
    cookies: [RandomState; 2],
    cookies_since: Instant,
    counts: RelayCounts,
    rng: StdRng,
}

/// What the caller must do after a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nothing,
    Send(SocketAddr, Vec<u8>),
    /// Forward a packet of this node now; if the socket is full, [`State::queue`] it.
    Forward(NodeId, SocketAddr, Vec<u8>),
    /// A packet was queued: [`State::next_queued`] has something.
    Queued,
}

fn key_of(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    if a < b { (a, b) } else { (b, a) }
}

impl State {
    /// A relay without channels. Handles and secrets are drawn from `rng`.
    pub(super) fn new(limits: RelayLimits, now: Instant, rng: StdRng) -> State {
        State {
            rate: byte_bucket(now, limits.bytes_per_second),
            challenges: TokenBucket::new(now, CHALLENGES_PER_SECOND, CHALLENGES_PER_SECOND),
            shares: FairShares::new(limits.pairs_max as u64),
            limits,
            ends: HashMap::new(),
            channels: HashMap::new(),
            clients: HashMap::new(),
            turns: VecDeque::new(),
            cookies: [RandomState::new(), RandomState::new()],
            cookies_since: now,
            counts: RelayCounts::default(),
            rng,
        }
    }

    /// Opens or renews the channel between two nodes; returns their tickets, the asker's first.
    ///
    /// When there is no room, the node that asked for the most channels in the network that asked
    /// for the most yields one, if the asker has fewer: an unbound one, or the least recently used.
    pub(super) fn open(
        &mut self,
        now: Instant,
        asker: User<NodeId>,
        asked: NodeId,
    ) -> Option<(RelayTicket, RelayTicket)> {
        if asker.id == asked {
            return None;
        }
        let key = key_of(asker.id, asked);
        let handles = match self.channels.get(&key) {
            Some(channel) => channel.handles,
            None => self.create(now, asker, asked)?,
        };
        let (of_asker, of_asked) = match key.0 == asker.id {
            true => handles,
            false => (handles.1, handles.0),
        };
        Some((self.renew(now, of_asker)?, self.renew(now, of_asked)?))
    }

    fn create(&mut self, now: Instant, asker: User<NodeId>, asked: NodeId) -> Option<(u64, u64)> {
        if !self.shares.fits(1) || self.clients.len() + 2 > self.limits.clients_max {
            self.expire(now);
        }
        if self.shares.used_by(asker) >= self.limits.pairs_per_client_max as u64 {
            return None;
        }
        self.make_room_at(asker, asked)?;
        self.make_room(asker, asked)?;
        let handles: (u64, u64) = (self.rng.random(), self.rng.random());
        // A handle in use comes up once in 2^64 / 8,000 draws.
        if handles.0 == handles.1
            || self.ends.contains_key(&handles.0)
            || self.ends.contains_key(&handles.1)
        {
            return None;
        }
        let key = key_of(asker.id, asked);
        for (node, handle, other) in [(key.0, handles.0, handles.1), (key.1, handles.1, handles.0)]
        {
            let end = End {
                node,
                other,
                secret: self.rng.random(),
                address: None,
                expires: now + self.limits.unbound_lifetime,
            };
            self.ends.insert(handle, end);
            let rate = byte_bucket(now, self.limits.bytes_per_second_per_client);
            let quota = self.limits.pairs_per_client_max as u64;
            let participant = self.clients.entry(node).or_insert_with(|| Participant {
                channels: 0,
                askers: FairShares::new(quota),
                rate,
                queue: VecDeque::new(),
                queued_bytes: 0,
            });
            participant.channels += 1;
            if node == asked {
                participant.askers.add(asker, 1);
            }
        }
        self.shares.add(asker, 1);
        let channel = Channel {
            handles,
            asker,
            asked,
            is_bound: false,
            used_at: now,
        };
        self.channels.insert(key, channel);
        Some(handles)
    }

    fn renew(&mut self, now: Instant, handle: u64) -> Option<RelayTicket> {
        let lifetime = self.limits.lifetime;
        let end = self.ends.get(&handle)?;
        let channel = self
            .channels
            .get(&key_of(end.node, self.ends.get(&end.other)?.node))?;
        let holds = match channel.is_bound {
            true => lifetime,
            false => self.limits.unbound_lifetime,
        };
        let end = self.ends.get_mut(&handle)?;
        end.expires = now + holds;
        Some(RelayTicket {
            handle,
            secret: end.secret,
            lifetime_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn counts(&self) -> RelayCounts {
        RelayCounts {
            pairs: self.channels.len(),
            ..self.counts
        }
    }
}

#[cfg(test)]
mod tests;
