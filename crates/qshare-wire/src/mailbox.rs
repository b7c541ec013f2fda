//! Messages of codes: a sharer claims a mailbox, receivers meet it there.
//!
//! The **sharer** opens a stream to a tracker with [`MailboxClaim`]. The tracker answers with
//! [`MailboxClaimed`], and both keep the stream open: it carries [`MailboxForward`] in both
//! directions, for all runs of the key exchange at this mailbox.
//!
//! The **receiver** opens a stream for one run, to a tracker or, on the local network, to the
//! sharer itself: [`MailboxOpen`], [`MailboxAnswer`], [`MailboxConfirm`], [`MailboxSealed`]. Each
//! side may end it by [`crate::Refused`]; [`MailboxFault`] lists the refusals that only mailboxes
//! have.
//!
//! After its download, a receiver sends [`MailboxComplete`] to the sharer on a stream of their own
//! connection.

use std::time::Duration;

use qshare_content::NodeId;
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::SMALL_BODY_MAX_BYTES;
use crate::{Message, Refusal, Refused, WireError};

/// Bytes of a message of the key exchange. SPAKE2 over Ed25519 has 33.
pub const EXCHANGE_MAX_BYTES: usize = 64;
/// Bytes of a sealed link: the longest link has 8 KiB, and the seal 16 bytes.
pub const SEALED_MAX_BYTES: usize = 8 * 1024 + 64;

/// The retry time of [`MailboxFault::Away`] if the tracker to which the sharer was connected does
/// not answer: the sharer notices that within half a minute, and goes to another tracker. If the
/// sharer itself has gone, the time is shorter.
pub const MAILBOX_TRACKER_LOST_RETRY: Duration = Duration::from_secs(2);

/// `MailboxClaim`: claims a mailbox, or takes it back.
///
/// ```text
/// number u32 │ token 32 bytes │ extensions
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxClaim {
    /// The number of the mailbox, which the sharer drew.
    pub number: u32,
    /// Random bytes. A node that knows them may take the mailbox back after its stream was lost.
    /// A sharer gives each tracker another token.
    pub token: [u8; 32],
    /// For later versions.
    pub extensions: Extensions,
}

/// Without the token.
impl std::fmt::Debug for MailboxClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailboxClaim")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Message for MailboxClaim {
    const TYPE: u16 = 48;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxClaim";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `MailboxClaimed`: the mailbox belongs to the claimer.
///
/// ```text
/// lifetime_seconds u32 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxClaimed {
    /// Seconds after which the tracker ends the mailbox.
    pub lifetime_seconds: u32,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for MailboxClaimed {
    const TYPE: u16 = 49;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxClaimed";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `MailboxOpen`: begins a run of the key exchange.
///
/// ```text
/// number u32 │ exchange bytes ≤ 64 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxOpen {
    /// The number of the code.
    pub number: u32,
    /// The receiver's message of the key exchange.
    pub exchange: Vec<u8>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for MailboxOpen {
    const TYPE: u16 = 50;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxOpen";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("exchange", self.exchange.len(), EXCHANGE_MAX_BYTES)?;
        check_extensions::<Self>(&self.extensions)
    }
}

/// `MailboxAnswer`: the sharer's part of the key exchange.
///
/// ```text
/// sharer NodeId │ exchange bytes ≤ 64 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxAnswer {
    /// The sharer, as the tracker says. A wrong one makes the confirmation fail.
    pub sharer: NodeId,
    /// The sharer's message of the key exchange.
    pub exchange: Vec<u8>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for MailboxAnswer {
    const TYPE: u16 = 51;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxAnswer";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("exchange", self.exchange.len(), EXCHANGE_MAX_BYTES)?;
        check_extensions::<Self>(&self.extensions)
    }
}

/// `MailboxConfirm`: proves that the receiver has derived the key.
///
/// ```text
/// proof 32 bytes
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxConfirm {
    /// The receiver's confirmation.
    pub proof: [u8; 32],
}

impl Message for MailboxConfirm {
    const TYPE: u16 = 52;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxConfirm";
}

/// `MailboxSealed`: proves that the sharer has derived the key, and carries the sealed link.
///
/// ```text
/// proof 32 bytes │ sealed bytes ≤ 8256
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxSealed {
    /// The sharer's confirmation.
    pub proof: [u8; 32],
    /// The sealed link.
    pub sealed: Vec<u8>,
}

impl Message for MailboxSealed {
    const TYPE: u16 = 53;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxSealed";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("sealed", self.sealed.len(), SEALED_MAX_BYTES)
    }
}

/// One step of a run, between the tracker and the sharer. On the wire: 0 to 6 in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailboxStep {
    /// Tracker to sharer: a receiver begins a run.
    Opened {
        /// The receiver.
        receiver: NodeId,
        /// Its message of the key exchange.
        exchange: Vec<u8>,
    },
    /// Sharer to tracker: its message of the key exchange.
    Answer {
        /// The message.
        exchange: Vec<u8>,
    },
    /// Tracker to sharer: the receiver's confirmation.
    Confirm {
        /// The confirmation.
        proof: [u8; 32],
    },
    /// Sharer to tracker: its confirmation, and the sealed link. The run ends.
    Sealed {
        /// The confirmation.
        proof: [u8; 32],
        /// The sealed link.
        sealed: Vec<u8>,
    },
    /// Sharer to tracker: the run is refused, and ends.
    Refused {
        /// Code of the refusal.
        code: u16,
        /// Milliseconds after which to try again; 0 for no advice.
        retry_after_ms: u32,
    },
    /// Tracker to sharer: the receiver has left. The run ends.
    Gone,
    /// Sharer to tracker, run 0: the sharer ends the mailbox. The tracker refuses later runs with
    /// this code.
    Close {
        /// Code of the refusal.
        code: u16,
    },
}

/// `MailboxForward`: a step of a run, on the stream of the claim.
///
/// ```text
/// run u64 │ step
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxForward {
    /// The run; the tracker numbers the runs of a claim from 1.
    pub run: u64,
    /// The step.
    pub step: MailboxStep,
}

impl Message for MailboxForward {
    const TYPE: u16 = 54;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxForward";

    fn check(&self) -> Result<(), WireError> {
        match &self.step {
            MailboxStep::Opened { exchange, .. } | MailboxStep::Answer { exchange } => {
                check_len::<Self>("exchange", exchange.len(), EXCHANGE_MAX_BYTES)
            }
            MailboxStep::Sealed { sealed, .. } => {
                check_len::<Self>("sealed", sealed.len(), SEALED_MAX_BYTES)
            }
            MailboxStep::Confirm { .. }
            | MailboxStep::Refused { .. }
            | MailboxStep::Gone
            | MailboxStep::Close { .. } => Ok(()),
        }
    }
}

/// `MailboxComplete`: the receiver has everything that it wanted of the link. The sharer ends the
/// stream, or refuses a receipt that it did not issue.
///
/// ```text
/// receipt 32 bytes │ extensions
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxComplete {
    /// Derived by both sides from the key of the exchange.
    pub receipt: [u8; 32],
    /// For later versions.
    pub extensions: Extensions,
}

/// Without the receipt.
impl std::fmt::Debug for MailboxComplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailboxComplete").finish_non_exhaustive()
    }
}

impl Message for MailboxComplete {
    const TYPE: u16 = 55;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MailboxComplete";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// Why a mailbox refuses: codes of [`Refused`] that only answers to mailbox messages have.
/// [`Refusal::NotHere`] means that the tracker knows no such mailbox, [`Refusal::Busy`] that too
/// many runs are open or requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailboxFault {
    /// The code has expired. 16 on the wire.
    Expired,
    /// The code has been used as often as its sharer allows. 17 on the wire.
    UsedUp,
    /// The code ended after three wrong guesses. 18 on the wire.
    Guessed,
    /// The share has ended, or its sharer has replaced the code. 19 on the wire.
    Ended,
    /// The sharer is not connected to the tracker now, and may come back. 20 on the wire.
    Away,
    /// The receiver's words are wrong. 21 on the wire.
    WrongWords,
    /// Answer to a claim: somebody else has the number, or had it within 24 h. 22 on the wire.
    Taken,
}

impl MailboxFault {
    const ALL: [MailboxFault; 7] = [
        MailboxFault::Expired,
        MailboxFault::UsedUp,
        MailboxFault::Guessed,
        MailboxFault::Ended,
        MailboxFault::Away,
        MailboxFault::WrongWords,
        MailboxFault::Taken,
    ];

    /// Returns the number on the wire.
    pub fn code(self) -> u16 {
        match self {
            MailboxFault::Expired => 16,
            MailboxFault::UsedUp => 17,
            MailboxFault::Guessed => 18,
            MailboxFault::Ended => 19,
            MailboxFault::Away => 20,
            MailboxFault::WrongWords => 21,
            MailboxFault::Taken => 22,
        }
    }

    /// Returns the fault of a code; None for a refusal of another kind.
    pub fn from_code(code: u16) -> Option<MailboxFault> {
        Self::ALL.into_iter().find(|fault| fault.code() == code)
    }

    /// Returns the fault that a refusal states; None for one of another kind.
    pub fn of(refused: &Refused) -> Option<MailboxFault> {
        MailboxFault::from_code(refused.refusal().code())
    }

    /// Whether this fault lasts until the mailbox's number is reused.
    pub fn is_final(self) -> bool {
        match self {
            MailboxFault::Expired
            | MailboxFault::UsedUp
            | MailboxFault::Guessed
            | MailboxFault::Ended => true,
            MailboxFault::Away | MailboxFault::WrongWords | MailboxFault::Taken => false,
        }
    }
}

impl From<MailboxFault> for Refusal {
    fn from(fault: MailboxFault) -> Refusal {
        Refusal::from_code(fault.code())
    }
}
