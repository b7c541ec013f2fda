//! Who holds what, until when: the registry behind a tracker.
//!
//! Pure: no socket, no clock, no log. Time is passed in, randomness comes from one seed, and
//! the same calls in the same order give the same answers.
//!
//! [`Registry`] takes what happened (`handle_*`), answers lookups ([`Registry::find`],
//! [`Registry::holders`]) and says what is to be done ([`Registry::poll_output`],
//! [`Registry::poll_timeout`]). After each call, drain the outputs.
//!
//! Everything is kept per [`GroupId`]: what one group announced cannot be seen from another.

mod catalog;
mod config;
mod find;
mod holders;
mod near;
mod registry;
mod room;
mod slab;
mod watch;
mod work;

pub use config::RegistryConfig;
pub use find::{Cursor, Find, FindError, Match, Page, Readiness};
pub use registry::{
    Announced, Contact, Counts, EntryKey, GroupId, Holder, NotAnnouncing, OpenError, Output,
    Refusal, Refused, Registry, Sample, SessionGone, SessionId, Timeout, TimeoutReason,
};
pub use watch::{HolderChange, WatchError, WatchId};
