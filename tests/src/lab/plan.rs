//! The plan of a network.

use std::collections::HashSet;
use std::time::Duration;

use super::error::LabError;
use super::network::Lab;
use super::units::{Loss, Rate};

/// A bottleneck's queue holds what passes in this time: home routers have 20 ms to several
/// hundred.
const QUEUE: Duration = Duration::from_millis(50);
/// One /24 each in 198.18.0.0/15; routers need one too.
const SITES_MAX: usize = 500;
/// `NAME-carrier` is a file's name, and interfaces are not named after hosts.
const NAME_MAX_BYTES: usize = 64;

/// The link of a host, or of its router, to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Rate towards the internet; None is unlimited.
    pub up: Option<Rate>,
    /// Rate from the internet; None is unlimited.
    pub down: Option<Rate>,
    /// Length of the queue in front of a rate, as the time that it takes to drain.
    pub queue: Duration,
    /// Delay of packets to this host.
    pub delay: Duration,
    /// Added delay, uniformly distributed between zero and this; packets keep their order.
    pub jitter: Duration,
    /// Loss of packets to this host.
    pub loss: Loss,
    /// Packets of one sender that may travel in a bundle on a shaped link; None is what passes in
    /// 0.2 ms.
    pub bundle_packets: Option<u32>,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            up: None,
            down: None,
            queue: QUEUE,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::NONE,
            bundle_packets: None,
        }
    }
}

impl Link {
    /// A link with this rate in both directions and nothing else.
    pub fn with_rate(rate: Rate) -> Link {
        Link {
            up: Some(rate),
            down: Some(rate),
            ..Link::default()
        }
    }

    pub(crate) fn is_delayed(&self) -> bool {
        !self.delay.is_zero() || !self.jitter.is_zero()
    }

    /// Returns whether single packets are delayed or lost, so that packets must not be bundled.
    pub(crate) fn is_shaped(&self) -> bool {
        self.up.is_some() || self.down.is_some() || self.is_delayed() || self.loss != Loss::NONE
    }
}

/// The NAT between a host and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// Nothing: a public address.
    Open,
    /// A home router. It keeps the port where it can and forwards to the inside only what comes
    /// from an address and port that the inside sent to (a "port-restricted cone").
    Cone,
    /// A router that chooses another outside port for each destination.
    Symmetric,
    /// A home router behind a carrier's, both as [`NatKind::Cone`].
    Double,
}

impl std::str::FromStr for NatKind {
    type Err = String;

    fn from_str(text: &str) -> Result<NatKind, String> {
        match text {
            "open" => Ok(NatKind::Open),
            "cone" => Ok(NatKind::Cone),
            "symmetric" => Ok(NatKind::Symmetric),
            "double" => Ok(NatKind::Double),
            _ => Err(format!("{text:?} is not open, cone, symmetric or double")),
        }
    }
}

impl std::fmt::Display for NatKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NatKind::Open => "open",
            NatKind::Cone => "cone",
            NatKind::Symmetric => "symmetric",
            NatKind::Double => "double",
        })
    }
}

/// Where a host is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the internet, or behind routers of its own.
    Own {
        nat: NatKind,
        link: Link,
        ipv6: bool,
    },
    /// To the router of another host.
    With(String),
}

/// One host.
#[derive(Debug, Clone)]
pub struct HostPlan {
    pub(crate) name: String,
    pub(crate) place: Place,
}

impl HostPlan {
    /// A host with a public address and an ideal link. The name is also the namespace's.
    pub fn new(name: impl Into<String>) -> HostPlan {
        HostPlan {
            name: name.into(),
            place: Place::Own {
                nat: NatKind::Open,
                link: Link::default(),
                ipv6: false,
            },
        }
    }

    /// Puts these routers between the host and the internet. Without [`HostPlan::ipv6`] it then
    /// has IPv4 only.
    pub fn nat(mut self, kind: NatKind) -> HostPlan {
        if let Place::Own { nat, .. } = &mut self.place {
            *nat = kind;
        }
        self
    }

    /// Shapes the link of the host, or of its outermost router.
    pub fn link(mut self, wanted: Link) -> HostPlan {
        if let Place::Own { link, .. } = &mut self.place {
            *link = wanted;
        }
        self
    }

    /// Gives the host a public IPv6 address behind its router, which lets in only what the
    /// inside asked for. Hosts without a router have one anyway.
    pub fn ipv6(mut self) -> HostPlan {
        if let Place::Own { ipv6, .. } = &mut self.place {
            *ipv6 = true;
        }
        self
    }

    /// Connects the host to the router of another one, which has its own link and NAT already.
    pub fn sharing_router_of(mut self, other: impl Into<String>) -> HostPlan {
        self.place = Place::With(other.into());
        self
    }
}

/// The hosts of a network.
#[derive(Debug, Default)]
pub struct LabBuilder {
    pub(crate) hosts: Vec<HostPlan>,
}

impl LabBuilder {
    /// Adds a host.
    pub fn host(mut self, plan: HostPlan) -> LabBuilder {
        self.hosts.push(plan);
        self
    }

    /// Adds hosts.
    pub fn hosts(mut self, plans: impl IntoIterator<Item = HostPlan>) -> LabBuilder {
        self.hosts.extend(plans);
        self
    }

    /// Builds the network. Needs [`super::isolation::prepare`] before.
    pub fn build(self) -> Result<Lab, LabError> {
        self.check()?;
        Lab::build(&self.hosts)
    }

    fn check(&self) -> Result<(), LabError> {
        let plan = |message: String| Err(LabError::Plan(message));
        if self.hosts.len() > SITES_MAX {
            return plan(format!("at most {SITES_MAX} hosts"));
        }
        let mut with_router = HashSet::new();
        let mut names = HashSet::new();
        for host in &self.hosts {
            let name = &host.name;
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.chars().all(legal) {
                return plan(format!(
                    "a host cannot be called {name:?}: letters, digits, - and _"
                ));
            }
            let reserved = name.ends_with("-router") || name.ends_with("-carrier");
            if reserved || name == "internet" || !names.insert(name) {
                return plan(format!("the name {name:?} is taken"));
            }
            match &host.place {
                Place::Own { nat, .. } if *nat != NatKind::Open => {
                    with_router.insert(name);
                }
                Place::Own { .. } => {}
                Place::With(other) if with_router.contains(other) => {}
                Place::With(other) => {
                    return plan(format!(
                        "{name} cannot share the router of {other}, which comes later or has none"
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: Vec<HostPlan>) -> Result<(), LabError> {
        LabBuilder { hosts }.check()
    }

    #[test]
    fn names_are_unique_and_harmless() {
        assert!(check(vec![HostPlan::new("a"), HostPlan::new("b")]).is_ok());
        assert!(check(vec![HostPlan::new("a"), HostPlan::new("a")]).is_err());
        for name in ["", "internet", "../a", "a b", "a-router"] {
            assert!(check(vec![HostPlan::new(name)]).is_err(), "{name}");
        }
    }

    #[test]
    fn only_a_router_that_is_there_can_be_shared() {
        let a = HostPlan::new("a").nat(NatKind::Cone);
        let b = HostPlan::new("b").sharing_router_of("a");
        assert!(check(vec![a.clone(), b.clone()]).is_ok());
        assert!(check(vec![b.clone(), a]).is_err());
        assert!(check(vec![HostPlan::new("a"), b]).is_err());
    }
}
