//! What is simulated, and what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use qshare_content::LEAF_BYTES;
use qshare_swarm::{FetchConfig, ServeConfig};

use super::node::Behaviour;
use super::run::Run;

/// What to simulate. Node 0 is the seed; it never leaves.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) seed: u64,
    pub(crate) length: u64,
    /// Uplink and downlink in bytes a second, and behaviour, of each node.
    pub(crate) nodes: Vec<(u64, u64, Behaviour)>,
    /// One way, between any two nodes.
    pub(crate) latency: Duration,
    /// Each node knows the seed and this many others, chosen at random; everybody if None.
    pub(crate) neighbours: Option<usize>,
    /// Time between the arrivals of leechers.
    pub(crate) stagger: Duration,
    /// Bytes that go through a link at once.
    pub(crate) block_bytes: u64,
    pub(crate) have_batch: Duration,
    /// Whether a node without news tells its queue when that changed.
    pub(crate) tells_queue: bool,
    /// Whether a server writes only what its uplink can send at once, rather than all that the
    /// windows allow: what lies in buffers is no longer the scheduler's to order.
    pub(crate) sees_uplink: bool,
    pub(crate) fetch: FetchConfig,
    pub(crate) serve: ServeConfig,
    pub(crate) deadline: Duration,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Seconds from the start to the end of each honest node that stayed; None if it never ended.
    pub(crate) finished_seconds: Vec<Option<f64>>,
    /// max(F/u_seed, F/d_min, N·F/(u_seed+Σu_i)) over honest nodes, in seconds.
    pub(crate) bound_seconds: f64,
    /// Payload bytes that arrived anywhere, over those that had to.
    pub(crate) waste: f64,
    /// Files' worth of bytes that the seed sent.
    pub(crate) seed_files: f64,
    /// Liars dropped as such, and honest nodes dropped for lying.
    pub(crate) dropped_corrupt: BTreeSet<usize>,
    /// Honest peers dropped as stalled or useless.
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
    /// `leechers` equal nodes and a seed, who all start at once.
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
