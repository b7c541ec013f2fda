//! What a fetch shows of itself to people.

use std::time::{Duration, Instant};

use crate::{DropReason, PeerKey};

/// How a download stands.
#[derive(Clone, Debug, Default)]
pub struct FetchStatus {
    /// Chunks of the content.
    pub chunks: u32,
    /// Chunks verified, those from before this fetch included.
    pub verified_chunks: u32,
    /// Bytes of those.
    pub verified_bytes: u64,
    /// Chunks missing that nobody is being asked for.
    pub open_chunks: u32,
    /// Chunks missing that no peer claims to hold.
    pub unheld_chunks: u32,
    /// Bytes asked for and not yet verified.
    pub in_flight_bytes: u64,
    /// Payload bytes that arrived.
    pub received_bytes: u64,
    /// Payload bytes that arrived in vain: of answers given up half-way, or failing verification.
    pub wasted_bytes: u64,
    /// Each peer, in the order of their keys.
    pub peers: Vec<PeerStatus>,
}

impl FetchStatus {
    /// What those who hold missing chunks delivered a second, each at its recent best, in sum.
    pub fn possible_bytes_per_second(&self) -> u64 {
        let holders = self
            .peers
            .iter()
            .filter(|peer| peer.dropped.is_none() && peer.wanted_chunks > 0);
        holders.map(|peer| peer.rate_bytes_per_second).sum()
    }
}

/// How a download stands with one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerKey,
    /// Chunks that it says it holds.
    pub chunks: u32,
    /// Of those, chunks that we lack.
    pub wanted_chunks: u32,
    /// Requests that it has not started to answer.
    pub waiting: u32,
    /// Requests that it is answering.
    pub started: u32,
    /// Bytes asked of it and not yet received.
    pub outstanding_bytes: u64,
    /// Bytes waiting there for all clients, as it last said.
    pub queue_bytes: u64,
    /// Bytes a second that it recently delivered while it had something to do for us; 0 until
    /// known.
    pub rate_bytes_per_second: u64,
    /// Shortest time from request to answer; None until known.
    pub latency: Option<Duration>,
    /// Payload bytes that came from it.
    pub received_bytes: u64,
    /// Bytes from it that were verified.
    pub verified_bytes: u64,
    /// Not asked before this moment.
    pub backing_off_until: Option<Instant>,
    /// Why it was dropped, if it was. [`DropReason::Corrupt`] means that it lied.
    pub dropped: Option<DropReason>,
}
