//! What two nodes say to each other.
//!
//! Every exchange is a bidirectional stream of its own, opened by the one who wants something:
//!
//! - [`Interest`] is answered by [`Have`], and from then on by [`HaveMore`] as chunks are verified,
//!   for as long as the asker keeps its half open.
//! - [`HashRequest`] is answered by [`Hashes`].
//! - [`ChunkRequest`] is answered by [`ChunkData`], after which exactly [`ChunkData::bytes`] raw
//!   bytes follow. The asker keeps its half open until it has them all: resetting it *withdraws*
//!   the request, which is answered `Withdrawn` if no answer had started, and else changes
//!   nothing. Stopping the receiving half as well gives up altogether; the responder resets.
//!
//! Any of them may be answered by [`crate::Refused`].

use qshare_content::{ContentId, Hash, tree};
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::{HAVE_MORE_MAX, LIST_BODY_MAX_BYTES, PATH_HASHES_MAX, SMALL_BODY_MAX_BYTES};
use crate::{Message, WireError};

/// `Interest`: which chunks of this content do you have, and tell me as you get more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interest {
    /// Which content.
    pub content: ContentId,
    /// Additions of later versions.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// All of them; `bitmap` is empty then.
    pub complete: bool,
    /// Chunk `i` is bit `i % 8`, least significant first, of byte `i / 8`.
    pub bitmap: Vec<u8>,
    /// Bytes that wait to be answered, over all contents and askers.
    pub queue_bytes: u64,
    /// Additions of later versions.
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

/// `HaveMore`: chunks that the sender can serve since the last word; none, if only the queue
/// changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveMore {
    /// Indices of chunks.
    pub chunks: Vec<u32>,
    /// Bytes that wait to be answered, over all contents and askers.
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

/// `HashRequest`: one page of chunk hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRequest {
    /// Which content.
    pub content: ContentId,
    /// Which page of [`tree::PAGE_CHUNKS`] hashes, from 0.
    pub page: u32,
    /// Additions of later versions.
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

/// `Hashes`: the page, and what proves it against the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Hashes of the page's chunks, in order.
    pub hashes: Vec<Hash>,
    /// Siblings from the page's root up to the file's, lowest first.
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

/// `ChunkRequest`: an aligned subtree of the file, at most a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// Which content.
    pub content: ContentId,
    /// The subtree has `1 << height` leaves of 16 KiB.
    pub height: u8,
    /// Its position among the file's subtrees of that height.
    pub index: u64,
    /// Levels of the audit path wanted, from the subtree upwards; 0 for a whole chunk.
    pub path_levels: u8,
    /// Additions of later versions.
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

/// `ChunkData`: raw bytes follow on the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkData {
    /// How many; the size of the subtree that was asked for.
    pub bytes: u64,
    /// The audit path that was asked for, lowest first.
    pub path: Vec<Hash>,
}

impl Message for ChunkData {
    const TYPE: u16 = 38;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "ChunkData";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("path", self.path.len(), PATH_HASHES_MAX)
    }
}

/// `Ping`, a request for nothing: that its packet is acknowledged is the answer. It gets a
/// refusal besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

impl Message for Ping {
    const TYPE: u16 = 39;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Ping";
}
