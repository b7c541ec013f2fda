//! The registry behind a tracker: which nodes hold which contents, and until when.
//!
//! Pure: no socket, no clock, no log. The caller passes the time in, randomness comes from one
//! seed, and the same calls in the same order give the same answers.
//!
//! The caller of a [`Registry`] reports events (`handle_*`), looks up files and holders
//! ([`Registry::find`], [`Registry::holders`]), and carries out the outputs
//! ([`Registry::poll_output`], [`Registry::poll_timeout`]). After each call, drain the outputs. A
//! call takes a few milliseconds at most: lookups end with a cursor, and later calls finish the
//! remaining work of earlier ones.
//!
//! The other implementation is in qshare-tracker: several trackers over one Redis, each with a
//! [`Registry`] of its own nodes in front. What both promise to nodes is the conformance suite in
//! `tests/it/conformance`, which runs against this crate and against trackers.
//!
//! Everything is kept per [`GroupId`]: entries of one group cannot be seen from another.

mod catalog;
mod config;
mod digests;
mod find;
mod group;
mod holders;
mod index;
mod inventory;
mod lookup;
mod near;
mod network_use;
mod node;
mod registry;
mod resources;
mod slab;
mod types;
mod upkeep;
mod watch;
mod work;

pub use config::RegistryConfig;
pub use inventory::{EntryPosition, is_topic, topic_entry, topic_key};
pub use lookup::{Cursor, Find, FindError, Match, Order, Page, Readiness, Sample};
pub use near::similar_names;
pub use network_use::NetworkUse;
pub use registry::Registry;
pub use types::{
    Announced, AnnouncedTopic, Contact, Counts, EntryKey, Evicted, GroupId, Holder, HolderChange,
    NotAnnouncing, OpenError, Output, Refusal, Refused, SessionGone, SessionId, Timeout,
    TimeoutReason, WatchError, WatchId,
};
