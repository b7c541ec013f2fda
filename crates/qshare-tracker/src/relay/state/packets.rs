//! Datagrams: the ends of channels prove their addresses, and packets are forwarded within the
//! rates.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_wire::datagram::Datagram;
use subtle::ConstantTimeEq;
use tracing::debug;

use super::{BURST, COOKIE_SPAN, PACKET_MAX_BYTES, QUEUE_MAX_BYTES, Reply, State, key_of};

impl State {
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

    pub(in crate::relay) fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Reply {
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

    pub(in crate::relay) fn queue(
        &mut self,
        node: NodeId,
        to: SocketAddr,
        bytes: Vec<u8>,
    ) -> Reply {
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
    pub(in crate::relay) fn next_queued(
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

    pub(in crate::relay) fn count(&mut self, bytes: usize) {
        self.counts.forwarded_packets += 1;
        self.counts.forwarded_bytes += bytes as u64;
    }
}
