//! Who holds what, until when: the registry behind a tracker.
//!
//! Pure: no socket, no clock, no log. The caller passes the time in, randomness comes from one
//! seed, and the same calls in the same order give the same answers.
//!
//! [`Registry`] is told what happened (`handle_*`), answers lookups ([`Registry::find`],
//! [`Registry::holders`]) and says what to do ([`Registry::poll_output`],
//! [`Registry::poll_timeout`]). After each call, drain the outputs. A call takes a few
//! milliseconds at most: lookups end with a cursor, and what remains of other calls is worked off
//! by the following ones. A tracker uses it through the trait [`RegistryBackend`].
//!
//! Everything is kept per [`GroupId`]: entries of one group cannot be seen from another.

mod backend;
mod catalog;
mod config;
mod find;
mod group;
mod holders;
mod index;
mod lookup;
mod near;
mod node;
mod registry;
mod resources;
mod slab;
mod types;
mod upkeep;
mod watch;
mod work;

pub use backend::RegistryBackend;
pub use config::RegistryConfig;
pub use lookup::{Cursor, Find, FindError, Match, Order, Page, Readiness, Sample};
pub use registry::Registry;
pub use types::{
    Announced, Contact, Counts, EntryKey, Evicted, GroupId, Holder, HolderChange, NotAnnouncing,
    OpenError, Output, Refusal, Refused, SessionGone, SessionId, Timeout, TimeoutReason,
    WatchError, WatchId,
};
