//! A node of a group and its entries.

use std::collections::BTreeMap;
use std::time::Instant;

use qshare_content::fair::Network;
use qshare_content::{FileMetadata, Hash, MODIFIED_MAX_NS, NodeId};

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
    /// The times of its entries, as far as it states them: some 16 bytes each.
    times: BTreeMap<Key<Asset>, Times>,
    /// The plain digests of its entries, as far as it states them: some 48 bytes each.
    pub(crate) digests: BTreeMap<Key<Asset>, Hash>,
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
            times: BTreeMap::new(),
            digests: BTreeMap::new(),
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

    /// Records what the node states about an entry, except for its digest.
    pub(crate) fn set_times(&mut self, asset: Key<Asset>, metadata: &FileMetadata) {
        match Times::of(metadata) {
            Some(times) => _ = self.times.insert(asset, times),
            None => _ = self.times.remove(&asset),
        }
    }

    /// Returns what the node states about an entry.
    pub(crate) fn metadata(&self, asset: Key<Asset>) -> FileMetadata {
        let times = self.times.get(&asset).copied();
        FileMetadata {
            sha256: self.digests.get(&asset).copied(),
            ..times.map_or_else(FileMetadata::default, Times::to_metadata)
        }
    }

    pub(crate) fn eligibility(&self) -> Option<Eligibility> {
        (!self.is_gone).then(|| Eligibility {
            connected: self.session.is_some(),
            network: self.network(),
        })
    }
}

/// Modification time and execute bit in eight bytes without alignment: twice the nanoseconds since
/// 1970, plus the bit.
#[derive(Clone, Copy)]
struct Times([u8; 8]);

impl Times {
    /// Stands for an unknown time. [`MODIFIED_MAX_NS`] keeps known ones apart.
    const UNKNOWN: i64 = i64::MIN >> 1;

    /// Returns None if nothing is stated.
    fn of(metadata: &FileMetadata) -> Option<Times> {
        let known = metadata
            .modified_ns
            .filter(|ns| (-MODIFIED_MAX_NS..=MODIFIED_MAX_NS).contains(ns));
        if known.is_none() && !metadata.executable {
            return None;
        }
        let ns = known.unwrap_or(Times::UNKNOWN);
        let packed = (ns << 1) | i64::from(metadata.executable);
        Some(Times(packed.to_le_bytes()))
    }

    fn to_metadata(self) -> FileMetadata {
        let packed = i64::from_le_bytes(self.0);
        FileMetadata {
            modified_ns: Some(packed >> 1).filter(|&ns| ns != Times::UNKNOWN),
            executable: packed & 1 == 1,
            ..FileMetadata::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_eight_bytes_and_come_back() {
        assert_eq!(size_of::<Times>(), 8);
        assert!(Times::of(&FileMetadata::default()).is_none());
        for modified_ns in [None, Some(0), Some(-MODIFIED_MAX_NS), Some(MODIFIED_MAX_NS)] {
            let metadata = FileMetadata {
                modified_ns,
                executable: true,
                ..FileMetadata::default()
            };
            assert_eq!(Times::of(&metadata).unwrap().to_metadata(), metadata);
        }
    }
}
