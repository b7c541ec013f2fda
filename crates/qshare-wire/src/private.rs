//! Messages about private shares.
//!
//! To a tracker, a private content is a *topic*, which reveals neither its id nor its name. On the
//! control stream, [`AnnounceTopics`] is a batch like [`crate::tracker::Announce`]: it takes the
//! next number, is acknowledged by the same message, and between the first and the last batch of a
//! full announcement it is a part of that. [`WatchTopic`] is answered as
//! [`crate::tracker::Watch`] is.
//!
//! Between nodes, [`Unlock`] is a request on a stream of its own, answered by [`Unlocked`], or by
//! [`crate::Refused`] with [`crate::Refusal::NotHere`] for an unknown topic and for a wrong proof
//! alike. From then on, requests on this connection may name the topic in the place of a content
//! id. Layouts name the fields in order; topics and proofs have 32 bytes.

use qshare_content::Topic;
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::{ANNOUNCE_ENTRIES_MAX, LIST_BODY_MAX_BYTES, SMALL_BODY_MAX_BYTES};
use crate::{Message, WireError};

/// Bit of [`crate::hello::Hello::features`]: the sender knows private shares.
pub const FEATURE_PRIVATE_SHARES: u64 = 2;

/// Number of an extension of [`Unlock`], without bytes: the requester has all of the content. The
/// holder may count it as served.
pub const EXTENSION_RECEIVED: u16 = 1;

/// A topic that a node announces: topic, then complete bool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEntry {
    /// The topic.
    pub topic: Topic,
    /// Whether the node has all of the content.
    pub complete: bool,
}

/// `AnnounceTopics`: a batch of topics.
///
/// ```text
/// sequence u64 │ topics list ≤ 2048 │ removed list ≤ 2048 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceTopics {
    /// Counts up by one with each batch of a connection, announcements of entries included.
    pub sequence: u64,
    /// New or changed topics.
    pub topics: Vec<TopicEntry>,
    /// Removed topics.
    pub removed: Vec<Topic>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for AnnounceTopics {
    const TYPE: u16 = 28;
    const BODY_MAX_BYTES: usize = LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "AnnounceTopics";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("topics", self.topics.len(), ANNOUNCE_ENTRIES_MAX)?;
        check_len::<Self>("removed", self.removed.len(), ANNOUNCE_ENTRIES_MAX)?;
        check_extensions::<Self>(&self.extensions)
    }
}

/// `WatchTopic`: asks who holds the content of a topic, now and as it changes, until the stream is
/// closed.
///
/// ```text
/// topic │ limit u16 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchTopic {
    /// The topic.
    pub topic: Topic,
    /// Most holders in the first answer, at most 256.
    pub limit: u16,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for WatchTopic {
    const TYPE: u16 = 29;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "WatchTopic";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `Unlock`: proves that the sender knows the key of a topic.
///
/// ```text
/// topic │ proof 32 bytes │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlock {
    /// The topic.
    pub topic: Topic,
    /// The requester's proof.
    pub proof: [u8; 32],
    /// [`EXTENSION_RECEIVED`]; further ones are for later versions.
    pub extensions: Extensions,
}

impl Message for Unlock {
    const TYPE: u16 = 40;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Unlock";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `Unlocked`: the requester's proof is valid; proves that the responder knows the key, too.
///
/// ```text
/// proof 32 bytes │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlocked {
    /// The holder's proof.
    pub proof: [u8; 32],
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Unlocked {
    const TYPE: u16 = 41;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Unlocked";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}
