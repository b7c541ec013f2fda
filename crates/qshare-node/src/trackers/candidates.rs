//! Addresses of this node that are sent to trackers, and addresses of other nodes from trackers.

use std::net::{IpAddr, SocketAddr};

use qshare_net::Endpoint;
use qshare_wire::limits::{CANDIDATE_PORT_MIN, CANDIDATES_MAX};
use qshare_wire::{Address, Candidate, CandidateKind, is_private};

/// Returns this node's addresses in private networks, for nodes that the tracker sees in the same
/// network.
pub(crate) fn local_candidates(endpoint: &Endpoint) -> Vec<Candidate> {
    let Ok(listen) = endpoint.local_addr() else {
        return Vec::new();
    };
    if listen.port() < CANDIDATE_PORT_MIN {
        return Vec::new();
    }
    let bound = listen.ip();
    let of_interfaces = match bound.is_unspecified() {
        true => if_addrs::get_if_addrs().unwrap_or_default(),
        false => Vec::new(),
    };
    let all = of_interfaces
        .iter()
        .map(|interface| interface.ip())
        .filter(|ip| bound.is_ipv6() || ip.is_ipv4())
        .chain((!bound.is_unspecified()).then_some(bound));
    all.filter(|ip| is_private(*ip) && !ip.is_loopback() && !is_link_local(*ip))
        .take(CANDIDATES_MAX - 1)
        .map(|ip| Candidate {
            kind: CandidateKind::Local,
            address: Address::Socket(SocketAddr::new(ip, listen.port())),
        })
        .collect()
}

/// Whether an address means nothing without the interface that it belongs to.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Returns the socket addresses of plausible candidates that the tracker at `tracker` sent.
pub(crate) fn resolve_candidates<'a>(
    candidates: impl Iterator<Item = &'a Candidate>,
    tracker: SocketAddr,
) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = candidates
        .filter(|candidate| candidate.is_plausible())
        .map(|candidate| match candidate.address {
            Address::Socket(at) => SocketAddr::new(at.ip().to_canonical(), at.port()),
            Address::TrackerHost { port } => SocketAddr::new(tracker.ip(), port),
        })
        .collect();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trackers_own_host_is_where_the_tracker_was_reached() {
        let tracker = "192.0.2.1:65000".parse().unwrap();
        let candidate = |address| Candidate {
            kind: CandidateKind::Observed,
            address,
        };
        let candidates = [
            candidate(Address::TrackerHost { port: 7000 }),
            candidate(Address::Socket(
                "[::ffff:198.51.100.1]:7001".parse().unwrap(),
            )),
            candidate(Address::Socket("0.0.0.0:7002".parse().unwrap())),
        ];
        let resolved = resolve_candidates(candidates.iter(), tracker);
        let expected: [SocketAddr; 2] = [
            "192.0.2.1:7000".parse().unwrap(),
            "198.51.100.1:7001".parse().unwrap(),
        ];
        assert_eq!(resolved, expected);
    }
}
