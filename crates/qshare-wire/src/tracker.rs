//! Messages between a node and a tracker.
//!
//! On the control stream, after Hello, the node sends [`Announce`] and the tracker answers each
//! with [`AnnounceAck`]. A full announcement comes first, then only differences.
//!
//! Lookups each have a stream of their own, opened by the node: [`Find`] is answered by [`Found`];
//! [`Watch`] by [`Holders`] and then, for as long as the stream stays open, by [`HoldersChanged`]
//! whenever holders changed. Either may be answered by [`crate::Refused`] instead. Layouts name the
//! fields in order; ids have 32 bytes.

use qshare_content::{AssetName, ContentId, ContentInfo, LENGTH_MAX_BYTES, NodeId, Query};
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::{
    ANNOUNCE_ENTRIES_MAX, CANDIDATES_MAX, CURSOR_MAX_BYTES, HOLDERS_MAX, HOLDERS_PER_MATCH_MAX,
    LIST_BODY_MAX_BYTES, MATCHES_MAX, METADATA_MAX_BYTES, NEAR_NAMES_MAX, SMALL_BODY_MAX_BYTES,
};
use crate::{Candidate, Message, PeerText, WireError};

/// The kind of an entry. On the wire: 0 file, 1 collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A file.
    File,
    /// Reserved: a list of files.
    Collection,
}

/// An entry: a name, and the content that a node shares under it.
///
/// ```text
/// name text │ kind │ info (length u64, root 32 bytes) │ complete bool │ flags u32 │
/// metadata bytes ≤ 256
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name at the node.
    pub name: AssetName,
    /// Its kind.
    pub kind: EntryKind,
    /// Length and root of the content.
    pub info: ContentInfo,
    /// Whether the node has all of it.
    pub complete: bool,
    /// Reserved, 0.
    pub flags: u32,
    /// A [`qshare_content::FileMetadata`], at most 256 bytes. Receivers ignore malformed metadata.
    pub metadata: Vec<u8>,
}

/// The key of a node's entry: name, then content id. One name may stand for two contents, from two
/// shared directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryKey {
    /// Its name at the node.
    pub name: AssetName,
    /// The content.
    pub content: ContentId,
}

/// The position of a batch in an announcement. On the wire: 0 to 3 in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnnounceStage {
    /// The first batch of everything that the node shares.
    FullBegin,
    /// A further batch.
    FullMore,
    /// The last batch: entries of an earlier session that were not repeated are dropped.
    FullEnd,
    /// A difference to the entries announced before.
    Delta,
}

/// `Announce`: a batch of entries.
///
/// ```text
/// sequence u64 │ stage │ entries list ≤ 2048 │ removed list ≤ 2048 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Counts up by one from 0 with each batch of a connection.
    pub sequence: u64,
    /// The position of this batch.
    pub stage: AnnounceStage,
    /// New or changed entries.
    pub entries: Vec<Entry>,
    /// Keys of removed entries.
    pub removed: Vec<EntryKey>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Announce {
    const TYPE: u16 = 16;
    const BODY_MAX_BYTES: usize = 4 * LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "Announce";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("entries", self.entries.len(), ANNOUNCE_ENTRIES_MAX)?;
        check_len::<Self>("removed", self.removed.len(), ANNOUNCE_ENTRIES_MAX)?;
        let longest = self
            .entries
            .iter()
            .map(|entry| entry.metadata.len())
            .max()
            .unwrap_or(0);
        check_len::<Self>("metadata", longest, METADATA_MAX_BYTES)?;
        check_infos::<Self>(self.entries.iter().map(|entry| &entry.info))?;
        check_extensions::<Self>(&self.extensions)
    }
}

/// `AnnounceAck`: acknowledges that a batch is in the registry.
///
/// ```text
/// sequence u64 │ refused u32 │ reason text ≤ 256
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceAck {
    /// The batch's number.
    pub sequence: u64,
    /// Number of refused entries.
    pub refused: u32,
    /// The reason for people; empty if none was refused.
    pub reason: PeerText,
}

impl Message for AnnounceAck {
    const TYPE: u16 = 17;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "AnnounceAck";
}

/// `EntriesEvicted`, on the control stream: the full tracker has removed entries of the node, which
/// is the heaviest of the heaviest network, to make room for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesEvicted {
    /// How many entries were removed since the last such message.
    pub entries: u32,
    /// Milliseconds after which announcing everything again makes sense.
    pub retry_after_ms: u32,
    /// Additions of later versions.
    pub extensions: Extensions,
}

impl Message for EntriesEvicted {
    const TYPE: u16 = 27;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "EntriesEvicted";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `Find`: a lookup.
///
/// ```text
/// query │ after option bytes ≤ 2048 │ limit u16 │ holders u8 │ extensions
/// query: 0 ContentId, 1 id prefix (hex text), 2 (NodeId, name), 3 name or glob,
///        4 SHA-256 of the bytes
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Find {
    /// The query.
    pub query: Query,
    /// The cursor from [`Found::more`] of the last page.
    pub after: Option<Vec<u8>>,
    /// Most matches in the answer.
    pub limit: u16,
    /// Most holders of each match in the answer, at most 16.
    pub holders: u8,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Find {
    const TYPE: u16 = 18;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Find";

    fn check(&self) -> Result<(), WireError> {
        let cursor = self.after.as_ref().map_or(0, Vec::len);
        check_len::<Self>("cursor", cursor, CURSOR_MAX_BYTES)?;
        check_extensions::<Self>(&self.extensions)
    }
}

/// A node and its addresses: id, then a list of at most 8 candidates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeContact {
    /// The node's id.
    pub node: NodeId,
    /// Addresses at which it may be, at most 8.
    pub candidates: Vec<Candidate>,
}

/// A match of a lookup: a name and the content that it stands for.
///
/// ```text
/// name text │ kind │ info │ complete u32 │ partial u32 │ holders list ≤ 16 of (u16, bool) │
/// metadata bytes ≤ 256
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The name.
    pub name: AssetName,
    /// Its kind.
    pub kind: EntryKind,
    /// Length and root of the content.
    pub info: ContentInfo,
    /// Number of nodes that claim to have all of it. Not to be trusted.
    pub complete: u32,
    /// Number of nodes that claim to have part of it.
    pub partial: u32,
    /// Some of the holders: index into [`Found::nodes`], and whether it claims to have all of it.
    pub holders: Vec<(u16, bool)>,
    /// What these holders state about the file, merged ([`qshare_content::FileMetadata::merge`]);
    /// for a query by node, what that node states.
    pub metadata: Vec<u8>,
}

/// Whether a tracker's negative answers are final. On the wire: 0 ready, 1 warming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// It has run for long enough that every node has announced.
    Ready,
    /// It has just started; missing entries may still be announced.
    Warming,
}

/// `Found`: a page of matches in the order of names.
///
/// ```text
/// readiness │ matches list ≤ 1024 │ nodes list ≤ 4096 │ more option bytes ≤ 2048 │
/// near list of text ≤ 8 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Whether the absence of matches is final.
    pub readiness: Readiness,
    /// The matches.
    pub matches: Vec<Match>,
    /// The nodes that the matches refer to.
    pub nodes: Vec<NodeContact>,
    /// The next page's [`Find::after`]; None on the last page.
    pub more: Option<Vec<u8>>,
    /// If nothing was found: similar names.
    pub near: Vec<AssetName>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Found {
    const TYPE: u16 = 19;
    const BODY_MAX_BYTES: usize = 4 * LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "Found";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("matches", self.matches.len(), MATCHES_MAX)?;
        check_len::<Self>("near", self.near.len(), NEAR_NAMES_MAX)?;
        check_len::<Self>(
            "cursor",
            self.more.as_ref().map_or(0, Vec::len),
            CURSOR_MAX_BYTES,
        )?;
        check_contacts::<Self>(self.nodes.iter())?;
        check_infos::<Self>(self.matches.iter().map(|found| &found.info))?;
        for found in &self.matches {
            check_len::<Self>("holders", found.holders.len(), HOLDERS_PER_MATCH_MAX)?;
            check_len::<Self>("metadata", found.metadata.len(), METADATA_MAX_BYTES)?;
            if found
                .holders
                .iter()
                .any(|&(at, _)| usize::from(at) >= self.nodes.len())
            {
                return Err(WireError::Malformed(Self::NAME));
            }
        }
        check_extensions::<Self>(&self.extensions)
    }
}

/// Refuses lengths beyond that of the largest file.
fn check_infos<'a, M: Message>(
    mut infos: impl Iterator<Item = &'a ContentInfo>,
) -> Result<(), WireError> {
    match infos.any(|info| info.length > LENGTH_MAX_BYTES) {
        true => Err(WireError::Malformed(M::NAME)),
        false => Ok(()),
    }
}

fn check_contacts<'a, M: Message>(
    contacts: impl ExactSizeIterator<Item = &'a NodeContact>,
) -> Result<(), WireError> {
    // An answer may name HOLDERS_MAX nodes for each of a few contents.
    check_len::<M>("nodes", contacts.len(), 4 * MATCHES_MAX)?;
    let most = contacts
        .map(|contact| contact.candidates.len())
        .max()
        .unwrap_or(0);
    check_len::<M>("candidates", most, CANDIDATES_MAX)
}

/// `Watch`: asks who holds a content, now and as it changes, until the stream is closed.
///
/// ```text
/// content │ limit u16 │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The content.
    pub content: ContentId,
    /// Most holders in the first answer, at most 256.
    pub limit: u16,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for Watch {
    const TYPE: u16 = 20;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "Watch";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// A holder of a content: contact, then complete bool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The node and its addresses.
    pub contact: NodeContact,
    /// Whether it claims to have all of it.
    pub complete: bool,
}

/// `Holders`: a bounded random sample of the holders of a content.
///
/// ```text
/// readiness │ holders list ≤ 256
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// Whether the absence of holders is final.
    pub readiness: Readiness,
    /// The sample.
    pub holders: Vec<Holder>,
}

impl Message for Holders {
    const TYPE: u16 = 21;
    const BODY_MAX_BYTES: usize = LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "Holders";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("holders", self.holders.len(), HOLDERS_MAX)?;
        check_contacts::<Self>(self.holders.iter().map(|holder| &holder.contact))
    }
}

/// `HoldersChanged`: holders that came, changed or went since the last message.
///
/// ```text
/// joined list ≤ 256 │ left list of NodeId ≤ 1024
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldersChanged {
    /// New holders, and those that became complete or moved.
    pub joined: Vec<Holder>,
    /// Nodes that no longer hold the content.
    pub left: Vec<NodeId>,
}

impl Message for HoldersChanged {
    const TYPE: u16 = 22;
    const BODY_MAX_BYTES: usize = LIST_BODY_MAX_BYTES;
    const NAME: &'static str = "HoldersChanged";

    fn check(&self) -> Result<(), WireError> {
        check_len::<Self>("joined", self.joined.len(), HOLDERS_MAX)?;
        check_len::<Self>("left", self.left.len(), 4 * HOLDERS_MAX)?;
        check_contacts::<Self>(self.joined.iter().map(|holder| &holder.contact))
    }
}
