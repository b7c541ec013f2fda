//! The one way to say no to a request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::SMALL_BODY_MAX_BYTES;
use crate::{Message, PeerText};

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The responder does not have this, and does not expect to.
    NotHere,
    /// The responder is getting it; a *have* will say when.
    NotYet,
    /// Too much at once; again after the time given.
    Busy,
    /// The file changed since it was announced.
    Changed,
    /// The asker may not have it.
    NotAllowed,
    /// The request was withdrawn before an answer had started.
    Withdrawn,
    /// The request makes no sense for this content (range, height), or its type is unknown.
    Invalid,
    /// The responder failed (a disk error); others may do better.
    Failed,
    /// A refusal that this version does not know.
    Other(u16),
}

impl Refusal {
    /// The number on the wire.
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

    /// Reads a number; every number is a refusal.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    code: u16,
    /// Milliseconds after which asking again makes sense; 0 where it says nothing.
    pub retry_after_ms: u32,
    /// An explanation for people; may be empty.
    pub reason: PeerText,
}

impl Refused {
    /// A refusal without further words.
    pub fn new(refusal: Refusal) -> Refused {
        Refused {
            code: refusal.code(),
            retry_after_ms: 0,
            reason: PeerText::default(),
        }
    }

    /// A refusal with a reason that a person can read.
    pub fn because(refusal: Refusal, reason: impl Into<PeerText>) -> Refused {
        Refused {
            code: refusal.code(),
            retry_after_ms: 0,
            reason: reason.into(),
        }
    }

    /// What kind of no it is.
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
