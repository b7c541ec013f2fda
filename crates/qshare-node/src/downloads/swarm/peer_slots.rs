//! Places for peers: whoever is of no use gives its place to somebody who may be.
//!
//! A download is connected to a bounded number of holders. In a swarm of hundreds these are a
//! sample, and what one of them was good for once (or only claimed to be) need not last: without
//! replacement the graph would freeze as it happened to begin, and peers who hold nothing could
//! keep the honest out for ever.

use std::time::{Duration, Instant};

use qshare_swarm::PeerKey;

use super::Swarm;

/// A peer that had nothing for us for this long, when others are waiting, loses its place. Long
/// enough for a node that has just joined to get its first chunks in a slow swarm.
const USELESS_AFTER: Duration = Duration::from_secs(3);

impl Swarm<'_> {
    /// Gives the places of useless peers to others, if there are others.
    pub(super) fn free_places(&mut self) {
        let now = Instant::now();
        let Some(fetch) = &self.fetch else { return };
        let idle: Vec<PeerKey> = fetch.idle_peers().collect();
        for (key, connected) in &mut self.peers {
            if !idle.contains(key) {
                connected.useful_at = now;
            }
        }
        let max = self.inner.limits.peers_per_download_max;
        let wanted = self.holders.wanted_places(now, max);
        if wanted == 0 {
            return;
        }
        let mut useless: Vec<(Instant, PeerKey)> = self
            .peers
            .iter()
            .filter(|(_, connected)| now.duration_since(connected.useful_at) >= USELESS_AFTER)
            .map(|(&key, connected)| (connected.useful_at, key))
            .collect();
        useless.sort_unstable();
        for (_, key) in useless.into_iter().take(wanted) {
            self.lose_peer(key, "it had nothing that is missing".into());
        }
    }

    /// A peer was of no use where nothing can be decided without it: it goes if others wait.
    pub(super) fn give_up_place(&mut self, key: PeerKey, cause: &str) {
        let max = self.inner.limits.peers_per_download_max;
        if self.holders.wanted_places(Instant::now(), max) > 0 {
            self.lose_peer(key, cause.to_owned());
        }
    }
}
