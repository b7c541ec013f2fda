//! The holders of one content, and fair random samples of them.

use std::collections::BTreeMap;

use qshare_content::fair::Network;
use rand::Rng;
use rand::seq::index;

use crate::node::Node;
use crate::slab::Key;

/// What a node has of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Absent,
    Partial,
    Complete,
}

/// One holder, with how many of its entries say complete and how many say partial: a node may
/// announce one content under several names.
struct Slot {
    node: Key<Node>,
    complete_entries: u32,
    partial_entries: u32,
    /// Number of samples that the holder was part of. A new one starts at the mean of the others.
    handed_out: u32,
}

impl Slot {
    const VACANT: Slot = Slot::new(Key::DANGLING, 0);

    const fn new(node: Key<Node>, handed_out: u32) -> Slot {
        Slot {
            node,
            complete_entries: 0,
            partial_entries: 0,
            handed_out,
        }
    }

    fn presence(&self) -> Presence {
        match (self.complete_entries, self.partial_entries) {
            (0, 0) => Presence::Absent,
            (0, _) => Presence::Partial,
            _ => Presence::Complete,
        }
    }

    fn entries(&mut self, complete: bool) -> &mut u32 {
        if complete {
            &mut self.complete_entries
        } else {
            &mut self.partial_entries
        }
    }

    fn add(&mut self, complete: bool) {
        *self.entries(complete) += 1;
    }

    fn remove(&mut self, complete: bool) {
        let entries = self.entries(complete);
        *entries = entries.saturating_sub(1);
    }
}

/// From this many holders on their slots are indexed. A linear search through fewer is as fast.
const INDEXED_FROM: usize = 32;

/// All holders of one content. Most contents have one, which takes no memory of its own.
pub(crate) struct Holders(Repr);

enum Repr {
    /// One, or none if the slot is vacant.
    One(Slot),
    Many(Box<Many>),
}

struct Many {
    slots: Vec<Slot>,
    /// The position of each node's slot; only kept for [`INDEXED_FROM`] holders or more.
    positions: Option<BTreeMap<Key<Node>, u32>>,
    complete: u32,
    handed_out: u64,
}

impl Default for Holders {
    fn default() -> Self {
        Holders(Repr::One(Slot::VACANT))
    }
}

impl Holders {
    fn slots(&self) -> &[Slot] {
        match &self.0 {
            Repr::One(slot) if slot.presence() == Presence::Absent => &[],
            Repr::One(slot) => std::slice::from_ref(slot),
            Repr::Many(many) => &many.slots,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots().len()
    }

    /// Number of nodes that have all of the content.
    pub(crate) fn complete(&self) -> usize {
        match &self.0 {
            Repr::One(slot) => usize::from(slot.presence() == Presence::Complete),
            Repr::Many(many) => many.complete as usize,
        }
    }

    /// Number of nodes that have some of the content.
    pub(crate) fn partial(&self) -> usize {
        self.len() - self.complete()
    }

    pub(crate) fn presence(&self, node: Key<Node>) -> Presence {
        match &self.0 {
            Repr::One(slot) if slot.node == node => slot.presence(),
            Repr::One(_) => Presence::Absent,
            Repr::Many(many) => many
                .position(node)
                .map_or(Presence::Absent, |position| many.slots[position].presence()),
        }
    }

    /// Counts one more entry of `node`; returns what the node had before and has now.
    pub(crate) fn add(&mut self, node: Key<Node>, complete: bool) -> (Presence, Presence) {
        let before = self.presence(node);
        match &mut self.0 {
            Repr::One(slot) if slot.node == node => slot.add(complete),
            Repr::One(slot) if slot.presence() == Presence::Absent => {
                *slot = Slot::new(node, 0);
                slot.add(complete);
            }
            Repr::One(slot) => {
                let mut many = Many::of(std::mem::replace(slot, Slot::VACANT));
                many.add(node, complete);
                self.0 = Repr::Many(Box::new(many));
            }
            Repr::Many(many) => many.add(node, complete),
        }
        (before, self.presence(node))
    }

    /// Counts one entry of `node` less; returns what the node had before and has now.
    pub(crate) fn remove(&mut self, node: Key<Node>, complete: bool) -> (Presence, Presence) {
        let before = self.presence(node);
        match &mut self.0 {
            Repr::One(slot) if slot.node == node => {
                slot.remove(complete);
                if slot.presence() == Presence::Absent {
                    *slot = Slot::VACANT;
                }
            }
            Repr::One(_) => {}
            Repr::Many(many) => {
                many.remove(node, complete);
                if many.slots.len() == 1
                    && let Some(last) = many.slots.pop()
                {
                    self.0 = Repr::One(last);
                }
            }
        }
        (before, self.presence(node))
    }

    /// Returns how many holders are drawn for a sample of `limit`: enough to fill it although some
    /// of them share a network.
    pub(crate) fn drawn_for(&self, limit: usize) -> usize {
        const DRAWN_MIN: usize = 64;
        match limit {
            0 => 0,
            limit => self.len().min((limit * 4).max(DRAWN_MIN)),
        }
    }

    /// Returns at most `limit` random holders, few of one network: twice as many are drawn, and
    /// those that were handed out least come first.
    ///
    /// Drawing first and comparing afterwards keeps the resulting graph near-regular and its edges
    /// random; handing out the least used in any case would chain newcomers to newcomers.
    /// `eligibility` is `None` for a node that must not be offered.
    pub(crate) fn sample(
        &mut self,
        limit: usize,
        per_network: usize,
        rng: &mut impl Rng,
        eligibility: impl Fn(Key<Node>) -> Option<Eligibility>,
    ) -> Vec<(Key<Node>, Presence)> {
        let drawn_max = self.drawn_for(limit);
        let slots = match &mut self.0 {
            Repr::One(slot) if slot.presence() == Presence::Absent => &mut [][..],
            Repr::One(slot) => std::slice::from_mut(slot),
            Repr::Many(many) => &mut many.slots,
        };
        let mut drawn: Vec<(usize, Eligibility)> = index::sample(rng, slots.len(), drawn_max)
            .into_iter()
            .filter_map(|at| Some((at, eligibility(slots[at].node)?)))
            .collect();
        let compared = drawn.len().min(limit * 2);
        drawn[..compared].sort_by_key(|&(at, node)| (!node.connected, slots[at].handed_out));

        let mut of_network: BTreeMap<Network, usize> = BTreeMap::new();
        let mut sample = Vec::with_capacity(limit.min(drawn.len()));
        for (at, node) in drawn {
            if sample.len() == limit {
                break;
            }
            if !node.network.is_local() {
                let taken = of_network.entry(node.network).or_default();
                if *taken == per_network {
                    continue;
                }
                *taken += 1;
            }
            let slot = &mut slots[at];
            slot.handed_out = slot.handed_out.saturating_add(1);
            sample.push((slot.node, slot.presence()));
        }
        if let Repr::Many(many) = &mut self.0 {
            many.handed_out += sample.len() as u64;
        }
        sample
    }
}

impl Many {
    fn of(first: Slot) -> Many {
        Many {
            complete: u32::from(first.presence() == Presence::Complete),
            handed_out: u64::from(first.handed_out),
            slots: vec![first],
            positions: None,
        }
    }

    fn position(&self, node: Key<Node>) -> Option<usize> {
        match &self.positions {
            Some(positions) => positions.get(&node).map(|&position| position as usize),
            None => self.slots.iter().position(|slot| slot.node == node),
        }
    }

    fn add(&mut self, node: Key<Node>, complete: bool) {
        let position = self.position(node).unwrap_or_else(|| self.insert(node));
        let before = self.slots[position].presence();
        self.slots[position].add(complete);
        self.recount(before, self.slots[position].presence());
    }

    fn remove(&mut self, node: Key<Node>, complete: bool) {
        let Some(position) = self.position(node) else {
            return;
        };
        let slot = &mut self.slots[position];
        let before = slot.presence();
        slot.remove(complete);
        let after = slot.presence();
        if after == Presence::Absent {
            self.discard(position);
        }
        self.recount(before, after);
    }

    fn recount(&mut self, before: Presence, after: Presence) {
        if before == Presence::Complete {
            self.complete -= 1;
        }
        if after == Presence::Complete {
            self.complete += 1;
        }
    }

    fn insert(&mut self, node: Key<Node>) -> usize {
        // A newcomer that started at zero would be in every sample until it caught up.
        let handed_out = self.handed_out / (self.slots.len() as u64).max(1);
        self.handed_out += handed_out;
        let position = self.slots.len();
        let handed_out = u32::try_from(handed_out).unwrap_or(u32::MAX);
        self.slots.push(Slot::new(node, handed_out));
        match &mut self.positions {
            Some(positions) => {
                positions.insert(node, position as u32);
            }
            None if self.slots.len() >= INDEXED_FROM => {
                let positions = (0..).zip(&self.slots).map(|(at, slot)| (slot.node, at));
                self.positions = Some(positions.collect());
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
            self.slots.shrink_to(INDEXED_FROM);
        }
        if let Some(positions) = &mut self.positions {
            positions.remove(&slot.node);
            if let Some(moved) = self.slots.get(position) {
                positions.insert(moved.node, position as u32);
            }
        }
    }
}

/// What decides whether a node is offered before others.
#[derive(Clone, Copy)]
pub(crate) struct Eligibility {
    /// False while only its lease keeps its entries: offered after connected nodes.
    pub(crate) connected: bool,
    /// The network in which it was observed. The number from one local address is not limited.
    pub(crate) network: Network,
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::slab::Slab;

    fn keys(count: usize) -> Vec<Key<Node>> {
        let mut slab = Slab::default();
        (0..count).map(|_| slab.insert(Node::for_test())).collect()
    }

    const LOCAL: Network = Network::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
    const CONNECTED: Eligibility = Eligibility {
        connected: true,
        network: LOCAL,
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
        assert!(matches!(&holders.0, Repr::One(slot) if slot.node == Key::DANGLING));
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
            Some(Eligibility {
                connected: true,
                network: if from_crowd(node) { crowd } else { LOCAL },
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
            Some(Eligibility {
                connected: nodes[4..].contains(&node),
                network: LOCAL,
            })
        });
        assert!(sample.iter().all(|(node, _)| nodes[4..].contains(node)));
    }

    #[test]
    fn one_holder_takes_no_memory_of_its_own() {
        assert_eq!(size_of::<Holders>(), 16);
        let [a, b] = keys(2)[..] else { unreachable!() };
        let mut holders = Holders::default();
        holders.add(a, true);
        assert!(matches!(holders.0, Repr::One(_)));
        holders.add(b, false);
        assert_eq!(
            (holders.len(), holders.complete(), holders.partial()),
            (2, 1, 1)
        );
        holders.remove(a, true);
        assert!(matches!(holders.0, Repr::One(_)));
        assert_eq!(holders.presence(b), Presence::Partial);
        assert_eq!(holders.presence(a), Presence::Absent);
    }
}
