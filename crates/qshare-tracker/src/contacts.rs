//! Decides which addresses of a node the tracker sends to which other node.

use std::net::{IpAddr, SocketAddr};

use qshare_registry::{self as registry, Contact, Holder};
use qshare_wire::limits::CANDIDATES_MAX;
use qshare_wire::tracker::{NodeContact, Readiness};
use qshare_wire::{Address, Candidate, CandidateKind, is_private};

/// Returns an address in the form in which it is compared and sent: an IPv4 address mapped into
/// IPv6 becomes IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns the private addresses that a Hello claims. A public address counts only after a knock
/// through it was answered ([`crate::knock`]).
pub(crate) fn claimed(candidates: &[Candidate]) -> Vec<SocketAddr> {
    candidates
        .iter()
        .filter(|candidate| candidate.is_plausible())
        .filter_map(|candidate| match candidate.address {
            Address::Socket(address) => Some(canonical(address)),
            Address::TrackerHost { .. } => None,
        })
        .filter(|address| is_private(address.ip()) && !address.ip().is_loopback())
        .collect()
}

/// Returns the addresses of `holder` that are sent to a node observed at `asker`.
pub(crate) fn contact_for(holder: &Holder, asker: IpAddr) -> NodeContact {
    NodeContact {
        node: holder.node,
        candidates: candidates_for(&holder.contact, asker),
    }
}

/// Returns a registry's readiness in the form that is sent to nodes.
pub(crate) fn readiness(readiness: registry::Readiness) -> Readiness {
    match readiness {
        registry::Readiness::Ready => Readiness::Ready,
        registry::Readiness::Warming => Readiness::Warming,
    }
}

/// Returns the addresses of a node that are sent to another node, observed at `asker`.
///
/// No address is sent that could direct traffic to a third party. A claimed public address is sent
/// only if the node was observed at its IP address. A claimed private address is sent only to nodes
/// observed at the same IP address.
pub(crate) fn candidates_for(contact: &Contact, asker: IpAddr) -> Vec<Candidate> {
    let observed = contact.observed;
    let seen = (observed.ip().is_loopback().then_some(Candidate {
        kind: CandidateKind::Observed,
        address: Address::TrackerHost {
            port: observed.port(),
        },
    }))
    .or_else(|| {
        // A private address that the tracker observes is reachable only for nodes that it observes
        // at private addresses, too.
        let meaningful = !is_private(observed.ip()) || is_private(asker);
        meaningful.then_some(Candidate {
            kind: CandidateKind::Observed,
            address: Address::Socket(observed),
        })
    });
    let claims = contact.claimed.iter().filter_map(|&address| {
        let kind = if is_private(address.ip()) {
            CandidateKind::Local
        } else {
            CandidateKind::Mapped
        };
        let told = match kind {
            CandidateKind::Local => observed.ip() == asker,
            _ => observed.ip() == address.ip(),
        };
        (told && address != observed).then_some(Candidate {
            kind,
            address: Address::Socket(address),
        })
    });
    seen.into_iter()
        .chain(claims)
        .filter(Candidate::is_plausible)
        .take(CANDIDATES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn told(observed: &str, claimed: &[&str], asker: &str) -> Vec<(CandidateKind, Address)> {
        let contact = Contact {
            observed: at(observed),
            claimed: claimed.iter().map(|text| at(text)).collect(),
        };
        candidates_for(&contact, asker.parse().unwrap())
            .into_iter()
            .map(|candidate| (candidate.kind, candidate.address))
            .collect()
    }

    fn observed(text: &str) -> (CandidateKind, Address) {
        (CandidateKind::Observed, Address::Socket(at(text)))
    }

    fn local(text: &str) -> (CandidateKind, Address) {
        (CandidateKind::Local, Address::Socket(at(text)))
    }

    #[test]
    fn a_node_on_loopback_is_at_the_trackers_own_host() {
        let here = (
            CandidateKind::Observed,
            Address::TrackerHost { port: 64500 },
        );
        assert_eq!(told("127.0.0.1:64500", &[], "203.0.113.5"), [here]);
        assert_eq!(told("127.0.0.1:64500", &[], "127.0.0.1"), [here]);
    }

    #[test]
    fn private_addresses_are_told_only_behind_the_same_public_one() {
        let claimed = ["192.168.1.7:64500"];
        let public = "203.0.113.5:40000";
        assert_eq!(
            told(public, &claimed, "203.0.113.5"),
            [observed(public), local("192.168.1.7:64500")]
        );
        assert_eq!(told(public, &claimed, "198.51.100.9"), [observed(public)]);
    }

    #[test]
    fn a_private_address_that_the_tracker_sees_is_told_to_its_own_network() {
        let seen = "192.168.1.7:64500";
        assert_eq!(told(seen, &[], "192.168.1.9"), [observed(seen)]);
        assert_eq!(told(seen, &[], "127.0.0.1"), [observed(seen)]);
        assert_eq!(told(seen, &[], "203.0.113.5"), []);
    }

    #[test]
    fn nobody_is_led_to_a_public_address_that_was_not_observed() {
        let public = "203.0.113.5:40000";
        let claimed = ["198.51.100.1:5000", "203.0.113.5:64500"];
        assert_eq!(
            told(public, &claimed, "192.0.2.1"),
            [
                observed(public),
                (
                    CandidateKind::Mapped,
                    Address::Socket(at("203.0.113.5:64500"))
                )
            ]
        );
    }

    #[test]
    fn ports_of_well_known_services_are_never_told() {
        assert_eq!(told("203.0.113.5:53", &[], "192.0.2.1"), []);
        assert_eq!(told("127.0.0.1:80", &[], "192.0.2.1"), []);
    }

    #[test]
    fn a_hello_may_claim_private_addresses_only() {
        let claim = |address| Candidate {
            kind: CandidateKind::Local,
            address,
        };
        let claims = [
            claim(Address::Socket(at("127.0.0.1:5000"))),
            claim(Address::Socket(at("[::ffff:10.0.0.1]:5000"))),
            claim(Address::Socket(at("10.0.0.2:53"))),
            claim(Address::Socket(at("203.0.113.5:64500"))),
            claim(Address::TrackerHost { port: 5000 }),
        ];
        assert_eq!(claimed(&claims), [at("10.0.0.1:5000")]);
    }
}
