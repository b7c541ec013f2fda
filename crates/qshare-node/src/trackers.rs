//! Sessions with trackers.

pub(crate) mod session;
