//! Links to what the node shares, for other machines.

use std::net::IpAddr;

use qshare_node::content::{Link, NodeAddress, TrackerAddress};
use qshare_node::{ListedShare, PortMappingState, TrackerState};

use super::Api;
use crate::suggest;

/// Addresses of this node in a link.
const NODES_MAX: usize = 4;

/// Returns the link of a listed content: with the trackers that list it, and with addresses at
/// which this node may be reached without them.
pub(super) fn of_share(api: &Api, share: &ListedShare) -> String {
    let here = suggest::host_for_others(api.node.listen_address());
    let link = Link {
        info: share.info,
        trackers: trackers(api, here),
        nodes: nodes(api, here),
        name: Some(share.name.clone()),
        key: None,
        folder: None,
        modified_ns: None,
        executable: false,
    };
    link.to_string()
}

/// Returns the trackers as other machines reach them, with the IDs of those that are connected as
/// pins.
fn trackers(api: &Api, here: IpAddr) -> Vec<TrackerAddress> {
    let states = api.node.tracker_states().into_iter();
    let pinned = states.map(|status| match status.state {
        TrackerState::Connected { id, .. } => TrackerAddress {
            id: Some(id),
            ..status.tracker
        },
        _ => status.tracker,
    });
    pinned.map(|tracker| for_others(tracker, here)).collect()
}

/// Replaces loopback by this machine's address.
fn for_others(tracker: TrackerAddress, here: IpAddr) -> TrackerAddress {
    let ip = tracker.host.parse::<IpAddr>();
    let is_loopback =
        tracker.host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
    match is_loopback {
        true => TrackerAddress {
            host: here.to_string(),
            ..tracker
        },
        false => tracker,
    }
}

/// Returns addresses of this node: that of a proven port mapping, and that on its own network.
fn nodes(api: &Api, here: IpAddr) -> Vec<NodeAddress> {
    let (id, port) = (api.node.id(), api.node.listen_address().port());
    let mapped = match api.node.port_mapping() {
        PortMappingState::Proven { address, .. } => Some(address),
        _ => None,
    };
    let own = std::net::SocketAddr::new(here, port);
    let addresses = mapped.into_iter().chain([own]);
    let nodes = addresses.map(|address| format!("{id}@{address}").parse());
    nodes.filter_map(Result::ok).take(NODES_MAX).collect()
}
