//! A running network.

use std::collections::HashMap;

use super::attachment::Subnet;
use super::error::LabError;
use super::host::{FarEnd, Host};
use super::internet::{Internet, SiteIndex};
use super::namespace::Namespace;
use super::plan::{HostPlan, LabBuilder, Link, NatKind, Place};
use super::router::{Mapping, Router};

/// A network. After it is dropped another one can be built.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    index_by_name: HashMap<String, usize>,
    routers: Vec<Router>,
    internet: Internet,
}

impl Lab {
    /// Starts planning a network.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    pub(crate) fn build(plans: &[HostPlan]) -> Result<Lab, LabError> {
        let mut lab = Lab {
            hosts: Vec::new(),
            index_by_name: HashMap::new(),
            routers: Vec::new(),
            internet: Internet::create()?,
        };
        for plan in plans {
            let host = lab.add(plan)?;
            lab.index_by_name.insert(plan.name.clone(), lab.hosts.len());
            lab.hosts.push(host);
        }
        Ok(lab)
    }

    /// Returns all hosts, in the order of the plan.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Returns the host of this name.
    ///
    /// # Panics
    /// When the plan has no such host.
    pub fn host(&self, name: &str) -> &Host {
        match self.index_by_name.get(name) {
            Some(&index) => &self.hosts[index],
            None => panic!("no host is called {name:?}"),
        }
    }

    /// Returns the routers between a host and the internet, from the host outwards.
    pub fn routers_of(&self, host: &Host) -> impl Iterator<Item = &Router> {
        host.routers.iter().map(|&index| &self.routers[index])
    }

    /// Unplugs the host: all its packets are dropped, and nobody is notified.
    pub fn cut(&self, host: &Host) -> Result<(), LabError> {
        host.set_connected(&self.internet, false)
    }

    /// Plugs it in again.
    pub fn restore(&self, host: &Host) -> Result<(), LabError> {
        host.set_connected(&self.internet, true)
    }

    /// Drops all packets between two hosts (and those that share their routers). Both still reach
    /// all others.
    pub fn sever(&self, a: &Host, b: &Host) -> Result<(), LabError> {
        self.internet.sever(a.site, b.site)
    }

    /// Ends [`Lab::sever`].
    pub fn mend(&self, a: &Host, b: &Host) -> Result<(), LabError> {
        self.internet.mend(a.site, b.site)
    }

    fn add(&mut self, plan: &HostPlan) -> Result<Host, LabError> {
        let namespace = Namespace::create(&plan.name)?;
        let (site, routers) = match &plan.place {
            Place::Own {
                nat: NatKind::Open,
                link,
                ..
            } => {
                let (site, attachment) = self.internet.attach(&namespace, "eth0", link, false)?;
                return Ok(Host {
                    namespace,
                    attachment,
                    far_end: FarEnd::Internet,
                    site,
                    routers: Vec::new(),
                });
            }
            Place::Own { nat, link, ipv6 } => self.add_routers(&plan.name, *nat, link, *ipv6)?,
            Place::With(other) => {
                let other = self.host(other);
                (other.site, other.routers.clone())
            }
        };
        let nearest = routers
            .first()
            .and_then(|&index| self.routers.get_mut(index));
        let Some(nearest) = nearest else {
            return Err(LabError::Plan(format!("{} has no router", plan.name)));
        };
        let (port, attachment) = nearest.plug(&namespace, "eth0")?;
        Ok(Host {
            namespace,
            attachment,
            far_end: FarEnd::Router(port),
            site,
            routers,
        })
    }

    /// The routers from the host outwards.
    fn add_routers(
        &mut self,
        host: &str,
        nat: NatKind,
        link: &Link,
        ipv6: bool,
    ) -> Result<(SiteIndex, Vec<usize>), LabError> {
        let mapping = match nat {
            NatKind::Symmetric => Mapping::RandomPorts,
            NatKind::Open | NatKind::Cone | NatKind::Double => Mapping::KeepsPorts,
        };
        let is_double = nat == NatKind::Double;
        let role = if is_double { "carrier" } else { "router" };
        let namespace = Namespace::create(&format!("{host}-{role}"))?;
        let (site, outside) = self.internet.attach(&namespace, "wan", link, ipv6)?;
        let [high, low] = site.to_be_bytes();
        let prefix = |part| ipv6.then_some([0x2001, 0xdb8, site, part]);
        let home = |part| Subnet {
            v4: [10, high, low],
            v6: prefix(part),
        };
        let shared = Subnet {
            v4: [100, 64 + high, low],
            v6: prefix(1),
        };
        let inside = if is_double { shared } else { home(1) };
        let outermost = self.routers.len();
        self.routers
            .push(Router::create(namespace, outside, inside, mapping)?);
        if !is_double {
            return Ok((site, vec![outermost]));
        }
        let namespace = Namespace::create(&format!("{host}-router"))?;
        let carrier = &mut self.routers[outermost];
        let (_, outside) = carrier.plug(&namespace, "wan")?;
        if let Some(prefix) = prefix(2) {
            carrier.route_v6(prefix, &outside)?;
        }
        self.routers
            .push(Router::create(namespace, outside, home(2), mapping)?);
        Ok((site, vec![outermost + 1, outermost]))
    }
}
