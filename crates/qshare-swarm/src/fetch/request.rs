//! One request, from its start to its end.

use std::time::{Duration, Instant};

use crate::{PeerKey, Span};

/// The progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The peer has not started to answer, as far as this node knows.
    Waiting,
    /// Data is arriving.
    Started {
        /// When it started.
        at: Instant,
    },
    /// All bytes arrived and are being verified.
    Received,
}

/// A withdrawal that the peer has not confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withdrawal {
    pub(super) at: Instant,
    /// The peer that gets the span; a slot is reserved there.
    pub(super) next: PeerKey,
}

/// Why another peer may take over a started answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No data arrives.
    Silent,
    /// At its current rate, the answer would take far longer than other answers.
    Slow,
}

/// A live request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) peer: PeerKey,
    pub(super) span: Span,
    /// Whether the action was emitted.
    pub(super) is_announced: bool,
    pub(super) size_bytes: u64,
    pub(super) arrived_bytes: u64,
    pub(super) phase: Phase,
    pub(super) asked_at: Instant,
    /// When it last made progress.
    pub(super) touched_at: Instant,
    pub(super) withdrawal: Option<Withdrawal>,
    pub(super) overdue: Option<Overdue>,
}

impl Request {
    /// Returns whether bytes from the peer are outstanding.
    pub(super) fn is_outstanding(&self) -> bool {
        self.phase != Phase::Received
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        self.size_bytes.saturating_sub(self.arrived_bytes)
    }

    /// Returns whether the answer has taken longer than `limit` and, at its rate so far, will take
    /// that long again.
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
