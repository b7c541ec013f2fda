//! The serving side of a simulated node: `have` messages, requests, and answers in blocks.

use qshare_content::ContentId;
use qshare_swarm::{PeerKey, Refusal, RequestId, Span};

use super::event::Event;
use super::node::{Behaviour, Response};
use super::run::Run;

const SECOND_NS: u64 = 1_000_000_000;
const CONTENT: ContentId = ContentId([7; 32]);

impl Run<'_> {
    pub(super) fn flush_news(&mut self, node: usize) {
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

    pub(super) fn schedule_news(&mut self, node: usize) {
        if !self.nodes[node].news_due {
            self.nodes[node].news_due = true;
            let batch = self.swarm.have_batch.as_nanos() as u64;
            self.at(batch, Event::FlushNews(node));
        }
    }

    pub(super) fn handle_request(
        &mut self,
        server: usize,
        client: usize,
        request: RequestId,
        span: Span,
    ) {
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

    pub(super) fn handle_abandon(&mut self, server: usize, client: usize, request: RequestId) {
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

    /// Returns the window between two nodes, in bytes that may be unacknowledged: one and a half
    /// times the bandwidth-delay product of the path, plus four blocks (64 KiB by default).
    pub(super) fn window_bytes(&self, server: usize, client: usize) -> u64 {
        let rate = self.nodes[server]
            .uplink
            .bytes_per_second
            .min(self.nodes[client].downlink.bytes_per_second);
        let path = u128::from(rate) * u128::from(2 * self.latency) / u128::from(SECOND_NS);
        path as u64 * 3 / 2 + 4 * self.swarm.block_bytes
    }

    pub(super) fn pump_serve(&mut self, server: usize) {
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
        self.plan_serve_timeout(server);
        let node = &self.nodes[server];
        let queue = node.serve.queue_bytes();
        if self.swarm.tells_queue && queue.abs_diff(node.advertised_queue_bytes) > queue / 4 {
            self.schedule_news(server);
        }
    }

    /// Wakes the serving scheduler at its own time-out, as a real node does.
    fn plan_serve_timeout(&mut self, server: usize) {
        let node = &mut self.nodes[server];
        let Some((at, _)) = node.serve.poll_timeout() else {
            return;
        };
        let at = at.duration_since(self.start).as_nanos() as u64;
        let at = at.max(self.now + 1);
        if node.serve_wake_at.is_none_or(|before| at < before) {
            node.serve_wake_at = Some(at);
            self.at(at - self.now, Event::ServeTimeout(server));
        }
    }

    pub(super) fn update_blocked(&mut self, server: usize) {
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
            let is_blocked =
                unacknowledged + self.swarm.block_bytes > self.window_bytes(server, client);
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

    /// Sends the next block of the first response that is not blocked. Returns false if none is
    /// unblocked.
    pub(super) fn send_block(&mut self, server: usize) -> bool {
        let now = self.instant();
        let (latency, block_bytes) = (self.latency, self.swarm.block_bytes);
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
        let bytes = block_bytes.min(response.size_bytes - response.sent_bytes);
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
}
