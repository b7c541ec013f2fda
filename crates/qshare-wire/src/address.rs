//! Where a node can be reached, as far as somebody observed or claims.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::limits::CANDIDATE_PORT_MIN;

/// A place to send QUIC packets to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// An address and UDP port.
    Socket(SocketAddr),
    /// The tracker's own host at this port: the tracker sees the node on loopback, and others
    /// resolve it to the address at which they reach the tracker.
    TrackerHost {
        /// UDP port.
        port: u16,
    },
}

/// How an address came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// The tracker received packets from it.
    Observed,
    /// The node has it on one of its interfaces.
    Local,
    /// A router promised to forward it.
    Mapped,
}

/// One of the places where a node may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// How it came to be known.
    pub kind: CandidateKind,
    /// Where it is.
    pub address: Address,
}

impl Candidate {
    /// Whether anybody may be led there at all: a unicast address and a port that belongs to no
    /// well-known service.
    pub fn is_plausible(&self) -> bool {
        match self.address {
            Address::TrackerHost { port } => port >= CANDIDATE_PORT_MIN,
            Address::Socket(at) => {
                at.port() >= CANDIDATE_PORT_MIN
                    && !at.ip().is_unspecified()
                    && !at.ip().is_multicast()
                    && at.ip() != IpAddr::from([255, 255, 255, 255])
            }
        }
    }
}

/// Whether an address means something only near its owner: loopback, link-local, private
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
