//! The downloading side of a simulated node. It turns its scheduler's actions into events, and
//! events into the scheduler's input.

use qshare_swarm::{DropReason, Fetch, FetchAction, PeerKey, RequestId};

use super::event::Event;
use super::node::Behaviour;
use super::run::Run;

/// Time after which a node reconnects to a peer that it dropped, unless the peer sent corrupt
/// chunks.
const REJOIN_NS: u64 = 5_000_000_000;

impl Run<'_> {
    /// Connects `node` to `peer`, to fetch from it.
    pub(super) fn meet(&mut self, node: usize, peer: usize) {
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

    pub(super) fn tell(&mut self, to: usize, from: usize, news: impl FnOnce(&mut Fetch, PeerKey)) {
        let node = &mut self.nodes[to];
        if let (true, Some(fetch), Some(&key)) =
            (node.is_there, &mut node.fetch, node.keys.get(&from))
        {
            news(fetch, key);
            self.pump_fetch(to);
        }
    }

    /// Reports an answer to a live request to the client's scheduler. `ends` says whether the
    /// answer ends the request.
    pub(super) fn report(
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

    pub(super) fn pump_fetch(&mut self, node: usize) {
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

    pub(super) fn drop_peer(&mut self, node: usize, peer: PeerKey, reason: DropReason) {
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

    pub(super) fn handle_delivery(
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
