//! What callers and the registry say to each other about lookups.

use qshare_content::{
    AssetName, ContentId, ContentInfo, FileMetadata, NodeId, Query, QueryParseError,
};

use crate::types::{GroupId, Holder};

/// A lookup.
#[derive(Clone, Debug)]
pub struct Find {
    /// The group whose entries are searched.
    pub group: GroupId,
    /// What is wanted.
    pub query: Query,
    /// The end of the previous page ([`Page::more`]).
    pub after: Option<Cursor>,
    /// Most matches wanted, at least 1 and at most [`crate::RegistryConfig::page_max`].
    pub limit: usize,
    /// Holders wanted for each content.
    pub holders: usize,
    /// The asking node, which is never among the holders.
    pub asking: Option<NodeId>,
    /// Whether [`Page::near`] is wanted, which takes more work than anything else.
    pub near: bool,
}

/// The end of a page: a position in the order of the lookup. A client may send an altered one;
/// it only changes where that client's next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The order in which the lookup visits names.
    pub order: Order,
    /// Name of the last entry that the page passed.
    pub name: String,
    /// Its content.
    pub content: ContentId,
}

/// An order of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first byte on.
    Forward,
    /// From the last byte backwards, so that names with one ending are neighbours.
    Backward,
}

/// Whether a registry can be expected to know all entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has run for long enough that all nodes have announced themselves.
    Ready,
    /// The registry has just started: a file that was not found may still be announced.
    Warming,
}

/// A name and its content. Counts and holders are unverified claims, and include all holders of the
/// content, under any name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The name.
    pub name: AssetName,
    /// Length and root.
    pub info: ContentInfo,
    /// Whether the content is the manifest of a collection. A claim, as the name is.
    pub is_collection: bool,
    /// Number of nodes that have all of the content.
    pub complete: usize,
    /// Number of nodes that have some of it.
    pub partial: usize,
    /// A random sample of these nodes.
    pub holders: Vec<Holder>,
    /// What these nodes state about the file, merged. For a query by node, what that node states.
    pub metadata: FileMetadata,
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of names, then of ids; of ids alone for an id prefix. Where a glob's ending
    /// selects far fewer names than its beginning, in the order of reversed names. Two contents of
    /// one name are two matches, and so are two names of one content, except that an id prefix
    /// gives each content once.
    pub matches: Vec<Match>,
    /// The next page's [`Find::after`], if there may be more. A lookup that used up
    /// [`crate::RegistryConfig::lookup_steps_max`] returns a page that may be empty and still has
    /// a cursor, which lies behind the previous one.
    pub more: Option<Cursor>,
    /// If nothing was found, and [`Find::near`] is set: names that resemble the wanted one.
    pub near: Vec<AssetName>,
    /// Whether an empty answer is final.
    pub readiness: Readiness,
    /// The work done, in steps of some 4 ns.
    pub steps: u64,
}

impl Page {
    pub(crate) fn empty(readiness: Readiness) -> Page {
        Page {
            matches: Vec::new(),
            more: None,
            near: Vec::new(),
            readiness,
            steps: 0,
        }
    }
}

/// Some holders of a content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The holders.
    pub holders: Vec<Holder>,
    /// The work done, in steps of some 4 ns.
    pub steps: u64,
}

/// Why a lookup is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// The glob does not compile.
    #[error(transparent)]
    Glob(#[from] QueryParseError),
}
