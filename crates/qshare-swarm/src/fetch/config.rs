//! Settings of a fetch.

use std::time::Duration;

/// Settings of a [`Fetch`](crate::Fetch). The defaults follow from the simulation in this
/// crate's `examples/simulate.rs`.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Requests outstanding at one peer. More than a few are worse: they tie chunks to a peer that
    /// others would deliver sooner. The number exceeds this only if the bandwidth-delay product of
    /// the path is larger than these requests.
    pub waiting_max: u32,
    /// Bytes requested and not yet verified, over all peers. A hard limit, raised to one chunk if
    /// it is smaller than that, since otherwise nothing could be requested.
    pub in_flight_max_bytes: u64,
    /// The shortest silence after which a peer may lose a request to an idle one; four fifths of it
    /// is the shortest time to answer a withdrawal. Covers one or two lost packets.
    pub stall_min: Duration,
    /// Silence counts as a stall if it exceeds the peer's usual latency by this factor.
    pub stall_factor: u32,
    /// Silence of a peer with requests outstanding after which all of them are cancelled even if
    /// nobody else holds the chunks. Long, because a seed with a hundred clients and a slow uplink
    /// serves each of them only every few seconds.
    pub silence_max: Duration,
    /// Consecutive stalls after which a peer is dropped as stalled.
    pub stalls_max: u32,
    /// Consecutive refusals and failures after which a peer is dropped as useless.
    pub refusals_max: u32,
    /// First back-off after a refusal or failure; it doubles with each consecutive one.
    pub backoff_min: Duration,
    /// Longest back-off, also if the peer names a longer time.
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
