//! A simulated swarm on a virtual clock, with the real schedulers and shaped links.
//!
//! Every node runs one [`Fetch`] (unless it is a seed) and one [`Serve`]. Bytes travel in blocks of
//! 16 KiB through the sender's uplink, a fixed delay, and the receiver's downlink, which queues
//! them. Each pair of nodes has a window of unacknowledged bytes. Control messages take the delay
//! only. The simulation has no loss, no congestion control, no CPU cost and no disk.

// Each test and example uses a part of this module.
#![allow(dead_code)]

mod client;
mod event;
mod link;
mod node;
mod run;
mod server;
mod swarm;

pub(crate) use node::Behaviour;
#[allow(unused_imports)]
pub(crate) use swarm::{Outcome, Swarm};

/// Bytes a second in a Mbit/s.
pub(crate) const MBIT: u64 = 1_000_000 / 8;
/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1024 * 1024;
