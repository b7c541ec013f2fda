//! What networks use of all trackers together.
//!
//! Each tracker has resources of its own, and shares them out fairly by network when they are full
//! ([`qshare_content::fair`]). So that nobody gets more by spreading over trackers, each tracker
//! tells the others every two seconds what the heaviest networks use of it, and counts what they
//! use elsewhere when it decides who yields. Where nothing is full, nobody is limited.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::Network;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::layout::{Layout, bytes_of, decode_trackers};
use super::link::Link;
use super::service::TrackerPeer;
use super::siblings::TRACKERS_MAX;

/// What a tracker tells expires after this long, and is told this often, in seconds.
const LEASE: Duration = Duration::from_secs(12);
const INTERVAL_SECONDS: std::ops::Range<f64> = 1.5..2.5;
/// Networks of each kind of resource that a tracker tells: a record has at most some 8 KiB.
const NETWORKS_MAX: usize = 128;

/// What networks use of one tracker, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrackerUse {
    /// Bytes of entries and their names.
    pub(crate) entry_bytes: BTreeMap<Network, u64>,
    /// Nodes with a session or a lease.
    pub(crate) nodes: BTreeMap<Network, u64>,
    /// Open streams: requests, watches and claimed mailboxes.
    pub(crate) streams: BTreeMap<Network, u64>,
}

/// A [`TrackerUse`] in Redis: networks by one of their addresses.
#[derive(Serialize, Deserialize)]
struct UseRecord {
    /// Identifies the machine on which the tracker runs.
    host: u64,
    kinds: [Vec<(IpAddr, u64)>; 3],
}

/// Tells other trackers what networks use of this one, and learns what they use of others.
pub(super) struct Usage {
    link: Arc<Link>,
    layout: Layout,
    us: NodeId,
    host: u64,
}

fn address_of(network: Network) -> IpAddr {
    match network {
        Network::V4([a, b, c]) => Ipv4Addr::new(a, b, c, 0).into(),
        Network::V6(bytes) => {
            let mut octets = [0; 16];
            octets[..6].copy_from_slice(&bytes);
            Ipv6Addr::from(octets).into()
        }
        Network::Address(address) => address,
    }
}

impl UseRecord {
    fn new(host: u64, used: TrackerUse) -> UseRecord {
        let encode = |kind: BTreeMap<Network, u64>| {
            let pairs = kind.into_iter();
            pairs.map(|(at, used)| (address_of(at), used)).collect()
        };
        let TrackerUse {
            entry_bytes,
            nodes,
            streams,
        } = used;
        UseRecord {
            host,
            kinds: [entry_bytes, nodes, streams].map(encode),
        }
    }

    /// Adds this to what is used elsewhere. A private address stands for one party only among
    /// trackers of one machine.
    fn add_to(&self, total: &mut TrackerUse, host: u64) {
        let kinds = [&mut total.entry_bytes, &mut total.nodes, &mut total.streams];
        for (kind, told) in kinds.into_iter().zip(&self.kinds) {
            for &(address, used) in told.iter().take(NETWORKS_MAX) {
                let network = Network::of(address);
                if !network.is_local() || self.host == host {
                    let sum = kind.entry(network).or_default();
                    *sum = sum.saturating_add(used);
                }
            }
        }
    }
}

impl Usage {
    pub(super) fn new(link: Arc<Link>, layout: Layout, us: NodeId, host: u64) -> Usage {
        Usage {
            link,
            layout,
            us,
            host,
        }
    }

    /// Never returns.
    pub(super) async fn run(&self, peer: &impl TrackerPeer) {
        let mut learned: Option<Instant> = None;
        loop {
            match self.exchange(peer.network_use(NETWORKS_MAX)).await {
                Some(elsewhere) => {
                    peer.set_use_elsewhere(elsewhere);
                    learned = Some(Instant::now());
                }
                // Without Redis it is forgotten as it is there.
                None if learned.is_some_and(|at| at.elapsed() > LEASE) => {
                    peer.set_use_elsewhere(TrackerUse::default());
                    learned = None;
                }
                None => {}
            }
            let pause = rand::rng().random_range(INTERVAL_SECONDS);
            sleep(Duration::from_secs_f64(pause)).await;
        }
    }

    /// Tells what is used here, and returns what is used of all other trackers. None if Redis does
    /// not answer.
    async fn exchange(&self, used: TrackerUse) -> Option<TrackerUse> {
        let record = postcard::to_stdvec(&UseRecord::new(self.host, used)).ok()?;
        let calls = [
            self.layout.tell_use(self.us, record, LEASE),
            self.layout.list_trackers(TRACKERS_MAX),
        ];
        let values = self.link.run(&calls).await.ok()?;
        let mut trackers = values.last().map(decode_trackers).unwrap_or_default();
        trackers.retain(|tracker| *tracker != self.us);
        let reads: Vec<_> = trackers
            .into_iter()
            .map(|tracker| self.layout.read_use(tracker))
            .collect();
        let records = self.link.run(&reads).await.ok()?;
        let mut elsewhere = TrackerUse::default();
        for bytes in records.iter().filter_map(bytes_of) {
            if let Ok(record) = postcard::from_bytes::<UseRecord>(bytes) {
                record.add_to(&mut elsewhere, self.host);
            }
        }
        Some(elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_round_trip_and_private_addresses_count_on_one_machine_only() {
        let networks = ["203.0.113.7", "2001:db8:1::5", "10.1.2.3", "::1"];
        let networks = networks.map(|at| Network::of(at.parse().unwrap()));
        let used = TrackerUse {
            entry_bytes: networks.iter().map(|&network| (network, 5)).collect(),
            nodes: BTreeMap::from([(networks[0], u64::MAX)]),
            streams: BTreeMap::new(),
        };
        let record = UseRecord::new(1, used.clone());
        let mut here = TrackerUse::default();
        record.add_to(&mut here, 1);
        assert_eq!(here, used);
        record.add_to(&mut here, 2);
        assert_eq!(here.entry_bytes[&networks[1]], 10);
        assert_eq!(here.entry_bytes[&networks[2]], 5);
        assert_eq!(here.nodes[&networks[0]], u64::MAX);
    }
}
