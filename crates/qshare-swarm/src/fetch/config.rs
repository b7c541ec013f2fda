//! What a caller may set about fetching.

use std::time::Duration;

/// Settings of a [`Fetch`](crate::Fetch). The defaults follow from the simulation in this
/// crate's `examples/simulate.rs`.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Requests that may be outstanding at one peer. More than a few are worse: they tie chunks to
    /// a peer that others would deliver sooner. It grows beyond this only where the path to the
    /// peer holds more bytes (rate × latency) than these requests ask for.
    pub waiting_max: u32,
    /// Bytes asked for and not yet verified, over all peers. Never exceeded, but raised to one
    /// chunk, without which nothing could be asked for.
    pub in_flight_max_bytes: u64,
    /// The least silence after which a peer that owes something may lose it to an idle one;
    /// four fifths of it is the least time to answer a withdrawal. Covers a lost packet or two.
    pub stall_min: Duration,
    /// Silence counts as a stall once it exceeds the peer's usual latency by this factor.
    pub stall_factor: u32,
    /// Silence of a peer, with requests outstanding there, after which all of them are given up
    /// even if nobody else holds the chunks. Long, because a seed with a hundred clients and a slow
    /// uplink serves each of them only every few seconds.
    pub silence_max: Duration,
    /// Times in a row that a peer may fall silent before it is dropped as stalled.
    pub stalls_max: u32,
    /// Refusals and failures in a row after which a peer is dropped as useless.
    pub refusals_max: u32,
    /// First back-off after a refusal or failure; it doubles with each in a row.
    pub backoff_min: Duration,
    /// Longest back-off, also for a peer that names a time itself.
    pub backoff_max: Duration,
    /// Smallest span, in bytes, that a chunk in a hurry is divided into.
    pub span_min_bytes: u64,
}

impl Default for FetchConfig {
    fn default() -> FetchConfig {
        FetchConfig {
            waiting_max: 8,
            in_flight_max_bytes: 64 * 1024 * 1024,
            stall_min: Duration::from_millis(500),
            stall_factor: 4,
            silence_max: Duration::from_secs(30),
            stalls_max: 3,
            refusals_max: 16,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(10),
            span_min_bytes: 64 * 1024,
        }
    }
}
