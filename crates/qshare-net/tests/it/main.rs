//! The integration tests of this crate, one binary.

mod moved;
mod relayed;
mod sessions;
