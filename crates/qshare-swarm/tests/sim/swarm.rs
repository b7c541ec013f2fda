//! The swarm: who is in it, and the loop over its events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, LEAF_BYTES};
use qshare_swarm::{
    DropReason, Fetch, FetchAction, FetchConfig, PeerKey, Refusal, RequestId, Serve, ServeConfig,
    Span,
};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::link::{Downlink, Uplink};
use super::node::{Behaviour, Node, Response};

const BLOCK_BYTES: u64 = LEAF_BYTES;
const SECOND_NS: u64 = 1_000_000_000;
/// A peer that was dropped without having lied is met again after this long.
const REJOIN_NS: u64 = 5 * SECOND_NS;
const CONTENT: ContentId = ContentId([7; 32]);

/// What to simulate. Node 0 is the seed; it never leaves.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) seed: u64,
    pub(crate) length: u64,
    /// Uplink and downlink in bytes a second, and behaviour, of each node.
    pub(crate) nodes: Vec<(u64, u64, Behaviour)>,
    /// One way, between any two nodes.
    pub(crate) latency: Duration,
    /// Each node knows the seed and this many others, chosen at random; everybody if None.
    pub(crate) neighbours: Option<usize>,
    /// Time between the arrivals of leechers.
    pub(crate) stagger: Duration,
    pub(crate) have_batch: Duration,
    /// Whether a node without news tells its queue when that changed.
    pub(crate) tells_queue: bool,
    /// Whether a server writes only what its uplink can send at once, rather than all that the
    /// windows allow: what lies in buffers is no longer the scheduler's to order.
    pub(crate) sees_uplink: bool,
    pub(crate) fetch: FetchConfig,
    pub(crate) serve: ServeConfig,
    pub(crate) deadline: Duration,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Seconds from the start to the end of each honest node that stayed; None if it never ended.
    pub(crate) finished_seconds: Vec<Option<f64>>,
    /// max(F/u_seed, F/d_min, N·F/(u_seed+Σu_i)) over honest nodes, in seconds.
    pub(crate) bound_seconds: f64,
    /// Payload bytes that arrived anywhere, over those that had to.
    pub(crate) waste: f64,
    /// Files' worth of bytes that the seed sent.
    pub(crate) seed_files: f64,
    /// Liars dropped as such, and honest nodes dropped for lying.
    pub(crate) dropped_corrupt: BTreeSet<usize>,
    /// Honest peers dropped as stalled or useless.
    pub(crate) dropped_unjustly: usize,
    pub(crate) withdrawals: u64,
    pub(crate) abandoned: u64,
    pub(crate) requests: u64,
    pub(crate) split_requests: u64,
    pub(crate) in_flight_most_bytes: u64,
    pub(crate) events: u64,
}

impl Outcome {
    pub(crate) fn all_finished(&self) -> bool {
        self.finished_seconds.iter().all(Option::is_some)
    }

    pub(crate) fn last_seconds(&self) -> f64 {
        self.finished_seconds
            .iter()
            .map(|seconds| seconds.unwrap_or(f64::INFINITY))
            .fold(0.0, f64::max)
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.last_seconds() / self.bound_seconds
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Join(usize),
    Leave(usize),
    Silence(usize),
    Wake(usize),
    Rejoin {
        node: usize,
        peer: usize,
    },
    HaveAll {
        to: usize,
        from: usize,
        bytes: Vec<u8>,
        queue: u64,
    },
    FlushNews(usize),
    Have {
        to: usize,
        from: usize,
        chunks: Vec<ChunkIndex>,
        queue: u64,
    },
    Request {
        server: usize,
        client: usize,
        request: RequestId,
        span: Span,
    },
    Withdraw {
        server: usize,
        client: usize,
        request: RequestId,
    },
    Withdrawn {
        client: usize,
        request: RequestId,
    },
    Abandon {
        server: usize,
        client: usize,
        request: RequestId,
    },
    Refused {
        client: usize,
        request: RequestId,
        kind: u8,
    },
    Reset {
        client: usize,
        request: RequestId,
    },
    UplinkFree(usize),
    Arrival {
        client: usize,
        server: usize,
        request: RequestId,
        bytes: u64,
        last: bool,
    },
    Delivery {
        client: usize,
        server: usize,
        request: RequestId,
        bytes: u64,
        last: bool,
    },
    Acknowledged {
        server: usize,
        client: usize,
        bytes: u64,
    },
    Trickle {
        server: usize,
        client: usize,
        request: RequestId,
        left: u64,
    },
}

impl Swarm {
    /// `leechers` equal nodes and a seed, who all start at once.
    pub(crate) fn equal(seed: u64, length: u64, leechers: usize, bytes_per_second: u64) -> Swarm {
        Swarm {
            seed,
            length,
            nodes: vec![(bytes_per_second, bytes_per_second, Behaviour::Honest); leechers + 1],
            latency: Duration::from_millis(1),
            neighbours: None,
            stagger: Duration::ZERO,
            have_batch: Duration::from_millis(20),
            tells_queue: false,
            sees_uplink: true,
            fetch: FetchConfig::default(),
            serve: ServeConfig::default(),
            deadline: Duration::from_secs(3600),
        }
    }

    pub(crate) fn run(&self) -> Outcome {
        Run::new(self).run()
    }
}

struct Run<'a> {
    swarm: &'a Swarm,
    chunks: Chunks,
    start: Instant,
    now: u64,
    latency: u64,
    nodes: Vec<Node>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    withdrawals: u64,
    abandoned: u64,
    requests: u64,
    split_requests: u64,
    dropped_corrupt: BTreeSet<usize>,
    dropped_unjustly: usize,
}

impl<'a> Run<'a> {
    fn new(swarm: &'a Swarm) -> Run<'a> {
        let chunks = Chunks::of_length(swarm.length);
        let mut rng = SmallRng::seed_from_u64(swarm.seed);
        let count = swarm.nodes.len();
        let mut neighbours: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
        for node in 0..count {
            let mut others: Vec<usize> = (0..count).filter(|&other| other != node).collect();
            if let Some(degree) = swarm.neighbours {
                others.shuffle(&mut rng);
                others.truncate(degree.div_ceil(2));
                others.push(0);
            }
            for other in others {
                if other != node {
                    neighbours[node].insert(other);
                    neighbours[other].insert(node);
                }
            }
        }
        let nodes = swarm
            .nodes
            .iter()
            .zip(neighbours)
            .enumerate()
            .map(|(at, (&(up, down, behaviour), neighbours))| {
                let fetches = at != 0 && !behaviour.is_hostile();
                let fetch = fetches.then(|| {
                    Fetch::new(
                        chunks,
                        Bitmap::new(chunks.count()),
                        swarm.fetch.clone(),
                        rng.random(),
                    )
                });
                Node {
                    behaviour,
                    fetch,
                    serve: Serve::new(swarm.serve.clone(), rng.random()),
                    uplink: Uplink {
                        bytes_per_second: up,
                        free_at: 0,
                    },
                    downlink: Downlink {
                        bytes_per_second: down,
                        free_at: 0,
                    },
                    neighbours: neighbours.into_iter().collect(),
                    is_there: false,
                    is_silent: behaviour == Behaviour::Mute,
                    keys: BTreeMap::new(),
                    nodes_by_key: BTreeMap::new(),
                    next_key: 0,
                    asked: BTreeMap::new(),
                    tickets: BTreeMap::new(),
                    responses: BTreeMap::new(),
                    turns: VecDeque::new(),
                    unacknowledged_bytes: BTreeMap::new(),
                    news: Vec::new(),
                    news_due: false,
                    advertised_queue_bytes: 0,
                    wake_at: None,
                    finished_at: None,
                    sent_bytes: 0,
                    delivered_bytes: 0,
                    in_flight_most_bytes: 0,
                }
            })
            .collect();
        Run {
            swarm,
            chunks,
            start: Instant::now(),
            now: 0,
            latency: swarm.latency.as_nanos() as u64,
            nodes,
            events: BinaryHeap::new(),
            sequence: 0,
            withdrawals: 0,
            abandoned: 0,
            requests: 0,
            split_requests: 0,
            dropped_corrupt: BTreeSet::new(),
            dropped_unjustly: 0,
        }
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events
            .push(Reverse((self.now + delay, self.sequence, event)));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now)
    }

    fn run(mut self) -> Outcome {
        let mut leechers = 0;
        for node in 0..self.nodes.len() {
            let behaviour = self.nodes[node].behaviour;
            let mut joins_at = 0;
            if self.nodes[node].fetch.is_some() {
                joins_at = self.swarm.stagger.as_nanos() as u64 * leechers;
                leechers += 1;
            }
            self.at(joins_at, Event::Join(node));
            match behaviour {
                Behaviour::LeavesAt(at) => self.at(at.as_nanos() as u64, Event::Leave(node)),
                Behaviour::StallsAt(at) => self.at(at.as_nanos() as u64, Event::Silence(node)),
                _ => {}
            }
        }
        let deadline = self.swarm.deadline.as_nanos() as u64;
        let mut count = 0;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > deadline || self.is_over() {
                break;
            }
            self.now = at;
            count += 1;
            self.handle(event);
        }
        self.outcome(count)
    }

    /// Those whose end is waited for.
    fn counts(node: &Node) -> bool {
        node.fetch.is_some() && node.behaviour == Behaviour::Honest
    }

    fn is_over(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| !Self::counts(node) || node.finished_at.is_some())
    }

    fn outcome(self, events: u64) -> Outcome {
        let length = self.swarm.length as f64;
        let counted: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|node| Self::counts(node))
            .collect();
        let seed_up = self.swarm.nodes[0].0 as f64;
        let up: f64 = counted
            .iter()
            .map(|node| node.uplink.bytes_per_second as f64)
            .sum();
        let down_least = counted
            .iter()
            .map(|node| node.downlink.bytes_per_second as f64)
            .fold(f64::INFINITY, f64::min);
        let bound = (length / seed_up)
            .max(length / down_least)
            .max(counted.len() as f64 * length / (seed_up + up));
        let delivered: u64 = counted.iter().map(|node| node.delivered_bytes).sum();
        Outcome {
            finished_seconds: counted
                .iter()
                .map(|node| node.finished_at.map(|at| at as f64 / SECOND_NS as f64))
                .collect(),
            bound_seconds: bound,
            waste: delivered as f64 / (counted.len() as f64 * length) - 1.0,
            seed_files: self.nodes[0].sent_bytes as f64 / length,
            dropped_corrupt: self.dropped_corrupt,
            dropped_unjustly: self.dropped_unjustly,
            withdrawals: self.withdrawals,
            abandoned: self.abandoned,
            requests: self.requests,
            split_requests: self.split_requests,
            in_flight_most_bytes: counted
                .iter()
                .map(|node| node.in_flight_most_bytes)
                .max()
                .unwrap_or(0),
            events,
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.instant();
        match event {
            Event::Join(node) => {
                self.nodes[node].is_there = true;
                for other in self.nodes[node].neighbours.clone() {
                    if self.nodes[other].is_there {
                        self.meet(node, other);
                        self.meet(other, node);
                    }
                }
            }
            Event::Rejoin { node, peer } => {
                if self.nodes[node].is_there && self.nodes[peer].is_there {
                    self.meet(node, peer);
                }
            }
            Event::Leave(node) => self.leave(node),
            Event::Silence(node) => self.nodes[node].is_silent = true,
            Event::Wake(node) => {
                if self.nodes[node].wake_at.is_some_and(|at| at <= self.now) {
                    self.nodes[node].wake_at = None;
                    if let Some(fetch) = &mut self.nodes[node].fetch {
                        fetch.handle_timeout(now);
                    }
                    self.pump_fetch(node);
                }
            }
            Event::HaveAll {
                to,
                from,
                bytes,
                queue,
            } => {
                let Some(chunks) = Bitmap::from_bytes(self.chunks.count(), &bytes) else {
                    return;
                };
                self.tell(to, from, |fetch, peer| {
                    fetch.handle_have_all(now, peer, chunks, queue);
                });
            }
            Event::FlushNews(node) => self.flush_news(node),
            Event::Have {
                to,
                from,
                chunks,
                queue,
            } => {
                self.tell(to, from, |fetch, peer| {
                    fetch.handle_have(now, peer, &chunks, queue);
                });
            }
            Event::Request {
                server,
                client,
                request,
                span,
            } => {
                self.handle_request(server, client, request, span);
            }
            Event::Withdraw {
                server,
                client,
                request,
            } => {
                if self.answers(server) {
                    let node = &mut self.nodes[server];
                    if let Some(&ticket) = node.tickets.get(&(client, request))
                        && node.serve.handle_withdraw(ticket)
                    {
                        node.tickets.remove(&(client, request));
                        self.at(self.latency, Event::Withdrawn { client, request });
                        self.pump_serve(server);
                    }
                }
            }
            Event::Withdrawn { client, request } => {
                self.report(client, request, true, |fetch| {
                    fetch.handle_withdrawn(now, request);
                });
            }
            Event::Abandon {
                server,
                client,
                request,
            } => self.handle_abandon(server, client, request),
            Event::Refused {
                client,
                request,
                kind,
            } => {
                let refusal = match kind {
                    0 => Refusal::NotHere,
                    1 => Refusal::NotYet,
                    2 => Refusal::Changed,
                    3 => Refusal::NotAllowed,
                    _ => Refusal::Busy {
                        retry_after: Duration::ZERO,
                    },
                };
                self.report(client, request, true, |fetch| {
                    fetch.handle_refused(now, request, refusal);
                });
            }
            Event::Reset { client, request } => {
                self.report(client, request, true, |fetch| {
                    fetch.handle_failed(now, request);
                });
            }
            Event::UplinkFree(node) => {
                self.pump_serve(node);
            }
            Event::Arrival {
                client,
                server,
                request,
                bytes,
                last,
            } => {
                let delivered = self.nodes[client].downlink.deliver(self.now, bytes);
                self.at(
                    delivered - self.now,
                    Event::Delivery {
                        client,
                        server,
                        request,
                        bytes,
                        last,
                    },
                );
            }
            Event::Delivery {
                client,
                server,
                request,
                bytes,
                last,
            } => {
                self.handle_delivery(client, server, request, bytes, last);
            }
            Event::Acknowledged {
                server,
                client,
                bytes,
            } => {
                let node = &mut self.nodes[server];
                if let Some(unacknowledged) = node.unacknowledged_bytes.get_mut(&client) {
                    *unacknowledged -= bytes;
                }
                self.pump_serve(server);
            }
            Event::Trickle {
                server,
                client,
                request,
                left,
            } => {
                let Behaviour::Trickles(pause) = self.nodes[server].behaviour else {
                    return;
                };
                let bytes = left.min(1024);
                let last = left <= bytes;
                self.at(
                    self.latency,
                    Event::Arrival {
                        client,
                        server,
                        request,
                        bytes,
                        last,
                    },
                );
                if !last {
                    let left = left - bytes;
                    self.at(
                        pause.as_nanos() as u64,
                        Event::Trickle {
                            server,
                            client,
                            request,
                            left,
                        },
                    );
                }
            }
        }
    }

    fn answers(&self, server: usize) -> bool {
        self.nodes[server].is_there && !self.nodes[server].is_silent
    }

    /// `node` connects to `peer` in order to fetch from it.
    fn meet(&mut self, node: usize, peer: usize) {
        let now = self.instant();
        let entry = &mut self.nodes[node];
        let Some(fetch) = &mut entry.fetch else {
            return;
        };
        let key = PeerKey(entry.next_key);
        entry.next_key += 1;
        if let Some(old) = entry.keys.insert(peer, key) {
            entry.nodes_by_key.remove(&old);
        }
        entry.nodes_by_key.insert(key, peer);
        fetch.handle_peer_joined(now, key);
        let bytes = self.nodes[peer].claims(self.chunks.count()).to_bytes();
        let queue = self.nodes[peer].serve.queue_bytes();
        self.at(
            self.latency,
            Event::HaveAll {
                to: node,
                from: peer,
                bytes,
                queue,
            },
        );
    }

    fn leave(&mut self, node: usize) {
        let now = self.instant();
        self.nodes[node].is_there = false;
        self.nodes[node].wake_at = None;
        for other in self.nodes[node].neighbours.clone() {
            let entry = &mut self.nodes[other];
            entry.serve.handle_client_left(now, PeerKey(node as u64));
            entry.tickets.retain(|(client, _), _| *client != node);
            entry
                .responses
                .retain(|_, response| response.client != node);
            let responses = &entry.responses;
            entry.turns.retain(|ticket| responses.contains_key(ticket));
            if let Some(key) = entry.keys.remove(&node) {
                entry.nodes_by_key.remove(&key);
                entry.asked.retain(|_, server| *server != node);
                if let Some(fetch) = &mut entry.fetch {
                    fetch.handle_peer_left(now, key);
                }
            }
            self.pump_fetch(other);
            self.pump_serve(other);
        }
    }

    fn tell(&mut self, to: usize, from: usize, news: impl FnOnce(&mut Fetch, PeerKey)) {
        let node = &mut self.nodes[to];
        if let (true, Some(fetch), Some(&key)) =
            (node.is_there, &mut node.fetch, node.keys.get(&from))
        {
            news(fetch, key);
            self.pump_fetch(to);
        }
    }

    /// An answer about a live request; `ends` it or not.
    fn report(
        &mut self,
        client: usize,
        request: RequestId,
        ends: bool,
        news: impl FnOnce(&mut Fetch),
    ) {
        let node = &mut self.nodes[client];
        if !node.is_there || !node.asked.contains_key(&request) {
            return;
        }
        if ends {
            node.asked.remove(&request);
        }
        if let Some(fetch) = &mut node.fetch {
            news(fetch);
        }
        self.pump_fetch(client);
    }

    fn pump_fetch(&mut self, node: usize) {
        let now = self.instant();
        if !self.nodes[node].is_there {
            return;
        }
        while let Some(action) = self.nodes[node]
            .fetch
            .as_mut()
            .and_then(|fetch| fetch.poll_action(now))
        {
            let entry = &mut self.nodes[node];
            match action {
                FetchAction::Request {
                    request,
                    peer,
                    span,
                } => {
                    self.requests += 1;
                    self.split_requests += u64::from(!span.is_whole(&self.chunks));
                    if let Some(&server) = entry.nodes_by_key.get(&peer) {
                        entry.asked.insert(request, server);
                        self.at(
                            self.latency,
                            Event::Request {
                                server,
                                client: node,
                                request,
                                span,
                            },
                        );
                    }
                }
                FetchAction::Withdraw { request } => {
                    self.withdrawals += 1;
                    if let Some(&server) = entry.asked.get(&request) {
                        self.at(
                            self.latency,
                            Event::Withdraw {
                                server,
                                client: node,
                                request,
                            },
                        );
                    }
                }
                FetchAction::Abandon { request } => {
                    self.abandoned += 1;
                    if let Some(server) = entry.asked.remove(&request) {
                        self.at(
                            self.latency,
                            Event::Abandon {
                                server,
                                client: node,
                                request,
                            },
                        );
                    }
                }
                FetchAction::DropPeer { peer, reason } => self.drop_peer(node, peer, reason),
            }
        }
        let entry = &mut self.nodes[node];
        let Some(fetch) = &entry.fetch else {
            return;
        };
        if fetch.is_complete() {
            if entry.finished_at.is_none() {
                entry.finished_at = Some(self.now);
            }
            return;
        }
        if let Some((at, _)) = fetch.poll_timeout() {
            let at = at.duration_since(self.start).as_nanos() as u64;
            let at = at.max(self.now + 1);
            if entry.wake_at.is_none_or(|before| at < before) {
                entry.wake_at = Some(at);
                self.at(at - self.now, Event::Wake(node));
            }
        }
    }

    fn drop_peer(&mut self, node: usize, peer: PeerKey, reason: DropReason) {
        let now = self.instant();
        let entry = &mut self.nodes[node];
        let Some(dropped) = entry.nodes_by_key.remove(&peer) else {
            return;
        };
        entry.keys.remove(&dropped);
        let gone: Vec<RequestId> = entry
            .asked
            .iter()
            .filter(|(_, server)| **server == dropped)
            .map(|(&request, _)| request)
            .collect();
        for request in gone {
            self.nodes[node].asked.remove(&request);
            self.at(
                self.latency,
                Event::Abandon {
                    server: dropped,
                    client: node,
                    request,
                },
            );
        }
        if let Some(fetch) = &mut self.nodes[node].fetch {
            fetch.handle_peer_left(now, peer);
        }
        if reason == DropReason::Corrupt {
            self.dropped_corrupt.insert(dropped);
        } else {
            self.dropped_unjustly +=
                usize::from(self.nodes[dropped].behaviour == Behaviour::Honest);
            self.at(
                REJOIN_NS,
                Event::Rejoin {
                    node,
                    peer: dropped,
                },
            );
        }
    }

    fn flush_news(&mut self, node: usize) {
        self.nodes[node].news_due = false;
        if !self.answers(node) {
            return;
        }
        let chunks = std::mem::take(&mut self.nodes[node].news);
        let queue = self.nodes[node].serve.queue_bytes();
        self.nodes[node].advertised_queue_bytes = queue;
        for to in self.nodes[node].neighbours.clone() {
            let listens = self.nodes[to].is_there
                && self.nodes[to].fetch.is_some()
                && self.nodes[to].finished_at.is_none();
            if listens {
                let chunks = chunks.clone();
                self.at(
                    self.latency,
                    Event::Have {
                        to,
                        from: node,
                        chunks,
                        queue,
                    },
                );
            }
        }
    }

    fn schedule_news(&mut self, node: usize) {
        if !self.nodes[node].news_due {
            self.nodes[node].news_due = true;
            let batch = self.swarm.have_batch.as_nanos() as u64;
            self.at(batch, Event::FlushNews(node));
        }
    }

    fn handle_request(&mut self, server: usize, client: usize, request: RequestId, span: Span) {
        if !self.answers(server) {
            return;
        }
        let size_bytes = span.size(&self.chunks);
        let refused = |kind| Event::Refused {
            client,
            request,
            kind,
        };
        match self.nodes[server].behaviour {
            Behaviour::Refuses(refusal) => {
                let kind = match refusal {
                    Refusal::NotHere => 0,
                    Refusal::NotYet => 1,
                    Refusal::Changed => 2,
                    Refusal::NotAllowed => 3,
                    Refusal::Busy { .. } => 4,
                };
                self.at(self.latency, refused(kind));
                return;
            }
            Behaviour::Resets => {
                let bytes = (size_bytes / 2).max(1);
                self.at(
                    self.latency,
                    Event::Arrival {
                        client,
                        server,
                        request,
                        bytes,
                        last: false,
                    },
                );
                self.at(2 * self.latency, Event::Reset { client, request });
                return;
            }
            Behaviour::Trickles(_) => {
                let left = size_bytes;
                self.at(
                    0,
                    Event::Trickle {
                        server,
                        client,
                        request,
                        left,
                    },
                );
                return;
            }
            _ => {}
        }
        let now = self.instant();
        let node = &mut self.nodes[server];
        if !node.claims(self.chunks.count()).contains(span.chunk) {
            self.at(self.latency, refused(0));
            return;
        }
        match node.serve.handle_request(
            now,
            PeerKey(client as u64),
            CONTENT,
            span.chunk,
            size_bytes,
        ) {
            Ok(ticket) => {
                node.tickets.insert((client, request), ticket);
                node.responses.insert(
                    ticket,
                    Response {
                        client,
                        request,
                        size_bytes,
                        sent_bytes: 0,
                        is_blocked: false,
                    },
                );
            }
            Err(_) => self.at(self.latency, refused(4)),
        }
        self.pump_serve(server);
    }

    fn handle_abandon(&mut self, server: usize, client: usize, request: RequestId) {
        let now = self.instant();
        let node = &mut self.nodes[server];
        if let Some(ticket) = node.tickets.remove(&(client, request)) {
            let response = node.responses.remove(&ticket);
            node.turns.retain(|other| *other != ticket);
            let sent_bytes = response.map_or(0, |response| response.sent_bytes);
            node.serve.handle_finished(now, ticket, sent_bytes);
            self.pump_serve(server);
        }
    }

    /// Bytes that may be unacknowledged between two nodes: one and a half times what the path
    /// holds, and 64 KiB.
    fn window_bytes(&self, server: usize, client: usize) -> u64 {
        let rate = self.nodes[server]
            .uplink
            .bytes_per_second
            .min(self.nodes[client].downlink.bytes_per_second);
        let path = u128::from(rate) * u128::from(2 * self.latency) / u128::from(SECOND_NS);
        path as u64 * 3 / 2 + 4 * BLOCK_BYTES
    }

    fn pump_serve(&mut self, server: usize) {
        if !self.answers(server) {
            return;
        }
        let now = self.instant();
        loop {
            self.update_blocked(server);
            while let Some(ticket) = self.nodes[server].serve.poll_start(now) {
                self.nodes[server].turns.push_back(ticket);
                self.update_blocked(server);
            }
            let is_busy = self.swarm.sees_uplink && self.nodes[server].uplink.free_at > self.now;
            if is_busy || !self.send_block(server) {
                break;
            }
        }
        let node = &self.nodes[server];
        let queue = node.serve.queue_bytes();
        if self.swarm.tells_queue && queue.abs_diff(node.advertised_queue_bytes) > queue / 4 {
            self.schedule_news(server);
        }
    }

    fn update_blocked(&mut self, server: usize) {
        let now = self.instant();
        for ticket in self.nodes[server].turns.clone() {
            let Some(response) = self.nodes[server].responses.get(&ticket) else {
                continue;
            };
            let client = response.client;
            let unacknowledged = self.nodes[server]
                .unacknowledged_bytes
                .get(&client)
                .copied()
                .unwrap_or(0);
            let is_blocked = unacknowledged + BLOCK_BYTES > self.window_bytes(server, client);
            let node = &mut self.nodes[server];
            let Some(response) = node.responses.get_mut(&ticket) else {
                continue;
            };
            if is_blocked != response.is_blocked {
                response.is_blocked = is_blocked;
                if is_blocked {
                    node.serve.handle_blocked(now, ticket);
                } else {
                    node.serve.handle_unblocked(now, ticket);
                }
            }
        }
    }

    /// Sends the next block of any response that may send; false if none may.
    fn send_block(&mut self, server: usize) -> bool {
        let now = self.instant();
        let latency = self.latency;
        let node = &mut self.nodes[server];
        let Some(at) = node.turns.iter().position(|ticket| {
            node.responses
                .get(ticket)
                .is_some_and(|response| !response.is_blocked)
        }) else {
            return false;
        };
        let Some(ticket) = node.turns.remove(at) else {
            return false;
        };
        let Some(response) = node.responses.get_mut(&ticket) else {
            return false;
        };
        let bytes = BLOCK_BYTES.min(response.size_bytes - response.sent_bytes);
        response.sent_bytes += bytes;
        let (client, request) = (response.client, response.request);
        let last = response.sent_bytes == response.size_bytes;
        *node.unacknowledged_bytes.entry(client).or_default() += bytes;
        node.sent_bytes += bytes;
        let send_ns = node.uplink.send(self.now, bytes) - self.now;
        if last {
            let sent_bytes = response.sent_bytes;
            node.responses.remove(&ticket);
            node.tickets.remove(&(client, request));
            node.serve.handle_finished(now, ticket, sent_bytes);
        } else {
            node.turns.push_back(ticket);
        }
        self.at(send_ns, Event::UplinkFree(server));
        self.at(
            send_ns + latency,
            Event::Arrival {
                client,
                server,
                request,
                bytes,
                last,
            },
        );
        true
    }

    fn handle_delivery(
        &mut self,
        client: usize,
        server: usize,
        request: RequestId,
        bytes: u64,
        last: bool,
    ) {
        let now = self.instant();
        self.at(
            self.latency,
            Event::Acknowledged {
                server,
                client,
                bytes,
            },
        );
        let node = &mut self.nodes[client];
        node.delivered_bytes += bytes;
        if !node.is_there || !node.asked.contains_key(&request) {
            return;
        }
        let is_rubbish = self.nodes[server].behaviour == Behaviour::Corrupt;
        let node = &mut self.nodes[client];
        let Some(fetch) = &mut node.fetch else {
            return;
        };
        fetch.handle_started(now, request);
        fetch.handle_progress(now, request, bytes);
        let mut news = None;
        if last {
            node.asked.remove(&request);
            fetch.handle_received(now, request);
            if is_rubbish {
                fetch.handle_corrupt(now, request);
            } else {
                news = fetch.handle_verified(now, request);
            }
            let in_flight = fetch.status().in_flight_bytes;
            node.in_flight_most_bytes = node.in_flight_most_bytes.max(in_flight);
        }
        if let Some(chunk) = news {
            node.news.push(chunk);
            self.schedule_news(client);
        }
        self.pump_fetch(client);
    }
}
