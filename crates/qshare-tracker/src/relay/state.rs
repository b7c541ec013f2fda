//! The relay as a state machine: it takes datagrams and the time, and returns what is to be sent.
//! It does no IO and reads no clock.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::{Claim, FairShares, User};
use qshare_net::TokenBucket;
use qshare_wire::datagram::Datagram;
use qshare_wire::introduction::RelayTicket;
use rand::Rng;
use rand::rngs::StdRng;
use subtle::ConstantTimeEq;
use tracing::debug;

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

    /// Makes room for one more channel with `asked`, whose quota is divided among those who ask.
    fn make_room_at(&mut self, asker: User<NodeId>, asked: NodeId) -> Option<()> {
        loop {
            let Some(participant) = self.clients.get_mut(&asked) else {
                return Some(());
            };
            match participant.askers.claim(asker, 1) {
                Claim::Granted => {
                    // Counted once the channel exists.
                    participant.askers.release(asker, 1);
                    return Some(());
                }
                Claim::Yields(heavy) => self.close_one_of(heavy, Some(asked))?,
                Claim::Refused => return None,
            }
        }
    }

    /// Makes room for one more channel among all.
    fn make_room(&mut self, asker: User<NodeId>, asked: NodeId) -> Option<()> {
        loop {
            match self.shares.claim(asker, 1) {
                Claim::Granted => self.shares.release(asker, 1),
                Claim::Yields(heavy) => {
                    self.close_one_of(heavy, None)?;
                    continue;
                }
                Claim::Refused => return None,
            }
            let newcomers = [asker.id, asked]
                .iter()
                .filter(|&node| !self.clients.contains_key(node))
                .count();
            if self.clients.len() + newcomers <= self.limits.clients_max {
                return Some(());
            }
            // Too many nodes: the rule is the same as for too many channels.
            let heavy = self.shares.heaviest()?;
            let (ours, theirs) = match heavy.network == asker.network {
                true => (self.shares.used_by(asker), self.shares.used_by(heavy)),
                false => (
                    self.shares.used_by_network(asker.network),
                    self.shares.used_by_network(heavy.network),
                ),
            };
            if ours + 1 > theirs {
                return None;
            }
            self.close_one_of(heavy, None)?;
        }
    }

    /// Closes a channel that `asker` asked for (with `asked`): an unbound one, or the least
    /// recently used. None if there is none.
    fn close_one_of(&mut self, asker: User<NodeId>, asked: Option<NodeId>) -> Option<()> {
        let theirs = self.channels.iter().filter(|(_, channel)| {
            channel.asker == asker && asked.is_none_or(|asked| asked == channel.asked)
        });
        let (&key, _) = theirs.min_by_key(|(_, channel)| (channel.is_bound, channel.used_at))?;
        self.close(key);
        Some(())
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

    /// Closes channels whose tickets have expired.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<(NodeId, NodeId)> = self
            .channels
            .iter()
            .filter(|(_, channel)| {
                let end = self.ends.get(&channel.handles.0);
                end.is_none_or(|end| end.expires <= now)
            })
            .map(|(&key, _)| key)
            .collect();
        for key in over {
            self.close(key);
        }
    }

    fn close(&mut self, key: (NodeId, NodeId)) {
        let Some(channel) = self.channels.remove(&key) else {
            return;
        };
        self.ends.remove(&channel.handles.0);
        self.ends.remove(&channel.handles.1);
        self.shares.release(channel.asker, 1);
        for node in [key.0, key.1] {
            if let Some(participant) = self.clients.get_mut(&node) {
                participant.channels -= 1;
                if node == channel.asked {
                    participant.askers.release(channel.asker, 1);
                }
                if participant.channels == 0 {
                    self.clients.remove(&node);
                }
            }
        }
    }

    /// Closes the channels of a node whose session has ended.
    pub(super) fn left(&mut self, node: NodeId) {
        if !self.clients.contains_key(&node) {
            return;
        }
        let theirs: Vec<(NodeId, NodeId)> = self
            .channels
            .keys()
            .filter(|key| key.0 == node || key.1 == node)
            .copied()
            .collect();
        for key in theirs {
            self.close(key);
        }
    }

    /// Returns the cookies that prove an address for a handle, the present one and the one before:
    /// SipHash under random keys of this process.
    fn cookie(&mut self, now: Instant, from: SocketAddr, handle: u64) -> [[u8; 8]; 2] {
        if now.saturating_duration_since(self.cookies_since) >= COOKIE_SPAN {
            self.cookies.swap(0, 1);
            self.cookies[0] = RandomState::new();
            self.cookies_since = now;
        }
        let cookie = |key: &RandomState| key.hash_one((from, handle)).to_be_bytes();
        [cookie(&self.cookies[0]), cookie(&self.cookies[1])]
    }

    pub(super) fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Reply {
        match Datagram::parse(datagram) {
            Some(Datagram::Bind {
                handle,
                secret,
                cookie,
            }) => self.bind(now, from, handle, secret, cookie),
            Some(Datagram::Relayed { handle, packet }) => self.relay(now, from, handle, packet),
            _ => Reply::Nothing,
        }
    }

    fn bind(
        &mut self,
        now: Instant,
        from: SocketAddr,
        handle: u64,
        secret: [u8; 16],
        cookie: [u8; 8],
    ) -> Reply {
        let [fresh, earlier] = self.cookie(now, from, handle);
        let Some(end) = self.ends.get_mut(&handle) else {
            return Reply::Nothing;
        };
        // Compared in constant time, so that timing does not tell how much of a guess is right.
        if !bool::from(end.secret.ct_eq(&secret)) || end.expires <= now {
            return Reply::Nothing;
        }
        if end.address == Some(from) || cookie == fresh || cookie == earlier {
            if end.address != Some(from) {
                debug!(peer = %end.node.short(), %from, "bound to the relay");
            }
            end.address = Some(from);
            self.note_bound(now, handle);
            return Reply::Send(from, Datagram::Bound { handle }.to_bytes());
        }
        self.challenge(now, from, handle, fresh)
    }

    /// Gives a channel its full lifetime once both of its ends are bound.
    fn note_bound(&mut self, now: Instant, handle: u64) {
        let ends = self.ends.get(&handle).and_then(|end| {
            let other = self.ends.get(&end.other)?;
            let is_bound = end.address.is_some() && other.address.is_some();
            is_bound.then_some((end.node, other.node))
        });
        let channel = ends.and_then(|(a, b)| self.channels.get_mut(&key_of(a, b)));
        let Some(channel) = channel.filter(|channel| !channel.is_bound) else {
            return;
        };
        channel.is_bound = true;
        channel.used_at = now;
        for handle in [channel.handles.0, channel.handles.1] {
            if let Some(end) = self.ends.get_mut(&handle) {
                end.expires = now + self.limits.lifetime;
            }
        }
    }

    fn challenge(&mut self, now: Instant, to: SocketAddr, handle: u64, cookie: [u8; 8]) -> Reply {
        if !self.challenges.try_take(now, 1.0) {
            return Reply::Nothing;
        }
        Reply::Send(to, Datagram::Challenge { handle, cookie }.to_bytes())
    }

    fn relay(&mut self, now: Instant, from: SocketAddr, handle: u64, packet: &[u8]) -> Reply {
        let Some(end) = self.ends.get(&handle) else {
            return Reply::Nothing;
        };
        if end.expires <= now || packet.len() > PACKET_MAX_BYTES {
            return Reply::Nothing;
        }
        if end.address != Some(from) {
            // Either the node has moved, or a stranger has seen its handle; only the node knows the
            // secret. A challenge must not be longer than the datagram that causes it.
            let enough = packet.len() >= 16 && end.address.is_some();
            let [cookie, _] = self.cookie(now, from, handle);
            return match enough {
                true => self.challenge(now, from, handle, cookie),
                false => Reply::Nothing,
            };
        }
        let (node, other) = (end.node, end.other);
        let Some(other_end) = self.ends.get(&other) else {
            return Reply::Nothing;
        };
        let Some(to) = other_end.address else {
            return Reply::Nothing;
        };
        if let Some(channel) = self.channels.get_mut(&key_of(node, other_end.node)) {
            channel.used_at = now;
        }
        let bytes = Datagram::Relayed {
            handle: other,
            packet,
        }
        .to_bytes();
        let Some(client) = self.clients.get_mut(&node) else {
            return Reply::Nothing;
        };
        if !client.rate.try_take(now, bytes.len() as f64) {
            self.counts.dropped_packets += 1;
            return Reply::Nothing;
        }
        if self.turns.is_empty() && self.rate.try_take(now, bytes.len() as f64) {
            return Reply::Forward(node, to, bytes);
        }
        self.queue(node, to, bytes)
    }

    pub(super) fn queue(&mut self, node: NodeId, to: SocketAddr, bytes: Vec<u8>) -> Reply {
        let Some(client) = self.clients.get_mut(&node) else {
            return Reply::Nothing;
        };
        if client.queued_bytes + bytes.len() > QUEUE_MAX_BYTES {
            self.counts.dropped_packets += 1;
            return Reply::Nothing;
        }
        if client.queue.is_empty() {
            self.turns.push_back(node);
        }
        client.queued_bytes += bytes.len();
        client.queue.push_back((to, bytes));
        Reply::Queued
    }

    /// Returns the next queued packet, or how long until the common rate lets it leave.
    pub(super) fn next_queued(
        &mut self,
        now: Instant,
    ) -> Result<(NodeId, SocketAddr, Vec<u8>), Option<Duration>> {
        while let Some(&node) = self.turns.front() {
            let Some(client) = self.clients.get_mut(&node) else {
                self.turns.pop_front();
                continue;
            };
            let Some((_, bytes)) = client.queue.front() else {
                self.turns.pop_front();
                continue;
            };
            let length = bytes.len();
            if !self.rate.try_take(now, length as f64) {
                return Err(Some(self.rate.wait_for(length as f64).min(BURST)));
            }
            self.turns.pop_front();
            let Some((to, bytes)) = client.queue.pop_front() else {
                continue;
            };
            client.queued_bytes -= length;
            if !client.queue.is_empty() {
                self.turns.push_back(node);
            }
            return Ok((node, to, bytes));
        }
        Err(None)
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.counts.forwarded_packets += 1;
        self.counts.forwarded_bytes += bytes as u64;
    }

    pub(super) fn counts(&self) -> RelayCounts {
        RelayCounts {
            pairs: self.channels.len(),
            ..self.counts
        }
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::fair::Network;
    use rand::SeedableRng;

    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);
    const C: NodeId = NodeId([3; 32]);

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, last], 5000))
    }

    /// A node that asks from the network 203.0.`network`.0/24.
    fn from(network: u8, node: NodeId) -> User<NodeId> {
        User {
            network: Network::of([203, 0, network, 1].into()),
            id: node,
        }
    }

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn state(limits: RelayLimits) -> (State, Instant) {
        let now = Instant::now();
        (State::new(limits, now, StdRng::seed_from_u64(1)), now)
    }

    fn bind(state: &mut State, now: Instant, from: SocketAddr, ticket: &RelayTicket) -> bool {
        let mut bind = |cookie| {
            let bind = Datagram::Bind {
                handle: ticket.handle,
                secret: ticket.secret,
                cookie,
            };
            state.handle(now, from, &bind.to_bytes())
        };
        let Reply::Send(to, challenge) = bind([0; 8]) else {
            return false;
        };
        assert_eq!(to, from);
        let Some(Datagram::Challenge { cookie, .. }) = Datagram::parse(&challenge) else {
            return true;
        };
        matches!(bind(cookie), Reply::Send(_, _))
    }

    fn relayed(handle: u64, length: usize) -> Vec<u8> {
        let packet = vec![0x40; length];
        Datagram::Relayed {
            handle,
            packet: &packet,
        }
        .to_bytes()
    }

    fn pair(state: &mut State, now: Instant, a: NodeId, b: NodeId) -> (RelayTicket, RelayTicket) {
        let tickets = state.open(now, from(a.0[0], a), b).unwrap();
        assert!(bind(state, now, at(a.0[0]), &tickets.0));
        assert!(bind(state, now, at(b.0[0]), &tickets.1));
        tickets
    }

    #[test]
    fn a_packet_leaves_for_the_other_end_under_its_handle() {
        let (mut state, now) = state(RelayLimits::default());
        let (a, b) = pair(&mut state, now, A, B);
        let reply = state.handle(now, at(1), &relayed(a.handle, 100));
        assert_eq!(reply, Reply::Forward(A, at(2), relayed(b.handle, 100)));
        let again = state.open(now, from(2, B), A).unwrap();
        assert_eq!(again, (b, a), "the same channel, whoever asks");
    }

    #[test]
    fn nothing_is_forwarded_from_or_to_an_address_that_was_not_proven() {
        let (mut state, now) = state(RelayLimits::default());
        let (a, b) = state.open(now, from(1, A), B).unwrap();
        let packet = relayed(a.handle, 100);
        assert_eq!(state.handle(now, at(1), &packet), Reply::Nothing);
        assert!(bind(&mut state, now, at(1), &a));
        // The other end has not said where it is.
        assert_eq!(state.handle(now, at(1), &packet), Reply::Nothing);
        assert!(bind(&mut state, now, at(2), &b));
        // From another address: the relay answers with a challenge, no longer than the packet.
        let Reply::Send(to, challenge) = state.handle(now, at(66), &packet) else {
            panic!("no challenge");
        };
        assert!(to == at(66) && challenge.len() <= packet.len());
        assert_eq!(
            state.handle(now, at(66), &relayed(a.handle, 5)),
            Reply::Nothing
        );
        // A cookie seen at one address is none at another, and one that was guessed is none.
        let Some(Datagram::Challenge { cookie, handle }) = Datagram::parse(&challenge) else {
            panic!("no challenge");
        };
        for (from, secret, cookie) in [
            (at(67), a.secret, cookie),
            (at(66), [0; 16], cookie),
            (at(66), a.secret, [1; 8]),
        ] {
            let bind = Datagram::Bind {
                handle,
                secret,
                cookie,
            };
            let reply = state.handle(now, from, &bind.to_bytes());
            let bound = Datagram::Bound { handle }.to_bytes();
            assert_ne!(reply, Reply::Send(from, bound));
        }
        let reply = state.handle(now, at(1), &packet);
        assert!(matches!(reply, Reply::Forward(..)), "{reply:?}");
    }

    #[test]
    fn a_node_that_moved_proves_its_new_address() {
        let (mut state, now) = state(RelayLimits::default());
        let (a, b) = pair(&mut state, now, A, B);
        assert!(bind(&mut state, now, at(9), &a));
        let reply = state.handle(now, at(2), &relayed(b.handle, 50));
        assert_eq!(reply, Reply::Forward(B, at(9), relayed(a.handle, 50)));
    }

    #[test]
    fn tickets_end_with_their_time_and_with_the_session() {
        let (mut state, now) = state(RelayLimits::default());
        let (a, _) = pair(&mut state, now, A, B);
        let later = now + RelayLimits::default().lifetime;
        assert_eq!(
            state.handle(later, at(1), &relayed(a.handle, 100)),
            Reply::Nothing
        );
        assert!(!bind(&mut state, later, at(1), &a));
        state.expire(later);
        assert!(state.ends.is_empty() && state.clients.is_empty() && state.channels.is_empty());
        pair(&mut state, now, A, B);
        pair(&mut state, now, A, C);
        state.left(A);
        assert!(state.ends.is_empty() && state.clients.is_empty() && state.channels.is_empty());
    }

    #[test]
    fn a_node_sends_at_its_own_rate_and_all_at_the_common_one_in_turns() {
        let limits = RelayLimits {
            bytes_per_second: 100_000,
            bytes_per_second_per_client: 1_000_000,
            ..RelayLimits::default()
        };
        let (mut state, start) = state(limits);
        let (a, _) = pair(&mut state, start, A, C);
        let (b, _) = pair(&mut state, start, B, C);
        let mut sent = HashMap::new();
        let mut now = start;
        // One sends ten times as much as the other, both more than there is.
        for step in 0..10_000u32 {
            now = start + Duration::from_millis(step.into());
            let many = std::iter::repeat_n((at(1), a.handle), 10);
            for (from, handle) in many.chain([(at(2), b.handle)]) {
                if let Reply::Forward(node, _, bytes) =
                    state.handle(now, from, &relayed(handle, 991))
                {
                    *sent.entry(node).or_insert(0) += bytes.len();
                }
            }
            while let Ok((node, _, bytes)) = state.next_queued(now) {
                *sent.entry(node).or_insert(0) += bytes.len();
            }
        }
        let seconds = (now - start).as_secs_f64();
        let total: usize = sent.values().sum();
        let allowed = 100_000.0 * seconds + BURST_MIN_BYTES as f64;
        assert!(
            total as f64 <= allowed && total as f64 >= 0.9 * allowed,
            "{sent:?}"
        );
        let (of_a, of_b) = (sent[&A] as f64, sent[&B] as f64);
        assert!(of_a / of_b < 1.3 && of_b / of_a < 1.3, "{sent:?}");
        let queued: usize = state
            .clients
            .values()
            .map(|client| client.queued_bytes)
            .sum();
        assert!(queued <= 2 * QUEUE_MAX_BYTES);
    }

    #[test]
    fn there_are_no_more_channels_than_allowed() {
        let limits = RelayLimits {
            pairs_max: 4,
            pairs_per_client_max: 1,
            clients_max: 3,
            ..RelayLimits::default()
        };
        let (mut state, now) = state(limits);
        assert!(state.open(now, from(1, A), A).is_none());
        assert!(state.open(now, from(1, A), B).is_some());
        assert!(state.open(now, from(1, A), C).is_none(), "one each");
        let existing = state.open(now, from(2, B), A);
        assert!(existing.is_some(), "the one that exists");
        assert_eq!(state.channels.len(), 1);
        assert!(state.open(now, from(3, C), node(4)).is_some());
        assert!(state.clients.len() <= 3 && state.channels.len() == 1);
        assert!(
            state.open(now, from(3, C), node(6)).is_none(),
            "its asker has the only one"
        );
    }

    #[test]
    fn a_channel_that_is_not_bound_soon_makes_room() {
        let limits = RelayLimits::default();
        let (unbound, lifetime) = (limits.unbound_lifetime, limits.lifetime);
        let (mut state, now) = state(limits);
        state.open(now, from(1, A), B).unwrap();
        let half = state.open(now, from(1, A), C).unwrap();
        assert!(bind(&mut state, now, at(1), &half.0));
        pair(&mut state, now, B, C);
        state.expire(now + unbound);
        assert_eq!(state.channels.len(), 1, "only the bound one is left");
        state.expire(now + lifetime);
        assert!(state.channels.is_empty());
    }

    #[test]
    fn a_network_that_asks_for_everything_yields_to_another() {
        let limits = RelayLimits {
            pairs_max: 10,
            ..RelayLimits::default()
        };
        let (mut state, now) = state(limits);
        for n in 0..20 {
            state.open(now, from(1, node(100 + n)), node(50 + n));
        }
        assert_eq!(state.channels.len(), 10, "nobody else asks");
        for n in 0..5 {
            let asker = from(2, node(1 + n));
            assert!(state.open(now, asker, node(30 + n)).is_some(), "{n}");
        }
        assert!(
            state.open(now, from(2, node(7)), node(37)).is_none(),
            "has half"
        );
        assert_eq!(state.channels.len(), 10);
        let kept = (0..5).all(|n| {
            state
                .channels
                .contains_key(&key_of(node(1 + n), node(30 + n)))
        });
        assert!(kept);
    }

    #[test]
    fn an_unbound_channel_yields_before_a_bound_one() {
        let limits = RelayLimits {
            pairs_max: 3,
            ..RelayLimits::default()
        };
        let (mut state, now) = state(limits);
        let asker = from(1, A);
        let bound = state.open(now, asker, B).unwrap();
        assert!(bind(&mut state, now, at(1), &bound.0));
        assert!(bind(&mut state, now, at(2), &bound.1));
        state.open(now, asker, C).unwrap();
        state.open(now, asker, node(4)).unwrap();
        assert!(state.open(now, from(2, node(5)), node(6)).is_some());
        assert!(state.channels.contains_key(&key_of(A, B)));
        assert_eq!(state.channels.len(), 3);
    }

    #[test]
    fn the_quota_of_a_node_is_divided_among_those_who_ask_for_it() {
        let limits = RelayLimits {
            pairs_per_client_max: 8,
            ..RelayLimits::default()
        };
        let (mut state, now) = state(limits);
        let victim = node(200);
        for n in 0..20 {
            state.open(now, from(1, node(1 + n)), victim);
        }
        assert_eq!(state.channels.len(), 8);
        assert!(state.open(now, from(2, node(100)), victim).is_some());
        assert_eq!(state.channels.len(), 8);
    }

    #[test]
    fn too_many_nodes_yield_as_too_many_channels_do() {
        let limits = RelayLimits {
            clients_max: 8,
            ..RelayLimits::default()
        };
        let (mut state, now) = state(limits);
        for n in 0..20 {
            state.open(now, from(1, node(100 + n)), node(50 + n));
        }
        assert_eq!(state.clients.len(), 8);
        assert!(state.open(now, from(2, A), B).is_some());
        assert!(state.clients.len() <= 8);
    }
}
