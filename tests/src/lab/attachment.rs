use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};

use super::error::LabError;
use super::namespace::Namespace;

/// A /24 and perhaps a /64, in which the gateway is number 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subnet {
    pub(crate) v4: [u8; 3],
    pub(crate) v6: Option<[u16; 4]>,
}

impl Subnet {
    pub(crate) fn v4(self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.v4;
        Ipv4Addr::new(a, b, c, number)
    }

    pub(crate) fn v6(self, number: u8) -> Option<Ipv6Addr> {
        let [a, b, c, d] = self.v6?;
        Some(Ipv6Addr::new(a, b, c, d, 0, 0, 0, number.into()))
    }

    /// Returns the `ip -batch` lines that give an interface this host number.
    pub(crate) fn assign(self, interface: &str, number: u8) -> String {
        let mut lines = format!("addr add {}/24 dev {interface}\n", self.v4(number));
        if let Some(v6) = self.v6(number) {
            lines += &format!("addr add {v6}/64 dev {interface} nodad\n");
        }
        lines
    }
}

/// An interface that leads to a gateway.
#[derive(Debug)]
pub(crate) struct Attachment {
    namespace: Namespace,
    interface: &'static str,
    subnet: Subnet,
    number: AtomicU8,
}

impl Attachment {
    /// Gives the interface its first address and brings it up.
    pub(crate) fn new(
        namespace: &Namespace,
        interface: &'static str,
        subnet: Subnet,
        number: u8,
    ) -> Result<Attachment, LabError> {
        let attachment = Attachment {
            namespace: namespace.clone(),
            interface,
            subnet,
            number: AtomicU8::new(number),
        };
        namespace.ip(&format!("link set {interface} up\n"))?;
        namespace.ip(&attachment.address_lines(true))?;
        Ok(attachment)
    }

    pub(crate) fn interface(&self) -> &'static str {
        self.interface
    }

    pub(crate) fn v4(&self) -> Ipv4Addr {
        self.subnet.v4(self.number.load(Ordering::Relaxed))
    }

    pub(crate) fn v6(&self) -> Option<Ipv6Addr> {
        self.subnet.v6(self.number.load(Ordering::Relaxed))
    }

    /// Replaces the interface's address by the next one of the subnet.
    pub(crate) fn change_address(&self, with_v6: bool) -> Result<(), LabError> {
        self.number.fetch_add(1, Ordering::Relaxed);
        let flush = format!("addr flush dev {} scope global\n", self.interface);
        match with_v6 {
            true => self.namespace.ip(&flush)?,
            false => self.namespace.ip4(&flush)?,
        }
        self.namespace.ip(&self.address_lines(with_v6))
    }

    fn address_lines(&self, with_v6: bool) -> String {
        let subnet = Subnet {
            v6: self.subnet.v6.filter(|_| with_v6),
            ..self.subnet
        };
        let mut lines = subnet.assign(self.interface, self.number.load(Ordering::Relaxed));
        lines += &format!("route replace default via {}\n", subnet.v4(1));
        if let Some(gateway) = subnet.v6(1) {
            lines += &format!("route replace default via {gateway}\n");
        }
        lines
    }
}
