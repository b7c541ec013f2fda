//! What callers and the registry say to each other about sessions, entries and holders.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use qshare_content::{AssetName, ContentId, ContentInfo, FileMetadata, NodeId, Topic};

/// Identifies a group without revealing its secret; all zero is the open swarm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub [u8; 32]);

impl GroupId {
    /// The swarm of all nodes that can reach the tracker.
    pub const OPEN: GroupId = GroupId([0; 32]);
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "GroupId({a:02x}{b:02x}…)")
    }
}

/// Identifies a session; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identifies a watch; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) u64);

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The addresses of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The source address of its packets.
    pub observed: SocketAddr,
    /// The addresses at which it claims to listen. The caller decides whom to tell of them.
    pub claimed: Arc<[SocketAddr]>,
}

/// A node that holds a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its addresses.
    pub contact: Contact,
    /// Whether it claims to have all of the content.
    pub complete: bool,
}

/// One entry of a node: a node has at most one for each name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The name that the node gives the content.
    pub name: AssetName,
    /// Length and root.
    pub info: ContentInfo,
    /// Whether the content is the manifest of a collection, not a file. The first node that
    /// announces a name and content decides.
    pub is_collection: bool,
    /// Whether the node has all of it.
    pub complete: bool,
    /// What the node states about the file.
    pub metadata: FileMetadata,
}

/// A topic of a node: a content that only those find who know its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedTopic {
    /// The topic.
    pub topic: Topic,
    /// Whether the node has all of the content.
    pub complete: bool,
}

/// Identifies an entry of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey {
    /// The name that the node gives the content.
    pub name: AssetName,
    /// The content.
    pub content: ContentId,
}

/// The session has ended, or the node opened a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct SessionGone;

/// Why a full announcement cannot end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnnouncing {
    /// The session has ended.
    #[error(transparent)]
    Gone(#[from] SessionGone),
    /// The session had begun none.
    #[error("no full announcement had begun")]
    NotBegun,
}

/// Why a session is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The registry is full, and no network has more nodes than the newcomer's would have.
    #[error("the tracker is full: it serves {limit} nodes")]
    Full {
        /// [`crate::RegistryConfig::nodes_max`].
        limit: usize,
    },
}

/// Why an entry is refused. The other entries of its batch are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file is longer than any file may be.
    #[error("the length is over {} bytes", qshare_content::LENGTH_MAX_BYTES)]
    TooLong,
    /// The node has reached its limit.
    #[error("a node may announce at most {limit} files")]
    NodeFull {
        /// [`crate::RegistryConfig::entries_per_node`].
        limit: usize,
    },
    /// The registry is full, and no node uses more of it than this node would.
    #[error("the tracker is full: it keeps {limit} entries")]
    RegistryFull {
        /// [`crate::RegistryConfig::entries_total`].
        limit: usize,
    },
    /// The memory for names is full, and no node uses more of the registry than this node would.
    #[error("the tracker is full: it keeps {limit_bytes} bytes of names")]
    NamesFull {
        /// [`crate::RegistryConfig::name_bytes_total`].
        limit_bytes: usize,
    },
}

/// An entry that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its position in the batch.
    pub position: usize,
    /// The reason.
    pub refusal: Refusal,
}

/// Entries of a node that were removed to make room for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Some of the entries, at most [`Evicted::LISTED_MAX`].
    pub entries: Vec<EntryKey>,
    /// The number of entries, listed ones included.
    pub count: u64,
}

impl Evicted {
    /// Entries that are listed until they are read; of further ones only the number is kept.
    pub const LISTED_MAX: usize = 64;
}

/// What happened to one holder of a watched content since the watcher was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderChange {
    /// It has some of the content now.
    Joined(Holder),
    /// It has all of the content now, or no longer all, or its addresses changed.
    Changed(Holder),
    /// It has nothing of the content any more.
    Left(NodeId),
}

/// Why a content cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The session has ended.
    #[error("the session has ended")]
    Gone,
    /// The session has reached its limit.
    #[error("a session may watch at most {limit} contents")]
    TooMany {
        /// [`crate::RegistryConfig::watches_per_session`].
        limit: usize,
    },
}

/// What the owner of a registry must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The node opened a newer session: close this one's connection. Its id is already invalid.
    Superseded(SessionId),
    /// The session was ended to make room for nodes of other networks: close its connection. Its
    /// id is already invalid.
    SessionEvicted(SessionId),
    /// Entries of this node were removed to make room for others: tell it what
    /// [`crate::Registry::take_evicted`] returns.
    EntriesEvicted(GroupId, NodeId),
    /// A watched content changed: call [`crate::Registry::poll_change`] until it returns `None`.
    WatchReady(WatchId),
}

/// When to call [`crate::Registry::handle_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The time of the call; may have passed already.
    pub at: Instant,
    /// What is due then.
    pub reason: TimeoutReason,
}

/// What a timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReason {
    /// The lease of a lost node expires.
    LeaseExpires,
    /// Entries of nodes that left, or changes for watchers, are not all processed yet. Each call
    /// processes a bounded number.
    WorkIsLeft,
}

/// How much a registry holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open sessions.
    pub sessions: usize,
    /// Nodes with a session or a lease.
    pub nodes: usize,
    /// Entries of all nodes.
    pub entries: usize,
    /// Distinct (name, content) pairs of each group.
    pub assets: usize,
    /// Distinct contents of each group.
    pub contents: usize,
    /// Bytes of names.
    pub name_bytes: usize,
    /// Open watches.
    pub watches: usize,
    /// Entries that were removed to make room for others since the start.
    pub evicted: u64,
}
