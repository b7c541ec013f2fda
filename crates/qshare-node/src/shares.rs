//! What this node offers: contents to serve from, and the catalogue that is announced.

pub(crate) mod availability;
pub(crate) mod catalogue;
pub(crate) mod contents;
