//! The relay as a state machine: which packet leaves for where, and when. It takes the time and does
//! no IO.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_net::TokenBucket;
use qshare_wire::datagram::Datagram;
use qshare_wire::introduction::RelayTicket;
use subtle::ConstantTimeEq;
use tracing::debug;

use super::{RelayCounts, RelayLimits};

/// Time of its rate that a node may use at once; also what its queue holds.
const BURST: Duration = Duration::from_millis(100);
/// Room for some packets at any rate.
const BURST_MIN_BYTES: u64 = 64 << 10;
/// Bytes that a node's queue holds.
const QUEUE_MAX_BYTES: usize = 128 << 10;
/// Largest packet that is forwarded.
const PACKET_MAX_BYTES: usize = 9_000;
/// Time that a cookie is good for, at least; at most twice that.
pub(super) const COOKIE_SPAN: Duration = Duration::from_secs(30);
/// Challenges a second, all nodes together.
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
    /// Where packets come from and go to, once that is proven.
    address: Option<SocketAddr>,
    expires: Instant,
}

struct Client {
    channels: usize,
    rate: TokenBucket,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    queued_bytes: usize,
}

pub(super) struct State {
    limits: RelayLimits,
    ends: HashMap<u64, End>,
    /// The ends of a channel by its nodes, the smaller id's first.
    channels: HashMap<(NodeId, NodeId), (u64, u64)>,
    clients: HashMap<NodeId, Client>,
    /// Nodes whose queues are not empty, in the order of their turns.
    turns: VecDeque<NodeId>,
    rate: TokenBucket,
    challenges: TokenBucket,
    cookies: [RandomState; 2],
    cookies_since: Instant,
    counts: RelayCounts,
}

/// What is to be sent in answer to a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nothing,
    Send(SocketAddr, Vec<u8>),
    /// Forwarded at once, if the system has room.
    Forward(NodeId, SocketAddr, Vec<u8>),
    /// Something was queued.
    Queued,
}

impl State {
    pub(super) fn new(limits: RelayLimits, now: Instant) -> State {
        State {
            rate: byte_bucket(now, limits.bytes_per_second),
            challenges: TokenBucket::new(now, CHALLENGES_PER_SECOND, CHALLENGES_PER_SECOND),
            limits,
            ends: HashMap::new(),
            channels: HashMap::new(),
            clients: HashMap::new(),
            turns: VecDeque::new(),
            cookies: [RandomState::new(), RandomState::new()],
            cookies_since: now,
            counts: RelayCounts::default(),
        }
    }

    /// Opens or renews the channel between two nodes; their tickets.
    pub(super) fn open(
        &mut self,
        now: Instant,
        a: NodeId,
        b: NodeId,
    ) -> Option<(RelayTicket, RelayTicket)> {
        let key = if a < b { (a, b) } else { (b, a) };
        if a == b {
            return None;
        }
        let handles = match self.channels.get(&key) {
            Some(&handles) => handles,
            None => self.create(now, key)?,
        };
        let (of_a, of_b) = if key.0 == a {
            handles
        } else {
            (handles.1, handles.0)
        };
        Some((self.renew(now, of_a)?, self.renew(now, of_b)?))
    }

    fn create(&mut self, now: Instant, key: (NodeId, NodeId)) -> Option<(u64, u64)> {
        if self.channels.len() >= self.limits.pairs_max {
            self.expire(now);
        }
        let fits = |node: NodeId| {
            self.clients.get(&node).map_or(0, |client| client.channels)
                < self.limits.pairs_per_client_max
        };
        let newcomers = [key.0, key.1]
            .iter()
            .filter(|&node| !self.clients.contains_key(node))
            .count();
        if self.channels.len() >= self.limits.pairs_max
            || self.clients.len() + newcomers > self.limits.clients_max
            || !fits(key.0)
            || !fits(key.1)
        {
            return None;
        }
        let handles: (u64, u64) = (rand::random(), rand::random());
        // A handle that is in use already would come up once in an age of the universe.
        if handles.0 == handles.1
            || self.ends.contains_key(&handles.0)
            || self.ends.contains_key(&handles.1)
        {
            return None;
        }
        for (node, handle, other) in [(key.0, handles.0, handles.1), (key.1, handles.1, handles.0)]
        {
            self.ends.insert(
                handle,
                End {
                    node,
                    other,
                    secret: rand::random(),
                    address: None,
                    expires: now + self.limits.lifetime,
                },
            );
            let rate = byte_bucket(now, self.limits.bytes_per_second_per_client);
            let client = self.clients.entry(node).or_insert_with(|| Client {
                channels: 0,
                rate,
                queue: VecDeque::new(),
                queued_bytes: 0,
            });
            client.channels += 1;
        }
        self.channels.insert(key, handles);
        Some(handles)
    }

    fn renew(&mut self, now: Instant, handle: u64) -> Option<RelayTicket> {
        let lifetime = self.limits.lifetime;
        let end = self.ends.get_mut(&handle)?;
        end.expires = now + lifetime;
        Some(RelayTicket {
            handle,
            secret: end.secret,
            lifetime_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        })
    }

    /// Ends channels whose tickets have expired.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<(NodeId, NodeId)> = self
            .channels
            .iter()
            .filter(|(_, handles)| {
                self.ends
                    .get(&handles.0)
                    .is_none_or(|end| end.expires <= now)
            })
            .map(|(&key, _)| key)
            .collect();
        for key in over {
            self.close(key);
        }
    }

    fn close(&mut self, key: (NodeId, NodeId)) {
        let Some((first, second)) = self.channels.remove(&key) else {
            return;
        };
        self.ends.remove(&first);
        self.ends.remove(&second);
        for node in [key.0, key.1] {
            if let Some(client) = self.clients.get_mut(&node) {
                client.channels -= 1;
                if client.channels == 0 {
                    self.clients.remove(&node);
                }
            }
        }
    }

    /// A node is no longer a client of this tracker.
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

    /// What is sent to an address to see whether it comes back, now and before (SipHash under keys
    /// of this process).
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
        // In constant time: an answer that comes later must not tell how much of a guess is right.
        if !bool::from(end.secret.ct_eq(&secret)) || end.expires <= now {
            return Reply::Nothing;
        }
        if end.address == Some(from) || cookie == fresh || cookie == earlier {
            if end.address != Some(from) {
                debug!(peer = %end.node.short(), %from, "bound to the relay");
            }
            end.address = Some(from);
            return Reply::Send(from, Datagram::Bound { handle }.to_bytes());
        }
        self.challenge(now, from, handle, fresh)
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
            // It may have moved, or somebody has seen its handle: only it knows the secret. A
            // challenge must not be longer than what led to it.
            let enough = packet.len() >= 16 && end.address.is_some();
            let [cookie, _] = self.cookie(now, from, handle);
            return match enough {
                true => self.challenge(now, from, handle, cookie),
                false => Reply::Nothing,
            };
        }
        let (node, other) = (end.node, end.other);
        let Some(to) = self.ends.get(&other).and_then(|end| end.address) else {
            return Reply::Nothing;
        };
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

    /// The next packet out of the queues, or how long until it may leave.
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
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);
    const C: NodeId = NodeId([3; 32]);

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, last], 5000))
    }

    fn state(limits: RelayLimits) -> (State, Instant) {
        let now = Instant::now();
        (State::new(limits, now), now)
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
        let tickets = state.open(now, a, b).unwrap();
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
        let again = state.open(now, B, A).unwrap();
        assert_eq!(again, (b, a), "the same channel, whoever asks");
    }

    #[test]
    fn nothing_is_forwarded_from_or_to_an_address_that_was_not_proven() {
        let (mut state, now) = state(RelayLimits::default());
        let (a, b) = state.open(now, A, B).unwrap();
        let packet = relayed(a.handle, 100);
        assert_eq!(state.handle(now, at(1), &packet), Reply::Nothing);
        assert!(bind(&mut state, now, at(1), &a));
        // The other end has not said where it is.
        assert_eq!(state.handle(now, at(1), &packet), Reply::Nothing);
        assert!(bind(&mut state, now, at(2), &b));
        // From elsewhere: a challenge, no longer than the packet, to whoever is there.
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
            pairs_max: 2,
            pairs_per_client_max: 1,
            clients_max: 3,
            ..RelayLimits::default()
        };
        let (mut state, now) = state(limits);
        assert!(state.open(now, A, A).is_none());
        assert!(state.open(now, A, B).is_some());
        assert!(state.open(now, A, C).is_none(), "one each");
        assert!(
            state.open(now, C, NodeId([4; 32])).is_none(),
            "three clients"
        );
        assert!(state.open(now, B, A).is_some(), "the one that exists");
    }
}
