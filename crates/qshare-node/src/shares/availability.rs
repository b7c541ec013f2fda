//! Which chunks of a download can be served, and telling others batch by batch as there are more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex};
use qshare_swarm::PeerKey;
use tokio::sync::broadcast;
use tokio::time::sleep_until;

/// Batches that a slow listener may lag behind before it is told all chunks anew.
const NEWS_KEPT: usize = 64;
/// After something was told, what is new is collected for this long.
const BATCH: Duration = Duration::from_millis(20);

/// What can be served of a download, and what is news to whom.
pub(crate) struct Availability {
    state: Mutex<State>,
    news: broadcast::Sender<Arc<[ChunkIndex]>>,
    /// What those have whom we fetch from: it is no news to them.
    theirs: Mutex<HashMap<PeerKey, Bitmap>>,
}

struct State {
    verified: Bitmap,
    /// What was not told yet.
    fresh: Vec<ChunkIndex>,
    told_at: Option<Instant>,
}

impl Availability {
    pub(crate) fn new(verified: Bitmap) -> Availability {
        Availability {
            state: Mutex::new(State {
                verified,
                fresh: Vec::new(),
                told_at: None,
            }),
            news: broadcast::Sender::new(NEWS_KEPT),
            theirs: Mutex::default(),
        }
    }

    /// A chunk was verified and written, and can be served. It is told at once, or within 20 ms of
    /// what was told before with all others of that time, collected once for everybody: each
    /// listener that is woken costs time, and each message a packet.
    pub(crate) fn add(self: &Arc<Self>, chunk: ChunkIndex) {
        let mut state = self.lock();
        if !state.verified.insert(chunk) {
            return;
        }
        state.fresh.push(chunk);
        if state.fresh.len() > 1 {
            return;
        }
        match state.told_at.map(|at| at + BATCH) {
            Some(due) if due > Instant::now() => {
                let have = self.clone();
                tokio::spawn(async move {
                    sleep_until(due.into()).await;
                    have.tell(&mut have.lock());
                });
            }
            _ => self.tell(&mut state),
        }
    }

    fn tell(&self, state: &mut State) {
        state.told_at = Some(Instant::now());
        let fresh = std::mem::take(&mut state.fresh);
        let _ = self.news.send(fresh.into());
    }

    pub(crate) fn contains(&self, chunk: ChunkIndex) -> bool {
        self.lock().verified.contains(chunk)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.lock().verified.is_full()
    }

    /// What can be served now, and batch by batch what is added from now on. What was added
    /// shortly before may be told again.
    pub(crate) fn subscribe(&self) -> (Bitmap, broadcast::Receiver<Arc<[ChunkIndex]>>) {
        let state = self.lock();
        (state.verified.clone(), self.news.subscribe())
    }

    /// A peer tells all that it has.
    pub(crate) fn peer_has_all(&self, peer: PeerKey, chunks: Bitmap) {
        self.lock_theirs().insert(peer, chunks);
    }

    /// A peer tells what else it has.
    pub(crate) fn peer_has(&self, peer: PeerKey, chunks: &[ChunkIndex]) {
        if let Some(theirs) = self.lock_theirs().get_mut(&peer) {
            chunks.iter().for_each(|&chunk| _ = theirs.insert(chunk));
        }
    }

    /// A peer is gone, or not listened to any more.
    pub(crate) fn peer_left(&self, peer: PeerKey) {
        self.lock_theirs().remove(&peer);
    }

    /// Those of `chunks` that a peer does not have, as far as it has told us.
    pub(crate) fn news_to(&self, peer: PeerKey, chunks: &[ChunkIndex]) -> Vec<ChunkIndex> {
        let theirs = self.lock_theirs();
        let theirs = theirs.get(&peer);
        let is_news = |chunk: &ChunkIndex| !theirs.is_some_and(|theirs| theirs.contains(*chunk));
        chunks.iter().copied().filter(is_news).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_theirs(&self) -> MutexGuard<'_, HashMap<PeerKey, Bitmap>> {
        self.theirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_first_is_told_at_once_and_what_follows_quickly_together() {
        let have = Arc::new(Availability::new(Bitmap::new(100)));
        let (_, mut news) = have.subscribe();
        have.add(ChunkIndex(0));
        assert_eq!(&*news.try_recv().unwrap(), [ChunkIndex(0)]);
        for chunk in 1..10 {
            have.add(ChunkIndex(chunk));
        }
        assert!(news.try_recv().is_err());
        let (verified, _) = have.subscribe();
        assert!(verified.contains(ChunkIndex(9)));
        let batch = timeout(DEADLINE, news.recv()).await.unwrap().unwrap();
        assert_eq!(&*batch, (1..10).map(ChunkIndex).collect::<Vec<_>>());
        have.add(ChunkIndex(3));
        have.add(ChunkIndex(50));
        let batch = timeout(DEADLINE, news.recv()).await.unwrap().unwrap();
        assert_eq!(&*batch, [ChunkIndex(50)]);
    }

    #[test]
    fn what_a_peer_has_is_no_news_to_it() {
        let have = Availability::new(Bitmap::new(10));
        let (a, b) = (PeerKey(1), PeerKey(2));
        let mut theirs = Bitmap::new(10);
        theirs.insert(ChunkIndex(1));
        have.peer_has(a, &[ChunkIndex(5)]);
        have.peer_has_all(a, theirs);
        have.peer_has(a, &[ChunkIndex(2)]);
        let batch = [ChunkIndex(1), ChunkIndex(2), ChunkIndex(3)];
        assert_eq!(have.news_to(a, &batch), [ChunkIndex(3)]);
        assert_eq!(have.news_to(b, &batch), batch);
        have.peer_left(a);
        assert_eq!(have.news_to(a, &batch), batch);
    }
}
