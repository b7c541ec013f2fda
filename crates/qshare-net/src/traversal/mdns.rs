//! Discovery of nodes on the local network by multicast DNS (RFC 6762) and DNS-SD (RFC 6763).
//!
//! A node advertises `NODEID._qshare._udp.local.` with its port and addresses. A member of a group
//! adds a tag that only other members can verify, a sharer the numbers of its codes. Names of files
//! and groups, and words of codes, are never sent.
//!
//! Multicast records are unauthenticated. They lead only to addresses on our own networks, and to a
//! bounded number of nodes; the TLS handshake proves the id of the node there.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use if_addrs::{IfAddr, Interface};
use mdns_sd::{
    IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use qshare_content::NodeId;
use qshare_wire::{Address, Candidate, CandidateKind};
use tokio::time::timeout;

use crate::GroupSecret;

/// The DNS-SD service.
const SERVICE: &str = "_qshare._udp.local.";
/// Version of the TXT record.
const VERSION: &str = "1";
/// Most addresses of one node; its interfaces may have more.
const ADDRESSES_MAX: usize = 4;
/// Limit on the numbers of codes of one node: as many of ten digits fit into one string of a TXT
/// record (255 bytes, RFC 6763 section 6.1).
const MAILBOXES_MAX: usize = 16;
/// Limit on the instances at once. More instances are considered a flood, and discovery ends.
const INSTANCES_MAX: usize = 2_000;
/// Interval at which the library looks for new interfaces.
const INTERFACES_EVERY_SECONDS: u32 = 30;
/// How long the list of our own interfaces is cached.
const INTERFACES_CACHED: Duration = Duration::from_secs(5);
/// Deadline for sending our goodbye.
const GOODBYE: Duration = Duration::from_millis(200);

/// Why discovery cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot discover nodes on the local network: {0}")]
pub struct LanError(#[from] mdns_sd::Error);

/// A change among the nodes of the local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LanEvent {
    /// A node advertises itself.
    Found {
        /// Its claimed id.
        node: NodeId,
        /// Its addresses on our own networks.
        addresses: Vec<SocketAddr>,
        /// Numbers of the codes that it offers.
        mailboxes: Vec<u32>,
    },
    /// A node said goodbye, or its records expired.
    Gone {
        /// Its claimed id.
        node: NodeId,
    },
}

/// Browses for nodes, and advertises this one once asked to. The `mdns-sd` library runs a thread of
/// its own.
pub struct LanDiscovery {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    us: NodeId,
    group: Option<GroupSecret>,
    networks: LocalNetworks,
    instances: usize,
    advertised: Option<String>,
    mailboxes: Vec<u32>,
}

impl LanDiscovery {
    /// Starts browsing.
    pub fn start(us: NodeId, group: Option<GroupSecret>) -> Result<LanDiscovery, LanError> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        daemon.set_ip_check_interval(INTERFACES_EVERY_SECONDS)?;
        let events = daemon.browse(SERVICE)?;
        Ok(LanDiscovery {
            daemon,
            events,
            us,
            group,
            networks: LocalNetworks::default(),
            instances: 0,
            advertised: None,
            mailboxes: Vec::new(),
        })
    }

    /// Advertises that this node listens at `listen`. A loopback address is not advertised.
    pub fn advertise(&mut self, listen: SocketAddr) -> Result<(), LanError> {
        match self.advertised {
            Some(_) => Ok(()),
            None => self.register(listen),
        }
    }

    /// Advertises the numbers of the codes that this node offers, in place of earlier ones. A node
    /// that offers some is advertised as [`LanDiscovery::advertise`] does. Numbers beyond the first
    /// 16 are left out.
    pub fn set_mailboxes(
        &mut self,
        mut numbers: Vec<u32>,
        listen: SocketAddr,
    ) -> Result<(), LanError> {
        numbers.truncate(MAILBOXES_MAX);
        let is_same = numbers == self.mailboxes;
        self.mailboxes = numbers;
        match is_same || (self.mailboxes.is_empty() && self.advertised.is_none()) {
            true => Ok(()),
            false => self.register(listen),
        }
    }

    /// Registers this node, or replaces its records.
    fn register(&mut self, listen: SocketAddr) -> Result<(), LanError> {
        if listen.ip().is_loopback() {
            return Ok(());
        }
        let id = self.us.to_string();
        let mut properties = vec![("v", VERSION.to_owned())];
        if let Some(group) = &self.group {
            properties.push(("g", tag(group, &self.us)));
        }
        if !self.mailboxes.is_empty() {
            let numbers: Vec<String> = self.mailboxes.iter().map(u32::to_string).collect();
            properties.push(("c", numbers.join(",")));
        }
        let ip = match listen.ip().is_unspecified() {
            true => String::new(),
            false => listen.ip().to_string(),
        };
        let host = format!("{id}.local.");
        let info = ServiceInfo::new(SERVICE, &id, &host, &*ip, listen.port(), &properties[..])?;
        let mut info = match listen.ip().is_unspecified() {
            true => info.enable_addr_auto(),
            false => info,
        };
        // Our id is unique, so probing whether the name is free (RFC 6762 section 8.1) is needless.
        info.set_requires_probe(false);
        let name = info.get_fullname().to_owned();
        self.daemon.register(info)?;
        self.advertised = Some(name);
        Ok(())
    }

    /// Waits for the next event; None when discovery has ended.
    pub async fn next(&mut self) -> Option<LanEvent> {
        loop {
            match self.events.recv_async().await.ok()? {
                ServiceEvent::ServiceResolved(service) => {
                    if let Some(found) = self.judge(&service) {
                        return Some(found);
                    }
                }
                ServiceEvent::ServiceRemoved(_, name) => {
                    self.instances = self.instances.saturating_sub(1);
                    if let Some(node) = node_of(&name).filter(|node| *node != self.us) {
                        return Some(LanEvent::Gone { node });
                    }
                }
                ServiceEvent::ServiceFound(..) => {
                    self.instances += 1;
                    if self.instances > INSTANCES_MAX {
                        // Otherwise the library would keep every one of them in memory.
                        let _ = self.daemon.shutdown();
                        return None;
                    }
                }
                _ => {}
            }
        }
    }

    fn judge(&mut self, service: &ResolvedService) -> Option<LanEvent> {
        let node = node_of(service.get_fullname()).filter(|node| *node != self.us)?;
        let property = |key| service.get_property_val_str(key);
        if property("v") != Some(VERSION) || !is_ours(self.group.as_ref(), &node, property("g")) {
            return None;
        }
        let port = service.get_port();
        let mut addresses: Vec<SocketAddr> = service
            .get_addresses()
            .iter()
            .map(|ip| at(ip, port))
            .filter(|address| is_usable(address) && self.networks.reach(address.ip()))
            .collect();
        // A fixed order, so that the same addresses compare as equal: IPv4, then IPv6, link-local
        // ones last.
        addresses.sort_by_key(|address| (is_link_local(address.ip()), *address));
        addresses.truncate(ADDRESSES_MAX);
        let mailboxes = property("c").unwrap_or_default().split(',');
        let mailboxes = mailboxes.filter_map(|number| number.parse().ok());
        let mailboxes = mailboxes.take(MAILBOXES_MAX).collect();
        (!addresses.is_empty()).then_some(LanEvent::Found {
            node,
            addresses,
            mailboxes,
        })
    }

    /// Sends a goodbye if this node was advertised, and ends discovery.
    pub async fn close(self) {
        if let Some(name) = &self.advertised
            && let Ok(status) = self.daemon.unregister(name)
        {
            let _ = timeout(GOODBYE, status.recv_async()).await;
        }
        let _ = self.daemon.shutdown();
    }
}

/// Returns the claimed id of an instance: the first label of its name.
fn node_of(fullname: &str) -> Option<NodeId> {
    fullname.split('.').next()?.parse().ok()
}

/// Returns the tag by which members recognize the group. It differs for every node, so that others
/// learn nothing from it.
fn tag(group: &GroupSecret, node: &NodeId) -> String {
    HEXLOWER.encode(&group.lan_tag(node))
}

fn is_ours(group: Option<&GroupSecret>, node: &NodeId, tagged: Option<&str>) -> bool {
    group.map(|group| tag(group, node)).as_deref() == tagged
}

fn at(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) if is_link_local((*v6.addr()).into()) => {
            SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()
        }
        other => SocketAddr::new(other.to_ip_addr(), port),
    }
}

fn is_usable(address: &SocketAddr) -> bool {
    let kind = CandidateKind::Local;
    let address = Address::Socket(*address);
    Candidate { kind, address }.is_plausible()
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The networks of our own interfaces.
#[derive(Debug, Default)]
pub struct LocalNetworks {
    interfaces: Vec<Interface>,
    listed_at: Option<Instant>,
}

impl LocalNetworks {
    /// Returns whether an address is on one of these networks, with no router between. Never true
    /// for loopback.
    pub fn reach(&mut self, ip: IpAddr) -> bool {
        if self
            .listed_at
            .is_none_or(|at| at.elapsed() > INTERFACES_CACHED)
        {
            self.interfaces = if_addrs::get_if_addrs().unwrap_or_default();
            self.listed_at = Some(Instant::now());
        }
        let ip = ip.to_canonical();
        let mut interfaces = self.interfaces.iter();
        interfaces.any(|interface| !interface.is_loopback() && is_on(&interface.addr, ip))
    }
}

fn is_on(interface: &IfAddr, ip: IpAddr) -> bool {
    match (interface, ip) {
        (IfAddr::V4(on), IpAddr::V4(ip)) => {
            let mask = u32::from(on.netmask);
            mask != 0 && u32::from(on.ip) & mask == u32::from(ip) & mask
        }
        (IfAddr::V6(on), IpAddr::V6(ip)) => {
            let mask = u128::from(on.netmask);
            // A /128 is the host's own address, no network.
            let is_network = mask != 0 && on.netmask != Ipv6Addr::from(u128::MAX);
            is_network && u128::from(on.ip) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use if_addrs::{Ifv4Addr, Ifv6Addr};

    use super::*;

    #[test]
    fn members_know_each_other_by_a_tag_that_says_nothing_to_others() {
        let (group, other) = (GroupSecret::random(), GroupSecret::random());
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let tagged = tag(&group, &a);
        assert!(is_ours(Some(&group), &a, Some(&tagged)));
        // Not another group, another node, or a node without a group.
        assert!(!is_ours(Some(&other), &a, Some(&tagged)));
        assert!(!is_ours(Some(&group), &b, Some(&tagged)));
        assert!(!is_ours(None, &a, Some(&tagged)));
        assert!(!is_ours(Some(&group), &a, None));
        assert!(is_ours(None, &a, None));
    }

    #[test]
    fn an_instance_is_named_after_its_node() {
        let id = NodeId([7; 32]);
        assert_eq!(node_of(&format!("{id}.{SERVICE}")), Some(id));
        assert_eq!(node_of("printer._qshare._udp.local."), None);
        assert_eq!(node_of(""), None);
    }

    #[test]
    fn only_what_is_on_the_link_is_near() {
        let v4 = IfAddr::V4(Ifv4Addr {
            ip: "10.1.2.3".parse().unwrap(),
            netmask: "255.255.255.0".parse().unwrap(),
            prefixlen: 24,
            broadcast: None,
        });
        for (ip, near) in [
            ("10.1.2.200", true),
            ("10.1.3.1", false),
            ("203.0.113.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_on(&v4, ip.parse().unwrap()), near, "{ip}");
        }
        let v6 = |ip: &str, prefixlen: u8| {
            IfAddr::V6(Ifv6Addr {
                ip: ip.parse().unwrap(),
                netmask: Ipv6Addr::from(u128::MAX << (128 - prefixlen)),
                prefixlen,
                broadcast: None,
            })
        };
        assert!(is_on(&v6("fe80::1", 64), "fe80::2".parse().unwrap()));
        assert!(is_on(
            &v6("2001:db8::1", 64),
            "2001:db8::9".parse().unwrap()
        ));
        assert!(!is_on(
            &v6("2001:db8::1", 64),
            "2001:db8:1::9".parse().unwrap()
        ));
        assert!(!is_on(
            &v6("2001:db8::1", 128),
            "2001:db8::1".parse().unwrap()
        ));
    }
}
