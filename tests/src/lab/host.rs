//! One machine of the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use super::attachment::Attachment;
use super::error::LabError;
use super::internet::{Internet, SiteIndex};
use super::namespace::Namespace;
use super::router::Port;

/// Traffic counters of a host's interface, Ethernet headers included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Packets that came in.
    pub received_packets: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
    /// Packets that went out.
    pub sent_packets: u64,
}

impl Counters {
    /// Returns the difference to an earlier reading.
    pub fn since(self, earlier: Counters) -> Counters {
        Counters {
            received_bytes: self.received_bytes - earlier.received_bytes,
            received_packets: self.received_packets - earlier.received_packets,
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
            sent_packets: self.sent_packets - earlier.sent_packets,
        }
    }
}

/// The far end of a host's cable.
#[derive(Debug)]
pub(crate) enum FarEnd {
    Internet,
    Router(Port),
}

/// A host.
#[derive(Debug)]
pub struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) attachment: Attachment,
    pub(crate) far_end: FarEnd,
    pub(crate) site: SiteIndex,
    /// From the host outwards.
    pub(crate) routers: Vec<usize>,
}

impl Host {
    /// Its name, which `ip netns` knows too.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its own IPv4 address, which a router may hide.
    pub fn address(&self) -> Ipv4Addr {
        self.attachment.v4()
    }

    /// Its IPv6 address.
    pub fn address_v6(&self) -> Option<Ipv6Addr> {
        self.attachment.v6()
    }

    /// Both addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.address_v6().map(IpAddr::V6);
        std::iter::once(IpAddr::V4(self.address())).chain(v6)
    }

    /// Returns the command of a program that will run on this host. It is killed with the isolated
    /// process ([`super::isolation`]) at the latest.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.namespace.command(program)
    }

    /// Runs a closure on a thread in this host's namespace. Sockets that it opens stay on this
    /// host.
    ///
    /// # Errors
    /// When the thread cannot enter the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespace.inside(work)
    }

    /// Returns the interface's counters: sent bytes are counted after the queue of the host's own
    /// link, received ones after the queue of the other end.
    pub fn counters(&self) -> Result<Counters, LabError> {
        let path = "/proc/thread-self/net/dev";
        let text = self
            .inside(|| std::fs::read_to_string(path))
            .flatten()
            .map_err(LabError::system(path))?;
        parse_counters(&text, self.attachment.interface())
            .ok_or_else(|| LabError::system(path)(io::ErrorKind::InvalidData.into()))
    }

    /// Replaces the host's addresses of both families, as a laptop's are when it rejoins a network.
    pub fn change_address(&self) -> Result<(), LabError> {
        self.attachment.change_address(true)
    }

    pub(crate) fn set_connected(&self, internet: &Internet, on: bool) -> Result<(), LabError> {
        match (&self.far_end, on) {
            (FarEnd::Internet, true) => internet.restore(self.site),
            (FarEnd::Internet, false) => internet.cut(self.site),
            (FarEnd::Router(port), on) => port.set_forwarding(on),
        }
    }
}

/// Lines are `name: bytes packets errs drop fifo frame compressed multicast bytes packets …`.
fn parse_counters(text: &str, interface: &str) -> Option<Counters> {
    let of_interface = |line: &str| {
        let (name, fields) = line.split_once(':')?;
        (name.trim() == interface).then(|| fields.to_owned())
    };
    let fields = text.lines().find_map(of_interface)?;
    let fields: Vec<u64> = fields
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    Some(Counters {
        received_bytes: *fields.first()?,
        received_packets: *fields.get(1)?,
        sent_bytes: *fields.get(8)?,
        sent_packets: *fields.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_interface() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0\n  eth0: 1500 3 0 0 0 0 0 0 900 2 0 0 0 0 0 0\n";
        let counters = parse_counters(text, "eth0").unwrap();
        assert_eq!((counters.received_bytes, counters.sent_bytes), (1500, 900));
        assert_eq!((counters.received_packets, counters.sent_packets), (3, 2));
        assert_eq!(parse_counters(text, "eth1"), None);
    }
}
