//! Finds files: asks all trackers and the nodes of the local network.

mod cursors;
mod find;
mod lan;
mod merge;
mod waiting;

pub(crate) use find::Lookup;
pub(crate) use lan::LanLookup;
