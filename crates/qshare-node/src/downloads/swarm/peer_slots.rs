//! The peer slots of a download: useless peers lose their slots to others.
//!
//! A download is connected to a bounded number of holders. In a swarm of hundreds, these are a
//! sample, and a peer that was useful once (or only claimed to be) may be useless later. Without
//! replacement, the graph would keep its first edges, and peers that hold nothing could lock out
//! honest ones permanently.

use std::time::{Duration, Instant};

use qshare_swarm::PeerKey;

use super::Swarm;
use crate::error::SourceFault;

/// A peer that held no missing chunk for this long loses its slot if other holders wait for one. A
/// node that has just joined a slow swarm gets its first chunks within this time.
const USELESS_AFTER: Duration = Duration::from_secs(3);

impl Swarm<'_> {
    /// Gives the slots of useless peers to waiting holders, if there are any.
    pub(super) fn free_slots(&mut self) {
        let now = Instant::now();
        let Some(fetch) = &self.fetch else { return };
        let idle: Vec<PeerKey> = fetch.idle_peers().collect();
        for (key, connected) in &mut self.peers {
            if !idle.contains(key) {
                connected.useful_at = now;
            }
        }
        let max = self.all.limits.peers_per_download_max;
        let wanted = self.holders.wanted_slots(now, max);
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
            self.lose_peer(key, SourceFault::NothingMissing);
        }
    }

    /// Gives up the slot of a peer that failed before the scheduler could judge it, if other
    /// holders wait for one.
    pub(super) fn give_up_slot(&mut self, key: PeerKey, fault: SourceFault) {
        let max = self.all.limits.peers_per_download_max;
        if self.holders.wanted_slots(Instant::now(), max) > 0 {
            self.lose_peer(key, fault);
        }
    }
}
