//! A simulation of leases on a virtual clock: many nodes join, announce, withdraw, lose their
//! session, come back and leave, and a model says what must be known at each moment.
//!
//! `QSHARE_SIMULATED_NODES` sets the number of nodes, `QSHARE_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::{AssetName, ContentId, ContentInfo, FileMetadata, Hash, NodeId};
use qshare_registry::{
    Announced, EntryKey, GroupId, Registry, RegistryConfig, SessionId, TimeoutReason,
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Nodes without `QSHARE_SIMULATED_NODES`: a run takes 13 s without optimisation.
const NODES: u32 = 100_000;
/// Virtual time in which nodes join.
const JOINING: Duration = Duration::from_secs(600);
/// Contents for each node, on average shared by several.
const CONTENTS_PER_NODE: f64 = 0.5;
/// Entries that a node announces at once at most.
const ENTRIES_MAX: usize = 4;

/// What a node does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    /// Opens a session and announces, or comes back within the lease or after it.
    Join,
    /// Announces one more content.
    Add,
    /// Withdraws one.
    Withdraw,
    /// Announces everything anew, without some of it.
    Replace,
    /// Loses its session without a goodbye.
    Lose,
    /// Leaves with a goodbye.
    Leave,
}

/// A node as it should be known.
#[derive(Default)]
struct Known {
    session: Option<SessionId>,
    contents: BTreeSet<u32>,
    lease_until: Option<Instant>,
}

struct Simulation {
    registry: Registry,
    now: Instant,
    rng: SmallRng,
    lease: Duration,
    content_count: u32,
    nodes: Vec<Known>,
    holders: BTreeMap<u32, BTreeSet<u32>>,
    leases: BTreeSet<(Instant, u32)>,
    entries: usize,
    plan: BinaryHeap<Reverse<(Instant, u32, Action)>>,
    compared: usize,
    expired: usize,
}

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_entry_outlives_its_lease_and_nothing_withdrawn_returns() {
    let seed = environment("QSHARE_SEED").unwrap_or_else(rand::random);
    let nodes = environment("QSHARE_SIMULATED_NODES");
    let nodes = nodes.map_or(NODES, |nodes| u32::try_from(nodes).unwrap());
    // Shown if the test fails.
    println!("QSHARE_SEED={seed}");
    let mut simulation = Simulation::new(seed, nodes);
    simulation.run();
    println!(
        "{nodes} nodes: {} leases expired, {} contents compared",
        simulation.expired, simulation.compared
    );
    assert!(simulation.expired > nodes as usize / 10);
    assert!(simulation.compared > nodes as usize);
}

impl Simulation {
    fn new(seed: u64, nodes: u32) -> Simulation {
        let now = Instant::now();
        let config = RegistryConfig {
            nodes_max: usize::MAX,
            ..RegistryConfig::default()
        };
        let mut rng = SmallRng::seed_from_u64(seed);
        let plan = (0..nodes).map(|node| {
            let at = now + JOINING.mul_f64(rng.random());
            Reverse((at, node, Action::Join))
        });
        let plan = plan.collect();
        Simulation {
            lease: config.lease,
            registry: Registry::new(config, now, seed),
            now,
            rng,
            content_count: (f64::from(nodes) * CONTENTS_PER_NODE) as u32,
            nodes: (0..nodes).map(|_| Known::default()).collect(),
            holders: BTreeMap::new(),
            leases: BTreeSet::new(),
            entries: 0,
            plan,
            compared: 0,
            expired: 0,
        }
    }

    fn run(&mut self) {
        let mut steps = 0_u64;
        while let Some(Reverse((at, node, action))) = self.plan.pop() {
            self.pass_until(at);
            self.act(node, action);
            self.compare_one_of(node);
            steps += 1;
            if steps.is_multiple_of(10_000) {
                self.compare_counts();
            }
        }
        // The last leases end.
        self.pass_until(self.now + self.lease * 2);
        assert_eq!(self.registry.counts(), Default::default());
    }

    /// Lets the time pass. The registry is woken when it asks to be.
    fn pass_until(&mut self, until: Instant) {
        while let Some(timeout) = self.registry.poll_timeout()
            && timeout.at <= until
        {
            self.now = self.now.max(timeout.at);
            self.expire();
            self.registry.handle_timeout(self.now);
        }
        self.now = until;
        self.expire();
    }

    /// The model's leases end. What their nodes had is gone at this moment, not when the registry
    /// has removed all of it.
    fn expire(&mut self) {
        let mut gone = Vec::new();
        while let Some(&(at, node)) = self.leases.first()
            && at <= self.now
        {
            self.leases.pop_first();
            self.expired += 1;
            self.nodes[node as usize].lease_until = None;
            gone.extend(self.forget(node));
        }
        for content in gone {
            self.compare(content);
        }
    }

    /// Removes a node's entries, and returns one of the contents.
    fn forget(&mut self, node: u32) -> Option<u32> {
        let contents = std::mem::take(&mut self.nodes[node as usize].contents);
        for content in &contents {
            self.unhold(node, *content);
        }
        contents.first().copied()
    }

    fn hold(&mut self, node: u32, content: u32) {
        if self.nodes[node as usize].contents.insert(content) {
            self.entries += 1;
            self.holders.entry(content).or_default().insert(node);
        }
    }

    fn unhold(&mut self, node: u32, content: u32) {
        self.entries -= 1;
        let holders = self.holders.get_mut(&content).unwrap();
        holders.remove(&node);
        if holders.is_empty() {
            self.holders.remove(&content);
        }
    }

    fn act(&mut self, node: u32, action: Action) {
        let known = &self.nodes[node as usize];
        let session = known.session;
        match (action, session) {
            (Action::Join, _) => {
                self.join(node);
                let end = [Action::Lose, Action::Lose, Action::Leave];
                let end = *end.choose(&mut self.rng).unwrap();
                for action in [Action::Add, Action::Withdraw, Action::Replace, end] {
                    let within = if action == end { 120.0 } else { 60.0 };
                    self.plan_action(node, action, within);
                }
            }
            (_, None) => {}
            (Action::Add, Some(session)) => {
                let content = self.rng.random_range(0..self.content_count);
                self.announce(node, session, &[content]);
            }
            (Action::Withdraw, Some(session)) => {
                let Some(&content) = known.contents.first() else {
                    return;
                };
                let key = key_of(content);
                let withdrawn = self.registry.handle_withdrawn(self.now, session, &[key]);
                withdrawn.unwrap();
                self.nodes[node as usize].contents.remove(&content);
                self.unhold(node, content);
                self.compare(content);
            }
            (Action::Replace, Some(session)) => self.replace(node, session),
            (Action::Lose, Some(session)) => {
                self.registry
                    .handle_session_closed(self.now, session, false);
                let until = self.now + self.lease;
                let known = &mut self.nodes[node as usize];
                known.session = None;
                if !known.contents.is_empty() {
                    known.lease_until = Some(until);
                    self.leases.insert((until, node));
                }
                // Half of them come back, some of these too late.
                if self.rng.random() {
                    self.plan_action(node, Action::Join, 45.0);
                }
            }
            (Action::Leave, Some(session)) => {
                self.registry.handle_session_closed(self.now, session, true);
                self.nodes[node as usize].session = None;
                if let Some(content) = self.forget(node) {
                    self.compare(content);
                }
            }
        }
    }

    fn plan_action(&mut self, node: u32, action: Action, within_seconds: f64) {
        let after = Duration::from_secs_f64(self.rng.random_range(0.0..within_seconds));
        self.plan.push(Reverse((self.now + after, node, action)));
    }

    fn join(&mut self, node: u32) {
        let opened = self.registry.handle_session_opened(
            self.now,
            GroupId::OPEN,
            node_id(node),
            address(node),
            &[],
        );
        let session = opened.unwrap();
        let known = &mut self.nodes[node as usize];
        known.session = Some(session);
        if let Some(until) = known.lease_until.take() {
            self.leases.remove(&(until, node));
        }
        let count = self.rng.random_range(1..=ENTRIES_MAX);
        let contents: Vec<u32> = (0..count)
            .map(|_| self.rng.random_range(0..self.content_count))
            .collect();
        self.announce(node, session, &contents);
    }

    fn announce(&mut self, node: u32, session: SessionId, contents: &[u32]) {
        let batch: Vec<Announced> = contents.iter().map(|&content| entry(content)).collect();
        let refused = self.registry.handle_announced(self.now, session, &batch);
        assert_eq!(refused, Ok(Vec::new()));
        for &content in contents {
            self.hold(node, content);
        }
    }

    /// A full announcement: what it does not contain is withdrawn.
    fn replace(&mut self, node: u32, session: SessionId) {
        let known = &self.nodes[node as usize].contents;
        let kept: Vec<u32> = known.iter().copied().skip(1).collect();
        let dropped = known.first().copied();
        let begun = self.registry.handle_announcement_begun(self.now, session);
        begun.unwrap();
        self.announce(node, session, &kept);
        let ended = self.registry.handle_announcement_ended(self.now, session);
        assert_eq!(ended, Ok(usize::from(dropped.is_some())));
        if let Some(content) = dropped {
            self.nodes[node as usize].contents.remove(&content);
            self.unhold(node, content);
            self.work_off();
            self.compare(content);
        }
    }

    /// Has the registry do what earlier calls left.
    fn work_off(&mut self) {
        while let Some(timeout) = self.registry.poll_timeout()
            && timeout.reason == TimeoutReason::WorkIsLeft
        {
            self.registry.handle_timeout(self.now);
        }
    }

    fn compare_one_of(&mut self, node: u32) {
        let contents = &self.nodes[node as usize].contents;
        let content = match contents.first() {
            Some(&content) => content,
            None => self.rng.random_range(0..self.content_count),
        };
        self.compare(content);
    }

    /// Compares the holders of a content with the model's.
    fn compare(&mut self, content: u32) {
        let id = info(content).id();
        let found = self
            .registry
            .holders(self.now, GroupId::OPEN, id, usize::MAX, None);
        let found: BTreeSet<NodeId> = found.holders.iter().map(|holder| holder.node).collect();
        let expected: BTreeSet<NodeId> = self
            .holders
            .get(&content)
            .into_iter()
            .flatten()
            .map(|&node| node_id(node))
            .collect();
        assert_eq!(found, expected, "content {content}");
        self.compared += 1;
    }

    fn compare_counts(&mut self) {
        self.work_off();
        let counts = self.registry.counts();
        let sessions = self.nodes.iter().filter(|node| node.session.is_some());
        let known = self
            .nodes
            .iter()
            .filter(|node| node.session.is_some() || node.lease_until.is_some());
        let expected = (sessions.count(), known.count(), self.entries);
        assert_eq!((counts.sessions, counts.nodes, counts.entries), expected);
        assert_eq!(counts.contents, self.holders.len());
        assert_eq!((counts.assets, counts.evicted), (self.holders.len(), 0));
    }
}

fn node_id(node: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&node.to_be_bytes());
    NodeId(id)
}

/// An address in a private network, of which any number is told.
fn address(node: u32) -> SocketAddr {
    let [_, a, b, c] = node.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 64500))
}

fn info(content: u32) -> ContentInfo {
    let mut root = [1; 32];
    root[..4].copy_from_slice(&content.to_be_bytes());
    ContentInfo {
        length: 7,
        root: Hash(root),
    }
}

fn name(content: u32) -> AssetName {
    AssetName::new(format!("data/{content:06}.bin")).unwrap()
}

fn entry(content: u32) -> Announced {
    Announced {
        name: name(content),
        info: info(content),
        is_collection: false,
        complete: true,
        metadata: FileMetadata::default(),
    }
}

fn key_of(content: u32) -> EntryKey {
    let content_id: ContentId = info(content).id();
    EntryKey {
        name: name(content),
        content: content_id,
    }
}
