//! Several trackers over one registry in a real Redis.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod budgets;
mod cluster;
mod codes;
mod conformance;
mod digests;
mod faults;
mod introductions;
mod moves;
mod operations;
mod redis_server;
mod tls;
mod topologies;

use std::time::Duration;

use qshare_content::NodeId;
use qshare_tracker::{SharedRegistryConfig, Tracker, TrackerConfig};
use qshare_wire::CloseCode;
use qshare_wire::hello::EXTENSION_SESSION_NUMBER;
use qshare_wire::tracker::Found;

use self::redis_server::RedisServer;
use crate::common::{Joined, Node, config, entry, eventually, names};

/// The lease of the trackers in these tests.
const LEASE: Duration = Duration::from_secs(3);

/// Starts Redis, or ends the test where it is not installed.
macro_rules! redis_or_skip {
    () => {
        match $crate::shared::redis_server::RedisServer::start() {
            Some(redis) => redis,
            None => return,
        }
    };
}
use redis_or_skip;

fn registry(url: &str) -> SharedRegistryConfig {
    SharedRegistryConfig {
        address: url.parse().unwrap(),
        password: None,
        certificate_authority: None,
        advertise: None,
    }
}

/// Returns the configuration of a tracker over a registry.
fn config_over(shared: SharedRegistryConfig) -> TrackerConfig {
    let mut config = config();
    config.registry.lease = LEASE;
    config.registry.warming = Duration::ZERO;
    config.shared = Some(shared);
    config
}

/// Starts a tracker, and waits until it uses its registry.
async fn started(config: TrackerConfig) -> Tracker {
    let tracker = Tracker::start(config).unwrap();
    eventually("the registry answers", async || {
        tracker.check_registry().await.ok()
    })
    .await;
    tracker
}

async fn tracker_at(url: &str) -> Tracker {
    started(config_over(registry(url))).await
}

async fn tracker_over(redis: &RedisServer) -> Tracker {
    tracker_at(&redis.url()).await
}

async fn until_found(asking: &Joined, name: &str) {
    eventually(name, async || {
        (names(&asking.find(name).await) == [name]).then_some(())
    })
    .await;
}

/// Waits until at least one lease has passed: until the entry of a node that joins `tracker` now,
/// and loses its connection, is no longer listed. `asking` is a session that may look it up.
async fn until_a_lease_has_passed(tracker: &Tracker, asking: &Joined) {
    let witness = Node::new(None);
    let mut joined = witness.join(tracker).await;
    joined.announce(vec![entry("witness", 255)]).await;
    until_found(asking, "witness").await;
    joined.leave(CloseCode::Protocol);
    eventually("the lease of the witness ends", async || {
        names(&asking.find("witness").await)
            .is_empty()
            .then_some(())
    })
    .await;
}

/// Opens a session with this number.
async fn join_as(node: &mut Node, number: u64, tracker: &Tracker) -> Joined {
    let bytes = number.to_le_bytes().to_vec();
    node.greeting.extensions = vec![(EXTENSION_SESSION_NUMBER, bytes)];
    node.join(tracker).await
}

/// The nodes that an answer names, in order.
fn nodes(found: &Found) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = found.nodes.iter().map(|contact| contact.node).collect();
    nodes.sort();
    nodes
}
