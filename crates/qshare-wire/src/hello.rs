//! Hello: the first frame on the first stream of every connection, in both directions.
//!
//! The dialler opens a bidirectional stream and sends its Hello; the acceptor answers with its
//! own on the same stream, which stays open as the connection's control stream. No request is sent
//! or answered before both Hellos were checked.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::limits::{CANDIDATES_MAX, EXTENSION_MAX_BYTES, EXTENSIONS_MAX, SMALL_BODY_MAX_BYTES};
use crate::{Candidate, Message, PeerText, WireError};

/// The protocol version of this crate.
pub const VERSION: u16 = 1;

/// Extensions for later versions: a list of (number u16, bytes); unknown numbers are ignored.
pub type Extensions = Vec<(u16, Vec<u8>)>;

/// Checks the bounds of extensions.
pub(crate) fn check_extensions<M: Message>(extensions: &Extensions) -> Result<(), WireError> {
    check_len::<M>("extensions", extensions.len(), EXTENSIONS_MAX)?;
    let longest = extensions
        .iter()
        .map(|(_, bytes)| bytes.len())
        .max()
        .unwrap_or(0);
    check_len::<M>("extension", longest, EXTENSION_MAX_BYTES)
}

/// Bit of [`Hello::features`]: the sender agrees to birthday punching, many probes where the NATs
/// of both sides leave no other direct path (see
/// [`crate::introduction::EXTENSION_BIRTHDAY_PUNCH`]).
pub const FEATURE_BIRTHDAY_PUNCH: u64 = 1;

/// Bit of [`Hello::features`]: a tracker keeps mailboxes for codes ([`crate::mailbox`]); a node
/// answers at its own mailboxes.
pub const FEATURE_CODES: u64 = 4;
/// Bit of [`Hello::features`]: the sender understands [`crate::siblings::Siblings`].
pub const FEATURE_SIBLINGS: u64 = 32;

/// Extension of a node's Hello to a tracker: the number of the session, a u64, little-endian. A
/// node numbers its sessions with all trackers upwards: each has max(previous + 1, milliseconds
/// since 1970). Trackers over one registry keep what the session with the highest number announced.
pub const EXTENSION_SESSION_NUMBER: u16 = 1;
/// Extension of a tracker's Hello: the id of the registry that it shares with others, 16 bytes. A
/// node announces to one tracker of each registry.
pub const EXTENSION_REGISTRY: u16 = 2;

/// Returns the bytes of an extension.
pub fn extension(extensions: &Extensions, number: u16) -> Option<&[u8]> {
    let found = extensions.iter().find(|(known, _)| *known == number);
    found.map(|(_, bytes)| bytes.as_slice())
}

/// The role of a participant. On the wire: 0 tracker, 1 node, 2 one-shot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A tracker.
    Tracker,
    /// A node that shares files and keeps running.
    Node,
    /// A one-shot command with an identity in memory.
    OneShot,
}

/// `Hello`.
///
/// ```text
/// versions (u16, u16) │ features u64 │ role │ agent text ≤ 256 │ group_proof option 32 bytes │
/// candidates list ≤ 8 │ observed option socket │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest and highest version that the sender speaks; both sides use the highest in common.
    pub versions: (u16, u16),
    /// Feature bits ([`FEATURE_BIRTHDAY_PUNCH`]); unknown ones are ignored.
    pub features: u64,
    /// The sender's role.
    pub role: Role,
    /// Program and version, for people.
    pub agent: PeerText,
    /// HMAC-SHA-256 under the group's secret over TLS exporter, side and both ids.
    pub group_proof: Option<[u8; 32]>,
    /// Addresses at which the sender listens (at most 8), besides those that others observe.
    pub candidates: Vec<Candidate>,
    /// The address that the sender sees the receiver at.
    pub observed: Option<SocketAddr>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Hello {
    /// Returns the highest version that both sides speak.
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
