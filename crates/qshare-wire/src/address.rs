//! Addresses at which a node may be reached, observed or claimed.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::limits::CANDIDATE_PORT_MIN;

/// A destination of QUIC packets.
///
/// ```text
/// 0 │ 0 │ IPv4 (4) │ port u16 varint        Socket, IPv4
/// 0 │ 1 │ IPv6 (16) │ port u16 varint       Socket, IPv6
/// 1 │ port u16 varint                       TrackerHost
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// An address and UDP port.
    Socket(SocketAddr),
    /// The tracker's own host at this port. The tracker sees the node on loopback; other
    /// nodes use the address at which they reach the tracker.
    TrackerHost {
        /// UDP port.
        port: u16,
    },
}

/// The source of an address. On the wire: 0 observed, 1 local, 2 mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// The tracker exchanged packets with it.
    Observed,
    /// The node has it on one of its interfaces.
    Local,
    /// A router granted a port mapping.
    Mapped,
}

/// An address at which a node may be reached: kind, then address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// The source of the address.
    pub kind: CandidateKind,
    /// The address.
    pub address: Address,
}

impl Candidate {
    /// Returns whether a node may be led to send packets there: a unicast address, and a port that
    /// belongs to no well-known service.
    pub fn is_plausible(&self) -> bool {
        match self.address {
            Address::TrackerHost { port } => port >= CANDIDATE_PORT_MIN,
            Address::Socket(at) => at.port() >= CANDIDATE_PORT_MIN && is_unicast(at.ip()),
        }
    }
}

/// Returns whether an address names one host. An IPv4 address in IPv6 form (`::ffff:a.b.c.d`, and
/// the deprecated `::a.b.c.d`) is judged as IPv4: a dual-stack socket sends there.
fn is_unicast(ip: IpAddr) -> bool {
    let ip = match ip {
        IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unspecified() => {
            ip.to_ipv4().map_or(IpAddr::V6(ip), IpAddr::V4)
        }
        ip => ip,
    };
    match ip {
        // 0.0.0.0/8 is this network, 224.0.0.0/4 multicast, 240.0.0.0/4 reserved with the
        // broadcast address (RFC 6890).
        IpAddr::V4(ip) => (1..224).contains(&ip.octets()[0]),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// Returns whether an address is valid only in its owner's network: loopback, link-local, private
/// (RFC 1918, RFC 4193) or shared (RFC 6598).
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plausible(address: &str) -> bool {
        let address = Address::Socket(address.parse().unwrap());
        let kind = CandidateKind::Local;
        Candidate { kind, address }.is_plausible()
    }

    #[test]
    fn unicast_addresses_are_plausible_in_either_form() {
        for address in [
            "192.0.2.1:64500",
            "127.0.0.1:64500",
            "[::1]:64500",
            "[fe80::1]:64500",
            "[2001:db8::1]:64500",
            "[::ffff:192.0.2.1]:64500",
        ] {
            assert!(is_plausible(address), "{address}");
        }
    }

    #[test]
    fn multicast_broadcast_and_unspecified_addresses_are_not_in_any_form() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.251",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            for address in [
                format!("{ip}:64500"),
                format!("[::ffff:{ip}]:64500"),
                format!("[::{ip}]:64500"),
            ] {
                assert!(!is_plausible(&address), "{address}");
            }
        }
        for address in ["[::]:64500", "[ff02::fb]:64500", "192.0.2.1:53"] {
            assert!(!is_plausible(address), "{address}");
        }
    }
}
