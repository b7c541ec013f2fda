//! The causes for which a download is not faster, as `status` reports them.

use serde::Serialize;

/// Why a download is not faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No connected peer holds a missing chunk.
    WaitingForSources,
    /// Requests wait at peers, which serve other nodes first, limit their rate, or refuse this node
    /// for a while.
    UploadQueues,
    /// The path, or the peer's uplink: data arrives as fast as congestion control lets it.
    CongestionWindow,
    /// Packets are lost, and the peer repeats them and slows down.
    LossRecovery,
    /// The receive window of this node is too small for the path's RTT.
    FlowControl,
    /// Data comes through a relay, which is slower than a direct path.
    Relay,
    /// A rate limit of this node or of this download.
    OwnLimit,
    /// Received data waits to be written.
    Disk,
    /// Received data waits to be verified.
    Hashing,
    /// All missing chunks are requested, or nobody has them yet.
    NothingToAsk,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 10] = [
        Cause::WaitingForSources,
        Cause::UploadQueues,
        Cause::CongestionWindow,
        Cause::LossRecovery,
        Cause::FlowControl,
        Cause::Relay,
        Cause::OwnLimit,
        Cause::Disk,
        Cause::Hashing,
        Cause::NothingToAsk,
    ];

    /// Returns a phrase for people.
    pub const fn phrase(self) -> &'static str {
        match self {
            Cause::WaitingForSources => "waiting for sources",
            Cause::UploadQueues => "peers' upload queues",
            Cause::CongestionWindow => "network path",
            Cause::LossRecovery => "packet loss",
            Cause::FlowControl => "receive window",
            Cause::Relay => "relay",
            Cause::OwnLimit => "own rate limit",
            Cause::Disk => "disk",
            Cause::Hashing => "hashing",
            Cause::NothingToAsk => "nothing to request",
        }
    }
}

/// The share of a cause in the last seconds of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CauseShare {
    /// The cause.
    pub cause: Cause,
    /// Its share in percent; all of a download sum to 100.
    pub percent: u8,
}
