//! Introductions: a tracker sends two nodes each other's addresses at the same moment, so that both
//! open their NATs to the other.
//!
//! A node asks on a stream of its own with [`Introduce`], which is answered by an
//! [`Introduction`] or a refusal. The other node gets an [`Introduction`] on its control stream.

use qshare_content::NodeId;
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions, extension};
use crate::limits::{CANDIDATES_MAX, SMALL_BODY_MAX_BYTES};
use crate::{Address, Candidate, Message, WireError};

/// Extension of [`Introduction`]: both nodes agreed in their Hellos to the tracker to birthday
/// punching ([`crate::hello::FEATURE_BIRTHDAY_PUNCH`]). Its bytes are empty in version 1;
/// those of later versions are ignored.
pub const EXTENSION_BIRTHDAY_PUNCH: u16 = 1;

/// Extension of [`Introduction`]: the relay for which [`Introduction::relay`] is a ticket is that
/// of another tracker, at this [`crate::Address`] (postcard).
pub const EXTENSION_RELAY_ADDRESS: u16 = 2;

/// `Introduce`: asks to be introduced to a node.
///
/// ```text
/// node │ candidates list ≤ 8 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduce {
    /// The other node.
    pub node: NodeId,
    /// Addresses at which the asker listens now, beyond the observed one; they replace those of its
    /// Hello.
    pub candidates: Vec<Candidate>,
    /// For later versions.
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

/// Permission to use the tracker's relay towards one other node.
///
/// ```text
/// handle u64 │ secret 16 bytes │ lifetime_seconds u32
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayTicket {
    /// The node's end of the channel; the other one has another.
    pub handle: u64,
    /// Proves that the node owns the handle.
    pub secret: [u8; 16],
    /// Seconds for which the ticket is valid.
    pub lifetime_seconds: u32,
}

/// `Introduction`: introduces the receiver to another node.
///
/// ```text
/// peer │ asked bool │ candidates list ≤ 8 │ id u64 │ key 16 bytes │ relay option ticket │
/// extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The other node.
    pub peer: NodeId,
    /// Whether the receiver asked for it.
    pub asked: bool,
    /// Addresses at which the other node may be.
    pub candidates: Vec<Candidate>,
    /// Names the introduction in probes; the same on both sides.
    pub id: u64,
    /// Authenticates probes; the same on both sides.
    pub key: [u8; 16],
    /// A ticket for the relay; None if the tracker does not relay.
    pub relay: Option<RelayTicket>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Introduction {
    /// Returns the relay's address if the relay is another tracker's.
    pub fn relay_address(&self) -> Option<Address> {
        let bytes = extension(&self.extensions, EXTENSION_RELAY_ADDRESS)?;
        postcard::from_bytes(bytes).ok()
    }

    /// Returns the extension that names another tracker's relay.
    pub fn relay_address_extension(address: Address) -> (u16, Vec<u8>) {
        // An address can always be encoded.
        let bytes = postcard::to_stdvec(&address).unwrap_or_default();
        (EXTENSION_RELAY_ADDRESS, bytes)
    }

    /// Returns whether both nodes agreed to birthday punching.
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
