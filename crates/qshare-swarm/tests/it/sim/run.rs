//! One run of a swarm: its clock, its event queue, and the nodes that join and leave.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, Chunks};
use qshare_swarm::{Fetch, PeerKey, Refusal, Serve};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::event::Event;
use super::link::{Downlink, Uplink};
use super::node::{Behaviour, Node};
use super::swarm::{Outcome, Swarm};

const SECOND_NS: u64 = 1_000_000_000;

pub(super) struct Run<'a> {
    pub(super) swarm: &'a Swarm,
    pub(super) chunks: Chunks,
    pub(super) start: Instant,
    pub(super) now: u64,
    pub(super) latency: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pub(super) sequence: u64,
    pub(super) withdrawals: u64,
    pub(super) abandoned: u64,
    pub(super) requests: u64,
    pub(super) split_requests: u64,
    pub(super) dropped_corrupt: BTreeSet<usize>,
    pub(super) dropped_unjustly: usize,
}

impl<'a> Run<'a> {
    pub(super) fn new(swarm: &'a Swarm) -> Run<'a> {
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
                    serve_wake_at: None,
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

    pub(super) fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events
            .push(Reverse((self.now + delay, self.sequence, event)));
    }

    pub(super) fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now)
    }

    pub(super) fn run(mut self) -> Outcome {
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

    /// Returns whether the run waits for this node to finish.
    pub(super) fn counts(node: &Node) -> bool {
        node.fetch.is_some() && node.behaviour == Behaviour::Honest
    }

    pub(super) fn is_over(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| !Self::counts(node) || node.finished_at.is_some())
    }

    pub(super) fn outcome(self, events: u64) -> Outcome {
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

    pub(super) fn handle(&mut self, event: Event) {
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
            Event::ServeTimeout(node) => {
                if self.nodes[node]
                    .serve_wake_at
                    .is_some_and(|at| at <= self.now)
                {
                    self.nodes[node].serve_wake_at = None;
                    self.pump_serve(node);
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

    pub(super) fn answers(&self, server: usize) -> bool {
        self.nodes[server].is_there && !self.nodes[server].is_silent
    }

    pub(super) fn leave(&mut self, node: usize) {
        let now = self.instant();
        self.nodes[node].is_there = false;
        self.nodes[node].wake_at = None;
        self.nodes[node].serve_wake_at = None;
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
}
