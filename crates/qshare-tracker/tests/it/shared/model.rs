//! Trackers over one registry against a tracker alone: whatever nodes do, in whatever order, they
//! answer the same.

use std::collections::BTreeSet;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_tracker::Tracker;
use qshare_wire::CloseCode;
use qshare_wire::tracker::{AnnounceStage, Entry, Found};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::{LEASE, eventually, join_as, redis_or_skip, tracker_over};
use crate::common::{Joined, Node, config, entry};

const NODES: usize = 5;
const STEPS: usize = 60;
const QUERIES: [&str; 6] = ["n0", "n1", "n*", "*2", "n[13]", "id:"];

/// A node with a session at one of the trackers, and one with the tracker alone.
struct Actor {
    node: Node,
    shared: Option<(usize, Joined)>,
    alone: Option<Joined>,
    /// The number of its last session.
    number: u64,
}

/// An answer as far as it does not depend on chance.
type Answer = BTreeSet<(String, String, u32, u32, BTreeSet<NodeId>)>;

fn answer(found: &Found) -> Answer {
    let matches = found.matches.iter();
    matches
        .map(|one| {
            let holders = one.holders.iter();
            let holders = holders.map(|&(at, _)| found.nodes[usize::from(at)].node);
            (
                one.name.to_string(),
                one.info.id().to_string(),
                one.complete,
                one.partial,
                holders.collect(),
            )
        })
        .collect()
}

fn some_entry(rng: &mut StdRng) -> Entry {
    let name = format!("n{}", rng.random_range(0..4));
    Entry {
        complete: rng.random_bool(0.7),
        ..entry(&name, rng.random_range(0..3))
    }
}

async fn both<T>(actor: &mut Actor, act: impl AsyncFn(&mut Joined) -> T) {
    if let (Some((_, shared)), Some(alone)) = (&mut actor.shared, &mut actor.alone) {
        act(shared).await;
        act(alone).await;
    }
}

async fn act(rng: &mut StdRng, actor: &mut Actor, trackers: &[Tracker], alone: &Tracker) {
    match rng.random_range(0..10) {
        // Joins, or moves to another tracker, and announces everything.
        0..3 => {
            let at = rng.random_range(0..trackers.len());
            actor.number += 1;
            let number = actor.number;
            let shared = join_as(&mut actor.node, number, &trackers[at]).await;
            let alone = join_as(&mut actor.node, number, alone).await;
            let (former, _) = (
                actor.shared.replace((at, shared)),
                actor.alone.replace(alone),
            );
            let entries: Vec<Entry> = (0..rng.random_range(0..6))
                .map(|_| some_entry(rng))
                .collect();
            both(actor, async |session| {
                session
                    .batch(AnnounceStage::FullBegin, entries.clone(), Vec::new())
                    .await;
                session
                    .batch(AnnounceStage::FullEnd, Vec::new(), Vec::new())
                    .await;
            })
            .await;
            // Its former tracker learns that it has moved.
            if let Some((_, former)) = former {
                former.ended().await;
            }
        }
        3..6 => {
            let entries: Vec<Entry> = (0..3).map(|_| some_entry(rng)).collect();
            both(actor, async |session| {
                session
                    .batch(AnnounceStage::Delta, entries.clone(), Vec::new())
                    .await;
            })
            .await;
        }
        6..9 => {
            let withdrawn = some_entry(rng);
            both(actor, async |session| session.withdraw(&withdrawn).await).await;
        }
        _ => {
            if let (Some((_, shared)), Some(alone)) = (actor.shared.take(), actor.alone.take()) {
                shared.leave(CloseCode::Goodbye);
                alone.leave(CloseCode::Goodbye);
            }
        }
    }
}

async fn compare(trackers: &[Tracker], alone: &Tracker, seed: u64, step: usize) {
    let asker = Node::new(None);
    let asking_alone = asker.join(alone).await;
    for tracker in trackers {
        let asking = asker.join(tracker).await;
        for query in QUERIES {
            let mut last = None;
            let agreed = eventually_within(LEASE * 2, async || {
                let expected = answer(&asking_alone.find(query).await);
                let found = answer(&asking.find(query).await);
                let agrees = expected == found;
                last = Some((expected, found));
                agrees
            })
            .await;
            assert!(agreed, "seed {seed}, step {step}, {query}: {last:?}");
        }
    }
}

/// Answers with matches may be a second old, and those of a goodbye take a moment.
async fn eventually_within(time: Duration, mut look: impl AsyncFnMut() -> bool) -> bool {
    let looking = async {
        while !look().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(time, looking).await.is_ok()
}

#[tokio::test]
async fn trackers_over_one_registry_answer_as_one_alone() {
    let redis = redis_or_skip!();
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let trackers = [
        tracker_over(&redis).await,
        tracker_over(&redis).await,
        tracker_over(&redis).await,
    ];
    let mut config = config();
    config.registry.warming = Duration::ZERO;
    let alone = Tracker::start(config).unwrap();
    let mut actors: Vec<Actor> = (0..NODES)
        .map(|_| Actor {
            node: Node::new(None),
            shared: None,
            alone: None,
            number: 0,
        })
        .collect();
    for step in 0..STEPS {
        let at = rng.random_range(0..actors.len());
        act(&mut rng, &mut actors[at], &trackers, &alone).await;
        if step % 10 == 9 {
            compare(&trackers, &alone, seed, step).await;
        }
    }
    // When all have left, nothing is left in Redis but what expires.
    for actor in &mut actors {
        if let Some((_, shared)) = actor.shared.take() {
            shared.leave(CloseCode::Goodbye);
        }
    }
    eventually("Redis holds no entries", async || {
        let keys = redis.command(&["KEYS", "*:a:*"]);
        (keys == redis::Value::Array(Vec::new())).then_some(())
    })
    .await;
    for kind in ["x", "i"] {
        eventually("the indexes are empty", async || {
            let keys = redis.command(&["KEYS", &format!("*:{kind}:*")]);
            (keys == redis::Value::Array(Vec::new())).then_some(())
        })
        .await;
    }
}
