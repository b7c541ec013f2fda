//! The conformance suite of registries on trackers: on one alone, on several over one Redis, and on
//! several over a cluster. Nodes have real sessions. Time is the real one, but for the leases of a
//! tracker alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use qshare_content::{FileMetadata, NodeId, Query, Topic};
use qshare_net::GroupSecret;
use qshare_registry::Announced;
use qshare_tracker::{Clock, Tracker};
use qshare_wire::CloseCode;
use qshare_wire::hello::EXTENSION_SESSION_NUMBER;
use qshare_wire::tracker::{AnnounceStage, Entry, EntryKey, EntryKind, Find, Holders};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::cluster::Cluster;
use super::{LEASE, RedisServer, registry, started};
use crate::common::{DEADLINE, Joined, Node, config};
use crate::conformance::model::{Effort, any_history};
use crate::conformance::{Answer, Change, Found, Registered, Watched, promises};

/// Trackers over one registry.
const TRACKERS: usize = 2;
/// Promises that are tried at once. Most of the time each waits for a lease.
const AT_ONCE: usize = 6;

/// Trackers of a group of their own, and nodes with sessions with them.
struct Trackers {
    runtime: Runtime,
    trackers: Vec<Tracker>,
    group: GroupSecret,
    nodes: HashMap<u8, Known>,
    /// One node for each tracker, which announces nothing.
    askers: Vec<(Node, Joined)>,
    watches: Vec<mpsc::UnboundedReceiver<Change>>,
    /// Ends the leases of a tracker alone. Redis ends those of several by its own clock.
    clock: Option<Clock>,
}

struct Known {
    node: Node,
    /// The session that counts.
    session: Option<Joined>,
    /// Where that is, or the next one will be.
    place: usize,
    /// The number of its last session.
    number: u64,
}

impl Trackers {
    /// Starts one tracker alone, or several over the registry of this URL.
    fn start(url: Option<&str>) -> Trackers {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let group = GroupSecret::random();
        let count = url.map_or(1, |_| TRACKERS);
        let clock = Clock::default();
        let (trackers, askers) = runtime.block_on(async {
            let mut trackers = Vec::new();
            let mut askers = Vec::new();
            for _ in 0..count {
                let mut config = config();
                config.group = Some(group.clone());
                config.clock = clock.clone();
                config.registry.lease = LEASE;
                config.registry.warming = Duration::ZERO;
                config.limits.requests_per_second = 10_000;
                config.limits.requests_burst = 10_000;
                config.shared = url.map(registry);
                let tracker = match url {
                    Some(_) => started(config).await,
                    None => Tracker::start(config).unwrap(),
                };
                let node = Node::new(Some(group.clone()));
                let joined = node.join(&tracker).await;
                askers.push((node, joined));
                trackers.push(tracker);
            }
            (trackers, askers)
        });
        Trackers {
            runtime,
            trackers,
            group,
            nodes: HashMap::new(),
            askers,
            watches: Vec::new(),
            clock: url.is_none().then_some(clock),
        }
    }

    /// Waits until the tracker has noticed the end of every session that has ended.
    fn settle(&mut self) {
        let open = self.nodes.values().filter(|node| node.session.is_some());
        let open = self.askers.len() + open.count();
        self.eventually(|r| {
            let counted: usize = r.trackers.iter().map(|one| one.counts().sessions).sum();
            match counted == open {
                true => Ok(()),
                false => Err(format!("{counted} sessions, expected {open}")),
            }
        });
    }

    fn known(&mut self, node: u8) -> &mut Known {
        let (group, places) = (&self.group, self.trackers.len());
        let entered = self.runtime.enter();
        let known = self.nodes.entry(node).or_insert_with(|| Known {
            node: Node::new(Some(group.clone())),
            session: None,
            place: usize::from(node) % places,
            number: 0,
        });
        drop(entered);
        known
    }

    /// Sends one batch of an announcement.
    fn batch(&mut self, node: u8, stage: AnnounceStage, entries: &[Announced]) {
        self.known(node);
        let session = self.nodes.get_mut(&node).unwrap().session.as_mut().unwrap();
        let entries = entries.iter().map(wire_entry).collect();
        let batch = session.batch(stage, entries, Vec::new());
        let ack = self.runtime.block_on(batch);
        assert_eq!((ack.refused, ack.reason.as_str()), (0, ""));
    }
}

fn wire_entry(entry: &Announced) -> Entry {
    Entry {
        name: entry.name.clone(),
        kind: EntryKind::File,
        info: entry.info,
        complete: entry.complete,
        flags: 0,
        metadata: entry.metadata.encode(),
    }
}

fn holders_of(holders: &Holders) -> BTreeMap<NodeId, bool> {
    let holders = holders.holders.iter();
    holders
        .map(|one| (one.contact.node, one.complete))
        .collect()
}

impl Registered for Trackers {
    type Cursor = Vec<u8>;

    fn places(&self) -> usize {
        self.trackers.len()
    }

    fn node(&mut self, node: u8) -> NodeId {
        self.known(node).node.endpoint.id()
    }

    fn begin(&mut self, node: u8, entries: &[Announced]) {
        let known = self.known(node);
        known.number += 1;
        let number = known.number.to_le_bytes().to_vec();
        known.node.greeting.extensions = vec![(EXTENSION_SESSION_NUMBER, number)];
        let former = known.session.take();
        let known = self.nodes.get_mut(&node).unwrap();
        known.place = (known.place + usize::from(known.number > 1)) % self.trackers.len();
        let joining = known.node.join(&self.trackers[known.place]);
        known.session = Some(self.runtime.block_on(joining));
        self.batch(node, AnnounceStage::FullBegin, entries);
        if let Some(former) = former {
            // Its tracker learns that the node has moved.
            self.runtime.block_on(former.ended());
        }
    }

    fn end(&mut self, node: u8) {
        self.batch(node, AnnounceStage::FullEnd, &[]);
    }

    fn announce(&mut self, node: u8, entries: &[Announced]) {
        self.batch(node, AnnounceStage::Delta, entries);
    }

    fn withdraw(&mut self, node: u8, entries: &[Announced]) {
        let keys = entries.iter().map(|entry| EntryKey {
            name: entry.name.clone(),
            content: entry.info.id(),
        });
        let keys = keys.collect();
        let session = self.nodes.get_mut(&node).unwrap().session.as_mut().unwrap();
        let batch = session.batch(AnnounceStage::Delta, Vec::new(), keys);
        self.runtime.block_on(batch);
    }

    fn announce_topics(&mut self, node: u8, topics: &[(Topic, bool)], removed: &[Topic]) {
        let session = self.nodes.get_mut(&node).unwrap().session.as_mut().unwrap();
        self.runtime
            .block_on(session.announce_topics(topics, removed));
    }

    fn leave(&mut self, node: u8) {
        let session = self.known(node).session.take().unwrap();
        session.leave(CloseCode::Goodbye);
    }

    fn lose(&mut self, node: u8) {
        let session = self.known(node).session.take().unwrap();
        // Any code but that of a goodbye counts as a loss.
        session.leave(CloseCode::Protocol);
    }

    fn pass_a_lease(&mut self) {
        // A lease begins when the tracker notices the loss, and Redis must be told of its end.
        let lease = LEASE + Duration::from_millis(500);
        match self.clock.clone() {
            Some(clock) => {
                self.settle();
                clock.advance(lease);
            }
            None => self
                .runtime
                .block_on(async { tokio::time::sleep(lease).await }),
        }
    }

    fn page(
        &mut self,
        place: usize,
        query: &Query,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> (Answer, Option<Vec<u8>>) {
        let find = Find {
            query: query.clone(),
            after,
            limit: u16::try_from(limit).unwrap(),
            holders: 16,
            extensions: Vec::new(),
        };
        let asking = self.askers[place].1.ask(&find);
        let found = self.runtime.block_on(asking).unwrap();
        let matches = found.matches.iter().map(|one| {
            let holders = one.holders.iter();
            let node =
                |&(at, complete): &(u16, bool)| (found.nodes[usize::from(at)].node, complete);
            Found {
                name: one.name.to_string(),
                info: one.info,
                complete: one.complete as usize,
                partial: one.partial as usize,
                holders: holders.map(node).collect(),
                metadata: FileMetadata::decode(&one.metadata).unwrap(),
            }
        });
        let answer = Answer {
            matches: matches.collect(),
            near: found.near.iter().map(ToString::to_string).collect(),
        };
        (answer, found.more)
    }

    fn holders(&mut self, place: usize, of: Watched) -> BTreeMap<NodeId, bool> {
        let asker = &self.askers[place].1;
        self.runtime.block_on(async {
            match of {
                Watched::Content(content) => holders_of(&asker.watch(content).await.unwrap().0),
                Watched::Topic(topic) => holders_of(&asker.watch_topic(topic).await.0),
            }
        })
    }

    fn watch(&mut self, node: u8, watched: Watched) -> (usize, BTreeMap<NodeId, bool>) {
        let session = self.nodes[&node].session.as_ref().unwrap();
        let (report, changes) = mpsc::unbounded_channel();
        let holders = self.runtime.block_on(async {
            let (holders, (send, mut recv)) = match watched {
                Watched::Content(content) => {
                    let (holders, watching) = session.watch(content).await.unwrap();
                    (holders, watching.into_streams())
                }
                Watched::Topic(topic) => session.watch_topic(topic).await,
            };
            tokio::spawn(async move {
                let _send = send;
                while let Ok(change) =
                    qshare_net::framed::read::<qshare_wire::tracker::HoldersChanged>(&mut recv)
                        .await
                {
                    let left = change.left.into_iter().map(Change::Left);
                    let joined = change.joined.into_iter();
                    let joined = joined.map(|one| Change::Holds(one.contact.node, one.complete));
                    for change in left.chain(joined) {
                        if report.send(change).is_err() {
                            return;
                        }
                    }
                }
            });
            holders
        });
        self.watches.push(changes);
        (self.watches.len() - 1, holders_of(&holders))
    }

    fn changes(&mut self, watch: usize) -> Vec<Change> {
        let changes = &mut self.watches[watch];
        std::iter::from_fn(|| changes.try_recv().ok()).collect()
    }

    fn eventually(&mut self, mut check: impl FnMut(&mut Trackers) -> Result<(), String>) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = check(self) {
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {error}"
            );
            let pause = Duration::from_millis(20);
            self.runtime
                .block_on(async { tokio::time::sleep(pause).await });
        }
    }
}

/// Tries every promise on trackers of its own, several at once.
fn try_promises(url: Option<&str>) {
    let promises = promises::<Trackers>();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, promise)) = promises.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    // A thread's panic does not say whose it was.
                    let tried = std::panic::AssertUnwindSafe(|| promise(&mut Trackers::start(url)));
                    if let Err(panic) = std::panic::catch_unwind(tried) {
                        eprintln!("the promise {name} is broken");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}

/// Tries three random histories at once, each on trackers of its own.
fn try_histories(url: Option<&str>) {
    let effort = Effort {
        histories: 1,
        steps: 60,
        steps_between: 5,
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| any_history(effort, || Trackers::start(url)));
        }
    });
}

#[test]
fn a_tracker_alone_keeps_every_promise() {
    try_promises(None);
}

#[test]
fn any_history_of_a_tracker_alone_gives_the_answers_of_the_model() {
    try_histories(None);
}

#[test]
fn trackers_over_redis_keep_every_promise() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    try_promises(Some(&redis.url()));
}

#[test]
fn any_history_over_redis_gives_the_answers_of_the_model() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    try_histories(Some(&redis.url()));
}

#[test]
fn trackers_over_a_cluster_keep_every_promise() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    try_promises(Some(&cluster.url()));
}

#[test]
fn any_history_over_a_cluster_gives_the_answers_of_the_model() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    try_histories(Some(&cluster.url()));
}
