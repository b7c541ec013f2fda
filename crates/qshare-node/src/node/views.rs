//! Views of a node's state, each in time that does not depend on the number of shares or downloads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use qshare_content::{AssetName, ContentId, ContentInfo, NodeId, Query, QueryParseError};

use super::Node;
use crate::shares::Announced;
use crate::vocabulary::{PathKind, PortMappingState, TrackerStatus};

/// Payload bytes since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Sent to other nodes.
    pub sent_bytes: u64,
    /// Received from other nodes.
    pub received_bytes: u64,
}

/// A connected node.
#[derive(Debug, Clone)]
pub struct ConnectedPeer {
    /// The node.
    pub node: NodeId,
    /// Its address.
    pub address: SocketAddr,
    /// The path to it.
    pub path: PathKind,
    /// The smoothed RTT.
    pub rtt: Duration,
    /// UDP payload bytes sent on this connection.
    pub sent_bytes: u64,
    /// UDP payload bytes received on this connection.
    pub received_bytes: u64,
}

/// A listed content that this node offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedShare {
    /// Its name.
    pub name: AssetName,
    /// Its content ID.
    pub content: ContentId,
    /// Length and root.
    pub info: ContentInfo,
    /// Whether this node has all of it; an unfinished download is listed, too.
    pub complete: bool,
    /// The file in a shared directory, if it is there.
    pub path: Option<PathBuf>,
}

/// A page of the list of shares, in the order of names.
#[derive(Debug, Clone, Default)]
pub struct SharesPage {
    /// The shares. May be empty although more follow: a page looks at a bounded number.
    pub shares: Vec<ListedShare>,
    /// The cursor of the next page, if there may be one.
    pub next: Option<Vec<u8>>,
}

impl Node {
    /// Returns the traffic since the start.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent_bytes: self.parts.uploads.sent_bytes(),
            received_bytes: self.parts.downloads.received_bytes(),
        }
    }

    /// Returns the number of complete shared files, and the sum of their lengths in bytes.
    pub fn share_totals(&self) -> (usize, u64) {
        self.parts.shares.totals()
    }

    /// Returns a number that differs after every change of the list of shares.
    pub fn shares_revision(&self) -> u64 {
        self.parts.shares.revision()
    }

    /// Returns the files that are not offered yet, or only as snapshots, because programs go on
    /// writing them.
    pub fn still_written(&self) -> Vec<PathBuf> {
        self.parts.shares.still_written()
    }

    /// Returns the configured trackers, and how the node stands with each.
    pub fn tracker_states(&self) -> Vec<TrackerStatus> {
        self.parts.trackers.report()
    }

    /// Returns the state of the port mapping.
    pub fn port_mapping(&self) -> PortMappingState {
        self.parts.port_mapper.state()
    }

    /// Returns the number of connected nodes.
    pub fn peer_count(&self) -> usize {
        self.parts.table.count()
    }

    /// Returns up to `limit` connected nodes in the order of their IDs, after one of them.
    pub fn connected_peers(&self, after: Option<NodeId>, limit: usize) -> Vec<ConnectedPeer> {
        let peers = self.parts.table.all_connected().into_iter();
        let mut peers: Vec<_> = peers
            .filter(|peer| after.is_none_or(|after| peer.node > after))
            .collect();
        peers.sort_by_key(|peer| peer.node);
        let view = |peer: &std::sync::Arc<crate::peers::Peer>| {
            let quic = peer.quic();
            let stats = quic.stats();
            ConnectedPeer {
                node: peer.node,
                address: peer.address(),
                path: peer.path(),
                rtt: quic.rtt(),
                sent_bytes: stats.udp_tx.bytes,
                received_bytes: stats.udp_rx.bytes,
            }
        };
        peers.iter().take(limit).map(view).collect()
    }

    /// Lists the shares that match a query, after a cursor.
    ///
    /// # Errors
    ///
    /// When the query holds an invalid glob.
    pub fn list_shares(
        &self,
        query: &Query,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<SharesPage, QueryParseError> {
        let shares = &self.parts.shares;
        let listing = shares.list(self.id(), query, after, limit)?;
        let entries = listing.entries.into_iter();
        Ok(SharesPage {
            shares: entries.map(|entry| self.listed(&entry)).collect(),
            next: listing.more,
        })
    }

    /// Returns a listed content, with one of its names; None if this node does not list it.
    pub fn share(&self, content: &ContentId) -> Option<ListedShare> {
        let entry = self.parts.shares.listed(content)?;
        Some(self.listed(&entry))
    }

    /// Returns whether this node lists a content and has all of it.
    pub fn has(&self, content: &ContentId) -> bool {
        let entry = self.parts.shares.listed(content);
        entry.is_some_and(|entry| entry.complete)
    }

    fn listed(&self, entry: &Announced) -> ListedShare {
        let (asset, complete) = (&entry.asset, entry.complete);
        let path = complete.then(|| self.parts.shares.path(&asset.id));
        ListedShare {
            name: asset.name.clone(),
            content: asset.id,
            info: asset.info,
            complete,
            path: path.flatten(),
        }
    }
}
