//! Nodes that the request itself names. Their ids are pinned; their addresses may need a resolver.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{NodeAddress, NodeId};
use qshare_net::resolve_host;
use qshare_wire::limits::CANDIDATES_MAX;
use qshare_wire::{Address, Candidate, CandidateKind};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::error::SourceFault;
use crate::vocabulary::{Contact, HolderNews};

/// Longest wait for the resolver.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(4);
/// Pause before a host name that could not be resolved is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Returns the nodes whose address needs no resolver.
pub(super) fn at_once(nodes: &[NodeAddress]) -> Vec<Contact> {
    let literal = |node: &NodeAddress| {
        let ip: IpAddr = node.host.parse().ok()?;
        contact(node.id, [SocketAddr::new(ip, node.port)])
    };
    nodes.iter().filter_map(literal).collect()
}

/// Resolves the host name of a node. Retries until the name has an address or the receiver is
/// dropped.
pub(super) async fn resolve(node: NodeAddress, news: mpsc::Sender<HolderNews>) {
    loop {
        let resolved = tokio::select! {
            () = news.closed() => return,
            resolved = timeout(RESOLVE_DEADLINE, resolve_host(&node.host, node.port)) => resolved,
        };
        let fault = match resolved {
            Ok(Ok(addresses)) => match contact(node.id, addresses) {
                Some(contact) => {
                    let _ = news.send(HolderNews::Given(vec![contact])).await;
                    return;
                }
                None => SourceFault::NoAddress(node.host.clone()),
            },
            Ok(Err(error)) => SourceFault::Unresolved(Arc::new(error)),
            Err(_) => SourceFault::ResolveTimedOut(node.host.clone()),
        };
        let unresolved = HolderNews::Unresolved {
            node: node.id,
            fault,
        };
        if news.send(unresolved).await.is_err() {
            return;
        }
        tokio::select! {
            () = news.closed() => return,
            () = sleep(PAUSE) => {}
        }
    }
}

/// Whether the address of a node needs a resolver.
pub(super) fn needs_resolver(node: &NodeAddress) -> bool {
    node.host.parse::<IpAddr>().is_err()
}

/// Returns a node with its plausible addresses, if it has any.
fn contact(node: NodeId, addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Contact> {
    let usable = |at: &SocketAddr| {
        let address = Address::Socket(*at);
        let kind = CandidateKind::Observed;
        Candidate { kind, address }.is_plausible()
    };
    let addresses = addresses
        .into_iter()
        .map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()))
        .filter(usable)
        .take(CANDIDATES_MAX);
    let contact = Contact {
        node,
        addresses: addresses.collect(),
        complete: false,
    };
    (!contact.addresses.is_empty()).then_some(contact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(place: &str) -> NodeAddress {
        format!("{}@{place}", NodeId([1; 32])).parse().unwrap()
    }

    #[test]
    fn addresses_need_no_resolver_and_names_do() {
        let nodes = [node("192.0.2.1:7000"), node("host.example:7000")];
        let contacts = at_once(&nodes);
        assert_eq!(contacts.len(), 1);
        assert_eq!(contacts[0].addresses, ["192.0.2.1:7000".parse().unwrap()]);
        assert_eq!(nodes.iter().filter(|node| needs_resolver(node)).count(), 1);
    }

    #[test]
    fn multicast_broadcast_and_unspecified_addresses_are_not_dialled() {
        let nodes = [
            "224.0.0.251:5353",
            "255.255.255.255:7000",
            "0.0.0.0:7000",
            "[ff02::1]:7000",
        ];
        assert_eq!(at_once(&nodes.map(node)), []);
    }
}
