//! The holders of one content, and fair random samples of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng;
use rand::seq::index;

use crate::room::Node;
use crate::slab::Key;

/// What a node has of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Absent,
    Partial,
    Complete,
}

/// One holder, with how many of its entries say complete and how many say partial: a node
/// may announce one content under several names.
struct Slot {
    node: Key<Node>,
    complete_entries: u32,
    partial_entries: u32,
    /// How often it was given to somebody, beginning at the others' mean.
    handed_out: u32,
}

impl Slot {
    fn presence(&self) -> Presence {
        if self.complete_entries > 0 {
            Presence::Complete
        } else {
            Presence::Partial
        }
    }

    fn entries(&mut self, complete: bool) -> &mut u32 {
        if complete {
            &mut self.complete_entries
        } else {
            &mut self.partial_entries
        }
    }
}

/// Up to this many holders a search through them is as fast as an index, and takes no memory.
const INDEXED_FROM: usize = 32;

/// All holders of one content.
#[derive(Default)]
pub(crate) struct Holders {
    slots: Vec<Slot>,
    /// Where each node's slot is; only kept for [`INDEXED_FROM`] holders or more.
    #[allow(
        clippy::box_collection,
        reason = "most contents have few holders and need eight bytes here, not 24"
    )]
    positions: Option<Box<BTreeMap<Key<Node>, u32>>>,
    complete: u32,
    handed_out: u64,
}

impl Holders {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nodes that have all of it.
    pub(crate) fn complete(&self) -> usize {
        self.complete as usize
    }

    /// Nodes that have some of it.
    pub(crate) fn partial(&self) -> usize {
        self.slots.len() - self.complete as usize
    }

    pub(crate) fn presence(&self, node: Key<Node>) -> Presence {
        self.position(node)
            .map_or(Presence::Absent, |position| self.slots[position].presence())
    }

    /// Counts one more entry of `node`; tells what it had before and has now.
    pub(crate) fn add(&mut self, node: Key<Node>, complete: bool) -> (Presence, Presence) {
        let before = self.presence(node);
        let position = self.position(node).unwrap_or_else(|| self.insert(node));
        *self.slots[position].entries(complete) += 1;
        let after = self.slots[position].presence();
        self.recount(before, after);
        (before, after)
    }

    /// Counts one entry of `node` less; tells what it had before and has now.
    pub(crate) fn remove(&mut self, node: Key<Node>, complete: bool) -> (Presence, Presence) {
        let Some(position) = self.position(node) else {
            return (Presence::Absent, Presence::Absent);
        };
        let slot = &mut self.slots[position];
        let before = slot.presence();
        let entries = slot.entries(complete);
        *entries = entries.saturating_sub(1);
        let after = if slot.complete_entries + slot.partial_entries == 0 {
            self.discard(position);
            Presence::Absent
        } else {
            slot.presence()
        };
        self.recount(before, after);
        (before, after)
    }

    fn recount(&mut self, before: Presence, after: Presence) {
        if before == Presence::Complete {
            self.complete -= 1;
        }
        if after == Presence::Complete {
            self.complete += 1;
        }
    }

    fn position(&self, node: Key<Node>) -> Option<usize> {
        match &self.positions {
            Some(positions) => positions.get(&node).map(|&position| position as usize),
            None => self.slots.iter().position(|slot| slot.node == node),
        }
    }

    fn insert(&mut self, node: Key<Node>) -> usize {
        // A newcomer that began at nought would be given to everybody until it caught up.
        let handed_out = self
            .handed_out
            .checked_div(self.slots.len() as u64)
            .unwrap_or(0) as u32;
        self.handed_out += u64::from(handed_out);
        let position = self.slots.len();
        if position == 0 {
            // Most contents have one holder; the vector's own first step would be four.
            self.slots.reserve_exact(1);
        }
        self.slots.push(Slot {
            node,
            complete_entries: 0,
            partial_entries: 0,
            handed_out,
        });
        match &mut self.positions {
            Some(positions) => {
                positions.insert(node, position as u32);
            }
            None if self.slots.len() >= INDEXED_FROM => {
                let positions = (0..).zip(&self.slots).map(|(at, slot)| (slot.node, at));
                self.positions = Some(Box::new(positions.collect()));
            }
            None => {}
        }
        position
    }

    fn discard(&mut self, position: usize) {
        let slot = self.slots.swap_remove(position);
        self.handed_out -= u64::from(slot.handed_out);
        if self.slots.len() < INDEXED_FROM / 2 {
            self.positions = None;
        }
        if let Some(positions) = &mut self.positions {
            positions.remove(&slot.node);
            if let Some(moved) = self.slots.get(position) {
                positions.insert(moved.node, position as u32);
            }
        }
    }

    /// How many holders are drawn for a sample of `limit`: enough to fill it although some of the
    /// drawn share a network.
    pub(crate) fn drawn_for(&self, limit: usize) -> usize {
        const DRAWN_MIN: usize = 64;
        match limit {
            0 => 0,
            limit => self.slots.len().min((limit * 4).max(DRAWN_MIN)),
        }
    }

    /// At most `limit` holders at random, few from one network, whoever was given out less
    /// first among twice as many drawn.
    ///
    /// Drawing first and comparing afterwards keeps both the graph that results near-regular
    /// and its edges random; always giving out the least used would chain newcomers to
    /// newcomers. `standing` is `None` for a node that is not to be offered.
    pub(crate) fn sample(
        &mut self,
        limit: usize,
        per_network: usize,
        rng: &mut impl Rng,
        standing: impl Fn(Key<Node>) -> Option<Standing>,
    ) -> Vec<(Key<Node>, Presence)> {
        let drawn_max = self.drawn_for(limit);
        let mut drawn: Vec<(usize, Standing)> = index::sample(rng, self.slots.len(), drawn_max)
            .into_iter()
            .filter_map(|at| Some((at, standing(self.slots[at].node)?)))
            .collect();
        let compared = drawn.len().min(limit * 2);
        drawn[..compared]
            .sort_by_key(|&(at, standing)| (!standing.connected, self.slots[at].handed_out));

        let mut of_network: BTreeMap<Network, usize> = BTreeMap::new();
        let mut sample = Vec::with_capacity(limit.min(drawn.len()));
        for (at, standing) in drawn {
            if sample.len() == limit {
                break;
            }
            if let Some(network) = standing.network {
                let taken = of_network.entry(network).or_default();
                if *taken == per_network {
                    continue;
                }
                *taken += 1;
            }
            let slot = &mut self.slots[at];
            slot.handed_out = slot.handed_out.saturating_add(1);
            self.handed_out += 1;
            sample.push((slot.node, slot.presence()));
        }
        sample
    }
}

/// What counts when a node is to be offered.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    /// False while only its lease keeps it: offered after those that are there.
    pub(crate) connected: bool,
    /// Where it was seen; `None` where the number from one network is not limited.
    pub(crate) network: Option<Network>,
}

/// A network that one party is likely to own as a whole: a /24 or a /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Network {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Network {
    /// The network of an address; `None` for loopback, private and link-local ones.
    pub(crate) fn of(address: IpAddr) -> Option<Network> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                (!is_local_v4(address)).then_some(Network::V4([a, b, c]))
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                (!is_local_v6(address)).then_some(Network::V6([a, b, c, d, e, f]))
            }
        }
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    // RFC 6598: a carrier's inner network.
    let shared = a == 100 && (64..128).contains(&b);
    shared || address.is_loopback() || address.is_private() || address.is_link_local()
}

fn is_local_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::slab::Slab;

    fn keys(count: usize) -> Vec<Key<Node>> {
        let mut slab = Slab::default();
        (0..count).map(|_| slab.insert(Node::for_test())).collect()
    }

    const CONNECTED: Standing = Standing {
        connected: true,
        network: None,
    };

    #[test]
    fn a_node_is_complete_as_long_as_one_of_its_entries_is() {
        let node = keys(1)[0];
        let mut holders = Holders::default();
        assert_eq!(
            holders.add(node, false),
            (Presence::Absent, Presence::Partial)
        );
        assert_eq!(
            holders.add(node, true),
            (Presence::Partial, Presence::Complete)
        );
        assert_eq!((holders.complete(), holders.partial()), (1, 0));
        assert_eq!(
            holders.remove(node, true),
            (Presence::Complete, Presence::Partial)
        );
        assert_eq!(
            holders.remove(node, false),
            (Presence::Partial, Presence::Absent)
        );
        assert_eq!((holders.complete(), holders.partial()), (0, 0));
    }

    #[test]
    fn the_index_agrees_with_the_slots_however_holders_come_and_go() {
        let nodes = keys(200);
        let mut holders = Holders::default();
        for &node in &nodes {
            holders.add(node, true);
        }
        for &node in nodes.iter().step_by(3) {
            holders.remove(node, true);
        }
        for (n, &node) in nodes.iter().enumerate() {
            let expected = if n % 3 == 0 {
                Presence::Absent
            } else {
                Presence::Complete
            };
            assert_eq!(holders.presence(node), expected);
        }
        for &node in &nodes {
            holders.remove(node, true);
        }
        assert_eq!(holders.len(), 0);
        assert!(holders.positions.is_none());
        assert_eq!(holders.handed_out, 0);
    }

    #[test]
    fn holders_of_a_growing_swarm_are_given_out_about_equally_often() {
        let seed = 7;
        let mut rng = SmallRng::seed_from_u64(seed);
        let nodes = keys(400);
        let mut holders = Holders::default();
        for &node in &nodes[..200] {
            holders.add(node, true);
        }
        let mut handed = BTreeMap::new();
        for &node in &nodes[200..] {
            for (given, _) in holders.sample(10, 3, &mut rng, |_| Some(CONNECTED)) {
                *handed.entry(given).or_insert(0) += 1;
            }
            holders.add(node, false);
        }
        // 200 samples of 10 over some 300 holders: 7 each for those there from the start.
        let counts: Vec<i32> = nodes[..200]
            .iter()
            .map(|node| handed.get(node).copied().unwrap_or(0))
            .collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 6, "seed {seed}: {least}..{most}");
    }

    #[test]
    fn at_most_a_few_come_from_one_network() {
        let mut rng = SmallRng::seed_from_u64(1);
        let nodes = keys(60);
        let mut holders = Holders::default();
        for &node in &nodes {
            holders.add(node, true);
        }
        let crowd = Network::of("203.0.113.9".parse().unwrap());
        let from_crowd = |node: Key<Node>| nodes[..50].contains(&node);
        let sample = holders.sample(20, 3, &mut rng, |node| {
            Some(Standing {
                connected: true,
                network: from_crowd(node).then_some(crowd).flatten(),
            })
        });
        let crowded = sample.iter().filter(|(node, _)| from_crowd(*node)).count();
        assert_eq!((crowded, sample.len()), (3, 13));
    }

    #[test]
    fn those_whose_connection_was_lost_are_offered_last() {
        let mut rng = SmallRng::seed_from_u64(1);
        let nodes = keys(8);
        let mut holders = Holders::default();
        for &node in &nodes {
            holders.add(node, true);
        }
        let sample = holders.sample(4, 3, &mut rng, |node| {
            Some(Standing {
                connected: nodes[4..].contains(&node),
                network: None,
            })
        });
        assert!(sample.iter().all(|(node, _)| nodes[4..].contains(node)));
    }

    #[test]
    fn networks_are_told_apart_by_24_and_48_bits_and_local_ones_are_none() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("203.0.113.1"), of("203.0.113.200"));
        assert_eq!(of("203.0.113.1"), of("::ffff:203.0.113.200"));
        assert_ne!(of("203.0.113.1"), of("203.0.114.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        for local in ["127.0.0.1", "10.1.2.3", "192.168.0.9", "169.254.1.1", "::1"] {
            assert_eq!(of(local), None, "{local}");
        }
        for local in ["fd00::1", "fe80::1", "::ffff:10.0.0.1"] {
            assert_eq!(of(local), None, "{local}");
        }
    }
}
