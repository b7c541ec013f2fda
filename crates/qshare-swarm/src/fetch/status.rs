//! The state of a fetch, for people.

use std::time::{Duration, Instant};

use crate::{DropReason, PeerKey};

/// The state of a download.
#[derive(Clone, Debug, Default)]
pub struct FetchStatus {
    /// Chunks of the content.
    pub chunks: u32,
    /// Verified chunks, including those from before this fetch.
    pub verified_chunks: u32,
    /// Bytes of the verified chunks.
    pub verified_bytes: u64,
    /// Missing chunks that are not requested.
    pub open_chunks: u32,
    /// Missing chunks that no peer claims to hold.
    pub unheld_chunks: u32,
    /// Bytes requested and not yet verified.
    pub in_flight_bytes: u64,
    /// Payload bytes that arrived.
    pub received_bytes: u64,
    /// Payload bytes that were discarded, because their answer was cancelled or failed
    /// verification.
    pub wasted_bytes: u64,
    /// The peers, in the order of their keys.
    pub peers: Vec<PeerStatus>,
}

impl FetchStatus {
    /// Returns the sum of the recent rates of the peers that hold missing chunks, in bytes per
    /// second.
    pub fn possible_bytes_per_second(&self) -> u64 {
        let holders = self
            .peers
            .iter()
            .filter(|peer| peer.dropped.is_none() && peer.wanted_chunks > 0);
        holders.map(|peer| peer.rate_bytes_per_second).sum()
    }
}

/// The state of a download with one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub peer: PeerKey,
    /// Chunks that it claims to hold.
    pub chunks: u32,
    /// Chunks that the peer claims to hold and that are missing here.
    pub wanted_chunks: u32,
    /// Requests that it has not started to answer.
    pub waiting: u32,
    /// Requests that it is answering.
    pub started: u32,
    /// Bytes requested from it and not yet received.
    pub outstanding_bytes: u64,
    /// Bytes in its queue for all clients, as last advertised.
    pub queue_bytes: u64,
    /// Recent delivery rate in bytes per second while requests of ours were outstanding; 0 until
    /// measured.
    pub rate_bytes_per_second: u64,
    /// Shortest time from request to answer; None until measured.
    pub latency: Option<Duration>,
    /// Payload bytes received from it.
    pub received_bytes: u64,
    /// Bytes received from it and verified.
    pub verified_bytes: u64,
    /// The end of its back-off, if it is backing off.
    pub backing_off_until: Option<Instant>,
    /// Why it was dropped, if it was. [`DropReason::Corrupt`] means that it sent corrupt bytes.
    pub dropped: Option<DropReason>,
}
