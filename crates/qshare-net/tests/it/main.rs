//! The integration tests of this crate, one binary.

mod relayed;
mod sessions;
