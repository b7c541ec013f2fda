//! The files that this node offers: the source of their bytes, and their announcement.

mod audience;
mod availability;
mod catalogue;
mod collections;
mod contents;
pub(crate) mod digests;
mod marks;
mod memory;
mod private;
mod store;

pub use audience::Audience;
pub(crate) use catalogue::{Announced, Delta, Listing, key_of};
pub(crate) use collections::{Membership, SharedCollection};
pub(crate) use contents::{Holding, PartialContent};
pub(crate) use memory::MemoryContent;
pub(crate) use private::{Found, TopicState};
pub(crate) use store::{Finished, ShareStore};
