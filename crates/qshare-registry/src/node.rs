//! A node of a group and its entries.

use std::collections::BTreeMap;
use std::time::Instant;

use qshare_content::NodeId;
use qshare_content::fair::Network;

use crate::catalog::Asset;
use crate::holders::Eligibility;
use crate::slab::Key;
use crate::types::{Contact, Evicted, SessionId, WatchId};

/// What a node said about one asset.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// The full announcement of which it was part last.
    pub(crate) round: u16,
    pub(crate) complete: bool,
}

/// A node with a session, or with a lease since it lost its connection.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// `None` while only the lease keeps its entries.
    pub(crate) session: Option<SessionId>,
    pub(crate) lease_until: Option<Instant>,
    /// Whether the node left. Its entries are then removed bit by bit.
    pub(crate) is_gone: bool,
    pub(crate) watches: Vec<WatchId>,
    pub(crate) contact: Contact,
    pub(crate) entries: BTreeMap<Key<Asset>, Entry>,
    /// The memory that its entries would take if no other node announced the same, in bytes.
    pub(crate) weight: u64,
    pub(crate) round: u16,
    pub(crate) announcing: bool,
    /// What its owner has not been told yet.
    pub(crate) evicted: Option<Box<Evicted>>,
}

impl Node {
    pub(crate) fn new(id: NodeId, contact: Contact) -> Node {
        Node {
            id,
            session: None,
            lease_until: None,
            is_gone: false,
            watches: Vec::new(),
            contact,
            entries: BTreeMap::new(),
            weight: 0,
            round: 0,
            announcing: false,
            evicted: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Node {
        let contact = Contact {
            observed: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            claimed: [].into(),
        };
        Node::new(NodeId([0; 32]), contact)
    }

    pub(crate) fn network(&self) -> Network {
        Network::of(self.contact.observed.ip())
    }

    pub(crate) fn announces(&self, asset: Key<Asset>) -> bool {
        self.entries.contains_key(&asset)
    }

    pub(crate) fn eligibility(&self) -> Option<Eligibility> {
        (!self.is_gone).then(|| Eligibility {
            connected: self.session.is_some(),
            network: self.network(),
        })
    }
}
