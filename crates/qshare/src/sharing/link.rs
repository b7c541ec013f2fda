//! Links to what is shared.

use qshare_node::content::{Link, NodeAddress, TrackerAddress};
use qshare_node::{Node, Share, TrackerState, TrackerStatus};

/// Addresses of this node in a link that names no tracker: people copy links by hand.
const LINK_ADDRESSES_MAX: usize = 3;

/// Returns the link to the present version of a share. It names the trackers that are connected,
/// pinned; without one, addresses of this node.
pub(crate) fn link_to(node: &Node, share: &Share) -> Link {
    let trackers: Vec<TrackerAddress> = pinned(&node.tracker_states());
    let nodes = match trackers.is_empty() {
        false => Vec::new(),
        true => node
            .local_addresses()
            .into_iter()
            .take(LINK_ADDRESSES_MAX)
            .map(|at| NodeAddress {
                id: node.id(),
                host: at.ip().to_string(),
                port: at.port(),
            })
            .collect(),
    };
    let version = share.version();
    Link {
        info: version.info,
        trackers,
        nodes,
        name: Some(share.name().clone()),
        key: share.key().cloned(),
        folder: version.folder,
        modified_ns: version.attributes.modified_ns,
        executable: version.attributes.executable,
    }
}

/// Returns the trackers that answered, as written, each pinned to the ID that it proved.
pub(crate) fn pinned(trackers: &[TrackerStatus]) -> Vec<TrackerAddress> {
    let pinned = trackers.iter().filter_map(|status| match &status.state {
        TrackerState::Connected { id, .. } => Some(TrackerAddress {
            id: Some(*id),
            ..status.tracker.clone()
        }),
        TrackerState::Away { .. } | TrackerState::Refused { .. } => None,
    });
    pinned.collect()
}

#[cfg(test)]
mod tests {
    use qshare_node::content::NodeId;

    use super::*;

    #[test]
    fn links_pin_the_trackers_that_answered_under_the_address_as_written() {
        let id = NodeId([7; 32]);
        let connected = TrackerState::Connected {
            id,
            address: "192.0.2.1:9".parse().unwrap(),
            seen_at: None,
        };
        let trackers = [
            ("tracker.example:9", connected),
            ("away:9", TrackerState::Away { cause: None }),
        ];
        let trackers = trackers.map(|(written, state)| TrackerStatus {
            tracker: written.parse().unwrap(),
            state,
            unlisted_entries: 0,
        });
        let pinned = pinned(&trackers);
        assert_eq!(pinned.len(), 1);
        assert_eq!(pinned[0].to_string(), format!("{id}@tracker.example:9"));
    }
}
