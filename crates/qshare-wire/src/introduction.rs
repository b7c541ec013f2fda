//! Introductions: a tracker tells two nodes of each other at the same moment, so that both can
//! open their routers to the other.
//!
//! A node asks on a stream of its own with [`Introduce`], which is answered by an
//! [`Introduction`] or a refusal. The other node hears of it by an [`Introduction`] on its
//! control stream.

use qshare_content::NodeId;
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::{CANDIDATES_MAX, SMALL_BODY_MAX_BYTES};
use crate::{Candidate, Message, WireError};

/// Extension of [`Introduction`]: both nodes said in their Hellos to the tracker that they agree to
/// many probes ([`crate::hello::FEATURE_BIRTHDAY_PUNCH`]). Its bytes are empty in version 1; what
/// later versions put there is ignored.
pub const EXTENSION_BIRTHDAY_PUNCH: u16 = 1;

/// `Introduce`: tell this node and us of each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduce {
    /// Whom to.
    pub node: NodeId,
    /// Where the asker listens now, beyond what the tracker observes; in place of those in Hello.
    pub candidates: Vec<Candidate>,
    /// Additions of later versions.
    pub extensions: Extensions,
}

impl Message for Introduce {
    const TYPE: u16 = 23;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Introduce";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("candidates", self.candidates.len(), CANDIDATES_MAX)?;
        check_extensions::<Self>(&self.extensions)
    }
}

/// What lets a node use the tracker's relay towards one other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayTicket {
    /// The node's end of the channel; the other one has another.
    pub handle: u64,
    /// Proves that the node is meant.
    pub secret: [u8; 16],
    /// Seconds for which the ticket holds.
    pub lifetime_seconds: u32,
}

/// `Introduction`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The other node.
    pub peer: NodeId,
    /// Whether the receiver asked for it.
    pub asked: bool,
    /// Where the other node may be.
    pub candidates: Vec<Candidate>,
    /// Names the introduction in probes; the same on both sides.
    pub id: u64,
    /// Authenticates probes; the same on both sides.
    pub key: [u8; 16],
    /// How to reach it where nothing else works; None where the tracker does not relay.
    pub relay: Option<RelayTicket>,
    /// Additions of later versions.
    pub extensions: Extensions,
}

impl Introduction {
    /// Whether both nodes agree to many probes.
    pub fn may_birthday_punch(&self) -> bool {
        self.extensions
            .iter()
            .any(|&(number, _)| number == EXTENSION_BIRTHDAY_PUNCH)
    }
}

impl Message for Introduction {
    const TYPE: u16 = 24;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Introduction";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("candidates", self.candidates.len(), CANDIDATES_MAX)?;
        check_extensions::<Self>(&self.extensions)
    }
}
