//! Nodes on the same local network, as multicast DNS discovers them.
//!
//! This module holds the state of discovery; `lookup::lan` asks the nodes. A node that shares
//! starts discovery at once; a one-shot command starts it at the first need.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::{Endpoint, GroupSecret, LanDiscovery, LanError, LanEvent, LocalNetworks};
use rand::seq::IteratorRandom;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Limit on the nodes that are remembered.
const NODES_MAX: usize = 256;
/// Back-off from a node that could not be asked.
const REST: Duration = Duration::from_secs(15);

/// The state of discovery.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Discovery {
    /// Not needed yet.
    Idle,
    /// Running since this time.
    Since(Instant),
    /// Turned off, or not possible on this machine.
    Off,
}

struct Known {
    addresses: Vec<SocketAddr>,
    /// End of the back-off of a node that could not be asked.
    rests_until: Option<Instant>,
    /// Numbers of the codes that it offers.
    mailboxes: Vec<u32>,
}

/// The nodes of the local network.
pub(crate) struct Neighbours {
    /// Cancelled to start discovery.
    wanted: CancellationToken,
    discovery: watch::Sender<Discovery>,
    known: Mutex<BTreeMap<NodeId, Known>>,
    /// Counts changes of `known`.
    changes: watch::Sender<u64>,
    networks: Mutex<LocalNetworks>,
    /// Numbers of the codes that this node offers.
    mailboxes: watch::Sender<Vec<u32>>,
}

/// A neighbour and its addresses.
pub(crate) type Neighbour = (NodeId, Vec<SocketAddr>);

impl Neighbours {
    /// If `is_on` is false, no local node is ever discovered.
    pub(crate) fn new(is_on: bool) -> Neighbours {
        let discovery = match is_on {
            true => Discovery::Idle,
            false => Discovery::Off,
        };
        Neighbours {
            wanted: CancellationToken::new(),
            discovery: watch::Sender::new(discovery),
            known: Mutex::default(),
            changes: watch::Sender::new(0),
            networks: Mutex::default(),
            mailboxes: watch::Sender::default(),
        }
    }

    /// Whether discovery runs or can be started.
    pub(crate) fn is_on(&self) -> bool {
        *self.discovery.borrow() != Discovery::Off
    }

    /// Returns all nodes.
    pub(crate) fn nodes(&self) -> Vec<Neighbour> {
        let known = self.lock();
        let nodes = known.iter();
        nodes
            .map(|(&node, known)| (node, known.addresses.clone()))
            .collect()
    }

    /// Returns the addresses of a node on the local network; none if the node was not discovered.
    pub(crate) fn addresses(&self, node: &NodeId) -> Vec<SocketAddr> {
        let known = self.lock();
        known
            .get(node)
            .map(|known| known.addresses.clone())
            .unwrap_or_default()
    }

    /// Returns the nodes that offer the code with this number.
    pub(crate) fn offering(&self, number: u32) -> Vec<Neighbour> {
        let known = self.lock();
        let offering = known
            .iter()
            .filter(|(_, known)| known.mailboxes.contains(&number));
        offering
            .map(|(&node, known)| (node, known.addresses.clone()))
            .collect()
    }

    /// Advertises the numbers of the codes that this node offers. Starts discovery if necessary.
    pub(crate) fn advertise_mailboxes(&self, numbers: Vec<u32>) {
        if !numbers.is_empty() {
            self.wanted.cancel();
        }
        self.mailboxes.send_replace(numbers);
    }

    /// Whether an address belongs to this machine or to a network that it is attached to.
    pub(crate) fn is_near(&self, ip: IpAddr) -> bool {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        ip.to_canonical().is_loopback() || networks.reach(ip)
    }

    /// Returns a watch that reports when a node was discovered or has left.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns a random selection of at most `max` nodes that may be asked now.
    pub(crate) fn askable(&self, now: Instant, max: usize) -> Vec<Neighbour> {
        let known = self.lock();
        let awake = known
            .iter()
            .filter(|(_, known)| known.rests_until.is_none_or(|until| until <= now));
        awake
            .map(|(&node, known)| (node, known.addresses.clone()))
            .choose_multiple(&mut rand::rng(), max)
    }

    /// Records that a node could not be asked.
    pub(crate) fn let_rest(&self, node: &NodeId, now: Instant) {
        if let Some(known) = self.lock().get_mut(node) {
            known.rests_until = Some(now + REST);
        }
    }

    /// Starts discovery if necessary.
    pub(crate) fn start(&self) {
        self.wanted.cancel();
    }

    /// Starts discovery if necessary. Returns when it started, or None if it does not run by
    /// `until`.
    pub(crate) async fn started(&self, until: Instant) -> Option<Instant> {
        self.wanted.cancel();
        let mut discovery = self.discovery.subscribe();
        let started = discovery.wait_for(|discovery| *discovery != Discovery::Idle);
        match timeout_at(until, started).await {
            Ok(Ok(discovery)) => match *discovery {
                Discovery::Since(since) => Some(since),
                Discovery::Idle | Discovery::Off => None,
            },
            _ => None,
        }
    }

    fn handle(&self, event: LanEvent) {
        let mut known = self.lock();
        match event {
            LanEvent::Found {
                node,
                addresses,
                mailboxes,
            } => {
                if known.len() == NODES_MAX && !known.contains_key(&node) {
                    return;
                }
                debug!(peer = %node, ?addresses, "found on the local network");
                let found = Known {
                    addresses,
                    rests_until: None,
                    mailboxes,
                };
                known.insert(node, found);
            }
            LanEvent::Gone { node } => {
                debug!(peer = %node, "left the local network");
                known.remove(&node);
            }
        }
        drop(known);
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Discovers neighbours and advertises this node: at once if `shares`, else as soon as `offers`
    /// reports something to offer. Runs until `stopping`, then withdraws the advertisement. If
    /// discovery is not possible, it is turned off and the function only waits.
    pub(crate) async fn run(
        &self,
        endpoint: &Endpoint,
        group: Option<GroupSecret>,
        shares: bool,
        offers: watch::Receiver<bool>,
        stopping: &CancellationToken,
    ) {
        if !self.is_on() {
            return stopping.cancelled().await;
        }
        if !shares {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.wanted.cancelled() => {}
            }
        }
        match self
            .discover(endpoint, group, shares, offers, stopping)
            .await
        {
            Ok(()) => debug!("discovery on the local network ended"),
            Err(error) => debug!(%error, "discovery on the local network is not possible"),
        }
        self.discovery.send_replace(Discovery::Off);
        stopping.cancelled().await;
    }

    async fn discover(
        &self,
        endpoint: &Endpoint,
        group: Option<GroupSecret>,
        shares: bool,
        mut offers: watch::Receiver<bool>,
        stopping: &CancellationToken,
    ) -> Result<(), LanError> {
        let listen = match endpoint.local_addr() {
            // Only this machine can reach a loopback address.
            Ok(listen) if listen.ip().to_canonical().is_loopback() => return Ok(()),
            Ok(listen) => listen,
            Err(_) => return Ok(()),
        };
        let mut discovery = LanDiscovery::start(endpoint.id(), group)?;
        let since = Discovery::Since(Instant::now());
        self.discovery.send_replace(since);
        if shares {
            discovery.advertise(listen)?;
        }
        offers.mark_changed();
        let mut mailboxes = self.mailboxes.subscribe();
        mailboxes.mark_changed();
        let mut advertised = shares;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                event = discovery.next() => match event {
                    Some(event) => self.handle(event),
                    None => {
                        warn!("too many advertisements on the local network; discovery is off");
                        return Ok(());
                    }
                },
                Ok(()) = mailboxes.changed() => {
                    let numbers = mailboxes.borrow_and_update().clone();
                    advertised |= !numbers.is_empty();
                    discovery.set_mailboxes(numbers, listen)?;
                }
                // A download that others can fetch from.
                Ok(()) = offers.changed(), if !advertised => {
                    advertised = *offers.borrow_and_update();
                    if advertised {
                        discovery.advertise(listen)?;
                    }
                }
            }
        }
        discovery.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(byte: u8) -> LanEvent {
        LanEvent::Found {
            node: NodeId([byte; 32]),
            addresses: vec![([192, 168, 0, byte], 64500).into()],
            mailboxes: vec![7, byte.into()],
        }
    }

    #[test]
    fn a_node_that_could_not_be_asked_rests() {
        let (neighbours, now) = (Neighbours::new(true), Instant::now());
        neighbours.handle(found(1));
        neighbours.handle(found(2));
        neighbours.let_rest(&NodeId([1; 32]), now);
        let askable = |at| neighbours.askable(at, 10).len();
        assert_eq!((askable(now), askable(now + REST)), (1, 2));
        assert_eq!(neighbours.askable(now + REST, 1).len(), 1);
    }

    #[test]
    fn nodes_that_left_are_forgotten_and_their_number_is_bounded() {
        let neighbours = Neighbours::new(true);
        let changes = neighbours.changes();
        for number in 0..2 * NODES_MAX {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(number as u64).to_le_bytes());
            neighbours.handle(LanEvent::Found {
                node: NodeId(id),
                addresses: Vec::new(),
                mailboxes: Vec::new(),
            });
        }
        assert_eq!(neighbours.nodes().len(), NODES_MAX);
        let node = neighbours.nodes()[0].0;
        neighbours.handle(LanEvent::Gone { node });
        assert_eq!(neighbours.nodes().len(), NODES_MAX - 1);
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn the_neighbours_that_offer_a_number_are_found_until_they_leave() {
        let neighbours = Neighbours::new(true);
        neighbours.handle(found(1));
        neighbours.handle(found(2));
        assert_eq!(neighbours.offering(7).len(), 2);
        assert_eq!(neighbours.offering(2)[0].0, NodeId([2; 32]));
        assert!(neighbours.offering(3).is_empty());
        let node = NodeId([2; 32]);
        neighbours.handle(LanEvent::Gone { node });
        assert!(neighbours.offering(2).is_empty());
    }

    #[tokio::test]
    async fn discovery_that_is_off_never_starts() {
        let neighbours = Neighbours::new(false);
        assert!(!neighbours.is_on());
        let far = Instant::now() + Duration::from_secs(3600);
        assert_eq!(neighbours.started(far).await, None);
    }
}
