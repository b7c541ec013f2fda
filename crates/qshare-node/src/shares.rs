//! What this node offers to others: where the bytes come from, and what is announced about them.

mod availability;
mod catalogue;
mod contents;
mod store;

pub(crate) use catalogue::{Announced, Delta, Listing, key_of};
pub(crate) use contents::{Holding, PartialContent};
pub(crate) use store::{Finished, ShareStore};
