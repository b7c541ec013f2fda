//! Admission of incoming connections: bounded in number, and shared fairly between networks.
//!
//! Identities are free, so connections are shared out by [`Network`]. The shares matter only when
//! all slots are taken. A newcomer from a network with fewer connections then evicts a connection
//! of the network with the most: the one that has been idle longest.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::Network;
use quinn::Incoming;
use tokio::sync::Notify;
use tracing::debug;

use crate::session::{AcceptError, Greeting, Session, accept};

/// How long a connection may take from its first packet to its Hello before a newcomer of the same
/// network may replace it: several RTTs of a slow path.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// Idle connections that are considered for eviction when no network exceeds its share.
const CANDIDATES_MAX: usize = 32;

/// Admits incoming connections up to their Hello, a bounded number at once.
#[derive(Debug, Clone)]
pub struct Admission {
    half_open: ConnectionSlots,
}

impl Admission {
    /// At most `half_open_max` connections may be between their first packet and their Hello.
    pub fn new(half_open_max: usize) -> Admission {
        Admission {
            half_open: ConnectionSlots::new(half_open_max, HANDSHAKE_GRACE),
        }
    }

    /// Gives an incoming connection a slot. Otherwise, refuses the connection or asks it to prove
    /// its address first (QUIC Retry, RFC 9000 section 8.1.2), and returns None.
    ///
    /// When half of all slots are taken, every address must be proven, so that connections from
    /// forged addresses take no slots.
    pub fn admit(&self, incoming: Incoming) -> Option<HalfOpen> {
        let from = incoming.remote_address();
        let is_busy = self.half_open.len() >= self.half_open.max().div_ceil(2);
        if is_busy && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            return None;
        }
        match self.half_open.take(Instant::now(), Network::of(from.ip())) {
            Some(slot) => Some(HalfOpen { incoming, slot }),
            None => {
                debug!(%from, "refused: too many half-open connections");
                incoming.refuse();
                None
            }
        }
    }
}

/// An incoming connection that has a slot and has not sent its Hello yet.
pub struct HalfOpen {
    incoming: Incoming,
    slot: Slot,
}

impl HalfOpen {
    /// Returns the address from which the connection comes.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Performs the handshake and exchanges Hellos; see [`accept`]. Frees the slot afterwards.
    ///
    /// # Errors
    ///
    /// Those of [`accept`], and [`AcceptError::Evicted`] if the slot went to another connection.
    pub async fn greet(self, us: NodeId, greeting: &Greeting) -> Result<Session, AcceptError> {
        tokio::select! {
            session = accept(us, greeting, self.incoming) => session,
            () = self.slot.evicted() => Err(AcceptError::Evicted),
        }
    }
}

impl fmt::Debug for HalfOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HalfOpen")
            .field("from", &self.remote_address())
            .finish()
    }
}

/// A bounded number of slots for connections. Clones share the slots.
///
/// A tracker counts its own connections only, also where it shares a registry with others. A slot
/// stands for memory and handshakes of this process, which connections elsewhere do not take, and
/// admission must not wait for another machine. Where a tracker is full, the heaviest network there
/// yields, so a network that fills all trackers keeps nobody out of any of them. What nodes then
/// hold in the registry (sessions that announce, entries, mailboxes) counts over all trackers.
#[derive(Clone)]
pub struct ConnectionSlots {
    max: usize,
    grace: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    slots: HashMap<u64, Entry>,
    networks: HashMap<Network, Members>,
    networks_by_count: BTreeSet<(usize, Network)>,
    /// Slots that may be evicted, by the time since which they have been idle.
    idle: BTreeSet<(Instant, u64)>,
}

struct Entry {
    network: Network,
    idle_since: Instant,
    /// Number of running uses; a slot in use is not evicted.
    uses: usize,
    evicted: Arc<Notify>,
}

/// The slots of one network.
#[derive(Default)]
struct Members {
    count: usize,
    idle: BTreeSet<(Instant, u64)>,
}

impl ConnectionSlots {
    /// Creates `max` slots. If no network has more slots than the newcomer's would have, a
    /// connection is evicted only once it has been idle for `grace`.
    pub fn new(max: usize, grace: Duration) -> ConnectionSlots {
        ConnectionSlots {
            max,
            grace,
            state: Arc::default(),
        }
    }

    /// Returns how many slots are taken.
    #[expect(
        clippy::len_without_is_empty,
        reason = "nobody asks whether there is none"
    )]
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Returns how many slots there are.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Takes a slot for a connection from `network`. If all are taken, evicts another connection,
    /// which learns of it through [`Slot::evicted`]. Returns None if no connection may be evicted.
    pub fn take(&self, now: Instant, network: Network) -> Option<Slot> {
        let mut state = self.lock();
        if state.slots.len() >= self.max {
            let victim = state.victim(now, network, self.grace)?;
            if let Some(entry) = state.remove(victim) {
                debug!(network = %entry.network, "evicted for a connection of {network}");
                entry.evicted.notify_one();
            }
        }
        let id = state.next_id;
        state.next_id += 1;
        let evicted = Arc::new(Notify::new());
        state.insert(id, network, now, Arc::clone(&evicted));
        Some(Slot {
            state: Arc::clone(&self.state),
            id,
            evicted,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ConnectionSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSlots")
            .field("max", &self.max)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl State {
    /// Returns the slot to evict for a newcomer. That is the longest idle slot of the network with
    /// the most slots, if the network then still has at least as many as the newcomer's. Otherwise,
    /// it is a slot that has been idle for `grace`, in a network that has no fewer slots than the
    /// newcomer's.
    fn victim(&self, now: Instant, newcomer: Network, grace: Duration) -> Option<u64> {
        let own = self.count(newcomer);
        let fuller = self
            .networks_by_count
            .iter()
            .rev()
            .take_while(|&&(count, _)| count > own + 1)
            .take(CANDIDATES_MAX);
        let longest_idle = |&(_, network): &(usize, Network)| {
            let members = self.networks.get(&network)?;
            members.idle.first().map(|&(_, id)| id)
        };
        fuller.filter_map(longest_idle).next().or_else(|| {
            self.idle
                .iter()
                .take(CANDIDATES_MAX)
                .take_while(|&&(since, _)| now.saturating_duration_since(since) >= grace)
                .map(|&(_, id)| id)
                .find(|id| {
                    let entry = self.slots.get(id);
                    entry.is_some_and(|entry| self.count(entry.network) >= own)
                })
        })
    }

    fn count(&self, network: Network) -> usize {
        self.networks
            .get(&network)
            .map_or(0, |members| members.count)
    }

    fn set_count(&mut self, network: Network, change: impl FnOnce(usize) -> usize) {
        let members = self.networks.entry(network).or_default();
        self.networks_by_count.remove(&(members.count, network));
        members.count = change(members.count);
        if members.count > 0 {
            self.networks_by_count.insert((members.count, network));
        } else {
            self.networks.remove(&network);
        }
    }

    fn insert(&mut self, id: u64, network: Network, now: Instant, evicted: Arc<Notify>) {
        self.set_count(network, |count| count + 1);
        let entry = Entry {
            network,
            idle_since: now,
            uses: 0,
            evicted,
        };
        self.slots.insert(id, entry);
        self.set_idle(id, Some(now));
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        self.set_idle(id, None);
        let entry = self.slots.remove(&id)?;
        self.set_count(entry.network, |count| count.saturating_sub(1));
        Some(entry)
    }

    /// Makes a slot evictable, idle since `since`, or not evictable.
    fn set_idle(&mut self, id: u64, since: Option<Instant>) {
        let Some(entry) = self.slots.get_mut(&id) else {
            return;
        };
        let Some(members) = self.networks.get_mut(&entry.network) else {
            return;
        };
        let before = (entry.idle_since, id);
        self.idle.remove(&before);
        members.idle.remove(&before);
        if let Some(since) = since {
            entry.idle_since = since;
            self.idle.insert((since, id));
            members.idle.insert((since, id));
        }
    }
}

/// A connection's slot. Dropping it frees the slot.
pub struct Slot {
    state: Arc<Mutex<State>>,
    id: u64,
    evicted: Arc<Notify>,
}

impl Slot {
    /// Records that the connection was used just now. Returns how many slots its network has.
    pub fn touch(&self, now: Instant) -> usize {
        let mut state = self.lock();
        let Some(slot) = state.slots.get(&self.id) else {
            return 0;
        };
        let of_network = state.count(slot.network);
        if slot.uses == 0 {
            state.set_idle(self.id, Some(now));
        }
        of_network
    }

    /// Protects the connection from eviction until the result is dropped. From then on, the
    /// connection counts as idle. Several uses may overlap.
    pub fn begin_use(self: &Arc<Self>) -> InUse {
        let mut state = self.lock();
        if let Some(entry) = state.slots.get_mut(&self.id) {
            entry.uses += 1;
            state.set_idle(self.id, None);
        }
        InUse {
            slot: Arc::clone(self),
        }
    }

    /// Waits until the slot was given to another connection. The caller then closes this one with
    /// [`qshare_wire::CloseCode::Busy`]. For one waiter; cancel safe.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
        // A later call must return at once, too.
        self.evicted.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).finish()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.lock().remove(self.id);
    }
}

/// A use of a connection, which protects it from eviction.
#[derive(Debug)]
pub struct InUse {
    slot: Arc<Slot>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.slot.lock();
        if let Some(entry) = state.slots.get_mut(&self.slot.id) {
            entry.uses -= 1;
            if entry.uses == 0 {
                state.set_idle(self.slot.id, Some(Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn network(third: u8) -> Network {
        Network::of([203, 0, third, 1].into())
    }

    fn is_evicted(slot: &Slot) -> bool {
        let mut waiting = std::pin::pin!(slot.evicted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        waiting.as_mut().poll(&mut context).is_ready()
    }

    fn fill(slots: &ConnectionSlots, now: Instant, network: Network) -> Vec<Slot> {
        let taken = std::iter::from_fn(|| {
            (slots.len() < slots.max()).then(|| slots.take(now, network).unwrap())
        });
        taken.collect()
    }

    #[test]
    fn one_network_may_have_all_slots_while_nobody_else_wants_them() {
        let slots = ConnectionSlots::new(512, GRACE);
        let now = Instant::now();
        assert_eq!(fill(&slots, now, network(1)).len(), 512);
        assert_eq!(slots.len(), 0, "dropped slots are free");
    }

    #[test]
    fn the_longest_idle_of_the_fullest_network_yields_to_a_newcomer() {
        let slots = ConnectionSlots::new(4, GRACE);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let modest = slots.take(start, network(2)).unwrap();
        let full: Vec<Slot> = (1..4)
            .map(|second| slots.take(at(second), network(1)).unwrap())
            .collect();
        full[0].touch(at(4));
        let newcomer = slots.take(at(5), network(3)).unwrap();
        assert_eq!(
            full.iter().map(is_evicted).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(!is_evicted(&modest) && !is_evicted(&newcomer));
        assert_eq!(slots.len(), 4);
        drop(full);
        assert_eq!(slots.len(), 2, "an evicted slot is freed once");
    }

    #[test]
    fn a_network_does_not_push_out_others_beyond_its_share() {
        let slots = ConnectionSlots::new(8, GRACE);
        let now = Instant::now();
        let first = fill(&slots, now, network(1));
        let mut second = Vec::new();
        while let Some(slot) = slots.take(now, network(2)) {
            second.push(slot);
        }
        let left = first.iter().filter(|slot| !is_evicted(slot)).count();
        assert_eq!((left, second.len()), (4, 4));
    }

    #[test]
    fn a_connection_in_use_is_not_evicted() {
        let slots = ConnectionSlots::new(2, GRACE);
        let now = Instant::now();
        let full: Vec<Arc<Slot>> = fill(&slots, now, network(1))
            .into_iter()
            .map(Arc::new)
            .collect();
        let uses: Vec<InUse> = full.iter().map(Slot::begin_use).collect();
        let again = full[0].begin_use();
        assert!(slots.take(now + 2 * GRACE, network(2)).is_none());
        drop(uses);
        assert!(slots.take(now, network(2)).is_some());
        assert!(!is_evicted(&full[0]) && is_evicted(&full[1]));
        drop(again);
    }

    #[test]
    fn where_nobody_has_more_than_its_share_only_the_long_idle_yield() {
        let slots = ConnectionSlots::new(2, GRACE);
        let now = Instant::now();
        let kept = [1, 2].map(|third| slots.take(now, network(third)).unwrap());
        assert!(slots.take(now, network(3)).is_none());
        assert!(slots.take(now, network(1)).is_none());
        assert!(slots.take(now + GRACE, network(3)).is_some());
        assert_eq!(kept.iter().filter(|slot| is_evicted(slot)).count(), 1);
    }

    #[test]
    fn a_network_that_has_everything_replaces_its_own_long_idle() {
        let slots = ConnectionSlots::new(2, GRACE);
        let now = Instant::now();
        let _kept = fill(&slots, now, network(1));
        assert!(slots.take(now, network(1)).is_none());
        assert!(slots.take(now + GRACE, network(1)).is_some());
    }
}
