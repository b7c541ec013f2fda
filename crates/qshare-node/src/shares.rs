//! The files that this node offers: the source of their bytes, and their announcement.

mod availability;
mod catalogue;
mod contents;
mod store;

pub(crate) use catalogue::{Announced, Delta, Listing, key_of};
pub(crate) use contents::{Holding, PartialContent};
pub(crate) use store::{Finished, ShareStore};
