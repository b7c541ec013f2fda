//! Hello: the first frame on the first stream of every connection, in both directions.
//!
//! The dialler opens a bidirectional stream and sends its Hello; the acceptor answers with its
//! own on the same stream, which stays open as the connection's control stream. Nothing else is
//! asked or answered before both were checked.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::limits::{CANDIDATES_MAX, EXTENSION_MAX_BYTES, EXTENSIONS_MAX, SMALL_BODY_MAX_BYTES};
use crate::{Candidate, Message, PeerText, WireError};

/// The protocol version of this crate.
pub const VERSION: u16 = 1;

/// Additions that later versions define: (number, bytes), unknown numbers are ignored.
pub type Extensions = Vec<(u16, Vec<u8>)>;

/// Refuses extensions beyond their bounds.
pub(crate) fn check_extensions<M: Message>(extensions: &Extensions) -> Result<(), WireError> {
    check_len::<M>("extensions", extensions.len(), EXTENSIONS_MAX)?;
    let longest = extensions
        .iter()
        .map(|(_, bytes)| bytes.len())
        .max()
        .unwrap_or(0);
    check_len::<M>("extension", longest, EXTENSION_MAX_BYTES)
}

/// Bit of [`Hello::features`]: the sender agrees to many probes where its router and the other's
/// leave no other direct way (see [`crate::introduction::EXTENSION_BIRTHDAY_PUNCH`]).
pub const FEATURE_BIRTHDAY_PUNCH: u64 = 1;

/// What the sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A tracker.
    Tracker,
    /// A node that shares and stays.
    Node,
    /// A one-shot command with a throw-away identity.
    OneShot,
}

/// `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest and highest version that the sender speaks; both use the highest in common.
    pub versions: (u16, u16),
    /// Feature bits ([`FEATURE_BIRTHDAY_PUNCH`]); unknown ones are ignored.
    pub features: u64,
    /// What the sender is.
    pub role: Role,
    /// Program and version, for people.
    pub agent: PeerText,
    /// HMAC-SHA-256 under the group's secret over TLS exporter, role and both ids.
    pub group_proof: Option<[u8; 32]>,
    /// Where the sender listens (at most 8). What others observe comes from elsewhere.
    pub candidates: Vec<Candidate>,
    /// The address that the sender sees the receiver at.
    pub observed: Option<SocketAddr>,
    /// Additions of later versions.
    pub extensions: Extensions,
}

impl Hello {
    /// The highest version that both speak.
    pub fn common_version(&self) -> Option<u16> {
        let (low, high) = self.versions;
        (low <= VERSION && VERSION <= high).then_some(VERSION)
    }
}

impl Message for Hello {
    const TYPE: u16 = 1;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES * 2;
    const NAME: &'static str = "Hello";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("candidates", self.candidates.len(), CANDIDATES_MAX)?;
        check_extensions::<Self>(&self.extensions)
    }
}
