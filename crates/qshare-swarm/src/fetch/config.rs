//! Settings of a fetch.

use std::time::Duration;

/// Settings of a [`Fetch`](crate::Fetch). The defaults follow from the simulation in this
/// crate's `examples/simulate.rs`.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Usual limit on the requests outstanding at one peer. A higher value ties chunks to a peer
    /// that other peers would deliver sooner. The limit rises only if the bandwidth-delay product
    /// of the path is larger than this many requests.
    pub waiting_max: u32,
    /// Hard limit on the bytes requested and not yet verified, over all peers. Raised to the size
    /// of one chunk if it is smaller, since otherwise nothing could be requested.
    pub in_flight_max_bytes: u64,
    /// Shortest silence after which idle peers may take over a peer's requests. Four fifths of it
    /// is the shortest time-out of a withdrawal. The value covers one or two lost packets.
    pub stall_min: Duration,
    /// Silence counts as a stall if it exceeds the peer's usual latency by this factor.
    pub stall_factor: u32,
    /// Silence of a peer with requests outstanding after which all of them are cancelled, even if
    /// no other peer holds the chunks. The value is long, because a seed with a hundred clients and
    /// a slow uplink serves each of them only every few seconds.
    pub silence_max: Duration,
    /// Consecutive stalls after which a peer is dropped as stalled.
    pub stalls_max: u32,
    /// Consecutive refusals and failures after which a peer is dropped as useless.
    pub refusals_max: u32,
    /// First back-off after a refusal or failure; it doubles with each consecutive one.
    pub backoff_min: Duration,
    /// Longest back-off. It also caps the retry time that a peer names.
    pub backoff_max: Duration,
    /// Smallest span, in bytes, into which an urgent chunk is divided.
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
