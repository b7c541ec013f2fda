//! Routers with NAT.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::attachment::{Attachment, Subnet};
use super::error::LabError;
use super::namespace::Namespace;

/// First number of the hosts behind a router; each has room to change its address.
const FIRST_NUMBER: u8 = 10;
const NUMBERS_PER_HOST: u8 = 10;

/// A router between hosts and the internet, or another router.
#[derive(Debug)]
pub struct Router {
    namespace: Namespace,
    outside: Attachment,
    inside: Subnet,
    plugged: u8,
}

/// How external ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// The internal port, where it is free.
    KeepsPorts,
    /// At random for each destination.
    RandomPorts,
}

impl Router {
    /// Sets a router up in a namespace whose `outside` is connected.
    pub(crate) fn create(
        namespace: Namespace,
        outside: Attachment,
        inside: Subnet,
        mapping: Mapping,
    ) -> Result<Router, LabError> {
        namespace.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        namespace.ip(&format!(
            "link add lan type bridge mcast_snooping 0\nlink set lan up\n{}",
            inside.assign("lan", 1)
        ))?;
        namespace.nft(&rules(outside.interface(), mapping))?;
        Ok(Router {
            namespace,
            outside,
            inside,
            plugged: 0,
        })
    }

    /// Connects a host or another router.
    pub(crate) fn plug(
        &mut self,
        owner: &Namespace,
        interface: &'static str,
    ) -> Result<(Port, Attachment), LabError> {
        let number = FIRST_NUMBER + NUMBERS_PER_HOST * self.plugged;
        if self.plugged >= (u8::MAX - FIRST_NUMBER) / NUMBERS_PER_HOST {
            let message = format!("too many hosts behind {}", self.namespace.name());
            return Err(LabError::Plan(message));
        }
        self.plugged += 1;
        let name = format!("lan{}", self.plugged);
        self.namespace.ip(&format!(
            "link add {name} type veth peer name {interface} netns {owner}\n\
             link set {name} master lan\nlink set {name} up\n",
            owner = owner.name(),
        ))?;
        let attachment = Attachment::new(owner, interface, self.inside, number)?;
        let router = self.namespace.clone();
        Ok((Port { router, name }, attachment))
    }

    /// Routes this network to another router, to which it gave an address.
    pub(crate) fn route_v6(&self, prefix: [u16; 4], to: &Attachment) -> Result<(), LabError> {
        let Some(gateway) = to.v6() else {
            return Ok(());
        };
        let prefix = Subnet {
            v4: [0; 3],
            v6: Some(prefix),
        };
        match prefix.v6(0) {
            Some(prefix) => self
                .namespace
                .ip6(&format!("route add {prefix}/64 via {gateway}\n")),
            None => Ok(()),
        }
    }

    /// Returns the external address, which others see unless another router is outside.
    pub fn outside_address(&self) -> Ipv4Addr {
        self.outside.v4()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn outside_interface(&self) -> &'static str {
        self.outside.interface()
    }

    /// Drops all mappings, as a restarted router does.
    pub fn flush_mappings(&self) -> Result<(), LabError> {
        self.namespace
            .inside(flush_conntrack)
            .flatten()
            .map_err(LabError::system("flush the mappings"))
    }

    /// How long a mapping lives without traffic, for those that are used from now on. A minute
    /// or two is common, 30 s the least that is seen.
    pub fn set_mapping_timeout(&self, time: Duration) -> Result<(), LabError> {
        let seconds = time.as_secs().max(1).to_string();
        self.namespace.set(&[
            ("netfilter/nf_conntrack_udp_timeout", &seconds),
            ("netfilter/nf_conntrack_udp_timeout_stream", &seconds),
        ])
    }

    /// Replaces the external IPv4 address, as many lines do once a day. All mappings are lost.
    pub fn change_address(&self) -> Result<(), LabError> {
        self.outside.change_address(false)?;
        self.flush_mappings()
    }
}

/// The router's end of a link to a host.
#[derive(Debug)]
pub(crate) struct Port {
    router: Namespace,
    name: String,
}

impl Port {
    /// Forwards or drops packets; silently, since the carrier stays up.
    pub(crate) fn set_forwarding(&self, on: bool) -> Result<(), LabError> {
        // States of a bridge's port: 3 forwards, 0 drops.
        let state = if on { 3 } else { 0 };
        let name = &self.name;
        self.router
            .bridge(&format!("link set dev {name} state {state}\n"))
    }
}

/// Without the rule at input the router's own stack would answer a stranger's packet; the
/// connection tracking would then know the pair of addresses that a punch needs, and give the
/// punch another port: the router would look symmetric.
fn rules(outside: &str, mapping: Mapping) -> String {
    let ports = match mapping {
        Mapping::KeepsPorts => "",
        Mapping::RandomPorts => " fully-random",
    };
    format!(
        "
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority 100;
        oifname {outside} masquerade{ports}
    }}
}}
table inet filter {{
    chain forward {{
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
    }}
    chain input {{
        type filter hook input priority 0;
        iifname {outside} ct state new drop
    }}
}}
"
    )
}

/// `IPCTNL_MSG_CT_DELETE` without attributes: all entries of this namespace go.
fn flush_conntrack() -> io::Result<()> {
    const LENGTH: usize = 20;
    const NFNL_SUBSYS_CTNETLINK: u16 = 1;
    const IPCTNL_MSG_CT_DELETE: u16 = 2;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const NLMSG_ERROR: u16 = 2;

    // struct nlmsghdr { u32 length, u16 type, u16 flags, u32 sequence, u32 port }, then
    // struct nfgenmsg { u8 family, u8 version, u16 resource }: any family, version 0.
    let mut request = [0; LENGTH];
    request[0..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    let kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());

    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &kernel)?;
    let mut answer = [0; 256];
    let (_, length) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // The acknowledgement is an error message whose number is zero.
    let field = |at: usize| answer.get(..length).and_then(|answer| answer.get(at..));
    let kind = field(4).and_then(|rest| rest.first_chunk()).copied();
    let error = field(16).and_then(|rest| rest.first_chunk()).copied();
    match (kind.map(u16::from_ne_bytes), error.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
