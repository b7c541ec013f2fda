//! Nodes that may have the content, and the choice of the one to try next. Pure: the caller passes
//! the time and the events.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::{AssetName, NodeAddress, NodeId};
use qshare_wire::limits::CANDIDATES_MAX;
use rand::seq::IteratorRandom;

use super::static_sources::at_once;
use crate::error::{DownloadError, NoSource, SourceFault};
use crate::vocabulary::{Contact, HolderNews};

/// Limit on the holders that are remembered. Trackers return samples, so further holders take
/// the place of those that are lost.
const CONTACTS_MAX: usize = 1024;
/// The first and the longest pause before a failed holder is retried.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);
/// Holders whose faults are reported.
const REPORTED_MAX: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The holder was never tried, or its address changed since it failed.
    Idle,
    Connecting,
    Connected,
    Resting {
        until: Instant,
    },
    /// The holder sent corrupt bytes of this content.
    Banned,
}

struct Known {
    contact: Contact,
    state: State,
    failures: u32,
    last_fault: Option<SourceFault>,
    /// Whether its file had changed at the last request for bytes. Later refusals say only that it
    /// does not have the content.
    has_changed: bool,
}

impl Known {
    fn is_ready(&self, now: Instant) -> bool {
        match self.state {
            State::Idle => true,
            State::Resting { until } => until <= now,
            _ => false,
        }
    }
}

/// The holders of one content.
pub(crate) struct Holders {
    us: NodeId,
    known: HashMap<NodeId, Known>,
    /// Addresses from sources other than trackers. Trackers add to them and do not remove them.
    given: HashMap<NodeId, Vec<SocketAddr>>,
    /// Nodes whose address is unknown, with the reason.
    unresolved: BTreeMap<NodeId, SourceFault>,
    /// Whether a holder was forgotten whose file had changed.
    forgot_changed: bool,
}

impl Holders {
    /// Starts with holders that are known already, and nodes that the request names.
    pub(crate) fn new(us: NodeId, known: Vec<Contact>, nodes: &[NodeAddress]) -> Holders {
        let mut holders = Holders {
            us,
            known: HashMap::new(),
            given: HashMap::new(),
            unresolved: BTreeMap::new(),
            forgot_changed: false,
        };
        holders.join(known);
        holders.give(at_once(nodes));
        holders
    }

    /// Handles a message from a tracker, the local network or the resolver.
    pub(crate) fn handle_news(&mut self, news: HolderNews) {
        match news {
            HolderNews::Joined(contacts) => self.join(contacts),
            HolderNews::Left(nodes) => self.leave(&nodes),
            HolderNews::Given(contacts) => self.give(contacts),
            HolderNews::Unresolved { node, fault } => _ = self.unresolved.insert(node, fault),
        }
    }

    fn give(&mut self, contacts: Vec<Contact>) {
        for mut contact in contacts {
            self.unresolved.remove(&contact.node);
            if self.given.len() == CONTACTS_MAX && !self.given.contains_key(&contact.node) {
                continue;
            }
            let given = self.given.entry(contact.node).or_default();
            for address in std::mem::take(&mut contact.addresses) {
                if given.len() < CANDIDATES_MAX && !given.contains(&address) {
                    given.push(address);
                }
            }
            // The addresses that a tracker told are kept.
            if let Some(told) = self.known.get(&contact.node) {
                contact.complete |= told.contact.complete;
                contact.addresses.clone_from(&told.contact.addresses);
            }
            self.join(vec![contact]);
        }
    }

    fn join(&mut self, contacts: Vec<Contact>) {
        for mut contact in contacts {
            for address in self.given.get(&contact.node).into_iter().flatten() {
                if !contact.addresses.contains(address) {
                    contact.addresses.push(*address);
                }
            }
            if contact.node == self.us || contact.addresses.is_empty() {
                continue;
            }
            if let Some(known) = self.known.get_mut(&contact.node) {
                if known.contact.addresses != contact.addresses
                    && matches!(known.state, State::Resting { .. })
                {
                    // The failure was at the old address.
                    known.state = State::Idle;
                }
                known.contact = contact;
            } else if self.known.len() < CONTACTS_MAX {
                let known = Known {
                    contact: contact.clone(),
                    state: State::Idle,
                    failures: 0,
                    last_fault: None,
                    has_changed: false,
                };
                self.known.insert(contact.node, known);
            }
        }
    }

    /// Forgets nodes that no longer hold the content according to a tracker. Connected nodes stay,
    /// because they report themselves which chunks they hold.
    fn leave(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            let is_given = self.given.contains_key(node);
            let stays = self.known.get(node).is_some_and(|known| {
                is_given
                    || matches!(
                        known.state,
                        State::Connected | State::Connecting | State::Banned
                    )
            });
            if !stays && let Some(known) = self.known.remove(node) {
                self.forgot_changed |= known.has_changed;
            }
        }
    }

    /// Returns a random holder to try now, preferably a complete one, unless `busy_max` holders are
    /// connected or being tried. The holder counts as being tried from now on.
    pub(crate) fn next_to_dial(
        &mut self,
        now: Instant,
        busy_max: usize,
    ) -> Option<(NodeId, Vec<SocketAddr>)> {
        if self.busy() >= busy_max {
            return None;
        }
        let ready = |known: &&mut Known| known.is_ready(now);
        let rng = &mut rand::rng();
        let complete = |known: &&mut Known| known.contact.complete && ready(known);
        let node = match self.known.values_mut().filter(complete).choose(rng) {
            Some(known) => known.contact.node,
            None => {
                self.known
                    .values_mut()
                    .filter(ready)
                    .choose(rng)?
                    .contact
                    .node
            }
        };
        let known = self.known.get_mut(&node)?;
        known.state = State::Connecting;
        Some((node, known.contact.addresses.clone()))
    }

    /// Whether a holder may be tried now.
    pub(crate) fn any_ready(&self, now: Instant) -> bool {
        self.known.values().any(|known| known.is_ready(now))
    }

    /// Whether a holder has never been tried.
    pub(crate) fn any_untried(&self) -> bool {
        self.known
            .values()
            .any(|known| known.state == State::Idle && known.failures == 0)
    }

    /// Returns how many connected holders should give their slots to others. Returns 0 while fewer
    /// than `busy_max` are connected, or if no other holder may be tried.
    pub(crate) fn wanted_slots(&self, now: Instant, busy_max: usize) -> usize {
        if self.busy() < busy_max {
            return 0;
        }
        let ready = self.known.values().filter(|known| known.is_ready(now));
        ready.count()
    }

    fn busy(&self) -> usize {
        let busy = |known: &&Known| matches!(known.state, State::Connecting | State::Connected);
        self.known.values().filter(busy).count()
    }

    pub(crate) fn connected(&mut self, node: &NodeId) {
        if let Some(known) = self.known.get_mut(node) {
            known.state = State::Connected;
        }
    }

    /// Records that a holder delivered: its earlier failures no longer count.
    pub(crate) fn succeeded(&mut self, node: &NodeId) {
        if let Some(known) = self.known.get_mut(node) {
            (known.failures, known.has_changed) = (0, false);
            self.forgot_changed = false;
        }
    }

    /// Records that a holder cannot be reached, was lost, or is of no use at the moment. The node
    /// backs off from it, for twice as long after each failure.
    pub(crate) fn failed(&mut self, node: &NodeId, now: Instant, fault: SourceFault) {
        if let Some(known) = self.known.get_mut(node)
            && known.state != State::Banned
        {
            let rest = REST_MIN
                .saturating_mul(1 << known.failures.min(6))
                .min(REST_MAX);
            known.state = State::Resting { until: now + rest };
            known.failures += 1;
            known.has_changed |= fault.is_changed();
            known.last_fault = Some(fault);
        }
    }

    /// Records that a holder sent corrupt bytes of this content. It is not tried again.
    pub(crate) fn ban(&mut self, node: &NodeId) {
        if let Some(known) = self.known.get_mut(node) {
            known.state = State::Banned;
            known.last_fault = Some(SourceFault::Corrupt);
        }
    }

    /// Returns when the next back-off ends.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let until = |known: &Known| match known.state {
            State::Resting { until } => Some(until),
            _ => None,
        };
        self.known.values().filter_map(until).min()
    }

    /// Returns some of the failed holders, each with its fault.
    pub(crate) fn faults(&self) -> NoSource {
        let tried = self.known.values().filter_map(|known| {
            let fault = known.last_fault.as_ref()?;
            Some((known.contact.node, fault))
        });
        let unresolved = self.unresolved.iter().map(|(&node, fault)| (node, fault));
        let failures = tried
            .chain(unresolved)
            .take(REPORTED_MAX)
            .map(|(node, fault)| (node, fault.clone()));
        NoSource {
            failures: failures.collect(),
        }
    }

    /// Whether there are holders, and the file of each has changed since it was announced.
    pub(crate) fn all_changed(&self) -> bool {
        let mut known = self.known.values().peekable();
        let changed = |known: &Known| {
            known
                .last_fault
                .as_ref()
                .is_some_and(SourceFault::is_changed)
        };
        known.peek().is_some() && known.all(changed)
    }

    /// Whether the file of a holder has changed since it was announced.
    pub(crate) fn any_changed(&self) -> bool {
        self.forgot_changed || self.known.values().any(|known| known.has_changed)
    }

    /// Returns the error of a download that has no source.
    pub(crate) fn no_source(&self, name: &AssetName) -> DownloadError {
        let name = name.clone();
        let mut states = self.known.values().map(|known| known.state);
        if states.any(|state| state == State::Banned) {
            DownloadError::VerificationFailed { name }
        } else if self.any_changed() {
            DownloadError::Changed { name }
        } else {
            DownloadError::NoSource {
                name,
                failures: self.faults().failures,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use qshare_wire::{Refusal, Refused};

    use super::*;
    use crate::error::AskError;

    const US: NodeId = NodeId([0; 32]);
    const MANY: usize = 100;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    fn contact(byte: u8, port: u16, complete: bool) -> Contact {
        Contact {
            node: node(byte),
            addresses: vec![([192, 0, 2, byte], port).into()],
            complete,
        }
    }

    fn holders(contacts: Vec<Contact>) -> Holders {
        Holders::new(US, contacts, &[])
    }

    fn dial(holders: &mut Holders, now: Instant) -> Option<NodeId> {
        holders.next_to_dial(now, MANY).map(|(node, _)| node)
    }

    #[test]
    fn a_change_at_a_holder_is_remembered_until_one_delivers() {
        let start = Instant::now();
        let name = AssetName::new("x").unwrap();
        let is_changed = |holders: &Holders| {
            let error = holders.no_source(&name);
            matches!(error, DownloadError::Changed { .. })
        };
        let refused = |refusal| AskError::Refused(Refused::new(refusal)).into();
        let mut holders = holders(vec![contact(1, 1, true), contact(2, 1, true)]);
        holders.failed(&node(1), start, refused(Refusal::NotHere));
        assert!(!is_changed(&holders));
        holders.failed(&node(1), start, refused(Refusal::Changed));
        holders.failed(&node(1), start, refused(Refusal::NotHere));
        assert!(is_changed(&holders));
        holders.handle_news(HolderNews::Left(vec![node(1)]));
        assert!(is_changed(&holders));
        holders.succeeded(&node(2));
        assert!(!is_changed(&holders));
    }

    #[test]
    fn complete_holders_are_tried_first_and_each_once() {
        let now = Instant::now();
        let mut holders = holders(vec![
            contact(1, 1, false),
            contact(2, 1, true),
            contact(3, 1, false),
        ]);
        assert_eq!(dial(&mut holders, now), Some(node(2)));
        let others = [dial(&mut holders, now), dial(&mut holders, now)];
        assert!(others.contains(&Some(node(1))) && others.contains(&Some(node(3))));
        assert_eq!(dial(&mut holders, now), None);
    }

    #[test]
    fn this_node_and_nodes_without_addresses_are_never_tried() {
        let mut without = contact(1, 1, true);
        without.addresses.clear();
        let mut ourselves = contact(2, 1, true);
        ourselves.node = US;
        let mut holders = holders(vec![without, ourselves]);
        assert_eq!(dial(&mut holders, Instant::now()), None);
    }

    #[test]
    fn no_more_than_the_maximum_are_tried_at_once() {
        let now = Instant::now();
        let mut holders = holders(vec![contact(1, 1, true), contact(2, 1, true)]);
        let (first, _) = holders.next_to_dial(now, 1).unwrap();
        assert!(holders.next_to_dial(now, 1).is_none());
        assert_eq!(holders.wanted_slots(now, 1), 1);
        assert_eq!(holders.wanted_slots(now, 2), 0);
        holders.failed(&first, now, SourceFault::Lost);
        assert!(holders.next_to_dial(now, 1).is_some());
    }

    #[test]
    fn a_holder_that_failed_rests_for_longer_each_time_unless_it_delivered() {
        let mut now = Instant::now();
        let mut holders = holders(vec![contact(1, 1, true)]);
        for rest in [1, 2, 4] {
            assert_eq!(dial(&mut holders, now), Some(node(1)));
            holders.failed(&node(1), now, SourceFault::Lost);
            let until = now + Duration::from_secs(rest);
            assert_eq!(holders.poll_timeout(), Some(until));
            assert!(dial(&mut holders, until - Duration::from_millis(1)).is_none());
            now = until;
        }
        assert_eq!(dial(&mut holders, now), Some(node(1)));
        holders.succeeded(&node(1));
        holders.failed(&node(1), now, SourceFault::Lost);
        assert_eq!(holders.poll_timeout(), Some(now + REST_MIN));
    }

    #[test]
    fn a_holder_that_moved_is_tried_at_its_new_address_at_once() {
        let now = Instant::now();
        let mut holders = holders(vec![contact(1, 1, true)]);
        dial(&mut holders, now);
        holders.failed(&node(1), now, SourceFault::Lost);
        holders.handle_news(HolderNews::Joined(vec![contact(1, 1, true)]));
        assert_eq!(dial(&mut holders, now), None, "it has not moved");
        holders.handle_news(HolderNews::Joined(vec![contact(1, 2, true)]));
        assert_eq!(dial(&mut holders, now), Some(node(1)));
        assert!(!holders.any_untried(), "it was tried before");
    }

    #[test]
    fn holders_that_left_are_forgotten_unless_they_are_connected() {
        let now = Instant::now();
        let mut holders = holders(vec![contact(1, 1, true), contact(2, 1, false)]);
        assert_eq!(dial(&mut holders, now), Some(node(1)));
        holders.connected(&node(1));
        holders.handle_news(HolderNews::Left(vec![node(1), node(2)]));
        assert_eq!(holders.known.len(), 1);
        assert!(!holders.any_ready(now));
    }

    #[test]
    fn given_addresses_are_kept_beside_those_of_trackers() {
        let now = Instant::now();
        let mut holders = holders(vec![]);
        holders.handle_news(HolderNews::Given(vec![contact(1, 7, false)]));
        holders.handle_news(HolderNews::Joined(vec![contact(1, 8, true)]));
        holders.handle_news(HolderNews::Left(vec![node(1)]));
        let (_, addresses) = holders.next_to_dial(now, MANY).unwrap();
        let ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [8, 7]);
    }

    #[test]
    fn a_banned_holder_is_never_tried_again_and_named_in_the_error() {
        let now = Instant::now();
        let name = AssetName::new("x").unwrap();
        let mut holders = holders(vec![contact(1, 1, true)]);
        dial(&mut holders, now);
        holders.failed(&node(1), now, SourceFault::Lost);
        let error = holders.no_source(&name);
        assert!(
            matches!(&error, DownloadError::NoSource { failures, .. } if failures.len() == 1),
            "{error}"
        );
        holders.ban(&node(1));
        holders.failed(&node(1), now, SourceFault::Lost);
        let later = now + 2 * REST_MAX;
        assert_eq!(dial(&mut holders, later), None);
        let error = holders.no_source(&name);
        assert!(matches!(error, DownloadError::VerificationFailed { .. }));
    }

    #[test]
    fn the_number_of_holders_is_bounded() {
        let mut holders = holders(vec![]);
        for number in 1..2 * CONTACTS_MAX as u64 {
            let mut contact = contact(1, 1, true);
            contact.node.0[..8].copy_from_slice(&number.to_le_bytes());
            holders.handle_news(HolderNews::Joined(vec![contact]));
        }
        assert_eq!(holders.known.len(), CONTACTS_MAX);
    }

    #[test]
    fn unresolved_nodes_are_reported_until_they_have_an_address() {
        let mut holders = holders(vec![]);
        let fault = SourceFault::ResolveTimedOut("host.example".into());
        let node = node(1);
        holders.handle_news(HolderNews::Unresolved { node, fault });
        assert_eq!(holders.faults().failures.len(), 1);
        holders.handle_news(HolderNews::Given(vec![contact(1, 7, false)]));
        assert_eq!(holders.faults().failures.len(), 0);
    }
}
