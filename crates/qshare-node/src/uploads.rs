//! Answering other nodes: which chunks this node has, their hashes, their bytes.
//!
//! Every request is a stream of its own. Which chunk request is answered next is the decision of
//! the scheduler ([`qshare_swarm::Serve`]); here its decisions become bytes. Bytes in memory are
//! bounded by a [`memory_budget`]: an answer is read from disk block by block, as it is sent.

mod answer;
mod counters;
mod folders;
mod hashes;
mod interest;
mod lookup;
mod members;
mod memory_budget;
mod pacing;
mod queue;
mod reader;
mod refuse;
mod service;
mod unlock;

pub(crate) use service::{Uploads, UploadsConfig};
