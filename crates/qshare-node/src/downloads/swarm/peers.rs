//! The peers of a download: dialled, followed and dropped, and which chunks they have.

use std::sync::Arc;
use std::time::Instant;

use qshare_content::{Bitmap, ChunkIndex, NodeId};
use qshare_swarm::{DropReason, PeerKey};
use qshare_wire::Refused;
use qshare_wire::peer::Sending;
use tracing::debug;

use super::event::Event;
use super::follow::follow;
use super::{Connected, Swarm};
use crate::error::{AskError, SourceFault};
use crate::peers::Peer;

impl Swarm<'_> {
    /// Dials more holders, up to the limit.
    pub(super) fn dial(&mut self) {
        let max = self.all.limits.peers_per_download_max;
        while let Some((node, addresses)) = self.holders.next_to_dial(Instant::now(), max) {
            let (dialler, events) = (self.all.dialler.clone(), self.events.clone());
            self.tasks.spawn(async move {
                let result = dialler.reach(node, &addresses).await;
                let _ = events.send(Event::Reached { node, result }).await;
            });
        }
    }

    /// Starts to follow a node that was reached.
    pub(super) fn welcome(&mut self, node: NodeId, peer: Arc<Peer>) {
        self.holders.connected(&node);
        if let Some(fetch) = &mut self.fetch {
            fetch.handle_peer_joined(Instant::now(), peer.key);
        }
        let follow = self.tasks.spawn(follow(
            peer.clone(),
            self.access.clone(),
            self.chunks.count(),
            self.events.clone(),
        ));
        let connected = Connected {
            peer: peer.clone(),
            have: None,
            follow,
            useful_at: Instant::now(),
            sending: Sending::default(),
        };
        self.peers.insert(peer.key, connected);
        self.hash_pages.peer_joined();
    }

    /// Records the complete set of chunks that a peer has. The set decides what the scheduler
    /// requests from the peer, and which new chunks this node reports to it.
    pub(super) fn set_held_by(
        &mut self,
        now: Instant,
        peer: PeerKey,
        chunks: Bitmap,
        queue_bytes: u64,
    ) {
        let Some(connected) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some(partial) = &self.partial {
            partial.availability.set_held_by(peer, chunks.clone());
        }
        match &mut self.fetch {
            Some(fetch) => fetch.handle_have_all(now, peer, chunks, queue_bytes),
            None => connected.have = Some((chunks, queue_bytes)),
        }
    }

    /// Records more chunks that a peer has.
    pub(super) fn add_held_by(
        &mut self,
        now: Instant,
        peer: PeerKey,
        chunks: &[ChunkIndex],
        queue_bytes: u64,
    ) {
        let Some(connected) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some(partial) = &self.partial {
            partial.availability.add_held_by(peer, chunks);
        }
        match (&mut self.fetch, &mut connected.have) {
            (Some(fetch), _) => fetch.handle_have(now, peer, chunks, queue_bytes),
            (None, Some((have, queue))) => {
                chunks.iter().for_each(|&chunk| _ = have.insert(chunk));
                *queue = queue_bytes;
            }
            (None, None) => {}
        }
    }

    pub(super) fn drop_peer(&mut self, key: PeerKey, reason: DropReason) {
        let Some(connected) = self.peers.get(&key) else {
            return;
        };
        let node = connected.peer.node;
        debug!(peer = %node, ?reason, "dropped");
        if reason == DropReason::Corrupt {
            self.holders.ban(&node);
            self.all.blame.corrupt(node, self.content);
        }
        self.lose_peer(key, SourceFault::Dropped(reason));
    }

    /// Removes a peer that is gone or no longer wanted. Spans that it has sent in full are still
    /// verified.
    pub(super) fn lose_peer(&mut self, key: PeerKey, fault: SourceFault) {
        let Some(connected) = self.peers.remove(&key) else {
            return;
        };
        let fault = match self.changed.remove(&key) {
            true => AskError::Refused(Refused::new(qshare_wire::Refusal::Changed)).into(),
            false => fault,
        };
        self.given_up.remove(&key);
        connected.follow.abort();
        if let Some(partial) = &self.partial {
            partial.availability.forget_peer(key);
        }
        self.hash_pages.peer_left(key);
        self.running.retain(|_, running| {
            let stays = running.peer != key || running.received;
            if !stays {
                running.task.abort();
            }
            stays
        });
        if let Some(fetch) = &mut self.fetch {
            fetch.handle_peer_left(Instant::now(), key);
        }
        self.holders
            .failed(&connected.peer.node, Instant::now(), fault);
    }
}
