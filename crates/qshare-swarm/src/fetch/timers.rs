//! Timers of a fetch, at most one for each request, reason and peer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::{PeerKey, RequestId};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A started answer may have stalled.
    Stall(RequestId),
    /// The confirmation of a withdrawal is due.
    Withdrawal(RequestId),
    /// A peer with requests outstanding may have gone silent.
    Silence(PeerKey),
    /// The back-off of a peer ends.
    Backoff(PeerKey),
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Timer::Stall(_) => "answer stalled",
            Timer::Withdrawal(_) => "withdrawal unanswered",
            Timer::Silence(_) => "peer silent",
            Timer::Backoff(_) => "back-off over",
        }
    }
}

/// The set of armed timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Instant, Timer)>,
    times: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Arms `timer`, or moves it.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.clear(timer);
        self.by_time.insert((at, timer));
        self.times.insert(timer, at);
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.times.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Returns the next timer, and its reason.
    pub(super) fn next(&self) -> Option<(Instant, &'static str)> {
        self.by_time
            .first()
            .map(|&(at, timer)| (at, timer.reason()))
    }

    /// Disarms and returns a timer that has expired.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}
