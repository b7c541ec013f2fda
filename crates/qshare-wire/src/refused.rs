//! The one way to say no to a request.

use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::limits::{SMALL_BODY_MAX_BYTES, TEXT_MAX_BYTES};
use crate::{Message, WireError};

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

/// `Refused`, the answer to any request that is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    code: u16,
    /// Milliseconds after which asking again makes sense; 0 where it says nothing.
    pub retry_after_ms: u32,
    /// For people.
    pub reason: String,
}

impl Refused {
    /// A refusal without further words.
    pub fn new(refusal: Refusal) -> Refused {
        Refused {
            code: refusal.code(),
            retry_after_ms: 0,
            reason: String::new(),
        }
    }

    /// A refusal with a reason that a person can read.
    pub fn because(refusal: Refusal, reason: impl Into<String>) -> Refused {
        let mut reason: String = reason.into();
        let end = (0..=TEXT_MAX_BYTES.min(reason.len()))
            .rev()
            .find(|&at| reason.is_char_boundary(at))
            .unwrap_or(0);
        reason.truncate(end);
        Refused {
            code: refusal.code(),
            retry_after_ms: 0,
            reason,
        }
    }

    /// What kind of no it is.
    pub fn refusal(&self) -> Refusal {
        Refusal::from_code(self.code)
    }
}

impl Message for Refused {
    const TYPE: u16 = 2;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Refused";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("reason", self.reason.len(), TEXT_MAX_BYTES)
    }
}
