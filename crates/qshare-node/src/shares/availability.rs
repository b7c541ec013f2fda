//! Reports chunks of a download to other nodes, in batches, as they become available.
//!
//! [`Part`](qshare_storage::Part) records which chunks are verified. This module keeps no second
//! record of them, only the chunks that it has not reported yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex};
use qshare_swarm::PeerKey;
use tokio::sync::broadcast;
use tokio::time::sleep_until;

/// Batches that a slow subscriber may lag behind. A subscriber that lags further gets the whole
/// bitmap.
const BATCHES_KEPT: usize = 64;
/// After a batch, new chunks are collected for this long before the next one.
const BATCH: Duration = Duration::from_millis(20);

/// Broadcasts which chunks of one download became available.
pub(crate) struct Availability {
    pending: Mutex<Pending>,
    batches: broadcast::Sender<Arc<[ChunkIndex]>>,
    /// The chunks that each peer reported; they need not be reported to that peer.
    held_by_peer: Mutex<HashMap<PeerKey, Bitmap>>,
}

#[derive(Default)]
struct Pending {
    chunks: Vec<ChunkIndex>,
    last_batch_at: Option<Instant>,
}

impl Availability {
    pub(crate) fn new() -> Arc<Availability> {
        Arc::new(Availability {
            pending: Mutex::default(),
            batches: broadcast::Sender::new(BATCHES_KEPT),
            held_by_peer: Mutex::default(),
        })
    }

    /// Reports to subscribers that a chunk is verified and can be served. To be called once for
    /// each chunk.
    ///
    /// The first chunk is reported at once. Chunks that follow within 20 ms of a batch are
    /// collected and reported together, because waking each subscriber costs time and each message
    /// costs a packet.
    pub(crate) fn add(self: &Arc<Self>, chunk: ChunkIndex) {
        let mut pending = self.lock();
        pending.chunks.push(chunk);
        if pending.chunks.len() > 1 {
            return;
        }
        match pending.last_batch_at.map(|at| at + BATCH) {
            Some(due) if due > Instant::now() => {
                let availability = self.clone();
                tokio::spawn(async move {
                    sleep_until(due.into()).await;
                    availability.send(&mut availability.lock());
                });
            }
            _ => self.send(&mut pending),
        }
    }

    fn send(&self, pending: &mut Pending) {
        pending.last_batch_at = Some(Instant::now());
        let chunks = std::mem::take(&mut pending.chunks);
        // Without subscribers, there is nothing to send.
        let _ = self.batches.send(chunks.into());
    }

    /// Subscribes to the batches from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<[ChunkIndex]>> {
        self.batches.subscribe()
    }

    /// Returns whether a peer wants chunks of the download.
    pub(crate) fn has_subscribers(&self) -> bool {
        self.batches.receiver_count() > 0
    }

    /// Records all chunks that a peer has.
    pub(crate) fn set_held_by(&self, peer: PeerKey, chunks: Bitmap) {
        self.lock_held().insert(peer, chunks);
    }

    /// Records more chunks that a peer has. Ignored before [`set_held_by`](Self::set_held_by).
    pub(crate) fn add_held_by(&self, peer: PeerKey, chunks: &[ChunkIndex]) {
        if let Some(held) = self.lock_held().get_mut(&peer) {
            chunks.iter().for_each(|&chunk| _ = held.insert(chunk));
        }
    }

    /// Removes a peer.
    pub(crate) fn forget_peer(&self, peer: PeerKey) {
        self.lock_held().remove(&peer);
    }

    /// Returns those of `chunks` that a peer is not known to have.
    pub(crate) fn not_held_by(&self, peer: PeerKey, chunks: &[ChunkIndex]) -> Vec<ChunkIndex> {
        let held = self.lock_held();
        let held = held.get(&peer);
        let lacks = |chunk: &ChunkIndex| !held.is_some_and(|held| held.contains(*chunk));
        chunks.iter().copied().filter(lacks).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_held(&self) -> MutexGuard<'_, HashMap<PeerKey, Bitmap>> {
        let held = self.held_by_peer.lock();
        held.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_first_chunk_is_told_at_once_and_those_that_follow_together() {
        let availability = Availability::new();
        assert!(!availability.has_subscribers());
        let mut batches = availability.subscribe();
        assert!(availability.has_subscribers());
        availability.add(ChunkIndex(0));
        assert_eq!(&*batches.try_recv().unwrap(), [ChunkIndex(0)]);
        for chunk in 1..10 {
            availability.add(ChunkIndex(chunk));
        }
        assert!(batches.try_recv().is_err());
        let batch = timeout(DEADLINE, batches.recv()).await.unwrap().unwrap();
        assert_eq!(&*batch, (1..10).map(ChunkIndex).collect::<Vec<_>>());
        availability.add(ChunkIndex(50));
        let batch = timeout(DEADLINE, batches.recv()).await.unwrap().unwrap();
        assert_eq!(&*batch, [ChunkIndex(50)]);
    }

    #[test]
    fn a_peer_is_not_told_about_chunks_that_it_has() {
        let availability = Availability::new();
        let (a, b) = (PeerKey(1), PeerKey(2));
        let mut held = Bitmap::new(10);
        held.insert(ChunkIndex(1));
        availability.add_held_by(a, &[ChunkIndex(5)]);
        availability.set_held_by(a, held);
        availability.add_held_by(a, &[ChunkIndex(2)]);
        let batch = [ChunkIndex(1), ChunkIndex(2), ChunkIndex(3)];
        assert_eq!(availability.not_held_by(a, &batch), [ChunkIndex(3)]);
        assert_eq!(availability.not_held_by(b, &batch), batch);
        availability.forget_peer(a);
        assert_eq!(availability.not_held_by(a, &batch), batch);
    }
}
