//! One request, from asking to its end.

use std::time::{Duration, Instant};

use crate::{PeerKey, Span};

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The peer has not started to answer, as far as we know.
    Waiting,
    /// Data is coming.
    Started {
        /// Since when.
        at: Instant,
    },
    /// All bytes are there and being verified.
    Received,
}

/// A withdrawal that the peer has not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withdrawal {
    pub(super) at: Instant,
    /// Whom the span goes to; a place is reserved there.
    pub(super) next: PeerKey,
}

/// Why another peer may take a started request over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Nothing comes.
    Silent,
    /// What comes would take far longer than others need.
    Slow,
}

/// A live request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) peer: PeerKey,
    pub(super) span: Span,
    /// Whether the caller was told to make it.
    pub(super) is_announced: bool,
    pub(super) size_bytes: u64,
    pub(super) arrived_bytes: u64,
    pub(super) phase: Phase,
    pub(super) asked_at: Instant,
    /// When it last came forward.
    pub(super) touched_at: Instant,
    pub(super) withdrawal: Option<Withdrawal>,
    pub(super) overdue: Option<Overdue>,
}

impl Request {
    /// Whether the peer still owes something.
    pub(super) fn is_outstanding(&self) -> bool {
        self.phase != Phase::Received
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        self.size_bytes.saturating_sub(self.arrived_bytes)
    }

    /// Whether, at the rate at which its bytes came so far, it has taken longer than `limit` and
    /// will take that long again.
    pub(super) fn is_slow(&self, now: Instant, limit: Duration) -> bool {
        let Phase::Started { at } = self.phase else {
            return false;
        };
        let elapsed = now.saturating_duration_since(at);
        let remaining_seconds =
            elapsed.as_secs_f64() * self.missing_bytes() as f64 / self.arrived_bytes.max(1) as f64;
        elapsed > limit && remaining_seconds > limit.as_secs_f64()
    }
}
