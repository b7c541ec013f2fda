//! The internet between the hosts: a namespace that routes between their links and shapes them.

use std::time::Duration;

use super::attachment::{Attachment, Subnet};
use super::delay::{Delay, Turn};
use super::error::LabError;
use super::namespace::Namespace;
use super::plan::Link;
use super::units::{Loss, Rate};

/// Burst of a shaper: some wake-ups of a kernel timer. A smaller one starves a fast link; a larger
/// one lets a slow link exceed its rate for that long.
const BURST: Duration = Duration::from_micros(200);
/// A full packet as `tbf` counts it: an Ethernet frame.
const PACKET_BYTES: u64 = 1514;
/// Two packets: with a smaller burst `tbf` sends nothing.
const BURST_MIN_BYTES: u64 = 2 * PACKET_BYTES;
/// Fewest packets worth bundling.
const BUNDLE_MIN_BYTES: u64 = 3 * PACKET_BYTES;
/// The kernel's default.
const BUNDLE_MAX_BYTES: u64 = 65_536;
/// The queue of the slowest link holds this many packets.
const QUEUE_MIN_BYTES: u64 = 15_140;
/// Routing table that leads through the delays.
const DELAYED: u32 = 100;

const RULES: &str = "
table inet lab {
    set cut { type ifname; }
    set severed { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0;
        iifname @cut drop
        oifname @cut drop
        iifname . oifname @severed drop
    }
}
";

/// Number of a link, from 1.
pub(crate) type SiteIndex = u16;

/// The namespace that connects all sites.
#[derive(Debug)]
pub(crate) struct Internet {
    namespace: Namespace,
    sites: SiteIndex,
    delays: Vec<Delay>,
}

impl Internet {
    pub(crate) fn create() -> Result<Internet, LabError> {
        let namespace = Namespace::create("internet")?;
        namespace.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        namespace.nft(RULES)?;
        let rule = format!("rule add pref 200 lookup {DELAYED}\n");
        namespace.ip4(&rule)?;
        namespace.ip6(&rule)?;
        Ok(Internet {
            namespace,
            sites: 0,
            delays: Vec::new(),
        })
    }

    /// Connects a host or router. With `routed`, the rest of its /48 is routed to it.
    pub(crate) fn attach(
        &mut self,
        owner: &Namespace,
        interface: &'static str,
        link: &Link,
        routed: bool,
    ) -> Result<(SiteIndex, Attachment), LabError> {
        self.sites += 1;
        let site = self.sites;
        let [high, low] = site.to_be_bytes();
        let subnet = Subnet {
            v4: [198, 18 + high, low],
            v6: Some([0x2001, 0xdb8, site, 0]),
        };
        let port = format!("s{site}");
        self.namespace.ip(&format!(
            "link add {port} type veth peer name {interface} netns {owner}\n\
             link set {port} up\n{}",
            subnet.assign(&port, 1),
            owner = owner.name(),
        ))?;
        let attachment = Attachment::new(owner, interface, subnet, 2)?;
        if let (true, Some(router)) = (routed, subnet.v6(2)) {
            let route = format!("route add 2001:db8:{site:x}::/48 via {router}\n");
            self.namespace.ip6(&route)?;
        }
        let bundle_max_bytes = bundle_max_bytes(link);
        if link.is_shaped() {
            owner.limit_bundles(interface, bundle_max_bytes)?;
            self.namespace.limit_bundles(&port, bundle_max_bytes)?;
        }
        if let Some(rate) = link.up {
            owner.tc(&shaper(interface, rate, link.queue, bundle_max_bytes))?;
        }
        if let Some(rate) = link.down {
            self.namespace
                .tc(&shaper(&port, rate, link.queue, bundle_max_bytes))?;
        }
        if link.loss != Loss::NONE && !link.is_delayed() {
            let lost = link.loss.per_million();
            self.namespace.nft(&format!(
                "add rule inet lab forward oifname {port} numgen random mod 1000000 < {lost} drop\n"
            ))?;
        }
        if link.is_delayed() {
            self.delay(site, subnet, link)?;
        }
        Ok((site, attachment))
    }

    /// Routes packets to the site through a delay, and routes them again afterwards.
    fn delay(&mut self, site: SiteIndex, subnet: Subnet, link: &Link) -> Result<(), LabError> {
        let device = format!("d{site}");
        let turn = Turn {
            delay: link.delay,
            jitter: link.jitter,
            loss: link.loss,
            bundled: bundle_max_bytes(link).is_some(),
        };
        self.delays
            .push(Delay::start(&self.namespace, &device, turn)?);
        let turn_over = format!("rule add pref 100 iif {device} lookup main\n");
        self.namespace.ip4(&format!(
            "link set {device} up txqueuelen 10000\n\
             {turn_over}\
             route add {}/24 dev {device} table {DELAYED}\n",
            subnet.v4(0),
        ))?;
        self.namespace.ip6(&format!(
            "{turn_over}route add 2001:db8:{site:x}::/48 dev {device} table {DELAYED}\n"
        ))
    }

    /// Drops all packets to and from a site, silently.
    pub(crate) fn cut(&self, site: SiteIndex) -> Result<(), LabError> {
        self.namespace
            .nft(&format!("add element inet lab cut {{ s{site} }}\n"))
    }

    pub(crate) fn restore(&self, site: SiteIndex) -> Result<(), LabError> {
        self.namespace
            .nft(&format!("delete element inet lab cut {{ s{site} }}\n"))
    }

    /// Drops all packets between two sites, silently; both reach all others.
    pub(crate) fn sever(&self, a: SiteIndex, b: SiteIndex) -> Result<(), LabError> {
        self.namespace.nft(&format!(
            "add element inet lab severed {{ {} }}\n",
            between(a, b)
        ))
    }

    pub(crate) fn mend(&self, a: SiteIndex, b: SiteIndex) -> Result<(), LabError> {
        self.namespace.nft(&format!(
            "delete element inet lab severed {{ {} }}\n",
            between(a, b)
        ))
    }
}

/// Both directions, with a delay or without.
fn between(a: SiteIndex, b: SiteIndex) -> String {
    format!("s{a} . s{b}, s{a} . d{b}, s{b} . s{a}, s{b} . d{a}")
}

/// How large a bundle may be on a shaped link: what passes in the time of a burst, so that it
/// takes no longer than what a network card bundles, unless the plan says how many packets. None
/// where that is hardly more than a packet, or where the kernel loses packets, which takes bundles
/// whole.
fn bundle_max_bytes(link: &Link) -> Option<u64> {
    let slowest = [link.up, link.down].into_iter().flatten().min();
    let bytes = match link.bundle_packets {
        Some(packets) => PACKET_BYTES * u64::from(packets),
        None => slowest.map_or(u64::MAX, |rate| rate.bytes_in(BURST) * 9 / 10),
    };
    let is_bundled = bytes >= BUNDLE_MIN_BYTES && (link.loss == Loss::NONE || link.is_delayed());
    is_bundled.then_some(bytes.min(BUNDLE_MAX_BYTES))
}

fn shaper(interface: &str, rate: Rate, queue: Duration, bundle_bytes: Option<u64>) -> String {
    // `tbf` would segment packets longer than a burst.
    let burst_min = BURST_MIN_BYTES.max(bundle_bytes.unwrap_or_default());
    let burst = rate.bytes_in(BURST).max(burst_min);
    let limit = burst + rate.bytes_in(queue).max(QUEUE_MIN_BYTES);
    let bits = rate.bits_per_second();
    format!("qdisc replace dev {interface} root tbf rate {bits}bit burst {burst} limit {limit}\n")
}
