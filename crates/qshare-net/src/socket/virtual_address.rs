//! Virtual addresses, by which quinn knows nodes that are reached through a relay or an extra
//! socket. They never leave the process.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use qshare_content::NodeId;

/// Network of the virtual addresses of relayed nodes: fd15:71::/64 (RFC 4193).
const VIRTUAL: [u16; 4] = [0xfd15, 0x71, 0, 0];
/// Network of the virtual addresses of nodes behind an extra socket: fd15:71:0:1::/64.
const EXTRA: [u16; 4] = [0xfd15, 0x71, 0, 1];
/// Port of every virtual address; it has no meaning.
const VIRTUAL_PORT: u16 = 7115;

/// Returns the virtual address of a node that is reached through a relay.
pub fn virtual_address(node: NodeId) -> SocketAddr {
    let low = node
        .0
        .first_chunk()
        .map_or(0, |low| u64::from_be_bytes(*low));
    SocketAddr::new(virtual_ip(VIRTUAL, low).into(), VIRTUAL_PORT)
}

fn virtual_ip(network: [u16; 4], low: u64) -> Ipv6Addr {
    let high = network
        .iter()
        .fold(0u64, |high, &part| high << 16 | u64::from(part));
    Ipv6Addr::from(u128::from(high) << 64 | u128::from(low))
}

/// Returns whether an address is the virtual one of a relayed node.
pub fn is_virtual(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V6(ip) => ip.segments()[..4] == VIRTUAL,
        IpAddr::V4(_) => false,
    }
}

/// Returns the virtual address of the node behind the extra socket of this number.
pub(super) fn extra_address(number: u64) -> SocketAddr {
    SocketAddr::new(virtual_ip(EXTRA, number).into(), VIRTUAL_PORT)
}

/// Returns whether an address is the virtual one of a node behind an extra socket.
pub(super) fn is_extra(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[..4] == EXTRA)
}

/// Returns whether an address has no meaning outside this process.
pub(crate) fn is_made_up(ip: IpAddr) -> bool {
    is_virtual(ip) || is_extra(ip)
}
