//! The connected nodes: which connection is kept, which nodes are shunned, and how the receive
//! windows are shared.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_net::Pacing;
use qshare_swarm::PeerKey;
use tokio::sync::watch;

use super::connection::{Peer, PeerConnection};

/// Two dials crossed if they are within this time of each other. Otherwise the newer connection is
/// kept, because the older one may be dead unnoticed.
const CROSSING: Duration = Duration::from_secs(10);
/// A node that sent corrupt bytes of this many contents is shunned.
const LIES_MAX: u32 = 3;
/// Limit on the nodes whose corrupt bytes are remembered.
const LIARS_MAX: usize = 4096;

/// Largest receive window of one connection, in bytes. The bandwidth-delay product of 1 Gbit/s and
/// 100 ms is 12.5 MB, and data behind a lost packet of its stream is not read for another RTT. With
/// 16 MiB, one lost packet in a thousand costs a quarter of that rate.
const WINDOW_MAX_BYTES: u32 = 32 << 20;

/// The properties that decide which of two connections to one node is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) is_relayed: bool,
    /// Whether this node dialled.
    pub(super) is_dialled: bool,
    pub(super) since: Instant,
    /// Whether nothing is received on it although an answer is outstanding.
    pub(super) is_suspect: bool,
}

/// Whether the older of two connections to `node` is kept. A direct path replaces a relayed one. Of
/// two crossing dials, the direct one is kept, else the one from the smaller id. Otherwise the
/// newer connection is kept.
fn keeps_older(us: NodeId, node: NodeId, older: Claim, newer: Claim) -> bool {
    if older.is_suspect {
        return false;
    }
    let age = newer.since.saturating_duration_since(older.since);
    let crossed = older.is_dialled != newer.is_dialled && age < CROSSING;
    match (older.is_relayed, newer.is_relayed) {
        (true, false) => false,
        (false, true) => crossed,
        _ => {
            let dialler = |claim: Claim| if claim.is_dialled { us } else { node };
            crossed && dialler(older) < dialler(newer)
        }
    }
}

/// The result of inserting a connection.
pub(super) enum Inserted {
    /// It is the first connection of the node.
    New(Arc<Peer>),
    /// It replaced this connection.
    Replaced(Arc<Peer>, Arc<PeerConnection>),
    /// The older connection is kept.
    Refused,
}

#[derive(Default)]
struct Slot {
    /// Held by the task that dials; other tasks wait for its result.
    dialling: Arc<tokio::sync::Mutex<()>>,
    connected: Option<Arc<Peer>>,
}

/// All connected nodes.
pub(crate) struct PeerTable {
    us: NodeId,
    slots: Mutex<HashMap<NodeId, Slot>>,
    lies: Lies,
    next_key: AtomicU64,
    /// Counts connections, for tasks that wait for one.
    adopted: watch::Sender<u64>,
    /// The sum of the receive windows of all nodes that this node requests something from.
    windows_max_bytes: u32,
    pacing: Arc<Pacing>,
}

impl PeerTable {
    pub(crate) fn new(us: NodeId, windows_max_bytes: u32, pacing: Arc<Pacing>) -> PeerTable {
        PeerTable {
            us,
            slots: Mutex::default(),
            lies: Lies::default(),
            next_key: AtomicU64::new(1),
            adopted: watch::Sender::new(0),
            windows_max_bytes,
            pacing,
        }
    }

    /// Returns this node's id.
    pub(crate) fn us(&self) -> NodeId {
        self.us
    }

    /// Returns the number of connected nodes.
    pub(crate) fn count(&self) -> usize {
        self.lock()
            .values()
            .filter(|slot| slot.connected.is_some())
            .count()
    }

    /// Returns all connected peers, in no order.
    pub(crate) fn all_connected(&self) -> Vec<Arc<Peer>> {
        let slots = self.lock();
        let peers = slots.values().filter_map(|slot| slot.connected.clone());
        peers.collect()
    }

    /// Records that a node sent corrupt bytes of one more content.
    pub(crate) fn note_lie(&self, node: NodeId) {
        self.lies.note(node);
    }

    /// Whether a node is shunned, because it sent corrupt bytes of [`LIES_MAX`] contents.
    pub(crate) fn is_shunned(&self, node: &NodeId) -> bool {
        self.lies.is_shunned(node)
    }

    /// Returns a node if it is connected.
    pub(crate) fn connected(&self, node: &NodeId) -> Option<Arc<Peer>> {
        let slots = self.lock();
        let peer = slots.get(node)?.connected.clone()?;
        peer.connection().is_alive().then_some(peer)
    }

    /// Returns the lock that is held while a node is dialled.
    pub(super) fn dialling(&self, node: NodeId) -> Arc<tokio::sync::Mutex<()>> {
        self.lock().entry(node).or_default().dialling.clone()
    }

    /// Waits until a node is connected.
    pub(super) async fn appearance(&self, node: &NodeId) -> Arc<Peer> {
        let mut adopted = self.adopted.subscribe();
        loop {
            if let Some(peer) = self.connected(node) {
                return peer;
            }
            if adopted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Makes a connection the one to its node, unless an older one is kept.
    pub(super) fn insert(&self, node: NodeId, newer: Arc<PeerConnection>) -> Inserted {
        let mut slots = self.lock();
        let slot = slots.entry(node).or_default();
        let living = slot.connected.clone();
        let living = living.filter(|peer| peer.connection().is_alive());
        let inserted = match living {
            Some(peer) => {
                let older = peer.connection();
                if keeps_older(self.us, node, older.claim(), newer.claim()) {
                    return Inserted::Refused;
                }
                peer.replace_connection(newer);
                Inserted::Replaced(peer, older)
            }
            None => {
                let key = PeerKey(self.next_key.fetch_add(1, Ordering::Relaxed));
                let peer = Arc::new(Peer::new(key, self.us, node, newer));
                slot.connected = Some(peer.clone());
                Inserted::New(peer)
            }
        };
        drop(slots);
        self.adopted.send_modify(|count| *count += 1);
        inserted
    }

    /// Removes a peer whose connection was lost. Returns false if another connection has replaced
    /// that one, so that the peer stays.
    pub(super) fn remove(&self, peer: &Arc<Peer>, connection: &Arc<PeerConnection>) -> bool {
        let mut slots = self.lock();
        if !Arc::ptr_eq(&peer.connection(), connection) {
            return false;
        }
        if let Some(slot) = slots.get_mut(&peer.node)
            && slot
                .connected
                .as_ref()
                .is_some_and(|current| current.key == peer.key)
        {
            slot.connected = None;
        }
        true
    }

    /// Removes the entry of a node that is neither connected nor being dialled, so that the table
    /// does not grow with every node that was ever tried.
    pub(super) fn forget_if_empty(&self, node: &NodeId) {
        let mut slots = self.lock();
        // The references of the table and of the caller.
        let is_unused =
            |slot: &Slot| slot.connected.is_none() && Arc::strong_count(&slot.dialling) <= 2;
        if slots.get(node).is_some_and(is_unused) {
            slots.remove(node);
        }
    }

    /// Shares the receive windows among the peers that this node requests something from. Where
    /// receiving is limited, none is larger than the limit needs.
    pub(crate) fn share_windows(&self) {
        let slots = self.lock();
        let asked = slots
            .values()
            .filter_map(|slot| slot.connected.as_ref())
            .filter(|peer| peer.is_asked());
        let window = window_bytes(self.windows_max_bytes, asked.clone().count());
        for peer in asked {
            let connection = peer.connection();
            let needed = self.pacing.down.window_bytes(connection.shortest_rtt());
            let needed = u32::try_from(needed).unwrap_or(u32::MAX);
            connection.set_window(window.min(needed));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns each window if `shares` of them share a budget. The number of shares is rounded up to
/// a power of two, so that windows change rarely.
fn window_bytes(budget_bytes: u32, shares: usize) -> u32 {
    let shares = u32::try_from(shares.next_power_of_two()).unwrap_or(u32::MAX);
    (budget_bytes / shares).min(WINDOW_MAX_BYTES)
}

/// Number of contents of which each node sent corrupt bytes.
#[derive(Default)]
struct Lies {
    count_by_node: Mutex<HashMap<NodeId, u32>>,
}

impl Lies {
    fn note(&self, node: NodeId) {
        let mut counts = self.lock();
        if counts.len() < LIARS_MAX || counts.contains_key(&node) {
            *counts.entry(node).or_default() += 1;
        }
    }

    fn is_shunned(&self, node: &NodeId) -> bool {
        self.lock()
            .get(node)
            .is_some_and(|&count| count >= LIES_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, u32>> {
        let counts = self.count_by_node.lock();
        counts.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: NodeId = NodeId([1; 32]);
    const LARGE: NodeId = NodeId([2; 32]);

    fn claim(is_dialled: bool, since: Instant) -> Claim {
        Claim {
            is_relayed: false,
            is_dialled,
            since,
            is_suspect: false,
        }
    }

    #[test]
    fn both_ends_of_crossing_dials_keep_the_one_from_the_smaller_id() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        // Each side sees its own dial first or second; both must keep the same connection.
        for own_first in [true, false] {
            let (own, other) = match own_first {
                true => (claim(true, start), claim(false, start + second)),
                false => (claim(true, start + second), claim(false, start)),
            };
            let (older, newer) = match own_first {
                true => (own, other),
                false => (other, own),
            };
            let small_keeps_own = keeps_older(SMALL, LARGE, older, newer) == own_first;
            assert!(small_keeps_own, "the smaller id keeps its dial");
            let large_keeps_own = keeps_older(LARGE, SMALL, older, newer) == own_first;
            assert!(!large_keeps_own, "the larger id keeps the other's dial");
        }
    }

    #[test]
    fn dials_that_did_not_cross_are_won_by_the_newer() {
        let start = Instant::now();
        let older = claim(true, start);
        let late = claim(false, start + CROSSING);
        assert!(!keeps_older(SMALL, LARGE, older, late));
        // Two dials from the same side: that side considers the first connection dead.
        let again = claim(true, start + Duration::from_secs(1));
        assert!(!keeps_older(SMALL, LARGE, older, again));
    }

    #[test]
    fn a_direct_path_wins_over_a_relayed_one() {
        let start = Instant::now();
        let direct = claim(true, start);
        let relayed = |is_dialled| Claim {
            is_relayed: true,
            ..claim(is_dialled, start)
        };
        assert!(!keeps_older(SMALL, LARGE, relayed(true), direct));
        assert!(!keeps_older(LARGE, SMALL, relayed(false), direct));
        // A relayed dial that crossed a direct one loses. A later relayed dial has a reason, and
        // wins.
        assert!(keeps_older(LARGE, SMALL, direct, relayed(false)));
        assert!(!keeps_older(SMALL, LARGE, direct, relayed(true)));
    }

    #[test]
    fn a_suspect_connection_never_stays() {
        let start = Instant::now();
        let suspect = Claim {
            is_suspect: true,
            ..claim(true, start)
        };
        let crossing = claim(false, start + Duration::from_secs(1));
        assert!(keeps_older(SMALL, LARGE, claim(true, start), crossing));
        assert!(!keeps_older(SMALL, LARGE, suspect, crossing));
    }

    #[test]
    fn windows_together_stay_within_their_budget() {
        let budget = 64 << 20;
        for peers in 0..600 {
            let window = window_bytes(budget, peers);
            assert!(window <= WINDOW_MAX_BYTES);
            assert!(
                u64::from(window) * peers as u64 <= u64::from(budget),
                "{peers}"
            );
            // And no peer gets less than half of an equal share.
            assert!(peers < 4 || window >= budget / peers as u32 / 2, "{peers}");
        }
    }

    #[test]
    fn a_node_that_lied_about_three_contents_is_shunned() {
        let table = PeerTable::new(SMALL, 64 << 20, Arc::default());
        for lies in 0..LIES_MAX {
            assert!(!table.is_shunned(&LARGE), "after {lies}");
            table.note_lie(LARGE);
        }
        assert!(table.is_shunned(&LARGE) && !table.is_shunned(&SMALL));
    }

    #[test]
    fn nodes_that_were_only_tried_are_forgotten() {
        let table = PeerTable::new(SMALL, 64 << 20, Arc::default());
        let dialling = table.dialling(LARGE);
        let waiting = table.dialling(LARGE);
        table.forget_if_empty(&LARGE);
        assert_eq!(table.lock().len(), 1, "another task waits for the dial");
        drop(waiting);
        table.forget_if_empty(&LARGE);
        assert_eq!(table.lock().len(), 0);
        drop(dialling);
        assert!(table.connected(&LARGE).is_none());
    }
}
