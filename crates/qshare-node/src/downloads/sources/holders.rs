//! Who may have the content, and who of them is worth an attempt now.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_wire::limits::CANDIDATES_MAX;
use rand::seq::IteratorRandom;

use super::super::DownloadRequest;
use super::static_sources;
use crate::trackers::session::HolderNews;
use crate::vocabulary::Contact;

/// Contacts that are remembered; trackers hand out samples, so more come when these go.
const CONTACTS_MAX: usize = 1024;
/// First and longest pause before a node that failed is tried again.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);

enum State {
    Idle,
    Connecting,
    Connected,
    Resting {
        until: Instant,
    },
    /// It lied about this content.
    Banned,
}

struct Known {
    contact: Contact,
    state: State,
    failures: u32,
    last_cause: String,
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

pub(in crate::downloads) struct Holders {
    us: NodeId,
    known: HashMap<NodeId, Known>,
    /// Addresses that others than trackers gave; trackers add to them and do not take them away.
    given: HashMap<NodeId, Vec<SocketAddr>>,
    /// Those whose address could not be found out, and why.
    unresolved: BTreeMap<NodeId, String>,
}

impl Holders {
    pub(in crate::downloads) fn new(us: NodeId, request: &DownloadRequest) -> Holders {
        let mut holders = Holders {
            us,
            known: HashMap::new(),
            given: HashMap::new(),
            unresolved: BTreeMap::new(),
        };
        holders.join(request.holders.clone());
        holders.give(static_sources::at_once(&request.nodes));
        holders
    }

    pub(in crate::downloads) fn handle_news(&mut self, news: HolderNews) {
        match news {
            HolderNews::Joined(contacts) => self.join(contacts),
            HolderNews::Left(nodes) => self.leave(&nodes),
            HolderNews::Given(contacts) => self.give(contacts),
            HolderNews::Unresolved { node, cause } => _ = self.unresolved.insert(node, cause),
        }
    }

    fn give(&mut self, contacts: Vec<Contact>) {
        for mut contact in contacts {
            self.unresolved.remove(&contact.node);
            if self.given.len() == CONTACTS_MAX && !self.given.contains_key(&contact.node) {
                continue;
            }
            let known = self.given.entry(contact.node).or_default();
            for address in std::mem::take(&mut contact.addresses) {
                if known.len() < CANDIDATES_MAX && !known.contains(&address) {
                    known.push(address);
                }
            }
            // What a tracker said of it stays.
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
                    // It moved: the failure was the old address's.
                    known.state = State::Idle;
                }
                known.contact = contact;
            } else if self.known.len() < CONTACTS_MAX {
                let known = Known {
                    contact: contact.clone(),
                    state: State::Idle,
                    failures: 0,
                    last_cause: String::new(),
                };
                self.known.insert(contact.node, known);
            }
        }
    }

    /// Those that are connected stay: they know better than the tracker what they have.
    fn leave(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            let given = self.given.contains_key(node);
            let keep = self.known.get(node).is_some_and(|known| {
                given
                    || matches!(
                        known.state,
                        State::Connected | State::Connecting | State::Banned
                    )
            });
            if !keep {
                self.known.remove(node);
            }
        }
    }

    /// A random node to try now, preferably one that has everything; it counts as connecting.
    pub(in crate::downloads) fn next_to_dial(
        &mut self,
        now: Instant,
        connected_max: usize,
    ) -> Option<(NodeId, Vec<SocketAddr>)> {
        if self.busy() >= connected_max {
            return None;
        }
        let ready = |known: &&mut Known| known.is_ready(now);
        let rng = &mut rand::rng();
        let complete = |known: &&mut Known| known.contact.complete && ready(known);
        let at = match self.known.values_mut().filter(complete).choose(rng) {
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
        let known = self.known.get_mut(&at)?;
        known.state = State::Connecting;
        Some((at, known.contact.addresses.clone()))
    }

    /// Connections that others could take the places of: none while there are fewer than may be,
    /// or nobody else is there to be tried.
    pub(in crate::downloads) fn wanted_places(&self, now: Instant, connected_max: usize) -> usize {
        if self.busy() < connected_max {
            return 0;
        }
        let ready = self.known.values().filter(|known| known.is_ready(now));
        ready.count()
    }

    fn busy(&self) -> usize {
        let busy = |known: &&Known| matches!(known.state, State::Connecting | State::Connected);
        self.known.values().filter(busy).count()
    }

    pub(in crate::downloads) fn connected(&mut self, node: &NodeId) {
        if let Some(known) = self.known.get_mut(node) {
            known.state = State::Connected;
        }
    }

    /// It delivered: what failed before is forgiven.
    pub(in crate::downloads) fn succeeded(&mut self, node: &NodeId) {
        if let Some(known) = self.known.get_mut(node) {
            known.failures = 0;
        }
    }

    /// It could not be reached, was lost, or is of no use at the moment.
    pub(in crate::downloads) fn failed(&mut self, node: &NodeId, now: Instant, cause: String) {
        if let Some(known) = self.known.get_mut(node)
            && !matches!(known.state, State::Banned)
        {
            let rest = REST_MIN
                .saturating_mul(1 << known.failures.min(6))
                .min(REST_MAX);
            known.state = State::Resting { until: now + rest };
            known.failures += 1;
            known.last_cause = cause;
        }
    }

    /// It lied about this content.
    pub(in crate::downloads) fn ban(&mut self, node: &NodeId) {
        if let Some(known) = self.known.get_mut(node) {
            known.state = State::Banned;
            known.last_cause = "sent bytes that failed verification".into();
        }
    }

    pub(in crate::downloads) fn any_banned(&self) -> bool {
        self.known
            .values()
            .any(|known| matches!(known.state, State::Banned))
    }

    /// When a resting node may be tried again.
    pub(in crate::downloads) fn poll_timeout(&self) -> Option<Instant> {
        let until = |known: &Known| match known.state {
            State::Resting { until } => Some(until),
            _ => None,
        };
        self.known.values().filter_map(until).min()
    }

    /// What was tried and why it failed, for people: empty, or begins with a colon.
    pub(in crate::downloads) fn describe_failures(&self) -> String {
        let tried = self
            .known
            .values()
            .filter(|known| !known.last_cause.is_empty());
        let tried = tried.map(|known| (known.contact.node, &known.last_cause));
        let unresolved = self.unresolved.iter().map(|(&node, cause)| (node, cause));
        let causes: Vec<String> = tried
            .chain(unresolved)
            .take(3)
            .map(|(node, cause)| format!("{} ({cause})", node.short()))
            .collect();
        match causes.is_empty() {
            true => String::new(),
            false => format!(": {}", causes.join(", ")),
        }
    }
}
