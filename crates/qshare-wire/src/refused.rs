//! The refusal of a request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::SMALL_BODY_MAX_BYTES;
use crate::{Message, PeerText};

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The responder does not have this, and does not expect to.
    NotHere,
    /// The responder is downloading it; a *have* follows when it is there.
    NotYet,
    /// The responder is overloaded; ask again after the given time.
    Busy,
    /// The file changed since it was announced.
    Changed,
    /// The asker has no permission.
    NotAllowed,
    /// The request was withdrawn before an answer had started.
    Withdrawn,
    /// The request is invalid for this content (range, height), or its type is unknown.
    Invalid,
    /// The responder failed, for example by a disk error; another holder may succeed.
    Failed,
    /// A refusal that this version does not know.
    Other(u16),
}

impl Refusal {
    /// Returns the number on the wire.
    pub fn code(self) -> u16 {
        match self {
            Refusal::NotHere => 1,
            Refusal::NotYet => 2,
            Refusal::Busy => 3,
            Refusal::Changed => 4,
            Refusal::NotAllowed => 5,
            Refusal::Withdrawn => 6,
            Refusal::Invalid => 7,
            Refusal::Failed => 8,
            Refusal::Other(code) => code,
        }
    }

    /// Converts a number from the wire; every number is a refusal.
    pub fn from_code(code: u16) -> Refusal {
        match code {
            1 => Refusal::NotHere,
            2 => Refusal::NotYet,
            3 => Refusal::Busy,
            4 => Refusal::Changed,
            5 => Refusal::NotAllowed,
            6 => Refusal::Withdrawn,
            7 => Refusal::Invalid,
            8 => Refusal::Failed,
            other => Refusal::Other(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotHere => "not here",
            Refusal::NotYet => "not yet",
            Refusal::Busy => "busy",
            Refusal::Changed => "changed since it was announced",
            Refusal::NotAllowed => "not allowed",
            Refusal::Withdrawn => "withdrawn",
            Refusal::Invalid => "invalid request",
            Refusal::Failed => "internal failure",
            Refusal::Other(code) => return write!(f, "refusal {code}"),
        })
    }
}

/// `Refused`, the answer to any request that is not served.
///
/// ```text
/// code u16 │ retry_after_ms u32 │ reason text ≤ 256
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    code: u16,
    /// Milliseconds after which to ask again; 0 for no advice.
    pub retry_after_ms: u32,
    /// An explanation for people; may be empty.
    pub reason: PeerText,
}

impl Refused {
    /// Makes a refusal without a reason.
    pub fn new(refusal: Refusal) -> Refused {
        Refused {
            code: refusal.code(),
            retry_after_ms: 0,
            reason: PeerText::default(),
        }
    }

    /// Makes a refusal with a reason for people.
    pub fn because(refusal: Refusal, reason: impl Into<PeerText>) -> Refused {
        Refused {
            code: refusal.code(),
            retry_after_ms: 0,
            reason: reason.into(),
        }
    }

    /// Returns the kind of refusal.
    pub fn refusal(&self) -> Refusal {
        Refusal::from_code(self.code)
    }
}

/// The reason where there is one, else the kind of refusal.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.is_empty() {
            true => self.refusal().fmt(f),
            false => self.reason.fmt(f),
        }
    }
}

impl Message for Refused {
    const TYPE: u16 = 2;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Refused";
}
