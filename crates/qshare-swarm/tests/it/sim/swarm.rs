//! A simulation's parameters and its results.

use std::collections::BTreeSet;
use std::time::Duration;

use qshare_content::LEAF_BYTES;
use qshare_swarm::{FetchConfig, ServeConfig};

use super::node::Behaviour;
use super::run::Run;

/// Parameters of a simulated swarm. Node 0 is the seed, which never leaves.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) seed: u64,
    pub(crate) length: u64,
    /// Each node's uplink and downlink in bytes a second, and its behaviour.
    pub(crate) nodes: Vec<(u64, u64, Behaviour)>,
    /// One-way delay between any two nodes.
    pub(crate) latency: Duration,
    /// Number of random nodes that each node knows besides the seed. None: each node knows all.
    pub(crate) neighbours: Option<usize>,
    /// Time between the joins of two leechers.
    pub(crate) stagger: Duration,
    /// Bytes that a link transmits at once.
    pub(crate) block_bytes: u64,
    pub(crate) have_batch: Duration,
    /// Whether a node without new chunks also advertises its queue after the queue changed.
    pub(crate) tells_queue: bool,
    /// Whether a server writes only as much as its uplink can send at once, rather than all that
    /// the windows allow. The scheduler cannot reorder bytes that are already in buffers.
    pub(crate) sees_uplink: bool,
    pub(crate) fetch: FetchConfig,
    pub(crate) serve: ServeConfig,
    pub(crate) deadline: Duration,
}

/// Results of a simulation.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Seconds from the start until each honest node that stayed finished. None: it never did.
    pub(crate) finished_seconds: Vec<Option<f64>>,
    /// Lower bound in seconds: max(F/u_seed, F/d_min, N·F/(u_seed+Σu_i)) over honest nodes.
    pub(crate) bound_seconds: f64,
    /// Payload bytes that arrived at any node, divided by those that had to arrive.
    pub(crate) waste: f64,
    /// Bytes that the seed sent, in units of the file's length.
    pub(crate) seed_files: f64,
    /// Nodes that peers dropped for sending corrupt chunks, rightly or wrongly.
    pub(crate) dropped_corrupt: BTreeSet<usize>,
    /// Number of times that an honest peer was dropped as stalled or useless.
    pub(crate) dropped_unjustly: usize,
    pub(crate) withdrawals: u64,
    pub(crate) abandoned: u64,
    pub(crate) requests: u64,
    pub(crate) split_requests: u64,
    pub(crate) in_flight_most_bytes: u64,
    pub(crate) events: u64,
}

impl Outcome {
    pub(crate) fn all_finished(&self) -> bool {
        self.finished_seconds.iter().all(Option::is_some)
    }

    pub(crate) fn last_seconds(&self) -> f64 {
        self.finished_seconds
            .iter()
            .map(|seconds| seconds.unwrap_or(f64::INFINITY))
            .fold(0.0, f64::max)
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.last_seconds() / self.bound_seconds
    }
}
impl Swarm {
    /// Returns a swarm of `leechers` equal nodes and a seed, which all start at once.
    pub(crate) fn equal(seed: u64, length: u64, leechers: usize, bytes_per_second: u64) -> Swarm {
        Swarm {
            seed,
            length,
            nodes: vec![(bytes_per_second, bytes_per_second, Behaviour::Honest); leechers + 1],
            latency: Duration::from_millis(1),
            neighbours: None,
            stagger: Duration::ZERO,
            block_bytes: LEAF_BYTES,
            have_batch: Duration::from_millis(20),
            tells_queue: true,
            sees_uplink: true,
            fetch: FetchConfig::default(),
            serve: ServeConfig::default(),
            deadline: Duration::from_secs(3600),
        }
    }

    pub(crate) fn run(&self) -> Outcome {
        Run::new(self).run()
    }
}
