//! Fetches the chunk hashes, page by page, before anything else can be verified.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use qshare_content::{Hash, tree};
use qshare_net::framed;
use qshare_swarm::{DropReason, PeerKey};
use qshare_wire::peer::{HashRequest, Hashes};
use tokio::time::timeout;
use tracing::debug;

use super::Swarm;
use super::event::{ANSWER_DEADLINE, Event};
use crate::error::{AskError, SourceFault};

/// A peer that has not answered by then is hedged: another peer is asked for the same page.
const HEDGE_AFTER: Duration = Duration::from_secs(1);
/// Pause before a peer that had no hashes is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The received pages of chunk hashes, and the peers that were asked for the next page.
#[derive(Default)]
pub(super) struct HashPages {
    pages: Vec<Vec<Hash>>,
    /// Peers whose answer is outstanding.
    asked: HashSet<PeerKey>,
    /// Peers that were asked for the current page.
    tried: HashSet<PeerKey>,
    /// Peers that do not have the current page, as they said: they may wait for it themselves.
    without: HashSet<PeerKey>,
    /// The peer that delivered the last page.
    preferred: Option<PeerKey>,
    hedge_at: Option<Instant>,
    /// When to ask peers again that had no hashes.
    again_at: Option<Instant>,
    /// All pages have arrived.
    is_complete: bool,
}

impl HashPages {
    /// Returns when [`next_peer`](Self::next_peer) may return another peer.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.is_complete {
            true => None,
            false => [self.hedge_at, self.again_at].into_iter().flatten().min(),
        }
    }

    /// Returns the number of the current page.
    fn page(&self) -> u32 {
        self.pages.len() as u32
    }

    /// Returns the peer to ask for the current page now, preferably the one that delivered the last
    /// page. Marks the peer as asked.
    fn next_peer(
        &mut self,
        now: Instant,
        peers: impl Iterator<Item = PeerKey> + Clone,
    ) -> Option<PeerKey> {
        let is_waiting = !self.asked.is_empty() && self.hedge_at.is_some_and(|at| now < at);
        if self.is_complete || is_waiting || self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.again_at.take().is_some() {
            self.tried.clone_from(&self.asked);
        }
        let untried = |key: &PeerKey| !self.tried.contains(key);
        let preferred = self.preferred.filter(untried);
        let preferred = preferred.filter(|&key| peers.clone().any(|peer| peer == key));
        match preferred.or_else(|| peers.clone().find(untried)) {
            Some(key) => {
                self.asked.insert(key);
                self.tried.insert(key);
                self.hedge_at = Some(now + HEDGE_AFTER);
                Some(key)
            }
            None => {
                self.hedge_at = None;
                if self.asked.is_empty() && peers.clone().next().is_some() {
                    self.again_at = Some(now + AGAIN_AFTER);
                }
                None
            }
        }
    }

    /// Returns whether one of the connected peers may deliver the current page.
    pub(super) fn has_source(&self, mut peers: impl Iterator<Item = PeerKey>) -> bool {
        peers.any(|key| self.is_complete || !self.without.contains(&key))
    }

    /// Records that a peer failed to deliver the current page: the next peer is asked at once.
    fn handle_failed(&mut self, key: PeerKey) {
        self.asked.remove(&key);
        if self.asked.is_empty() {
            self.hedge_at = None;
        }
    }

    /// Records that a peer delivered the current page.
    fn handle_page(&mut self, key: PeerKey, hashes: Vec<Hash>) {
        self.pages.push(hashes);
        self.preferred = Some(key);
        self.asked.clear();
        self.tried.clear();
        self.without.clear();
        self.hedge_at = None;
    }

    /// Records that a peer was connected: it may have hashes.
    pub(super) fn peer_joined(&mut self) {
        self.again_at = None;
    }

    pub(super) fn peer_left(&mut self, key: PeerKey) {
        self.handle_failed(key);
        self.tried.remove(&key);
        self.without.remove(&key);
    }

    /// Returns all hashes once the last of `count` pages has arrived.
    fn take_complete(&mut self, count: u32) -> Option<Vec<Hash>> {
        if self.is_complete || self.page() < count {
            return None;
        }
        self.is_complete = true;
        Some(std::mem::take(&mut self.pages).concat())
    }
}

impl Swarm<'_> {
    /// Requests the next page of chunk hashes from a connected peer, if a request is due.
    pub(super) fn ask_for_hashes(&mut self) {
        if self.fetch.is_some() || self.is_reusing {
            return;
        }
        let page = self.hash_pages.page();
        let peers = self.peers.keys().copied();
        let Some(key) = self.hash_pages.next_peer(Instant::now(), peers) else {
            return;
        };
        let Some(connected) = self.peers.get(&key) else {
            return;
        };
        let request = HashRequest {
            content: self.access.wire_id(),
            page,
            extensions: Vec::new(),
        };
        let (peer, events) = (connected.peer.clone(), self.events.clone());
        let access = self.access.clone();
        self.tasks.spawn(async move {
            let _busy = peer.busy();
            let connection = peer.connection();
            let asked = async {
                peer.unlock(&connection, &access).await?;
                let asked = framed::ask::<HashRequest, Hashes>(&connection.connection, &request);
                let (hashes, ..) = asked.await.map_err(AskError::from)?;
                Ok(hashes)
            };
            let result = match timeout(ANSWER_DEADLINE, asked).await {
                Ok(result) => result,
                Err(_) => Err(AskError::TimedOut(ANSWER_DEADLINE).into()),
            };
            let _ = events
                .send(Event::Hashes {
                    peer: peer.key,
                    page,
                    result,
                })
                .await;
        });
    }

    pub(super) fn handle_hashes(
        &mut self,
        key: PeerKey,
        page: u32,
        result: Result<Hashes, SourceFault>,
    ) {
        // A hedged peer answered after the other one.
        if page != self.hash_pages.page() || self.hash_pages.is_complete {
            return;
        }
        let Some(connected) = self.peers.get(&key) else {
            return;
        };
        let hashes = match result {
            Ok(hashes) => hashes,
            Err(fault) => {
                debug!(peer = %connected.peer.node, %fault, "did not deliver chunk hashes");
                self.hash_pages.handle_failed(key);
                if fault.is_lacking() {
                    self.hash_pages.without.insert(key);
                }
                self.give_up_slot(key, fault);
                return;
            }
        };
        let root = &self.request.info.root;
        if !tree::verify_page(&self.chunks, root, page, &hashes.hashes, &hashes.path) {
            self.drop_peer(key, DropReason::Corrupt);
            return;
        }
        self.hash_pages.handle_page(key, hashes.hashes);
        let count = tree::page_count(&self.chunks);
        if let Some(hashes) = self.hash_pages.take_complete(count) {
            let (store, reuse) = (self.store.clone(), self.reuse.clone());
            self.spawn_write(move || {
                let kept = store.set_hashes(hashes);
                Event::HashesKept(kept.and_then(|verified| match &reuse {
                    Some(reuse) => store.reuse(reuse),
                    None => Ok(verified),
                }))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerKey = PeerKey(1);
    const B: PeerKey = PeerKey(2);
    const C: PeerKey = PeerKey(3);

    fn peers() -> impl Iterator<Item = PeerKey> + Clone {
        [A, B, C].into_iter()
    }

    #[test]
    fn the_peer_that_delivered_the_last_page_is_asked_for_the_next() {
        let now = Instant::now();
        let mut pages = HashPages::default();
        assert_eq!(pages.next_peer(now, peers()), Some(A));
        pages.handle_failed(A);
        assert_eq!(pages.next_peer(now, peers()), Some(B));
        pages.handle_page(B, vec![Hash([1; 32])]);
        assert_eq!(pages.next_peer(now, peers()), Some(B));
    }

    #[test]
    fn a_silent_peer_is_hedged_after_a_second() {
        let now = Instant::now();
        let mut pages = HashPages::default();
        assert_eq!(pages.next_peer(now, peers()), Some(A));
        assert_eq!(pages.poll_timeout(), Some(now + HEDGE_AFTER));
        let early = now + HEDGE_AFTER - Duration::from_millis(1);
        assert_eq!(pages.next_peer(early, peers()), None);
        assert_eq!(pages.next_peer(now + HEDGE_AFTER, peers()), Some(B));
        pages.handle_page(B, vec![Hash([1; 32])]);
        assert_eq!(pages.page(), 1);
    }

    #[test]
    fn a_peer_that_has_no_hashes_is_no_source_until_a_page_arrives() {
        let mut pages = HashPages::default();
        assert!(!pages.has_source([].into_iter()));
        assert!(pages.has_source([A].into_iter()));
        pages.without.insert(A);
        assert!(!pages.has_source([A].into_iter()));
        assert!(pages.has_source([A, B].into_iter()));
        pages.handle_page(B, vec![Hash([1; 32])]);
        assert!(pages.has_source([A].into_iter()));
        pages.without.insert(A);
        pages.peer_left(A);
        assert!(pages.has_source([A].into_iter()), "it may have them by now");
    }

    #[test]
    fn peers_without_hashes_are_asked_again_after_a_pause() {
        let now = Instant::now();
        let mut pages = HashPages::default();
        for key in [A, B, C] {
            assert_eq!(pages.next_peer(now, peers()), Some(key));
            pages.handle_failed(key);
        }
        assert_eq!(pages.next_peer(now, peers()), None);
        assert_eq!(pages.poll_timeout(), Some(now + AGAIN_AFTER));
        assert_eq!(pages.next_peer(now + AGAIN_AFTER, peers()), Some(A));
        assert_eq!(HashPages::default().next_peer(now, [].into_iter()), None);
    }

    #[test]
    fn all_hashes_are_returned_once() {
        let mut pages = HashPages::default();
        pages.handle_page(A, vec![Hash([1; 32])]);
        assert!(pages.take_complete(2).is_none());
        pages.handle_page(A, vec![Hash([2; 32])]);
        assert_eq!(pages.take_complete(2).map(|all| all.len()), Some(2));
        assert!(pages.take_complete(2).is_none());
        assert_eq!(pages.next_peer(Instant::now(), peers()), None);
    }
}
