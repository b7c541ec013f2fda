//! The relay of last resort: carries packets between two introduced nodes that cannot reach each
//! other. What is in them is between the two (QUIC, end to end); here they are opaque.
//!
//! - A *channel* joins two nodes that this tracker introduced, while both are its clients. Each
//!   end has a handle and a secret of its own, told to that node alone, for a limited time.
//! - A packet is taken only from the address that its end has proven: by the secret, and by
//!   repeating a cookie that was sent to that very address.
//! - Every node has a rate, and all of them together have one. What exceeds a node's own rate is
//!   dropped; what exceeds the common one waits in a short queue of that node's own, and the
//!   queues take turns.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_net::{NonQuic, NonQuicSender, Route, Verdict};
use qshare_wire::datagram::Datagram;
use qshare_wire::introduction::RelayTicket;
use subtle::ConstantTimeEq;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, trace};

/// What the relay may cost.
#[derive(Debug, Clone)]
pub struct RelayLimits {
    /// Bytes a second that are forwarded, all nodes together.
    pub bytes_per_second: u64,
    /// Bytes a second that one node may send.
    pub bytes_per_second_per_client: u64,
    /// Nodes that have a channel at once.
    pub clients_max: usize,
    /// Channels at once.
    pub pairs_max: usize,
    /// Channels that one node has at once.
    pub pairs_per_client_max: usize,
    /// How long a ticket holds after the last introduction.
    pub lifetime: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        RelayLimits {
            // 100 Mbit/s in all, 40 for one: last resort, not a service.
            bytes_per_second: 12_500_000,
            bytes_per_second_per_client: 5_000_000,
            clients_max: 1_000,
            pairs_max: 4_000,
            pairs_per_client_max: 128,
            lifetime: Duration::from_secs(300),
        }
    }
}

/// Time of its rate that a node may use at once; also what its queue holds.
const BURST: Duration = Duration::from_millis(100);
/// Room for some packets at any rate.
const BURST_MIN_BYTES: u64 = 64 << 10;
/// Bytes that a node's queue holds.
const QUEUE_MAX_BYTES: usize = 128 << 10;
/// Largest packet that is forwarded.
const PACKET_MAX_BYTES: usize = 9_000;
/// Time that a cookie is good for, at least; at most twice that.
const COOKIE_SPAN: Duration = Duration::from_secs(30);
/// Challenges a second, all nodes together.
const CHALLENGES_PER_SECOND: u64 = 2_000;

/// Bytes that come back at a rate.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
    per_second: f64,
    burst: f64,
}

impl Bucket {
    fn new(now: Instant, per_second: u64) -> Bucket {
        let burst = (per_second as f64 * BURST.as_secs_f64()).max(BURST_MIN_BYTES as f64);
        Bucket {
            tokens: burst,
            at: now,
            per_second: per_second as f64,
            burst,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.at = now;
    }

    fn take(&mut self, now: Instant, bytes: usize) -> bool {
        self.fill(now);
        let granted = self.tokens >= bytes as f64;
        if granted {
            self.tokens -= bytes as f64;
        }
        granted
    }

    fn wait_for(&self, bytes: usize) -> Duration {
        let missing = bytes as f64 - self.tokens;
        Duration::try_from_secs_f64((missing / self.per_second).max(0.0)).unwrap_or(BURST)
    }
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
    rate: Bucket,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    queued_bytes: usize,
}

/// What the relay has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayCounts {
    /// Channels that exist.
    pub pairs: usize,
    /// Packets forwarded.
    pub forwarded_packets: u64,
    /// Bytes forwarded.
    pub forwarded_bytes: u64,
    /// Packets dropped because a limit was reached.
    pub dropped_packets: u64,
}

struct State {
    limits: RelayLimits,
    ends: HashMap<u64, End>,
    /// The ends of a channel by its nodes, the smaller id's first.
    channels: HashMap<(NodeId, NodeId), (u64, u64)>,
    clients: HashMap<NodeId, Client>,
    /// Nodes whose queues are not empty, in the order of their turns.
    turns: VecDeque<NodeId>,
    rate: Bucket,
    challenges: Bucket,
    cookies: [RandomState; 2],
    cookies_since: Instant,
    counts: RelayCounts,
}

/// What is to be sent in answer to a datagram.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Nothing,
    Send(SocketAddr, Vec<u8>),
    /// Forwarded at once, if the system has room.
    Forward(NodeId, SocketAddr, Vec<u8>),
    /// Something was queued.
    Queued,
}

impl State {
    fn new(limits: RelayLimits, now: Instant) -> State {
        State {
            rate: Bucket::new(now, limits.bytes_per_second),
            challenges: Bucket {
                burst: CHALLENGES_PER_SECOND as f64,
                ..Bucket::new(now, CHALLENGES_PER_SECOND)
            },
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
    fn open(&mut self, now: Instant, a: NodeId, b: NodeId) -> Option<(RelayTicket, RelayTicket)> {
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
            let rate = Bucket::new(now, self.limits.bytes_per_second_per_client);
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
    fn expire(&mut self, now: Instant) {
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
    fn left(&mut self, node: NodeId) {
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

    fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Reply {
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
        if !self.challenges.take(now, 1) {
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
        if !client.rate.take(now, bytes.len()) {
            self.counts.dropped_packets += 1;
            return Reply::Nothing;
        }
        if self.turns.is_empty() && self.rate.take(now, bytes.len()) {
            return Reply::Forward(node, to, bytes);
        }
        self.queue(node, to, bytes)
    }

    fn queue(&mut self, node: NodeId, to: SocketAddr, bytes: Vec<u8>) -> Reply {
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
    fn next_queued(
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
            if !self.rate.take(now, length) {
                return Err(Some(self.rate.wait_for(length)));
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

    fn count(&mut self, bytes: usize) {
        self.counts.forwarded_packets += 1;
        self.counts.forwarded_bytes += bytes as u64;
    }
}

/// The relay. Clones are the same.
#[derive(Clone)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    sender: NonQuicSender,
    state: Mutex<State>,
    queued: Notify,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl Relay {
    /// Takes over what travels beside QUIC on this socket. [`Relay::run`] must run.
    pub(crate) fn install(sender: &NonQuicSender, limits: RelayLimits) -> Relay {
        let shared = Arc::new(Shared {
            sender: sender.clone(),
            state: Mutex::new(State::new(limits, Instant::now())),
            queued: Notify::new(),
        });
        sender.install(Box::new(Handler(Arc::clone(&shared))));
        Relay { shared }
    }

    /// A channel between two nodes: the ticket of each. None when there is no room for one more.
    pub(crate) fn open(&self, a: NodeId, b: NodeId) -> Option<(RelayTicket, RelayTicket)> {
        self.shared.lock().open(Instant::now(), a, b)
    }

    /// A node's session has ended, and with it the right to the relay.
    pub(crate) fn left(&self, node: NodeId) {
        self.shared.lock().left(node);
    }

    pub(crate) fn counts(&self) -> RelayCounts {
        let state = self.shared.lock();
        RelayCounts {
            pairs: state.channels.len(),
            ..state.counts
        }
    }

    /// Empties the queues at the rate that is allowed, and ends what has expired. Never returns.
    pub(crate) async fn run(self) {
        let mut expired_at = Instant::now();
        loop {
            let next = {
                let mut state = self.shared.lock();
                let now = Instant::now();
                if now.saturating_duration_since(expired_at) >= COOKIE_SPAN {
                    expired_at = now;
                    state.expire(now);
                }
                state.next_queued(now)
            };
            match next {
                Ok((_, to, bytes)) => {
                    while let Err(error) = self.shared.sender.send(to, &bytes) {
                        trace!(%error, "waiting for room");
                        self.shared.sender.writable().await;
                    }
                    self.shared.lock().count(bytes.len());
                }
                Err(Some(wait)) => sleep(wait.max(Duration::from_millis(1))).await,
                Err(None) => {
                    tokio::select! {
                        () = self.shared.queued.notified() => {}
                        () = sleep(COOKIE_SPAN) => {}
                    }
                }
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Handler(Arc<Shared>);

impl NonQuic for Handler {
    fn handle(&self, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let shared = &self.0;
        let mut state = shared.lock();
        match state.handle(Instant::now(), from, datagram) {
            Reply::Nothing => {}
            Reply::Send(to, bytes) => _ = shared.sender.send(to, &bytes),
            Reply::Queued => shared.queued.notify_one(),
            Reply::Forward(node, to, bytes) => match shared.sender.send(to, &bytes) {
                Ok(()) => state.count(bytes.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if state.queue(node, to, bytes) == Reply::Queued {
                        shared.queued.notify_one();
                    }
                }
                Err(_) => {}
            },
        }
        Verdict::Done
    }

    fn route(&self, _: SocketAddr) -> Option<Route> {
        None
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
