//! What an offer of a code reports.

use qshare_content::{Code, NodeId, TrackerAddress};

use super::error::ClaimFault;

/// An event of a [`super::CodeOffer`].
#[derive(Debug, Clone)]
pub enum CodeEvent {
    /// A code is offered from now on; an earlier one has ended.
    Offered(OfferedCode),
    /// A tracker that was not reached before has the code now, too.
    Claimed {
        /// The tracker.
        tracker: TrackerAddress,
    },
    /// Receivers at this tracker cannot use the code.
    Unavailable {
        /// The tracker.
        tracker: TrackerAddress,
        /// Why it does not keep the code.
        cause: ClaimFault,
    },
    /// A receiver typed wrong words.
    AttemptFailed {
        /// The receiver, as the tracker says.
        node: NodeId,
        /// Guesses until the code is replaced.
        left: usize,
    },
    /// A receiver was given the link.
    Redeemed {
        /// The receiver.
        node: NodeId,
        /// Receivers that may still use the code; None for any number.
        left: Option<u32>,
    },
    /// A receiver reported that it has everything.
    Completed {
        /// Reports until the share has served its purpose: at 0 it may end. None if it has no end.
        left: Option<u32>,
    },
    /// The code has ended, and no other follows.
    Ended(CodeEnd),
}

/// A code that is offered.
#[derive(Debug, Clone)]
pub struct OfferedCode {
    /// The code.
    pub code: Code,
    /// The trackers that have it.
    pub trackers: Vec<TrackerAddress>,
    /// Whether it works on the local network.
    pub lan: bool,
    /// Why it replaces an earlier code; None for the first one.
    pub replaces: Option<CodeEnd>,
}

/// Why a code has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeEnd {
    /// Three confirmations failed.
    Guessed,
    /// A tracker gave its number to somebody else after a restart.
    Taken,
    /// It has been used as often as it may be.
    UsedUp,
    /// It is 24 h old.
    Expired,
}
