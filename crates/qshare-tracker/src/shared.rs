//! The shared registry: several trackers over one Redis (or Valkey) answer as one.
//!
//! Each tracker keeps the entries of its own sessions in memory, as a tracker alone does, and
//! answers from there. This module publishes them to Redis and reads what others published:
//!
//! | module | contents |
//! |---|---|
//! | `address` | the URL of a registry, and what it takes to trust it |
//! | `link` | a connection that heals itself: one server, a cluster, or a Sentinel's master |
//! | `layout` | the keys and values in Redis |
//! | `scripts` | the scripts that change them |
//! | `session_record` | a node's session as other trackers read it |
//! | `publisher` | publishes sessions and entries of this tracker's nodes |
//! | `reader` | reads names, contents, holders and sessions of other trackers' nodes |
//! | `own_sessions` | which entries of its nodes this tracker has in memory |
//! | `lookup` | answers lookups: the reader behind a cache of one second |
//! | `merge` | joins these answers with those of the registry in memory |
//! | `watches` | follows the holders of watched contents |
//! | `inbox` | messages from tracker to tracker |
//! | `introduction` | introductions of nodes of two trackers |
//! | `mailbox_records` | mailboxes of codes |
//! | `pairing` | runs of receivers at mailboxes of another tracker |
//! | `refusals` | whether Redis refuses writes |
//! | `siblings` | the other trackers, which nodes are told of |
//! | `usage` | what networks use of all trackers together |
//! | `service` | composes these parts |
//!
//! What is published is ordered by a number that the node gives its session. Every write and
//! removal is conditional on it, and readers ignore entries that an older session published. So
//! neither a paused tracker nor a delayed command brings back what a node withdrew.

mod address;
mod answers;
mod inbox;
mod introduction;
mod layout;
mod link;
mod lookup;
mod mailbox_records;
mod merge;
mod own_sessions;
mod pairing;
mod publisher;
mod reader;
mod refusals;
mod scripts;
mod service;
mod session_record;
mod siblings;
mod usage;
mod watches;

pub use address::{InvalidRegistry, RegistryAddress, SharedRegistryConfig};
pub(crate) use introduction::{IntroductionRequest, IntroductionResult};
pub use link::RegistryFault;
pub(crate) use lookup::SharedLookup;
pub(crate) use mailbox_records::{
    MailboxRecords, MailboxTimes, RecordClaim, RecordClaimed, RecordState,
};
pub(crate) use merge::OwnNodes;
pub(crate) use pairing::{HostedRun, OpenRun, ReceiverStep, RemoteRun, SharerStep};
pub(crate) use publisher::OwnEntries;
pub use refusals::WriteRefusal;
pub(crate) use service::{SharedRegistry, TrackerPeer};
pub(crate) use usage::TrackerUse;
pub(crate) use watches::RemoteHolders;
