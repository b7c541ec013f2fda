//! What a node and a tracker say to each other.
//!
//! On the control stream, after Hello: the node sends [`Announce`], the tracker answers each with
//! [`AnnounceAck`]. A full announcement comes first, then only differences.
//!
//! Each on a stream of its own, opened by the node: [`Find`] is answered by [`Found`]; [`Watch`]
//! by [`Holders`] and then, for as long as the stream stays open, by [`HoldersChanged`] whenever
//! there is something to tell. Either may be answered by [`crate::Refused`] instead.

use qshare_content::{AssetName, ContentId, ContentInfo, LENGTH_MAX_BYTES, NodeId, Query};
use serde::{Deserialize, Serialize};

use crate::frame::check_len;
use crate::hello::{Extensions, check_extensions};
use crate::limits::{
    ANNOUNCE_ENTRIES_MAX, CANDIDATES_MAX, CURSOR_MAX_BYTES, HOLDERS_MAX, HOLDERS_PER_MATCH_MAX,
    LIST_BODY_MAX_BYTES, MATCHES_MAX, METADATA_MAX_BYTES, NEAR_NAMES_MAX, SMALL_BODY_MAX_BYTES,
};
use crate::{Candidate, Message, PeerText, WireError};

/// What is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// A file.
    File,
    /// Reserved: a list of files.
    Collection,
}

/// One thing that a node shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the node calls it.
    pub name: AssetName,
    /// What it is.
    pub kind: EntryKind,
    /// Length and root.
    pub info: ContentInfo,
    /// Whether the node has all of it.
    pub complete: bool,
    /// Reserved, 0.
    pub flags: u32,
    /// Reserved, at most 256 bytes.
    pub metadata: Vec<u8>,
}

/// Names an entry of a node: the same name may stand for two contents (two shared directories).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryKey {
    /// What the node calls it.
    pub name: AssetName,
    /// Which content.
    pub content: ContentId,
}

/// Where a batch stands in what a node announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnnounceStage {
    /// The first batch of everything that the node shares.
    FullBegin,
    /// A further batch.
    FullMore,
    /// The last one: what an earlier session announced and this one did not is gone.
    FullEnd,
    /// A difference to what was announced.
    Delta,
}

/// `Announce`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Counts up by one from 0 with each batch of a connection.
    pub sequence: u64,
    /// Where this batch stands.
    pub stage: AnnounceStage,
    /// New or changed entries.
    pub entries: Vec<Entry>,
    /// Entries that are no more.
    pub removed: Vec<EntryKey>,
    /// Additions of later versions.
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

/// `AnnounceAck`: the batch is in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceAck {
    /// The batch's number.
    pub sequence: u64,
    /// How many of its entries were not taken.
    pub refused: u32,
    /// Why, for people; empty when all were taken.
    pub reason: PeerText,
}

impl Message for AnnounceAck {
    const TYPE: u16 = 17;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "AnnounceAck";
}

/// `Find`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Find {
    /// What is looked up.
    pub query: Query,
    /// Where the last page ended, as [`Found::more`] said.
    pub after: Option<Vec<u8>>,
    /// Most matches wanted.
    pub limit: u16,
    /// Most holders wanted for each match, at most 16.
    pub holders: u8,
    /// Additions of later versions.
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

/// A node that holds something, and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeContact {
    /// Who it is.
    pub node: NodeId,
    /// Where it may be, at most 8.
    pub candidates: Vec<Candidate>,
}

/// One answer to a lookup: a name and the content that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The name.
    pub name: AssetName,
    /// What it is.
    pub kind: EntryKind,
    /// Length and root.
    pub info: ContentInfo,
    /// Nodes that say they have all of it. A claim, never a reason for trust.
    pub complete: u32,
    /// Nodes that say they have part of it.
    pub partial: u32,
    /// Some of them: positions in [`Found::nodes`], and whether they have all of it.
    pub holders: Vec<(u16, bool)>,
}

/// Whether a tracker can be expected to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// It has been up for long enough to have heard of everybody.
    Ready,
    /// It has just started; what was not found may still be announced.
    Warming,
}

/// `Found`, a page of answers in the order of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Whether nothing means nothing.
    pub readiness: Readiness,
    /// The matches.
    pub matches: Vec<Match>,
    /// The nodes that the matches refer to.
    pub nodes: Vec<NodeContact>,
    /// There is more: the next page's [`Find::after`].
    pub more: Option<Vec<u8>>,
    /// Where nothing was found: names that look like it.
    pub near: Vec<AssetName>,
    /// Additions of later versions.
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

/// Lengths that no chunk index could reach do not get past here.
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
    // One answer may name HOLDERS_MAX nodes for each of a few contents.
    check_len::<M>("nodes", contacts.len(), 4 * MATCHES_MAX)?;
    let most = contacts
        .map(|contact| contact.candidates.len())
        .max()
        .unwrap_or(0);
    check_len::<M>("candidates", most, CANDIDATES_MAX)
}

/// `Watch`: who holds this content, now and as it changes, until the stream is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Which content.
    pub content: ContentId,
    /// Most holders wanted at first, at most 256.
    pub limit: u16,
    /// Additions of later versions.
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

/// A node that holds a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who and where.
    pub contact: NodeContact,
    /// Whether it says that it has all of it.
    pub complete: bool,
}

/// `Holders`, a bounded random sample of those who hold a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// Whether nobody means nobody.
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

/// `HoldersChanged`: who came, changed or went since the last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldersChanged {
    /// New holders, and those that became complete or moved.
    pub joined: Vec<Holder>,
    /// Those that no longer hold it.
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
