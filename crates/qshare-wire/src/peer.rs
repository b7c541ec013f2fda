//! Messages between two nodes.
//!
//! Every exchange is a bidirectional stream of its own, opened by the asker:
//!
//! - [`Interest`] is answered by [`Have`], and from then on by [`HaveMore`] as chunks are verified,
//!   for as long as the asker keeps its half open.
//! - [`HashRequest`] is answered by [`Hashes`].
//! - [`ChunkRequest`] is answered by [`ChunkData`], after which exactly [`ChunkData::bytes`] raw
//!   bytes follow. The asker keeps its half open until it has them all. Resetting it *withdraws*
//!   the request: the responder refuses it with `Withdrawn` if the answer has not started, and goes
//!   on otherwise. Stopping the receiving half as well *gives up*: the responder resets its half.
//!
//! Any request may be answered by [`crate::Refused`]. Layouts name the fields in order; ids and
//! hashes have 32 bytes.

use qshare_content::{ContentId, Hash, tree};
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::{HAVE_MORE_MAX, LIST_BODY_MAX_BYTES, PATH_HASHES_MAX, SMALL_BODY_MAX_BYTES};
use crate::{Message, WireError};

/// `Interest`: asks which chunks of a content the responder has, now and as it gets more.
///
/// ```text
/// content │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interest {
    /// The content.
    pub content: ContentId,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Interest {
    const TYPE: u16 = 32;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Interest";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `Have`: the chunks that the sender can serve now.
///
/// ```text
/// complete bool │ bitmap bytes │ queue_bytes u64 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Whether the sender has all chunks; `bitmap` is empty then.
    pub complete: bool,
    /// Chunk `i` is bit `i % 8`, least significant first, of byte `i / 8`.
    pub bitmap: Vec<u8>,
    /// Bytes of queued requests, over all contents and askers.
    pub queue_bytes: u64,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Have {
    const TYPE: u16 = 33;
    // 2^22 chunks of the largest file are 512 KiB.
    const BODY_MAX_BYTES: usize = LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "Have";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `HaveMore`: chunks that the sender can serve since its last message; none if only the queue
/// changed.
///
/// ```text
/// chunks list of u32 ≤ 8192 │ queue_bytes u64
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveMore {
    /// Indices of the chunks.
    pub chunks: Vec<u32>,
    /// Bytes of queued requests, over all contents and askers.
    pub queue_bytes: u64,
}

impl Message for HaveMore {
    const TYPE: u16 = 34;
    const BODY_MAX_BYTES: usize = LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "HaveMore";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("chunks", self.chunks.len(), HAVE_MORE_MAX)
    }
}

/// `HashRequest`: asks for one page of chunk hashes.
///
/// ```text
/// content │ page u32 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRequest {
    /// The content.
    pub content: ContentId,
    /// The page of [`tree::PAGE_CHUNKS`] hashes, from 0.
    pub page: u32,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for HashRequest {
    const TYPE: u16 = 35;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "HashRequest";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `Hashes`: a page of chunk hashes, and its proof against the root.
///
/// ```text
/// hashes list ≤ 4096 │ path list ≤ 31
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Hashes of the page's chunks, in order.
    pub hashes: Vec<Hash>,
    /// Siblings from the page's subtree up to the file's root, lowest first.
    pub path: Vec<Hash>,
}

impl Message for Hashes {
    const TYPE: u16 = 36;
    const BODY_MAX_BYTES: usize = LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "Hashes";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("hashes", self.hashes.len(), tree::PAGE_CHUNKS as usize)?;
        check_len::<Self>("path", self.path.len(), PATH_HASHES_MAX)
    }
}

/// `ChunkRequest`: asks for an aligned subtree of the file, at most a chunk.
///
/// ```text
/// content │ height u8 │ index u64 │ path_levels u8 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// The content.
    pub content: ContentId,
    /// Height of the subtree: it has `1 << height` leaves of 16 KiB.
    pub height: u8,
    /// Its index among the file's subtrees of that height.
    pub index: u64,
    /// Requested levels of the audit path, from the subtree upwards; 0 for a whole chunk.
    pub path_levels: u8,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for ChunkRequest {
    const TYPE: u16 = 37;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "ChunkRequest";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `ChunkData`: the header of the raw bytes that follow on the stream.
///
/// ```text
/// bytes u64 │ path list ≤ 31 │ sending u8
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkData {
    /// Number of raw bytes: the size of the requested subtree.
    pub bytes: u64,
    /// The requested audit path, lowest first.
    pub path: Vec<Hash>,
    /// What limits the responder's sending on this connection: a [`Sending`] code. For people only.
    pub sending: u8,
}

/// What limits how fast a node sends on a connection, as it tells the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sending {
    /// The congestion window, or nothing.
    #[default]
    Unknown,
    /// Packets were lost within the last RTTs.
    Losing,
    /// The sender's rate limit.
    Limited,
}

impl Sending {
    /// Returns the code on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Sending::Unknown => 0,
            Sending::Losing => 1,
            Sending::Limited => 2,
        }
    }

    /// Returns the meaning of a code; codes of later versions mean nothing.
    pub const fn from_code(code: u8) -> Sending {
        match code {
            1 => Sending::Losing,
            2 => Sending::Limited,
            _ => Sending::Unknown,
        }
    }
}

impl Message for ChunkData {
    const TYPE: u16 = 38;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "ChunkData";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("path", self.path.len(), PATH_HASHES_MAX)
    }
}

/// `Ping`, a request with an empty body. The acknowledgement of its packet shows that the path is
/// alive; the responder refuses it as an unknown request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

impl Message for Ping {
    const TYPE: u16 = 39;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Ping";
}
