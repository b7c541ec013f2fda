//! Why a code cannot be claimed or redeemed.

use std::time::Duration;

use qshare_content::LinkParseError;
use qshare_wire::mailbox::MailboxFault;
use qshare_wire::{Refusal, Refused};

use crate::error::TrackerFault;

/// Why a tracker does not keep a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFault {
    /// Another sharer has the number there.
    #[error("another sharer has the number there")]
    Taken,
    /// It keeps no mailboxes.
    #[error("it does not support codes")]
    Unsupported,
    /// It refused for another reason.
    #[error("it refused: {0}")]
    Refused(String),
}

impl ClaimFault {
    /// Returns the fault that a refusal means; None for one that passes.
    pub(super) fn of(refused: &Refused) -> Option<ClaimFault> {
        match (MailboxFault::of(refused), refused.refusal()) {
            (Some(MailboxFault::Taken), _) => Some(ClaimFault::Taken),
            (_, Refusal::Busy) => None,
            (_, Refusal::Invalid) => Some(ClaimFault::Unsupported),
            _ => Some(ClaimFault::Refused(refused.to_string())),
        }
    }
}

/// Why a code did not lead to a link. Holds nothing of the code.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedeemError {
    /// The sharer says that the words are wrong.
    #[error("the words of the code are wrong")]
    WrongWords,
    /// The other side did not prove that it knows the words: somebody changed the messages, or
    /// pretends to be the sharer.
    #[error("the other side does not know the words of the code")]
    Tampered,
    /// Three runs failed.
    #[error("three attempts failed")]
    TooManyRuns,
    /// The code is more than 24 h old.
    #[error("the code has expired")]
    Expired,
    /// It has been used as often as its sharer allows.
    #[error("the code has been used up")]
    UsedUp,
    /// It was ended after three wrong guesses.
    #[error("the code ended after three wrong guesses")]
    Guessed,
    /// The share has ended.
    #[error("the share has ended")]
    Ended,
    /// The sharer is not connected to the tracker.
    #[error("the sharer is not connected")]
    SharerAway,
    /// Too many attempts are being made, at this code or from this network.
    #[error("too many attempts; try again in {} s", .retry_after.as_secs().max(1))]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// No tracker that was reached, and no neighbour, knows the number.
    #[error("no such code")]
    Unknown {
        /// Whether a tracker was reached.
        asked_tracker: bool,
        /// Why a tracker was not reached, if that is so for one.
        unreached: Option<TrackerFault>,
    },
    /// The link is not one that this version understands.
    #[error("the link behind the code cannot be used: {0}")]
    Link(LinkParseError),
}

impl RedeemError {
    /// Returns the error that a refusal means.
    pub(super) fn of(refused: &Refused) -> RedeemError {
        let unknown = RedeemError::Unknown {
            asked_tracker: true,
            unreached: None,
        };
        match MailboxFault::of(refused) {
            Some(MailboxFault::Expired) => RedeemError::Expired,
            Some(MailboxFault::UsedUp) => RedeemError::UsedUp,
            Some(MailboxFault::Guessed) => RedeemError::Guessed,
            Some(MailboxFault::Ended) => RedeemError::Ended,
            Some(MailboxFault::Away) => RedeemError::SharerAway,
            Some(MailboxFault::WrongWords) => RedeemError::WrongWords,
            Some(MailboxFault::Taken) => unknown,
            None if refused.refusal() == Refusal::Busy => RedeemError::Busy {
                retry_after: Duration::from_millis(refused.retry_after_ms.into()),
            },
            None => unknown,
        }
    }

    /// Of several errors the one with the highest rank is reported: the one that says most.
    pub(super) fn rank(&self) -> u8 {
        match self {
            RedeemError::Link(_) => 11,
            RedeemError::WrongWords => 10,
            RedeemError::Tampered => 9,
            RedeemError::TooManyRuns => 8,
            RedeemError::Guessed => 7,
            RedeemError::UsedUp => 6,
            RedeemError::Expired => 5,
            RedeemError::Ended => 4,
            RedeemError::Busy { .. } => 3,
            RedeemError::SharerAway => 2,
            RedeemError::Unknown {
                asked_tracker: true,
                ..
            } => 1,
            RedeemError::Unknown { .. } => 0,
        }
    }
}
